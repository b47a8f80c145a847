//! From stream to socket: passes, steering, parking, holding.

use bytes::Bytes;
use peyk_sansio::Instant;

use super::Mux;
use crate::assemble::{Limits, Step, compact};
use crate::config::{Order, Reenter};
use crate::error::{Code, RecvError};
use crate::event::{Cause, Event, Message, PsockId, Received, SocketId, WantRead};
use crate::psock::Psock;
use crate::table::Id;

/// Messages of one connection that a socket takes in a row when several wait.
const SHARE: usize = 16;

impl Mux {
    /// Bytes came over a connection. The chunk is one pass: its messages go to one socket while that has
    /// room.
    pub fn stream_bytes(&mut self, psock: PsockId, chunk: Bytes, now: Instant) {
        let Some(state) = self.psocks.get_mut(psock.0) else { return };
        if state.ending.is_some() || chunk.is_empty() {
            return;
        }
        self.clock = self.clock.max(now);
        self.used += chunk.len();
        state.backlog_len += chunk.len();
        state.backlog.push_back(chunk);
        self.pump(psock.0, usize::MAX, now);
        self.end_pass(psock.0);
    }

    /// The peer closed its direction.
    pub fn stream_eof(&mut self, psock: PsockId, now: Instant) {
        self.end_stream(psock, Cause::Eof, now);
    }

    /// Reading failed: nothing more will come, and nothing more will be taken.
    pub fn stream_error(&mut self, psock: PsockId, code: Code, now: Instant) {
        self.abort_tx(psock.0, now);
        self.end_stream(psock, Cause::Io(code), now);
    }

    /// Its owner gave the stream away.
    pub fn stream_dropped(&mut self, psock: PsockId, now: Instant) {
        self.abort_tx(psock.0, now);
        self.end_stream(psock, Cause::Dropped, now);
    }

    fn end_stream(&mut self, psock: PsockId, cause: Cause, now: Instant) {
        let Some(state) = self.psocks.get_mut(psock.0) else { return };
        if state.ending.is_some() {
            return;
        }
        state.ending = Some(cause);
        self.retire_tx(psock.0);
        self.pump(psock.0, usize::MAX, now);
        self.end_pass(psock.0);
    }

    /// Whether a connection is to be read, and from how many bytes on.
    pub fn want_read(&self, psock: PsockId) -> WantRead {
        let Some(state) = self.psocks.get(psock.0) else { return WantRead::Stopped };
        if state.ending.is_some() {
            return WantRead::Stopped;
        }
        let pauses = state.parked.is_some() || state.backlog_len > 0 || state.is_starved || state.is_lent;
        if pauses { WantRead::Paused } else { WantRead::Min(state.assembler.missing()) }
    }

    /// Parses what is there and delivers it, at most `quota` messages.
    pub(super) fn pump(&mut self, id: Id, mut quota: usize, now: Instant) {
        while let Some(state) = self.psocks.get_mut(id) {
            if state.is_lent {
                return;
            }
            if let Some(message) = state.parked.take() {
                if let Err(message) = self.deliver(id, message, quota) {
                    return self.park(id, message);
                }
                quota = quota.saturating_sub(1);
                continue;
            }
            let Some(chunk) = state.backlog.front_mut() else { break };
            let limits =
                Limits { max_message: self.config.max_message, timeout: self.config.assembly_timeout, now };
            let before = chunk.len();
            let step = state.assembler.next(chunk, limits, &mut state.stats);
            let taken = before - chunk.len();
            let is_empty = chunk.is_empty();
            state.backlog_len -= taken;
            if is_empty {
                state.backlog.pop_front();
            }
            match step {
                Step::Message(bytes, meta) => {
                    let number = state.next_number;
                    state.next_number += 1;
                    let addr = state.addr;
                    let message = Message { bytes, from: PsockId(id), addr, meta, number };
                    if let Err(message) = self.deliver(id, message, quota) {
                        return self.park(id, message);
                    }
                    quota = quota.saturating_sub(1);
                }
                Step::More => {
                    self.arm_assembly(id);
                    self.check_memory(id);
                }
                Step::Failed(error) => return self.fail_frame(id, error),
            }
        }
        self.finish_ending(id, now);
    }

