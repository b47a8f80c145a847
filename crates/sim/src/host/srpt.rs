//! Shortest remaining message first, everywhere: an idealised transport after pFabric, to compare with.
//!
//! Every packet carries the bytes that are left of its message as its rank. Switches serve the lowest rank
//! and, their tiny buffers full, drop the highest ([`Discipline::LowestRank`](crate::port::Discipline)).
//! Senders send at the speed of their link, fewest bytes left first. What is lost is sent again after a fixed
//! time. It is no transport to deploy: switches that sort do not exist.
//!
//! - The receiver acknowledges each packet; acknowledgements go before everything else, in hosts and switches.
//! - A message has at most [`Settings::window_packets`] packets under way, about what the network holds in a
//!   round trip. Nothing else holds a sender back.
//! - A packet is lost if it is not acknowledged [`Settings::rto_ns`] after it was sent. After
//!   [`Settings::probe_after`] such rounds without an acknowledgement a message sends only probes, one each
//!   time, until one is answered.
//! - Packets are sprayed over all paths. Their order does not matter to the receiver, so switches need not
//!   keep it, as pFabric's do with a second search.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use peyk_sansio::Instant;
use serde::{Deserialize, Serialize};

use super::{Delivered, Host, OneWay};
use crate::packet::Packet;
use crate::topology::{ETHERNET_OVERHEAD, HostId, SHORTEST_FRAME};

/// Bytes of message in a packet: an MTU of 1,500 less [`HEADERS`].
pub const PAYLOAD: u32 = 1_460;
/// Headers of IP and of the transport, as TCP's.
pub const HEADERS: u32 = 40;
/// Buffers of pFabric's switches, in bytes for each link: about two bandwidth-delay products.
pub const BUFFER: u64 = 24_000;

/// How it behaves.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Packets of a message under way at most.
    pub window_packets: u16,
    /// Time until a packet counts as lost, in nanoseconds.
    pub rto_ns: u64,
    /// Rounds of losses without an acknowledgement until a message only probes.
    pub probe_after: u8,
    /// Messages a host may have open as a sender; it refuses more.
    pub max_messages: usize,
}

impl Default for Settings {
    /// For a round trip of 8 us at 10 Gbit/s. The time until a loss is that of the pFabric paper: three of its
    /// round trips, six of these, and more than a full buffer takes.
    fn default() -> Settings {
        Settings { window_packets: 8, rto_ns: 45_000, probe_after: 5, max_messages: 1 << 20 }
    }
}

/// What a packet carries.
#[derive(Clone, Debug)]
pub enum SrptBody {
    /// Part of a message.
    Data {
        /// The message.
        key: u64,
        /// Which of its packets.
        index: u32,
        /// Bytes of the message.
        size: u32,
        /// The sender will send nothing of messages to this host with lower keys.
        oldest: u64,
    },
    /// A packet has arrived.
    Ack {
        /// Its message.
        key: u64,
        /// Which of its packets.
        index: u32,
    },
    /// Can anything of this message get through?
    Probe {
        /// The message.
        key: u64,
    },
    /// It can.
    ProbeAck {
        /// The message.
        key: u64,
    },
}

/// A message that is being sent.
#[derive(Debug)]
struct Outgoing {
    to: HostId,
    size: u32,
    acked_bytes: u32,
    /// First packet that was never sent.
    next: u32,
    /// Packets under way and when they were sent: few, at most the window.
    in_flight: Vec<(u32, Instant)>,
    /// Packets to send again.
    lost: VecDeque<u32>,
    /// Rounds of losses since the last acknowledgement.
    timeouts: u8,
    last_timeout: Instant,
    is_probe_due: bool,
    /// Its place in the queue, if it has something to send.
    queued: Option<u32>,
}

impl Outgoing {
    fn left(&self) -> u32 {
        self.size - self.acked_bytes
    }

    fn is_probing(&self, settings: &Settings) -> bool {
        self.timeouts >= settings.probe_after
    }

    fn can_send(&self, settings: &Settings) -> bool {
        if self.is_probing(settings) {
            return self.is_probe_due;
        }
        let has_packets = !self.lost.is_empty() || self.next < packets(self.size);
        has_packets && self.in_flight.len() < usize::from(settings.window_packets)
    }
}

/// A message that is arriving, or has arrived and whose sender may not know.
#[derive(Debug)]
struct Incoming {
    missing: u32,
    /// One bit per packet; empty if none is missing.
    received: Vec<u64>,
}

