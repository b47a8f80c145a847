//! KCM sockets for applications: async without a runtime, or blocking. One for each thread or task that
//! handles messages; all sockets of a mux are equal.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use peyk_kcm::{Closed, PsockId, Received, SendFlags, SocketId, Target};

use super::conn::Conn;
use super::engine::{Core, Mux};

pub use peyk_kcm::error::{RecvError, SendError};

/// One of the N sockets of a mux. Dropping it closes it: what it has not received goes to the others.
pub struct Socket {
    mux: Mux,
    id: SocketId,
}

/// A whole message, and the connection it came from.
pub struct Message {
    inner: peyk_kcm::Message,
    conn: Option<Arc<Conn>>,
    mux: Mux,
}

impl Message {
    pub(super) fn new(mux: Mux, core: &Core, inner: peyk_kcm::Message) -> Message {
        let conn = core.conn(inner.from).cloned();
        if let Some(conn) = &conn {
            conn.in_service.fetch_add(1, Ordering::AcqRel);
        }
        Message { inner, conn, mux }
    }

    /// All its bytes, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.inner.bytes
    }

    /// The token of its connection, by which a reply finds its way.
    pub fn from(&self) -> PsockId {
        self.inner.from
    }

    /// Where that connection leads.
    pub fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        self.inner.addr
    }

    /// Its number among the messages of its connection.
    pub fn number(&self) -> u64 {
        self.inner.number
    }

    /// What the framer knows of it.
    pub fn meta(&self) -> peyk_kcm::framer::Meta {
        self.inner.meta
    }

    /// How a reply is addressed: in the order of the requests if the mux keeps that.
    pub fn reply_target(&self) -> Target {
        Target::Reply(self.inner.from, self.inner.number)
    }
}

impl std::ops::Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.inner.bytes
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("from", &self.inner.from)
            .field("len", &self.inner.bytes.len())
            .finish()
    }
}

impl Drop for Message {
    /// It is handled: a connection that has ended may go with its last message.
    fn drop(&mut self) {
        let Some(conn) = &self.conn else { return };
        if conn.in_service.fetch_sub(1, Ordering::AcqRel) == 1 && conn.is_down.load(Ordering::Acquire) {
            self.mux.0.retire_later(conn);
        }
    }
}

impl Socket {
    pub(super) fn new(mux: Mux, id: SocketId) -> Socket {
        Socket { mux, id }
    }

    /// Another socket of the same mux.
    ///
    /// # Errors
    /// There are as many as the configuration allows.
    pub fn try_clone(&self) -> Result<Socket, peyk_kcm::error::CloneError> {
        let mut core = self.mux.0.lock();
        let id = core.mux.clone_socket(self.id)?;
        self.mux.0.leave(core);
        Ok(Socket::new(self.mux.clone(), id))
    }

    /// The mux.
    pub fn mux(&self) -> &Mux {
        &self.mux
    }

