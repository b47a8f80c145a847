//! Homa packets in capture files: written as pcapng, read from pcapng and classic pcap.
//!
//! [`Writer`] makes files that Wireshark opens: raw IP packets with true lengths and checksums and
//! times in nanoseconds. [`Reader`] finds the Homa packets of any capture with an Ethernet, raw IP,
//! loopback or Linux cooked link, and [`decode`] turns them into text. The file formats and the
//! headers below Homa are the work of the crates `pcap-file` and `etherparse`; nothing here opens
//! files or sockets or knows the protocol beyond its packets.

mod decode;
mod find;
mod input;
mod reader;
mod writer;

pub use decode::{Decode, decode};
pub use find::Finder;
pub use reader::{Counts, Reader};
pub use writer::Writer;

use core::fmt;
use core::net::SocketAddr;
use thiserror::Error;

/// UDP port of Peyk's UDP carriage, unless configured otherwise.
pub const DEFAULT_UDP_PORT: u16 = 14600;

/// What a Homa packet travels in.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Carriage {
    /// Directly in IP, as protocol 146.
    Ip,
    /// Directly in IP, disguised as TCP (HomaModule's "hijacking").
    Tcp,
    /// In UDP.
    Udp,
}

impl Carriage {
    /// A short word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Carriage::Ip => "ip",
            Carriage::Tcp => "tcp",
            Carriage::Udp => "udp",
        }
    }
}

impl fmt::Display for Carriage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// All that a capture says about a packet apart from its bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// When it was captured, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Where it came from; the port is 0 unless it travelled in UDP.
    pub source: SocketAddr,
    /// Where it went; the port is 0 unless it travelled in UDP.
    pub destination: SocketAddr,
    /// What it travelled in.
    pub carriage: Carriage,
    /// TOS byte of IPv4 or Traffic Class of IPv6.
    pub traffic_class: u8,
}

impl Envelope {
    /// The Homa priority in the traffic class, 0..=7.
    pub const fn priority(&self) -> u8 {
        self.traffic_class >> 5
    }
}

/// A Homa packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the packet in the file, from 1, as Wireshark counts.
    pub number: u64,
    /// When, from where to where, in what.
    pub envelope: Envelope,
    /// The packet, link padding removed. Not yet parsed: a broken packet is a record too.
    pub payload: Vec<u8>,
    /// Whether the capture cut the end of the packet off.
    pub truncated: bool,
}

/// Why a capture cannot be read (further). Reading ends with it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file starts like no capture.
    #[error("neither a pcap nor a pcapng file")]
    NotACapture,
    /// A classic pcap file of a link that is not understood.
    #[error("link type {link} is not understood (Ethernet, raw IP, loopback, Linux cooked are)")]
    UnsupportedLink {
        /// The number of the link type, as tcpdump.org lists them.
        link: u32,
    },
    /// The file could not be read, or ends within a packet.
    #[error("cannot read at byte {offset}, after packet {packet}: {source}")]
    Read {
        /// Packets read before.
        packet: u64,
        /// Where the packet or block begins that could not be read, in bytes.
        offset: u64,
        /// What happened.
        source: std::io::Error,
    },
    /// The file contradicts its format.
    #[error("malformed at byte {offset}, after packet {packet}: {reason}")]
    Malformed {
        /// Packets read before.
        packet: u64,
        /// Where the malformed packet or block begins, in bytes.
        offset: u64,
        /// What is wrong.
        reason: pcap_file::PcapError,
    },
}

#[cfg(test)]
mod tests;
