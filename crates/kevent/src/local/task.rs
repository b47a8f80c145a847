//! Tasks of the executor: futures on one thread, woken from any.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use peyk_sockbuf::ring::Ring;

use crate::handle::Handle;

/// Stands for the future that `block_on` waits for.
const MAIN: usize = usize::MAX;

/// Tasks that want to be polled.
struct Ready {
    ring: Ring<usize>,
    /// More want to than the ring holds: poll all.
    all: AtomicBool,
    main: AtomicBool,
    handle: Handle,
}

struct TaskWaker {
    place: usize,
    /// On the list already.
    listed: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<TaskWaker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<TaskWaker>) {
        if self.place == MAIN {
            self.ready.main.store(true, Ordering::Release);
        } else {
            if self.listed.swap(true, Ordering::AcqRel) {
                return;
            }
            if self.ready.ring.push(self.place).is_err() {
                self.ready.all.store(true, Ordering::Release);
            }
        }
        self.ready.handle.wake();
    }
}

struct Running {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Arc<TaskWaker>,
}

pub(super) struct Tasks {
    /// `None`: free, or being polled.
    list: RefCell<Vec<Option<Running>>>,
    free: RefCell<Vec<usize>>,
    ready: Arc<Ready>,
}

impl Tasks {
    pub(super) fn new(handle: Handle) -> Tasks {
        let ready = Ready {
            ring: Ring::with_capacity(1024),
            all: AtomicBool::new(false),
            main: AtomicBool::new(false),
            handle,
        };
        Tasks { list: RefCell::default(), free: RefCell::default(), ready: Arc::new(ready) }
    }

    pub(super) fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let slot = Rc::new(Slot { output: Cell::new(None), waker: Cell::new(None), over: Cell::new(false) });
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut list = self.list.borrow_mut();
            list.push(None);
            list.len() - 1
        });
        let waker =
            Arc::new(TaskWaker { place, listed: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        let into = Rc::clone(&slot);
        let future = Box::pin(async move {
            let output = future.await;
            into.output.set(Some(output));
            into.over.set(true);
            into.waker.take().into_iter().for_each(Waker::wake);
        });
        self.list.borrow_mut()[place] = Some(Running { future, waker: Arc::clone(&waker) });
        waker.wake_by_ref();
        Task { slot }
    }

    pub(super) fn main_waker(&self) -> Waker {
        self.ready.main.store(true, Ordering::Release);
        Waker::from(Arc::new(TaskWaker {
            place: MAIN,
            listed: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        }))
    }

    pub(super) fn clear(&self) {
        let all = self.list.take();
        self.free.borrow_mut().clear();
        drop(all);
    }

    /// Whether the main future wants to be polled; takes the wish.
    pub(super) fn take_main(&self) -> bool {
        self.ready.main.swap(false, Ordering::AcqRel)
    }

    pub(super) fn are_ready(&self) -> bool {
        !self.ready.ring.is_empty()
            || self.ready.all.load(Ordering::Acquire)
            || self.ready.main.load(Ordering::Acquire)
    }

    /// Polls those that want to be; those that wake themselves come next time.
    pub(super) fn poll(&self) {
        if self.ready.all.swap(false, Ordering::AcqRel) {
            let count = self.list.borrow().len();
            (0..count).for_each(|place| self.poll_one(place));
        }
        for _ in 0..self.ready.ring.len() {
            let Some(place) = self.ready.ring.pop() else { return };
            self.poll_one(place);
        }
    }

    fn poll_one(&self, place: usize) {
        let running = self.list.borrow_mut().get_mut(place).and_then(Option::take);
        let Some(mut running) = running else { return };
        running.waker.listed.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&running.waker));
        match running.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => self.list.borrow_mut()[place] = Some(running),
            Poll::Ready(()) => {
                drop(running);
                self.free.borrow_mut().push(place);
            }
        }
    }
}

struct Slot<T> {
    output: Cell<Option<T>>,
    waker: Cell<Option<Waker>>,
    over: Cell<bool>,
}

/// A task: a future of its output. Dropping it lets the task go on.
pub struct Task<T> {
    slot: Rc<Slot<T>>,
}

impl<T> Task<T> {
    /// Whether the task has ended.
    pub fn is_over(&self) -> bool {
        self.slot.over.get()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.slot.output.take() {
            Some(output) => Poll::Ready(output),
            None => {
                self.slot.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> std::fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("is_over", &self.is_over()).finish()
    }
}
