//! The receiving end of a connection: puts the stream in order and says which messages it has completed.

use std::collections::BTreeMap;

/// The end of a message in the stream.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The first byte behind it, counted from the beginning of the connection.
    pub at: u64,
    /// The message.
    pub key: u64,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Receiver {
    /// All bytes before this have arrived.
    next: u64,
    /// What has arrived beyond: ranges that neither overlap nor touch, as end by begin.
    beyond: BTreeMap<u64, u64>,
    /// Ends of messages beyond, as key by place.
    ends: BTreeMap<u64, u64>,
}

impl Receiver {
    /// All bytes before this have arrived: what it acknowledges.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A segment has arrived; calls `deliver` for each message that is complete with it, in order. What lies
    /// more than `room` bytes ahead is dropped.
    pub fn take(&mut self, seq: u64, len: u32, ends: &[End], room: u64, mut deliver: impl FnMut(u64)) {
        let (mut from, mut to) = (seq.max(self.next), seq + u64::from(len));
        if to <= self.next || to > self.next + room {
            return;
        }
        self.ends.extend(ends.iter().filter(|end| end.at > self.next).map(|end| (end.at, end.key)));
        while let Some((&begin, &end)) = self.beyond.range(..=to).next_back().filter(|(_, end)| **end >= from)
        {
            self.beyond.remove(&begin);
            (from, to) = (from.min(begin), to.max(end));
        }
        if from > self.next {
            self.beyond.insert(from, to);
            return;
        }
        self.next = to;
        while let Some(end) = self.ends.first_entry().filter(|end| *end.key() <= to) {
            deliver(end.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM: u64 = 1 << 20;

    fn take(receiver: &mut Receiver, seq: u64, len: u32, ends: &[(u64, u64)]) -> Vec<u64> {
        let ends: Vec<End> = ends.iter().map(|&(at, key)| End { at, key }).collect();
        let mut delivered = Vec::new();
        receiver.take(seq, len, &ends, ROOM, |key| delivered.push(key));
        delivered
    }

    #[test]
    fn take__a_message_is_delivered_when_its_last_byte_is_in_order() {
        let mut receiver = Receiver::default();
        assert_eq!(take(&mut receiver, 100, 100, &[(150, 2), (200, 3)]), [] as [u64; 0]);
        assert_eq!(take(&mut receiver, 300, 100, &[(400, 4)]), [] as [u64; 0]);
        assert_eq!(receiver.next(), 0);
        assert_eq!(take(&mut receiver, 0, 100, &[(60, 1)]), [1, 2, 3]);
        assert_eq!(receiver.next(), 200);
        assert_eq!(take(&mut receiver, 0, 200, &[(60, 1), (150, 2), (200, 3)]), [] as [u64; 0]);
        assert_eq!(take(&mut receiver, 150, 150, &[(200, 3)]), [4]);
        assert_eq!(receiver.next(), 400);
    }

    #[test]
    fn take__what_is_too_far_ahead_is_dropped() {
        let mut receiver = Receiver::default();
        receiver.take(ROOM, 1, &[], ROOM, |_| ());
        assert!(receiver.beyond.is_empty());
    }

    proptest! {
        /// Any segments in any order, again and again: each message once, in order, at the right byte.
        #[test]
        fn delivers_each_message_once_and_in_order(
            sizes in prop::collection::vec(1u64..50, 1..20),
            cuts in prop::collection::vec((0u64..1_000, 1u32..120), 1..200),
        ) {
            let ends: Vec<End> = sizes.iter().zip(0..).scan(0, |at, (size, key)| {
                *at += size;
                Some(End { at: *at, key })
            }).collect();
            let total = ends.last().map_or(0, |end| end.at);
            let mut receiver = Receiver::default();
            let (mut have, mut delivered) = (vec![false; total as usize], Vec::new());
            for (seq, len) in cuts.into_iter().chain([(0, total as u32)]) {
                let seq = seq % total;
                let len = u64::from(len).min(total - seq) as u32;
                let within: Vec<End> =
                    ends.iter().filter(|e| e.at > seq && e.at <= seq + u64::from(len)).copied().collect();
                receiver.take(seq, len, &within, ROOM, |key| delivered.push(key));
                have[seq as usize..][..len as usize].fill(true);
                let next = have.iter().position(|have| !have).unwrap_or(have.len()) as u64;
                prop_assert_eq!(receiver.next(), next);
                let expected: Vec<u64> = ends.iter().filter(|e| e.at <= next).map(|e| e.key).collect();
                prop_assert_eq!(&delivered, &expected);
            }
            prop_assert!(receiver.beyond.is_empty() && receiver.ends.is_empty());
        }
    }
}
