//! The ring's own table of files: saves the look-up and the count of a descriptor in each operation.

use io_uring::IoUring;

use crate::source::Source;

pub(super) struct Files {
    free: Vec<u32>,
}

impl Files {
    /// A table of `count` empty places; of none if the kernel has no such thing.
    pub(super) fn register(ring: &IoUring, count: u32) -> Files {
        let made = count > 0 && ring.submitter().register_files_sparse(count).is_ok();
        Files { free: if made { (0..count).rev().collect() } else { Vec::new() } }
    }

    /// Makes a source known; false if there is no place.
    pub(super) fn add(&mut self, ring: &IoUring, source: &Source) -> bool {
        if source.0.fixed.get().is_some() {
            return true;
        }
        let Some(place) = self.free.pop() else { return false };
        if ring.submitter().register_files_update(place, &[source.raw()]).is_err() {
            self.free.push(place);
            return false;
        }
        source.0.fixed.set(Some(place));
        true
    }

    /// Forgets a source on which nothing is in flight.
    pub(super) fn remove(&mut self, ring: &IoUring, source: &Source) {
        let Some(place) = source.0.fixed.take() else { return };
        if ring.submitter().register_files_update(place, &[-1]).is_ok() {
            self.free.push(place);
        }
    }
}
