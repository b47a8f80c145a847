//! What may go wrong, with packets on their way and with hosts.
//!
//! ```text
//!   this file   the fate of a packet, decided when its sender puts it on the wire
//!   plan.rs     the faults of a scenario: what, when, for how long
//!   network.rs  the rule that carries out those that concern packets
//!   liar.rs     packets of a host that lies
//! ```

pub mod liar;
pub mod network;
pub mod plan;

use crate::packet::Packet;
use crate::time::Picos;

/// The fate of a packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It travels.
    Pass,
    /// It is lost.
    Drop,
    /// It travels later, and may be overtaken.
    Delay(Picos),
    /// It travels, and a copy of it so much later.
    Duplicate(Picos),
    /// It travels, but one bit of it is not what it was.
    Corrupt,
}

/// Decides the fate of packets.
pub trait Rule<B> {
    /// The fate of a packet that is put on the wire at `now`; it may also be altered.
    fn judge(&mut self, now: Picos, packet: &mut Packet<B>) -> Verdict;

    /// A packet is about to be handed to its host.
    fn on_delivery(&mut self, _now: Picos, _packet: &Packet<B>) {}
}
