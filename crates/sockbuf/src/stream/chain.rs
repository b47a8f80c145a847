//! The chain of a stream: blocks of extents, and chunks that bytes are copied to. Who may touch what at which
//! time is the affair of the two ends.
//!
//! ```text
//!   an extent is   FREE       start = NEVER                        the writer's
//!                  FILLED     start <= its position                data shared: bytes below `published` are
//!                                                                  read, those above written by the writer
//!                  PASSED     the reader released beyond its end   the reader has dropped what was lent
//!                  RECLAIMED  the next one's start < released      the writer's again
//! ```
//!
//! An extent has no length: it ends where the next one starts, or at `published`. So appending to the last
//! one changes nothing the reader looks at.

use core::mem::MaybeUninit;
use core::ptr;

use bytes::Bytes;

use crate::sync::{Arc, AtomicPtr, AtomicU64, UnsafeCell};

/// Start of an extent that is not in use.
pub(super) const NEVER: u64 = u64::MAX;
/// Extents of a block.
pub(super) const EXTENTS: usize = if cfg!(loom) { 2 } else { 15 };

/// Some extents and the way to the next block.
pub(super) struct Block {
    pub(super) next: AtomicPtr<Block>,
    pub(super) extents: [Extent; EXTENTS],
}

pub(super) struct Extent {
    /// Position of its first byte.
    pub(super) start: AtomicU64,
    pub(super) data: UnsafeCell<Data>,
}

/// Where an extent's bytes are.
pub(super) enum Data {
    /// Nowhere: not in use, or dropped.
    Nothing,
    /// Copied to this chunk, from this offset on.
    Copied(Arc<Chunk>, u32),
    Lent(Bytes),
}

impl Block {
    pub(super) fn new() -> Box<Block> {
        Box::new(Block {
            next: AtomicPtr::new(ptr::null_mut()),
            extents: core::array::from_fn(|_| Extent {
                start: AtomicU64::new(NEVER),
                data: UnsafeCell::new(Data::Nothing),
            }),
        })
    }
}

/// A cache line of a chunk. Aligned, so that a write of a line's length goes from CPU to CPU as one line.
#[repr(align(64))]
struct Line {
    _bytes: [MaybeUninit<core::cell::UnsafeCell<u8>>; LINE],
}

const LINE: usize = 64;

/// Memory for bytes that are copied in. The writer writes each byte once, before it publishes it.
pub(super) struct Chunk {
    lines: Box<[MaybeUninit<Line>]>,
    len: usize,
    /// Stand for the bytes under loom, which cannot see raw memory.
    #[cfg(loom)]
    seen: Box<[UnsafeCell<()>]>,
}

// SAFETY: a byte is written by the writer of the stream before it publishes it and only read afterwards,
// until the writer is its only holder again (`Arc::get_mut`).
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    pub(super) fn new(len: usize) -> Chunk {
        Chunk {
            lines: Box::new_uninit_slice(len.div_ceil(LINE)),
            len,
            #[cfg(loom)]
            seen: (0..len).map(|_| UnsafeCell::new(())).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Copies bytes to a place.
    ///
    /// # Safety
    /// Only by the writer, to places that it has not published since it was the chunk's only holder.
    ///
    /// # Panics
    /// If they do not fit.
    #[inline]
    pub(super) unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        let room = self.place(offset, bytes.len());
        #[cfg(loom)]
        self.seen[offset..offset + bytes.len()].iter().for_each(|cell| cell.with_mut(|_| ()));
        // SAFETY: `room` is as long as `bytes`; nobody reads it yet, and only the writer calls this.
        unsafe { room.cast_mut().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Where `len` bytes are, `offset` bytes into the chunk.
    ///
    /// # Panics
    /// If they are not all in it.
    #[inline]
    fn place(&self, offset: usize, len: usize) -> *const u8 {
        assert!(offset <= self.len && len <= self.len - offset, "beyond the chunk");
        self.lines.as_ptr().cast::<u8>().wrapping_add(offset)
    }

    /// The bytes from `offset` on.
    ///
    /// # Safety
    /// They were published, the caller has seen that (Acquire), and it is or keeps a holder of the chunk for
    /// as long as it uses them.
    #[inline]
    pub(super) unsafe fn read<'a>(&self, offset: usize, len: usize) -> &'a [u8] {
        let bytes = self.place(offset, len);
        #[cfg(loom)]
        self.seen[offset..offset + len].iter().for_each(|cell| cell.with(|_| ()));
        // SAFETY: initialised and constant since they were published; alive as the caller promises.
        unsafe { core::slice::from_raw_parts(bytes, len) }
    }
}

/// Bytes of a chunk that outlive the stream's own use of it.
pub(super) struct Held {
    pub(super) chunk: Arc<Chunk>,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: whoever made this had seen the bytes published, and `chunk` holds the chunk.
        unsafe { self.chunk.read(self.offset, self.len) }
    }
}
