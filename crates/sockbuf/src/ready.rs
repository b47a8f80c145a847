//! Which of many queues have something: one bit each, set by whoever puts something into an empty one,
//! cleared by whoever finds it empty. So that a reader of many queues, one per shard, looks at one word
//! instead of all of them. Not the queues themselves.
//!
//! ```text
//!   producer of queue i                  reader
//!   put something in                     queue i is empty
//!   full fence                           clear bit i
//!   bit i clear?  no: done               full fence
//!                 yes: set it            look again: something?  set bit i, go on with it
//! ```
//!
//! The handshake is that of [`crate::doorbell`]. While a queue is not empty its producer only reads the word,
//! so a busy reader and busy producers do not write a line in common.

use core::fmt;

use crate::sync::{AtomicU64, Ordering, Padded, Site, full_fence};

/// A set of queues, by number.
pub struct ReadySet {
    words: Box<[Padded<AtomicU64>]>,
}

impl ReadySet {
    /// A set for queues `0..queues`, none of them ready.
    pub fn new(queues: usize) -> ReadySet {
        ReadySet { words: (0..queues.div_ceil(64).max(1)).map(|_| Padded(AtomicU64::new(0))).collect() }
    }

    /// Producer: after putting something into a queue, or many things. True if the mark was not there: then
    /// the reader may sleep and be told.
    #[inline]
    pub fn mark(&self, queue: usize) -> bool {
        let (word, bit) = self.place(queue);
        full_fence(Site::ReadySet);
        // Acquire and Release below: what the reader did when it cleared the bit is over.
        word.load(Ordering::Acquire) & bit == 0 && word.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Reader: the queue was found empty. Its mark is taken, then it must be looked at once more: `look`
    /// returns true if there is something in it after all, and then it is marked again. Returns that.
    #[inline]
    pub fn found_empty(&self, queue: usize, look: impl FnOnce() -> bool) -> bool {
        let (word, bit) = self.place(queue);
        word.fetch_and(!bit, Ordering::AcqRel);
        full_fence(Site::ReadyTake);
        let more = look();
        if more {
            word.fetch_or(bit, Ordering::AcqRel);
        }
        more
    }

    /// Reader: the first marked queue at or after `from`, going round.
    #[inline]
    pub fn next(&self, from: usize) -> Option<usize> {
        let (first, shift) = (from / 64 % self.words.len(), from % 64);
        let count = self.words.len();
        for step in 0..=count {
            let index = (first + step) % count;
            let mut bits = self.words[index].load(Ordering::Acquire);
            if step == 0 {
                bits &= u64::MAX << shift;
            } else if step == count {
                bits &= !(u64::MAX << shift);
            }
            if bits != 0 {
                return Some(index * 64 + bits.trailing_zeros() as usize);
            }
        }
        None
    }

    fn place(&self, queue: usize) -> (&AtomicU64, u64) {
        (&self.words[queue / 64], 1 << (queue % 64))
    }
}

impl fmt::Debug for ReadySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.words.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum::<u32>();
        f.debug_struct("ReadySet").field("ready", &ready).finish_non_exhaustive()
    }
}

/// Serves queues in turn, a quantum at a time, so that a full one does not keep the others waiting: how many
/// more may be taken from the present one.
#[derive(Debug, Clone)]
pub struct Turn {
    queue: usize,
    left: u32,
    quantum: u32,
}

impl Turn {
    /// Begins at queue 0 and takes `quantum` from each, at least 1.
    pub fn new(quantum: u32) -> Turn {
        let quantum = quantum.max(1);
        Turn { queue: 0, left: quantum, quantum }
    }

    /// The queue to take from next, if any is marked.
    #[inline]
    pub fn next(&mut self, ready: &ReadySet) -> Option<usize> {
        let from = if self.left == 0 { self.queue + 1 } else { self.queue };
        let queue = ready.next(from)?;
        if queue != self.queue || self.left == 0 {
            (self.queue, self.left) = (queue, self.quantum);
        }
        Some(queue)
    }

    /// One thing was taken from that queue.
    #[inline]
    pub fn took(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
