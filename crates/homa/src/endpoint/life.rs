//! Beginning and end of RPCs: every count, index and queue that knows of one is kept here.

use peyk_sansio::Instant;
use peyk_wire::homa::{AckEntry, MAX_ACKS};

use super::Endpoint;
use super::output::ControlKind;
use crate::ack::Flush;
use crate::error::RpcError;
use crate::event::{Event, RpcId, ServerRpc};
use crate::mutant::is_mutant;
use crate::rpc::{NewRpc, State};
use crate::transmit::{Path, PeerAddr};

impl Endpoint {
    /// Makes an RPC and accounts for it. Inline, so that what is given goes straight to its place.
    #[inline(always)]
    pub(super) fn add_rpc(&mut self, new: NewRpc) -> u32 {
        let (id, socket, peer) = (new.id, new.socket, new.peer);
        let slot = self.rpcs.insert(new);
        self.peers[peer].rpcs += 1;
        let socket = &mut self.sockets[socket];
        socket.rpcs += 1;
        if id & 1 == 0 {
            socket.client_rpcs += 1;
        } else {
            socket.unanswered += 1;
        }
        self.index.insert(peer, id, slot);
        slot
    }

    /// Forgets the incoming message of an RPC and what is accounted for it.
    pub(super) fn drop_input(&mut self, slot: u32) {
        let rpc = &mut self.rpcs[slot];
        if rpc.is_managed {
            rpc.is_managed = false;
            self.grants.remove(slot);
        }
        if rpc.is_waiting {
            rpc.is_waiting = false;
            self.waiters.remove(slot, self.housekept);
        }
        if rpc.input.has_memory() {
            self.peers[rpc.peer].incoming_bytes -= u64::from(rpc.input.length);
        }
        rpc.input.clear();
    }

    /// Ends an RPC: after this no packet finds it and nothing is accounted for it.
    pub(super) fn remove_rpc(&mut self, slot: u32) {
        let rpc = &self.rpcs[slot];
        self.index.remove(rpc.peer, rpc.id);
        self.drop_input(slot);
        let rpc = &mut self.rpcs[slot];
        if rpc.out.is_sendable() {
            self.queue.remove(slot);
        }
        let bytes = u64::from(rpc.out.length);
        self.send_bytes -= if is_mutant!(self.config, LeakSendBytes) { 0 } else { bytes };
        let peer = &mut self.peers[rpc.peer];
        peer.rpcs -= 1;
        if rpc.is_client() {
            peer.request_bytes -= bytes;
        } else {
            peer.reply_bytes -= bytes;
        }
        let socket = &mut self.sockets[rpc.socket];
        socket.rpcs -= 1;
        socket.send_bytes -= bytes;
        if rpc.is_client() {
            socket.client_rpcs -= 1;
        } else {
            socket.reply_bytes -= bytes;
            self.reply_bytes -= bytes;
            socket.unanswered -= u32::from(rpc.state != State::Outgoing);
        }
        self.rpcs.remove(slot);
        self.is_relieved |= !self.blocked.is_empty();
    }

    /// Ends a server RPC; if its request was handed to the application, it will not be again.
    ///
    /// HomaModule forgets the id, so that a late duplicate of the request is executed again.
    pub(super) fn end_server(&mut self, now: Instant, slot: u32) {
        self.record_completed(now, slot);
        self.remove_rpc(slot);
    }

    fn record_completed(&mut self, now: Instant, slot: u32) {
        let rpc = &self.rpcs[slot];
        if rpc.state != State::Incoming && !is_mutant!(self.config, ForgetCompleted) {
            self.completed.insert(now, rpc.peer, rpc.id);
        }
    }

    /// Ends the server RPC that an ack from a peer names, if there is one that can be acknowledged. False if
    /// there is none of that id.
    pub(super) fn end_acked(&mut self, now: Instant, peer: u32, ack: AckEntry) -> bool {
        let Some(slot) = self.index.server(peer, ack.server_id()) else { return false };
        let rpc = &self.rpcs[slot];
        if rpc.state == State::Outgoing && rpc.local_port == ack.server_port {
            self.stats.server_acked += 1;
            self.end_server(now, slot);
        }
        true
    }

    /// Ends a server RPC because its client gave up; the application hears of it if it has the
    /// request.
    pub(super) fn cancel_server(&mut self, now: Instant, slot: u32) {
        let rpc = &self.rpcs[slot];
        if rpc.state == State::InService {
            let socket = self.sockets.id(rpc.socket);
            let rpc = ServerRpc { slot, generation: rpc.generation, id: rpc.id };
            self.stats.server_cancelled += 1;
            self.events.push_back(Event::Cancelled { socket, rpc });
        }
        self.end_server(now, slot);
    }

