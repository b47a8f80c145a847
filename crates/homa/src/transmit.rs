//! What leaves an endpoint: one packet at a time, as a header and a slice of a message.
//!
//! The payload is not copied: it is a counted slice of the message that the application handed
//! over, to be gathered by the driver.

use core::net::SocketAddr;

use peyk_sockbuf::Payload;

/// How a packet travels between two hosts.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// The other host: its IP address and UDP port, or port 0 when Homa follows the IP header
    /// directly (protocol 146).
    pub remote: SocketAddr,
    /// Which of the driver's own carriage sockets is used; meaningless to the protocol.
    pub local: u16,
}

/// A Homa port on another host.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerAddr {
    /// The way to the host.
    pub path: Path,
    /// The Homa port there.
    pub port: u16,
}

/// The longest header of any packet: an ACK.
pub const MAX_HEADER_LEN: usize = 80;

/// The bytes of a packet before its payload, held inline.
#[derive(Copy, Clone)]
pub struct PacketHeader {
    len: u8,
    bytes: [u8; MAX_HEADER_LEN],
}

impl PacketHeader {
    /// A header whose bytes `write` fills in; it returns how many it wrote.
    ///
    /// # Panics
    /// If `write` claims more than [`MAX_HEADER_LEN`] bytes.
    pub(crate) fn build(write: impl FnOnce(&mut [u8; MAX_HEADER_LEN]) -> usize) -> PacketHeader {
        let mut bytes = [0; MAX_HEADER_LEN];
        let len = write(&mut bytes);
        assert!(len <= MAX_HEADER_LEN, "no Homa header is longer than an ACK");
        PacketHeader { len: len as u8, bytes }
    }

    /// A header made of these bytes, for drivers that spoil packets on purpose and for tests.
    ///
    /// # Panics
    /// If there are more than [`MAX_HEADER_LEN`].
    pub fn copy_from(bytes: &[u8]) -> PacketHeader {
        PacketHeader::build(|out| {
            out[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        })
    }

    /// The header's bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Number of bytes, never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }
}

impl AsRef<[u8]> for PacketHeader {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl core::fmt::Debug for PacketHeader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("PacketHeader").field(&self.as_slice()).finish()
    }
}

/// One packet to send.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Where to.
    pub path: Path,
    /// Network priority, 0 (lowest) to 7: the top three bits of the IPv4 TOS byte or the IPv6
    /// traffic class.
    pub priority: u8,
    /// The Homa header.
    pub header: PacketHeader,
    /// The bytes after the header; empty for all packets but DATA.
    pub payload: Payload,
}

impl Transmit {
    /// Bytes of the Homa packet: header and payload.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// The packet as one run of bytes, appended to `out`; for tests and captures.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.header.as_slice());
        for chunk in self.payload.chunks() {
            out.extend_from_slice(chunk);
        }
    }
}

/// What became of a packet handed to
/// [`Endpoint::handle_packet`](crate::Endpoint::handle_packet).
///
/// A raw IP driver answers [`NoSocket`](Disposition::NoSocket) with an ICMP "port unreachable",
/// which UDP carriage cannot express: there the endpoint sends its own UNREACHABLE packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Understood and acted upon, or of no use any more; see the counters.
    Handled,
    /// Malformed or not acceptable; counted.
    Dropped,
    /// For a port that no socket has, or for the server side of a socket that is not a server.
    NoSocket,
}
