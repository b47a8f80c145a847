//! What a queue is made of, and how one wait behaves.

use std::time::{Duration, Instant};

/// Which mechanism carries the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// io_uring if it can be set up and passes its self-test, else epoll. The environment variable
    /// `PEYK_BACKEND` (`uring`, `epoll` or `auto`) takes precedence over this choice.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// epoll.
    Epoll,
}

/// Limits of a queue. Every table and pool has its bound here.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which mechanism to use.
    pub backend: Backend,
    /// Entries of the submission ring; rounded up to a power of two.
    pub entries: u32,
    /// Entries of the completion ring; 0: enough for all operations and blocks. Should it overflow,
    /// nothing is lost, but streams must be armed anew.
    pub completions: u32,
    /// Operations in flight at most, over all sources.
    pub max_ops: u32,
    /// Receive blocks of 64 KiB and header room handed to the kernel (io_uring), rounded up to a
    /// power of two. Memory: `(blocks + direct_blocks) * 68 KiB`, touched lazily.
    pub blocks: u16,
    /// Receive blocks for receiving by plain calls; also the largest number of datagram (trains)
    /// such calls deliver in one wait.
    pub direct_blocks: u16,
    /// Events delivered by one wait at most.
    pub max_events: usize,
    /// Blocks for receiving from streams, rounded up to a power of two. Memory:
    /// `stream_blocks * stream_block` bytes, touched lazily.
    pub stream_blocks: u16,
    /// Bytes of such a block, rounded up to pages.
    pub stream_block: u32,
    /// Messages from other threads that may wait; rounded up to a power of two.
    pub inlet: u32,
    /// Threads for work on files at most: of this queue (epoll), or of the kernel on its behalf
    /// (io_uring).
    pub workers: u32,
    /// Places for sources that [`Queue::register`](crate::Queue::register) makes known to the ring.
    pub registered: u32,
    /// Places for buffers that [`Queue::register_buf`](crate::Queue::register_buf) makes known to the
    /// ring; at most 16384.
    pub registered_bufs: u32,
    /// Never try at once what can be done elsewhere: reads of files go to the ring or a worker though
    /// they may be in memory, and sockets are waited for before they are tried. Right for files known
    /// to be slow; for tests, it is another order of events.
    pub force_async: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            backend: Backend::Auto,
            entries: 64,
            completions: 0,
            max_ops: 1024,
            blocks: 32,
            direct_blocks: 16,
            max_events: 64,
            stream_blocks: 64,
            stream_block: 32 << 10,
            inlet: 1024,
            workers: 4,
            registered: 64,
            registered_bufs: 64,
            force_async: false,
        }
    }
}

/// Whether a wait looks again and again before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spin {
    /// Sleep at once.
    #[default]
    Sleep,
    /// Never sleep: look until the deadline.
    Spin,
    /// Look for a while that adapts: it doubles after each time it paid off, halves after each
    /// time it did not, and is tried again when sleeps turn out short.
    Adaptive {
        /// Longest time to look before sleeping.
        max: Duration,
    },
}

/// How long a wait may last, and how it spends the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wait {
    /// Return with nothing at this time; `None` waits for ever. A time in the past means: take
    /// what is there.
    pub until: Option<Instant>,
    /// How to wait.
    pub spin: Spin,
    /// Return with this many events, if they come within `window`; 0 and 1 mean the same.
    pub min: u32,
    /// How long to wait for `min` events once there is one.
    pub window: Duration,
}

impl Wait {
    /// Takes what is there, without waiting.
    pub fn now() -> Wait {
        Wait::until(Instant::now())
    }

    /// Waits until an event or `deadline`, asleep.
    pub fn until(deadline: Instant) -> Wait {
        Wait { until: Some(deadline), ..Wait::default() }
    }

    /// Waits for an event for ever, asleep.
    pub fn forever() -> Wait {
        Wait::default()
    }

    /// The same wait, but for `min` events, or what has come when `window` has passed since the
    /// first.
    #[must_use]
    pub fn batch(self, min: u32, window: Duration) -> Wait {
        Wait { min, window, ..self }
    }

    /// The same wait with another way of waiting.
    #[must_use]
    pub fn spin(self, spin: Spin) -> Wait {
        Wait { spin, ..self }
    }
}
