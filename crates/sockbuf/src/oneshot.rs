//! One value, handed from one thread to one future: the answer to one request. Lock-free, no runtime.
//!
//! ```text
//!   bits of `state`     set by        meaning
//!   VALUE               completer     the value is there; the completer is done with the cell
//!   GONE                completer     dropped without a value
//!   WAKER               completion    a waker is there; the completion does not touch it while this is set
//!   CANCELLED           completion    dropped; no value is wanted
//! ```

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::sync::{Arc, AtomicU8, Ordering, Site, UnsafeCell, order};

const VALUE: u8 = 1;
const GONE: u8 = 2;
const WAKER: u8 = 4;
const CANCELLED: u8 = 8;

/// A new cell: its two ends.
pub fn cell<T>() -> (Completer<T>, Completion<T>) {
    let shared = Arc::new(Shared {
        state: AtomicU8::new(0),
        value: UnsafeCell::new(None),
        waker: UnsafeCell::new(None),
    });
    (Completer { shared: Some(shared.clone()) }, Completion { shared })
}

struct Shared<T> {
    state: AtomicU8,
    /// The completer's until VALUE is set, then the completion's.
    value: UnsafeCell<Option<T>>,
    /// The completion's while WAKER is not set; while it is, to be read by a completer that sets VALUE or
    /// GONE. The completion clears WAKER before it touches this, and once VALUE or GONE is set not at all.
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: `value` and `waker` are accessed by one side at a time, by the rules at the fields; the bits are
// changed by Release and read by Acquire operations. A value moves between threads, hence T: Send.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The completer's last act on the state; `before` is what it found.
    fn wake(&self, before: u8) {
        if before & WAKER != 0 {
            // SAFETY: WAKER was set when we set VALUE or GONE, so the completion has written the waker
            // (Acquire) and does not touch it any more. Only one completer exists and it comes here once.
            if let Some(waker) = self.waker.with_mut(|waker| unsafe { (*waker).take() }) {
                waker.wake();
            }
        }
    }
}

/// The end that gives the value. Dropping it without one cancels the other end's wait.
pub struct Completer<T> {
    /// `None` once used up.
    shared: Option<Arc<Shared<T>>>,
}

impl<T> Completer<T> {
    /// Gives the value and wakes the future that waits for it.
    ///
    /// # Errors
    /// Gives the value back if the other end is gone.
    pub fn complete(mut self, value: T) -> Result<(), T> {
        let shared = self.shared.take().expect("completed once: it is consumed");
        if shared.state.load(Ordering::Acquire) & CANCELLED != 0 {
            return Err(value);
        }
        // SAFETY: VALUE is not set (only we set it, below, and then the completer is gone), so the value is
        // ours.
        shared.value.with_mut(|cell| unsafe { *cell = Some(value) });
        let before = shared.state.fetch_or(VALUE, order(Site::OneshotValue, Ordering::AcqRel));
        if before & CANCELLED != 0 {
            // SAFETY: the completion dropped before it could see VALUE, and does not come back.
            let value = shared.value.with_mut(|cell| unsafe { (*cell).take() });
            return value.map_or(Ok(()), Err);
        }
        shared.wake(before);
        Ok(())
    }

    /// True if the other end is gone: nobody wants a value any more.
    pub fn is_cancelled(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.state.load(Ordering::Acquire) & CANCELLED != 0)
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let before = shared.state.fetch_or(GONE, Ordering::AcqRel);
            if before & CANCELLED == 0 {
                shared.wake(before);
            }
        }
    }
}

/// The other end was dropped without giving a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the completer was dropped without a value")
    }
}

impl core::error::Error for Cancelled {}

/// The end that waits for the value: a future. Dropping it tells the completer that no value is wanted.
#[must_use = "dropping it cancels"]
pub struct Completion<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Completion<T> {
    /// The outcome, if there is one yet. A value is given once: asked again, the answer is [`Cancelled`].
    pub fn try_take(&mut self) -> Option<Result<T, Cancelled>> {
        self.outcome(self.shared.state.load(Ordering::Acquire))
    }

    fn outcome(&self, state: u8) -> Option<Result<T, Cancelled>> {
        if state & VALUE != 0 {
            // SAFETY: VALUE is set (Acquire), so the completer has written the value and is done with it.
            return Some(self.shared.value.with_mut(|cell| unsafe { (*cell).take() }).ok_or(Cancelled));
        }
        (state & GONE != 0).then_some(Err(Cancelled))
    }
}

impl<T> Future for Completion<T> {
    type Output = Result<T, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = &self.shared;
        let mut state = shared.state.load(Ordering::Acquire);
        if state & (VALUE | GONE) == 0 && state & WAKER != 0 {
            // A waker from an earlier poll: take it back before touching it.
            state = shared.state.fetch_and(!WAKER, Ordering::AcqRel);
        }
        if let Some(outcome) = self.outcome(state) {
            return Poll::Ready(outcome);
        }
        // SAFETY: neither VALUE nor GONE was set when WAKER was found or made clear; a completer that sets
        // one of them later finds no WAKER, and leaves the waker to us.
        shared.waker.with_mut(|waker| unsafe {
            match &mut *waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        });
        let state = shared.state.fetch_or(WAKER, order(Site::OneshotWaker, Ordering::AcqRel));
        self.outcome(state).map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state.load(Ordering::Acquire);
        if state & (VALUE | GONE) == 0 {
            state = self.shared.state.fetch_or(CANCELLED, Ordering::AcqRel);
        }
        if state & VALUE != 0 {
            // SAFETY: VALUE is set (Acquire), so the value is ours. It is dropped here, not when the
            // completer's count goes.
            drop(self.shared.value.with_mut(|cell| unsafe { (*cell).take() }));
        }
    }
}

impl<T> fmt::Debug for Completer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.shared.state.load(Ordering::Relaxed) & (VALUE | GONE) != 0;
        f.debug_struct("Completion").field("done", &done).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
