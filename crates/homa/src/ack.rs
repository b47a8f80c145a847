//! Acknowledgements a client owes to the servers of one host: RPCs whose state there may go.
//!
//! They leave one by one on DATA to that host, up to six at a time in an ACK packet when too many
//! wait, and with every answer to a NEED_ACK. They may get lost: NEED_ACK is the backstop.
//!
//! HomaModule sends the ACK packet as soon as a sixth entry comes. Here entries wait until
//! everything else has been sent in this turn, so that the requests an application makes in answer
//! to a burst of responses take them along.

use std::collections::VecDeque;

use peyk_wire::homa::{AckEntry, MAX_ACKS};

/// Acks that wait for DATA beyond the end of a turn; more are sent in an ACK packet.
pub(crate) const ACKS_MAX_IDLE: usize = MAX_ACKS;
/// Acks that wait within a turn; when there are as many, an ACK packet is sent at once.
const ACKS_MAX: usize = 256;

/// What has to happen after an ack was added.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Flush {
    /// Nothing.
    No,
    /// Send ACK packets at the end of the turn, if there are still too many.
    Later,
    /// Send an ACK packet right away.
    Now,
}

/// The acks that wait for one host, oldest first.
#[derive(Debug, Default)]
pub(crate) struct PendingAcks {
    entries: VecDeque<AckEntry>,
    /// Homa port of the client of the last RPC; ACK packets come from there.
    pub port: u16,
    /// A flush at the end of the turn has been asked for.
    is_flush_due: bool,
}

impl PendingAcks {
    /// Adds a finished RPC of the client at `port`.
    pub fn push(&mut self, entry: AckEntry, port: u16) -> Flush {
        self.port = port;
        self.entries.push_back(entry);
        match self.entries.len() {
            0..=ACKS_MAX_IDLE => Flush::No,
            n if n >= ACKS_MAX => Flush::Now,
            _ if self.is_flush_due => Flush::No,
            _ => {
                self.is_flush_due = true;
                Flush::Later
            }
        }
    }

    /// Takes the oldest, [`AckEntry::NONE`] if there is none.
    pub fn pop(&mut self) -> AckEntry {
        self.entries.pop_front().unwrap_or(AckEntry::NONE)
    }

    /// Takes as many as fit into an ACK packet.
    pub fn take(&mut self, out: &mut [AckEntry; MAX_ACKS]) -> usize {
        let count = self.entries.len().min(MAX_ACKS);
        for (slot, entry) in out.iter_mut().zip(self.entries.drain(..count)) {
            *slot = entry;
        }
        count
    }

    /// Whether there are more than may wait beyond the end of a turn; if not, the flush that was
    /// asked for is over.
    pub fn is_overfull(&mut self) -> bool {
        self.is_flush_due = self.entries.len() > ACKS_MAX_IDLE;
        self.is_flush_due
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Drops all of them.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> AckEntry {
        AckEntry { client_id: n * 2, server_port: 99 }
    }

    #[test]
    fn leave_in_order_of_arrival() {
        let mut acks = PendingAcks::default();
        assert_eq!(acks.pop(), AckEntry::NONE);
        acks.push(entry(1), 0x8000);
        acks.push(entry(2), 0x8000);
        assert_eq!([acks.pop(), acks.pop(), acks.pop()], [entry(1), entry(2), AckEntry::NONE]);
    }

    #[test]
    fn the_sixth_asks_for_a_flush_once() {
        let mut acks = PendingAcks::default();
        let asked: Vec<_> = (1..=8).map(|n| acks.push(entry(n), 0x8000)).collect();
        assert_eq!(asked.iter().filter(|&&f| f != Flush::No).count(), 1);
        assert_eq!(asked[5], Flush::Later);
        assert!(acks.is_overfull());
        let mut out = [AckEntry::NONE; MAX_ACKS];
        assert_eq!(acks.take(&mut out), 5);
        assert_eq!(out[0], entry(1));
        assert!(!acks.is_overfull() && !acks.is_empty());
    }

    #[test]
    fn their_number_is_bounded() {
        let mut acks = PendingAcks::default();
        let mut out = [AckEntry::NONE; MAX_ACKS];
        for n in 1..10_000 {
            if acks.push(entry(n), 0x8000) == Flush::Now {
                acks.take(&mut out);
            }
        }
        assert!(acks.entries.len() <= ACKS_MAX);
    }
}
