//! The byte-stream sockbuf: one writer, one reader, no lock and no stable count. What a TCP socket keeps
//! between its application and its protocol, for each direction one. Knows nothing of TCP.
//!
//! ```text
//!            released                                  published        written
//!   ────────────┼──────────────────────────────────────────┼───────────────┼──────────► position (u64)
//!     memory    │  the reader may look at any of this,      │ the writer's  │ room, up to
//!     is home   │  again and again (retransmission)         │ own so far    │ released + limit
//! ```
//!
//! Positions count bytes since the stream was made: no wrap-around, no ambiguity of full and empty. Each side
//! writes its own position only and knows a past value of the other's. So nobody knows how much is queued:
//! the reader has a **lower bound** of what it may read, which only its own `release` lowers; the writer a
//! lower bound of what it may write, which only its own appending lowers. Both become exact when the other
//! side rests. A pass of a protocol takes one snapshot (`refresh`) and decides everything by it; what comes
//! later belongs to the next pass, which the wake-up guarantees.
//!
//! **Memory.** A chain of blocks, each of a few extents: a place in a chunk that small writes fill, or a
//! lent [`Bytes`](crate::Bytes). The chain grows and shrinks with what is queued; an idle stream has none.
//! All chunks and blocks belong to the writer: it takes them back when it sees them released, so memory comes
//! home to the core it came from, with no list for returning it. What was lent is dropped by the reader.
//!
//! | variable | written by | order | what it promises |
//! |---|---|---|---|
//! | `published` | writer | Release, Acquire | extents and bytes below it are initialised and do not change |
//! | `released` | reader | Release, Acquire | the reader does not look below it any more, except through holds |
//! | link of a block | writer | Release, Acquire | the next block is initialised |
//! | `end` | writer | Release after the last `published`, Acquire before it | nothing will be published any more |
//! | `urgent` | writer | before `published` | the mark is known before the byte before it can be read |
//! | sleep cells | both | full fences | see `sleep.rs` |
//!
//! What the writer writes, what the reader writes, and what hardly anyone writes lie on three cache lines.

mod chain;
mod reader;
mod writer;

pub use reader::{Reader, Slices, Snapshot};
pub use writer::Writer;

use core::ptr;

use crate::sleep::SleepCell;
use crate::sync::{Arc, AtomicBool, AtomicPtr, AtomicU32, AtomicU64};
use chain::Block;

/// Sizes of a stream.
#[derive(Copy, Clone, Debug)]
pub struct Config {
    /// Most bytes that may be queued, in bytes (high-water mark); can be changed later.
    pub limit: usize,
    /// Largest chunk for bytes that are copied in, in bytes. Chunks start small and double up to this.
    pub chunk: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { limit: 256 << 10, chunk: 16 << 10 }
    }
}

/// How a stream ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// In order: all that was written can be read (a FIN).
    Finished,
    /// By an error with this number; what was published before can still be read (a reset).
    Error(u16),
    /// The writer is gone without a word.
    Aborted,
}

impl End {
    pub(crate) fn encode(self) -> u32 {
        match self {
            End::Finished => 1,
            End::Aborted => 2,
            End::Error(code) => 0x1_0000 | u32::from(code),
        }
    }

    pub(crate) fn decode(code: u32) -> Option<End> {
        match code {
            0 => None,
            1 => Some(End::Finished),
            2 => Some(End::Aborted),
            code => Some(End::Error(code as u16)),
        }
    }
}

/// A new stream: its two ends. Nothing is allocated for bytes until some are written.
///
/// Each end is written to at every use: move each to the thread that uses it. Left side by side, where this
/// returns them, they share a cache line, and two threads that use them there get a quarter of the speed.
pub fn stream(config: Config) -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        writers: Line(WriterLine {
            published: AtomicU64::new(0),
            urgent: AtomicU64::new(0),
            restart: AtomicU64::new(u64::MAX),
            head: AtomicPtr::new(ptr::null_mut()),
            orphan: AtomicPtr::new(ptr::null_mut()),
            end: AtomicU32::new(0),
        }),
        readers: Line(ReaderLine { released: AtomicU64::new(0), closed: AtomicBool::new(false) }),
        both: Line(BothLine {
            reader_sleep: SleepCell::new(),
            writer_sleep: SleepCell::new(),
            limit: AtomicU64::new(config.limit as u64),
        }),
    });
    (Writer::new(shared.clone(), config), Reader::new(shared))
}

/// What both ends see.
struct Shared {
    writers: Line<WriterLine>,
    readers: Line<ReaderLine>,
    both: Line<BothLine>,
}

/// One cache line. Not a pair of them: that made no difference on two CPUs, and a socket has six.
#[repr(align(64))]
struct Line<T>(T);

impl<T> core::ops::Deref for Line<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

struct WriterLine {
    published: AtomicU64,
    /// Position after the urgent byte; 0 if there was none.
    urgent: AtomicU64,
    /// Position at which the chain began anew after it had been given up, and its first block then.
    restart: AtomicU64,
    head: AtomicPtr<Block>,
    /// The chain that the writer left behind when it went.
    orphan: AtomicPtr<Block>,
    /// See [`End::encode`].
    end: AtomicU32,
}

struct ReaderLine {
    released: AtomicU64,
    /// The reader wants nothing any more.
    closed: AtomicBool,
}

/// Written rarely, by either side.
struct BothLine {
    reader_sleep: SleepCell,
    writer_sleep: SleepCell,
    limit: AtomicU64,
}

#[cfg(all(test, not(loom)))]
mod tests;
