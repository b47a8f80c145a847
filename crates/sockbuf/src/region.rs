//! The memory behind a pool: pages, their counts, and the way home. Shared by the pool and by every message
//! that is out; knows nothing of messages.
//!
//! ```text
//!   page p is  AT HOME    on the owner's free list, or never used        count meaningless
//!              OUT        in a message or being the owner's current      count > 0
//!              RETURNED   on the return list, owner has not looked yet   count meaningless
//!   OUT -> RETURNED by whoever drops the last count (any thread); RETURNED -> AT HOME by the owner alone
//! ```
//!
//! **Lifetime.** The region outlives its pool while pages are out, without counting per message: while the
//! pool lives it keeps the region. When the pool goes it closes the return list and leaves behind the number
//! of pages that are out; from then on each page coming home counts down, and the last one frees the region.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};

use crate::PAGE;
use crate::sync::{AtomicI64, AtomicU32, Ordering, Padded, Site, order};

/// End of the return list.
const END: u32 = u32::MAX;
/// The return list is closed: the pool is gone.
const CLOSED: u32 = u32::MAX - 1;
/// Most pages a region can have (256 TiB); page numbers above it are marks.
pub(crate) const PAGES_MAX: u32 = CLOSED - 1;
/// Alignment of the first page, in bytes.
const ALIGN: usize = 4096;
/// Bytes of a page that loom sees as one variable.
#[cfg(loom)]
const LOOM_GRAIN: usize = PAGE / 4;

pub(crate) struct Region {
    /// First page. `pages.len() * PAGE` bytes from here belong to the region; of a hollow one, `PAGE`.
    base: NonNull<u8>,
    allocation: NonNull<u8>,
    layout: Layout,
    /// All pages are the same zeroed memory, which nobody writes.
    is_hollow: bool,
    pages: Box<[PageState]>,
    /// Head of the return list: a page number, `END` or `CLOSED`.
    returned: Padded<AtomicU32>,
    /// Pages out after the pool is gone; negative while the pool is still adding up.
    orphans: AtomicI64,
    /// Lets loom report a region that is never freed.
    #[cfg(loom)]
    _leak_check: crate::sync::Arc<()>,
}

/// On a cache line of its own: holders on different threads drop pieces of different pages.
#[repr(align(64))]
struct PageState {
    /// Number of message pieces in the page, plus the owner's bias while it is the owner's current page.
    count: AtomicU32,
    /// Next page on the return list; written by the page's last holder, read by the owner.
    next: AtomicU32,
    /// Stand for the bytes of the page under loom, which cannot see raw memory.
    #[cfg(loom)]
    bytes: [crate::sync::UnsafeCell<()>; PAGE / LOOM_GRAIN],
}

impl Region {
    /// Allocates `pages` zeroed pages, of which the system provides each when it is first touched. `None` if
    /// the address space is short. The result is a unique pointer.
    pub(crate) fn allocate(pages: u32) -> Option<NonNull<Region>> {
        Region::make(pages, pages, false)
    }

    /// A region whose pages have no memory of their own: see [`Pool::hollow`](crate::Pool::hollow).
    pub(crate) fn hollow(pages: u32) -> Option<NonNull<Region>> {
        Region::make(pages, 1, true)
    }

    fn make(pages: u32, backed: u32, is_hollow: bool) -> Option<NonNull<Region>> {
        let bytes = (backed as usize).checked_mul(PAGE)?.checked_add(ALIGN)?;
        // An alignment above malloc's own would make the allocator clear, and so touch, every byte.
        let layout = Layout::from_size_align(bytes, 16).ok()?;
        // SAFETY: the layout's size is at least ALIGN, so not zero.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skip = allocation.as_ptr().align_offset(ALIGN);
        assert!(skip < ALIGN, "alignment of bytes is always possible");
        // SAFETY: skip < ALIGN, and ALIGN bytes more than the pages need were allocated.
        let base = unsafe { allocation.add(skip) };
        let states = (0..pages).map(|_| PageState {
            count: AtomicU32::new(0),
            next: AtomicU32::new(END),
            #[cfg(loom)]
            bytes: core::array::from_fn(|_| crate::sync::UnsafeCell::new(())),
        });
        let region = Box::new(Region {
            base,
            allocation,
            layout,
            is_hollow,
            pages: states.collect(),
            returned: Padded(AtomicU32::new(END)),
            orphans: AtomicI64::new(0),
            #[cfg(loom)]
            _leak_check: crate::sync::Arc::new(()),
        });
        Some(NonNull::from(Box::leak(region)))
    }

    /// Frees the region.
    ///
    /// # Safety
    /// `region` came from [`Region::allocate`], no page is out, and nobody uses it any more.
    unsafe fn free(region: NonNull<Region>) {
        // SAFETY: it was leaked from a box in `allocate`; the caller is its last user.
        let region = unsafe { Box::from_raw(region.as_ptr()) };
        // SAFETY: allocated in `allocate` with this very layout.
        unsafe { dealloc(region.allocation.as_ptr(), region.layout) };
    }

    pub(crate) fn page_count(&self) -> u32 {
        self.pages.len() as u32
    }

