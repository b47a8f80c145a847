//! Control packets coming in, type by type.

use core::ops::Range;

use peyk_wire::homa::{
    Ack, AckEntry, Cutoffs, Grant, Header, MAX_ACKS, MAX_PRIORITY, RESEND_ALL, Resend, Unreachable,
    UnreachableCode,
};

use super::Endpoint;
use super::input::{Arrival, Found};
use super::output::ControlKind;
use crate::error::RpcError;
use crate::mutant::is_mutant;
use crate::priority::control_priority;
use crate::rpc::State;
use crate::transmit::{Disposition, Path};

impl Endpoint {
    /// GRANT: the receiver of our message lets us send more of it.
    pub(super) fn on_grant(&mut self, a: &Arrival<'_>, grant: &Grant) -> Disposition {
        let Some(slot) = self.find_or_drop(a, &grant.header) else { return Disposition::Dropped };
        if self.rpcs[slot].state != State::Outgoing {
            self.stats.drop_wrong_role += 1;
            return Disposition::Dropped;
        }
        let priority = self.clamp_priority(grant.priority);
        if self.rpcs[slot].out.grant(grant.offset, priority) {
            self.progress(slot, a.tick);
            self.enqueue(slot);
        } else {
            self.touch_in_vain(slot, a.tick);
        }
        Disposition::Handled
    }

    /// RESEND: the receiver of our message lacks a part of it.
    pub(super) fn on_resend(&mut self, a: &Arrival<'_>, resend: &Resend) -> Disposition {
        if is_mutant!(self.config, IgnoreResend) {
            return Disposition::Dropped;
        }
        let header = &resend.header;
        let slot = match self.find(a, header) {
            Found::Rpc(slot) => slot,
            Found::Unknown => return self.on_unknown_resend(a, header),
            Found::Foreign => {
                self.stats.drop_wrong_peer += 1;
                return Disposition::Dropped;
            }
        };
        let rpc = &self.rpcs[slot];
        if !rpc.is_client() && rpc.state != State::Outgoing {
            // The request is incomplete, or in service. HomaModule leaves the gaps to its timer.
            let is_incomplete = rpc.state == State::Incoming;
            self.send_control(slot, ControlKind::Busy);
            if is_incomplete {
                self.request_gaps(slot);
            }
            return Disposition::Handled;
        }
        let (sent, length) = (rpc.out.next, rpc.out.length);
        let priority = match resend.priority {
            Some(priority) => self.clamp_priority(priority),
            None => control_priority(self.config.num_priorities),
        };
        let end = if resend.length == RESEND_ALL { sent } else { resend.end() };
        let again = resend.offset..end.min(sent);
        // Of a receiver that had no memory and dropped it all. Timers ask at the highest priority, or for what is missing.
        let was_dropped =
            resend.length == RESEND_ALL && priority < control_priority(self.config.num_priorities);
        if !again.is_empty() && !was_dropped && self.is_premature(a.tick, slot, &again) {
            self.stats.resends_premature += 1;
            self.send_control(slot, ControlKind::Busy);
        } else if !again.is_empty() {
            self.rpcs[slot].out.on_resent(&again, a.tick);
            self.retransmit(slot, again, priority);
        }
        // A GRANT must have been lost.
        if self.rpcs[slot].out.extend(end) {
            self.enqueue(slot);
        }
        // Bytes beyond the message will never be sent: patience would keep a mistaken receiver.
        if (sent..length).contains(&resend.offset) {
            self.send_control(slot, ControlKind::Busy);
        }
        Disposition::Handled
    }

    /// Whether a RESEND asks for what was sent a moment ago.
    fn is_premature(&self, tick: u64, slot: u32, range: &Range<u32>) -> bool {
        let (out, ticks) = (&self.rpcs[slot].out, u64::from(self.config.min_retransmit_ticks));
        out.is_fresh(tick, ticks) || out.is_resent(range, tick, ticks)
    }

    /// RESEND for an RPC that we do not know.
    fn on_unknown_resend(&mut self, a: &Arrival<'_>, header: &Header) -> Disposition {
        let id = header.local_id();
        if header.is_from_client() && a.peer.is_some_and(|peer| self.completed.contains(peer, id)) {
            // It was executed, refused or given up, and will not be executed again. A client
            // that has its response ignores this. Told to wait instead, as by an overloaded server,
            // it would wait for nothing.
            self.answer_unreachable(a.now, a.path, header, UnreachableCode::Aborted);
        } else if header.is_from_client() && self.is_overloaded(a) {
            // The request was turned away; its client shall wait rather than fail.
            self.answer_stray(a.now, a.path, a.peer, header, ControlKind::Busy);
        } else {
            self.answer_stray(a.now, a.path, a.peer, header, ControlKind::RpcUnknown);
        }
        Disposition::Handled
    }

    /// RPC_UNKNOWN: the other side has no such RPC. A server lost our request, or never got it;
    /// a client is done with its RPC, or gave it up.
    pub(super) fn on_rpc_unknown(&mut self, a: &Arrival<'_>, header: &Header) -> Disposition {
        let Some(slot) = self.find_or_drop(a, header) else { return Disposition::Dropped };
        let rpc = &self.rpcs[slot];
        if !rpc.is_client() && is_mutant!(self.config, IgnoreUnknown) {
            return Disposition::Dropped;
        } else if !rpc.is_client() {
            self.cancel_server(a.now, slot);
        } else if rpc.state == State::Outgoing {
            let out = &rpc.out;
            let cutoffs = &self.peers[rpc.peer].cutoffs;
            let priority = cutoffs.unscheduled_priority(out.length, self.config.num_priorities);
            let (all, ticks) = (0..out.next, u64::from(self.config.min_retransmit_ticks));
            // Each of our RESENDs on the way draws one.
            if !out.is_resent(&all, a.tick, ticks) {
                self.rpcs[slot].out.on_resent(&all, a.tick);
                self.retransmit(slot, all, priority);
            }
        } else {
            self.stats.drop_wrong_role += 1;
            return Disposition::Dropped;
        }
        Disposition::Handled
    }

