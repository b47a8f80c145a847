//! Packets, as the network sees them: grants within their window, the fewest bytes left first, the oldest
//! message not starved. It knows what the applications handed over and what was sent and delivered, and
//! nothing of the inside of a host.

use std::collections::{BTreeMap, BTreeSet};

use peyk_homa::{Config, Pacing};
use peyk_wire::homa::{Data, Packet as HomaPacket};

use super::Violation;
use crate::time::Picos;
use crate::topology::HostId;

/// IP, UDP and DATA headers.
const HEADERS: u32 = 20 + 8 + 56;
/// Turns that the oldest message may miss: single packets go before it whenever they come.
const MISSED_TURNS: u64 = 10;

/// A message that an application has handed over and that is not all sent.
#[derive(Copy, Clone, Debug)]
struct Sending {
    length: u32,
    next: u32,
    /// When the application handed it over, or, of a response, the first of its request came: messages are as old
    /// as their RPCs.
    handed: Picos,
    is_request: bool,
    /// Packets of younger messages since it sent last.
    overtaken: u64,
}

/// Distinct bytes of one incoming message, as ordered disjoint ranges.
#[derive(Clone, Debug, Default)]
struct Arrived {
    ranges: BTreeMap<u32, u32>,
    bytes: u32,
}

impl Arrived {
    fn add(&mut self, start: u32, end: u32) {
        let (mut from, mut to) = (start, end);
        while let Some((&s, &e)) = self.ranges.range(..=to).next_back() {
            if e < from {
                break;
            }
            self.ranges.remove(&s);
            self.bytes -= e - s;
            (from, to) = (from.min(s), to.max(e));
        }
        self.bytes += to - from;
        self.ranges.insert(from, to);
    }
}

#[derive(Clone, Debug, Default)]
struct Side {
    /// By the sender's id.
    sending: BTreeMap<u64, Sending>,
    /// By sender and its id.
    arriving: BTreeMap<(HostId, u64), Arrived>,
    /// When the first of each message came, by the sender's id.
    began: BTreeMap<u64, Picos>,
    originals: u64,
    early: u64,
    /// When it last sent DATA for the first time.
    sent_at: Picos,
    /// When it last heard each host.
    heard: Vec<Picos>,
    /// Calls that have got their response and are not acknowledged, by server.
    owed: Vec<BTreeSet<u64>>,
}

/// The books of the wire.
#[derive(Clone, Debug)]
pub struct Wire {
    sides: Vec<Side>,
    unsched_bytes: u32,
    segment: u32,
    /// Bytes that a grant may be ahead of what was received.
    ahead: u64,
    /// Every so many packets one is the oldest message's; none if 0.
    turn_of_oldest: u64,
    old_after: Picos,
    is_ordered: bool,
    /// What went wrong.
    pub violations: Vec<Violation>,
}

impl Wire {
    /// Of so many hosts with these settings.
    pub fn new(hosts: u16, config: &Config) -> Wire {
        let (heard, owed) =
            (vec![Picos::ZERO; usize::from(hosts)], vec![BTreeSet::new(); usize::from(hosts)]);
        let side = Side { heard, owed, ..Side::default() };
        let window = match config.window {
            0 => config.max_incoming / 2,
            window => window,
        };
        let fifo = if config.grant_fifo_fraction > 0 { 3 * config.fifo_grant_increment.max(1) } else { 0 };
        let fraction = u64::from(config.pacer_fifo_fraction.min(500));
        Wire {
            sides: vec![side; usize::from(hosts)],
            unsched_bytes: config.unsched_bytes,
            segment: config.mtu - HEADERS,
            ahead: u64::from(window) + u64::from(fifo),
            turn_of_oldest: 1000_u64.checked_div(fraction).unwrap_or(0),
            old_after: Picos::from_millis(u64::from(config.resend_ticks) + 1),
            is_ordered: config.pacing == Pacing::Off,
            violations: Vec::new(),
        }
    }

    /// An application handed a message over.
    pub fn on_message(&mut self, now: Picos, host: HostId, id: u64, length: u32, is_request: bool) {
        let side = &mut self.sides[usize::from(host)];
        let began = if is_request { None } else { side.began.get(&(id ^ 1)).copied() };
        let sending = Sending { length, next: 0, handed: began.unwrap_or(now), is_request, overtaken: 0 };
        side.sending.insert(id, sending);
    }

    /// A call of a host has ended.
    pub fn on_call_end(&mut self, host: HostId, id: u64) {
        self.sides[usize::from(host)].sending.remove(&id);
    }

    /// A call of a host has got its response: it owes the server an acknowledgement.
    pub fn on_response(&mut self, host: HostId, server: HostId, id: u64) {
        self.sides[usize::from(host)].owed[usize::from(server)].insert(id);
    }

    /// A host has lost its state.
    pub fn on_crash(&mut self, host: HostId) {
        let side = &mut self.sides[usize::from(host)];
        side.sending.clear();
        side.arriving.clear();
        side.began.clear();
        side.owed.iter_mut().for_each(BTreeSet::clear);
        (side.originals, side.early) = (0, 0);
    }

    /// When a host last heard another, or sent data itself: since when it can complain of silence.
    pub fn quiet_since(&self, host: HostId, other: HostId) -> Picos {
        let side = &self.sides[usize::from(host)];
        side.heard[usize::from(other)].max(side.sent_at)
    }

