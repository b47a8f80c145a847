//! A packet on its way: addresses, priority and size, and whatever the transport put into it.

use crate::topology::HostId;

/// Network priorities.
pub const PRIORITIES: usize = 8;

/// A packet of a transport whose packets carry a `B`.
#[derive(Clone, Debug)]
pub struct Packet<B> {
    /// Who sent it.
    pub from: HostId,
    /// Whom it is for.
    pub to: HostId,
    /// 0 (lowest) to 7.
    pub priority: u8,
    /// It met a queue longer than the marking threshold.
    pub is_marked: bool,
    /// Bytes on the wire: frame, preamble and gap included.
    pub wire_bytes: u32,
    /// Bytes of messages in it.
    pub payload_bytes: u32,
    /// Packets of one flow between two hosts take one path; those of none are sprayed over all of them.
    pub flow: Option<u32>,
    /// For switches that serve by rank: the lowest first.
    pub rank: u64,
    /// The transport's part.
    pub body: B,
}