/// A packet counts as lost at a moment, if it was not acknowledged before.
#[derive(Copy, Clone, Debug)]
struct Deadline {
    at: Instant,
    key: u64,
    /// Which packet; `None`: a probe.
    index: Option<u32>,
}

/// One host. See the module documentation.
#[derive(Debug)]
pub struct SrptHost {
    id: HostId,
    settings: Settings,
    next_key: u64,
    outgoing: HashMap<u64, Outgoing, FixedState>,
    /// Messages with something to send, by bytes left.
    queue: BTreeSet<(u32, u64)>,
    /// Open messages by destination.
    open: BTreeSet<(HostId, u64)>,
    /// In the order of time: the time until a loss is the same for all.
    deadlines: VecDeque<Deadline>,
    incoming: BTreeMap<(HostId, u64), Incoming>,
    /// By sender: the lowest key of which anything may still come.
    oldest: HashMap<HostId, u64, FixedState>,
    /// Acknowledgements to send.
    replies: VecDeque<(HostId, SrptBody)>,
    delivered: VecDeque<Delivered>,
}

fn packets(size: u32) -> u32 {
    size.div_ceil(PAYLOAD).max(1)
}

fn payload(size: u32, index: u32) -> u32 {
    PAYLOAD.min(size - index * PAYLOAD)
}

impl SrptHost {
    /// A host that has just started.
    pub fn new(id: HostId, settings: Settings) -> SrptHost {
        SrptHost {
            id,
            settings,
            next_key: 0,
            outgoing: HashMap::with_hasher(FixedState::with_seed(0)),
            queue: BTreeSet::new(),
            open: BTreeSet::new(),
            deadlines: VecDeque::new(),
            incoming: BTreeMap::new(),
            oldest: HashMap::with_hasher(FixedState::with_seed(0)),
            replies: VecDeque::new(),
            delivered: VecDeque::new(),
        }
    }

    fn packet(&self, to: HostId, payload_bytes: u32, rank: u32, body: SrptBody) -> Packet<SrptBody> {
        let frame = payload_bytes + HEADERS + ETHERNET_OVERHEAD;
        Packet {
            from: self.id,
            to,
            priority: 0,
            is_marked: false,
            wire_bytes: frame.max(SHORTEST_FRAME),
            payload_bytes,
            flow: None,
            rank: u64::from(rank),
            body,
        }
    }

    fn receive_data(&mut self, from: HostId, key: u64, index: u32, size: u32, oldest: u64) {
        let known = self.oldest.entry(from).or_insert(0);
        if oldest > *known {
            *known = oldest;
            while let Some((&first, _)) = self.incoming.range((from, 0)..(from, oldest)).next() {
                self.incoming.remove(&first);
            }
        }
        if key < *known {
            return; // A copy of a packet whose acknowledgement has long arrived.
        }
        let count = packets(size);
        let message = self
            .incoming
            .entry((from, key))
            .or_insert_with(|| Incoming { missing: count, received: vec![0; count.div_ceil(64) as usize] });
        if let Some(word) = message.received.get_mut(index as usize / 64) {
            let bit = 1 << (index % 64);
            if *word & bit == 0 {
                *word |= bit;
                message.missing -= 1;
                if message.missing == 0 {
                    message.received = Vec::new();
                    self.delivered.push_back(Delivered { from, key });
                }
            }
        }
        self.replies.push_back((from, SrptBody::Ack { key, index }));
    }

    /// A packet (or a probe) of a message has arrived at its receiver.
    fn receive_ack(&mut self, key: u64, index: Option<u32>) {
        let Some(message) = self.outgoing.get_mut(&key) else { return };
        message.timeouts = 0;
        if let Some(index) = index {
            let before = message.in_flight.len() + message.lost.len();
            message.in_flight.retain(|&(sent, _)| sent != index);
            message.lost.retain(|&lost| lost != index);
            if message.in_flight.len() + message.lost.len() < before {
                message.acked_bytes += payload(message.size, index);
            }
        }
        let is_done =
            message.next == packets(message.size) && message.in_flight.is_empty() && message.lost.is_empty();
        if is_done {
            self.queue.remove(&(message.queued.unwrap_or_default(), key));
            self.open.remove(&(message.to, key));
            self.outgoing.remove(&key);
        } else {
            self.requeue(key);
        }
        self.forget_deadlines();
    }

    /// Takes away what the first deadlines no longer wait for, so that nobody wakes for it.
    fn forget_deadlines(&mut self) {
        while let Some(first) = self.deadlines.front() {
            if self.outgoing.get(&first.key).is_some_and(|message| self.is_waiting(message, first)) {
                break;
            }
            self.deadlines.pop_front();
        }
    }

