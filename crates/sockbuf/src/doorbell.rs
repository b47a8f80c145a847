//! Waking a thread, but only if it sleeps: the flag and the fences, not the system call.
//!
//! ```text
//!   sleeper                          waker
//!   look: nothing                    publish
//!   armed = true                     full fence
//!   full fence                       armed?  no: done
//!   look again: nothing                      yes: clear by swap, the one who cleared it wakes
//!   sleep
//! ```
//!
//! Either the waker sees the flag or the sleeper sees what was published: each writes one, passes a full
//! fence, and reads the other. Both fences are needed; sequentially consistent accesses instead of fences are
//! not the same (loom checks the variants in `tests/loom/`). A wake-up costs a system call, 160 ns even when
//! nobody sleeps; the fence costs about 20 ns: a shard rings once per turn and touched thread, not per item.

use crate::sync::{AtomicBool, AtomicUsize, Ordering, Padded, Site, full_fence};

/// How a sleeping thread is woken: an eventfd, a futex, `Thread::unpark`.
pub trait Wake {
    /// Makes the sleeper's current or next sleep end.
    fn wake(&self);
}

impl<F: Fn()> Wake for F {
    fn wake(&self) {
        self();
    }
}

/// One sleeper's flag, looked at by any number of wakers. Spurious wake-ups happen, lost ones never.
#[derive(Debug, Default)]
pub struct Doorbell {
    /// The sleeper sleeps or is about to. Set by the sleeper; cleared by the sleeper or by one waker.
    armed: Padded<AtomicBool>,
    /// Times that a waker had to wake.
    rings: AtomicUsize,
}

impl Doorbell {
    /// A doorbell whose owner is awake.
    pub fn new() -> Self {
        Self { armed: Padded(AtomicBool::new(false)), rings: AtomicUsize::new(0) }
    }

    /// Sleeper: announces the intention to sleep. Then look again at everything that a waker publishes, and
    /// either sleep or [`Doorbell::cancel_sleep`].
    #[inline]
    pub fn prepare_sleep(&self) {
        self.armed.store(true, Ordering::Relaxed);
        full_fence(Site::DoorbellSleeper);
    }

    /// Sleeper: awake again, or did not go to sleep after all. False if a waker has rung in the meantime: its
    /// wake has happened or is about to, and ends a later sleep if it has not ended this one.
    #[inline]
    pub fn cancel_sleep(&self) -> bool {
        // While no waker cleared the flag, a plain store would do; the load keeps the line shared if one did.
        self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::Relaxed)
    }

    /// Waker: after publishing, wakes the sleeper if there is one. True if it had to.
    #[inline]
    pub fn ring_if_asleep(&self, wake: &impl Wake) -> bool {
        full_fence(Site::DoorbellWaker);
        if !self.armed.load(Ordering::Relaxed) {
            return false;
        }
        self.ring(wake)
    }

    /// How many times a waker had to wake.
    pub fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed) as u64
    }

    #[cold]
    fn ring(&self, wake: &impl Wake) -> bool {
        let mine = self.armed.swap(false, Ordering::Relaxed);
        if mine {
            self.rings.fetch_add(1, Ordering::Relaxed);
            wake.wake();
        }
        mine
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    #[test]
    fn ring_if_asleep_wakes_a_sleeper_once() {
        let bell = Doorbell::new();
        let woken = Cell::new(0);
        let wake = || woken.set(woken.get() + 1);
        assert!(!bell.ring_if_asleep(&wake));
        bell.prepare_sleep();
        assert!(bell.ring_if_asleep(&wake));
        assert!(!bell.ring_if_asleep(&wake));
        assert_eq!((woken.get(), bell.rings()), (1, 1));
        assert!(!bell.cancel_sleep());
        bell.prepare_sleep();
        assert!(bell.cancel_sleep());
        assert!(!bell.ring_if_asleep(&wake));
    }
}
