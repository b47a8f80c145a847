//! From stream to whole messages: passes, the ends of streams, memory. Who gets a message is `steer`'s.

use bytes::Bytes;
use peyk_sansio::Instant;

use super::Mux;
use crate::assemble::{Limits, Step};
use crate::error::Code;
use crate::event::{Cause, Event, Message, PsockId, WantRead};
use crate::partial::Partial;
use crate::psock::Psock;
use crate::table::Id;

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
            if self.is_served && quota > 0 && self.pump_run(id) {
                continue;
            }
            let Some(state) = self.psocks.get_mut(id) else { break };
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

    /// Lends the memory of a long message in assembly, so that the stream can be read right into it. While
    /// it is lent, the connection is neither parsed nor to be read by others.
    pub fn lend(&mut self, psock: PsockId, least: usize) -> Option<(Partial, usize)> {
        let state: &mut Psock = self.psocks.get_mut(psock.0)?;
        if state.parked.is_some() || state.backlog_len > 0 || state.ending.is_some() || state.is_lent {
            return None;
        }
        let lent = state.assembler.lend(least)?;
        state.is_lent = true;
        Some(lent)
    }

    /// Takes lent memory back, `read` bytes longer than it was.
    pub fn give_back(&mut self, psock: PsockId, memory: Partial, read: usize, now: Instant) {
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
}
