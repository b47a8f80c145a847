//! From socket to stream: admission, reservation, writing, retry.

use bytes::Bytes;
use peyk_sansio::Instant;

use super::Mux;
use super::timer::Timer;
use crate::error::{Code, SendError};
use crate::event::{Event, PsockId, SendFlags, SocketId, Target};
use crate::psock::Source;
use crate::socket::TxMessage;
use crate::table::Id;

impl Mux {
    /// Takes a message, or a piece of one. Returns its bytes.
    ///
    /// # Errors
    /// The buffer is full, the message too long, or its target gone; then nothing of this piece was taken.
    pub fn send(
        &mut self,
        socket: SocketId,
        data: Bytes,
        flags: SendFlags,
        now: Instant,
    ) -> Result<usize, SendError> {
        self.clock = self.clock.max(now);
        self.admit(socket, data.len(), flags)?;
        let is_seqpacket = self.is_seqpacket();
        let state = self.sockets.get_mut(socket.0).ok_or(SendError::Closed)?;
        let (len, is_empty) = (data.len(), data.is_empty());
        if is_empty && state.open.is_none() {
            return Ok(0);
        }
        let open = state.open.get_or_insert_with(|| TxMessage::new(socket, flags.to));
        if !is_empty {
            open.parts.push(data);
            open.len += len;
            state.tx_charged += len;
            state.stats.tx_bytes += len as u64;
        }
        let ends = if is_seqpacket { flags.end } else { !flags.more };
        if ends {
            self.end_message(socket, flags.batch, now);
        }
        Ok(len)
    }

