//! The owner's side of message memory: which pages are free, and the page that small messages share. Used by
//! one thread at a time; what it hands out may be dropped on any thread.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::PAGE;
use crate::message::{Fragment, Message, MessageBuf};
use crate::region::{PAGES_MAX, Region};

/// Fragments start at multiples of this many bytes: no two messages share a cache line.
const FRAGMENT_ALIGN: usize = 64;
/// The owner's share of its current page's count. More than a page can hold fragments, so that the page
/// cannot seem free while it is current; handing out a fragment then needs no atomic operation.
const BIAS: u32 = 1 << 16;
/// How often the owner looks whether its current page has become free, in bytes handed out: small enough
/// that a lone RPC lives in the first-level cache, large enough to keep off the line that droppers write.
const LOOK_EVERY: usize = 4096;

/// A region of 64 KiB pages, from which messages are allocated.
///
/// A message takes whole pages, and for the rest of its length a fragment of the page that small messages
/// share. The last drop of a message, on whatever thread, sends its pages home without a lock; the pool
/// picks them up when it next needs them. Pages are taken last in, first out, so that a lightly used pool
/// keeps to a few cache-warm pages however large it is; the system provides a page's memory when it is first
/// used.
///
/// The pool may be moved between threads but not shared. The memory outlives it while messages are out.
pub struct Pool {
    region: NonNull<Region>,
    /// Pages at home that have been used before.
    free: Vec<u32>,
    /// Pages from this number on have never been used.
    fresh: u32,
    current: Option<Current>,
    _not_sync: PhantomData<Cell<()>>,
}

/// The page that small messages share.
#[derive(Copy, Clone, Debug)]
struct Current {
    page: u32,
    /// First byte not handed out.
    offset: usize,
    /// Look for freedom of the page when a fragment would end beyond this offset.
    look_at: usize,
    /// Fragments handed out since the page was last known to be free.
    handed: u32,
}

/// Why a pool could not be made.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewPoolError {
    /// The allocator refused that much address space.
    OutOfMemory,
}

impl fmt::Display for NewPoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address space for a message pool of this size")
    }
}

impl core::error::Error for NewPoolError {}

// SAFETY: the pool is the only user of its own fields; of the region it uses only what holders elsewhere may
// use at the same time (atomics), or bytes of pages that are out to nobody.
unsafe impl Send for Pool {}

impl Pool {
    /// A pool of `pages` pages of 64 KiB.
    ///
    /// # Panics
    /// If there is no address space for it; see [`Pool::try_new`].
    pub fn new(pages: u32) -> Pool {
        Pool::try_new(pages).expect("address space for the message pool")
    }

    /// A pool of `pages` pages of 64 KiB.
    ///
    /// # Errors
    /// If there is no address space for it.
    pub fn try_new(pages: u32) -> Result<Pool, NewPoolError> {
        Pool::with(if pages <= PAGES_MAX { Region::allocate(pages) } else { None })
    }

    /// A pool of `pages` pages of 64 KiB that have no memory: messages have their lengths, but what is
    /// written to them is dropped and they read as zeros. For simulations of more data than fits into memory;
    /// everything else is as in a real pool.
    ///
    /// # Errors
    /// If there is no memory for the accounts of so many pages.
    pub fn hollow(pages: u32) -> Result<Pool, NewPoolError> {
        Pool::with(if pages <= PAGES_MAX { Region::hollow(pages) } else { None })
    }

    fn with(region: Option<NonNull<Region>>) -> Result<Pool, NewPoolError> {
        Ok(Pool {
            region: region.ok_or(NewPoolError::OutOfMemory)?,
            free: Vec::new(),
            fresh: 0,
            current: None,
            _not_sync: PhantomData,
        })
    }

    /// Memory for a message of `len` bytes, all of it or none. `None` if `len` is 0 or above 4 GiB - 1, or
    /// while too few pages are free.
    #[inline]
    pub fn alloc(&mut self, len: usize) -> Option<MessageBuf> {
        if len < PAGE {
            let (page, offset) = self.fragment(len)?;
            return Some(MessageBuf::new(self.region, len as u32, offset, page, Box::default()));
        }
        self.alloc_long(len)
    }

    /// A message with a copy of `bytes`. `None` as for [`Pool::alloc`].
    pub fn copy_in(&mut self, bytes: &[u8]) -> Option<Message> {
        if bytes.len() < PAGE {
            return self.short(bytes.len()).map(|memory| memory.fill(bytes));
        }
        let mut buf = self.alloc(bytes.len())?;
        buf.write_at(0, bytes);
        Some(buf.freeze())
    }

    /// Memory for a message of less than a [`PAGE`], to be filled at once. `None` as for [`Pool::alloc`], and for
    /// longer ones.
    #[inline(always)]
    pub fn short(&mut self, len: usize) -> Option<Fragment> {
        let (page, offset) = self.fragment(len)?;
        Some(Fragment::new(self.region, page, offset, len as u32))
    }

