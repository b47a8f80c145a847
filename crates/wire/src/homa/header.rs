//! The common header, first in every packet. It overlays a TCP header, so that network cards can
//! segment and steer Homa as if it were TCP.
//!
//! ```text
//!  0       2       4               8           11   12     13      14       16         18       20
//!  | sport | dport | sequence      | ack high  |type| doff | flags | window | checksum | urgent | sender id 8 |
//! ```

use super::{ParseError, be16, be32, be64};
use core::fmt;

/// Bytes of the common header.
pub const HEADER_LEN: usize = 28;
/// Where the type code stands in the packet.
pub const TYPE_AT: usize = 11;
/// Where the checksum stands in the packet.
pub const CHECKSUM_AT: usize = 16;
/// The TCP flags byte HomaModule writes in all packets: SYN and RST.
pub const FLAGS_HOMA: u8 = 0x06;
/// The urgent pointer HomaModule writes in all packets.
pub const URGENT_HOMA: u16 = 0xb97d;
/// `doff` of DATA: 14 units of 4 bytes, the whole header.
pub const DOFF_DATA: u8 = 0xe0;
/// `doff` of DATA cut from a segmentation frame of HomaModule: 13 units, without `seg_offset`.
pub const DOFF_DATA_SEGMENT: u8 = 0xd0;
/// `doff` of all other packets: 5 units. Some cards drop other values when Homa travels as TCP.
pub const DOFF_CONTROL: u8 = 0x50;

/// Packet type codes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Bytes of a message, from its sender.
    Data = 0x10,
    /// Permission to send, from the receiver of a message.
    Grant = 0x11,
    /// Request for missing bytes, from the receiver of a message.
    Resend = 0x12,
    /// "I know no such RPC", in answer to RESEND.
    RpcUnknown = 0x13,
    /// "Alive, but not now", in answer to RESEND.
    Busy = 0x14,
    /// Unscheduled priority cutoffs of the receiver of messages.
    Cutoffs = 0x15,
    /// Stops the time trace of HomaModule; debugging only.
    Freeze = 0x16,
    /// A server asks its client for an ACK.
    NeedAck = 0x17,
    /// A client is done with RPCs.
    Ack = 0x18,
    /// The request cannot be served (Peyk's own; the UDP carriage has no ICMP of Homa ports).
    Unreachable = 0x20,
}

impl PacketType {
    /// All types, by code.
    pub const ALL: [PacketType; 10] = [
        PacketType::Data,
        PacketType::Grant,
        PacketType::Resend,
        PacketType::RpcUnknown,
        PacketType::Busy,
        PacketType::Cutoffs,
        PacketType::Freeze,
        PacketType::NeedAck,
        PacketType::Ack,
        PacketType::Unreachable,
    ];

    /// The type with this code on the wire.
    #[inline]
    pub const fn from_code(code: u8) -> Option<PacketType> {
        Some(match code {
            0x10 => PacketType::Data,
            0x11 => PacketType::Grant,
            0x12 => PacketType::Resend,
            0x13 => PacketType::RpcUnknown,
            0x14 => PacketType::Busy,
            0x15 => PacketType::Cutoffs,
            0x16 => PacketType::Freeze,
            0x17 => PacketType::NeedAck,
            0x18 => PacketType::Ack,
            0x20 => PacketType::Unreachable,
            _ => return None,
        })
    }

