//! The side of a queue that other threads may hold: it wakes the queue's thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use peyk_sockbuf::doorbell::{Doorbell, Wake};

use crate::sys;

/// Wakes a queue from any thread. Cheap unless the queue sleeps; then one eventfd write.
#[derive(Debug, Clone)]
pub struct Handle(pub(crate) Arc<Shared>);

impl Handle {
    /// Makes the current or next wait of the queue return with [`What::Woken`](crate::What::Woken).
    /// What the caller wrote before is visible to the queue's thread after that event. Calls
    /// between two waits coalesce.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        // Already set: the queue's thread has not looked yet, and its look comes after our fence.
        if !self.0.pending.load(Ordering::Relaxed) {
            self.0.pending.store(true, Ordering::Release);
        }
        self.0.doorbell.ring_if_asleep(&Eventfd(&self.0.eventfd));
    }

    /// How many wake-ups needed a system call.
    pub fn rings(&self) -> u64 {
        self.0.doorbell.rings()
    }
}

struct Eventfd<'a>(&'a OwnedFd);

impl Wake for Eventfd<'_> {
    fn wake(&self) {
        sys::ring_eventfd(self.0);
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// Somebody called `wake` since the last wait returned that as an event.
    pending: AtomicBool,
    doorbell: Doorbell,
    /// Written only while the queue sleeps. Never read: both backends watch its edges.
    pub(crate) eventfd: OwnedFd,
}

impl Shared {
    pub(crate) fn new() -> std::io::Result<Arc<Shared>> {
        let eventfd = sys::eventfd()?;
        Ok(Arc::new(Shared { pending: AtomicBool::new(false), doorbell: Doorbell::new(), eventfd }))
    }

    /// Whether a wake-up waits to be reported; a plain look.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes the pending wake-up, if any.
    pub(crate) fn take_pending(&self) -> bool {
        self.is_pending() && self.pending.swap(false, Ordering::SeqCst)
    }

    /// Announces sleep. False if a wake-up came in between: then do not sleep.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.doorbell.prepare_sleep();
        if self.is_pending() {
            self.doorbell.cancel_sleep();
            return false;
        }
        true
    }

    pub(crate) fn end_sleep(&self) {
        self.doorbell.cancel_sleep();
    }
}