    /// Pages that can be allocated at this moment, including the shared page of small messages if they are
    /// all gone.
    pub fn free_pages(&mut self) -> u32 {
        self.take_returned();
        let idle = self.current.is_some_and(|current| self.is_idle(current));
        self.available() + u32::from(idle)
    }

    /// Pages of the pool, free or not.
    pub fn total_pages(&self) -> u32 {
        self.region().page_count()
    }

    /// Free pages that suffice for a message of `len` bytes, in whatever state the pool is.
    pub fn pages_for(len: usize) -> u32 {
        u32::try_from(len.div_ceil(PAGE)).unwrap_or(u32::MAX)
    }

    fn region(&self) -> &Region {
        // SAFETY: the region lives at least as long as the pool: it is freed by `close` or after it.
        unsafe { self.region.as_ref() }
    }

    #[cold]
    fn alloc_long(&mut self, len: usize) -> Option<MessageBuf> {
        let length = u32::try_from(len).ok()?;
        let whole = length / PAGE as u32;
        let rest = len % PAGE;
        self.reserve(whole)?;
        let tail = if rest > 0 { Some(self.fragment_sparing(rest, whole)?) } else { None };
        // `len` is a page or more: there is a first one.
        let first = self.take_whole_page();
        let others = (1..whole).map(|_| self.take_whole_page()).chain(tail.map(|(page, _)| page)).collect();
        Some(MessageBuf::new(self.region, length, tail.map_or(0, |(_, offset)| offset), first, others))
    }

    /// A fragment of `len` bytes: its page and offset. `None` if that is nothing, or a page or more.
    #[inline(always)]
    fn fragment(&mut self, len: usize) -> Option<(u32, u32)> {
        if len == 0 || len >= PAGE {
            return None;
        }
        if let Some(current) = &mut self.current {
            let offset = current.offset;
            let end = offset + len.next_multiple_of(FRAGMENT_ALIGN);
            if end <= current.look_at {
                current.offset = end;
                current.handed += 1;
                return Some((current.page, offset as u32));
            }
        }
        self.fragment_sparing(len, 0)
    }

    /// As [`Pool::fragment`], but leaves `spare` pages free.
    #[cold]
    fn fragment_sparing(&mut self, len: usize, spare: u32) -> Option<(u32, u32)> {
        let size = len.next_multiple_of(FRAGMENT_ALIGN);
        let mut current = match self.current {
            Some(current) if self.is_idle(current) => self.start(current.page),
            Some(current) if current.offset + size <= PAGE => current,
            _ => {
                if self.available() <= spare {
                    self.take_returned();
                }
                if self.available() <= spare {
                    return None;
                }
                self.retire_current();
                let page = self.take_page().expect("one is available");
                self.start(page)
            }
        };
        let offset = current.offset;
        current.offset += size;
        current.look_at = current.offset.next_multiple_of(LOOK_EVERY).min(PAGE);
        current.handed += 1;
        self.current = Some(current);
        Some((current.page, offset as u32))
    }

    /// Makes a page that nobody holds the shared page, empty.
    fn start(&mut self, page: u32) -> Current {
        self.region().set_count(page, BIAS);
        Current { page, offset: 0, look_at: 0, handed: 0 }
    }

    /// True if all fragments of the current page have been dropped.
    fn is_idle(&self, current: Current) -> bool {
        self.region().count(current.page) == BIAS - current.handed
    }

    /// Gives up the shared page. It goes home with its last fragment, or at once.
    fn retire_current(&mut self) {
        if let Some(current) = self.current.take()
            && self.region().release(current.page, BIAS - current.handed)
        {
            self.free.push(current.page);
        }
    }

    /// Makes sure that `count` pages are free.
    fn reserve(&mut self, count: u32) -> Option<()> {
        if self.available() < count {
            self.take_returned();
        }
        if self.available() < count && self.current.is_some_and(|current| self.is_idle(current)) {
            self.retire_current();
        }
        (self.available() >= count).then_some(())
    }

    fn available(&self) -> u32 {
        self.free.len() as u32 + (self.total_pages() - self.fresh)
    }

    /// A page that has been reserved, for one message alone.
    fn take_whole_page(&mut self) -> u32 {
        let page = self.take_page().expect("reserved");
        self.region().set_count(page, 1);
        page
    }

    fn take_page(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            self.take_returned();
        }
        if let Some(page) = self.free.pop() {
            return Some(page);
        }
        (self.fresh < self.total_pages()).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    fn take_returned(&mut self) {
        // SAFETY: the region lives as long as the pool; taken by pointer because `free` is borrowed too.
        let region = unsafe { self.region.as_ref() };
        region.take_returned(|page| self.free.push(page));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.retire_current();
        // SAFETY: called once, by the owner; the pool is not used again. At home are the pages on the free
        // list and those never used.
        unsafe { Region::close(self.region, self.available()) };
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("total_pages", &self.total_pages())
            .field("free_pages_at_least", &self.available())
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
