//! From socket to stream: reservation, writing, retry.

use bytes::Bytes;
use peyk_sansio::Instant;

use super::Mux;
use crate::error::Code;
use crate::event::{Event, PsockId, SocketId, Target};
use crate::psock::Source;
use crate::socket::TxMessage;
use crate::table::Id;

impl Mux {
    /// Ends a batch that was not ended by its sender.
    pub(super) fn flush_batch(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get_mut(socket.0) {
            state.batch = None;
            self.push(socket);
        }
    }

    /// Gets what a socket has queued under way.
    pub(super) fn push(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket.0) else { return };
        if state.tx.is_empty() || state.is_tx_waiting {
            return;
        }
        match state.reserved {
            Some(id) => self.want_write(id),
            None => self.reserve(socket),
        }
    }

    /// Takes the first available connection for a socket, or puts the socket in line.
    fn reserve(&mut self, socket: SocketId) {
        while let Some(id) = self.available.pop_front() {
            let Some(state) = self.psocks.get_mut(id) else { continue };
            state.is_available = false;
            let is_free = state.reserved.is_none() && state.direct.is_empty() && !state.is_blocked;
            if is_free && !state.tx_stopped && state.ending.is_none() {
                return self.assign(id, socket);
            }
        }
        if let Some(state) = self.sockets.get_mut(socket.0)
            && !state.is_tx_waiting
        {
            state.is_tx_waiting = true;
            self.tx_line.push_back(socket);
        }
        if !self.told_no_psock && !self.has_path() {
            self.told_no_psock = true;
            self.say(Event::NoPsock);
        }
    }

    fn assign(&mut self, id: Id, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket.0) else { return };
        state.reserved = Some(id);
        state.is_tx_waiting = false;
        let Some(psock) = self.psocks.get_mut(id) else { return };
        psock.reserved = Some(socket);
        psock.stats.reserved += 1;
        (psock.quantum_messages, psock.quantum_bytes) = (0, 0);
        self.want_write(id);
    }

    /// Ends a reservation; the connection is not given to anybody.
    pub(super) fn unreserve(&mut self, id: Id) -> Option<SocketId> {
        let state = self.psocks.get_mut(id)?;
        let socket = state.reserved.take()?;
        state.stats.unreserved += 1;
        if state.current == Some(Source::Holder) {
            (state.current, state.offset) = (None, 0);
        }
        if let Some(holder) = self.sockets.get_mut(socket.0) {
            holder.reserved = None;
        }
        Some(socket)
    }

    /// Offers a connection to the first sender that waits, or to those to come.
    pub(super) fn make_available(&mut self, id: Id) {
        let Some(state) = self.psocks.get(id) else { return };
        let is_free = state.reserved.is_none() && state.direct.is_empty() && !state.is_blocked;
        let is_fit = !state.tx_stopped && state.ending.is_none() && !state.only_targeted;
        if !is_free || !is_fit || state.is_available {
            return;
        }
        while let Some(socket) = self.tx_line.pop_front() {
            let Some(waiting) = self.sockets.get_mut(socket.0) else { continue };
            waiting.is_tx_waiting = false;
            if !waiting.tx.is_empty() {
                return self.assign(id, socket);
            }
        }
        if let Some(state) = self.psocks.get_mut(id) {
            state.is_available = true;
            self.available.push_back(id);
        }
    }

    pub(super) fn want_write(&mut self, id: Id) {
        if let Some(state) = self.psocks.get_mut(id)
            && !state.in_writes
            && !state.is_blocked
            && !state.tx_stopped
        {
            state.in_writes = true;
            self.writes.push_back(id);
        }
    }

    /// Collects what a connection may be given: the rest of the message under way, then whole messages, up
    /// to about `most` bytes. Must be followed by [`Mux::stream_wrote`] or [`Mux::stream_error`].
    pub fn tx_slices(&mut self, psock: PsockId, most: usize, out: &mut Vec<Bytes>) -> usize {
        let (count, bytes) = (self.config.quantum_messages, self.config.quantum_bytes);
        let Some(state) = self.psocks.get_mut(psock.0) else { return 0 };
        if state.tx_stopped || !state.plan.is_empty() {
            return 0;
        }
        let holder = state.reserved.and_then(|socket| self.sockets.get(socket.0));
        let mut held = holder.map(|holder| holder.tx.iter()).into_iter().flatten();
        let mut direct = state.direct.iter();
        let (mut planned, mut offset) = (0, state.offset);
        let mut take = |source, message: &TxMessage, plan: &mut std::collections::VecDeque<Source>| {
            message.slices(offset, out);
            planned += message.len - offset;
            offset = 0;
            plan.push_back(source);
            planned
        };
        let mut total = 0;
        if state.current == Some(Source::Holder)
            && let Some(message) = held.next()
        {
            total = take(Source::Holder, message, &mut state.plan);
        }
        let mut quantum = (state.quantum_messages, state.quantum_bytes);
        while total < most {
            if let Some(message) = direct.next() {
                total = take(Source::Direct, message, &mut state.plan);
            } else if quantum.0 < count.max(1)
                && quantum.1 < bytes.max(1)
                && let Some(message) = held.next()
            {
                quantum = (quantum.0 + 1, quantum.1 + message.len);
                total = take(Source::Holder, message, &mut state.plan);
            } else {
                break;
            }
        }
        state.planned = total;
        total
    }

    /// The stream took `taken` bytes of what it was offered. If that was not all, it must say when there is
    /// room: [`Mux::stream_writable`].
    pub fn stream_wrote(&mut self, psock: PsockId, mut taken: usize, now: Instant) {
        let id = psock.0;
        self.clock = self.clock.max(now);
        let Some(state) = self.psocks.get_mut(id) else { return };
        let planned = std::mem::take(&mut state.planned);
        if state.plan.is_empty() {
            // The offer was withdrawn: its socket closed meanwhile, and the connection goes with it.
            state.stats.tx_bytes += taken as u64;
            return;
        }
        debug_assert!(taken <= planned, "a stream takes no more than it is offered");
        state.is_blocked = taken < planned;
        state.stats.tx_bytes += taken as u64;
        while let Some(state) = self.psocks.get_mut(id) {
            let Some(source) = state.plan.pop_front() else { break };
            let holder = state.reserved.and_then(|socket| self.sockets.get_mut(socket.0));
            let queue = match (source, holder) {
                (Source::Direct, _) => &mut state.direct,
                (Source::Holder, Some(holder)) => &mut holder.tx,
                (Source::Holder, None) => break,
            };
            let left = queue.front().map_or(0, |message| message.len - state.offset);
            if taken < left {
                if taken > 0 || state.offset > 0 {
                    state.offset += taken;
                    state.current = Some(source);
                }
                break;
            }
            taken -= left;
            (state.current, state.offset) = (None, 0);
            let Some(message) = queue.pop_front() else { break };
            state.stats.tx_msgs += message.count;
            if source == Source::Holder {
                state.quantum_messages += 1;
                state.quantum_bytes += message.len;
            }
            self.discharge(message.from, message.len);
        }
        if let Some(state) = self.psocks.get_mut(id) {
            state.plan.clear();
            if state.tx_stopping {
                return self.abort_tx(id, now);
            }
        }
        self.after_write(id);
    }

    /// At the end of a write: go on, pass the connection on, or give it back.
    pub(super) fn after_write(&mut self, id: Id) {
        let Some(state) = self.psocks.get(id) else { return };
        let is_inside = state.current == Some(Source::Holder);
        let has_more = state.reserved.and_then(|s| self.sockets.get(s.0)).is_some_and(|h| !h.tx.is_empty());
        let is_spent = state.quantum_messages >= self.config.quantum_messages
            || state.quantum_bytes >= self.config.quantum_bytes;
        let passes_on = (is_spent && !self.tx_line.is_empty()) || state.ending.is_some();
        if state.reserved.is_some() && !is_inside && (!has_more || passes_on) {
            let holder = self.unreserve(id);
            if has_more && let Some(holder) = holder {
                if state_is_ending(self, id) {
                    self.push(holder);
                } else {
                    self.wait_in_line(holder);
                }
            }
        } else if is_spent && let Some(state) = self.psocks.get_mut(id) {
            (state.quantum_messages, state.quantum_bytes) = (0, 0);
        }
        let Some(state) = self.psocks.get(id) else { return };
        if state.reserved.is_some() || !state.direct.is_empty() {
            self.want_write(id);
        }
        self.make_available(id);
        self.finish_closing();
    }

    fn wait_in_line(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get_mut(socket.0) {
            state.is_tx_waiting = true;
            self.tx_line.push_back(socket);
        }
    }

    /// There is room in a stream that had taken less than it was offered.
    pub fn stream_writable(&mut self, psock: PsockId) {
        let Some(state) = self.psocks.get_mut(psock.0) else { return };
        if !state.is_blocked {
            return;
        }
        state.is_blocked = false;
        if state.reserved.is_some() || !state.direct.is_empty() {
            self.want_write(psock.0);
        }
        self.make_available(psock.0);
    }

    /// The transmit side is broken: what was under way starts anew elsewhere, what was meant for this very
    /// connection is lost.
    pub(super) fn abort_tx(&mut self, id: Id, now: Instant) {
        let Some(state) = self.psocks.get_mut(id) else { return };
        if state.tx_stopped {
            return;
        }
        if !state.plan.is_empty() {
            state.tx_stopping = true;
            return;
        }
        state.tx_stopped = true;
        state.stats.tx_aborts += 1;
        self.clock = self.clock.max(now);
        self.leave_sender(id);
        self.fail_direct(id);
    }

    /// A write failed: nothing of what was offered was taken.
    pub fn write_failed(&mut self, psock: PsockId, code: Code, now: Instant) {
        if let Some(state) = self.psocks.get_mut(psock.0) {
            state.plan.clear();
            state.planned = 0;
        }
        self.stream_error(psock, code, now);
    }

    /// The holder of a connection that takes no more goes elsewhere.
    pub(super) fn leave_sender(&mut self, id: Id) {
        let Some(holder) = self.unreserve(id) else { return };
        if self.sockets.get(holder.0).is_some_and(|holder| !holder.tx.is_empty()) {
            self.stats.tx_retries += 1;
            self.push(holder);
        }
    }

    pub(super) fn fail_direct(&mut self, id: Id) {
        let Some(state) = self.psocks.get_mut(id) else { return };
        let mut lost = std::mem::take(&mut state.direct);
        lost.extend(std::mem::take(&mut state.replies).into_values().flatten());
        (state.current, state.offset) = (None, 0);
        for message in lost {
            match message.to {
                Target::Addr(addr) => {
                    self.stats.tx_retries += 1;
                    self.route(addr, message);
                }
                _ => self.undelivered(id, message),
            }
        }
    }

    /// The peer has closed its direction: no new sender gets this connection.
    pub(super) fn retire_tx(&mut self, id: Id) {
        let Some(state) = self.psocks.get(id) else { return };
        let is_inside = state.current == Some(Source::Holder) || state.plan.contains(&Source::Holder);
        if state.reserved.is_some()
            && !is_inside
            && let Some(holder) = self.unreserve(id)
        {
            self.push(holder);
        }
    }
}

fn state_is_ending(mux: &Mux, id: Id) -> bool {
    mux.psocks.get(id).is_none_or(|state| state.ending.is_some())
}
