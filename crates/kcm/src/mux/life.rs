//! Ends: sockets that close, connections that are taken off, and who inherits what.

use bytes::Bytes;
use peyk_sansio::Instant;

use super::Mux;
use super::timer::Timer;
use crate::error::UnattachError;
use crate::event::{Cause, Closed, Event, PsockId, SocketId, Unattached};
use crate::framer::Framer;
use crate::psock::Source;
use crate::table::Id;

impl Mux {
    /// Closes a socket. What it has not received goes to the others, what it has not sent is dropped and
    /// reported. A connection on which it had begun a message is lost with it.
    pub fn close_socket(&mut self, socket: SocketId, now: Instant) -> Closed {
        let Some(state) = self.sockets.get_mut(socket.0) else { return Closed::default() };
        self.closing -= usize::from(state.closing.is_some());
        let unsent = state.tx.len() + usize::from(state.open.is_some());
        let unsent_bytes = state.tx.iter().chain(&state.open).map(|message| message.len).sum();
        state.tx.clear();
        state.open = None;
        state.is_disabled = true;
        let read = state.reading.take().map_or(0, |(message, at)| message.bytes.len() - at);
        let reserved = state.reserved;
        let serving = state.serving.take();
        if let Some(id) = reserved {
            self.release_holder(id, now);
        }
        self.leave_line(socket);
        self.requeue(socket);
        self.sockets.remove(socket.0);
        if let Some(served) = serving {
            self.release_order(served);
        }
        self.release_memory(read);
        if self.sockets.len() == 0 {
            self.dissolve();
        }
        Closed { unsent, unsent_bytes }
    }

    /// Closes a socket after all it has queued is sent, or at `deadline`: then there is a
    /// [`Event::Closed`]. It receives no more from this call on.
    pub fn close_flush(&mut self, socket: SocketId, deadline: Instant, now: Instant) {
        let Some(state) = self.sockets.get_mut(socket.0) else { return };
        if state.closing.is_some() {
            return;
        }
        state.closing = Some(deadline);
        self.closing += 1;
        if let Some(open) = state.open.take() {
            state.tx_charged -= open.len;
        }
        self.timers.insert(deadline, Timer::Close(socket));
        self.leave_line(socket);
        self.requeue(socket);
        self.flush_batch(socket);
        if self.sockets.get(socket.0).is_some_and(|state| state.tx.is_empty()) {
            self.finish_close(socket, now);
        }
    }

    pub(super) fn finish_close(&mut self, socket: SocketId, now: Instant) {
        let unsent = self.close_socket(socket, now).unsent;
        self.say(Event::Closed { socket, unsent });
    }

    /// After a write: sockets that only waited for it are closed.
    pub(super) fn finish_closing(&mut self) {
        if self.closing == 0 {
            return;
        }
        let done = |socket: &crate::socket::Socket| socket.closing.is_some() && socket.tx.is_empty();
        let closing: Vec<Id> =
            self.sockets.iter().filter(|(_, socket)| done(socket)).map(|(id, _)| id).collect();
        for id in closing {
            self.finish_close(SocketId(id), self.clock);
        }
    }

    /// The holder of a connection closes.
    fn release_holder(&mut self, id: Id, now: Instant) {
        let Some(state) = self.psocks.get_mut(id) else { return };
        let is_inside = state.current == Some(Source::Holder) || state.plan.contains(&Source::Holder);
        self.unreserve(id);
        if !is_inside {
            return self.make_available(id);
        }
        // The peer has the beginning of a message that will never end.
        if let Some(state) = self.psocks.get_mut(id) {
            if state.ending.is_none() {
                state.ending = Some(Cause::HolderClosed);
            }
            state.plan.clear();
            state.planned = 0;
        }
        self.abort_tx(id, now);
        self.pump(id, usize::MAX, now);
        self.end_pass(id);
    }

    /// The last socket is closed: nothing of the mux outlives it.
    fn dissolve(&mut self) {
        for id in self.psocks.ids() {
            self.stats.psock_unattach += 1;
            if let Some(psock) = self.psocks.remove(id) {
                self.folded.add(&psock.stats);
            }
        }
        self.hold.clear();
        self.runs.clear();
        (self.hold_len, self.hold_compact, self.runs_waiting, self.used) = (0, 0, 0, 0);
        self.ready.clear();
        self.available.clear();
        self.tx_line.clear();
        self.writes.clear();
        self.resumed.clear();
        self.starved.clear();
        self.by_addr.clear();
        self.unrouted.clear();
    }

    /// Takes a connection off. What it was sending for a socket starts anew on another; what was received
    /// and not delivered comes back with it.
    ///
    /// # Errors
    /// It is not attached here.
    pub fn unattach(&mut self, psock: PsockId, now: Instant) -> Result<Unattached, UnattachError> {
        let id = psock.0;
        let state = self.psocks.get_mut(id).ok_or(UnattachError::Unknown)?;
        let tx_partial = state.offset;
        let was_reserved = state.reserved.is_some();
        self.stats.psock_unattach += 1;
        if was_reserved {
            self.stats.psock_unattach_rsvd += 1;
        }
        if let Some(state) = self.psocks.get_mut(id) {
            state.plan.clear();
            state.planned = 0;
            if state.tx_stopped || !was_reserved {
                state.tx_stopped = true;
                self.fail_direct(id);
            } else {
                self.abort_tx(id, now);
            }
        }
        self.unbind(id);
        let Some(mut state) = self.psocks.remove(id) else { return Err(UnattachError::Unknown) };
        self.folded.add(&state.stats);
        self.forget_addr(id, state.addr);
        self.release_memory(state.held_bytes());
        if state.parked.is_some() {
            self.stats.rx_ready_drops += 1;
        }
        let mut buffered = state.assembler.take_partial();
        state.backlog.iter().for_each(|chunk| buffered.extend_from_slice(chunk));
        Ok(Unattached { parked: state.parked.take(), buffered: buffered.into(), tx_partial })
    }

    /// Gives a connection another framer, between two messages.
    ///
    /// # Errors
    /// A message has begun; the framer comes back.
    pub fn replace_framer(&mut self, psock: PsockId, framer: Box<dyn Framer>) -> Result<(), Box<dyn Framer>> {
        match self.psocks.get_mut(psock.0) {
            Some(state) => state.assembler.replace_framer(framer),
            None => Err(framer),
        }
    }

    fn forget_addr(&mut self, id: Id, addr: Option<std::net::SocketAddr>) {
        let Some(addr) = addr else { return };
        if let Some(there) = self.by_addr.get_mut(&addr) {
            there.retain(|other| *other != id);
            if there.is_empty() {
                self.by_addr.remove(&addr);
            }
        }
    }

    /// Gives up bytes that an ended connection holds for its owner: those of a stream that was handed back.
    pub fn take_buffered(&mut self, psock: PsockId) -> Bytes {
        let Some(state) = self.psocks.get_mut(psock.0) else { return Bytes::new() };
        let mut buffered = state.assembler.take_partial();
        state.backlog.iter().for_each(|chunk| buffered.extend_from_slice(chunk));
        state.backlog.clear();
        state.backlog_len = 0;
        let freed = buffered.len();
        self.release_memory(freed);
        buffered.into()
    }
}
