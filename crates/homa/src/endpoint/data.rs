//! DATA: requests and responses coming in, and the memory they need.

use std::collections::VecDeque;

use peyk_sansio::Instant;
use peyk_sockbuf::{Fragment, Message};
use peyk_wire::homa::{AckEntry, Data, RESEND_ALL, UnreachableCode};

use super::input::{Arrival, Found};
use super::output::ControlKind;
use super::{Endpoint, tick_of};
use crate::error::RpcError;
use crate::event::{Event, RpcId, ServerRpc, SocketId};
use crate::incoming::Insert;
use crate::mutant::is_mutant;
use crate::resend::Wait;
use crate::rpc::{NewRpc, State};
use crate::transmit::{Disposition, Path};
use crate::waiters::InVain;

/// Packets in a row that contradict the first one of their message before it is given up.
const CONTRADICTIONS_MAX: u8 = 16;
/// Waiting messages looked at to find one that may have memory.
const WAITERS_SCAN: usize = 64;

impl Endpoint {
    /// DATA of a request, for a server socket.
    pub(super) fn on_request_data(&mut self, a: &Arrival<'_>, data: &Data<'_>) -> Disposition {
        let outcome = match self.find(a, &data.header) {
            Found::Rpc(slot) => {
                self.send_cutoffs_if_stale(a, slot, data);
                if self.rpcs[slot].state == State::Incoming {
                    self.receive(a, slot, data)
                } else {
                    self.on_useless(a, data);
                    self.stats.drop_duplicate += 1;
                    Disposition::Dropped
                }
            }
            Found::Unknown => self.on_new_request(a, data),
            Found::Foreign => {
                self.stats.drop_wrong_peer += 1;
                return Disposition::Dropped;
            }
        };
        self.on_piggyback(a, data);
        outcome
    }

    fn on_new_request(&mut self, a: &Arrival<'_>, data: &Data<'_>) -> Disposition {
        let Some(slot) = self.accept(a, data) else { return Disposition::Dropped };
        self.send_cutoffs_if_stale(a, slot, data);
        if let Some(memory) = self.memory_of_whole(data) {
            self.hand_over(slot, data.message_length, || memory.fill(data.payload));
            Disposition::Handled
        } else if self.start_input(a, slot, data) {
            self.receive(a, slot, data)
        } else {
            self.stats.drop_no_memory += 1;
            self.remove_rpc(slot);
            Disposition::Dropped
        }
    }

    /// DATA of a response to a request of ours.
    pub(super) fn on_response_data(&mut self, a: &Arrival<'_>, data: &Data<'_>) -> Disposition {
        let Some(slot) = self.find_or_drop(a, &data.header) else {
            self.on_useless(a, data);
            self.on_piggyback(a, data);
            return Disposition::Dropped;
        };
        self.send_cutoffs_if_stale(a, slot, data);
        let outcome = self.response(a, slot, data);
        self.on_piggyback(a, data);
        outcome
    }

    fn response(&mut self, a: &Arrival<'_>, slot: u32, data: &Data<'_>) -> Disposition {
        if self.rpcs[slot].state == State::Outgoing {
            if data.message_length > self.max_receive {
                self.stats.drop_bad_length += 1;
                self.disown(slot);
                self.fail(slot, RpcError::TooLarge);
                return Disposition::Dropped;
            }
            if let Some(memory) = self.memory_of_whole(data) {
                let rpc = &self.rpcs[slot];
                if rpc.wait.rounds > 0 && data.is_retransmission() {
                    let peer = &mut self.peers[rpc.peer];
                    peer.lateness.on_useful(a.tick);
                    peer.resends.on_useful(&self.timers);
                }
                self.hand_over(slot, data.message_length, || memory.fill(data.payload));
                return Disposition::Handled;
            }
            if !self.start_input(a, slot, data) {
                self.touch(slot, a.tick);
                self.stats.drop_no_memory += 1;
                return Disposition::Dropped;
            }
            self.rpcs[slot].state = State::Incoming;
        }
        self.receive(a, slot, data)
    }