    fn is_waiting(&self, message: &Outgoing, deadline: &Deadline) -> bool {
        match deadline.index {
            None => message.is_probing(&self.settings),
            Some(index) => message
                .in_flight
                .iter()
                .any(|&(sent, at)| sent == index && at.plus_nanos(self.settings.rto_ns) == deadline.at),
        }
    }

    fn expire(&mut self, now: Instant, deadline: Deadline) {
        let probe_after = self.settings.probe_after;
        let Some(message) = self.outgoing.get_mut(&deadline.key) else { return };
        if let Some(index) = deadline.index {
            let Some(at) = message.in_flight.iter().position(|&(sent, _)| sent == index) else { return };
            let (_, sent_at) = message.in_flight.remove(at);
            message.lost.push_back(index);
            // Packets of one window are one round.
            if sent_at >= message.last_timeout {
                message.last_timeout = now;
                message.timeouts = message.timeouts.saturating_add(1);
                message.is_probe_due |= message.timeouts == probe_after;
            }
        } else {
            message.is_probe_due = true;
        }
        self.requeue(deadline.key);
    }

    /// Sees to it that a message is in the queue, at its place, if and only if it has something to send.
    fn requeue(&mut self, key: u64) {
        let Some(message) = self.outgoing.get_mut(&key) else { return };
        let place = message.can_send(&self.settings).then(|| message.left());
        if place == message.queued {
            return;
        }
        if let Some(old) = message.queued {
            self.queue.remove(&(old, key));
        }
        message.queued = place;
        if let Some(new) = place {
            self.queue.insert((new, key));
        }
    }
}

impl Host for SrptHost {
    type Body = SrptBody;
    type Outcome = Delivered;

    fn handle_packet(&mut self, _now: Instant, packet: Packet<SrptBody>) {
        match packet.body {
            SrptBody::Data { key, index, size, oldest } => {
                self.receive_data(packet.from, key, index, size, oldest);
            }
            SrptBody::Ack { key, index } => self.receive_ack(key, Some(index)),
            SrptBody::Probe { key } => self.replies.push_back((packet.from, SrptBody::ProbeAck { key })),
            SrptBody::ProbeAck { key } => self.receive_ack(key, None),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(&first) = self.deadlines.front().filter(|first| first.at <= now) {
            self.deadlines.pop_front();
            if self.outgoing.get(&first.key).is_some_and(|message| self.is_waiting(message, &first)) {
                self.expire(now, first);
            }
        }
        self.forget_deadlines();
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Packet<SrptBody>> {
        if let Some((to, body)) = self.replies.pop_front() {
            return Some(self.packet(to, 0, 0, body));
        }
        let &(left, key) = self.queue.first()?;
        let message = self.outgoing.get_mut(&key)?;
        let (to, size) = (message.to, message.size);
        let at = now.plus_nanos(self.settings.rto_ns);
        let sent = if message.is_probing(&self.settings) {
            message.is_probe_due = false;
            self.deadlines.push_back(Deadline { at, key, index: None });
            self.packet(to, 0, left, SrptBody::Probe { key })
        } else {
            let index = message.lost.pop_front().unwrap_or_else(|| {
                message.next += 1;
                message.next - 1
            });
            message.in_flight.push((index, now));
            self.deadlines.push_back(Deadline { at, key, index: Some(index) });
            let oldest = self.open.range((to, 0)..).next().map_or(key, |&(_, oldest)| oldest);
            self.packet(to, payload(size, index), left, SrptBody::Data { key, index, size, oldest })
        };
        self.requeue(key);
        Some(sent)
    }

    fn poll_outcome(&mut self) -> Option<Delivered> {
        self.delivered.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|first| first.at)
    }
}

impl OneWay for SrptHost {
    fn send(&mut self, now: Instant, to: HostId, bytes: u32) -> Option<u64> {
        if self.outgoing.len() >= self.settings.max_messages {
            return None;
        }
        let key = self.next_key;
        self.next_key += 1;
        let message = Outgoing {
            to,
            size: bytes,
            acked_bytes: 0,
            next: 0,
            in_flight: Vec::new(),
            lost: VecDeque::new(),
            timeouts: 0,
            last_timeout: now,
            is_probe_due: false,
            queued: None,
        };
        self.outgoing.insert(key, message);
        self.open.insert((to, key));
        self.requeue(key);
        Some(key)
    }