    /// What came is no message: the receive side stops for good.
    fn fail_frame(&mut self, id: Id, error: crate::error::FrameError) {
        let Some(state) = self.psocks.get_mut(id) else { return };
        let rest = state.backlog.front().cloned().unwrap_or_default();
        let (first, first_len) = state.assembler.first(&rest);
        let cause = match error.code {
            Code::STRPIPE => Cause::HandBack,
            _ => Cause::Frame { error, offset: state.assembler.offset, first, first_len },
        };
        // Bytes that were read stay for whoever gets the stream back.
        let is_handed_back = error.code == Code::STRPIPE;
        state.ending = Some(cause);
        if !is_handed_back {
            state.stats.rx_aborts += 1;
            self.used -= state.backlog_len + state.assembler.have();
            state.backlog.clear();
            state.backlog_len = 0;
            state.assembler.take_partial();
        }
        self.retire_tx(id);
        self.announce_down(id);
    }

    /// After the last message of a stream that has ended.
    fn finish_ending(&mut self, id: Id, _now: Instant) {
        let Some(state) = self.psocks.get_mut(id) else { return };
        if state.is_down || state.parked.is_some() || state.backlog_len > 0 {
            return;
        }
        let Some(cause) = &mut state.ending else { return };
        if state.assembler.have() > 0 {
            state.stats.rx_truncated += 1;
            let (have, need) = (state.assembler.have(), state.assembler.total());
            if *cause == Cause::Eof {
                *cause = Cause::Truncated { have, need };
            }
            self.used -= state.assembler.take_partial().len();
        }
        self.announce_down(id);
    }

    pub(super) fn announce_down(&mut self, id: Id) {
        let Some(state) = self.psocks.get_mut(id) else { return };
        let Some(cause) = state.ending else { return };
        if !state.is_down {
            state.is_down = true;
            let tx_unsent = state.unsent();
            self.say(Event::PsockDown { psock: PsockId(id), cause, tx_unsent });
        }
    }

    /// Hands a message to a socket, or gives it back if none takes it.
    fn deliver(&mut self, id: Id, message: Message, quota: usize) -> Result<(), Message> {
        let Some(state) = self.psocks.get(id) else { return Err(message) };
        if quota == 0 {
            return Err(message);
        }
        if self.config.order == Order::Replies
            && message.number >= state.next_reply + self.config.reply_window as u64
        {
            return Err(message);
        }
        let keeps_order = self.keeps_connection_order();
        if self.is_pull() && !keeps_order {
            if self.hold_len >= self.config.receive_buffer.saturating_mul(self.sockets.len().max(1)) {
                return Err(message);
            }
            self.hold_message(message);
            if !self.is_served {
                self.tell_line();
            }
            return Ok(());
        }
        let Some(socket) = self.choose(id, &message) else { return Err(message) };
        if keeps_order && let Some(state) = self.psocks.get_mut(id) {
            state.outstanding += 1;
        }
        self.queue_at(socket, message);
        Ok(())
    }

    /// The socket for a message: the one bound to the pass, the one of its key, or the next in line.
    fn choose(&mut self, id: Id, message: &Message) -> Option<SocketId> {
        let limit = self.config.receive_buffer;
        let state = self.psocks.get(id)?;
        if self.keeps_connection_order() && state.outstanding > 0 {
            // Until all are handled, only the socket that handles them may have more.
            let bound = state.bound.filter(|_| state.held == 0)?;
            return self.sockets.get(bound.0)?.has_room(limit).then_some(bound);
        }
        let by_key = self.config.order == Order::Key
            || (self.config.order == Order::Checked && message.meta.key.is_some());
        if by_key
            && let Some(key) = message.meta.key
            && let Some(socket) = self.by_key(key)
        {
            return Some(socket);
        }
        let state = self.psocks.get(id)?;
        if let Some(bound) = state.bound
            && self.sockets.get(bound.0).is_some_and(|socket| socket.has_room(limit))
        {
            return Some(bound);
        }
        self.unbind(id);
        while let Some(next) = self.rx_line.pop_front() {
            let Some(socket) = self.sockets.get_mut(next.0) else { continue };
            socket.in_line = false;
            if !socket.has_room(limit) {
                continue;
            }
            socket.bound = Some(PsockId(id));
            if let Some(state) = self.psocks.get_mut(id) {
                state.bound = Some(next);
            }
            return Some(next);
        }
        None
    }

