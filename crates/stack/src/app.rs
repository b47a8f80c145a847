//! The shard's side of applications on other threads: it takes their submissions and completes
//! them. What they share is in [`Shared`] and [`SocketShared`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use peyk_homa::{
    Event, PeerAddr, Reason, ReplyError, RequestOptions, RpcId, SendError, ServerRpc, SocketId, SocketOptions,
};
use peyk_sockbuf::Payload;
use peyk_sockbuf::oneshot::Completer;
use peyk_sockbuf::ring::Ring;
use peyk_sockbuf::waiters::WaitList;

use crate::addr::Addr;
use crate::core::Core;
use crate::error::{BindError, Error};
use crate::shard::{Owner, Owners};
use crate::stats::AppUsage;

mod shared;
mod submission;

use shared::{CLOSED, ENDS, STOPPED};
pub(crate) use shared::{Front, Shared, SocketShared};
pub(crate) use submission::{Arrived, Build, Opened, Part, ReplyTo, ServeDone, Submission};
pub use submission::{CallOptions, Outcome, Response};

/// The shard's record of one socket that an application on another thread owns.
struct AppSocket {
    shared: Arc<SocketShared>,
    calls: HashMap<u64, Pending>,
    /// Calls and replies that wait for send memory, in order.
    parked: VecDeque<Submission>,
    /// Outcomes that found the application's ring full, in order.
    backlog: VecDeque<Outcome>,
    /// Requests that did, likewise; the protocol bounds them by its unanswered requests.
    requests: VecDeque<Arrived>,
    /// In the list of sockets with something to publish.
    woken: bool,
}

impl AppSocket {
    fn publish(&mut self) {
        let SocketShared { requests, responses, front, index, .. } = &*self.shared;
        let mark = || index.map(|index| front.ready.mark(index));
        drain_into(&mut self.requests, requests, &front.request_waiters, mark);
        drain_into(&mut self.backlog, responses, &front.response_waiters, || None);
        self.woken = !self.requests.is_empty() || !self.backlog.is_empty();
    }
}

impl AppSocket {
    /// Tells everyone who waits for something of this socket that it will not come.
    fn end(mut self, why: u8) {
        // First: who learns of it drops the requests it holds, which shall then say nothing.
        self.shared.front.close(why);
        let error = &ENDS[usize::from(why)];
        let calls = self.calls.drain().map(|(_, pending)| pending.reply_to);
        let parked = self.parked.drain(..).filter_map(|parked| match parked {
            Submission::Call { reply_to, .. } => Some(reply_to),
            _ => None,
        });
        for reply_to in calls.chain(parked) {
            if let ReplyTo::Call(done) = reply_to {
                let _ = done.complete(Err(error.clone()));
            }
        }
    }
}

/// Moves what fits into a ring, in order, marks it, and wakes one waiter for each.
fn drain_into<T>(
    from: &mut VecDeque<T>,
    ring: &Ring<T>,
    waiters: &WaitList,
    mark: impl FnOnce() -> Option<bool>,
) {
    let before = from.len();
    while let Some(item) = from.pop_front() {
        if let Err(item) = ring.push(item) {
            from.push_front(item);
            break;
        }
    }
    let moved = before - from.len();
    if moved > 0 {
        mark();
    }
    for _ in 0..moved {
        waiters.notify_one();
    }
}

struct Pending {
    rpc: RpcId,
    reply_to: ReplyTo,
}

/// All sockets of applications on other threads.
pub(crate) struct App {
    sockets: HashMap<SocketId, AppSocket>,
    parked_max: usize,
    /// The stack stops: nothing more is taken.
    ended: bool,
    /// Sockets with something to publish at the end of the turn.
    dirty: Vec<SocketId>,
}

/// Slots of the rings between the shard and one socket's handles; more waits on the shard.
const SOCKET_RING: usize = 1024;

impl App {
    pub fn new(parked_max: usize) -> App {
        App { sockets: HashMap::new(), parked_max, ended: false, dirty: Vec::new() }
    }