    /// Nothing: the sender learns it from acknowledgements.
    fn finish(&mut self, _key: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTO: u64 = 45_000;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn host() -> SrptHost {
        SrptHost::new(0, Settings::default())
    }

    fn sent(host: &mut SrptHost, now: u64) -> Vec<Packet<SrptBody>> {
        core::iter::from_fn(|| host.poll_transmit(at(now))).collect()
    }

    fn indices(packets: &[Packet<SrptBody>]) -> Vec<u32> {
        let index = |body: &SrptBody| match body {
            SrptBody::Data { index, .. } => Some(*index),
            _ => None,
        };
        packets.iter().filter_map(|packet| index(&packet.body)).collect()
    }

    fn ack(host: &mut SrptHost, key: u64, index: u32, now: u64) {
        let mut packet = host.packet(0, 0, 0, SrptBody::Ack { key, index });
        packet.from = 1;
        host.handle_packet(at(now), packet);
    }

    #[test]
    fn poll_transmit__fewest_bytes_left_first_and_no_more_than_a_window() {
        let mut host = host();
        host.send(at(0), 1, 50_000);
        host.send(at(0), 2, 3_000);
        let packets = sent(&mut host, 0);
        let ranks: Vec<u64> = packets.iter().map(|packet| packet.rank).collect();
        assert_eq!(ranks[..4], [3_000, 3_000, 3_000, 50_000]);
        assert_eq!(packets.len(), 3 + 8);
        assert_eq!(packets[2].payload_bytes, 80);
        ack(&mut host, 0, 0, 10);
        let more = sent(&mut host, 10);
        assert_eq!((more[0].rank, indices(&more)), (50_000 - 1_460, vec![8]));
    }

    #[test]
    fn handle_timeout__only_what_was_not_acknowledged_is_sent_again() {
        let mut host = host();
        host.send(at(0), 1, 4_000);
        assert_eq!(indices(&sent(&mut host, 0)), [0, 1, 2]);
        ack(&mut host, 0, 1, 10);
        assert_eq!(host.poll_timeout(), Some(at(RTO)));
        host.handle_timeout(at(RTO));
        assert_eq!(indices(&sent(&mut host, RTO)), [0, 2]);
        ack(&mut host, 0, 0, RTO + 1);
        ack(&mut host, 0, 2, RTO + 1);
        assert_eq!(host.poll_timeout(), None);
        assert!(host.outgoing.is_empty() && host.queue.is_empty() && host.open.is_empty());
    }

    #[test]
    fn handle_timeout__after_rounds_of_losses_only_probes_until_one_is_answered() {
        let mut host = host();
        host.send(at(0), 1, 50_000);
        for round in 0..5 {
            assert_eq!(sent(&mut host, round * RTO).len(), 8, "round {round}");
            host.handle_timeout(at((round + 1) * RTO));
        }
        for round in 5..9 {
            let packets = sent(&mut host, round * RTO);
            assert!(matches!(packets[..], [Packet { body: SrptBody::Probe { key: 0 }, .. }]));
            host.handle_timeout(at((round + 1) * RTO));
        }
        let mut answer = host.packet(0, 0, 0, SrptBody::ProbeAck { key: 0 });
        answer.from = 1;
        host.handle_packet(at(9 * RTO), answer);
        assert_eq!(sent(&mut host, 9 * RTO).len(), 8);
    }

    #[test]
    fn handle_packet__a_message_is_delivered_once_and_forgotten_when_its_sender_knows() {
        let mut host = host();
        let data = |key, index, oldest| {
            let body = SrptBody::Data { key, index, size: 2_000, oldest };
            Packet { from: 1, ..SrptHost::new(1, Settings::default()).packet(0, 1_460, 2_000, body) }
        };
        for (index, delivered) in [(1, false), (1, false), (0, true), (1, false), (0, false)] {
            host.handle_packet(at(0), data(7, index, 3));
            assert_eq!(host.poll_outcome().is_some(), delivered);
        }
        assert_eq!(sent(&mut host, 0).len(), 5, "each copy is acknowledged");
        host.handle_packet(at(0), data(8, 0, 8));
        assert_eq!(host.incoming.len(), 1);
        host.handle_packet(at(0), data(7, 0, 3));
        assert_eq!((host.incoming.len(), host.poll_outcome()), (1, None));
    }

    #[test]
    fn send__refuses_beyond_the_limit() {
        let mut host = SrptHost::new(0, Settings { max_messages: 1, ..Settings::default() });
        assert_eq!(host.send(at(0), 1, 1), Some(0));
        assert_eq!(host.send(at(0), 1, 1), None);
    }
}
