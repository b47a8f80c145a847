//! Anonymous memory shared with the kernel.

use std::io;
use std::process::id as process_id;
use std::ptr::NonNull;

/// Page-aligned, zeroed memory that children made by fork do not see.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
    process: u32,
}

impl Region {
    pub(crate) fn new(len: usize) -> io::Result<Region> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping touches no existing memory.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range was mapped just now. Failure is harmless: the child then sees a copy.
        unsafe { libc::madvise(base, len, libc::MADV_DONTFORK) };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Region { base, len, process: process_id() })
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Address of byte `offset`.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len, "offset beyond the region");
        self.base().wrapping_add(offset)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All of it, for owners that share it with nobody.
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped and zeroed by `new` for the region's life. Regions shared with the kernel or
        // leased in parts never call this; a buffer's region is in the kernel's hands only while the
        // operation owns the buffer, and then nobody can call it.
        unsafe { std::slice::from_raw_parts(self.base(), self.len) }
    }

    /// As [`Region::as_slice`], to write to.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base(), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.process != process_id() {
            // A forked child never had the mapping; the address may be another's by now.
            return;
        }
        // SAFETY: the range was mapped by `new` and is unmapped only here. Owners drop a region
        // only after the kernel has let go of it (queue teardown), or leak it.
        unsafe { libc::munmap(self.base().cast(), self.len) };
    }
}

/// The `len` bytes at `start`, which lie in `region`.
pub(crate) fn bytes(region: &Region, start: *const u8, len: usize) -> &[u8] {
    let offset = (start as usize).wrapping_sub(region.base() as usize);
    assert!(offset <= region.len && len <= region.len - offset, "range beyond the region");
    // SAFETY: the range was checked and is mapped and initialised (zeroed by the kernel). Only
    // leases call this, for a block the kernel has handed over and no longer writes to; nobody
    // else writes to it while the lease lives, which borrows the region.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Tells a process apart from the children it forks, without a system call.
#[derive(Debug)]
pub(crate) struct ForkGuard(Region);

impl ForkGuard {
    pub(crate) fn new() -> io::Result<ForkGuard> {
        let region = Region::new(1)?;
        // SAFETY: the page was mapped just now. The children shall see it, but as zeroes.
        unsafe { libc::madvise(region.base().cast(), region.len(), libc::MADV_DOFORK) };
        // SAFETY: as above. If the kernel refuses, a child is not recognised.
        unsafe { libc::madvise(region.base().cast(), region.len(), libc::MADV_WIPEONFORK) };
        // SAFETY: the byte is mapped and writable, and nobody else uses it.
        unsafe { region.base().write_volatile(1) };
        Ok(ForkGuard(region))
    }

    /// Whether this is a child of the process that made the guard.
    pub(crate) fn is_child(&self) -> bool {
        // SAFETY: the byte is mapped and readable for the guard's life.
        unsafe { self.0.base().read_volatile() == 0 }
    }
}
