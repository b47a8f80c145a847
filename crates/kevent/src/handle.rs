//! The side of a queue that other threads may hold: it wakes the queue's thread and hands it
//! messages.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peyk_sockbuf::doorbell::{Doorbell, Wake};
use peyk_sockbuf::ring::Ring;

use crate::op::Token;
use crate::sys;

/// Wakes a queue from any thread. Cheap unless the queue sleeps; then one eventfd write.
#[derive(Debug, Clone)]
pub struct Handle(pub(crate) Arc<Shared>);

/// Something handed to a queue from another thread: it comes out of a wait as
/// [`What::Message`](crate::What::Message), beside the results of operations.
#[derive(Debug, Default)]
pub struct Message {
    /// Token of the event.
    pub token: Token,
    /// For the receiver to tell messages apart.
    pub kind: u32,
    /// A number.
    pub arg: u64,
    /// Anything else.
    pub body: Option<Box<dyn Any + Send>>,
}

/// A message that was not taken; it comes back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// As many messages as the queue allows are waiting.
    #[error("too many messages are waiting")]
    Full(Message),
    /// The queue is gone.
    #[error("the queue is gone")]
    Closed(Message),
}

impl Handle {
    /// Makes the current or next wait of the queue return with [`What::Woken`](crate::What::Woken).
    /// What the caller wrote before is visible to the queue's thread after that event. Calls
    /// between two waits coalesce.
    pub fn wake(&self) {
        self.0.woken.store(true, Ordering::Relaxed);
        self.0.notify();
    }

    /// Hands a message over. Never waits; messages of one thread arrive in order.
    ///
    /// # Errors
    /// The message comes back if too many are waiting or the queue is gone.
    pub fn post(&self, message: Message) -> Result<(), PostError> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(PostError::Closed(message));
        }
        self.0.inlet.push(message).map_err(PostError::Full)?;
        self.0.notify();
        Ok(())
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
    /// Something was published for the queue's thread since it last looked.
    pending: AtomicBool,
    /// Somebody called `wake` since the last wait returned that as an event.
    woken: AtomicBool,
    /// The queue is gone.
    closed: AtomicBool,
    doorbell: Doorbell,
    pub(crate) inlet: Ring<Message>,
    /// Written only while the queue sleeps. Never read: both backends watch its edges.
    pub(crate) eventfd: OwnedFd,
}

impl Shared {
    pub(crate) fn new(inlet: usize) -> std::io::Result<Arc<Shared>> {
        Ok(Arc::new(Shared {
            pending: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            doorbell: Doorbell::new(),
            inlet: Ring::with_capacity(inlet),
            eventfd: sys::eventfd()?,
        }))
    }

    /// Tells the queue's thread that something was published.
    pub(crate) fn notify(&self) {
        // Stored in any case: a look at the flag first would need a fence of its own.
        self.pending.store(true, Ordering::Release);
        self.doorbell.ring_if_asleep(&Eventfd(&self.eventfd));
    }

    /// Whether something was published; a plain look.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Clears the flag, to be followed by looking at all that may have been published.
    pub(crate) fn take_pending(&self) -> bool {
        self.is_pending() && self.pending.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn take_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed) && self.woken.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Announces sleep. False if something was published in between: then do not sleep.
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
