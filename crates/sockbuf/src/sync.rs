//! The primitives that every shared structure of this crate is made of: the real ones, or loom's under
//! `--cfg loom`. The one file that knows the difference.

#[cfg(not(loom))]
mod imp {
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence,
    };
    pub(crate) use std::sync::{Arc, Mutex};

    /// Like [`core::cell::UnsafeCell`], with loom's way of access (as far as it is needed).
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence,
    };
    pub(crate) use loom::sync::{Arc, Mutex};
}

pub(crate) use core::sync::atomic::Ordering;
pub(crate) use imp::*;

/// Puts a value on cache lines of its own (two: neighbours are prefetched in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> core::ops::Deref for Padded<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The places whose fence or memory order a model shows to be needed: loom runs the model once as it is and
/// once with that place weakened, and must find the fault (see `mutant`).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Site {
    /// The sleeper's fence between setting the flag and looking again.
    DoorbellSleeper,
    /// The waker's fence between publishing and looking at the flag.
    DoorbellWaker,
    /// Making an element visible in a ring.
    RingPublish,
    /// Making a slot free again in a ring.
    RingRelease,
    /// Making an element visible in a one-to-one ring.
    SpscPublish,
    /// Making a slot free again in a one-to-one ring.
    SpscRelease,
    /// Making the value visible in a oneshot cell.
    OneshotValue,
    /// Making the waker visible in a oneshot cell.
    OneshotWaker,
    /// The waiter's fence between joining the list and looking again.
    WaitersJoin,
    /// The notifier's fence between publishing and looking at the list.
    WaitersNotify,
    /// The sleeper's fence between saying what it waits for and looking again.
    SleepSleeper,
    /// The waker's fence between publishing and looking at what the sleeper waits for.
    SleepWaker,
    /// Making bytes visible in a stream.
    StreamPublish,
    /// Giving bytes of a stream back.
    StreamRelease,
    /// Making the next block of a stream visible.
    StreamLink,
    /// Looking whether bytes of a chunk are held before it is written anew.
    StreamHold,
    /// Saying that a stream has ended.
    StreamEnd,
    /// Looking for the end before the last bytes.
    StreamEndFirst,
    /// Looking for the end before the last record.
    RecordEndFirst,
    /// The fence between putting something into a queue and looking whether it is marked.
    ReadySet,
    /// The fence between taking a queue's mark and the last look into it.
    ReadyTake,
    /// The writer's fence between saying that numbers change and changing them.
    SnapshotOpen,
    /// Saying that published numbers are whole.
    SnapshotClose,
    /// The reader's fence between reading numbers and looking whether they changed meanwhile.
    SnapshotCheck,
    /// Dropping a message, before its memory is written again in place.
    PageRelease,
    /// Pushing a page on the return list.
    PageReturn,
}

/// A full fence, needed at `site`.
#[inline(always)]
pub(crate) fn full_fence(site: Site) {
    if !weakened(site) {
        fence(Ordering::SeqCst);
    }
}

/// The memory order `order`, needed at `site`.
#[inline(always)]
pub(crate) fn order(site: Site, order: Ordering) -> Ordering {
    if weakened(site) { Ordering::Relaxed } else { order }
}

/// True if the precaution at `site` is to be left out.
#[inline(always)]
pub(crate) fn skipped(site: Site) -> bool {
    weakened(site)
}

#[cfg(not(loom))]
#[inline(always)]
fn weakened(_: Site) -> bool {
    false
}

#[cfg(loom)]
fn weakened(site: Site) -> bool {
    mutant::WEAKENED.get() == Some(site)
}

/// Weakening one place, for models only.
#[cfg(loom)]
pub mod mutant {
    use std::cell::Cell;

    pub use super::Site;

    std::thread_local! {
        /// Loom runs all threads of a model on the one that started it.
        pub(super) static WEAKENED: Cell<Option<Site>> = const { Cell::new(None) };
    }

    /// Runs `model` with `site` weakened.
    pub fn weaken<R>(site: Site, model: impl FnOnce() -> R) -> R {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                WEAKENED.set(None);
            }
        }
        let _restore = Restore;
        WEAKENED.set(Some(site));
        model()
    }
}