    /// A packet was delivered.
    pub fn on_delivered(&mut self, now: Picos, from: HostId, to: HostId, packet: &HomaPacket<'_>) {
        let side = &mut self.sides[usize::from(to)];
        side.heard[usize::from(from)] = now;
        if let HomaPacket::Data(data) = packet
            && !data.payload.is_empty()
        {
            side.began.entry(data.header.sender_id).or_insert(now);
            let arrived = side.arriving.entry((from, data.header.sender_id)).or_default();
            arrived.add(data.offset(), data.end());
        }
    }

    /// A packet was sent.
    pub fn on_sent(&mut self, now: Picos, from: HostId, to: HostId, packet: &HomaPacket<'_>) {
        match packet {
            HomaPacket::Data(data) if !data.is_retransmission() => {
                self.on_ack_or_none(from, to, data);
                self.on_original(now, from, data);
            }
            HomaPacket::Ack(ack) => {
                let owed = &mut self.sides[usize::from(from)].owed[usize::from(to)];
                owed.remove(&ack.header.sender_id);
                for entry in ack.entries() {
                    owed.remove(&entry.client_id);
                }
            }
            HomaPacket::Grant(grant) => {
                let side = &self.sides[usize::from(from)];
                let rpc = grant.header.sender_id;
                let received = side.arriving.get(&(to, rpc ^ 1)).map_or(0, |a| a.bytes);
                let allowed = u64::from(received) + self.ahead;
                if u64::from(grant.offset) > allowed {
                    let offset = grant.offset;
                    let violation = Violation::GrantedTooFar { host: from, rpc, offset, received, allowed };
                    self.violations.push(violation);
                }
            }
            _ => {}
        }
    }

    /// Whether each host kept the order, but for the share of its oldest message.
    pub fn check_end(&mut self) {
        for (host, side) in self.sides.iter().enumerate() {
            let share = side.originals.checked_div(self.turn_of_oldest).map_or(0, |turns| turns + 1);
            if side.early > share {
                let (host, early, sent) = (host as HostId, side.early, side.originals);
                self.violations.push(Violation::OutOfOrder { host, early, sent });
            }
        }
    }

    /// DATA takes an acknowledgement along, if any is owed.
    fn on_ack_or_none(&mut self, host: HostId, server: HostId, data: &Data<'_>) {
        let owed = &mut self.sides[usize::from(host)].owed[usize::from(server)];
        if !data.ack.is_none() {
            owed.remove(&data.ack.client_id);
        } else if !owed.is_empty() {
            let count = owed.len() as u64;
            owed.clear();
            self.violations.push(Violation::AckWithheld { host, server, owed: count });
        }
    }

    fn on_original(&mut self, now: Picos, host: HostId, data: &Data<'_>) {
        let (segment, unsched) = (self.segment, self.unsched_bytes);
        let is_single = |length: u32| length <= segment && length <= unsched;
        let side = &mut self.sides[usize::from(host)];
        side.originals += 1;
        side.sent_at = now;
        let (id, offset, length) = (data.header.sender_id, data.offset(), data.message_length);
        // The first packet of a message that needs grants goes as if it were all.
        let rank =
            |length: u32, next: u32| if next == 0 && length > unsched { segment } else { length - next };
        let left = rank(length, offset);
        let handed = match side.sending.get_mut(&id) {
            Some(sending) => {
                (sending.next, sending.overtaken) = (data.end(), 0);
                sending.handed
            }
            None => now,
        };
        if data.end() >= length {
            side.sending.remove(&id);
        }
        if !self.is_ordered {
            return;
        }
        // Messages that surely could have sent: their unscheduled part is not all sent.
        let others = side.sending.iter().filter(|(other, s)| {
            **other != id && s.is_request && s.handed < now && s.next < s.length.min(unsched)
        });
        let is_early = others.clone().any(|(_, other)| {
            let other_left = rank(other.length, other.next);
            match (is_single(length), is_single(other.length)) {
                // Within an octave single packets go as they come; one byte is in that of two.
                (true, is_other_single) => is_other_single && other_left.max(2) * 2 <= left,
                (false, true) => true,
                (false, false) => other_left < left,
            }
        });
        side.early += u64::from(is_early);
        if !is_single(length) && self.turn_of_oldest > 0 {
            self.starve(now, host, id, handed);
        }
    }

    /// A packet of a longer message was sent: one more that went before the oldest.
    fn starve(&mut self, now: Picos, host: HostId, id: u64, handed: Picos) {
        let (segment, unsched) = (self.segment, self.unsched_bytes);
        let side = &mut self.sides[usize::from(host)];
        let Some(first) = side.sending.values().map(|s| s.handed).min() else { return };
        // Of several of one age, which one has the turns is not to be seen from here.
        let mut of_that_age = side.sending.iter_mut().filter(|(_, s)| s.handed == first);
        let (Some((&rpc, oldest)), None) = (of_that_age.next(), of_that_age.next()) else { return };
        let is_ranked = oldest.length > segment || oldest.length > unsched;
        let can_send = oldest.is_request && oldest.next < oldest.length.min(unsched);
        let is_old = oldest.handed + self.old_after < now;
        if rpc == id || !is_ranked || !can_send || !is_old || handed <= oldest.handed {
            return;
        }
        oldest.overtaken += 1;
        if oldest.overtaken > MISSED_TURNS * self.turn_of_oldest {
            let packets = core::mem::take(&mut oldest.overtaken);
            self.violations.push(Violation::Starved { host, rpc, packets });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrived__counts_distinct_bytes() {
        let mut arrived = Arrived::default();
        for (start, end) in [(10, 20), (30, 40), (10, 20), (15, 35), (0, 5), (0, 50)] {
            arrived.add(start, end);
        }
        assert_eq!((arrived.bytes, arrived.ranges.len()), (50, 1));
        arrived.add(60, 61);
        assert_eq!(arrived.bytes, 51);
    }
}
