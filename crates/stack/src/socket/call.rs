//! RPCs under way, as futures of their client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use peyk_sockbuf::Payload;
use peyk_sockbuf::oneshot::{self, Completion};
use peyk_sockbuf::waiters::Ticket;

use super::Inner;
use crate::addr::{Addr, AddrError};
use crate::app::{CallOptions, ReplyTo, Response, Submission};
use crate::error::Error;

/// An RPC under way: see [`Socket::call`](super::Socket::call).
#[must_use = "dropping a call aborts it"]
pub struct Call {
    inner: Arc<Inner>,
    key: u64,
    state: CallState,
    completion: Completion<Result<Response, Error>>,
    /// Place among those who wait for space in the submission ring.
    ticket: Ticket,
}

enum CallState {
    /// The submission ring was full.
    Unsent(Submission),
    Sent,
    Failed(Error),
    Done,
}

impl Call {
    pub(super) fn start(
        inner: &Arc<Inner>,
        to: Result<Addr, AddrError>,
        message: Payload,
        options: CallOptions,
    ) -> Call {
        let key = inner.next_key.fetch_add(1, Ordering::Relaxed);
        let (done, completion) = oneshot::cell();
        let state = match (to, inner.home().shared.check_len(message.len())) {
            (Err(e), _) => CallState::Failed(Error::Addr(e.to_string())),
            (_, Err(e)) => CallState::Failed(Error::Send(e)),
            (Ok(to), Ok(())) => {
                let reply_to = ReplyTo::Call(done);
                CallState::Unsent(Submission::Call {
                    socket: inner.home().id,
                    to,
                    message,
                    options,
                    key,
                    reply_to,
                })
            }
        };
        let mut call = Call { inner: inner.clone(), key, state, completion, ticket: Ticket::new() };
        call.try_submit();
        call
    }

    /// Gives the RPC up; the server is told. The same as dropping the call.
    pub fn abort(self) {}

    fn try_submit(&mut self) {
        self.state = match std::mem::replace(&mut self.state, CallState::Done) {
            CallState::Unsent(submission) => match self.inner.home().shared.try_submit(submission) {
                Ok(()) => CallState::Sent,
                Err(_) if self.inner.home().shared.is_stopped() => CallState::Failed(Error::Stopped),
                Err(submission) => CallState::Unsent(submission),
            },
            other => other,
        };
    }

    /// Tries to hand the request over, if that is still to be done; pending while there is no
    /// space for it.
    fn poll_submit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.state, CallState::Unsent(_)) {
            self.inner.home().shared.space.join(&mut self.ticket, cx.waker());
            self.try_submit();
            if matches!(self.state, CallState::Unsent(_)) {
                return Poll::Pending;
            }
            self.leave();
        }
        Poll::Ready(())
    }

    fn leave(&mut self) {
        if self.inner.home().shared.space.leave(&mut self.ticket) {
            // Woken for space that we may not have used.
            self.inner.home().shared.space.notify_one();
        }
    }
}

impl Future for Call {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.poll_submit(cx));
        match std::mem::replace(&mut self.state, CallState::Done) {
            CallState::Failed(e) => Poll::Ready(Err(e)),
            CallState::Done => panic!("a finished call was polled again"),
            CallState::Unsent(_) => unreachable!("it was handed over above"),
            CallState::Sent => match Pin::new(&mut self.completion).poll(cx) {
                Poll::Pending => {
                    self.state = CallState::Sent;
                    Poll::Pending
                }
                Poll::Ready(Ok(result)) => Poll::Ready(result),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Error::Stopped)),
            },
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.leave();
        if matches!(self.state, CallState::Sent) {
            let (socket, key) = (self.inner.home().id, self.key);
            self.inner.home().shared.submit_late(Submission::Cancel { socket, key });
        }
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            CallState::Unsent(_) => "unsent",
            CallState::Sent => "sent",
            CallState::Failed(_) => "failed",
            CallState::Done => "done",
        };
        f.debug_struct("Call").field("key", &self.key).field("state", &state).finish()
    }
}

/// Many RPCs under way: see [`Socket::call_many`](super::Socket::call_many). Gives one result for
/// each request, in their order. Dropping it aborts those that have not ended.
#[derive(Debug)]
#[must_use = "dropping calls aborts them"]
pub struct Calls {
    calls: Vec<Call>,
    /// Results of the first calls.
    results: Vec<Result<Response, Error>>,
    /// The first calls, which have been handed over.
    submitted: usize,
}

impl Calls {
    pub(super) fn new(calls: Vec<Call>) -> Calls {
        Calls { results: Vec::with_capacity(calls.len()), calls, submitted: 0 }
    }
}

impl Future for Calls {
    type Output = Vec<Result<Response, Error>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Calls { calls, results, submitted } = &mut *self;
        // Those that found the ring full, in order: the first of them waits for all.
        while calls.get_mut(*submitted).is_some_and(|call| call.poll_submit(cx).is_ready()) {
            *submitted += 1;
        }
        // One at a time: that the last one has ended says it of all.
        while let Some(call) = calls.get_mut(results.len()) {
            results.push(ready!(Pin::new(call).poll(cx)));
        }
        Poll::Ready(std::mem::take(results))
    }
}
