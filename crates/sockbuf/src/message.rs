//! A message in pool memory: writable by one owner while it is assembled, then immutable, counted and
//! readable by anyone. Not a queue entry and not tied to a protocol.

use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use std::borrow::Cow;

use crate::PAGE;
use crate::region::Region;

/// An immutable message in pool memory: any number of holders on any threads, no copy, no lock.
///
/// A message of up to [`PAGE`] bytes is contiguous; a longer one consists of chunks of exactly [`PAGE`]
/// bytes and a shorter last one. Cloning counts per page. Dropping the last holder sends the memory home to
/// its [`Pool`](crate::Pool). Holding a small message keeps the whole page it lies in (64 KiB) from being
/// reused: keep a copy instead, if it is to be kept for long.
///
/// Plain numbers, no union: the compiler then makes a message where it is to lie. Moved right after it was made,
/// in wider pieces than it was made of, it would keep its mover waiting for longer than the copy of its bytes.
pub struct Message {
    /// Dangling if and only if there are no pages.
    region: NonNull<Region>,
    /// Length in bytes; 0 if and only if there are no pages.
    len: u32,
    /// Where the last piece starts in its page; all other pieces are whole pages.
    tail_offset: u32,
    /// The first page. Each page is counted once for this message.
    first: u32,
    /// The pages after it, in order.
    others: Box<[u32]>,
}

// SAFETY: the bytes of a message are not written while it exists; counting and the way home are atomic.
unsafe impl Send for Message {}
// SAFETY: as above; a shared message only reads its bytes, or counts atomically.
unsafe impl Sync for Message {}

impl Message {
    /// A message of no bytes, which holds no memory.
    pub fn empty() -> Message {
        Message { region: NonNull::dangling(), len: 0, tail_offset: 0, first: 0, others: Box::default() }
    }

    /// Length, in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True if there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, in order, in chunks of at most [`PAGE`] bytes.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks { message: self, next: 0, end: self.page_count() }
    }

    /// All bytes, if they are contiguous: always so up to [`PAGE`] bytes.
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        match self.page_count() {
            0 => Some(&[]),
            1 => Some(self.chunk(0)),
            _ => None,
        }
    }

    /// All bytes, contiguous: borrowed if they are, else copied.
    pub fn contiguous(&self) -> Cow<'_, [u8]> {
        match self.as_slice() {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(self.to_vec()),
        }
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.chunks().for_each(|chunk| bytes.extend_from_slice(chunk));
        bytes
    }

    /// Copies as many bytes as fit from the front of the message; returns how many.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let mut done = 0;
        for chunk in self.chunks() {
            let count = chunk.len().min(to.len() - done);
            to[done..done + count].copy_from_slice(&chunk[..count]);
            done += count;
        }
        done
    }

    /// The message as one single-chunk message per chunk, without a copy. The iterator must be used up: what
    /// is left of it leaks.
    pub(crate) fn into_chunks(self) -> impl Iterator<Item = Message> {
        let mut this = ManuallyDrop::new(self);
        let (region, count, len, tail_offset) = (this.region, this.page_count(), this.len, this.tail_offset);
        let (first, others) = (this.first, core::mem::take(&mut this.others));
        // From here on the pages are counted for the messages made of them.
        let pages = core::iter::once(first).chain(others).take(count);
        pages.enumerate().map(move |(index, page)| {
            let last = count - 1;
            let (len, tail_offset) = if index == last {
                (len - index as u32 * PAGE as u32, tail_offset)
            } else {
                (PAGE as u32, 0)
            };
            Message { region, len, tail_offset, first: page, others: Box::default() }
        })
    }

    /// The piece with this index.
    #[inline]
    fn chunk(&self, index: usize) -> &[u8] {
        let (page, offset, len) = self.piece(index);
        let region = self.region();
        region.note_read(page, offset, len);
        // SAFETY: `piece` gives a range within one page that was allocated to this message; the message
        // counts in the page, so it is not given to anyone else while `self` is borrowed; the bytes were
        // initialised by `alloc_zeroed` at the latest and are not written between `freeze` and the last drop.
        unsafe { core::slice::from_raw_parts(region.at(page, offset), len) }
    }

    /// Page, offset in it, and length of the piece with this index.
    #[inline]
    fn piece(&self, index: usize) -> (u32, usize, usize) {
        let page = if index == 0 { self.first } else { self.others[index - 1] };
        if index == self.others.len() {
            (page, self.tail_offset as usize, self.len as usize - index * PAGE)
        } else {
            (page, 0, PAGE)
        }
    }

    #[inline]
    fn page_count(&self) -> usize {
        if self.len == 0 { 0 } else { 1 + self.others.len() }
    }

    /// Only for messages that have pages.
    #[inline]
    fn region(&self) -> &Region {
        debug_assert!(!self.is_empty());
        // SAFETY: the message has a page out, and the region lives while pages are out.
        unsafe { self.region.as_ref() }
    }
}

