//! A request at its server, and the duty to answer it.

use std::sync::Arc;

use peyk_homa::{Reason, SendError, ServerRpc};
use peyk_sockbuf::{Message, Payload};

use super::{Inner, SocketPart, submit};
use crate::addr::Addr;
use crate::app::{Arrived, Submission, addr_of};
use crate::error::Error;

/// A request that waits for its response. Dropping it tells the client that it was abandoned.
#[must_use = "dropping a request tells its client that it was abandoned"]
pub struct Request {
    inner: Arc<Inner>,
    /// The part of the socket by which it came.
    part: usize,
    /// None once answered.
    rpc: Option<ServerRpc>,
    from: Addr,
    message: Message,
}

impl Request {
    pub(super) fn new(inner: Arc<Inner>, part: usize, arrived: Arrived) -> Request {
        let Arrived { rpc, from, message } = arrived;
        Request { inner, part, rpc: Some(rpc), from: addr_of(&from), message }
    }

    fn part(&self) -> &SocketPart {
        &self.inner.parts[self.part]
    }

    /// What the client sent.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The client.
    pub fn from(&self) -> Addr {
        self.from
    }

    /// Takes the message and leaves the duty to answer.
    pub fn into_parts(mut self) -> (Message, Responder) {
        let message = std::mem::take(&mut self.message);
        (message, Responder(self))
    }

    /// Answers; resolves when the stack has taken the message, not when the client has it. A
    /// client that is gone meanwhile is no error.
    ///
    /// # Errors
    /// The message is empty or too long (the client is told that there is no response), or the
    /// stack has stopped.
    pub async fn reply(mut self, message: impl Into<Payload>) -> Result<(), Error> {
        let message = message.into();
        if let Err(e) = self.part().shared.check_len(message.len()) {
            self.end(if e == SendError::TooLong { Reason::TooLarge } else { Reason::Aborted });
            return Err(Error::Send(e));
        }
        let Some(rpc) = self.rpc else { return Ok(()) };
        let reply = Submission::Reply { socket: self.part().id, rpc, message };
        let sent = submit(&self.part().shared, reply).await;
        // Only now: dropped while it waits for the stack, the request counts as abandoned.
        self.rpc = None;
        sent
    }

    /// Refuses to answer; the client's call fails with `reason`.
    pub fn reject(mut self, reason: Reason) {
        self.end(reason);
    }

    fn end(&mut self, reason: Reason) {
        // The end of the socket says it to all clients, on every shard.
        if let Some(rpc) = self.rpc.take()
            && self.inner.front.end().is_none()
        {
            self.part().shared.submit_late(Submission::Reject { rpc, reason });
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.end(Reason::Aborted);
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("from", &self.from).field("len", &self.message.len()).finish()
    }
}

/// The duty to answer a request whose message was taken out of it. Dropping it tells the client
/// that the request was abandoned.
#[derive(Debug)]
#[must_use = "dropping it tells the client that the request was abandoned"]
pub struct Responder(Request);

impl Responder {
    /// The client.
    pub fn from(&self) -> Addr {
        self.0.from()
    }

    /// As [`Request::reply`].
    ///
    /// # Errors
    /// The message is empty or too long, or the stack has stopped.
    pub async fn reply(self, message: impl Into<Payload>) -> Result<(), Error> {
        self.0.reply(message).await
    }

    /// As [`Request::reject`].
    pub fn reject(self, reason: Reason) {
        self.0.reject(reason);
    }
}
