//! What several endpoints of one host, its shards, may use together of what there is once: bytes
//! authorised to senders, and the rate of the link. Each endpoint writes a summary of itself on a
//! cache line of its own and reads those of the others; nobody waits and nothing is locked.
//!
//! **Grants.** Of the bytes that no shard has authorised, each may take a fraction; the fractions
//! add up to one: half for the shard whose message that waits for grants is the shortest, the
//! other half in equal parts. So one shard alone gets near the whole in a few turns, and the
//! shortest message of the host is served first, most of the time. With one shard the fraction is
//! one, which is the same as no budget.
//!
//! **Deviation.** What a shard has authorised since it last published is not seen by the others.
//! That is at most the greatest fraction, (n + 1) / 2n, of the whole; so with n shards at most
//! `max_incoming * (1 + (n * n - 1) / 2n)` is authorised, if all of them happen to decide at the
//! worst moment. What is seen stays far below (`crates/sim/tests/shards.rs`).
//!
//! **Rate.** The link's rate is divided among the shards that have something to send. One that
//! begins to send is not seen by the others before their next turn.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::endpoint::Endpoint;

/// Bytes that are worth a grant: about a packet.
const WORTHWHILE: u64 = 1_400;
/// No message waits for grants.
const NOTHING: u64 = u64::MAX;

/// The host-wide limits of the endpoints of one host.
#[derive(Debug)]
pub struct Budget {
    lines: Box<[Line]>,
    max_incoming: u64,
}

/// A shard's summary; only that shard writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Line {
    /// Bytes authorised and not received.
    incoming: AtomicU64,
    /// Bytes left of the shortest message that waits for a grant.
    shortest: AtomicU64,
    /// 1 if something waits to be sent.
    sending: AtomicU64,
}

/// What a shard may use until it looks again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// Most bytes authorised but not received.
    pub max_incoming: u64,
    /// Shards that send, this one included.
    pub senders: u32,
}

impl Budget {
    /// For so many shards, which may authorise `max_incoming` bytes together.
    pub fn new(shards: u8, max_incoming: u64) -> Budget {
        let line = |_| Line {
            incoming: AtomicU64::new(0),
            shortest: AtomicU64::new(NOTHING),
            sending: AtomicU64::new(0),
        };
        Budget { lines: (0..shards.max(1)).map(line).collect(), max_incoming }
    }

    /// Publishes what an endpoint uses and wants, and tells it what it may use. To be called once
    /// a turn, before the grants are decided; with one shard it does nothing.
    pub fn balance(&self, shard: u8, endpoint: &mut Endpoint) {
        if self.lines.len() > 1 {
            self.publish(shard, endpoint.total_incoming(), endpoint.shortest_needy(), endpoint.is_sending());
            endpoint.set_share(self.share(shard));
        }
    }

    /// Writes a shard's summary: bytes authorised, bytes left of the shortest message that waits
    /// for a grant, and whether something waits to be sent.
    pub fn publish(&self, shard: u8, incoming: u64, shortest: Option<u32>, sending: bool) {
        let line = &self.lines[usize::from(shard)];
        // Stores to a line that others read: only what has changed.
        set(&line.incoming, incoming);
        set(&line.shortest, shortest.map_or(NOTHING, u64::from));
        set(&line.sending, u64::from(sending));
    }

    /// What a shard may use, by the summaries as they are.
    pub fn share(&self, shard: u8) -> Share {
        let own = &self.lines[usize::from(shard)];
        let (own_incoming, own_shortest) = (get(&own.incoming), get(&own.shortest));
        let (mut total, mut senders, mut is_first) = (0u64, 1, own_shortest != NOTHING);
        for (index, line) in self.lines.iter().enumerate() {
            total = total.saturating_add(get(&line.incoming));
            if index != usize::from(shard) {
                senders += u32::from(get(&line.sending) != 0);
                // The lower number wins where lengths are equal.
                let other = get(&line.shortest);
                is_first &= own_shortest < other || own_shortest == other && usize::from(shard) < index;
            }
        }
        let free = self.max_incoming.saturating_sub(total);
        let count = self.lines.len() as u64;
        // Of 2n parts: one for each, and n more for the first.
        let parts = if is_first { 1 + count } else { 1 };
        let part = if count == 1 { free } else { free / (2 * count) * parts };
        // Halves of halves: the last of them would be grants of a few bytes.
        let worthwhile = WORTHWHILE.min(self.max_incoming / (2 * count));
        let part = if part < worthwhile { 0 } else { part };
        Share { max_incoming: own_incoming + part, senders }
    }

