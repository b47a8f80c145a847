//! The rings through which blocks are provided to the kernel, one for each kind of block.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::pool::Pool;
use crate::sys::region::Region;

/// The ring through which blocks are provided to the kernel.
pub(super) struct Blocks {
    region: Option<Region>,
    tail: u16,
    mask: u16,
    /// Blocks the kernel has and has not used.
    provided: usize,
}

impl Blocks {
    pub(super) fn register(ring: &IoUring, pool: &Pool, group: u16) -> io::Result<Blocks> {
        let count = pool.provided();
        let region = Region::new(usize::from(count) * size_of::<BufRingEntry>())?;
        // SAFETY: the region is page-aligned, large enough, and lives until the ring is closed:
        // `Uring` drops the ring first, or leaks the region.
        unsafe { ring.submitter().register_buf_ring_with_flags(region.base() as u64, count, group, 0) }?;
        Ok(Blocks { region: Some(region), tail: 0, mask: count - 1, provided: 0 })
    }

    /// Hands all returned blocks to the kernel.
    pub(super) fn provide(&mut self, pool: &Pool) {
        let Some(region) = &self.region else { return };
        if pool.returned() == 0 {
            return;
        }
        let base = region.base().cast::<BufRingEntry>();
        pool.provide(|block| {
            let place = base.wrapping_add(usize::from(self.tail & self.mask));
            // SAFETY: `place` is one of the ring's entries, which the kernel does not read before
            // the tail passes it; there are as many entries as blocks, so none is in use.
            let entry = unsafe { &mut *place };
            entry.set_addr(pool.address(block) as u64);
            entry.set_len(pool.stride() as u32);
            entry.set_bid(block);
            self.tail = self.tail.wrapping_add(1);
            self.provided += 1;
        });
        // SAFETY: `base` is the first entry of the registered ring; its tail is a properly aligned
        // u16 that the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    pub(super) fn consumed(&mut self) {
        self.provided = self.provided.saturating_sub(1);
    }

    /// Blocks the kernel can use.
    pub(super) fn outstanding(&self) -> usize {
        self.provided
    }

    pub(super) fn leak(&mut self) {
        std::mem::forget(self.region.take());
    }
}
