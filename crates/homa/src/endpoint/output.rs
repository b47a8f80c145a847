//! Packets out, one at a time: control packets first, then retransmissions, then data in the
//! order of SRPT as far as the pacer lets it, and acks that found no DATA to ride on.

use core::ops::Range;

use peyk_sansio::Instant;
use peyk_wire::homa::{
    Ack, AckEntry, Cutoffs, DATA_HEADER_LEN, Data, Grant, Header, MAX_ACKS, PacketType, Resend, Unreachable,
    UnreachableCode,
};

use super::{Endpoint, tick_after, tick_of};
use crate::config::TICK;
use crate::mutant::is_mutant;
use crate::outgoing::{MessageOut, Retransmit};
use crate::pacer::Pick;
use crate::priority::control_priority;
use crate::resend::Wait;
use crate::rpc::State;
use crate::stats::type_index;
use crate::transmit::{PacketHeader, PacketOut, Path, Transmit};

/// IP and UDP headers as the pacer counts them.
const NETWORK_HEADERS: u32 = 28;

/// Entries of an ACK packet beside the RPC in its header.
pub(super) type AckBatch = ([AckEntry; MAX_ACKS], usize);

/// A control packet that waits to be sent.
#[derive(Debug)]
pub(super) struct Control {
    pub path: Path,
    pub sport: u16,
    pub dport: u16,
    /// The RPC id as we know it.
    pub id: u64,
    pub kind: ControlKind,
}

/// What a control packet says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum ControlKind {
    Grant {
        offset: u32,
        priority: u8,
    },
    Resend {
        offset: u32,
        length: u32,
        priority: u8,
    },
    RpcUnknown,
    Busy,
    Cutoffs,
    NeedAck,
    /// With the first of the waiting ack batches.
    Ack,
    Unreachable(UnreachableCode),
}

/// The segment of a message that is sent next.
struct Segment {
    slot: u32,
    range: Range<u32>,
    priority: u8,
    /// The end of the range asked for, if it is sent again.
    resent_to: Option<u32>,
}

