//! The ring's own table of memory to read into: saves pinning its pages in each operation.

use std::sync::atomic::{AtomicU64, Ordering};

use io_uring::IoUring;

use crate::buf::{IoBuf, Registration};

/// Names rings apart, so that a buffer known to one is an ordinary buffer to the others.
static NEXT_RING: AtomicU64 = AtomicU64::new(1);

pub(super) struct Bufs {
    ring: u64,
    free: Vec<u16>,
}

impl Bufs {
    /// A table of `count` empty places; of none if the kernel has no such thing.
    pub(super) fn register(ring: &IoUring, count: u32) -> Bufs {
        let count = count.min(1 << 14);
        let made = count > 0 && ring.submitter().register_buffers_sparse(count).is_ok();
        let free = if made { (0..count as u16).rev().collect() } else { Vec::new() };
        Bufs { ring: NEXT_RING.fetch_add(1, Ordering::Relaxed), free }
    }

    /// Makes a buffer known; false if there is no place, or the kernel will not pin so much memory.
    pub(super) fn add(&mut self, ring: &IoUring, buf: &mut IoBuf) -> bool {
        if self.place(buf.registration()).is_some() {
            return true;
        }
        let Some(pages) = buf.pages() else { return false };
        let Some(index) = self.free.pop() else { return false };
        let slice = libc::iovec { iov_base: pages.0.cast(), iov_len: pages.1 };
        // SAFETY: the memory is mapped at this moment, which is all the kernel needs: it holds the pages
        // themselves, not the mapping, and reaches them only by operations that own the buffer.
        if unsafe { ring.submitter().register_buffers_update(index.into(), &[slice], None) }.is_err() {
            self.free.push(index);
            return false;
        }
        buf.set_registration(Some(Registration { ring: self.ring, index }));
        true
    }

    /// Forgets a buffer that no operation owns.
    pub(super) fn remove(&mut self, ring: &IoUring, buf: &mut IoBuf) {
        let Some(index) = self.place(buf.registration()) else { return };
        buf.set_registration(None);
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: an empty slice refers to no memory.
        if unsafe { ring.submitter().register_buffers_update(index.into(), &[nothing], None) }.is_ok() {
            self.free.push(index);
        }
    }

    /// Where a buffer is in this very table.
    pub(super) fn place(&self, registration: Option<Registration>) -> Option<u16> {
        registration.filter(|r| r.ring == self.ring).map(|r| r.index)
    }
}
