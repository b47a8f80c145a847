//! What may happen to a packet on its way, decided when its sender puts it on the wire.

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
}
