//! An executor on a queue: tasks and the operations they wait for, all on one thread.
//!
//! Its futures own no memory that the kernel may touch: operations live in the queue, and what they
//! bring waits here until it is asked for. So a future that is dropped loses no data and frees no
//! buffer. Futures of anything else (a Homa call, a channel) can be awaited as well: they wake the
//! queue from whatever thread.
//!
//! Three ways to run it: [`Local::block_on`]; [`Local::turn`] from a loop of one's own, such as a
//! shard's; [`Queue::guest_fd`] in another event loop, then `turn`.

mod file;
mod net;
mod task;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::config::{Config, Wait};
use crate::event::{Event, Events, What};
use crate::handle::{Handle, Message};
use crate::op::timer::{Timer, When};
use crate::op::{Op, OpId, Rejected, SetupError, Token, WaitError};
use crate::queue::Queue;

pub use file::File;
pub use net::{TcpListener, TcpStream};
pub use task::Task;

use task::Tasks;

/// A queue and the tasks that use it. Clones are the same one.
#[derive(Clone)]
pub struct Local(Rc<Inner>);

struct Inner {
    queue: RefCell<Queue>,
    events: RefCell<Events>,
    ops: RefCell<Ops>,
    tasks: Tasks,
    messages: RefCell<(VecDeque<Message>, Option<Waker>)>,
}

/// What operations brought and nobody has asked for yet.
#[derive(Default)]
struct Ops {
    list: Vec<Option<State>>,
    free: Vec<usize>,
}

#[derive(Default)]
struct State {
    id: Option<OpId>,
    events: VecDeque<What>,
    /// The last event has come.
    over: bool,
    /// Nobody will ask.
    dropped: bool,
    waker: Option<Waker>,
    /// Bytes of received data that wait here, and how many may before the operation is cancelled.
    bytes: usize,
    limit: Option<usize>,
}

impl Local {
    /// An executor for the calling thread.
    ///
    /// # Errors
    /// No backend can be used.
    pub fn new(config: Config) -> Result<Local, SetupError> {
        Ok(Local::on(Queue::new(config)?))
    }

    /// An executor on a queue that has nothing in flight.
    pub fn on(queue: Queue) -> Local {
        let tasks = Tasks::new(queue.handle());
        Local(Rc::new(Inner {
            queue: RefCell::new(queue),
            events: RefCell::default(),
            ops: RefCell::default(),
            tasks,
            messages: RefCell::default(),
        }))
    }

    /// A handle by which other threads reach this executor.
    pub fn handle(&self) -> Handle {
        self.0.queue.borrow().handle()
    }

    /// Calls `f` with the queue, to adopt sources or look at counters. Tokens of operations submitted
    /// there must not be told apart from those of the executor: submit by [`Local::submit`].
    pub fn with_queue<T>(&self, f: impl FnOnce(&mut Queue) -> T) -> T {
        f(&mut self.0.queue.borrow_mut())
    }

    /// Starts an operation. Dropping the result cancels it, unless it is detached.
    ///
    /// # Errors
    /// The operation is refused and given back.
    pub fn submit<O: Op>(&self, op: O) -> Result<Operation, Rejected<O>> {
        self.submit_limited(op, None)
    }

    fn submit_limited<O: Op>(&self, op: O, limit: Option<usize>) -> Result<Operation, Rejected<O>> {
        let place = {
            let mut ops = self.0.ops.borrow_mut();
            let place = ops.free.pop().unwrap_or_else(|| {
                ops.list.push(None);
                ops.list.len() - 1
            });
            ops.list[place] = Some(State { limit, ..State::default() });
            place
        };
        match self.0.queue.borrow_mut().submit(Token(place as u64), op) {
            Ok(id) => {
                self.with_state(place, |state| state.id = Some(id));
                Ok(Operation { local: self.clone(), place, id, keep: false })
            }
            Err(rejected) => {
                self.forget(place);
                Err(rejected)
            }
        }
    }

    fn with_state<T>(&self, place: usize, f: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.0.ops.borrow_mut().list.get_mut(place)?.as_mut().map(f)
    }

    fn forget(&self, place: usize) {
        let mut ops = self.0.ops.borrow_mut();
        let state = ops.list.get_mut(place).and_then(Option::take);
        ops.free.push(place);
        drop(ops);
        // What it holds may be anybody's.
        drop(state);
    }