    /// Carries out one submission.
    pub fn handle(&mut self, core: &mut Core, owners: &mut Owners, submission: Submission) {
        if self.ended {
            // Dropped: those who wait for it are told.
            return;
        }
        match submission {
            Submission::Open { addr, done } => self.open(core, owners, addr, done),
            Submission::OpenPart { port, front, index, done } => {
                let part = core.open_port(port, index > 0).map(|(socket, port)| {
                    let shared = self.insert(owners, socket, front, Some(index));
                    Part { socket, port, shared }
                });
                if let Err(Ok(part)) = done.complete(part) {
                    self.close(core, owners, part.socket);
                }
            }
            Submission::Carry { socket, asked, bound, done } => {
                let _ = done.complete(core.carry(socket, asked, bound));
            }
            Submission::Close { socket } => self.close(core, owners, socket),
            call @ Submission::Call { .. } => self.call(core, call),
            Submission::Cancel { socket, key } => self.cancel(core, socket, key),
            Submission::Reply { socket, rpc, message } => self.reply(core, socket, rpc, message),
            Submission::Reject { rpc, reason } => core.endpoint.reject(core.now, rpc, reason),
            Submission::Serve { .. }
            | Submission::StopService { .. }
            | Submission::Stats { .. }
            | Submission::Export { .. }
            | Submission::EndApp { .. }
            | Submission::Stop => unreachable!("the shard handles these itself"),
        }
    }

    fn open(
        &mut self,
        core: &mut Core,
        owners: &mut Owners,
        addr: Option<Addr>,
        done: Completer<Result<Opened, BindError>>,
    ) {
        let opened = match addr {
            Some(addr) => core.bind(addr, SocketOptions::default()).map(|(s, a)| (s, Some(a))),
            None => core.open(SocketOptions::default()).map(|s| (s, None)),
        };
        let (socket, addr) = match opened {
            Ok(opened) => opened,
            Err(e) => return drop(done.complete(Err(e))),
        };
        let shared = self.insert(owners, socket, Arc::new(Front::new(1)), None);
        if done.complete(Ok(Opened { socket, addr, shared })).is_err() {
            self.close(core, owners, socket);
        }
    }

    fn insert(
        &mut self,
        owners: &mut Owners,
        socket: SocketId,
        front: Arc<Front>,
        index: Option<usize>,
    ) -> Arc<SocketShared> {
        let shared = Arc::new(SocketShared::new(SOCKET_RING, SOCKET_RING, front, index));
        owners.insert(socket, Owner::App);
        self.sockets.insert(
            socket,
            AppSocket {
                shared: shared.clone(),
                calls: HashMap::new(),
                parked: VecDeque::new(),
                backlog: VecDeque::new(),
                requests: VecDeque::new(),
                woken: false,
            },
        );
        shared
    }

    fn close(&mut self, core: &mut Core, owners: &mut Owners, socket: SocketId) {
        let Some(s) = self.sockets.remove(&socket) else { return };
        core.close(socket);
        owners.remove(socket);
        s.end(CLOSED);
    }

    fn call(&mut self, core: &mut Core, call: Submission) {
        let Submission::Call { socket, to, message, options, key, reply_to } = call else { return };
        let Some(s) = self.sockets.get_mut(&socket) else {
            if let ReplyTo::Call(done) = reply_to {
                let _ = done.complete(Err(Error::Closed));
            }
            return;
        };
        if let ReplyTo::Call(done) = &reply_to
            && done.is_cancelled()
        {
            return;
        }
        let result = match core.peer(socket, to) {
            Err(e) => Err(Error::Unroutable(to.carriage(), e.kind())),
            Ok(peer) => {
                let deadline = options.timeout.map(|t| core.now + t);
                let request = RequestOptions { cookie: key, deadline };
                match core.endpoint.send_request(core.now, socket, peer, message.clone(), request) {
                    Ok(rpc) => Ok(rpc),
                    Err(SendError::Full) if s.parked.len() < self.parked_max => {
                        s.parked.push_back(Submission::Call { socket, to, message, options, key, reply_to });
                        return;
                    }
                    Err(SendError::Full) => Err(Error::Full),
                    Err(e) => Err(Error::Send(e)),
                }
            }
        };
        match result {
            Ok(rpc) => drop(s.calls.insert(key, Pending { rpc, reply_to })),
            Err(e) => self.finish(socket, reply_to, Err(e)),
        }
    }

    fn reply(&mut self, core: &mut Core, socket: SocketId, rpc: ServerRpc, message: Payload) {
        match core.endpoint.reply(core.now, rpc, message.clone()) {
            // The client may be gone: then nobody waits for the response.
            Ok(()) | Err(ReplyError::Gone) => {}
            Err(ReplyError::Full) => {
                // Bounded by the requests that may be unanswered.
                if let Some(s) = self.sockets.get_mut(&socket) {
                    s.parked.push_back(Submission::Reply { socket, rpc, message });
                }
            }
            Err(_) => core.endpoint.reject(core.now, rpc, Reason::TooLarge),
        }
    }