    /// Its name in the mux.
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// The next message. Dropping the future loses nothing.
    pub fn recv(&self) -> RecvFuture<'_> {
        RecvFuture { socket: self }
    }

    /// The next message if there is one.
    ///
    /// # Errors
    /// There is none, or the mux is closed.
    pub fn try_recv(&self) -> Result<Message, RecvError> {
        let mut core = self.mux.0.lock();
        let outcome = self.take(&mut core);
        self.mux.0.leave(core);
        outcome
    }

    /// Up to `most` messages at once, waiting for the first at most so long.
    pub fn recv_many(&self, most: usize, out: &mut Vec<Message>, time: Duration) {
        let Ok(first) = self.recv_timeout(time) else { return };
        out.push(first);
        let mut core = self.mux.0.lock();
        while out.len() < most {
            match self.take(&mut core) {
                Ok(message) => out.push(message),
                Err(_) => break,
            }
        }
        self.mux.0.leave(core);
    }

    /// Sends several whole messages to connections that wait for them: as replies, or by token. Not bounded
    /// by the send buffer but by what was asked for. Messages to who is gone are dropped.
    pub fn send_many(&self, messages: impl IntoIterator<Item = (Bytes, Target)>) {
        let now = self.mux.0.now();
        let mut core = self.mux.0.lock();
        for (bytes, to) in messages {
            let _ = match to {
                Target::Psock(psock) => core.mux.send_joined(self.id, psock, bytes, 1),
                Target::Reply(psock, number) => core.mux.send_reply(self.id, psock, number, bytes, now),
                to => {
                    let flags = SendFlags { end: true, to, ..SendFlags::default() };
                    core.mux.send(self.id, bytes, flags, now).map(|_| ())
                }
            };
        }
        self.mux.0.leave(core);
    }

    /// Says that a message gets no reply, in a mux that keeps replies in order.
    pub fn skip_reply(&self, message: &Message) {
        let mut core = self.mux.0.lock();
        core.mux.skip_reply(message.from(), message.number());
        self.mux.0.leave(core);
    }

    fn take(&self, core: &mut Core) -> Result<Message, RecvError> {
        if core.mux.has_parked() {
            core.mux.advance(self.mux.0.now());
        }
        let message = core.mux.recv_message(self.id)?;
        Ok(Message::new(self.mux.clone(), core, message))
    }

    /// Waits for the next message, at most so long.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over, or the mux is closed.
    pub fn recv_timeout(&self, time: Duration) -> Result<Message, RecvError> {
        let deadline = std::time::Instant::now() + time;
        crate::block_on_until(self.recv(), Some(deadline)).unwrap_or(Err(RecvError::WouldBlock))
    }

    /// Receives as the system call does: a piece of a message, perhaps only to look at it.
    ///
    /// # Errors
    /// There is no message, or the mux is closed.
    pub fn try_recv_piece(&self, max: usize, peek: bool) -> Result<Received, RecvError> {
        let mut core = self.mux.0.lock();
        let outcome = core.mux.recv(self.id, max, peek);
        self.mux.0.leave(core);
        outcome
    }

    /// Sends a message, or a piece of one, without waiting.
    ///
    /// # Errors
    /// The buffer is full, the message too long, or its target gone.
    pub fn try_send(&self, data: impl Into<Bytes>, flags: SendFlags) -> Result<usize, SendError> {
        let now = self.mux.0.now();
        let mut core = self.mux.0.lock();
        let outcome = core.mux.send(self.id, data.into(), flags, now);
        self.mux.0.leave(core);
        outcome
    }

    /// Sends one whole message over any connection; waits for room.
    ///
    /// # Errors
    /// The message is too long, or the mux closed.
    pub async fn send(&self, data: impl Into<Bytes>) -> Result<(), SendError> {
        self.send_to(data, Target::Any).await
    }

    /// Sends one whole message to a connection, an address, or as a reply; waits for room.
    ///
    /// # Errors
    /// The message is too long, its target gone, or the mux closed.
    pub async fn send_to(&self, data: impl Into<Bytes>, to: Target) -> Result<(), SendError> {
        let data = data.into();
        let flags = SendFlags { end: true, to, ..SendFlags::default() };
        std::future::poll_fn(|cx| {
            let now = self.mux.0.now();
            let mut core = self.mux.0.lock();
            let outcome = core.mux.send(self.id, data.clone(), flags, now);
            if outcome == Err(SendError::WouldBlock) {
                Core::wait_on(&mut core.writers, self.id, cx.waker());
            }
            self.mux.0.leave(core);
            match outcome {
                Err(SendError::WouldBlock) => Poll::Pending,
                outcome => Poll::Ready(outcome.map(|_| ())),
            }
        })
        .await
    }

    /// Replies to a message: on its connection, and in order if the mux keeps the order of replies.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn reply(&self, to: &Message, data: impl Into<Bytes>) -> Result<(), SendError> {
        let is_ordered = self.mux.0.lock().mux.config().order == peyk_kcm::Order::Replies;
        let target = if is_ordered { to.reply_target() } else { Target::Psock(to.from()) };
        self.send_to(data, target).await
    }

    /// Sends what is read from a source as one message: a file, a range of one. A failing source drops a
    /// datagram; of a sequenced packet what was read stays.
    ///
    /// # Errors
    /// That of the source, or of sending.
    pub fn send_from(&self, source: &mut dyn std::io::Read, flags: SendFlags) -> std::io::Result<usize> {
        let now = self.mux.0.now();
        let pieces = std::iter::from_fn(|| {
            let mut piece = bytes::BytesMut::zeroed(64 * 1024);
            match source.read(&mut piece) {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    Some(Ok(piece.freeze()))
                }
                Err(error) => Some(Err(error)),
            }
        });
        // The source may be slow: it is read before the mux is entered.
        let pieces: Vec<std::io::Result<Bytes>> = pieces.collect();
        let mut core = self.mux.0.lock();
        let outcome = core.mux.send_pieces(self.id, pieces, flags, now);
        self.mux.0.leave(core);
        outcome.map_err(|error| error.map_or_else(|e| e, std::io::Error::other))
    }

    /// `KCM_RECV_DISABLE`.
    ///
    /// # Errors
    /// The mux is closed.
    pub fn set_recv_disable(&self, disable: bool) -> Result<(), RecvError> {
        let mut core = self.mux.0.lock();
        let outcome = core.mux.set_recv_disable(self.id, disable);
        self.mux.0.leave(core);
        outcome
    }

    /// Closes it and says what it had not sent.
    pub fn close(self) -> Closed {
        self.close_now()
    }

    fn close_now(&self) -> Closed {
        let shared = &self.mux.0;
        let mut core = shared.lock();
        if !core.mux.sockets().any(|socket| socket == self.id) {
            return Closed::default();
        }
        let closed = core.mux.close_socket(self.id, shared.now());
        let is_last = core.mux.sockets().next().is_none();
        let conns = if is_last { shared.dissolve(&mut core) } else { Vec::new() };
        shared.leave(core);
        drop(conns);
        closed
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close_now();
    }
}

