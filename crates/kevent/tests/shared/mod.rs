//! What the test targets of sockets share: when things happen, processes of their own, and flags.

mod child;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use child::*;

/// The order of events that a test runs with: bugs that one of them hides show in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// As it comes: what can be done at once is.
    Inline,
    /// Each operation is in the kernel before anything else happens.
    Armed,
    /// Nothing is done at once that can be done elsewhere (`Config::force_async`).
    Async,
    /// What the peer does, it does a while later: the queue sleeps by then.
    Delayed,
}

thread_local! {
    static NOW: Cell<Timing> = const { Cell::new(Timing::Inline) };
}

impl Timing {
    pub const ALL: [Timing; 4] = [Timing::Inline, Timing::Armed, Timing::Async, Timing::Delayed];

    /// That of the test this thread runs.
    pub fn now() -> Timing {
        NOW.get()
    }

    pub fn set(self) {
        NOW.set(self);
    }
}

/// How late a delayed peer is.
pub const LATE: Duration = Duration::from_micros(500);

/// Sets a flag when it goes, also by a panic: the thread that watches the flag ends.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