    /// Makes a server RPC for a request that is not known, unless it is known to be over or there
    /// is a limit in the way.
    fn accept(&mut self, a: &Arrival<'_>, data: &Data<'_>) -> Option<u32> {
        let id = data.header.local_id();
        if a.peer.is_some_and(|peer| self.completed.contains(peer, id)) {
            self.on_useless(a, data);
            self.stats.drop_completed += 1;
            return None;
        }
        if data.message_length > self.max_receive {
            self.stats.drop_bad_length += 1;
            self.answer_unreachable(a.now, a.path, &data.header, UnreachableCode::TooLarge);
            return None;
        }
        if self.is_overloaded(a) {
            let socket = &self.sockets[a.socket];
            let is_unanswered = socket.unanswered >= socket.max_unanswered;
            let is_peers = self.is_full_of_replies_to(a.peer);
            self.stats.drop_peer_replies += u64::from(is_peers);
            self.stats.drop_unanswered += u64::from(is_unanswered && !is_peers);
            self.stats.drop_rpc_limit += u64::from(!is_unanswered && !is_peers);
            return None;
        }
        let Some(peer) = a.peer.or_else(|| self.find_or_make_peer(a.path, a.tick)) else {
            self.stats.drop_peer_limit += 1;
            return None;
        };
        if self.peers[peer].rpcs >= self.config.max_peer_rpcs {
            self.stats.drop_rpc_limit += 1;
            return None;
        }
        Some(self.add_rpc(NewRpc {
            id,
            state: State::Incoming,
            socket: a.socket,
            peer,
            local_port: data.header.dport,
            peer_port: data.header.sport,
            cookie: 0,
            deadline: Instant::MAX,
            born: a.now,
            since: a.tick,
        }))
    }

    /// Bytes came that were not needed any more. If they were sent again at our request, that was
    /// made too early.
    fn on_useless(&mut self, a: &Arrival<'_>, data: &Data<'_>) {
        if data.is_retransmission()
            && let Some(peer) = a.peer
        {
            self.peers[peer].lateness.on_useless(&self.timers, a.tick);
        }
    }

    /// Memory for the message of a packet that carries all of it, if there is some. Most messages are
    /// such, and need nothing of what follows.
    #[inline(always)]
    fn memory_of_whole(&mut self, data: &Data<'_>) -> Option<Fragment> {
        let is_whole = data.payload.len() == data.message_length as usize;
        if is_whole { self.pool.short(data.payload.len()) } else { None }
    }

    /// Whether a socket takes no further requests for now. Their clients are told BUSY when they
    /// ask, and send again when there is room.
    pub(super) fn is_overloaded(&self, a: &Arrival<'_>) -> bool {
        let socket = &self.sockets[a.socket];
        socket.is_full_of_requests()
            || self.is_full_of_replies_to(a.peer)
            || self.rpcs.len() >= self.config.max_rpcs as usize
            || self.events.len() >= self.config.max_events as usize
            || self.waiters.len() >= self.config.max_memory_waiters as usize
    }

    /// Whether a peer has so many bytes of replies to take or acknowledge that it gets no more.
    fn is_full_of_replies_to(&self, peer: Option<u32>) -> bool {
        peer.is_some_and(|peer| self.peers[peer].reply_bytes >= self.config.max_peer_send_bytes)
    }

    /// Whether a peer has as much memory for messages under way as it may. First packets of long
    /// messages would else be a cheap way to take all of the pool.
    fn has_its_share(&self, peer: u32) -> bool {
        self.peers[peer].incoming_bytes >= self.max_peer_incoming
    }

    /// Whether memory that is free is kept for a message that has waited for long, be it for memory or for this
    /// peer's share of it.
    fn is_kept_for_another(&self, peer: u32) -> bool {
        self.waiters.turn().is_some_and(|slot| {
            let first = self.rpcs[slot].peer;
            first == peer || !self.has_its_share(first)
        })
    }