    /// The enabled socket of a key, if it has room.
    fn by_key(&self, key: u32) -> Option<SocketId> {
        let is_enabled = |socket: &crate::socket::Socket| !socket.is_disabled && socket.closing.is_none();
        let count = self.sockets.iter().filter(|(_, socket)| is_enabled(socket)).count();
        // Spreads keys that differ in their upper bits only.
        let mixed = (u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let mut enabled = self.sockets.iter().filter(|(_, socket)| is_enabled(socket));
        let (id, socket) = enabled.nth(mixed % count.max(1))?;
        socket.has_room(self.config.receive_buffer).then_some(SocketId(id))
    }

    pub(super) fn queue_at(&mut self, socket: SocketId, message: Message) {
        let limit = self.config.receive_buffer;
        let Some(state) = self.sockets.get_mut(socket.0) else { return };
        state.charged += message.bytes.len();
        state.is_full = state.charged >= limit;
        state.queue.push_back(message);
        if !state.was_told {
            state.was_told = true;
            self.events.push_back(Event::Readable(socket));
        }
    }

    /// In pull mode any socket may come for a message: tells one that has not been told.
    fn tell_line(&mut self) {
        for _ in 0..self.rx_line.len() {
            let Some(next) = self.rx_line.pop_front() else { return };
            self.rx_line.push_back(next);
            if let Some(socket) = self.sockets.get_mut(next.0)
                && !socket.was_told
            {
                socket.was_told = true;
                return self.events.push_back(Event::Readable(next));
            }
        }
    }

    pub(super) fn hold_message(&mut self, message: Message) {
        self.hold_len += message.bytes.len();
        self.hold.push_back(message);
    }

    /// After a pass: makes waiting messages independent of the chunk they came in, `pinned` bytes long.
    pub fn settle(&mut self, pinned: usize) {
        for message in self.hold.iter_mut().skip(self.hold_compact) {
            compact(&mut message.bytes, pinned);
        }
        self.hold_compact = self.hold.len();
    }

    /// Nobody takes the message: it waits at its connection, which is not read until it is gone.
    fn park(&mut self, id: Id, mut message: Message) {
        let Some(state) = self.psocks.get_mut(id) else { return };
        compact(&mut message.bytes, usize::MAX);
        state.parked = Some(message);
        if !state.in_ready {
            state.in_ready = true;
            self.ready.push_back(id);
        }
    }

    /// Lets the socket of a pass go back into the line. In connection order it stays while it has messages.
    pub(super) fn end_pass(&mut self, id: Id) {
        let keeps =
            self.keeps_connection_order() && self.psocks.get(id).is_some_and(|state| state.outstanding > 0);
        if keeps {
            let bound = self.psocks.get(id).and_then(|state| state.bound);
            if let Some(bound) = bound {
                if let Some(socket) = self.sockets.get_mut(bound.0) {
                    socket.bound = None;
                }
                self.enter_line(bound);
            }
            return;
        }
        self.unbind(id);
    }

    pub(super) fn unbind(&mut self, id: Id) {
        let Some(bound) = self.psocks.get_mut(id).and_then(|state| state.bound.take()) else { return };
        if let Some(socket) = self.sockets.get_mut(bound.0) {
            socket.bound = None;
            self.enter_line(bound);
        }
    }

    /// Puts a socket at the end of the line, if it may receive and is not there.
    pub(super) fn enter_line(&mut self, id: SocketId) {
        let limit = self.config.receive_buffer;
        if let Some(socket) = self.sockets.get_mut(id.0)
            && socket.has_room(limit)
            && !socket.in_line
            && socket.bound.is_none()
        {
            socket.in_line = true;
            self.rx_line.push_back(id);
        }
    }

    pub(super) fn leave_line(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id.0)
            && std::mem::take(&mut socket.in_line)
        {
            self.rx_line.retain(|other| *other != id);
        }
    }

