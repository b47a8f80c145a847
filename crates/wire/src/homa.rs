//! Homa packets as on the wire of HomaModule (July 2026), all fields big-endian.
//!
//! ```text
//!            0         28                 56
//! DATA       | header  | DATA fields 28   | payload ...
//! GRANT      | header  | offset 4 | priority 1 | 0 |
//! RESEND     | header  | offset 4 | length 4 | priority 1 |
//! CUTOFFS    | header  | cutoffs 8 x 4 | version 2 |
//! ACK        | header  | num_acks 2 | 5 x (client id 8, server port 2) |
//! UNREACHABLE| header  | code 1 | 0 0 0 |                    (Peyk's own)
//! RPC_UNKNOWN, BUSY, FREEZE, NEED_ACK: the header alone
//! ```
//!
//! [`Packet::parse`] checks all that needs no state: the type, the length each type must have, and
//! that a DATA packet lies inside a message of a possible length. Whether a packet suits its RPC is
//! the endpoint's business. What parses is emitted again to the same bytes; bytes after a control
//! packet are ignored, as HomaModule does.

mod ack;
mod control;
mod cutoffs;
mod data;
mod error;
mod grant;
mod header;
mod pretty;
mod resend;
mod unreachable;

pub use ack::{ACK_LEN, Ack, AckEntry, MAX_ACKS};
pub use cutoffs::{CUTOFFS_LEN, Cutoffs};
pub use data::{DATA_HEADER_LEN, Data, OFFSET_IN_SEQUENCE};
pub use error::ParseError;
pub use grant::{GRANT_LEN, GRANT_LEN_MIN, Grant};
pub use header::{
    CHECKSUM_AT, DOFF_CONTROL, DOFF_DATA, DOFF_DATA_SEGMENT, FLAGS_HOMA, HEADER_LEN, Header, PacketType,
    TYPE_AT, URGENT_HOMA,
};
pub use resend::{RESEND_ALL, RESEND_LEN, RESEND_LEN_MIN, Resend};
pub use unreachable::{UNREACHABLE_LEN, Unreachable, UnreachableCode};

use crate::checksum;
use core::net::IpAddr;

/// Longest message HomaModule carries, in bytes.
pub const MAX_MESSAGE_LENGTH: u32 = 1_000_000;
/// Longest message a packet may speak of. Peyk hosts can agree on more than HomaModule carries;
/// what is acceptable is for the endpoint to say.
pub const LENGTH_LIMIT: u32 = 1 << 30;
/// Number of priority levels the IP header can express (three bits); levels are 0..=7, higher is
/// more urgent.
pub const PRIORITIES: usize = 8;
/// Highest priority level.
pub const MAX_PRIORITY: u8 = 7;
/// Smallest Homa port chosen automatically for clients; ports below it are explicit server ports.
pub const MIN_CLIENT_PORT: u16 = 0x8000;
/// Longest run of header bytes of any packet type (an ACK), payload excluded.
pub const MAX_HEADER_LEN: usize = ACK_LEN;

/// One Homa packet, borrowed from the buffer it was parsed from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Bytes of a message.
    Data(Data<'a>),
    /// Permission to send more of a message.
    Grant(Grant),
    /// Asks for bytes that did not arrive.
    Resend(Resend),
    /// Answers a RESEND about an RPC the sender does not know.
    RpcUnknown(Header),
    /// Answers a RESEND whose bytes will not be sent now.
    Busy(Header),
    /// Tells the message lengths that separate the unscheduled priorities.
    Cutoffs(Cutoffs),
    /// A debugging aid of HomaModule; ignored.
    Freeze(Header),
    /// A server asks whether it may forget an RPC.
    NeedAck(Header),
    /// A client tells which RPCs the server may forget.
    Ack(Ack),
    /// The request cannot be served; Peyk's own type, for the UDP carriage.
    Unreachable(Unreachable),
}