    /// Begins the incoming message of an RPC with its first packet. False if there is neither
    /// memory nor room to wait for some.
    fn start_input(&mut self, a: &Arrival<'_>, slot: u32, data: &Data<'_>) -> bool {
        let length = data.message_length;
        let peer = self.rpcs[slot].peer;
        let must_wait = self.has_its_share(peer) || self.is_kept_for_another(peer);
        let buf = if must_wait { None } else { self.pool.alloc(length as usize) };
        if buf.is_none() && self.waiters.len() >= self.config.max_memory_waiters as usize {
            return false;
        }
        // The variant of HomaModule proposed for Linux has no grants and leaves `incoming` 0.
        let claimed = match data.incoming_in_message() {
            0 if !data.payload.is_empty() => length,
            incoming => incoming,
        };
        self.stats.unscheduled_capped += u64::from(claimed > self.config.max_unscheduled);
        // Not up to the end of this packet: what is missing before the late copy of a packet from the
        // end of a message that was given up will never come, and must not keep grants from others.
        let unscheduled = claimed.min(self.config.max_unscheduled);
        let rpc = &mut self.rpcs[slot];
        if buf.is_some() {
            self.peers[peer].incoming_bytes += u64::from(length);
        } else {
            rpc.is_waiting = true;
            self.waiters.insert(slot, length, a.tick);
            self.stats.memory_waits += 1;
        }
        rpc.input.start(length, unscheduled, buf);
        true
    }

    /// DATA that gives its message another length than the first packet did. It shows no progress;
    /// after several in a row the first one must have been garbled, and the message starts anew.
    /// Else the two sides could keep each other waiting with RESEND and BUSY.
    #[cold]
    fn on_length_changed(&mut self, a: &Arrival<'_>, slot: u32) -> Disposition {
        self.stats.drop_length_changed += 1;
        let rpc = &mut self.rpcs[slot];
        rpc.input.contradictions += 1;
        if rpc.input.contradictions >= CONTRADICTIONS_MAX {
            if rpc.is_client() {
                rpc.state = State::Outgoing;
                self.drop_input(slot);
                // While all that was granted was here, nothing was owed and no timer ran.
                self.arm(slot, self.timers.resend_due(self.rpcs[slot].wait));
            } else {
                self.end_server(a.now, slot);
            }
        }
        Disposition::Dropped
    }

    /// Takes the bytes of a packet for an RPC in state `Incoming`.
    fn receive(&mut self, a: &Arrival<'_>, slot: u32, data: &Data<'_>) -> Disposition {
        if self.rpcs[slot].input.length != data.message_length {
            return self.on_length_changed(a, slot);
        }
        let has_asked = self.rpcs[slot].wait.rounds > 0;
        if !self.rpcs[slot].input.has_memory() {
            self.touch(slot, a.tick);
            self.stats.drop_no_memory += 1;
            return Disposition::Dropped;
        }
        let rpc = &mut self.rpcs[slot];
        let input = &mut rpc.input;
        input.contradictions = 0;
        match input.insert(data.offset(), data.payload, self.config.max_gaps as usize) {
            Insert::New => {}
            Insert::Trimmed => self.stats.data_trimmed += 1,
            Insert::Duplicate if is_mutant!(self.config, CountDuplicates) => {
                input.received = (input.received + data.payload.len() as u32).min(input.length);
            }
            Insert::Duplicate if !data.payload.is_empty() => {
                self.touch_in_vain(slot, a.tick);
                self.stats.drop_duplicate += 1;
                self.on_useless(a, data);
                return Disposition::Dropped;
            }
            Insert::Duplicate => return self.on_nothing_new(slot, a),
            Insert::TooManyGaps => {
                self.touch_in_vain(slot, a.tick);
                self.stats.drop_gaps += 1;
                return Disposition::Dropped;
            }
        }
        self.progress(slot, a.tick);
        let rpc = &mut self.rpcs[slot];
        let input = &mut rpc.input;
        if data.is_retransmission() {
            let peer = &mut self.peers[rpc.peer];
            peer.lateness.on_useful(a.tick);
            if has_asked {
                peer.resends.on_useful(&self.timers);
            }
        }
        if input.is_complete() {
            let message = input.take();
            let length = message.len() as u32;
            self.peers[rpc.peer].incoming_bytes -= u64::from(length);
            self.hand_over(slot, length, || message);
            return Disposition::Handled;
        }
        let received = input.received;
        if rpc.is_managed {
            self.grants.on_received(slot, received);
        } else {
            self.manage(slot);
        }
        if self.rpcs[slot].input.is_owed() {
            self.arm(slot, self.timers.resend_due(Wait::from(a.tick)));
        }
        Disposition::Handled
    }