    /// A socket takes messages (again): first from the hold queue, then from connections that wait, no more
    /// than its share while others take part.
    pub(super) fn refill(&mut self, id: SocketId) {
        self.enter_line(id);
        if self.hold.is_empty() && self.ready.is_empty() {
            return;
        }
        let enabled = self.sockets.iter().filter(|(_, socket)| !socket.is_disabled).count().max(1);
        if !self.is_pull() {
            let share = self.hold.len().div_ceil(enabled);
            self.take_held(id, share);
        }
        // One turn for each connection that waits, and no more: a flood must not keep the others out.
        for _ in 0..self.ready.len().div_ceil(enabled) {
            let limit = self.config.receive_buffer;
            if !self.sockets.get(id.0).is_some_and(|socket| socket.has_room(limit)) {
                return;
            }
            let Some(psock) = self.ready.pop_front() else { return };
            let Some(state) = self.psocks.get_mut(psock) else { continue };
            state.in_ready = false;
            self.pump(psock, SHARE, self.clock);
            self.end_pass(psock);
            self.note_resumed(psock);
        }
    }

    /// Moves up to `share` messages from the hold queue to a socket.
    fn take_held(&mut self, id: SocketId, share: usize) {
        let limit = self.config.receive_buffer;
        let (mut at, mut taken) = (0, 0);
        while taken < share && at < self.hold.len() {
            if !self.sockets.get(id.0).is_some_and(|socket| socket.has_room(limit)) {
                return;
            }
            let from = self.hold[at].from;
            if self.keeps_connection_order()
                && let Some(state) = self.psocks.get_mut(from.0)
            {
                // Somebody handles one of its messages: only he may have the next.
                if state.outstanding > state.held && state.bound != Some(id) {
                    at += 1;
                    continue;
                }
                // What nobody else may have is no part of the share.
                taken -= usize::from(state.bound == Some(id) && taken > 0);
                state.bound = Some(id);
                state.held = state.held.saturating_sub(1);
            }
            let Some(message) = self.hold.remove(at) else { return };
            self.hold_len -= message.bytes.len();
            self.hold_compact = self.hold_compact.saturating_sub(1);
            self.queue_at(id, message);
            taken += 1;
        }
    }

    /// Says that a connection may be read, if it may.
    pub(super) fn note_resumed(&mut self, id: Id) {
        if matches!(self.want_read(PsockId(id)), WantRead::Min(_)) {
            self.resumed.push_back(id);
        }
    }

    /// Reading stops while the mux holds too much.
    fn check_memory(&mut self, id: Id) {
        if self.used < self.config.memory {
            return;
        }
        if let Some(state) = self.psocks.get_mut(id)
            && !state.is_starved
        {
            state.is_starved = true;
            state.stats.rx_mem_fail += 1;
            self.starved.push_back(id);
        }
    }

    pub(super) fn release_memory(&mut self, bytes: usize) {
        self.used -= bytes;
        if self.used < self.config.memory - self.config.memory / 4 {
            while let Some(id) = self.starved.pop_front() {
                if let Some(state) = self.psocks.get_mut(id) {
                    state.is_starved = false;
                    self.note_resumed(id);
                }
            }
        }
    }

    /// Takes the next message whole.
    ///
    /// # Errors
    /// There is none, or the socket is closed.
    pub fn recv_message(&mut self, socket: SocketId) -> Result<Message, RecvError> {
        self.next_message(socket)?;
        let state = self.sockets.get_mut(socket.0).ok_or(RecvError::Closed)?;
        let (mut message, at) = state.reading.take().ok_or(RecvError::WouldBlock)?;
        let _ = message.bytes.split_to(at);
        state.stats.rx_msgs += 1;
        state.stats.rx_bytes += message.bytes.len() as u64;
        self.after_read(socket, message.bytes.len());
        Ok(message)
    }

    /// Takes up to `most` messages from the shared queue, for a worker with this socket; connections that had
    /// to wait for room in the queue go on.
    pub fn take_waiting(&mut self, socket: SocketId, most: usize, mut take: impl FnMut(Message)) {
        let (mut count, mut bytes) = (0, 0);
        while count < most {
            let Some(message) = self.hold.pop_front() else { break };
            (count, bytes) = (count + 1, bytes + message.bytes.len());
            take(message);
        }
        if count > 0 {
            self.hold_len -= bytes;
            self.hold_compact = self.hold_compact.saturating_sub(count);
            if let Some(state) = self.sockets.get_mut(socket.0) {
                state.stats.rx_msgs += count as u64;
                state.stats.rx_bytes += bytes as u64;
            }
            self.release_memory(bytes);
        }
        if !self.ready.is_empty() && self.hold.is_empty() {
            self.refill(socket);
        }
    }

