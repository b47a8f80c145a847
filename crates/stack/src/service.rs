//! Applications that run on the shard itself: no ring, no hand-off, no wake-up between the
//! protocol and them.

use std::collections::VecDeque;

use peyk_homa::{
    Event, PeerAddr, Reason, ReplyError, RequestOptions, RpcId, ServerRpc, SocketId, SocketOptions, Stats,
};
use peyk_sansio::Instant;
use peyk_sockbuf::{Message, Payload};

use crate::addr::Addr;
use crate::core::Core;
use crate::driver::DriverStats;
use crate::error::{BindError, Error};
use crate::shard::Owner;

/// An application on a shard. It is made, called and dropped on the shard's thread and must not
/// block: while it runs, no packet is handled.
pub trait Service {
    /// Something happened on a socket of this service.
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event);

    /// Called once in every turn of the shard, after the events; returns when it wants to be
    /// called again at the latest, if nothing else happens.
    fn on_turn(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        let _ = cx;
        None
    }
}

/// The service of [`Stack::serve_fn`](crate::Stack::serve_fn): a function from requests to
/// responses.
pub(crate) struct Handler<F> {
    function: F,
    /// Responses that wait for send memory, in order; bounded by the requests that may be
    /// unanswered.
    waiting: VecDeque<(ServerRpc, Payload)>,
}

impl<F: FnMut(Message) -> Payload> Handler<F> {
    pub fn new(function: F) -> Handler<F> {
        Handler { function, waiting: VecDeque::new() }
    }

    /// Gives the response back if there is no memory for it yet.
    fn answer(cx: &mut Context<'_>, rpc: ServerRpc, response: Payload) -> Option<(ServerRpc, Payload)> {
        match cx.reply(rpc, response.clone()) {
            Err(ReplyError::Full) => return Some((rpc, response)),
            Err(ReplyError::TooLong) => cx.reject(rpc, Reason::TooLarge),
            // An empty response refuses the request; one whose client has gone is of no use.
            Err(_) => cx.reject(rpc, Reason::Aborted),
            Ok(()) => {}
        }
        None
    }
}

impl<F: FnMut(Message) -> Payload> Service for Handler<F> {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        match event {
            Event::Request { rpc, message, .. } => {
                let response = (self.function)(message);
                self.waiting.extend(Self::answer(cx, rpc, response));
            }
            Event::Writable { .. } => {
                while let Some((rpc, response)) = self.waiting.pop_front() {
                    if let Some(first) = Self::answer(cx, rpc, response) {
                        self.waiting.push_front(first);
                        break;
                    }
                }
            }
            _ => {}
        }
    }
}

/// What a [`Service`] may do while it is called.
pub struct Context<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) owners: &'a mut crate::shard::Owners,
    pub(crate) owner: Owner,
    pub(crate) stop: bool,
}

impl Context<'_> {
    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.core.now
    }

    /// Reads the clock anew, for measurements inside a long turn.
    pub fn clock(&self) -> Instant {
        self.owners.clock.now()
    }

    /// A moment of the standard library in the time of this stack.
    pub(crate) fn at(&self, t: std::time::Instant) -> Instant {
        self.owners.clock.at(t)
    }

    /// Has [`Service::on_turn`] called when `fd` becomes readable, until the service ends. It is told
    /// by edges: what is left unread is not reported again.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub fn watch(&mut self, fd: std::os::fd::OwnedFd) -> std::io::Result<()> {
        let watched = self.core.driver.watch(fd)?;
        self.owners.watched.push((self.owner, watched));
        Ok(())
    }

    /// Opens a server socket; an [`Addr`] with port 0 takes a free Homa port.
    ///
    /// # Errors
    /// The UDP port or the Homa port cannot be had.
    pub fn bind(&mut self, addr: Addr) -> Result<(SocketId, Addr), BindError> {
        let (socket, addr) = self.core.bind(addr, SocketOptions::default())?;
        self.owners.insert(socket, self.owner);
        Ok((socket, addr))
    }

    /// Opens this shard's part of a server socket that all shards serve; its carriage is to come.
    pub(crate) fn open_part(
        &mut self,
        port: Option<u16>,
        agreed: bool,
    ) -> Result<(SocketId, u16), BindError> {
        let (socket, port) = self.core.open_port(port, agreed)?;
        self.owners.insert(socket, self.owner);
        Ok((socket, port))
    }

    /// Opens a socket that only makes requests.
    ///
    /// # Errors
    /// No port is free.
    pub fn open(&mut self) -> Result<SocketId, BindError> {
        let socket = self.core.open(SocketOptions::default())?;
        self.owners.insert(socket, self.owner);
        Ok(socket)
    }

    /// Closes a socket; its peers are told, and no further event comes from it.
    pub fn close(&mut self, socket: SocketId) {
        self.core.close(socket);
        self.owners.remove(socket);
    }

    /// The peer at `to` as this socket reaches it; worth keeping for many requests.
    ///
    /// # Errors
    /// No UDP socket of that address family can be opened.
    pub fn peer(&mut self, socket: SocketId, to: Addr) -> Result<PeerAddr, Error> {
        self.core.peer(socket, to).map_err(|e| Error::Unroutable(to.carriage(), e.kind()))
    }

    /// Sends a request. Exactly one [`Event::Response`] or [`Event::Failed`] with its id follows.
    ///
    /// # Errors
    /// The message is empty or too long, or a limit is reached: see [`peyk_homa::SendError`].
    pub fn send_request(
        &mut self,
        socket: SocketId,
        to: PeerAddr,
        message: Payload,
        options: RequestOptions,
    ) -> Result<RpcId, peyk_homa::SendError> {
        self.core.endpoint.send_request(self.core.now, socket, to, message, options)
    }

    /// Answers a request.
    ///
    /// # Errors
    /// The client is gone, the request was answered before, or the message cannot be sent.
    pub fn reply(&mut self, rpc: ServerRpc, message: Payload) -> Result<(), ReplyError> {
        self.core.endpoint.reply(self.core.now, rpc, message)
    }

    /// Ends a request without a response; its client is told why.
    pub fn reject(&mut self, rpc: ServerRpc, reason: Reason) {
        self.core.endpoint.reject(self.core.now, rpc, reason);
    }

    /// Gives up a request of ours; no event follows. False if it had ended.
    pub fn abort(&mut self, socket: SocketId, rpc: RpcId) -> bool {
        self.core.endpoint.abort(self.core.now, socket, rpc)
    }

    /// Counters of the protocol.
    pub fn stats(&self) -> &Stats {
        self.core.endpoint.stats()
    }

    /// Counters of the driver.
    pub fn driver_stats(&self) -> DriverStats {
        self.core.driver.stats()
    }

    /// Ends this service after the current call; its sockets are closed.
    pub fn stop(&mut self) {
        self.stop = true;
    }
}