    /// A packet without bytes began the message, or came in between.
    #[cold]
    fn on_nothing_new(&mut self, slot: u32, a: &Arrival<'_>) -> Disposition {
        self.touch_in_vain(slot, a.tick);
        if !self.rpcs[slot].is_managed {
            self.manage(slot);
        }
        if self.rpcs[slot].input.is_owed() {
            self.arm(slot, self.timers.resend_due(self.rpcs[slot].wait));
        }
        Disposition::Handled
    }

    /// Puts a message that needs grants under their management.
    fn manage(&mut self, slot: u32) {
        let rpc = &mut self.rpcs[slot];
        let input = &rpc.input;
        if input.granted < input.length {
            let (length, granted, received) = (input.length, input.granted, input.received);
            rpc.is_managed = self.grants.manage(slot, rpc.peer, length, granted, received, rpc.born);
        }
    }

    /// Hands a complete message to the application. It is made last, in the event that it is handed over with:
    /// made before, it would have to be moved there, which costs more than to make it.
    #[inline(always)]
    fn hand_over(&mut self, slot: u32, length: u32, message: impl FnOnce() -> Message) {
        let from = self.peer_addr(slot);
        let rpc = &mut self.rpcs[slot];
        if rpc.is_managed {
            rpc.is_managed = false;
            self.grants.remove(slot);
        }
        let socket = self.sockets.id(rpc.socket);
        self.cutoffs.record(length);
        self.stats.message_bytes_received += u64::from(length);
        let is_client = rpc.is_client();
        let place = new_place(&mut self.events, socket);
        if is_client {
            let (rpc, cookie) = (RpcId(rpc.id), rpc.cookie);
            self.stats.responses_received += 1;
            put(place, Event::Response { socket, rpc, cookie, from, message: message() });
            self.owe_ack(slot);
            self.remove_rpc(slot);
        } else {
            rpc.state = State::InService;
            let rpc = ServerRpc { slot, generation: rpc.generation, id: rpc.id };
            self.stats.requests_received += 1;
            put(place, Event::Request { socket, rpc, from, message: message() });
        }
        if cfg!(feature = "mutants") {
            self.spoil_last_event();
        }
    }

    /// What some broken variants do to an event.
    fn spoil_last_event(&mut self) {
        let Some(Event::Request { message, .. } | Event::Response { message, .. }) = self.events.back()
        else {
            return;
        };
        if is_mutant!(self.config, LeakPages) && self.stats.message_bytes_received.is_multiple_of(8) {
            core::mem::forget(message.clone());
        }
        let is_response = matches!(self.events.back(), Some(Event::Response { .. }));
        if !is_response || !self.stats.responses_received.is_multiple_of(16) {
            return;
        }
        let (repeats, loses) = (is_mutant!(self.config, RepeatEvents), is_mutant!(self.config, LoseEvents));
        if repeats {
            self.events.extend(self.events.back().cloned());
        }
        if loses {
            self.events.pop_back();
        }
    }

    /// Processes the ack that rides on DATA; the DATA itself may be of no use.
    #[inline]
    fn on_piggyback(&mut self, a: &Arrival<'_>, data: &Data<'_>) {
        if !data.ack.is_none()
            && let Some(peer) = a.peer
        {
            self.on_acked(a.now, a.path, peer, data.ack);
        }
    }

    /// A client host no longer needs an RPC. Acks belong to the host: they may come from another
    /// of its ports. An ack before the response is not to be believed.
    pub(super) fn on_acked(&mut self, now: Instant, path: &Path, peer: u32, ack: AckEntry) {
        if ack.client_id & 1 != 0 {
            return;
        }
        if !self.end_acked(now, peer, ack) {
            self.on_stray_ack(path, ack);
        }
    }

    /// Tells a sender our cutoffs if it uses others, at most once per tick.
    #[inline]
    fn send_cutoffs_if_stale(&mut self, a: &Arrival<'_>, slot: u32, data: &Data<'_>) {
        if data.cutoff_version == self.cutoffs.version() || data.incoming == 0 {
            return;
        }
        let peer = &mut self.peers[self.rpcs[slot].peer];
        if peer.cutoffs_sent != a.tick {
            peer.cutoffs_sent = a.tick;
            self.send_control(slot, ControlKind::Cutoffs);
        }
    }

