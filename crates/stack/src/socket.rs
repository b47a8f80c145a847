//! The application's side: a socket's handle for threads other than the shard's. Its futures need
//! no particular runtime; dropping one cancels what it waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use peyk_homa::SocketId;
use peyk_sockbuf::Payload;
use peyk_sockbuf::oneshot::{self, Completer};
use peyk_sockbuf::ring::Ring;
use peyk_sockbuf::waiters::WaitList;

use crate::addr::{Addr, ToAddr};
use crate::app::{Arrived, CallOptions, Front, Opened, Outcome, ReplyTo, Shared, SocketShared, Submission};
use crate::error::{BindError, Error};
use crate::spread;
use crate::stack::Stack;
use crate::wait::block_on;

mod call;
mod request;

pub use call::{Call, Calls};
pub use request::{Request, Responder};

/// A Homa socket. Clones share it; it closes when the last one, and the last request taken from
/// it, is dropped, or by [`Socket::close`]. It does not keep its [`Stack`] running.
#[derive(Clone)]
pub struct Socket {
    inner: Arc<Inner>,
}

struct Inner {
    /// One for each shard that serves the socket.
    parts: Vec<SocketPart>,
    /// The part by which requests are made.
    home: usize,
    front: Arc<Front>,
    addr: Option<Addr>,
    next_key: AtomicU64,
    /// Requests taken so far, roughly: says which shard's turn it is.
    taken: AtomicUsize,
}

/// The socket on one shard.
struct SocketPart {
    shared: Arc<Shared>,
    socket: Arc<SocketShared>,
    id: SocketId,
}

/// Requests taken from one shard before the next has its turn.
const QUANTUM: usize = 32;

impl Inner {
    fn home(&self) -> &SocketPart {
        &self.parts[self.home]
    }

    /// A request that is there already, and by which part it came.
    fn try_next_request(&self) -> Option<(usize, Arrived)> {
        if let [part] = &self.parts[..] {
            return part.try_next(&part.socket.requests).map(|arrived| (0, arrived));
        }
        let taken = self.taken.load(Ordering::Relaxed);
        let from = taken / QUANTUM % self.parts.len();
        while let Some(at) = self.front.ready.next(from) {
            let part = self.parts.get(at)?;
            if let Some(arrived) = part.try_next(&part.socket.requests) {
                // Not exact if several threads take at the same time, nor need it be.
                self.taken.store(taken.wrapping_add(1), Ordering::Relaxed);
                return Some((at, arrived));
            }
            self.front.ready.found_empty(at, || !part.socket.requests.is_empty());
        }
        None
    }
}

impl SocketPart {
    fn try_next<T>(&self, ring: &Ring<T>) -> Option<T> {
        let item = ring.pop()?;
        self.socket.popped(&self.shared);
        Some(item)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn close(&self) {
        for part in &self.parts {
            part.shared.submit_late(Submission::Close { socket: part.id });
        }
    }
}

impl Socket {
    /// Opens a socket that takes requests at `addr`, for example `"0.0.0.0:4000"`. Homa port 0
    /// takes a free one.
    ///
    /// Like its namesakes of the standard library this is a plain function, also for use in async
    /// code: it waits for one turn of the shard's loop, some microseconds.
    ///
    /// # Errors
    /// The text is no address, a port cannot be had, the stack has stopped, or this is the
    /// shard's own thread.
    pub fn bind(stack: &Stack, addr: impl ToAddr) -> Result<Socket, BindError> {
        let addr = addr.to_addr()?;
        Socket::make(stack, Some(addr))
    }

    /// Opens a socket that only makes requests; a plain function, as [`Socket::bind`].
    ///
    /// # Errors
    /// No port is free, the stack has stopped, or this is the shard's own thread.
    pub fn open(stack: &Stack) -> Result<Socket, BindError> {
        Socket::make(stack, None)
    }