    /// Takes up to `most` whole messages at once: `recvmmsg`. Returns how many.
    ///
    /// # Errors
    /// There is none, or the socket is closed.
    pub fn recv_batch(
        &mut self,
        socket: SocketId,
        most: usize,
        out: &mut Vec<Message>,
    ) -> Result<usize, RecvError> {
        let before = out.len();
        while out.len() - before < most {
            match self.recv_message(socket) {
                Ok(message) => out.push(message),
                Err(error) if out.len() == before => return Err(error),
                Err(_) => break,
            }
        }
        Ok(out.len() - before)
    }

    /// Receives as the system call does: at most `max` bytes of one message. With `peek` nothing is taken.
    ///
    /// # Errors
    /// There is none, or the socket is closed.
    pub fn recv(&mut self, socket: SocketId, max: usize, peek: bool) -> Result<Received, RecvError> {
        self.next_message(socket)?;
        let is_seqpacket = self.is_seqpacket();
        let state = self.sockets.get_mut(socket.0).ok_or(RecvError::Closed)?;
        let (message, at) = state.reading.as_mut().ok_or(RecvError::WouldBlock)?;
        let left = message.bytes.len() - *at;
        let count = left.min(max);
        let bytes = message.bytes.slice(*at..*at + count);
        let is_whole = count == left;
        let (from, number) = (message.from, message.number);
        let received = Received {
            bytes,
            is_end: is_whole || !is_seqpacket,
            is_truncated: !is_whole && !is_seqpacket,
            from,
            number,
        };
        if peek {
            return Ok(received);
        }
        state.stats.rx_bytes += count as u64;
        if is_whole || !is_seqpacket {
            state.stats.rx_msgs += 1;
            state.reading = None;
            self.after_read(socket, left);
        } else {
            *at += count;
            self.after_read(socket, count);
        }
        Ok(received)
    }

    /// Makes sure that a message is being read.
    fn next_message(&mut self, socket: SocketId) -> Result<(), RecvError> {
        let state = self.sockets.get_mut(socket.0).ok_or(RecvError::Closed)?;
        if state.closing.is_some() {
            return Err(RecvError::Closed);
        }
        if state.reading.is_some() {
            return Ok(());
        }
        if let Some(served) = state.serving.take() {
            self.release_order(served);
        }
        if self.sockets.get(socket.0).is_some_and(|state| state.queue.is_empty()) {
            self.refill(socket);
        }
        let (is_pull, keeps_order) = (self.is_pull(), self.keeps_connection_order());
        let state = self.sockets.get_mut(socket.0).ok_or(RecvError::Closed)?;
        let mut next = state.queue.pop_front();
        if next.is_none() && is_pull && !state.is_disabled {
            next = self.hold.pop_front();
            if let Some(message) = &next {
                self.hold_len -= message.bytes.len();
                self.hold_compact = self.hold_compact.saturating_sub(1);
                if let Some(state) = self.sockets.get_mut(socket.0) {
                    state.charged += message.bytes.len();
                }
            }
        }
        let state = self.sockets.get_mut(socket.0).ok_or(RecvError::Closed)?;
        let Some(message) = next else {
            state.was_told = false;
            if self.config.fail_fast && !self.psocks.iter().any(|(_, psock)| psock.ending.is_none()) {
                return Err(RecvError::NoPsock);
            }
            return Err(RecvError::WouldBlock);
        };
        if keeps_order {
            state.serving = Some(message.from);
        }
        state.reading = Some((message, 0));
        Ok(())
    }

    /// A message that was delivered in connection order has been handled. If it was the last, the next may
    /// go to any socket.
    pub(super) fn release_order(&mut self, psock: PsockId) {
        let Some(state) = self.psocks.get_mut(psock.0) else { return };
        state.outstanding = state.outstanding.saturating_sub(1);
        if state.outstanding > state.held {
            return;
        }
        state.bound = None;
        if state.held > 0 {
            self.share_held();
        } else if state.parked.is_some() {
            self.pump(psock.0, SHARE, self.clock);
            self.end_pass(psock.0);
            self.note_resumed(psock.0);
        }
    }

    /// The sockets in line take what is held, equal shares in order, as long as they have room.
    fn share_held(&mut self) {
        let line: Vec<SocketId> = self.rx_line.iter().copied().collect();
        let count = line.len();
        for (i, socket) in line.into_iter().enumerate() {
            self.take_held(socket, self.hold.len().div_ceil(count - i));
        }
    }

