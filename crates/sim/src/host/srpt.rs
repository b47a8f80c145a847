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
//!   keep it, as pFabric's do with a second search. Without it one packet in a hundred is overtaken until it
//!   counts as lost, and is sent twice (W3 and W4 at 80 % load).

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

impl Settings {
    /// What is wrong with them, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        match self {
            _ if self.window_packets == 0 => Some("the window must hold a packet"),
            _ if self.rto_ns == 0 => Some("the time until a loss must not be zero"),
            _ if self.probe_after == 0 => Some("probes begin after a loss"),
            _ => None,
        }
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
    ///
    /// # Panics
    /// If the settings have a [problem](Settings::problem).
    pub fn new(id: HostId, settings: Settings) -> SrptHost {
        assert_eq!(settings.problem(), None, "experiments check their settings first");
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
mod tests;