impl<'a> Packet<'a> {
    /// Parses one packet: everything after the IP header (or the whole UDP payload), with link
    /// padding already removed.
    ///
    /// # Errors
    /// The type is unknown, the bytes are too few for the type, or a DATA packet contradicts
    /// itself; see [`ParseError`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        // DATA alone is worth inlining into the caller: it is most packets, and its path is short.
        match bytes.get(TYPE_AT) {
            Some(&code) if code == PacketType::Data as u8 => Ok(Packet::Data(Data::parse(bytes)?)),
            _ => Packet::parse_any(bytes),
        }
    }

    fn parse_any(bytes: &'a [u8]) -> Result<Packet<'a>, ParseError> {
        let header = Header::parse(bytes)?;
        Ok(match header.kind {
            PacketType::Data => Packet::Data(Data::parse_body(header, bytes)?),
            PacketType::Grant => Packet::Grant(Grant::parse_body(header, bytes)?),
            PacketType::Resend => Packet::Resend(Resend::parse_body(header, bytes)?),
            PacketType::RpcUnknown => Packet::RpcUnknown(header),
            PacketType::Busy => Packet::Busy(header),
            PacketType::Cutoffs => Packet::Cutoffs(Cutoffs::parse_body(header, bytes)?),
            PacketType::Freeze => Packet::Freeze(header),
            PacketType::NeedAck => Packet::NeedAck(header),
            PacketType::Ack => Packet::Ack(Ack::parse_body(header, bytes)?),
            PacketType::Unreachable => Packet::Unreachable(Unreachable::parse_body(header, bytes)?),
        })
    }

    /// The common header.
    #[inline]
    pub fn header(&self) -> &Header {
        match self {
            Packet::Data(data) => &data.header,
            Packet::Grant(grant) => &grant.header,
            Packet::Resend(resend) => &resend.header,
            Packet::Cutoffs(cutoffs) => &cutoffs.header,
            Packet::Ack(ack) => &ack.header,
            Packet::Unreachable(unreachable) => &unreachable.header,
            Packet::RpcUnknown(header)
            | Packet::Busy(header)
            | Packet::Freeze(header)
            | Packet::NeedAck(header) => header,
        }
    }

    /// The packet type. It follows from the variant; `header().kind` of a packet built by hand
    /// should say the same.
    #[inline]
    pub fn kind(&self) -> PacketType {
        match self {
            Packet::Data(_) => PacketType::Data,
            Packet::Grant(_) => PacketType::Grant,
            Packet::Resend(_) => PacketType::Resend,
            Packet::RpcUnknown(_) => PacketType::RpcUnknown,
            Packet::Busy(_) => PacketType::Busy,
            Packet::Cutoffs(_) => PacketType::Cutoffs,
            Packet::Freeze(_) => PacketType::Freeze,
            Packet::NeedAck(_) => PacketType::NeedAck,
            Packet::Ack(_) => PacketType::Ack,
            Packet::Unreachable(_) => PacketType::Unreachable,
        }
    }

    /// Bytes [`emit`](Packet::emit) writes, payload included.
    #[inline]
    pub fn emit_len(&self) -> usize {
        match self {
            Packet::Data(data) => DATA_HEADER_LEN + data.payload.len(),
            Packet::Grant(grant) => grant.emit_len(),
            Packet::Resend(resend) => resend.emit_len(),
            Packet::Cutoffs(_) => CUTOFFS_LEN,
            Packet::Ack(_) => ACK_LEN,
            Packet::Unreachable(_) => UNREACHABLE_LEN,
            Packet::RpcUnknown(_) | Packet::Busy(_) | Packet::Freeze(_) | Packet::NeedAck(_) => HEADER_LEN,
        }
    }

    /// Writes the packet to the front of `out`, payload included, and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`emit_len`](Packet::emit_len).
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        match self {
            Packet::Data(data) => data.emit(out),
            Packet::Grant(grant) => grant.emit(out),
            Packet::Resend(resend) => resend.emit(out),
            Packet::Cutoffs(cutoffs) => cutoffs.emit(out),
            Packet::Ack(ack) => ack.emit(out),
            Packet::Unreachable(unreachable) => unreachable.emit(out),
            Packet::RpcUnknown(header)
            | Packet::Busy(header)
            | Packet::Freeze(header)
            | Packet::NeedAck(header) => header.emit(out),
        }
    }
}

/// Writes the checksum HomaModule's senders write (a TCP checksum, protocol 6 in the pseudo
/// header) into the emitted `packet`. Nothing happens to a packet shorter than the header.
pub fn fill_checksum(packet: &mut [u8], source: IpAddr, destination: IpAddr) {
    if packet.len() < HEADER_LEN {
        return;
    }
    packet[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
    let sum = checksum::of_packet(source, destination, checksum::PROTOCOL_TCP, packet);
    packet[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether `packet` carries a correct and complete checksum. HomaModule never asks, and packets
/// seen before checksum offload carry only a partial sum: do not drop for it.
pub fn checksum_is_valid(packet: &[u8], source: IpAddr, destination: IpAddr) -> bool {
    checksum::of_packet(source, destination, checksum::PROTOCOL_TCP, packet) == 0
}

/// Whether `bytes` bear the signature of Homa inside TCP packets: flags SYN+RST, which TCP never
/// sets together, and the urgent pointer 0xb97d.
#[inline]
pub fn has_tcp_signature(bytes: &[u8]) -> bool {
    match bytes.first_chunk::<HEADER_LEN>() {
        Some(header) => header[13] == FLAGS_HOMA && header[18..20] == URGENT_HOMA.to_be_bytes(),
        None => false,
    }
}

/// The four bytes at `at` as a number; `at` is a constant at every call, so that the bound check
/// vanishes.
#[inline(always)]
fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn be64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    (u64::from(be32(bytes, at)) << 32) | u64::from(be32(bytes, at + 4))
}

#[cfg(test)]
mod tests;
