//! Receiving, as the application sees it: whole messages, pieces, and sockets that do not want any.

use super::Mux;
use super::steer::SHARE;
use crate::assemble::compact;
use crate::config::Reenter;
use crate::error::RecvError;
use crate::event::{Message, PsockId, Received, SocketId};

impl Mux {
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
}