    /// The code on the wire.
    #[inline]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name in the spelling of the Homa documents.
    pub const fn name(self) -> &'static str {
        match self {
            PacketType::Data => "DATA",
            PacketType::Grant => "GRANT",
            PacketType::Resend => "RESEND",
            PacketType::RpcUnknown => "RPC_UNKNOWN",
            PacketType::Busy => "BUSY",
            PacketType::Cutoffs => "CUTOFFS",
            PacketType::Freeze => "FREEZE",
            PacketType::NeedAck => "NEED_ACK",
            PacketType::Ack => "ACK",
            PacketType::Unreachable => "UNREACHABLE",
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The common header. Fields without a meaning for Homa are kept, so that a parsed packet is
/// emitted again as it was.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Homa port of the sender.
    pub sport: u16,
    /// Homa port of the receiver.
    pub dport: u16,
    /// DATA: message offset of the first payload byte, unless `seg_offset` says otherwise; else 0.
    pub sequence: u32,
    /// High bytes of what would be TCP's acknowledgement; 0, ignored.
    pub ack_high: [u8; 3],
    /// Packet type.
    pub kind: PacketType,
    /// TCP's data offset, in the high four bits and units of 4 bytes; ignored.
    pub doff: u8,
    /// TCP's flags; [`FLAGS_HOMA`], ignored outside TCP.
    pub flags: u8,
    /// TCP's window; 0, ignored.
    pub window: u16,
    /// TCP's checksum, possibly partial, possibly 0; ignored.
    pub checksum: u16,
    /// TCP's urgent pointer; [`URGENT_HOMA`], ignored outside TCP.
    pub urgent: u16,
    /// The RPC id as the sender of the packet knows it: even at the client, odd at the server.
    pub sender_id: u64,
}

impl Header {
    /// A header as HomaModule writes it, checksum and sequence 0.
    #[inline]
    pub const fn new(kind: PacketType, sport: u16, dport: u16, sender_id: u64) -> Header {
        let doff = match kind {
            PacketType::Data => DOFF_DATA,
            _ => DOFF_CONTROL,
        };
        Header {
            sport,
            dport,
            sequence: 0,
            ack_high: [0; 3],
            kind,
            doff,
            flags: FLAGS_HOMA,
            window: 0,
            checksum: 0,
            urgent: URGENT_HOMA,
            sender_id,
        }
    }

    /// A header for an answer to this one: ports swapped, the id as the other side knows it.
    #[inline]
    pub const fn reply(&self, kind: PacketType) -> Header {
        Header::new(kind, self.dport, self.sport, self.local_id())
    }

    /// The RPC id as the receiver of the packet knows it.
    #[inline]
    pub const fn local_id(&self) -> u64 {
        self.sender_id ^ 1
    }

    /// Whether the sender of the packet is the client of the RPC.
    #[inline]
    pub const fn is_from_client(&self) -> bool {
        self.sender_id & 1 == 0
    }

    /// Parses the first [`HEADER_LEN`] bytes and checks the type, not yet the length of the type.
    ///
    /// # Errors
    /// Too few bytes, or an unknown type.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Header, ParseError> {
        let Some(b) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(ParseError::NoHeader { length: bytes.len() });
        };
        let Some(kind) = PacketType::from_code(b[TYPE_AT]) else {
            return Err(ParseError::UnknownType { code: b[TYPE_AT] });
        };
        Ok(Header {
            sport: be16(b, 0),
            dport: be16(b, 2),
            sequence: be32(b, 4),
            ack_high: [b[8], b[9], b[10]],
            kind,
            doff: b[12],
            flags: b[13],
            window: be16(b, 14),
            checksum: be16(b, CHECKSUM_AT),
            urgent: be16(b, 18),
            sender_id: be64(b, 20),
        })
    }

    /// The bytes of the header.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        self.write(&mut out);
        out
    }

    /// Writes the header to the front of `out`, which is at least as long (checked at compile time
    /// by the callers' constant lengths).
    #[inline(always)]
    pub(super) fn write<const N: usize>(&self, out: &mut [u8; N]) {
        out[0..2].copy_from_slice(&self.sport.to_be_bytes());
        out[2..4].copy_from_slice(&self.dport.to_be_bytes());
        out[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        out[8..11].copy_from_slice(&self.ack_high);
        out[TYPE_AT] = self.kind.code();
        out[12] = self.doff;
        out[13] = self.flags;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        out[16..18].copy_from_slice(&self.checksum.to_be_bytes());
        out[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        out[20..28].copy_from_slice(&self.sender_id.to_be_bytes());
    }
}
