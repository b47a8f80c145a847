//! The writing end of a stream: appends, publishes, and takes memory back. The only one that allocates.

use core::fmt;
use core::ptr;
use std::collections::VecDeque;

use bytes::Bytes;

use super::chain::{Block, Chunk, Data, EXTENTS, NEVER};
use super::{Config, End, Shared};
use crate::doorbell::Wake;
use crate::sync::{Arc, Ordering, Site, order, skipped};

/// Chunks begin with this many bytes.
const FIRST_CHUNK: u32 = if cfg!(loom) { 2 } else { 1024 };
/// Lent bytes shorter than this are copied: an extent of their own would cost more.
const LEND_FROM: usize = if cfg!(loom) { 1 } else { 256 };
/// Chunks kept for the next bytes.
const SPARE_CHUNKS: usize = 2;

/// The end that appends bytes. There is one, and it cannot be cloned:
///
/// ```compile_fail,E0599
/// let (writer, _reader) = peyk_sockbuf::stream::stream(Default::default());
/// let second = writer.clone();
/// ```
///
/// nor used by two threads at once:
///
/// ```compile_fail,E0277
/// let (writer, _reader) = peyk_sockbuf::stream::stream(Default::default());
/// std::thread::scope(|scope| { scope.spawn(|| writer.writable()); });
/// ```
///
/// Dropped without [`Writer::finish`], it ends the stream as [`End::Aborted`]; a reader that sleeps at that
/// moment must then be woken by who dropped it.
pub struct Writer {
    shared: Arc<Shared>,
    /// Appended so far, and how much of it is visible to the reader.
    written: u64,
    published: u64,
    /// Published when the reader was last rung for.
    rung: u64,
    /// As last seen.
    released: u64,
    limit: u64,
    /// Last block, and its first free extent. Null: there is no chain.
    tail: *mut Block,
    tail_len: u32,
    /// The oldest extent not taken back.
    oldest: *mut Block,
    oldest_index: u32,
    /// Where small bytes go: the chunk, its first free byte, and whether the last extent ends there.
    open: Option<Arc<Chunk>>,
    fill: u32,
    copying: bool,
    /// None while idle.
    store: Option<Box<Store>>,
    next_chunk: u32,
    max_chunk: u32,
    memory: usize,
    snapshots: u64,
}

/// Memory that is not in the chain's last extent.
#[derive(Default)]
struct Store {
    /// Chunks that are full, and the positions after their last bytes.
    closed: VecDeque<(Arc<Chunk>, u64)>,
    spare_chunks: Vec<Arc<Chunk>>,
    spare_block: Option<Box<Block>>,
}

