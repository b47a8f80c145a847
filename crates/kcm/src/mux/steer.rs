//! Which socket gets a message: the line of receivers, keys, the hold queue, connections that park.

use super::Mux;
use crate::assemble::compact;
use crate::config::Order;
use crate::event::{Event, Message, PsockId, Run, SocketId};
use crate::table::Id;

/// Messages of one connection that a socket takes in a row when several wait.
pub(super) const SHARE: usize = 16;

impl Mux {
    /// Hands a message to a socket, or gives it back if none takes it.
    pub(super) fn deliver(&mut self, id: Id, message: Message, quota: usize) -> Result<(), Message> {
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
            if self.is_served {
                let (lengths, from, number) =
                    (vec![message.bytes.len() as u32], message.from, message.number);
                self.wait_run(Run { bytes: message.bytes, lengths, from, number });
            } else {
                self.hold_message(message);
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
    pub(super) fn tell_line(&mut self) {
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
    pub(super) fn park(&mut self, id: Id, mut message: Message) {
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

    /// The sockets in line take what is held, equal shares in order, as long as they have room.
    pub(super) fn share_held(&mut self) {
        let line: Vec<SocketId> = self.rx_line.iter().copied().collect();
        let count = line.len();
        for (i, socket) in line.into_iter().enumerate() {
            self.take_held(socket, self.hold.len().div_ceil(count - i));
        }
    }
}