    /// Gives memory to the messages that wait for it, the one whose turn it is and then shortest first, as
    /// long as there is some; their senders are asked for everything again, for it was dropped. Peers that
    /// have their share are passed over. Requests of clients that are gone do not get any: they would keep it
    /// until they time out, one lot after the other.
    pub(super) fn serve_waiters(&mut self, now: Instant) {
        if is_mutant!(self.config, ForgetWaiters) {
            return;
        }
        let may_have = |this: &Endpoint, slot: u32| !this.has_its_share(this.rpcs[slot].peer);
        let tick = tick_of(now);
        let is_gone = |this: &Endpoint, slot: u32| {
            let rpc = &this.rpcs[slot];
            let heard = this.peers[rpc.peer].heard.max(rpc.wait.since);
            !rpc.is_client() && tick >= this.timers.server_forget_due(heard)
        };
        loop {
            let next = {
                let shortest = self.waiters.by_length().take(WAITERS_SCAN);
                let mut waiters = self.waiters.turn().into_iter().chain(shortest);
                waiters.find(|&slot| is_gone(self, slot) || may_have(self, slot))
            };
            let Some(slot) = next else { break };
            if is_gone(self, slot) {
                self.stats.server_timeouts += 1;
                self.end_server(now, slot);
                continue;
            }
            let length = self.rpcs[slot].input.length;
            let Some(buf) = self.pool.alloc(length as usize) else {
                // What is kept for one is not missing for the others: they will have it.
                if self.waiters.turn() == Some(slot) && self.pool.free_pages() > 0 {
                    self.waiters.not_stalled(tick);
                }
                break;
            };
            self.waiters.remove(slot, tick);
            self.waiters.not_stalled(tick);
            let rpc = &mut self.rpcs[slot];
            rpc.is_waiting = false;
            rpc.input.give(buf);
            self.peers[rpc.peer].incoming_bytes += u64::from(length);
            // One below the priority of the timers' RESENDs, as in HomaModule.
            let priority = self.config.num_priorities.saturating_sub(2);
            let kind = ControlKind::Resend { offset: 0, length: RESEND_ALL, priority };
            self.send_control(slot, kind);
            self.manage(slot);
            self.owe(slot, tick);
        }
    }

    /// Ends the RPCs of ours that wait for memory, if for long there was none for any. Requests
    /// wait on: their clients are told BUSY, and can give up.
    pub(super) fn give_up_waiting(&mut self, tick: u64) {
        let patience = u64::from(self.config.memory_timeout_ticks);
        if patience == 0 || !self.waiters.is_stalled(tick, patience) {
            return;
        }
        self.waiters.not_stalled(tick);
        let ours: Vec<u32> = self.waiters.by_length().filter(|&slot| self.rpcs[slot].is_client()).collect();
        for slot in ours {
            self.disown(slot);
            self.fail(slot, RpcError::NoMemory);
        }
    }

    /// Decides whose turn it is to get memory, whatever its length. An RPC of ours that had its turn in vain,
    /// and has waited for as long as RPCs do at most, ends: the others may be served for ever, and it would
    /// wait on.
    pub(super) fn take_turns(&mut self, tick: u64) {
        let patience = u64::from(self.config.memory_timeout_ticks);
        if let Some(InVain { slot, since }) = self.waiters.on_tick(tick)
            && patience > 0
            && tick >= since + patience
            && self.rpcs[slot].is_client()
        {
            self.disown(slot);
            self.fail(slot, RpcError::NoMemory);
        }
    }
}

/// A new place at the end of a queue of events, with an event in it that means nothing.
#[inline(always)]
fn new_place(events: &mut VecDeque<Event>, socket: SocketId) -> &mut Event {
    events.push_back(Event::Writable { socket });
    events.back_mut().expect("just pushed")
}

/// Writes an event to a new place, where there is nothing to be dropped.
#[inline(always)]
fn put(place: &mut Event, event: Event) {
    core::mem::forget(core::mem::replace(place, event));
}
