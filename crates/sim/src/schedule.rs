//! What happens when: a calendar queue. Events of the same moment come out in the order in which they were put
//! in, on every machine.
//!
//! ```text
//!   open      the bucket of the present, sorted, latest first: pop from its end
//!   ring      16,384 buckets of 16 ns each, unsorted: the next 268 us
//!   far       a heap of everything later, moved into the ring as time comes near
//! ```
//!
//! Nearly all events of a network lie within a few microseconds: putting one in and taking it out costs O(1).

use std::collections::BinaryHeap;

use crate::time::Picos;

/// Picoseconds of a bucket, as a power of two.
const WIDTH_BITS: u32 = 14;
/// Buckets of the ring, a power of two and a multiple of 64.
const BUCKETS: usize = 16_384;

/// An event and when it happens. Ordered so that the greatest is the first to happen.
#[derive(Clone, Debug)]
struct Entry<E> {
    at: Picos,
    number: u64,
    event: E,
}

impl<E> Entry<E> {
    fn key(&self) -> (Picos, u64) {
        (self.at, self.number)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        other.key().cmp(&self.key())
    }
}

/// Events to come. See the module documentation.
#[derive(Debug)]
pub struct Schedule<E> {
    /// Number of the open bucket, counted from time zero.
    cursor: u64,
    open: Vec<Entry<E>>,
    ring: Vec<Vec<Entry<E>>>,
    /// One bit per bucket of the ring that holds something.
    filled: Box<[u64; BUCKETS / 64]>,
    in_ring: usize,
    far: BinaryHeap<Entry<E>>,
    next_number: u64,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Schedule {
            cursor: 0,
            open: Vec::new(),
            ring: (0..BUCKETS).map(|_| Vec::new()).collect(),
            filled: Box::new([0; BUCKETS / 64]),
            in_ring: 0,
            far: BinaryHeap::new(),
            next_number: 0,
        }
    }
}

impl<E> Schedule<E> {
    /// Nothing to come.
    pub fn new() -> Schedule<E> {
        Schedule::default()
    }

    /// Number of events to come.
    pub fn len(&self) -> usize {
        self.open.len() + self.in_ring + self.far.len()
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets an event happen at `at`; in the past means as soon as possible.
    pub fn put(&mut self, at: Picos, event: E) {
        let number = self.next_number;
        self.next_number += 1;
        self.place(Entry { at, number, event });
    }

    /// Takes the next event, if it happens no later than `until`.
    pub fn take(&mut self, until: Picos) -> Option<(Picos, E)> {
        loop {
            if let Some(entry) = self.open.last() {
                if entry.at > until {
                    return None;
                }
                return self.open.pop().map(|entry| (entry.at, entry.event));
            }
            if !self.advance(until) {
                return None;
            }
        }
    }

    fn place(&mut self, entry: Entry<E>) {
        let bucket = entry.at.0 >> WIDTH_BITS;
        if bucket <= self.cursor {
            // Sorted, latest first; the number makes it the last of its moment.
            let at = self.open.partition_point(|other| *other < entry);
            self.open.insert(at, entry);
        } else if bucket < self.cursor + BUCKETS as u64 {
            let slot = bucket as usize % BUCKETS;
            self.ring[slot].push(entry);
            self.filled[slot / 64] |= 1 << (slot % 64);
            self.in_ring += 1;
        } else {
            self.far.push(entry);
        }
    }

    /// Opens the next bucket that holds something and begins no later than `until`.
    fn advance(&mut self, until: Picos) -> bool {
        let next = match (self.next_filled(), self.far.peek()) {
            (Some(bucket), _) => bucket,
            (None, Some(entry)) => entry.at.0 >> WIDTH_BITS,
            (None, None) => return false,
        };
        if next > until.0 >> WIDTH_BITS {
            return false;
        }
        self.cursor = next;
        let slot = next as usize % BUCKETS;
        core::mem::swap(&mut self.open, &mut self.ring[slot]);
        self.filled[slot / 64] &= !(1 << (slot % 64));
        self.in_ring -= self.open.len();
        let horizon = self.cursor + BUCKETS as u64;
        while self.far.peek().is_some_and(|entry| entry.at.0 >> WIDTH_BITS < horizon) {
            let Some(entry) = self.far.pop() else { break };
            if entry.at.0 >> WIDTH_BITS == next { self.open.push(entry) } else { self.place(entry) }
        }
        self.open.sort_unstable();
        true
    }

    /// The first bucket after the cursor that holds something.
    fn next_filled(&self) -> Option<u64> {
        if self.in_ring == 0 {
            return None;
        }
        let start = (self.cursor as usize + 1) % BUCKETS;
        let (first, bit) = (start / 64, start % 64);
        let words = BUCKETS / 64;
        for step in 0..=words {
            let word = (first + step) % words;
            let mut bits = self.filled[word];
            if step == 0 {
                bits &= !0 << bit;
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + BUCKETS - start) % BUCKETS;
                return Some(self.cursor + 1 + ahead as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peyk_sansio::Prng;
    use proptest::prelude::*;

    #[test]
    fn take__stops_at_the_limit_and_keeps_the_event() {
        let mut schedule = Schedule::new();
        schedule.put(Picos(5_000), 'b');
        schedule.put(Picos(1), 'a');
        assert_eq!(schedule.take(Picos(4_999)), Some((Picos(1), 'a')));
        assert_eq!(schedule.take(Picos(4_999)), None);
        assert_eq!(schedule.len(), 1);
        assert_eq!(schedule.take(Picos(5_000)), Some((Picos(5_000), 'b')));
        assert!(schedule.is_empty());
    }

    #[test]
    fn take__same_moment_first_in_first_out() {
        let mut schedule = Schedule::new();
        for at in [Picos(7), Picos::from_millis(500)] {
            (0..100).for_each(|n| schedule.put(at, n));
            let order: Vec<i32> = core::iter::from_fn(|| schedule.take(at).map(|e| e.1)).collect();
            assert_eq!(order, (0..100).collect::<Vec<_>>());
        }
    }

    proptest! {
        /// Against a sorted list; events are put in while others are taken, near and far.
        #[test]
        fn agrees_with_a_sorted_list(seed: u64, steps in 1usize..600) {
            let mut random = Prng::new(seed);
            let mut schedule = Schedule::new();
            let mut list: Vec<(Picos, u64)> = Vec::new();
            let mut now = Picos::ZERO;
            for number in 0..steps as u64 {
                if random.chance(0.6) {
                    let reach = [10, 40_000, 1_000_000, 300_000_000, 5_000_000_000];
                    let reach = reach[random.below(5) as usize];
                    let at = now + Picos(random.below(reach));
                    schedule.put(at, number);
                    list.push((at, number));
                } else {
                    let until = now + Picos(random.below(400_000_000));
                    list.sort_unstable();
                    let expected = list.first().copied().filter(|e| e.0 <= until);
                    let got = schedule.take(until);
                    prop_assert_eq!(got, expected);
                    if expected.is_some() {
                        list.remove(0);
                    }
                    now = expected.map_or(until, |e| e.0);
                }
            }
            prop_assert_eq!(schedule.len(), list.len());
        }
    }
}