// SAFETY: the pointers lead to blocks that belong to this stream; which end may access what is the same
// whatever thread it is on. Moving the writer to another thread hands its memory over like any other move.
unsafe impl Send for Writer {}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, config: Config) -> Writer {
        let max_chunk = config.chunk.clamp(1, 1 << 30) as u32;
        Writer {
            shared,
            written: 0,
            published: 0,
            rung: 0,
            released: 0,
            limit: config.limit as u64,
            tail: ptr::null_mut(),
            tail_len: 0,
            oldest: ptr::null_mut(),
            oldest_index: 0,
            open: None,
            fill: 0,
            copying: false,
            store: None,
            next_chunk: FIRST_CHUNK.min(max_chunk),
            max_chunk,
            memory: 0,
            snapshots: 0,
        }
    }

    /// Free bytes, at least. Does not look; only appending lowers it.
    #[inline]
    pub fn writable(&self) -> usize {
        self.limit.saturating_sub(self.written - self.released) as usize
    }

    /// Takes a snapshot: looks how far the reader is, once. Returns [`Writer::writable`].
    #[inline]
    pub fn refresh(&mut self) -> usize {
        self.snapshots += 1;
        self.look();
        self.writable()
    }

    /// Snapshots taken so far.
    pub fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// Position after the last byte appended.
    #[inline]
    pub fn position(&self) -> u64 {
        self.written
    }

    /// Copies as many of the bytes as fit; returns how many. The reader sees them after
    /// [`Writer::publish`].
    #[inline]
    pub fn append_copy(&mut self, bytes: &[u8]) -> usize {
        if self.writable() < bytes.len() {
            self.look();
        }
        let count = self.writable().min(bytes.len());
        let bytes = &bytes[..count];
        if let Some(chunk) = &self.open
            && self.copying
            && bytes.len() <= chunk.len() - self.fill as usize
        {
            // SAFETY: from `fill` on nothing was written since the chunk was ours alone.
            unsafe { chunk.write(self.fill as usize, bytes) };
            self.fill += bytes.len() as u32;
            self.written += bytes.len() as u64;
        } else {
            self.append_slowly(bytes);
        }
        count
    }

    /// Appends bytes without copying them, unless they are few; all or nothing.
    ///
    /// # Errors
    /// Gives the bytes back if they do not fit.
    pub fn append_lend(&mut self, bytes: Bytes) -> Result<(), Bytes> {
        if self.writable() < bytes.len() {
            self.look();
            if self.writable() < bytes.len() {
                return Err(bytes);
            }
        }
        if bytes.len() < LEND_FROM {
            self.append_copy(&bytes);
            return Ok(());
        }
        let len = bytes.len();
        self.reclaim();
        self.push(Data::Lent(bytes));
        self.memory += len;
        self.copying = false;
        self.written += len as u64;
        Ok(())
    }

    /// Makes everything appended visible. A sleeping reader is woken by [`Writer::wake_reader`], to be called
    /// after the last publication of a turn.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.written {
            self.published = self.written;
            self.shared.writers.published.store(self.written, order(Site::StreamPublish, Ordering::Release));
        }
    }

    /// Wakes the reader if it sleeps and what was published is enough for it. True if it had to. Nothing
    /// happens, not even a fence, if nothing was published since the last call.
    #[inline]
    pub fn wake_reader(&mut self, wake: &impl Wake) -> bool {
        if self.rung == self.published {
            return false;
        }
        self.rung = self.published;
        self.shared.both.reader_sleep.ring(self.published, wake)
    }

    /// Marks the byte last appended as urgent; a newer mark replaces an older one. To be called before the
    /// byte is published.
    pub fn mark_urgent(&mut self) {
        // Relaxed: the byte's publication follows and carries it.
        self.shared.writers.urgent.store(self.written, Ordering::Relaxed);
    }

    /// Ends the stream after what was appended, and wakes the reader if it sleeps. The first end counts.
    pub fn finish(&mut self, end: End, wake: &impl Wake) {
        if self.end(end) {
            self.shared.both.reader_sleep.ring_always(wake);
        }
    }

    /// True if the reader is gone or wants nothing more: what is written will not be read.
    pub fn is_abandoned(&self) -> bool {
        self.shared.readers.closed.load(Ordering::Acquire)
    }

    /// Most bytes that may be queued.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Changes the limit. A lower one takes back nothing that is queued: [`Writer::writable`] is 0 until
    /// enough was read. (Either end may do this, but not both.)
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit as u64;
        self.shared.both.limit.store(self.limit, Ordering::Relaxed);
    }

    /// Announces that this end sleeps until `space` bytes are free (at most about half the limit, so that
    /// this end and the reader cannot wait for each other), and looks again. True: sleep now, until woken.
    /// False: there is something to do (enough space, or nobody reads). Afterwards, in either case,
    /// [`Writer::cancel_sleep`]. A reader that waits is woken, for nothing more will come: by `wake`.
    pub fn prepare_sleep(&mut self, space: usize, wake: &impl Wake) -> bool {
        self.publish();
        self.look();
        let space = (space as u64).clamp(1, self.limit / 2 + 1);
        if (self.writable() as u64) < space {
            self.rung = self.published;
            self.shared.both.reader_sleep.ring_always(wake);
        }
        self.shared.both.writer_sleep.arm(self.written.saturating_add(space).saturating_sub(self.limit));
        self.look();
        (self.writable() as u64) < space && !self.is_abandoned()
    }

    /// Awake again, or did not go to sleep after all.
    pub fn cancel_sleep(&mut self) {
        self.shared.both.writer_sleep.disarm();
    }

    /// Bytes of memory this end has out, as far as it knows: chunks, and what it lent.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Gives up all memory if everything was read, as of an idle socket. True if there is none left.
    pub fn trim(&mut self) -> bool {
        self.look();
        if self.released != self.written {
            self.reclaim();
            return false;
        }
        self.store = None;
        self.open = None;
        self.copying = false;
        self.next_chunk = FIRST_CHUNK.min(self.max_chunk);
        self.memory = 0;
        let mut block = core::mem::replace(&mut self.tail, ptr::null_mut());
        if !block.is_null() {
            block = core::mem::replace(&mut self.oldest, ptr::null_mut());
        }
        // SAFETY: the reader has released everything. It does not touch a block before it has seen something
        // newly published, and will then find it at `head`, because `push` says so by `restart`.
        unsafe { free_chain(block) };
        true
    }

    #[inline]
    fn look(&mut self) {
        self.released = self.shared.readers.released.load(Ordering::Acquire);
        self.limit = self.shared.both.limit.load(Ordering::Relaxed);
    }

    fn end(&mut self, end: End) -> bool {
        self.publish();
        let shared = &self.shared.writers.end;
        // Only this end writes it.
        let first = shared.load(Ordering::Relaxed) == 0;
        if first {
            shared.store(end.encode(), order(Site::StreamEnd, Ordering::Release));
        }
        first
    }

    #[cold]
    fn append_slowly(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open.as_ref().is_none_or(|chunk| chunk.len() == self.fill as usize) {
                self.open_chunk();
            }
            let Some(chunk) = self.open.clone() else { return };
            if !self.copying {
                self.push(Data::Copied(chunk.clone(), self.fill));
                self.copying = true;
            }
            let count = bytes.len().min(chunk.len() - self.fill as usize);
            // SAFETY: from `fill` on nothing was written since the chunk was ours alone.
            unsafe { chunk.write(self.fill as usize, &bytes[..count]) };
            self.fill += count as u32;
            self.written += count as u64;
            bytes = &bytes[count..];
        }
    }

    /// A new chunk to copy to: one that came home, or the next larger.
    fn open_chunk(&mut self) {
        if let Some(full) = self.open.take() {
            let end = self.written;
            self.store().closed.push_back((full, end));
        }
        self.look();
        self.reclaim();
        self.fill = 0;
        self.copying = false;
        let wanted = self.next_chunk as usize;
        self.next_chunk = (self.next_chunk * 2).min(self.max_chunk);
        let chunk = match self.store().spare_chunks.pop() {
            Some(chunk) if chunk.len() >= wanted => chunk,
            small => {
                self.memory -= small.map_or(0, |chunk| chunk.len());
                self.memory += wanted;
                Arc::new(Chunk::new(wanted))
            }
        };
        self.open = Some(chunk);
    }

    /// Begins an extent at the present position.
    fn push(&mut self, data: Data) {
        if self.tail.is_null() {
            let block = self.new_block();
            (self.tail, self.tail_len) = (block, 0);
            (self.oldest, self.oldest_index) = (block, 0);
            // Relaxed: the publication of the first byte carries them.
            self.shared.writers.head.store(block, Ordering::Relaxed);
            self.shared.writers.restart.store(self.written, Ordering::Relaxed);
        } else if self.tail_len as usize == EXTENTS {
            let block = self.new_block();
            // SAFETY: the tail is a block of ours.
            let tail = unsafe { &*self.tail };
            tail.next.store(block, order(Site::StreamLink, Ordering::Release));
            (self.tail, self.tail_len) = (block, 0);
        }
        // SAFETY: the tail is a block of ours.
        let extent = unsafe { &(&(*self.tail).extents)[self.tail_len as usize] };
        // SAFETY: the extent is free: the reader does not touch it before bytes of it are published.
        extent.data.with_mut(|place| unsafe { *place = data });
        extent.start.store(self.written, Ordering::Relaxed);
        self.tail_len += 1;
    }

    fn new_block(&mut self) -> *mut Block {
        Box::into_raw(self.store().spare_block.take().unwrap_or_else(Block::new))
    }

    fn store(&mut self) -> &mut Store {
        self.store.get_or_insert_default()
    }

    /// Takes back the extents that the reader has left behind: those whose successor it has begun to
    /// release. (At the very end of an extent the reader's own place is still there.)
    fn reclaim(&mut self) {
        if !self.oldest.is_null() {
            self.reclaim_extents();
            self.reclaim_chunks();
        }
    }

    fn reclaim_extents(&mut self) {
        loop {
            let last = if self.oldest == self.tail { self.tail_len as usize } else { EXTENTS };
            // SAFETY: a block of ours, as are those it links to.
            let block = unsafe { &*self.oldest };
            let next_start = if (self.oldest_index as usize) + 1 < last {
                block.extents[self.oldest_index as usize + 1].start.load(Ordering::Relaxed)
            } else if self.oldest == self.tail {
                return;
            } else {
                // SAFETY: not the tail, so it has a successor, whose first extent is in use.
                unsafe { (&(*block.next.load(Ordering::Relaxed)).extents)[0].start.load(Ordering::Relaxed) }
            };
            if next_start >= self.released {
                return;
            }
            let extent = &block.extents[self.oldest_index as usize];
            let start = extent.start.load(Ordering::Relaxed);
            // SAFETY: the reader has begun to release the next extent, so it is there or beyond, and does not
            // look back; we saw that by Acquire.
            let data =
                extent.data.with_mut(|place| unsafe { core::mem::replace(&mut *place, Data::Nothing) });
            if !matches!(data, Data::Copied(..)) {
                self.memory -= (next_start - start) as usize;
            }
            drop(data);
            self.oldest_index += 1;
            if self.oldest_index as usize == EXTENTS {
                let next = block.next.load(Ordering::Relaxed);
                // SAFETY: made by `new_block`, and neither end has a place in it.
                let mut old = unsafe { Box::from_raw(core::mem::replace(&mut self.oldest, next)) };
                self.oldest_index = 0;
                let store = self.store();
                if store.spare_block.is_none() {
                    reset(&mut old);
                    store.spare_block = Some(old);
                }
            }
        }
    }

    /// Position of the oldest extent not taken back.
    fn oldest_start(&self) -> u64 {
        // SAFETY: a block of ours.
        unsafe { (&(*self.oldest).extents)[self.oldest_index as usize].start.load(Ordering::Relaxed) }
    }

    /// Takes back the chunks that end at or before the oldest extent.
    fn reclaim_chunks(&mut self) {
        let before = self.oldest_start();
        let Some(store) = &mut self.store else { return };
        while store.closed.front().is_some_and(|&(_, end)| end <= before) {
            let Some((mut chunk, _)) = store.closed.pop_front() else { return };
            let is_ours = Arc::get_mut(&mut chunk).is_some() || skipped(Site::StreamHold);
            let fits = chunk.len() >= self.next_chunk as usize && store.spare_chunks.len() < SPARE_CHUNKS;
            if is_ours && fits {
                store.spare_chunks.push(chunk);
            } else {
                // If bytes of it are held, the last holder frees it.
                self.memory -= chunk.len();
            }
        }
    }
}

/// Makes a block that neither end has a place in as new.
fn reset(block: &mut Block) {
    block.next.store(ptr::null_mut(), Ordering::Relaxed);
    for extent in &block.extents {
        extent.start.store(NEVER, Ordering::Relaxed);
    }
}

/// Frees a chain of blocks and what they hold.
///
/// # Safety
/// They came from `new_block`, and nobody uses them any more.
pub(super) unsafe fn free_chain(mut block: *mut Block) {
    while !block.is_null() {
        // SAFETY: as the caller promises.
        let this = unsafe { Box::from_raw(block) };
        block = this.next.load(Ordering::Relaxed);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(End::Aborted);
        // The reader may still read. Who goes last frees the chain: see `Drop for Shared`.
        self.shared.writers.orphan.store(self.oldest, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: both ends are gone; the writer went leaving its oldest block, and the counting of the
        // shared part orders that and all use before this.
        unsafe { free_chain(self.writers.orphan.load(Ordering::Relaxed)) };
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("position", &self.written)
            .field("writable", &self.writable())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