    fn make(stack: &Stack, addr: Option<Addr>) -> Result<Socket, BindError> {
        let preferred = stack.preferred_shard();
        let (front, parts, home, addr) = match addr {
            Some(addr) if stack.shards().len() > 1 => {
                let (parts, front, addr) = spread::bind(stack, addr)?;
                let shards = stack.shards().iter().cloned();
                let parts = shards.zip(parts).map(|(shared, part)| SocketPart {
                    shared,
                    socket: part.shared,
                    id: part.socket,
                });
                (front, parts.collect(), preferred, Some(addr))
            }
            addr => {
                let shared = stack.shards()[preferred].clone();
                let Opened { socket: id, addr, shared: socket } =
                    ask(&shared, |done| Submission::Open { addr, done })??;
                (socket.front.clone(), vec![SocketPart { shared, socket, id }], 0, addr)
            }
        };
        let (next_key, taken) = (AtomicU64::new(1), AtomicUsize::new(0));
        Ok(Socket { inner: Arc::new(Inner { parts, home, front, addr, next_key, taken }) })
    }

    /// Where requests for this socket go; `None` if it only makes requests.
    pub fn local_addr(&self) -> Option<Addr> {
        self.inner.addr
    }

    /// Closes the socket for all who share it: calls under way and everyone who waits get
    /// [`Error::Closed`], the peers of unanswered requests are told, and so are those whose
    /// response was not all sent. Requests already taken can no longer be answered.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Sends a request and waits for its response. It is handed over at once, before the future
    /// is first polled, so that several calls made in a row travel together. Dropping the future
    /// aborts the RPC.
    ///
    /// # Errors
    /// The future gives [`Error::Rpc`] if the RPC failed, and the others of [`Error`] for faults
    /// on this side.
    pub fn call(&self, to: impl ToAddr, message: impl Into<Payload>) -> Call {
        self.call_with(to, message, CallOptions::default())
    }

    /// As [`Socket::call`], with options.
    pub fn call_with(&self, to: impl ToAddr, message: impl Into<Payload>, options: CallOptions) -> Call {
        Call::start(&self.inner, to.to_addr(), message.into(), options)
    }

    /// Makes many calls together; the results come in the order of the requests.
    pub fn call_many<A, M>(&self, requests: impl IntoIterator<Item = (A, M)>) -> Calls
    where
        A: ToAddr,
        M: Into<Payload>,
    {
        Calls::new(requests.into_iter().map(|(to, message)| self.call(to, message)).collect())
    }

    /// Sends a request whose outcome arrives by [`Socket::recv_response`] with this cookie.
    /// Waits only if the shard is behind with taking requests.
    ///
    /// # Errors
    /// The text is no address, the message is empty or too long, or the stack has stopped.
    pub async fn send(&self, to: impl ToAddr, message: impl Into<Payload>, cookie: u64) -> Result<(), Error> {
        let call = self.queued_call(to, message.into(), cookie);
        submit(&self.inner.home().shared, call?).await
    }

    /// Sends many requests, each given as destination, message and cookie, as [`Socket::send`].
    ///
    /// # Errors
    /// As [`Socket::send`]; the requests before the one at fault were sent.
    pub async fn send_many<A, M>(&self, requests: impl IntoIterator<Item = (A, M, u64)>) -> Result<(), Error>
    where
        A: ToAddr,
        M: Into<Payload>,
    {
        for (to, message, cookie) in requests {
            self.send(to, message, cookie).await?;
        }
        Ok(())
    }

    /// Waits for the next request. Dropping the future loses no request.
    ///
    /// # Errors
    /// The socket was closed, or the stack has stopped.
    pub async fn recv(&self) -> Result<Request, Error> {
        let (part, arrived) =
            self.next(&self.inner.front.request_waiters, || self.inner.try_next_request()).await?;
        Ok(Request::new(self.inner.clone(), part, arrived))
    }

    /// Waits for a request, then takes up to `max` that are there, appending them to `out`;
    /// returns how many.
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub async fn recv_batch(&self, out: &mut Vec<Request>, max: usize) -> Result<usize, Error> {
        if max == 0 {
            return Ok(0);
        }
        out.push(self.recv().await?);
        let more = std::iter::from_fn(|| self.try_recv()).take(max - 1);
        Ok(1 + extend(out, more))
    }