impl Drop for Message {
    #[inline]
    fn drop(&mut self) {
        let give_back = |page| {
            // SAFETY: this page is still counted for us, so it is out and the region lives. It may die with
            // the page's way home, and then this was the last page: other pages of ours would be out.
            if unsafe { self.region.as_ref() }.release(page, 1) {
                // SAFETY: the count reached zero by our release, so this is the only call for the page, and
                // the region is used again only if we hold further pages.
                unsafe { Region::send_home(self.region, page) };
            }
        };
        if self.len > 0 {
            give_back(self.first);
            self.others.iter().copied().for_each(give_back);
        }
    }
}

impl Clone for Message {
    #[inline]
    fn clone(&self) -> Message {
        if self.len > 0 {
            self.region().hold(self.first);
            self.others.iter().for_each(|&page| self.region().hold(page));
        }
        Message {
            region: self.region,
            len: self.len,
            tail_offset: self.tail_offset,
            first: self.first,
            others: self.others.clone(),
        }
    }
}

impl Default for Message {
    fn default() -> Self {
        Message::empty()
    }
}

impl fmt::Debug for Message {
    /// Length and the first bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.chunks().next().unwrap_or_default();
        write!(f, "Message({} bytes: ", self.len)?;
        crate::payload::debug_bytes(&first[..first.len().min(32)], f)?;
        f.write_str(if self.len() > 32 { "...)" } else { ")" })
    }
}

impl Eq for Message {}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        // Both are cut at the same places.
        self.len == other.len && self.chunks().eq(other.chunks())
    }
}

impl PartialEq<[u8]> for Message {
    fn eq(&self, other: &[u8]) -> bool {
        self.len() == other.len() && self.chunks().eq(other.chunks(PAGE))
    }
}

impl PartialEq<&[u8]> for Message {
    fn eq(&self, other: &&[u8]) -> bool {
        *self == **other
    }
}

