//! The calls of [`crate::homa`] without async: each waits on the calling thread.
//!
//! ```
//! use peyk::blocking::Socket;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = peyk::Config::default().with_udp_port(0);
//! let stack = peyk::Stack::start(config)?;
//! let server = Socket::bind(&stack, "127.0.0.1:4000")?;
//! let addr = server.local_addr().unwrap();
//! std::thread::spawn(move || {
//!     for request in server.requests() {
//!         let sum: u32 = request.message().to_vec().into_iter().map(u32::from).sum();
//!         request.reply(sum.to_string())?;
//!     }
//!     Ok::<(), peyk::Error>(())
//! });
//!
//! let client = Socket::open(&stack)?;
//! assert_eq!(client.call(addr, vec![20, 22])?.message, b"42");
//! # Ok(())
//! # }
//! ```
//!
//! These types are thin: [`Socket::as_async`] gives the one inside, and [`From`] makes one of the
//! other, so a program may mix both.

use std::time::{Duration, Instant};

use peyk_homa::Reason;
use peyk_sockbuf::{Message, Payload};
use peyk_stack::{block_on, block_on_until};

use crate::homa::{Addr, CallOptions, Outcome, Response, ToAddr};
use crate::{BindError, Error, Stack, homa};

/// A Homa socket whose calls wait on the calling thread. Clones share it.
#[derive(Debug, Clone)]
pub struct Socket(homa::Socket);

impl Socket {
    /// Opens a socket that takes requests at `addr`: see [`homa::Socket::bind`].
    ///
    /// # Errors
    /// The text is no address, a port cannot be had, the stack has stopped, or this is the
    /// shard's own thread.
    pub fn bind(stack: &Stack, addr: impl ToAddr) -> Result<Socket, BindError> {
        homa::Socket::bind(stack, addr).map(Socket)
    }

    /// Opens a socket that only makes requests.
    ///
    /// # Errors
    /// No port is free, the stack has stopped, or this is the shard's own thread.
    pub fn open(stack: &Stack) -> Result<Socket, BindError> {
        homa::Socket::open(stack).map(Socket)
    }

    /// The socket inside.
    pub fn as_async(&self) -> &homa::Socket {
        &self.0
    }

    /// Where requests for this socket go; `None` if it only makes requests.
    pub fn local_addr(&self) -> Option<Addr> {
        self.0.local_addr()
    }

    /// Closes the socket for all who share it: see [`homa::Socket::close`].
    pub fn close(&self) {
        self.0.close();
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// [`Error::Rpc`] if the RPC failed; the others of [`Error`] for faults on this side.
    pub fn call(&self, to: impl ToAddr, message: impl Into<Payload>) -> Result<Response, Error> {
        block_on(self.0.call(to, message))
    }

    /// As [`Socket::call`], with options, among them a time limit.
    ///
    /// ```
    /// # use peyk::{Error, RpcError, blocking::Socket, homa::CallOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let stack = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
    /// # let server = Socket::bind(&stack, "127.0.0.1:4000")?; // which never answers
    /// # let addr = server.local_addr().unwrap();
    /// # let client = Socket::open(&stack)?;
    /// let options = CallOptions { timeout: Some(std::time::Duration::from_millis(20)) };
    /// let error = client.call_with(addr, "are you there?", options).unwrap_err();
    /// assert_eq!(error, Error::Rpc(RpcError::Deadline));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Socket::call`].
    pub fn call_with(
        &self,
        to: impl ToAddr,
        message: impl Into<Payload>,
        options: CallOptions,
    ) -> Result<Response, Error> {
        block_on(self.0.call_with(to, message, options))
    }

    /// Makes many calls together and waits for all; the results come in the order of the requests.
    pub fn call_many<A, M>(&self, requests: impl IntoIterator<Item = (A, M)>) -> Vec<Result<Response, Error>>
    where
        A: ToAddr,
        M: Into<Payload>,
    {
        block_on(self.0.call_many(requests))
    }

    /// Sends a request whose outcome arrives by [`Socket::recv_response`] with this cookie.
    ///
    /// # Errors
    /// The text is no address, the message is empty or too long, or the stack has stopped.
    pub fn send(&self, to: impl ToAddr, message: impl Into<Payload>, cookie: u64) -> Result<(), Error> {
        block_on(self.0.send(to, message, cookie))
    }

    /// Sends many requests, each given as destination, message and cookie.
    ///
    /// # Errors
    /// As [`Socket::send`]; the requests before the one at fault were sent.
    pub fn send_many<A, M>(&self, requests: impl IntoIterator<Item = (A, M, u64)>) -> Result<(), Error>
    where
        A: ToAddr,
        M: Into<Payload>,
    {
        block_on(self.0.send_many(requests))
    }

    /// Waits for the next request.
    ///
    /// # Errors
    /// The socket was closed, or the stack has stopped.
    pub fn recv(&self) -> Result<Request, Error> {
        block_on(self.0.recv()).map(Request)
    }

    /// Waits for the next request, but no longer than `timeout`: then `None`.
    ///
    /// ```
    /// # use peyk::blocking::Socket;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let stack = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
    /// let server = Socket::bind(&stack, "127.0.0.1:4000")?;
    /// assert!(server.recv_timeout(std::time::Duration::from_millis(1))?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Request>, Error> {
        let request = block_on_until(self.0.recv(), Instant::now().checked_add(timeout)).transpose()?;
        Ok(request.map(Request))
    }