    /// A request that is there already.
    pub fn try_recv(&self) -> Option<Request> {
        let (part, arrived) = self.inner.try_next_request()?;
        Some(Request::new(self.inner.clone(), part, arrived))
    }

    /// Waits for the outcome of a request sent with [`Socket::send`]. Dropping the future loses
    /// none.
    ///
    /// # Errors
    /// The socket was closed, or the stack has stopped.
    pub async fn recv_response(&self) -> Result<Outcome, Error> {
        self.next(&self.inner.front.response_waiters, || self.try_recv_response()).await
    }

    /// Waits for an outcome, then takes up to `max` that are there, appending them to `out`;
    /// returns how many.
    ///
    /// # Errors
    /// As [`Socket::recv_response`].
    pub async fn recv_response_batch(&self, out: &mut Vec<Outcome>, max: usize) -> Result<usize, Error> {
        if max == 0 {
            return Ok(0);
        }
        out.push(self.recv_response().await?);
        let more = std::iter::from_fn(|| self.try_recv_response()).take(max - 1);
        Ok(1 + extend(out, more))
    }

    /// An outcome that is there already.
    pub fn try_recv_response(&self) -> Option<Outcome> {
        let home = self.inner.home();
        home.try_next(&home.socket.responses)
    }

    async fn next<T>(&self, waiters: &WaitList, take: impl Fn() -> Option<T>) -> Result<T, Error> {
        let look = || match take() {
            Some(item) => Some(Ok(item)),
            // Said after the last item was put in: look once more.
            None => self.inner.front.end().map(|e| take().ok_or(e)),
        };
        waiters.until(look).await
    }

    fn queued_call(&self, to: impl ToAddr, message: Payload, cookie: u64) -> Result<Submission, Error> {
        let to = to.to_addr().map_err(|e| Error::Addr(e.to_string()))?;
        self.inner.home().shared.check_len(message.len()).map_err(Error::Send)?;
        let key = self.inner.next_key.fetch_add(1, Ordering::Relaxed);
        let (socket, options) = (self.inner.home().id, CallOptions::default());
        Ok(Submission::Call { socket, to, message, options, key, reply_to: ReplyTo::Queue(cookie) })
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("id", &self.inner.home().id).field("addr", &self.inner.addr).finish()
    }
}

fn extend<T>(out: &mut Vec<T>, more: impl Iterator<Item = T>) -> usize {
    let before = out.len();
    out.extend(more);
    out.len() - before
}

/// Hands a submission to the shard, waiting for space in the ring.
async fn submit(shared: &Shared, submission: Submission) -> Result<(), Error> {
    let mut waiting = Some(submission);
    let look = || match shared.try_submit(waiting.take()?) {
        Ok(()) => Some(Ok(())),
        Err(_) if shared.is_stopped() => Some(Err(Error::Stopped)),
        Err(submission) => {
            waiting = Some(submission);
            None
        }
    };
    shared.space.until(look).await
}

/// Why a question to the shard has no answer.
pub(crate) enum AskError {
    OnShard,
    Stopped,
}

impl From<AskError> for BindError {
    fn from(e: AskError) -> BindError {
        match e {
            AskError::OnShard => BindError::OnShard,
            AskError::Stopped => BindError::Stopped,
        }
    }
}

impl From<AskError> for Error {
    fn from(e: AskError) -> Error {
        match e {
            AskError::OnShard => Error::OnShard,
            AskError::Stopped => Error::Stopped,
        }
    }
}

/// Asks the shard something and waits for the answer, which takes one turn of its loop.
pub(crate) fn ask<T>(
    shared: &Shared,
    question: impl FnOnce(Completer<T>) -> Submission,
) -> Result<T, AskError> {
    if shared.is_on_shard() {
        return Err(AskError::OnShard);
    }
    let (done, completion) = oneshot::cell();
    block_on(async {
        submit(shared, question(done)).await.map_err(|_| AskError::Stopped)?;
        completion.await.map_err(|_| AskError::Stopped)
    })
}