impl Endpoint {
    /// The next packet to send, for one who keeps it; `None` if nothing may be sent now.
    #[inline]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.poll_packet(now).map(|packet| packet.to_transmit())
    }

    /// The next packet to send, `None` if nothing may be sent now.
    #[inline]
    pub fn poll_packet(&mut self, now: Instant) -> Option<PacketOut<'_>> {
        if self.is_dirty {
            self.before_drain(now);
        }
        if let Some(control) = self.control.pop_front() {
            return Some(self.control_packet(now, &control));
        }
        if let Some(segment) = self.next_segment(now) {
            return Some(self.data_packet(now, segment));
        }
        if self.ack_flush.is_empty() { None } else { self.next_overdue_ack(now) }
    }

    #[inline]
    fn next_segment(&mut self, now: Instant) -> Option<Segment> {
        if !self.retransmits.is_empty()
            && let Some(segment) = self.next_retransmission()
        {
            return Some(segment);
        }
        if self.queue.is_empty() { None } else { self.next_data(now) }
    }

    /// Queues a control packet for the other side of an RPC.
    pub(super) fn send_control(&mut self, slot: u32, kind: ControlKind) {
        let rpc = &self.rpcs[slot];
        let path = self.peers[rpc.peer].path;
        let (sport, dport, id) = (rpc.local_port, rpc.peer_port, rpc.id);
        self.push_control(Control { path, sport, dport, id, kind });
    }

    /// Queues a control packet in answer to one that need not belong to any RPC of ours.
    pub(super) fn answer(&mut self, path: &Path, to: &Header, kind: ControlKind) {
        let (sport, dport, id) = (to.dport, to.sport, to.local_id());
        self.push_control(Control { path: *path, sport, dport, id, kind });
    }

    /// Queues an ACK of RPC `id` and of those in the batch.
    pub(super) fn send_ack(&mut self, path: Path, sport: u16, dport: u16, id: u64, batch: AckBatch) {
        if self.push_control(Control { path, sport, dport, id, kind: ControlKind::Ack }) {
            self.ack_batches.push_back(batch);
        }
    }

    /// Lets a message take part in sending, if it has something that may be sent.
    pub(super) fn enqueue(&mut self, slot: u32) {
        let rpc = &self.rpcs[slot];
        let out = &rpc.out;
        if !out.is_sendable() {
            return;
        }
        // Paced messages take their rank, so that they hold up no message the pacer lets pass.
        if out.is_single() && self.pacer.is_exempt(out.length) {
            self.queue.insert_single(slot, out.left(), rpc.born);
        } else {
            self.queue.insert(slot, self.rank(out), rpc.born);
        }
    }

    /// Queues a range of the message of an RPC for retransmission.
    pub(super) fn retransmit(&mut self, slot: u32, range: Range<u32>, priority: u8) {
        let rpc = &mut self.rpcs[slot];
        if !rpc.out.retransmit(range, priority, self.config.max_retransmits as usize) {
            self.stats.drop_retransmit_queue += 1;
        }
        if rpc.out.has_retransmits() && !rpc.is_retransmitting {
            rpc.is_retransmitting = true;
            self.retransmits.push_back((slot, rpc.generation));
        }
    }

    fn push_control(&mut self, control: Control) -> bool {
        if self.control.len() >= self.config.max_control as usize {
            self.stats.drop_control_queue += 1;
            return false;
        }
        self.control.push_back(control);
        true
    }

    /// Decisions that are taken once per drain rather than once per packet.
    fn before_drain(&mut self, now: Instant) {
        self.is_dirty = false;
        if !self.waiters.is_empty() {
            self.serve_waiters(now);
        }
        // Held back by their rate alone, grants want a poll when it allows them.
        if self.grants.wants_poll() || self.grants.next_time().is_some_and(|at| at <= now) {
            self.send_grants(now);
        }
    }

    /// Sends the grants that are due.
    fn send_grants(&mut self, now: Instant) {
        let mut granted = core::mem::take(&mut self.granted);
        self.grants.poll(now, &mut granted);
        for grant in granted.drain(..) {
            let (offset, priority) = (grant.offset, grant.priority);
            let input = &mut self.rpcs[grant.slot].input;
            let was_owed = input.is_owed();
            input.granted = input.granted.max(offset);
            if !was_owed {
                self.owe(grant.slot, tick_of(now));
            }
            self.send_control(grant.slot, ControlKind::Grant { offset, priority });
        }
        self.granted = granted;
    }

    fn control_packet(&mut self, now: Instant, control: &Control) -> PacketOut<'static> {
        let (sport, dport, id) = (control.sport, control.dport, control.id);
        let head = |kind| Header::new(kind, sport, dport, id);
        let header = PacketHeader::build(|out| match control.kind {
            ControlKind::Grant { offset, priority } => {
                Grant::new(head(PacketType::Grant), offset, priority).emit(out)
            }
            ControlKind::Resend { offset, length, priority } => {
                Resend::new(head(PacketType::Resend), offset, length, priority).emit(out)
            }
            ControlKind::RpcUnknown => head(PacketType::RpcUnknown).emit(out),
            ControlKind::Busy => head(PacketType::Busy).emit(out),
            ControlKind::NeedAck => head(PacketType::NeedAck).emit(out),
            ControlKind::Cutoffs => {
                let (table, version) = (*self.cutoffs.table(), self.cutoffs.version());
                Cutoffs::new(head(PacketType::Cutoffs), table, version).emit(out)
            }
            ControlKind::Ack => {
                let (entries, count) = self.ack_batches.pop_front().unwrap_or_default();
                Ack::new(head(PacketType::Ack), &entries[..count]).emit(out)
            }
            ControlKind::Unreachable(code) => Unreachable::new(head(PacketType::Unreachable), code).emit(out),
        });
        let kind = control.kind.packet_type();
        self.stats.sent[type_index(kind)] += 1;
        self.pacer.charge(now, header.len() as u32 + NETWORK_HEADERS);
        let priority = control_priority(self.config.num_priorities);
        PacketOut::control(control.path, priority, header)
    }

    /// The next segment that somebody asked for again. These bypass SRPT and pacer, but the pacer
    /// counts them.
    fn next_retransmission(&mut self) -> Option<Segment> {
        while let Some(&(slot, generation)) = self.retransmits.front() {
            let rpc = &mut self.rpcs[slot];
            if rpc.generation != generation || !rpc.is_retransmitting {
                self.retransmits.pop_front();
                continue;
            }
            let next = rpc.out.next_retransmit();
            if !rpc.out.has_retransmits() {
                rpc.is_retransmitting = false;
                self.retransmits.pop_front();
            }
            if let Some((range, Retransmit { priority, end, .. })) = next {
                self.stats.data_retransmitted += 1;
                return Some(Segment { slot, range, priority, resent_to: Some(end) });
            }
        }
        None
    }

    /// The next segment that is sent for the first time.
    fn next_data(&mut self, now: Instant) -> Option<Segment> {
        if let Some(slot) = self.queue.pop_single() {
            return Some(self.single_data(now, slot));
        }
        let (slot, pick) = self.choose(now)?;
        let rpc = &mut self.rpcs[slot];
        let (peer, out) = (&self.peers[rpc.peer], &mut rpc.out);
        let range = out.advance();
        if range.start == 0 {
            out.on_first_sent(tick_of(now));
        }
        let priority = if range.start < out.unscheduled {
            let by_remaining = self.config.unsched_by_remaining;
            let bytes = if by_remaining { out.length - range.start } else { out.length };
            peer.cutoffs.unscheduled_priority(bytes, self.config.num_priorities)
        } else {
            out.sched_prio
        };
        if out.is_sendable() {
            let left = self.rank(&self.rpcs[slot].out);
            self.queue.update(slot, left);
        } else {
            self.queue.remove(slot);
            self.on_sent(now, slot);
        }
        self.stats.data_originals += 1;
        if let Some(pick) = pick {
            self.pacer.on_sent(pick, range.end - range.start);
        }
        Some(Segment { slot, range, priority, resent_to: None })
    }

    /// The only segment of a message that needs no grant, which has just left the queue. Most messages are such.
    #[inline]
    fn single_data(&mut self, now: Instant, slot: u32) -> Segment {
        let rpc = &mut self.rpcs[slot];
        let (peer, out) = (&self.peers[rpc.peer], &mut rpc.out);
        let range = out.advance();
        out.on_first_sent(tick_of(now));
        let priority = peer.cutoffs.unscheduled_priority(out.length, self.config.num_priorities);
        self.stats.data_originals += 1;
        self.on_sent(now, slot);
        Segment { slot, range, priority, resent_to: None }
    }

    /// Which of the longer messages may send next, and whose turn it was if that is accounted for.
    ///
    /// Without a pacer there is a choice only when the driver cannot keep up. Then strict SRPT is
    /// right, until the oldest message has waited for so long that its receiver would ask for it.
    fn choose(&mut self, now: Instant) -> Option<(u32, Option<Pick>)> {
        let best = self.queue.best()?;
        let oldest = self.queue.oldest()?;
        if self.pacer.is_off() {
            let is_old = self.rpcs[oldest].out.init_time + TICK * self.config.resend_ticks <= now;
            let has_share = is_old && self.is_turn_of_oldest();
            return Some((if has_share { oldest } else { best }, None));
        }
        if !self.pacer.may_send(now) {
            let is_exempt = self.pacer.is_exempt(self.rpcs[best].out.length);
            return is_exempt.then_some((best, None));
        }
        let pick = self.pacer.pick();
        Some((if pick == Pick::Oldest { oldest } else { best }, Some(pick)))
    }

    /// Whether the next packet is the oldest message's, without a pacer to keep account of it.
    fn is_turn_of_oldest(&self) -> bool {
        let fraction = u64::from(self.config.pacer_fifo_fraction.min(500));
        !is_mutant!(self.config, StarveOldest)
            && fraction > 0
            && self.stats.data_originals.is_multiple_of(1000 / fraction)
    }

    /// Where a message stands among those that may send: by the bytes left of it.
    ///
    /// The first packet of one that needs grants goes as if it were all: it tells the receiver, which can give
    /// the message its place there while the rest waits here. Else it would wait twice, one after the other.
    #[inline]
    fn rank(&self, out: &MessageOut) -> u32 {
        let left = out.left();
        if is_mutant!(self.config, ReverseSrpt) {
            return u32::MAX - left;
        }
        let is_announcement = out.next == 0 && out.length > out.unscheduled;
        let counted = if is_announcement { out.segment() } else { left };
        counted.min(self.config.srpt_limit)
    }

    /// All that may be sent of a message has been: now the other side is to act.
    fn on_sent(&mut self, now: Instant, slot: u32) {
        let rpc = &mut self.rpcs[slot];
        if !rpc.out.is_sent() {
            self.starved_at = now;
        }
        rpc.wait = Wait::from(tick_of(now));
        let due = if rpc.is_client() {
            if rpc.state != State::Outgoing || is_mutant!(self.config, LostTimer) {
                return;
            }
            self.timers.resend_due(rpc.wait)
        } else if rpc.out.is_sent() {
            rpc.wait.since = tick_after(now);
            self.timers.need_ack_due(rpc.wait.since, 0)
        } else {
            self.timers.probe_due(rpc.wait.since, 0)
        };
        self.arm(slot, due);
    }

    /// A segment as a packet.
    fn data_packet(&mut self, now: Instant, segment: Segment) -> PacketOut<'_> {
        let Segment { slot, range, priority, resent_to } = segment;
        let rpc = &self.rpcs[slot];
        let peer = &mut self.peers[rpc.peer];
        let length = range.end - range.start;
        let head = Header::new(PacketType::Data, rpc.local_port, rpc.peer_port, rpc.id);
        let incoming = resent_to.unwrap_or(rpc.out.unscheduled);
        let mut data = Data::new(head, rpc.out.length, incoming, range.start, &[]);
        data.cutoff_version = peer.cutoffs.version();
        data.retransmit = u8::from(resent_to.is_some());
        if resent_to.is_none() {
            data.ack = peer.acks.pop();
        }
        self.stats.sent[type_index(PacketType::Data)] += 1;
        self.stats.data_bytes_sent += u64::from(length);
        self.stats.data_sent_at[usize::from(priority & 7)] += 1;
        self.pacer.charge(now, length + DATA_HEADER_LEN as u32 + NETWORK_HEADERS);
        let is_wrong = is_mutant!(self.config, RetransmitWrongBytes) && resent_to.is_some();
        let range = if is_wrong { 0..length } else { range };
        PacketOut::data(peer.path, priority, data, rpc.out.message(), range)
    }

    /// An ACK packet for a host with more acks than should wait for the next turn.
    fn next_overdue_ack(&mut self, now: Instant) -> Option<PacketOut<'static>> {
        while let Some(&peer) = self.ack_flush.last() {
            if self.peers[peer].acks.is_overfull() {
                self.send_owed_acks(peer);
                let control = self.control.pop_front()?;
                return Some(self.control_packet(now, &control));
            }
            self.ack_flush.pop();
        }
        None
    }
}

impl ControlKind {
    fn packet_type(self) -> PacketType {
        match self {
            ControlKind::Grant { .. } => PacketType::Grant,
            ControlKind::Resend { .. } => PacketType::Resend,
            ControlKind::RpcUnknown => PacketType::RpcUnknown,
            ControlKind::Busy => PacketType::Busy,
            ControlKind::Cutoffs => PacketType::Cutoffs,
            ControlKind::NeedAck => PacketType::NeedAck,
            ControlKind::Ack => PacketType::Ack,
            ControlKind::Unreachable(_) => PacketType::Unreachable,
        }
    }
}