    fn cancel(&mut self, core: &mut Core, socket: SocketId, key: u64) {
        let Some(s) = self.sockets.get_mut(&socket) else { return };
        if let Some(pending) = s.calls.remove(&key) {
            core.endpoint.abort(core.now, socket, pending.rpc);
        } else {
            s.parked.retain(|p| !matches!(p, Submission::Call { key: k, .. } if *k == key));
        }
    }

    /// Takes an event of a socket that belongs to an application on another thread.
    pub fn on_event(&mut self, core: &mut Core, event: Event) {
        match event {
            Event::Request { socket, rpc, from, message } => {
                let Some(s) = self.sockets.get_mut(&socket) else { return };
                s.requests.push_back(Arrived { rpc, from, message });
                self.touch(socket);
            }
            Event::Response { socket, cookie, from, message, .. } => {
                let result = Ok(Response { message, from: addr_of(&from) });
                self.outcome(socket, cookie, result);
            }
            Event::Failed { socket, cookie, error, .. } => self.outcome(socket, cookie, Err(error.into())),
            Event::Writable { socket } => self.unpark(core, socket),
            // The application learns when it answers: nobody waits for the response.
            Event::Cancelled { .. } => {}
        }
    }

    fn outcome(&mut self, socket: SocketId, key: u64, result: Result<Response, Error>) {
        let Some(s) = self.sockets.get_mut(&socket) else { return };
        let Some(pending) = s.calls.remove(&key) else { return };
        self.finish(socket, pending.reply_to, result);
    }

    fn finish(&mut self, socket: SocketId, reply_to: ReplyTo, result: Result<Response, Error>) {
        match reply_to {
            ReplyTo::Call(done) => drop(done.complete(result)),
            ReplyTo::Queue(cookie) => {
                if let Some(s) = self.sockets.get_mut(&socket) {
                    s.backlog.push_back(Outcome { cookie, result });
                    self.touch(socket);
                }
            }
        }
    }

    fn unpark(&mut self, core: &mut Core, socket: SocketId) {
        // What does not fit yet goes to the back while this looks at it: then that was all.
        let Some(mut waiting) = self.sockets.get_mut(&socket).map(|s| std::mem::take(&mut s.parked)) else {
            return;
        };
        while let Some(submission) = waiting.pop_front() {
            match submission {
                Submission::Reply { socket, rpc, message } => self.reply(core, socket, rpc, message),
                call => self.call(core, call),
            }
            let Some(s) = self.sockets.get_mut(&socket) else { return };
            if let Some(first) = s.parked.pop_back() {
                waiting.push_front(first);
                s.parked = waiting;
                return;
            }
        }
    }

    fn touch(&mut self, socket: SocketId) {
        if let Some(s) = self.sockets.get_mut(&socket)
            && !s.woken
        {
            s.woken = true;
            self.dirty.push(socket);
        }
    }

    /// Makes what happened in this turn visible to the applications; called once at the end of a
    /// turn. What finds a ring full stays here until the application took something out.
    #[inline]
    pub fn publish(&mut self) {
        if !self.dirty.is_empty() {
            self.publish_dirty();
        }
    }

    fn publish_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.retain(|&socket| {
            let Some(s) = self.sockets.get_mut(&socket) else { return false };
            s.publish();
            if s.woken {
                // Say so first, then look again: a slot may have become free in between.
                s.shared.behind.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                s.publish();
            }
            s.woken
        });
        self.dirty.append(&mut dirty);
    }

    /// Ends every socket: futures that wait are told.
    pub fn stop(&mut self) {
        self.ended = true;
        self.sockets.drain().for_each(|(_, s)| s.end(STOPPED));
    }

    /// As [`App::usage`], without what would take a look at every socket.
    pub fn brief(&self) -> AppUsage {
        AppUsage { sockets: self.sockets.len(), behind: self.dirty.len(), ..AppUsage::default() }
    }

    /// What is held for applications right now.
    pub fn usage(&self) -> AppUsage {
        let mut usage = self.brief();
        for s in self.sockets.values() {
            usage.calls += s.calls.len();
            usage.parked += s.parked.len();
            usage.undelivered += s.requests.len() + s.backlog.len();
            usage.queued += s.shared.requests.len() + s.shared.responses.len();
        }
        usage
    }
}

impl Drop for App {
    /// Also when the shard's thread dies of a panic, nobody may wait for ever.
    fn drop(&mut self) {
        self.stop();
    }
}

/// A peer's address in the form that users write.
pub(crate) fn addr_of(peer: &PeerAddr) -> Addr {
    Addr { ip: peer.path.remote.ip().to_canonical(), port: peer.port, udp_port: peer.path.remote.port() }
}