    /// Starts a task on this thread.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.0.tasks.spawn(future)
    }

    /// Polls the tasks that were woken, waits for events as told (not at all if tasks are ready),
    /// and polls the tasks these wake. Returns the number of events.
    ///
    /// # Errors
    /// As for [`Queue::wait`].
    pub fn turn(&self, wait: Wait) -> Result<usize, WaitError> {
        self.0.tasks.poll();
        let wait = if self.0.tasks.are_ready() { Wait::now() } else { wait };
        let mut events = self.0.events.take();
        let result = self.0.queue.borrow_mut().wait(&mut events, wait);
        for event in events.drain() {
            self.dispatch(event);
        }
        self.0.events.replace(events);
        self.0.tasks.poll();
        result
    }

    /// Drops all tasks. Tasks that hold a clone of the executor and never end keep it, and its queue,
    /// alive until then.
    pub fn stop(&self) {
        self.0.tasks.clear();
    }

    /// Whether tasks want to be polled without anything happening.
    pub fn is_ready(&self) -> bool {
        self.0.tasks.are_ready()
    }

    /// Runs until `future` is complete; other tasks run meanwhile.
    ///
    /// # Panics
    /// The queue's thread cannot wait, which happens after a fork only.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = self.0.tasks.main_waker();
        let mut context = Context::from_waker(&waker);
        loop {
            if self.0.tasks.take_main()
                && let Poll::Ready(output) = future.as_mut().poll(&mut context)
            {
                return output;
            }
            if let Err(error) = self.turn(Wait::forever()) {
                match error {
                    WaitError::Forked => panic!("an executor does not outlive a fork: {error}"),
                    // Out of memory or the like: it is tried again.
                    WaitError::Os(error) => tracing::warn!(%error, "waiting for events"),
                }
            }
        }
    }

    fn dispatch(&self, event: Event) {
        let Event { token, id, last, what } = event;
        if id.is_none() {
            if let What::Message(message) = what {
                let waker = {
                    let mut messages = self.0.messages.borrow_mut();
                    messages.0.push_back(message);
                    messages.1.take()
                };
                waker.into_iter().for_each(Waker::wake);
            }
            return;
        }
        let place = token.0 as usize;
        let mut unwanted = None;
        let mut too_much = None;
        let waker = self.with_state(place, |state| {
            state.over |= last;
            if state.dropped {
                unwanted = Some(what);
                return None;
            }
            if let What::Data(buf) = &what {
                state.bytes += buf.len();
                too_much = state.id.filter(|_| state.limit.is_some_and(|limit| state.bytes > limit));
            }
            state.events.push_back(what);
            state.waker.take()
        });
        drop(unwanted);
        if let Some(id) = too_much {
            self.0.queue.borrow_mut().cancel(id);
        }
        if self.with_state(place, |state| state.dropped && state.over) == Some(true) {
            self.forget(place);
        }
        waker.flatten().into_iter().for_each(Waker::wake);
    }

    /// The next message from another thread.
    pub async fn message(&self) -> Message {
        poll_fn(|cx| {
            let mut messages = self.0.messages.borrow_mut();
            match messages.0.pop_front() {
                Some(message) => Poll::Ready(message),
                None => {
                    messages.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Waits.
    ///
    /// # Errors
    /// Too many operations are in flight.
    pub async fn sleep(&self, time: Duration) -> io::Result<()> {
        let timer = Timer { at: When::In(time), every: None };
        self.submit(timer).map_err(refused)?.await;
        Ok(())
    }

    /// Waits for `future`, at most for `time`; then it is dropped.
    ///
    /// # Errors
    /// `TimedOut`, or too many operations are in flight.
    pub async fn timeout<F: Future>(&self, time: Duration, future: F) -> io::Result<F::Output> {
        let mut future = pin!(future);
        let timer = Timer { at: When::In(time), every: None };
        let mut timer = self.submit(timer).map_err(refused)?;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            Pin::new(&mut timer).poll(cx).map(|_| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    /// When the next timer goes off.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.queue.borrow().next_deadline()
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

/// An operation under way: a future of its last event. [`Operation::next`] gives the events one by
/// one.
#[derive(Debug)]
#[must_use = "dropping an operation cancels it"]
pub struct Operation {
    local: Local,
    place: usize,
    id: OpId,
    /// Dropping this does not cancel it.
    keep: bool,
}

impl Operation {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<What> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<What>> {
        let next = self.local.with_state(self.place, |state| match state.events.pop_front() {
            Some(what) => {
                if let What::Data(buf) = &what {
                    state.bytes -= buf.len();
                }
                Poll::Ready(Some(what))
            }
            None if state.over => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        });
        next.unwrap_or(Poll::Ready(None))
    }

    /// Lets it go on without anyone waiting for it; what it brings is dropped.
    pub fn detach(mut self) {
        self.keep = true;
    }

    /// Asks for its end.
    pub fn cancel(&self) {
        self.local.0.queue.borrow_mut().cancel(self.id);
    }
}

impl Future for Operation {
    type Output = What;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<What> {
        loop {
            let over = |state: &mut State| state.over && state.events.len() == 1;
            let last = self.local.with_state(self.place, over) == Some(true);
            match self.poll_next(cx) {
                Poll::Ready(Some(what)) if last => return Poll::Ready(what),
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(What::Done),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let events = self.local.with_state(self.place, |state| {
            state.dropped = true;
            (std::mem::take(&mut state.events), state.over)
        });
        let Some((events, over)) = events else { return };
        drop(events);
        if over {
            self.local.forget(self.place);
        } else if !self.keep {
            self.local.0.queue.borrow_mut().cancel(self.id);
        }
    }
}

/// A refusal as an error of I/O.
fn refused<O>(rejected: Rejected<O>) -> io::Error {
    io::Error::other(rejected.why)
}

/// An event that says nothing but how an operation ended, as a result.
fn unexpected(what: What) -> io::Error {
    match what {
        What::Failed { error, .. } => error,
        What::Cancelled { .. } => io::ErrorKind::Interrupted.into(),
        What::Eof => io::ErrorKind::UnexpectedEof.into(),
        other => io::Error::other(format!("unexpected {other:?}")),
    }
}