    /// Ends a client RPC with a failure.
    pub(super) fn fail(&mut self, slot: u32, error: RpcError) {
        let rpc = &self.rpcs[slot];
        self.stats.rpc_failures += 1;
        self.events.push_back(Event::Failed {
            socket: self.sockets.id(rpc.socket),
            rpc: RpcId(rpc.id),
            cookie: rpc.cookie,
            from: self.peer_addr(slot),
            error,
        });
        self.remove_rpc(slot);
    }

    /// Tells the server of a client RPC that nobody waits for it, if it can know of it.
    pub(super) fn disown(&mut self, slot: u32) {
        if self.rpcs[slot].out.next > 0 {
            self.send_control(slot, ControlKind::RpcUnknown);
        }
    }

    /// Whom an RPC is with.
    pub(super) fn peer_addr(&self, slot: u32) -> PeerAddr {
        let rpc = &self.rpcs[slot];
        PeerAddr { path: self.peers[rpc.peer].path, port: rpc.peer_port }
    }

    /// Owes the server an ack for a finished client RPC.
    pub(super) fn owe_ack(&mut self, slot: u32) {
        if is_mutant!(self.config, ForgetAcks) {
            return;
        }
        let rpc = &self.rpcs[slot];
        let (peer, port) = (rpc.peer, rpc.local_port);
        let entry = AckEntry { client_id: rpc.id, server_port: rpc.peer_port };
        match self.peers[peer].acks.push(entry, port) {
            Flush::No => {}
            Flush::Later => self.ack_flush.push(peer),
            Flush::Now => self.send_owed_acks(peer),
        }
    }

    /// Queues an ACK packet with the oldest acks owed to a host.
    pub(super) fn send_owed_acks(&mut self, peer: u32) {
        let peer = &mut self.peers[peer];
        let first = peer.acks.pop();
        if first.is_none() {
            return;
        }
        let mut entries = [AckEntry::NONE; MAX_ACKS];
        let count = peer.acks.take(&mut entries);
        let (path, port) = (peer.path, peer.acks.port);
        self.send_ack(path, port, first.server_port, first.client_id, (entries, count));
    }

    /// The peer at a path, made if need be. `None` if there is no room for another.
    pub(super) fn find_or_make_peer(&mut self, path: &Path, tick: u64) -> Option<u32> {
        if let Some(peer) = self.peers.find(path) {
            return Some(peer);
        }
        let (peer, evicted) = self.peers.create(path, tick)?;
        self.stats.peers_created += 1;
        if let Some(evicted) = evicted {
            self.on_evicted(evicted);
        }
        Some(peer)
    }

    /// Forgets what was recorded under the place of a peer that had to go.
    pub(super) fn on_evicted(&mut self, peer: u32) {
        self.stats.peers_evicted += 1;
        self.completed.remove_peer(peer);
    }

    /// Tells sockets that were refused a send that they may try again.
    #[cold]
    pub(super) fn wake_blocked(&mut self) {
        self.is_relieved = false;
        let (is_full, is_full_of_replies) = (self.is_host_full(), self.is_host_full_of_replies());
        let mut blocked = core::mem::take(&mut self.blocked);
        blocked.retain(|&index| {
            let socket = &mut self.sockets[index];
            let may_request = socket.waits_to_request && !is_full && !socket.is_full();
            let may_reply = socket.waits_to_reply && !is_full_of_replies && !socket.is_full_of_replies();
            socket.waits_to_request &= !may_request;
            socket.waits_to_reply &= !may_reply;
            let still_waits = socket.waits_to_request || socket.waits_to_reply;
            if (may_request || may_reply) && !is_mutant!(self.config, LoseWritable) {
                self.events.push_back(Event::Writable { socket: self.sockets.id(index) });
            }
            still_waits
        });
        self.blocked = blocked;
    }

    /// Whether the limits of the endpoint forbid another request to be made. A quarter of the
    /// RPCs is left to requests of others.
    pub(super) fn is_host_full(&self) -> bool {
        let max_rpcs = self.config.max_rpcs as usize;
        self.send_bytes - self.reply_bytes >= self.config.max_send_bytes
            || self.index.client_count() >= max_rpcs - max_rpcs / 4
            || self.rpcs.len() >= max_rpcs
            || self.events.len() >= self.config.max_events as usize
    }

    /// Whether the limits of the endpoint forbid another reply.
    pub(super) fn is_host_full_of_replies(&self) -> bool {
        self.reply_bytes >= self.config.max_send_bytes
    }
}
