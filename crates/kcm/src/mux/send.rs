//! Sending, as the application sees it: admission, pieces and batches, replies in order, addresses.

use bytes::Bytes;
use peyk_sansio::Instant;

use super::Mux;
use super::timer::Timer;
use crate::error::{Code, SendError};
use crate::event::{Event, PsockId, SendFlags, SocketId, Target};
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
    pub(super) fn has_path(&self) -> bool {
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
    pub(super) fn route(&mut self, addr: std::net::SocketAddr, message: TxMessage) {
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
    pub(super) fn discharge(&mut self, socket: SocketId, bytes: usize) {
        let low = self.config.send_buffer / 2;
        let Some(state) = self.sockets.get_mut(socket.0) else { return };
        state.tx_charged = state.tx_charged.saturating_sub(bytes);
        if state.wants_room && state.tx_charged <= low {
            state.wants_room = false;
            self.events.push_back(Event::Writable(socket));
        }
    }
}
