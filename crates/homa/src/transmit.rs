//! What leaves an endpoint: one packet at a time, as a header and a slice of a message.
//!
//! A [`PacketOut`] is not put together yet. The driver writes the header where the packet is to lie, and
//! copies the bytes of the message there or takes a counted slice of them. A [`Transmit`] is the same
//! with a header and a slice of its own, for those that keep it.

use core::net::SocketAddr;
use core::ops::Range;

use peyk_sockbuf::Payload;
use peyk_wire::homa::{DATA_HEADER_LEN, Data};

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

/// Where the common header holds the id of the RPC.
const ID_AT: usize = 20;

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

/// A packet to send, of which nothing is put together yet.
#[derive(Debug)]
pub struct PacketOut<'a> {
    /// Where to.
    pub path: Path,
    /// Network priority, as in [`Transmit`].
    pub priority: u8,
    head: Head,
    message: &'a Payload,
    /// The bytes of the message after the header.
    range: Range<usize>,
}

/// A header: of DATA the fields, of all other packets the bytes.
#[derive(Debug)]
enum Head {
    Data(Data<'static>),
    Bytes(PacketHeader),
}

static NOTHING: Payload = Payload::new();

impl<'a> PacketOut<'a> {
    /// DATA with a range of a message.
    #[inline]
    pub(crate) fn data(
        path: Path,
        priority: u8,
        data: Data<'static>,
        message: &'a Payload,
        range: Range<u32>,
    ) -> PacketOut<'a> {
        let range = range.start as usize..range.end as usize;
        PacketOut { path, priority, head: Head::Data(data), message, range }
    }

    /// A packet without payload.
    pub(crate) fn control(path: Path, priority: u8, header: PacketHeader) -> PacketOut<'a> {
        PacketOut { path, priority, head: Head::Bytes(header), message: &NOTHING, range: 0..0 }
    }

    /// Number of bytes of the header.
    #[inline]
    pub fn header_len(&self) -> usize {
        match &self.head {
            Head::Data(_) => DATA_HEADER_LEN,
            Head::Bytes(header) => header.len(),
        }
    }

    /// Writes the header.
    ///
    /// # Panics
    /// If `out` is not as long as it.
    #[inline]
    pub fn write_header(&self, out: &mut [u8]) {
        match &self.head {
            Head::Data(data) => data.emit_header(out.try_into().expect("room for the header, and no more")),
            Head::Bytes(header) => out.copy_from_slice(header.as_slice()),
        }
    }

    /// The id in the header, that of the RPC as its sender knows it; 0 in what is too short for one.
    #[inline]
    pub fn id(&self) -> u64 {
        match &self.head {
            Head::Data(data) => data.header.sender_id,
            Head::Bytes(header) => {
                let id = header.as_slice().get(ID_AT..).and_then(|rest| rest.first_chunk());
                id.map_or(0, |id| u64::from_be_bytes(*id))
            }
        }
    }

    /// The message that the payload is a part of; empty for all packets but DATA.
    #[inline]
    pub fn message(&self) -> &'a Payload {
        self.message
    }

    /// Which part of the message it is.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Number of bytes of the payload.
    #[inline]
    pub fn payload_len(&self) -> usize {
        self.range.len()
    }

    /// Bytes of the Homa packet: header and payload.
    #[allow(clippy::len_without_is_empty)]
    #[inline]
    pub fn len(&self) -> usize {
        self.header_len() + self.payload_len()
    }

    /// The packet for one who keeps it.
    #[inline]
    pub fn to_transmit(&self) -> Transmit {
        let header = match &self.head {
            Head::Data(data) => PacketHeader::build(|out| {
                let (head, _) = out.split_first_chunk_mut().expect("an ACK is longer than DATA's header");
                data.emit_header(head);
                DATA_HEADER_LEN
            }),
            Head::Bytes(header) => *header,
        };
        let payload = self.message.slice(self.range());
        Transmit { path: self.path, priority: self.priority, header, payload }
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
    /// The packet as drivers take it.
    pub fn as_out(&self) -> PacketOut<'_> {
        let (path, priority, head) = (self.path, self.priority, Head::Bytes(self.header));
        PacketOut { path, priority, head, message: &self.payload, range: 0..self.payload.len() }
    }

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