    /// Bytes authorised by all shards together, by their summaries.
    pub fn total_incoming(&self) -> u64 {
        self.lines.iter().map(|line| get(&line.incoming)).sum()
    }
}

fn get(value: &AtomicU64) -> u64 {
    // Relaxed: numbers that stand for themselves, and may be old.
    value.load(Ordering::Relaxed)
}

fn set(value: &AtomicU64, new: u64) {
    if value.load(Ordering::Relaxed) != new {
        value.store(new, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: u64 = 400_000;

    #[test]
    fn share_of_one_shard_is_everything() {
        let budget = Budget::new(1, MAX);
        for (incoming, shortest) in [(0, None), (1000, Some(5)), (MAX, None)] {
            budget.publish(0, incoming, shortest, true);
            assert_eq!(budget.share(0), Share { max_incoming: MAX, senders: 1 });
        }
    }

    #[test]
    fn share_one_busy_shard_gets_nearly_all_in_a_few_turns() {
        for shards in [2, 4, 8] {
            let budget = Budget::new(shards, MAX);
            let mut incoming = 0;
            for _ in 0..8 {
                budget.publish(1, incoming, Some(10_000), true);
                incoming = budget.share(1).max_incoming;
            }
            assert!(incoming >= MAX * 95 / 100, "{incoming} of {MAX} with {shards} shards");
        }
    }

    #[test]
    fn share_is_nothing_rather_than_a_few_bytes() {
        let budget = Budget::new(4, MAX);
        budget.publish(0, MAX - 2_000, None, true);
        assert_eq!(budget.share(1).max_incoming, 0, "an eighth of 2,000");
        budget.publish(1, 0, Some(10_000), true);
        assert_eq!(budget.share(1).max_incoming, 0, "five eighths");
        // However little the host allows at all, a shard gets a part of it while nobody uses it.
        let small = Budget::new(4, 80);
        assert_eq!(small.share(1).max_incoming, 10);
    }

    #[test]
    fn share_senders_are_counted() {
        let budget = Budget::new(3, MAX);
        budget.publish(0, 0, None, true);
        budget.publish(2, 0, None, true);
        assert_eq!([0, 1, 2].map(|shard| budget.share(shard).senders), [2, 3, 2]);
    }

    proptest! {
        /// Decisions by summaries of the same moment never authorise more than there is.
        #[test]
        fn share_fractions_add_up_to_no_more_than_one(
            summaries in prop::collection::vec((0u64..200_000, prop::option::of(0u32..1000)), 1..9),
        ) {
            let budget = Budget::new(summaries.len() as u8, MAX);
            for (shard, &(incoming, shortest)) in summaries.iter().enumerate() {
                budget.publish(shard as u8, incoming, shortest, false);
            }
            let used: u64 = summaries.iter().map(|summary| summary.0).sum();
            let shares = (0..summaries.len() as u8).map(|shard| budget.share(shard).max_incoming);
            prop_assert!(shares.sum::<u64>() <= MAX.max(used));
        }

        /// Decisions by summaries that are one decision old stay within the bound.
        #[test]
        fn share_stale_summaries_stay_within_the_bound(
            shards in 1u8..8,
            steps in prop::collection::vec((any::<u8>(), any::<bool>(), 0u64..100_000, 1u32..1000), 0..400),
        ) {
            let budget = Budget::new(shards, MAX);
            let mut true_incoming = vec![0u64; usize::from(shards)];
            for (shard, publish, received, shortest) in steps {
                let shard = shard % shards;
                let own = &mut true_incoming[usize::from(shard)];
                *own -= received.min(*own);
                // Each publishes before it decides, as `balance` does; what the others see is old.
                budget.publish(shard, *own, publish.then_some(shortest), false);
                *own = budget.share(shard).max_incoming.max(*own);
                let total: u64 = true_incoming.iter().sum();
                let n = u64::from(shards);
                prop_assert!(total <= MAX + MAX * (n * n - 1) / (2 * n), "{} authorised", total);
            }
        }
    }
}
