//! Packets that are the common header alone: RPC_UNKNOWN, BUSY, FREEZE, NEED_ACK.
//!
//! They have no fields of their own, so their value is a [`Header`]; this file holds how they are
//! made and written.

use super::{HEADER_LEN, Header, Packet, PacketType};

impl Header {
    /// Writes the header to the front of `out` and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`HEADER_LEN`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        out[..HEADER_LEN].copy_from_slice(&self.to_bytes());
        HEADER_LEN
    }
}

impl Packet<'static> {
    /// RPC_UNKNOWN, in answer to a RESEND with this header.
    #[inline]
    pub const fn rpc_unknown(resend: &Header) -> Packet<'static> {
        Packet::RpcUnknown(resend.reply(PacketType::RpcUnknown))
    }

    /// BUSY, in answer to a RESEND with this header.
    #[inline]
    pub const fn busy(resend: &Header) -> Packet<'static> {
        Packet::Busy(resend.reply(PacketType::Busy))
    }

    /// NEED_ACK from a server to its client; `sender_id` is odd.
    #[inline]
    pub const fn need_ack(sport: u16, dport: u16, sender_id: u64) -> Packet<'static> {
        Packet::NeedAck(Header::new(PacketType::NeedAck, sport, dport, sender_id))
    }
}
