//! What the application asks for: sockets, requests, replies, and giving up.

use core::net::SocketAddr;

use peyk_sansio::Instant;
use peyk_sockbuf::Payload;
use peyk_wire::homa::UnreachableCode;

use super::output::ControlKind;
use super::{Endpoint, tick_after, tick_of};
use crate::config::{RequestOptions, SocketOptions};
use crate::error::{OpenError, Reason, ReplyError, RpcError, SendError, Unreachable};
use crate::event::{RpcId, ServerRpc, SocketId};
use crate::peer::normalized_address;
use crate::rpc::{NewRpc, State};
use crate::transmit::PeerAddr;

impl Endpoint {
    /// Opens a socket: at `port`, 1 to 32767, to take requests, or at an automatic port to make
    /// them.
    ///
    /// # Errors
    /// The port is not in range or in use, or there are too many sockets.
    pub fn open_socket(&mut self, port: Option<u16>, options: SocketOptions) -> Result<SocketId, OpenError> {
        self.sockets.open(port, options, &self.config)
    }

    /// Closes a socket so that nobody waits for it: its own RPCs fail with
    /// [`RpcError::Closed`] and their servers are told; clients whose request is unanswered, or
    /// answered by halves, are told; responses received are acknowledged. Nothing else follows
    /// from it, and the handles of its requests are void.
    pub fn close_socket(&mut self, now: Instant, socket: SocketId) {
        let Some(index) = self.sockets.resolve(socket) else { return };
        self.is_dirty = true;
        for slot in 0..self.rpcs.places() {
            let Some(rpc) = self.rpcs.live(slot).filter(|rpc| rpc.socket == index) else {
                continue;
            };
            if rpc.is_client() {
                self.disown(slot);
                self.fail(slot, RpcError::Closed);
            } else {
                // A response that was all sent may still arrive: this must not overtake it. If
                // it got lost, the client learns from its next RESEND that the port is gone.
                if rpc.state != State::Outgoing || !rpc.out.is_sent() {
                    self.send_unreachable(slot, UnreachableCode::Closing);
                }
                self.end_server(now, slot);
            }
        }
        for peer in self.peers.iter_mut().map(|(peer, _)| peer).collect::<Vec<_>>() {
            while !self.peers[peer].acks.is_empty() {
                self.send_owed_acks(peer);
            }
        }
        let socket = &self.sockets[index];
        if socket.waits_to_request || socket.waits_to_reply {
            self.blocked.retain(|&blocked| blocked != index);
        }
        self.sockets.close(index);
    }

    /// Sends a request. Exactly one [`Event::Response`](crate::Event::Response) or
    /// [`Event::Failed`](crate::Event::Failed) follows, unless the RPC is aborted.
    ///
    /// # Errors
    /// The message or the port is not acceptable, or a limit is reached.
    pub fn send_request(
        &mut self,
        now: Instant,
        socket: SocketId,
        to: PeerAddr,
        message: Payload,
        options: RequestOptions,
    ) -> Result<RpcId, SendError> {
        let index = self.sockets.resolve(socket).ok_or(SendError::Closed)?;
        match message.len() {
            0 => return Err(SendError::Empty),
            n if n > self.config.max_message as usize => return Err(SendError::TooLong),
            _ => {}
        }
        if to.port == 0 {
            return Err(SendError::InvalidPort);
        }
        if self.is_host_full() || self.sockets[index].is_full() {
            // No RPC has to end for events to be taken away.
            self.is_relieved |= self.events.len() >= self.config.max_events as usize;
            return Err(self.refuse_request(index));
        }
        let tick = tick_of(now);
        let peer = self.find_or_make_peer(&to.path, tick).ok_or(SendError::TooManyPeers)?;
        let to_peer = &self.peers[peer];
        if to_peer.rpcs >= self.config.max_peer_rpcs
            || to_peer.request_bytes >= self.config.max_peer_send_bytes
        {
            return Err(self.refuse_request(index));
        }
        let id = self.ids.make();
        let slot = self.add_rpc(NewRpc {
            id,
            state: State::Outgoing,
            socket: index,
            peer,
            local_port: self.sockets[index].port,
            peer_port: to.port,
            cookie: options.cookie,
            deadline: options.deadline.unwrap_or(Instant::MAX),
            born: now,
            since: tick,
        });
        if let Some(deadline) = options.deadline {
            self.arm(slot, tick_after(deadline));
        }
        self.stats.requests_sent += 1;
        self.start_output(now, slot, message);
        Ok(RpcId(id))
    }

    /// Answers a request.
    ///
    /// # Errors
    /// [`ReplyError::Gone`] if nobody waits any more; with any other error the request can still
    /// be answered.
    pub fn reply(&mut self, now: Instant, rpc: ServerRpc, message: Payload) -> Result<(), ReplyError> {
        let slot = self.in_service(rpc).ok_or(ReplyError::Gone)?;
        let index = self.rpcs[slot].socket;
        match message.len() {
            0 => return Err(ReplyError::Empty),
            n if n > self.config.max_message as usize => return Err(ReplyError::TooLong),
            _ => {}
        }
        if self.is_host_full_of_replies() || self.sockets[index].is_full_of_replies() {
            self.block(index);
            self.sockets[index].waits_to_reply = true;
            return Err(ReplyError::Full);
        }
        let (socket, bytes) = (&mut self.sockets[index], message.len() as u64);
        socket.reply_bytes += bytes;
        self.reply_bytes += bytes;
        socket.unanswered -= 1;
        let rpc = &mut self.rpcs[slot];
        rpc.state = State::Outgoing;
        self.stats.replies_sent += 1;
        self.start_output(now, slot, message);
        Ok(())
    }