/// The next message of a socket.
pub struct RecvFuture<'a> {
    socket: &'a Socket,
}

impl Future for RecvFuture<'_> {
    type Output = Result<Message, RecvError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = &self.socket.mux.0;
        let mut core = shared.lock();
        let outcome = self.socket.take(&mut core);
        if matches!(outcome, Err(RecvError::WouldBlock)) {
            Core::wait_on(&mut core.readers, self.socket.id, cx.waker());
        }
        shared.leave(core);
        match outcome {
            Err(RecvError::WouldBlock) => Poll::Pending,
            outcome => Poll::Ready(outcome),
        }
    }
}

impl Mux {
    /// The next event that is no message: connections that ended and why, messages that could not be sent.
    /// Ends with `None` when the mux is closed.
    pub async fn next_event(&self) -> Option<peyk_kcm::Event> {
        std::future::poll_fn(|cx| {
            let mut core = self.0.lock();
            if self.0.is_closed.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            match core.events.pop_front() {
                Some(event) => Poll::Ready(Some(event)),
                None => {
                    core.event_wakers.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next event if there is one.
    pub fn try_event(&self) -> Option<peyk_kcm::Event> {
        self.0.lock().events.pop_front()
    }

    /// Events that were dropped because nobody took them, 4096 having waited.
    pub fn events_lost(&self) -> u64 {
        self.0.lock().events_lost
    }

    /// Its state and counters at this moment.
    pub fn snapshot(&self) -> peyk_kcm::status::MuxSnapshot {
        self.0.lock().mux.snapshot()
    }

    /// Bytes of received messages held, whole or not.
    pub fn memory_used(&self) -> usize {
        self.0.lock().mux.memory_used()
    }

    /// Connections attached.
    pub fn psocks(&self) -> Vec<PsockId> {
        self.0.lock().mux.psocks().collect()
    }
}
