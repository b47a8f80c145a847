//! What time brings: RESENDs, timeouts, deadlines, NEED_ACKs, and housekeeping.
//!
//! The wheel holds places of RPCs, each at the earliest tick at which something might be due
//! there. What is due is worked out when the entry comes up, so nothing is ever cancelled, and an
//! RPC that waits for nothing has no entry.

use peyk_sansio::Instant;
use peyk_wire::homa::RESEND_ALL;

use super::output::ControlKind;
use super::{Endpoint, tick_of, tick_start};
use crate::error::RpcError;
use crate::mutant::is_mutant;
use crate::priority::control_priority;
use crate::resend::{Silence, Timers, Wait};
use crate::rpc::{NO_TIMER, State};

/// Gaps of a message asked for at a time.
const GAPS_PER_ROUND: usize = 64;
/// Ticks in a row in which something came that showed no progress, and yet silence began anew. A peer
/// that replays what it has sent must not keep its RPC alive for ever; one that is late makes progress.
const IN_VAIN_MAX: u8 = 16;
/// Records of finished requests freed in a tick.
const EXPIRE_PER_TICK: usize = 256;

impl Endpoint {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let tick = tick_of(now);
        self.is_dirty = true;
        let mut due = core::mem::take(&mut self.due);
        self.wheel.expire(now, &mut due);
        for slot in due.drain(..) {
            let rpc = &mut self.rpcs[slot];
            // An entry that is not the place's earliest was overtaken by another.
            if rpc.timer_at > tick {
                continue;
            }
            rpc.timer_at = NO_TIMER;
            if rpc.state != State::Free {
                self.on_timer(now, tick, slot);
            }
        }
        self.due = due;
        if !self.rationed.is_empty() {
            self.serve_rationed(now, tick);
        }
        if tick != self.housekept {
            self.keep_house(now, tick);
        }
    }

    /// Makes sure that the place is looked at in this tick at the latest.
    #[inline]
    pub(super) fn arm(&mut self, slot: u32, tick: u64) {
        let rpc = &mut self.rpcs[slot];
        if tick < rpc.timer_at {
            rpc.timer_at = tick;
            self.wheel.insert(tick_start(tick), slot);
        }
    }

    /// Silence begins anew.
    #[inline]
    pub(super) fn touch(&mut self, slot: u32, tick: u64) {
        let rpc = &mut self.rpcs[slot];
        // An answered request counts its NEED_ACKs from its end.
        if rpc.is_client() || rpc.state == State::Incoming {
            rpc.wait = Wait::from(tick);
        }
    }

    /// Something came that shows progress.
    #[inline]
    pub(super) fn progress(&mut self, slot: u32, tick: u64) {
        self.rpcs[slot].in_vain = 0;
        self.touch(slot, tick);
    }

    /// Something came that shows that the other side lives, but no progress.
    #[cold]
    pub(super) fn touch_in_vain(&mut self, slot: u32, tick: u64) {
        let rpc = &mut self.rpcs[slot];
        if rpc.in_vain < IN_VAIN_MAX {
            rpc.in_vain += u8::from(rpc.wait.since < tick);
            self.touch(slot, tick);
        }
    }

    /// From now on bytes are owed to us.
    pub(super) fn owe(&mut self, slot: u32, tick: u64) {
        self.touch(slot, tick);
        self.arm(slot, self.timers.resend_due(Wait::from(tick)));
    }

    /// Asks for what is missing of a message: all of it if nothing is known.
    pub(super) fn request_retransmission(&mut self, slot: u32) {
        let priority = self.resend_priority(slot);
        let input = &self.rpcs[slot].input;
        if input.length == 0 {
            let kind = ControlKind::Resend { offset: 0, length: RESEND_ALL, priority };
            self.send_control(slot, kind);
            return;
        }
        if input.has_memory() {
            let tail = input.granted.saturating_sub(input.recv_end);
            self.request_gaps(slot);
            if tail > 0 && !is_mutant!(self.config, SkipTail) {
                let offset = self.rpcs[slot].input.recv_end;
                self.send_control(slot, ControlKind::Resend { offset, length: tail, priority });
            }
        }
    }

    /// The priority of what is sent again of a message.
    fn resend_priority(&self, slot: u32) -> u8 {
        let highest = control_priority(self.config.num_priorities);
        let length = self.rpcs[slot].input.length;
        if !self.config.resend_by_length || length == 0 {
            return highest;
        }
        self.cutoffs.level_of(length)
    }

    /// Asks for the known gaps of a message.
    pub(super) fn request_gaps(&mut self, slot: u32) {
        let priority = self.resend_priority(slot);
        let count = self.rpcs[slot].input.gaps().len().min(GAPS_PER_ROUND);
        let count = count.saturating_sub(usize::from(is_mutant!(self.config, SkipLastGap)));
        for i in 0..count {
            let gap = self.rpcs[slot].input.gaps()[i];
            let (offset, length) = (gap.start, gap.end - gap.start);
            self.send_control(slot, ControlKind::Resend { offset, length, priority });
        }
    }

    fn on_timer(&mut self, now: Instant, tick: u64, slot: u32) {
        let rpc = &self.rpcs[slot];
        if rpc.deadline != Instant::MAX && !is_mutant!(self.config, IgnoreDeadlines) {
            if rpc.deadline <= now {
                self.disown(slot);
                self.fail(slot, RpcError::Deadline);
                return;
            }
            let deadline = super::tick_after(rpc.deadline);
            self.arm(slot, deadline);
        }
        let rpc = &mut self.rpcs[slot];
        if !rpc.is_client() && rpc.state == State::Outgoing {
            self.on_unacked(now, tick, slot);
        } else if rpc.is_owed() && !rpc.is_rationed {
            let peer = &self.peers[rpc.peer];
            let timers = self.timers.patient(rpc.missing()).stretched(peer.lateness.ticks(tick));
            // We were late: that time was not the peer's silence.
            rpc.wait.since += tick.saturating_sub(timers.resend_due(rpc.wait));
            let may_ask = peer.rationed.is_empty();
            self.on_silence(now, tick, slot, &timers, may_ask);
        }
    }

    /// An RPC is owed something. It may ask if its peer has budget, and nobody waits for that.
    fn on_silence(&mut self, now: Instant, tick: u64, slot: u32, timers: &Timers, may_ask: bool) {
        let rpc = &mut self.rpcs[slot];
        match timers.on_silence(rpc.wait, tick) {
            Silence::Wait(due) => self.arm(slot, due),
            Silence::Resend => {
                if rpc.is_managed {
                    // What is granted to a sender that has fallen silent is kept from the others,
                    // until it times out. Its next bytes bring the message back.
                    rpc.is_managed = false;
                    self.grants.remove(slot);
                }
                let (index, peer) = (rpc.peer, &mut self.peers[rpc.peer]);
                if may_ask && peer.resends.take(timers, tick) {
                    self.stats.timer_resends += 1;
                    self.request_retransmission(slot);
                } else {
                    self.stats.resends_rationed += 1;
                    if peer.heard > rpc.wait.since && timers.is_heard(peer.heard, tick) {
                        rpc.is_rationed = true;
                        if peer.rationed.is_empty() {
                            self.rationed.push(index);
                        }
                        peer.rationed.push_back((slot, rpc.generation));
                        return;
                    }
                    // Those that did ask ask for all: there is nobody to answer.
                }
                let rpc = &mut self.rpcs[slot];
                rpc.wait = timers.after_resend(rpc.wait, tick);
                let due = timers.resend_due(rpc.wait);
                self.arm(slot, due);
            }
            Silence::Timeout if rpc.is_client() && is_mutant!(self.config, NeverTimeOut) => {
                rpc.wait = Wait::from(tick);
                self.arm(slot, timers.resend_due(Wait::from(tick)));
            }
            Silence::Timeout if rpc.is_client() => {
                self.stats.rpc_timeouts += 1;
                self.fail(slot, RpcError::Timeout);
            }
            Silence::Timeout => {
                self.stats.server_timeouts += 1;
                self.end_server(now, slot);
            }
        }
    }

    /// Lets the RPCs ask that waited for it, as far as the budgets of their peers go.
    fn serve_rationed(&mut self, now: Instant, tick: u64) {
        let mut rationed = core::mem::take(&mut self.rationed);
        rationed.retain(|&index| {
            loop {
                let peer = &mut self.peers[index];
                let timers = self.timers.stretched(peer.lateness.ticks(tick));
                // Without a sign of life the rest counts its silence like everybody else.
                let is_heard = timers.is_heard(peer.heard, tick);
                let may_ask = peer.resends.has(&timers, tick);
                if is_heard && !may_ask {
                    return !peer.rationed.is_empty();
                }
                let Some((slot, generation)) = peer.rationed.pop_front() else { return false };
                let rpc = &mut self.rpcs[slot];
                if rpc.generation == generation && rpc.is_rationed {
                    rpc.is_rationed = false;
                    if rpc.is_owed() {
                        rpc.wait = timers.after_rationing(rpc.wait, tick);
                        self.on_silence(now, tick, slot, &timers, may_ask);
                    }
                }
            }
        });
        self.rationed.append(&mut rationed);
    }

    /// A response of ours is not acknowledged, or not granted.
    fn on_unacked(&mut self, now: Instant, tick: u64, slot: u32) {
        let rpc = &mut self.rpcs[slot];
        if rpc.out.is_sendable() {
            // It is for us to send; the end of that arms the timer.
            return;
        }
        let (since, is_sent) = (rpc.wait.since, rpc.out.is_sent());
        let heard = self.peers[rpc.peer].heard.max(since);
        let despair = self.timers.server_despair_due(since);
        let forget = self.timers.server_forget_due(heard).min(despair);
        if tick >= forget {
            self.stats.server_silences += 1;
            self.end_server(now, slot);
            return;
        }
        // A client that dropped the RPC without our hearing of it grants nothing, yet it may be
        // heard on others: NEED_ACK makes it say so. One that knows the RPC asks for what it lacks.
        let timers = self.timers;
        let due_after = |since, sent| {
            if is_sent { timers.need_ack_due(since, sent) } else { timers.probe_due(since, sent) }
        };
        let mut due = due_after(since, rpc.wait.rounds);
        if tick >= due {
            // If we were late: the next ones move, rather than come in a burst.
            rpc.wait.since += tick - due;
            rpc.wait.rounds = rpc.wait.rounds.saturating_add(1);
            due = due_after(rpc.wait.since, rpc.wait.rounds);
            let peer = rpc.peer;
            if self.peers[peer].need_acks.take(&timers, tick) {
                self.send_control(slot, ControlKind::NeedAck);
            } else {
                self.stats.need_acks_rationed += 1;
            }
        }
        self.arm(slot, due.min(forget));
    }

    /// What is done once per tick, while there are ticks.
    fn keep_house(&mut self, now: Instant, tick: u64) {
        self.housekept = tick;
        self.completed.expire(now, EXPIRE_PER_TICK);
        self.give_up_waiting(tick);
        self.take_turns(tick);
        if self.cutoffs.maybe_recompute(now) {
            self.grants.set_cutoffs(self.cutoffs.max_sched_prio(), self.cutoffs.table());
        }
        if let Some(peer) = self.peers.collect(tick) {
            self.on_evicted(peer);
        }
    }
}