    /// Takes `count` whole messages for one connection in one piece; they are not bounded by the send buffer.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_joined(
        &mut self,
        socket: SocketId,
        psock: PsockId,
        data: Bytes,
        count: u64,
    ) -> Result<(), SendError> {
        let is_there = self.psocks.get(psock.0).is_some_and(|psock| !psock.tx_stopped);
        let state = self.sockets.get_mut(socket.0).ok_or(SendError::Closed)?;
        if !is_there {
            return Err(SendError::Gone);
        }
        let mut message = TxMessage::new(socket, Target::Psock(psock));
        (message.len, message.count) = (data.len(), count);
        state.tx_charged += data.len();
        state.stats.tx_msgs += count;
        state.stats.tx_bytes += data.len() as u64;
        message.parts.push(data);
        self.push_direct(psock.0, message);
        Ok(())
    }

    /// Takes the whole reply to message `number` of a connection; it is not bounded by the send buffer, but
    /// by the window of requests.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_reply(
        &mut self,
        socket: SocketId,
        psock: PsockId,
        number: u64,
        data: Bytes,
        now: Instant,
    ) -> Result<(), SendError> {
        self.clock = self.clock.max(now);
        let is_there = self.psocks.get(psock.0).is_some_and(|psock| !psock.tx_stopped);
        let state = self.sockets.get_mut(socket.0).ok_or(SendError::Closed)?;
        if !is_there {
            return Err(SendError::Gone);
        }
        let mut message = TxMessage::new(socket, Target::Reply(psock, number));
        message.len = data.len();
        state.tx_charged += data.len();
        state.stats.tx_msgs += 1;
        state.stats.tx_bytes += data.len() as u64;
        message.parts.push(data);
        self.reply(psock, number, Some(message));
        Ok(())
    }

    /// Takes the pieces of one message from where they may fail to be read: a file, foreign memory. When one
    /// fails, a datagram is dropped whole; of a sequenced packet what was read stays, and its length is the
    /// answer if it is not 0.
    ///
    /// # Errors
    /// Those of [`Mux::send`], or that of the source.
    pub fn send_pieces<E>(
        &mut self,
        socket: SocketId,
        pieces: impl IntoIterator<Item = Result<Bytes, E>>,
        flags: SendFlags,
        now: Instant,
    ) -> Result<usize, Result<SendError, E>> {
        let mut taken = 0;
        for piece in pieces {
            let open = SendFlags { more: true, end: false, ..flags };
            let outcome = piece.map_err(Err).and_then(|p| self.send(socket, p, open, now).map_err(Ok));
            match outcome {
                Ok(len) => taken += len,
                Err(_) if self.is_seqpacket() && taken > 0 => return Ok(taken),
                Err(error) => {
                    if !self.is_seqpacket() {
                        self.drop_open(socket);
                    }
                    return Err(error);
                }
            }
        }
        self.send(socket, Bytes::new(), flags, now).map_err(Ok)?;
        Ok(taken)
    }

    /// Takes several messages: `sendmmsg`. All but the last form a batch. Returns how many were taken.
    ///
    /// # Errors
    /// The first was not taken.
    pub fn send_batch(
        &mut self,
        socket: SocketId,
        messages: impl IntoIterator<Item = Bytes>,
        flags: SendFlags,
        now: Instant,
    ) -> Result<usize, SendError> {
        let mut messages = messages.into_iter().peekable();
        let mut count = 0;
        while let Some(message) = messages.next() {
            let batch = flags.batch || messages.peek().is_some();
            match self.send(socket, message, SendFlags { end: true, batch, ..flags }, now) {
                Ok(_) => count += 1,
                Err(error) if count == 0 => return Err(error),
                Err(_) => {
                    self.flush_batch(socket);
                    break;
                }
            }
        }
        Ok(count)
    }

    /// Whether this much may be taken.
    fn admit(&mut self, socket: SocketId, len: usize, flags: SendFlags) -> Result<(), SendError> {
        let (limit, longest) = (self.config.send_buffer, self.config.max_message);
        let is_seqpacket = self.is_seqpacket();
        let state = self.sockets.get_mut(socket.0).ok_or(SendError::Closed)?;
        if state.closing.is_some() {
            return Err(SendError::Closed);
        }
        if let Some(code) = state.error.take() {
            return Err(SendError::Earlier(code));
        }
        if state.open.as_ref().map_or(0, |open| open.len) + len > longest {
            if !is_seqpacket {
                self.drop_open(socket);
            }
            return Err(SendError::TooBig);
        }
        // The charge of the open message does not count: it could never be completed.
        let queued = state.tx_charged - state.open.as_ref().map_or(0, |open| open.len);
        if queued >= limit && len > 0 {
            state.wants_room = true;
            self.flush_batch(socket);
            return Err(SendError::WouldBlock);
        }
        if state.open.is_some() {
            return Ok(());
        }
        match flags.to {
            Target::Psock(psock) | Target::Reply(psock, _) => {
                let is_there = self.psocks.get(psock.0).is_some_and(|psock| !psock.tx_stopped);
                if is_there { Ok(()) } else { Err(SendError::Gone) }
            }
            Target::Any if self.config.fail_fast && !self.has_path() => Err(SendError::NoPsock),
            _ => Ok(()),
        }
    }

    /// Whether some connection could take a message for any.
    fn has_path(&self) -> bool {
        let is_path =
            |psock: &crate::psock::Psock| !psock.tx_stopped && psock.ending.is_none() && !psock.only_targeted;
        self.psocks.iter().any(|(_, psock)| is_path(psock))
    }

    fn drop_open(&mut self, socket: SocketId) {
        if let Some(state) = self.sockets.get_mut(socket.0)
            && let Some(open) = state.open.take()
        {
            state.tx_charged -= open.len;
        }
    }

    fn end_message(&mut self, socket: SocketId, batch: bool, now: Instant) {
        let Some(state) = self.sockets.get_mut(socket.0) else { return };
        let Some(message) = state.open.take() else { return };
        state.stats.tx_msgs += 1;
        match message.to {
            Target::Any => {
                state.tx.push_back(message);
                if !batch {
                    state.batch = None;
                    return self.push(socket);
                }
                if state.batch.is_none() && state.reserved.is_none() {
                    let at = now + self.config.batch_delay;
                    state.batch = Some(at);
                    self.timers.insert(at, Timer::Batch(socket));
                }
            }
            Target::Psock(psock) => self.push_direct(psock.0, message),
            Target::Reply(psock, number) => self.reply(psock, number, Some(message)),
            Target::Addr(addr) => self.route(addr, message),
        }
    }

    /// Says that message `number` of a connection gets no reply, so that later replies need not wait.
    pub fn skip_reply(&mut self, psock: PsockId, number: u64) {
        self.reply(psock, number, None);
    }

    fn reply(&mut self, psock: PsockId, number: u64, message: Option<TxMessage>) {
        let Some(state) = self.psocks.get_mut(psock.0) else { return };
        if number < state.next_reply || number >= state.next_number {
            // Answered already, or never asked.
            if let Some(message) = message {
                self.undelivered(psock.0, message);
            }
            return;
        }
        state.replies.insert(number, message);
        while let Some(state) = self.psocks.get_mut(psock.0) {
            let next = state.next_reply;
            let Some(reply) = state.replies.remove(&next) else { break };
            state.next_reply += 1;
            if let Some(message) = reply {
                self.push_direct(psock.0, message);
            }
        }
        // The window has moved.
        if self.psocks.get(psock.0).is_some_and(|state| state.parked.is_some() || state.backlog_len > 0) {
            self.pump(psock.0, usize::MAX, self.clock);
            self.end_pass(psock.0);
            self.note_resumed(psock.0);
        }
    }

    /// Sends to an address: over the connection there with the least to do.
    fn route(&mut self, addr: std::net::SocketAddr, message: TxMessage) {
        let there = self.by_addr.get(&addr).into_iter().flatten();
        let usable = there.filter_map(|id| {
            let psock = self.psocks.get(*id).filter(|psock| !psock.tx_stopped && psock.ending.is_none())?;
            Some((*id, psock.direct.len()))
        });
        match usable.min_by_key(|(_, waiting)| *waiting).map(|(id, _)| id) {
            Some(id) => self.push_direct(id, message),
            None => {
                let waiting = self.unrouted.entry(addr).or_default();
                waiting.push_back(message);
                if waiting.len() == 1 {
                    self.say(Event::Connect(addr));
                }
            }
        }
    }

    /// No connection could be made: the messages that wait for one are dropped, and their senders told by
    /// the next send.
    pub fn connect_failed(&mut self, addr: std::net::SocketAddr, code: Code) {
        for message in self.unrouted.remove(&addr).unwrap_or_default() {
            if let Some(state) = self.sockets.get_mut(message.from.0) {
                state.error = Some(code);
            }
            self.discharge(message.from, message.len);
        }
    }

    pub(super) fn push_direct(&mut self, id: Id, message: TxMessage) {
        match self.psocks.get_mut(id) {
            Some(state) if !state.tx_stopped => {
                state.direct.push_back(message);
                self.want_write(id);
            }
            _ => self.undelivered(id, message),
        }
    }

    pub(super) fn undelivered(&mut self, id: Id, message: TxMessage) {
        let socket = message.from;
        self.discharge(socket, message.len);
        if self.sockets.get(socket.0).is_some() {
            self.say(Event::Undelivered { socket, psock: PsockId(id) });
        }
    }

    /// Gives a socket room back.
    fn discharge(&mut self, socket: SocketId, bytes: usize) {
        let low = self.config.send_buffer / 2;
        let Some(state) = self.sockets.get_mut(socket.0) else { return };
        state.tx_charged = state.tx_charged.saturating_sub(bytes);
        if state.wants_room && state.tx_charged <= low {
            state.wants_room = false;
            self.events.push_back(Event::Writable(socket));
        }
    }

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

    fn want_write(&mut self, id: Id) {
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
    fn after_write(&mut self, id: Id) {
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