    /// Waits for a request, then takes up to `max` that are there, appending them to `out`;
    /// returns how many.
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub fn recv_batch(&self, out: &mut Vec<Request>, max: usize) -> Result<usize, Error> {
        let mut requests = Vec::new();
        let taken = block_on(self.0.recv_batch(&mut requests, max))?;
        out.extend(requests.into_iter().map(Request));
        Ok(taken)
    }

    /// A request that is there already.
    pub fn try_recv(&self) -> Option<Request> {
        self.0.try_recv().map(Request)
    }

    /// All requests, one after the other, until the socket is closed or the stack stops.
    pub fn requests(&self) -> impl Iterator<Item = Request> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Waits for the outcome of a request sent with [`Socket::send`].
    ///
    /// # Errors
    /// The socket was closed, or the stack has stopped.
    pub fn recv_response(&self) -> Result<Outcome, Error> {
        block_on(self.0.recv_response())
    }

    /// Waits for such an outcome, but no longer than `timeout`: then `None`.
    ///
    /// # Errors
    /// As [`Socket::recv_response`].
    pub fn recv_response_timeout(&self, timeout: Duration) -> Result<Option<Outcome>, Error> {
        block_on_until(self.0.recv_response(), Instant::now().checked_add(timeout)).transpose()
    }

    /// Waits for an outcome, then takes up to `max` that are there, appending them to `out`;
    /// returns how many.
    ///
    /// # Errors
    /// As [`Socket::recv_response`].
    pub fn recv_response_batch(&self, out: &mut Vec<Outcome>, max: usize) -> Result<usize, Error> {
        block_on(self.0.recv_response_batch(out, max))
    }

    /// An outcome that is there already.
    pub fn try_recv_response(&self) -> Option<Outcome> {
        self.0.try_recv_response()
    }
}

impl From<homa::Socket> for Socket {
    fn from(socket: homa::Socket) -> Socket {
        Socket(socket)
    }
}

impl From<Socket> for homa::Socket {
    fn from(socket: Socket) -> homa::Socket {
        socket.0
    }
}

/// A request that waits for its response. Dropping it tells the client that it was abandoned.
#[derive(Debug)]
#[must_use = "dropping a request tells its client that it was abandoned"]
pub struct Request(homa::Request);

impl Request {
    /// What the client sent.
    pub fn message(&self) -> &Message {
        self.0.message()
    }

    /// The client.
    pub fn from(&self) -> Addr {
        self.0.from()
    }

    /// Takes the message and leaves the duty to answer.
    pub fn into_parts(self) -> (Message, Responder) {
        let (message, responder) = self.0.into_parts();
        (message, Responder(responder))
    }

    /// Answers; returns when the stack has taken the message: see [`homa::Request::reply`].
    ///
    /// # Errors
    /// The message is empty or too long, or the stack has stopped.
    pub fn reply(self, message: impl Into<Payload>) -> Result<(), Error> {
        block_on(self.0.reply(message))
    }

    /// Refuses to answer; the client's call fails with `reason`.
    pub fn reject(self, reason: Reason) {
        self.0.reject(reason);
    }
}

/// The duty to answer a request whose message was taken out of it.
#[derive(Debug)]
#[must_use = "dropping it tells the client that the request was abandoned"]
pub struct Responder(homa::Responder);

impl Responder {
    /// The client.
    pub fn from(&self) -> Addr {
        self.0.from()
    }

    /// As [`Request::reply`].
    ///
    /// # Errors
    /// The message is empty or too long, or the stack has stopped.
    pub fn reply(self, message: impl Into<Payload>) -> Result<(), Error> {
        block_on(self.0.reply(message))
    }

    /// As [`Request::reject`].
    pub fn reject(self, reason: Reason) {
        self.0.reject(reason);
    }
}