    /// Bytes left a socket: memory is free, and the socket may take messages again.
    fn after_read(&mut self, socket: SocketId, bytes: usize) {
        let limit = self.config.receive_buffer;
        let reenter = self.config.reenter;
        if let Some(state) = self.sockets.get_mut(socket.0) {
            state.charged -= bytes;
            let mark = if reenter == Reenter::Half { limit / 2 } else { 0 };
            if state.is_full && state.charged <= mark {
                state.is_full = false;
            }
        }
        self.release_memory(bytes);
        self.enter_line(socket);
        if !self.ready.is_empty() && self.sockets.get(socket.0).is_some_and(|state| state.queue.is_empty()) {
            self.refill(socket);
        }
    }

    /// `KCM_RECV_DISABLE`: a disabled socket is given no messages, and those queued at it go to others.
    pub fn set_recv_disable(&mut self, socket: SocketId, disable: bool) -> Result<(), RecvError> {
        let state = self.sockets.get_mut(socket.0).ok_or(RecvError::Closed)?;
        if state.is_disabled == disable {
            return Ok(());
        }
        state.is_disabled = disable;
        if disable {
            self.leave_line(socket);
            self.requeue(socket);
        } else {
            self.refill(socket);
        }
        Ok(())
    }

    /// Whether it is disabled.
    pub fn recv_disabled(&self, socket: SocketId) -> Option<bool> {
        self.sockets.get(socket.0).map(|state| state.is_disabled)
    }

    /// Moves all queued messages of a socket to others or to the hold queue, in order.
    pub(super) fn requeue(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(socket.0) else { return };
        let queue = std::mem::take(&mut state.queue);
        let bound = state.bound.take();
        let moved: usize = queue.iter().map(|message| message.bytes.len()).sum();
        state.charged -= moved;
        state.is_full = false;
        state.was_told = state.reading.is_some();
        if let Some(psock) = bound
            && let Some(psock) = self.psocks.get_mut(psock.0)
        {
            psock.bound = None;
        }
        let mut held = Vec::with_capacity(queue.len());
        for message in queue {
            if self.keeps_connection_order()
                && let Some(psock) = self.psocks.get_mut(message.from.0)
            {
                psock.held += 1;
            }
            held.push(message);
        }
        if self.keeps_connection_order() {
            // They are older than whatever is held of the same connections.
            for mut message in held.into_iter().rev() {
                compact(&mut message.bytes, usize::MAX);
                self.hold_len += message.bytes.len();
                self.hold_compact += 1;
                self.hold.push_front(message);
            }
        } else {
            held.into_iter().for_each(|message| self.hold_message(message));
        }
        if self.keeps_connection_order() {
            for id in self.psocks.ids() {
                if let Some(psock) = self.psocks.get_mut(id)
                    && psock.bound == Some(socket)
                {
                    psock.bound = None;
                }
            }
        } else if self.is_pull() {
            return self.tell_line();
        }
        self.share_held();
    }

    /// Lends the memory of a long message in assembly, so that the stream can be read right into it. While
    /// it is lent, the connection is neither parsed nor to be read by others.
    pub fn lend(&mut self, psock: PsockId, least: usize) -> Option<(bytes::BytesMut, usize)> {
        let state: &mut Psock = self.psocks.get_mut(psock.0)?;
        if state.parked.is_some() || state.backlog_len > 0 || state.ending.is_some() || state.is_lent {
            return None;
        }
        let lent = state.assembler.lend(least)?;
        state.is_lent = true;
        Some(lent)
    }

    /// Takes lent memory back, `read` bytes longer.
    pub fn give_back(&mut self, psock: PsockId, memory: bytes::BytesMut, read: usize, now: Instant) {
        let Some(state) = self.psocks.get_mut(psock.0) else { return };
        state.is_lent = false;
        self.used += read;
        if let Some(Step::Message(bytes, meta)) = state.assembler.give_back(memory, read, &mut state.stats) {
            let number = state.next_number;
            state.next_number += 1;
            state.parked = Some(Message { bytes, from: psock, addr: state.addr, meta, number });
        }
        self.pump(psock.0, usize::MAX, now);
        self.end_pass(psock.0);
    }
}