    /// Ends a request without a response; its client is told why. It will not be handed over
    /// again. Nothing happens if nobody waits for it any more.
    pub fn reject(&mut self, now: Instant, rpc: ServerRpc, reason: Reason) {
        let Some(slot) = self.in_service(rpc) else { return };
        self.stats.server_rejected += 1;
        let code = match reason {
            Reason::Aborted => UnreachableCode::Aborted,
            Reason::Overloaded => UnreachableCode::Overloaded,
            Reason::TooLarge => UnreachableCode::TooLarge,
            Reason::Closing => UnreachableCode::Closing,
        };
        self.send_unreachable(slot, code);
        self.end_server(now, slot);
    }

    /// Whether a request can still be answered.
    pub fn is_waiting(&self, rpc: ServerRpc) -> bool {
        self.in_service(rpc).is_some()
    }

    /// Gives up a request of ours; its server is told. No event follows. False if it had ended.
    pub fn abort(&mut self, now: Instant, socket: SocketId, rpc: RpcId) -> bool {
        let _ = now;
        let Some(index) = self.sockets.resolve(socket) else { return false };
        let Some(slot) = self.index.client(rpc.0) else { return false };
        if self.rpcs[slot].socket != index {
            return false;
        }
        self.stats.rpc_aborts += 1;
        self.is_dirty = true;
        self.disown(slot);
        self.remove_rpc(slot);
        true
    }

    /// Ends a request of ours of which the outcome is known otherwise. Unlike [`abort`](Endpoint::abort)
    /// it tells nobody, as HomaModule's abort without an error does: for simulations of one-way
    /// traffic. False if it had ended.
    pub fn forget_call(&mut self, rpc: RpcId) -> bool {
        let Some(slot) = self.index.client(rpc.0) else { return false };
        self.is_dirty = true;
        self.remove_rpc(slot);
        true
    }

    /// Ends a request without telling its client: for simulations of one-way traffic, where the
    /// client learns the outcome otherwise. Without a record, which is for networks that repeat
    /// nothing, a late copy of a packet begins the request anew. False if it had ended.
    pub fn forget_request(&mut self, now: Instant, rpc: ServerRpc, leaves_record: bool) -> bool {
        let Some(slot) = self.in_service(rpc) else { return false };
        self.is_dirty = true;
        if leaves_record {
            self.end_server(now, slot);
        } else {
            self.remove_rpc(slot);
        }
        true
    }

    /// The network reported that packets of ours did not reach `remote`. Requests of ours
    /// concerned fail; requests of its clients are forgotten.
    ///
    /// If the report says that the packet was of the RPC with the id `id`, later requests are not concerned: whatever was
    /// missing then may be there now. Reports are heeded at a limited rate: anybody can forge them.
    pub fn handle_unreachable(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        why: Unreachable,
        id: Option<u64>,
    ) {
        let remote = normalized_address(remote);
        let is_concerned = |peer: &crate::peer::Peer| peer.path.remote == remote && peer.rpcs > 0;
        let concerned: Vec<u32> =
            self.peers.iter_mut().filter(|(_, p)| is_concerned(p)).map(|(i, _)| i).collect();
        if concerned.is_empty() || !self.unreachable_in.allow(now) {
            self.stats.drop_unreachable += 1;
            return;
        }
        self.stats.unreachable_reports += 1;
        self.is_dirty = true;
        let (port, error) = match why {
            Unreachable::Port { homa_port } => (homa_port, RpcError::NoSocket),
            Unreachable::Protocol => (None, RpcError::ProtocolUnreachable),
            Unreachable::Host => (None, RpcError::HostUnreachable),
        };
        for slot in 0..self.rpcs.places() {
            let Some(rpc) = self.rpcs.live(slot) else { continue };
            if !concerned.contains(&rpc.peer) || port.is_some_and(|port| port != rpc.peer_port) {
                continue;
            }
            if !rpc.is_client() {
                self.cancel_server(now, slot);
            } else if !id.is_some_and(|id| crate::rpc::is_later(rpc.id, id)) {
                self.fail(slot, error);
            }
        }
    }

    /// Gives an RPC its outgoing message.
    fn start_output(&mut self, now: Instant, slot: u32, message: Payload) {
        let rpc = &mut self.rpcs[slot];
        let bytes = message.len() as u64;
        let peer = &mut self.peers[rpc.peer];
        if rpc.is_client() {
            peer.request_bytes += bytes;
        } else {
            peer.reply_bytes += bytes;
        }
        let segment = peer.segment;
        rpc.out.start(message, self.config.unsched_bytes, segment, now);
        self.sockets[rpc.socket].send_bytes += bytes;
        self.send_bytes += bytes;
        self.stats.message_bytes_sent += bytes;
        self.enqueue(slot);
    }

    fn in_service(&self, rpc: ServerRpc) -> Option<u32> {
        let found = self.rpcs.live(rpc.slot)?;
        (found.generation == rpc.generation && found.state == State::InService).then_some(rpc.slot)
    }

    #[cold]
    fn refuse_request(&mut self, index: u32) -> SendError {
        self.block(index);
        self.sockets[index].waits_to_request = true;
        SendError::Full
    }

    /// Puts a socket that was refused a send among those that wait.
    #[cold]
    fn block(&mut self, index: u32) {
        self.stats.send_full += 1;
        let socket = &self.sockets[index];
        if !socket.waits_to_request && !socket.waits_to_reply {
            self.blocked.push(index);
        }
    }

    /// Tells the client of a server RPC that it will get no response.
    /// At our own will, so no rate limit applies.
    fn send_unreachable(&mut self, slot: u32, code: UnreachableCode) {
        if self.config.unreachable_packets {
            self.send_control(slot, ControlKind::Unreachable(code));
        }
    }
}