    /// Address of a byte of a page. Whether it may be read or written is the caller's affair.
    #[inline(always)]
    pub(crate) fn at(&self, page: u32, offset: usize) -> *mut u8 {
        debug_assert!(page < self.page_count() && offset <= PAGE);
        let page = if self.is_hollow { 0 } else { page as usize };
        self.base.as_ptr().wrapping_add(page * PAGE + offset)
    }

    /// Whether the pages have no memory of their own: then none may be written.
    #[inline(always)]
    pub(crate) fn is_hollow(&self) -> bool {
        self.is_hollow
    }

    /// Sets the count of a page that is at home or wholly the owner's: nobody else looks at it.
    #[inline]
    pub(crate) fn set_count(&self, page: u32, count: u32) {
        // Relaxed: others learn of the page by a message that is handed to them, which orders this store.
        self.pages[page as usize].count.store(count, Ordering::Relaxed);
    }

    /// The count of a page; what holders who have gone did with the page happened before.
    #[inline]
    pub(crate) fn count(&self, page: u32) -> u32 {
        self.pages[page as usize].count.load(Ordering::Acquire)
    }

    /// One more holder. The caller is a holder itself.
    #[inline]
    pub(crate) fn hold(&self, page: u32) {
        let before = self.pages[page as usize].count.fetch_add(1, Ordering::Relaxed);
        if before > u32::MAX / 2 {
            // Two thousand million forgotten clones: no way to go on safely.
            std::process::abort();
        }
    }

    /// Takes `count` off a page's count; true if nobody holds the page any more, and then all that its
    /// holders did with it happened before.
    #[inline]
    pub(crate) fn release(&self, page: u32, count: u32) -> bool {
        let cell = &self.pages[page as usize].count;
        // The last holder need not write: the count of a page at home means nothing.
        if cell.load(Ordering::Acquire) == count {
            return true;
        }
        if cell.fetch_sub(count, order(Site::PageRelease, Ordering::Release)) == count {
            // Instead of an acquire fence, which ThreadSanitizer does not see.
            cell.load(Ordering::Acquire);
            return true;
        }
        false
    }

    /// Sends a page home that nobody holds any more. May free the region.
    ///
    /// # Safety
    /// The page is OUT, its count has reached zero, and this is the only call for it. The caller does not
    /// use the region again, unless it has other pages out or owns the pool.
    pub(crate) unsafe fn send_home(region: NonNull<Region>, page: u32) {
        // SAFETY: the page is out, so the region lives until the push or the count-down below.
        let this = unsafe { region.as_ref() };
        let mut head = END; // The likely case, as the first guess: saves a look.
        while head != CLOSED {
            this.pages[page as usize].next.store(head, Ordering::Relaxed);
            // Release: the owner must see `next`, and our reads of the page must precede its writes.
            match this.returned.compare_exchange_weak(
                head,
                page,
                order(Site::PageReturn, Ordering::Release),
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(changed) => head = changed,
            }
        }
        if this.orphans.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: the pool is gone (CLOSED), it has left its number of pages out (else the count would
            // not be positive), and ours was the last of them.
            unsafe { Region::free(region) };
        }
    }

    /// The owner takes all returned pages, the latest first.
    pub(crate) fn take_returned(&self, take: impl FnMut(u32)) {
        if self.returned.load(Ordering::Relaxed) != END {
            self.walk(self.returned.swap(END, Ordering::Acquire), take);
        }
    }

    /// The pool goes. `at_home` pages were at home, not counting those on the return list.
    ///
    /// # Safety
    /// Called once, by the owner, which does not use the region again.
    pub(crate) unsafe fn close(region: NonNull<Region>, at_home: u32) {
        // SAFETY: the pool lives until this call, so the region does.
        let this = unsafe { region.as_ref() };
        let mut home = at_home;
        this.walk(this.returned.swap(CLOSED, Ordering::AcqRel), |_| home += 1);
        let out = i64::from(this.page_count() - home);
        if this.orphans.fetch_add(out, Ordering::AcqRel) + out == 0 {
            // SAFETY: every page that was out has counted itself down: no holder is left, nor the pool.
            unsafe { Region::free(region) };
        }
    }

    fn walk(&self, mut page: u32, mut take: impl FnMut(u32)) {
        while page != END {
            take(page);
            page = self.pages[page as usize].next.load(Ordering::Relaxed);
        }
    }

    /// Tells loom that bytes of a page are read.
    #[inline(always)]
    pub(crate) fn note_read(&self, _page: u32, _offset: usize, _len: usize) {
        #[cfg(loom)]
        for cell in
            &self.pages[_page as usize].bytes[_offset / LOOM_GRAIN..(_offset + _len).div_ceil(LOOM_GRAIN)]
        {
            cell.with(|_| ());
        }
    }

    /// Tells loom that bytes of a page are written.
    #[inline(always)]
    pub(crate) fn note_write(&self, _page: u32, _offset: usize, _len: usize) {
        #[cfg(loom)]
        for cell in
            &self.pages[_page as usize].bytes[_offset / LOOM_GRAIN..(_offset + _len).div_ceil(LOOM_GRAIN)]
        {
            cell.with_mut(|_| ());
        }
    }
}
