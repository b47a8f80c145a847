//! What a shard and applications on other threads share: rings and wake-ups, no data that both sides write under a
//! lock.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::sync::{Arc, Mutex};

use peyk_homa::SendError;
use peyk_kevent::Handle;
use peyk_sockbuf::ready::ReadySet;
use peyk_sockbuf::ring::Ring;
use peyk_sockbuf::waiters::WaitList;

use super::{Arrived, Outcome, Submission};
use crate::error::Error;

std::thread_local! {
    /// Number of the stack that the calling thread is a shard of; 0 for others.
    static STACK_HERE: Cell<u64> = const { Cell::new(0) };
}

/// Shared by a shard and all its applications.
pub(crate) struct Shared {
    submissions: Ring<Submission>,
    /// Wakes applications that found the ring full.
    pub space: WaitList,
    handle: Handle,
    /// Closes and cancels that found the ring full: they come from `drop` and cannot wait. Not
    /// on the data path: locked only when the ring is full, or to empty it.
    overflow: Mutex<Vec<Submission>>,
    has_overflow: AtomicBool,
    stopped: AtomicBool,
    /// The stack whose shards' threads must not wait for each other.
    stack: u64,
    /// Longest message that can be sent, in bytes.
    max_message: usize,
}

impl Shared {
    /// For the shard of this stack that runs on the calling thread.
    pub fn new(capacity: usize, max_message: usize, handle: Handle, stack: u64) -> Shared {
        STACK_HERE.set(stack);
        Shared {
            submissions: Ring::with_capacity(capacity.max(2)),
            space: WaitList::new(),
            handle,
            overflow: Mutex::new(Vec::new()),
            has_overflow: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            stack,
            max_message,
        }
    }

    /// Wakes the shard.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether the caller is the shard itself, for which no one else could do the work, or another
    /// of the same stack: shards do not wait for each other.
    pub fn is_on_shard(&self) -> bool {
        STACK_HERE.get() == self.stack
    }

    /// Whether a message of this many bytes can be sent.
    pub fn check_len(&self, len: usize) -> Result<(), SendError> {
        match len {
            0 => Err(SendError::Empty),
            n if n > self.max_message => Err(SendError::TooLong),
            _ => Ok(()),
        }
    }

    /// Hands a submission to the shard, or gives it back if the ring is full or the shard gone.
    #[expect(clippy::result_large_err, reason = "the caller keeps what was not taken")]
    pub fn try_submit(&self, submission: Submission) -> Result<(), Submission> {
        if self.is_stopped() {
            return Err(submission);
        }
        self.submissions.push(submission)?;
        fence(Ordering::SeqCst);
        if self.is_stopped() {
            // The shard may have looked for the last time before the push: dropping what is in
            // the ring tells those who wait for it.
            self.discard();
        } else {
            self.handle.wake();
        }
        Ok(())
    }

    /// Hands over what cannot wait for space in the ring.
    pub fn submit_late(&self, submission: Submission) {
        if let Err(submission) = self.try_submit(submission) {
            if self.is_stopped() {
                return;
            }
            self.overflow.lock().unwrap_or_else(|e| e.into_inner()).push(submission);
            self.has_overflow.store(true, Ordering::Release);
            self.handle.wake();
        }
    }

    /// The next submission; for the shard.
    pub fn next_submission(&self) -> Option<Submission> {
        self.submissions.pop()
    }

    /// What found the ring full, in order; for the shard, once it took everything out of the ring
    /// that was there before.
    pub fn take_late(&self) -> Vec<Submission> {
        let mut late = self.overflow.lock().unwrap_or_else(|e| e.into_inner());
        self.has_overflow.store(false, Ordering::Release);
        std::mem::take(&mut *late)
    }

    /// Something found the ring full.
    pub fn has_late(&self) -> bool {
        self.has_overflow.load(Ordering::Acquire)
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.submissions.capacity()
    }

    /// Drops what nobody will carry out any more: those who wait for it are told.
    pub fn discard(&self) {
        while self.submissions.pop().is_some() {}
        drop(self.take_late());
    }

    /// The shard took submissions out of the ring: those who found it full may try again.
    pub fn made_space(&self) {
        self.space.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The shard takes no more submissions.
    pub fn stopped(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.space.notify_all();
    }
}

/// Shared by all shards that serve a socket, and by its handles.
pub(crate) struct Front {
    pub request_waiters: WaitList,
    pub response_waiters: WaitList,
    /// Which shards have requests; of use if there are several.
    pub ready: ReadySet,
    /// 0 while open, else 1 + an index into [`ENDS`].
    end: AtomicU8,
}

impl Front {
    pub fn new(shards: usize) -> Front {
        Front {
            request_waiters: WaitList::new(),
            response_waiters: WaitList::new(),
            ready: ReadySet::new(shards),
            end: AtomicU8::new(0),
        }
    }

    /// Why nothing more comes, if so.
    pub fn end(&self) -> Option<Error> {
        let end = self.end.load(Ordering::Acquire).checked_sub(1)?;
        ENDS.get(usize::from(end)).cloned()
    }

    /// Nothing more comes, for the reason at this place of [`ENDS`]; the first reason stays.
    pub(super) fn close(&self, why: u8) {
        let _ = self.end.compare_exchange(0, why + 1, Ordering::AcqRel, Ordering::Relaxed);
        self.request_waiters.notify_all();
        self.response_waiters.notify_all();
    }
}

/// Shared by one shard and the handles of one socket.
pub(crate) struct SocketShared {
    pub requests: Ring<Arrived>,
    pub responses: Ring<Outcome>,
    pub front: Arc<Front>,
    /// The place of this shard's part in [`Front::ready`]; none if there is only this one.
    pub(super) index: Option<usize>,
    /// A ring was full, so the shard holds more and wants to be woken when there is space.
    pub(super) behind: AtomicBool,
}

/// Why nothing more comes from a socket.
pub(super) const ENDS: [Error; 2] = [Error::Closed, Error::Stopped];
pub(super) const CLOSED: u8 = 0;
pub(super) const STOPPED: u8 = 1;

impl SocketShared {
    pub(super) fn new(
        requests: usize,
        responses: usize,
        front: Arc<Front>,
        index: Option<usize>,
    ) -> SocketShared {
        SocketShared {
            requests: Ring::with_capacity(requests.max(2)),
            responses: Ring::with_capacity(responses.max(2)),
            front,
            index,
            behind: AtomicBool::new(false),
        }
    }

    /// Tells the shard that a slot became free, if it waits for one; after each pop.
    pub fn popped(&self, shared: &Shared) {
        fence(Ordering::SeqCst);
        if self.behind.load(Ordering::Relaxed) {
            self.behind.store(false, Ordering::Relaxed);
            shared.handle.wake();
        }
    }
}
