//! Futures whose completion is an event: how a Homa request or anything else that is awaited comes
//! out of the same wait as a file read.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use peyk_sockbuf::ring::Ring;

use crate::core::{Core, InFlight};
use crate::event::What;
use crate::handle::Shared;
use crate::op::sealed::Sealed;
use crate::op::{Op, OpId, Refusal, Rejected, Token};
use crate::queue::Queue;

/// Polls a future on the queue's thread, within waits, until it is complete: event
/// [`What::Output`](crate::What::Output). It must not use the queue itself. A panic in it goes
/// through the wait; the future is then gone, without an event.
#[derive(Debug)]
pub struct Deliver<F>(
    /// The future.
    pub F,
);

/// Futures that asked to be polled.
#[derive(Debug)]
pub(crate) struct Woken {
    ring: Ring<OpId>,
    /// More did than the ring holds: poll all.
    all: AtomicBool,
}

impl Woken {
    pub(crate) fn new(room: usize) -> Woken {
        Woken { ring: Ring::with_capacity(room), all: AtomicBool::new(false) }
    }
}

/// Puts a future on the list, once until it is polled.
struct Bell {
    id: OpId,
    listed: AtomicBool,
    woken: Arc<Woken>,
    shared: Arc<Shared>,
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.woken.ring.push(self.id).is_err() {
            self.woken.all.store(true, Ordering::Release);
        }
        self.shared.notify();
    }
}

type Output = Box<dyn Any>;

/// A future in flight.
pub(crate) struct Pending {
    future: Pin<Box<dyn Future<Output = Output>>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl Core {
    /// Polls the futures that asked for it.
    pub(crate) fn poll_futures(&mut self) {
        let woken = Arc::clone(&self.woken);
        if woken.all.swap(false, Ordering::AcqRel) {
            let all: Vec<OpId> = self.ops.iter().map(|(id, _)| id).collect();
            all.into_iter().for_each(|id| self.poll_future(id));
        }
        // Those that wake themselves while polled come in the next round.
        for _ in 0..woken.ring.len() {
            let Some(id) = woken.ring.pop() else { return };
            self.poll_future(id);
        }
    }

    fn poll_future(&mut self, id: OpId) {
        // Taken out while it runs: it is foreign code.
        let pending = match self.ops.entry(id) {
            Some((_, InFlight::Future(pending))) => pending.take(),
            _ => None,
        };
        let Some(mut pending) = pending else { return };
        pending.bell.listed.store(false, Ordering::Release);
        match pending.future.as_mut().poll(&mut Context::from_waker(&pending.waker)) {
            Poll::Pending => {
                if let Some((_, InFlight::Future(place))) = self.ops.entry(id) {
                    *place = Some(pending);
                }
            }
            Poll::Ready(output) => {
                if let Some((token, _)) = self.ops.remove(id) {
                    self.push(token, id, true, What::Output(output));
                }
            }
        }
    }

    pub(crate) fn cancel_future(&mut self, id: OpId) {
        if let Some((token, _)) = self.ops.remove(id) {
            self.push(token, id, true, What::Cancelled { done: 0, operands: Default::default() });
        }
    }
}

impl<F> Sealed for Deliver<F> {}
impl<F> Op for Deliver<F>
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn start(self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<Self>> {
        let core = queue.core();
        if core.ops.is_full() {
            return Err(Rejected { op: self, why: Refusal::Full });
        }
        let id = core.ops.insert(token, InFlight::Future(None));
        let bell = Arc::new(Bell {
            id,
            listed: AtomicBool::new(false),
            woken: Arc::clone(&core.woken),
            shared: Arc::clone(&core.shared),
        });
        let future = async move { Box::new(self.0.await) as Output };
        let pending =
            Pending { future: Box::pin(future), waker: Waker::from(bell.clone()), bell: bell.clone() };
        if let Some((_, InFlight::Future(place))) = core.ops.entry(id) {
            *place = Some(pending);
        }
        bell.wake_by_ref();
        Ok(id)
    }
}
