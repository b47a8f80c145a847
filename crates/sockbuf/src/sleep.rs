//! Waking one sleeper that waits until a position is reached: the handshake of [`crate::doorbell`] with a
//! threshold. One side of a stream or of a record queue sleeps here.
//!
//! ```text
//!   sleeper                          waker
//!   look: not enough                 publish a position
//!   want = position                  full fence
//!   full fence                       want <= position?  no: done
//!   look again: not enough                              yes: clear by swap, the one who cleared it wakes
//!   sleep
//! ```
//!
//! The flag and the threshold are one word, so a sleeper that waits for much is not woken for little
//! (SO_RCVLOWAT, SO_SNDLOWAT), and a waker looks at one word.

use crate::doorbell::Wake;
use crate::sync::{AtomicU64, Ordering, Site, full_fence};

/// Nobody sleeps.
const AWAKE: u64 = u64::MAX;

/// One sleeper, looked at by one waker or more. Spurious wake-ups happen, lost ones never.
#[derive(Debug)]
pub(crate) struct SleepCell {
    want: AtomicU64,
}

impl SleepCell {
    pub(crate) fn new() -> Self {
        Self { want: AtomicU64::new(AWAKE) }
    }

    /// Sleeper: announces that it sleeps until position `want`. Look again afterwards.
    #[inline]
    pub(crate) fn arm(&self, want: u64) {
        self.want.store(want.min(AWAKE - 1), Ordering::Relaxed);
        full_fence(Site::SleepSleeper);
    }

    /// Sleeper: does not sleep (any more).
    #[inline]
    pub(crate) fn disarm(&self) {
        // The load keeps the line shared if a waker has cleared the word.
        if self.want.load(Ordering::Relaxed) != AWAKE {
            self.want.swap(AWAKE, Ordering::Relaxed);
        }
    }

    /// Waker: after publishing `position`, wakes the sleeper if that is enough for it. True if it had to.
    #[inline]
    pub(crate) fn ring(&self, position: u64, wake: &impl Wake) -> bool {
        full_fence(Site::SleepWaker);
        let want = self.want.load(Ordering::Relaxed);
        want <= position && self.ring_now(wake)
    }

    /// Waker: after publishing something that concerns the sleeper whatever it wants, such as the end.
    pub(crate) fn ring_always(&self, wake: &impl Wake) -> bool {
        self.ring(AWAKE - 1, wake)
    }

    #[cold]
    fn ring_now(&self, wake: &impl Wake) -> bool {
        let mine = self.want.swap(AWAKE, Ordering::Relaxed) != AWAKE;
        if mine {
            wake.wake();
        }
        mine
    }
}