    /// BUSY: the other side is alive but will not send now.
    pub(super) fn on_busy(&mut self, a: &Arrival<'_>, header: &Header) -> Disposition {
        let Some(slot) = self.find_or_drop(a, header) else { return Disposition::Dropped };
        if is_mutant!(self.config, IgnoreBusy) {
            return Disposition::Handled;
        }
        let rpc = &self.rpcs[slot];
        if rpc.wait.rounds > 0 && rpc.is_owed() {
            self.peers[rpc.peer].resends.on_answer(&self.timers);
        }
        let is_patient = rpc.is_client() && rpc.state == State::Outgoing;
        let busies = if is_patient { rpc.wait.busies.saturating_add(1) } else { 0 };
        self.touch(slot, a.tick);
        self.rpcs[slot].wait.busies = busies;
        Disposition::Handled
    }

    /// CUTOFFS: which unscheduled priorities a host wants. Only of hosts we have to do with.
    pub(super) fn on_cutoffs(&mut self, a: &Arrival<'_>, cutoffs: &Cutoffs) -> Disposition {
        let Some(peer) = a.peer else {
            self.stats.drop_unknown_rpc += 1;
            return Disposition::Dropped;
        };
        self.peers[peer].cutoffs.set(&cutoffs.unsched_cutoffs, cutoffs.cutoff_version);
        Disposition::Handled
    }

    /// NEED_ACK: a server asks whether it may forget an RPC. It may if we know nothing of it.
    pub(super) fn on_need_ack(&mut self, a: &Arrival<'_>, header: &Header) -> Disposition {
        if header.is_from_client() || is_mutant!(self.config, IgnoreNeedAck) {
            self.stats.drop_wrong_role += 1;
            return Disposition::Dropped;
        }
        match self.find(a, header) {
            Found::Rpc(slot) => {
                let rpc = &self.rpcs[slot];
                if rpc.state == State::Incoming && !rpc.is_owed() {
                    // It waits for our grants, or our memory: a server that hears nothing would
                    // take us for dead and forget the response.
                    self.send_control(slot, ControlKind::Busy);
                } else {
                    self.request_retransmission(slot);
                }
            }
            Found::Unknown if self.may_answer_stray(a.now, a.peer) => {
                self.answer_need_ack(a.path, a.peer, header);
            }
            Found::Unknown => return Disposition::Dropped,
            Found::Foreign => {
                self.stats.drop_wrong_peer += 1;
                return Disposition::Dropped;
            }
        }
        Disposition::Handled
    }

    /// Acknowledges an RPC that we do not know, and others along with it.
    pub(super) fn answer_need_ack(&mut self, path: &Path, peer: Option<u32>, header: &Header) {
        let mut entries = [AckEntry::NONE; MAX_ACKS];
        let count = peer.map_or(0, |peer| self.peers[peer].acks.take(&mut entries));
        let (sport, dport, id) = (header.dport, header.sport, header.local_id());
        self.send_ack(*path, sport, dport, id, (entries, count));
    }

    /// ACK: a client no longer needs RPCs.
    pub(super) fn on_ack(&mut self, a: &Arrival<'_>, ack: &Ack) -> Disposition {
        let header = &ack.header;
        let Some(peer) = a.peer else {
            self.stats.drop_unknown_rpc += 1;
            return Disposition::Dropped;
        };
        if !header.is_from_client() {
            self.stats.drop_wrong_role += 1;
            return Disposition::Dropped;
        }
        self.peers[peer].need_acks.on_answer(&self.timers);
        let named = AckEntry { client_id: header.sender_id, server_port: header.dport };
        self.on_acked(a.now, a.path, peer, named);
        for &entry in ack.entries() {
            self.on_acked(a.now, a.path, peer, entry);
        }
        Disposition::Handled
    }

    /// UNREACHABLE: a server will not answer. Only a live request of ours to that server heeds it.
    pub(super) fn on_unreachable(&mut self, a: &Arrival<'_>, unreachable: &Unreachable) -> Disposition {
        let header = &unreachable.header;
        let slot = match self.find(a, header) {
            Found::Rpc(slot) if !header.is_from_client() => slot,
            _ => {
                self.stats.drop_unreachable += 1;
                return Disposition::Dropped;
            }
        };
        let error = match unreachable.code {
            UnreachableCode::NoSocket => RpcError::NoSocket,
            UnreachableCode::NotServer => RpcError::NotServer,
            UnreachableCode::TooLarge => RpcError::TooLarge,
            UnreachableCode::Closing => RpcError::PeerClosed,
            UnreachableCode::Overloaded => RpcError::Overloaded,
            UnreachableCode::Aborted | UnreachableCode::Other(_) => RpcError::Aborted,
        };
        self.fail(slot, error);
        Disposition::Handled
    }

    /// A priority from the wire, which HomaModule uses unchecked to index a table of eight.
    fn clamp_priority(&mut self, priority: u8) -> u8 {
        if priority > MAX_PRIORITY {
            self.stats.priorities_clamped += 1;
        }
        priority.min(MAX_PRIORITY)
    }
}
