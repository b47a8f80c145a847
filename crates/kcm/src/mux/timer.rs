//! Deadlines: of messages in assembly, of batches, of sockets that are being flushed.

use peyk_sansio::Instant;

use super::Mux;
use crate::event::{Cause, SocketId};
use crate::table::Id;

/// All timers of a mux. They are not cancelled: when due, what they are for is looked at again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// A message must be complete.
    Assembly(Id),
    /// A batch that was not ended must leave.
    Batch(SocketId),
    /// A socket has been flushed long enough.
    Close(SocketId),
}

impl Mux {
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock = self.clock.max(now);
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(now, &mut due);
        for timer in due.drain(..) {
            match timer {
                Timer::Assembly(id) => self.assembly_due(id, now),
                Timer::Batch(socket) => {
                    let is_due = |at: Instant| at <= now;
                    if self.sockets.get(socket.0).and_then(|state| state.batch).is_some_and(is_due) {
                        self.flush_batch(socket);
                    }
                }
                Timer::Close(socket) => {
                    if self.sockets.get(socket.0).is_some() {
                        self.finish_close(socket, now);
                    }
                }
            }
        }
        self.due = due;
    }

    /// Sets a timer for the message that a connection has begun, unless one is set.
    pub(super) fn arm_assembly(&mut self, id: Id) {
        if let Some(state) = self.psocks.get_mut(id)
            && let Some(at) = state.assembler.deadline
            && !state.is_timed
        {
            state.is_timed = true;
            self.timers.insert(at, Timer::Assembly(id));
        }
    }

    fn assembly_due(&mut self, id: Id, now: Instant) {
        let Some(state) = self.psocks.get_mut(id) else { return };
        state.is_timed = false;
        match state.assembler.deadline {
            None => {}
            Some(at) if at > now || state.is_lent => self.arm_assembly_after(id, at.max(now)),
            Some(_) if state.ending.is_some() => {}
            Some(_) => {
                let have = state.assembler.have();
                state.stats.rx_msg_timeouts += 1;
                state.stats.rx_aborts += 1;
                state.ending = Some(Cause::Timeout { have });
                state.assembler.take_partial();
                self.release_memory(have);
                self.retire_tx(id);
                self.announce_down(id);
            }
        }
    }

    fn arm_assembly_after(&mut self, id: Id, at: Instant) {
        if let Some(state) = self.psocks.get_mut(id) {
            state.is_timed = true;
            self.timers.insert(at + core::time::Duration::from_millis(1), Timer::Assembly(id));
        }
    }
}
