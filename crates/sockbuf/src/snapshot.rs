//! Numbers that one thread publishes now and then and any other may read, all from the same moment: counters
//! of a shard for whoever watches it. Not for what must not be missed: a reader sees the latest, not each.
//!
//! ```text
//!   writer                          reader
//!   version = odd                   version: even?
//!   release fence                   the numbers
//!   the numbers                     acquire fence
//!   version = even, release         the same version still?  then they belong together
//! ```
//!
//! The writer never waits and a reader writes nothing, so reading disturbs nobody. All words are atomic: a
//! reader that comes at the wrong moment sees numbers of two moments, notices it, and looks again.

use core::fmt;

use crate::sync::{Arc, AtomicU64, Ordering, Padded, Site, fence, order, skipped};

/// Words on one pair of cache lines.
const LINE: usize = 16;

/// A place for so many numbers, all 0 until something is published: its writer, and a reader to be cloned.
pub fn snapshot(words: usize) -> (Publisher, View) {
    let line = |_| Padded(core::array::from_fn(|_| AtomicU64::new(0)));
    let lines = (0..words.div_ceil(LINE)).map(line).collect();
    let shared = Arc::new(Shared { version: Padded(AtomicU64::new(0)), lines, words });
    (Publisher { shared: shared.clone(), version: 0 }, View { shared })
}

struct Shared {
    /// Odd while the numbers are being written.
    version: Padded<AtomicU64>,
    lines: Box<[Padded<[AtomicU64; LINE]>]>,
    words: usize,
}

impl Shared {
    fn word(&self, at: usize) -> &AtomicU64 {
        &self.lines[at / LINE][at % LINE]
    }
}

/// The one who writes.
pub struct Publisher {
    shared: Arc<Shared>,
    version: u64,
}

impl Publisher {
    /// Makes these numbers the latest. Those beyond the place's size are left out; places beyond the numbers
    /// keep what they had.
    pub fn publish(&mut self, values: &[u64]) {
        let Shared { version, words, .. } = &*self.shared;
        version.store(self.version + 1, Ordering::Relaxed);
        if !skipped(Site::SnapshotOpen) {
            fence(Ordering::Release);
        }
        for (at, &value) in values.iter().enumerate().take(*words) {
            self.shared.word(at).store(value, Ordering::Relaxed);
        }
        self.version += 2;
        version.store(self.version, order(Site::SnapshotClose, Ordering::Release));
    }

    /// Whether nobody can read it any more.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }
}

/// A reader.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
}

impl View {
    /// Puts the latest numbers into `out` and returns how often there were new ones; `None`, and `out` is of
    /// no use, if they were being written at this moment: a writer is done in a fraction of a microsecond,
    /// unless it has been taken off its CPU.
    pub fn read(&self, out: &mut Vec<u64>) -> Option<u64> {
        let Shared { version, words, .. } = &*self.shared;
        out.clear();
        let before = version.load(Ordering::Acquire);
        if before % 2 != 0 {
            return None;
        }
        out.extend((0..*words).map(|at| self.shared.word(at).load(Ordering::Relaxed)));
        if !skipped(Site::SnapshotCheck) {
            fence(Ordering::Acquire);
        }
        (version.load(Ordering::Relaxed) == before).then_some(before / 2)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("published", &(self.version / 2)).finish_non_exhaustive()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("words", &self.shared.words).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn read_gives_the_latest_and_how_many_there_were() {
        let (mut publisher, view) = snapshot(20);
        let mut seen = Vec::new();
        assert_eq!((view.read(&mut seen), &seen[..]), (Some(0), &[0; 20][..]));
        publisher.publish(&[1; 20]);
        publisher.publish(&[2; 30]);
        assert_eq!((view.read(&mut seen), &seen[..]), (Some(2), &[2; 20][..]));
        publisher.publish(&[3]);
        view.clone().read(&mut seen);
        assert_eq!(seen[..3], [3, 2, 2]);
    }

    #[test]
    fn is_abandoned_when_the_last_reader_is_gone() {
        let (publisher, view) = snapshot(1);
        let other = view.clone();
        drop(view);
        assert!(!publisher.is_abandoned());
        drop(other);
        assert!(publisher.is_abandoned());
    }

    #[test]
    fn read_never_mixes_two_moments() {
        let (mut publisher, view) = snapshot(40);
        let writer = std::thread::spawn(move || {
            (1..=50_000u64).for_each(|value| publisher.publish(&[value; 40]));
        });
        let (mut seen, mut last) = (Vec::new(), 0);
        while last < 50_000 {
            if let Some(version) = view.read(&mut seen) {
                assert!(version >= last && seen.iter().all(|&value| value == version), "{version}: {seen:?}");
                last = version;
            }
        }
        writer.join().unwrap();
    }
}