impl PartialEq<Vec<u8>> for Message {
    fn eq(&self, other: &Vec<u8>) -> bool {
        *self == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Message {
    fn eq(&self, other: &[u8; N]) -> bool {
        *self == other[..]
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Message {
    fn eq(&self, other: &&[u8; N]) -> bool {
        *self == other[..]
    }
}

impl From<Message> for Vec<u8> {
    fn from(message: Message) -> Vec<u8> {
        message.to_vec()
    }
}

/// The chunks of a [`Message`].
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    message: &'a Message,
    next: usize,
    end: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        (self.next < self.end).then(|| {
            self.next += 1;
            self.message.chunk(self.next - 1)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl ExactSizeIterator for Chunks<'_> {}

/// Pool memory for one short message, not yet filled. One that is never filled is lost to its pool.
///
/// Who hands messages on takes the memory first, does all that may fail, and makes the message last, right where
/// it is to lie: plain numbers, so that it need not be moved there.
#[derive(Debug)]
#[must_use = "memory that is never filled is lost to its pool"]
pub struct Fragment {
    region: NonNull<Region>,
    page: u32,
    offset: u32,
    len: u32,
}

impl Fragment {
    /// Memory just allocated: `len` bytes, not 0, of a page that is counted once for them.
    #[inline(always)]
    pub(crate) fn new(region: NonNull<Region>, page: u32, offset: u32, len: u32) -> Fragment {
        Fragment { region, page, offset, len }
    }

    /// The message with these bytes.
    ///
    /// # Panics
    /// If they are not as many as were asked for.
    #[inline(always)]
    pub fn fill(self, bytes: &[u8]) -> Message {
        assert_eq!(bytes.len(), self.len as usize, "as many bytes as were asked for");
        // SAFETY: the page is out, to this fragment, so the region lives.
        let memory = unsafe { self.region.as_ref() };
        if !memory.is_hollow() {
            memory.note_write(self.page, self.offset as usize, bytes.len());
            let to = memory.at(self.page, self.offset as usize);
            // SAFETY: the fragment has so many bytes and is ours alone until the message is returned; the
            // region is not hollow; the source is a shared borrow from elsewhere, for nobody can borrow bytes
            // of a page that are out to nobody else.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        let Fragment { region, page, offset, len } = self;
        Message { region, len, tail_offset: offset, first: page, others: Box::default() }
    }
}

/// Pool memory being filled by its only owner. Dropping it gives the memory back.
///
/// Fresh from the pool it holds whatever earlier messages left there: write every byte before
/// [`MessageBuf::freeze`], or an application may read what was meant for another.
pub struct MessageBuf {
    /// Its pages are this buffer's alone; of the last one, the fragment that the message covers.
    message: Message,
    /// Sum of the lengths written, so at least the number of different bytes written.
    written: u64,
}

impl MessageBuf {
    /// Takes over pages just allocated, at least one: each counts once for the new buffer. `len` is not 0.
    #[inline]
    pub(crate) fn new(
        region: NonNull<Region>,
        len: u32,
        tail_offset: u32,
        first: u32,
        others: Box<[u32]>,
    ) -> Self {
        MessageBuf { message: Message { region, len, tail_offset, first, others }, written: 0 }
    }

    /// Length, in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.message.len()
    }

    /// Always false: a pool allocates no empty messages.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    /// Copies `bytes` to the place that starts `offset` bytes into the message. Places may be written in any
    /// order and more than once.
    ///
    /// # Panics
    /// If the bytes do not lie within the message.
    #[inline]
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len()).expect("end of the bytes within memory");
        assert!(end <= self.len(), "writing up to {end} in a message of {} bytes", self.len());
        self.written += bytes.len() as u64;
        if self.message.region().is_hollow() {
            return;
        }
        let (mut offset, mut bytes) = (offset, bytes);
        while !bytes.is_empty() {
            let (page, start, len) = self.message.piece(offset / PAGE);
            let within = offset % PAGE;
            let count = bytes.len().min(len - within);
            let region = self.message.region();
            region.note_write(page, start + within, count);
            // SAFETY: start + within + count <= start + len, which is within the piece; the region is not
            // hollow, so the piece is ours
            // alone until `freeze`, and `&mut self` makes us the only writer; the source is a shared borrow
            // from elsewhere, for nobody can borrow these bytes from a buffer.
            unsafe { region.at(page, start + within).copy_from_nonoverlapping(bytes.as_ptr(), count) };
            offset += count;
            bytes = &bytes[count..];
        }
    }

    /// Makes the message immutable and sharable. The caller states with this call that it has written every
    /// byte.
    ///
    /// # Panics
    /// If fewer bytes were written than the message has: then that statement is certainly wrong. (Bytes
    /// written twice count twice, so gaps may escape this check; knowing them is the caller's trade.)
    #[inline]
    pub fn freeze(self) -> Message {
        assert!(
            self.written >= u64::from(self.message.len),
            "freezing a message of {} bytes of which only {} were written",
            self.message.len,
            self.written
        );
        self.message
    }
}

impl fmt::Debug for MessageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageBuf({} bytes, {} written)", self.len(), self.written)
    }
}

#[cfg(test)]
mod tests;
