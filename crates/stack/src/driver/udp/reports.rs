//! Reports of hosts and ports that cannot be reached, held until what arrived before them has been handed up.
//!
//! The system tells of an error before it gives out what arrived earlier: that may be the response to the very
//! request that would be declared undeliverable.

use std::net::SocketAddr;

use peyk_homa::Unreachable;

use crate::driver::Received;

/// Reports kept at most.
const REPORTS: usize = 256;
/// Polls in a row without packets after which reports are handed up.
const QUIET_POLLS: u32 = 2;
/// Polls after which they are handed up in any case.
const HELD_POLLS: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct Reports {
    list: Vec<(SocketAddr, Unreachable, Option<u64>)>,
    /// Polls since the first of them was found.
    held: u32,
    /// The latest of those polls, without packets.
    quiet: u32,
}

impl Reports {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Of several about the same, the one that concerns most is kept: no id is all, a late one more than an early one.
    pub(super) fn add(&mut self, remote: SocketAddr, why: Unreachable, id: Option<u64>) {
        let same = self.list.iter_mut().find(|report| (report.0, report.1) == (remote, why));
        if let Some((_, _, known)) = same {
            *known = known.zip(id).map(|(known, id)| known.max(id));
        } else if self.list.len() < REPORTS {
            self.list.push((remote, why, id));
        }
    }

    /// Hands up the `found` reports of earlier polls if this poll, which brought so many packets, was quiet like
    /// the one before, or they have waited for long; returns how many.
    pub(super) fn hand_up(
        &mut self,
        found: usize,
        packets: usize,
        sink: &mut dyn FnMut(Received<'_>),
    ) -> usize {
        self.held += 1;
        self.quiet = if packets == 0 { self.quiet + 1 } else { 0 };
        if self.quiet < QUIET_POLLS && self.held < HELD_POLLS {
            return 0;
        }
        (self.quiet, self.held) = (0, 0);
        for (remote, why, id) in self.list.drain(..found) {
            sink(Received::Unreachable { remote, why, id });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports__wait_for_quiet_but_not_for_ever() {
        let host = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut reports = Reports::default();
        reports.add(host, Unreachable::Host, Some(4));
        reports.add(host, Unreachable::Host, Some(6));
        let mut seen = Vec::new();
        let mut poll = |reports: &mut Reports, packets| {
            let sink = &mut |received: Received<'_>| {
                if let Received::Unreachable { remote, id, .. } = received {
                    seen.push((remote, id));
                }
            };
            reports.hand_up(reports.len(), packets, sink)
        };
        assert_eq!((poll(&mut reports, 0), poll(&mut reports, 1), poll(&mut reports, 0)), (0, 0, 0));
        assert_eq!(poll(&mut reports, 0), 1, "two in a row");
        reports.add(host, Unreachable::Host, None);
        let busy = (1..).find(|_| poll(&mut reports, 1) > 0);
        assert_eq!(busy, Some(HELD_POLLS));
        assert_eq!(seen, [(host, Some(6)), (host, None)]);
    }
}
