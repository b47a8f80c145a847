//! TCP and DCTCP, as far as a comparison needs them: messages written one after the other into ordered streams
//! of bytes, with a congestion window found by the sender.
//!
//! ```text
//!   send ──► Sender (per destination and connection) ──► fair queue ──► network card
//!            sender.rs, congestion.rs                                        │
//!   Delivered ◄── Receiver (per source and connection), receiver.rs ◄────────┘
//! ```
//!
//! As on real hosts: slow start, congestion avoidance, NewReno's fast retransmit and recovery, limited
//! transmit, timeouts of RFC 6298 with timestamps, an initial window of 10 segments, a window that grows only
//! while it is what limits, restart from the initial window after idling for a timeout, connections that share
//! the network card in turn, one path for each connection. DCTCP adds the estimate of the share of marked
//! bytes and the reduction by it (RFC 8257). Messages wait for those before them in their stream: that is what
//! the comparison is about.
//!
//! Otherwise than on real hosts, each time in favour of TCP except where said:
//!
//! - Connections are open from the beginning, one or several for each pair of hosts and direction, used in
//!   turn. The two directions are apart, so acknowledgements do not ride on data (against TCP: 90 bytes each).
//! - Each segment is acknowledged at once; there are no delayed acknowledgements. So marks are echoed exactly.
//! - Segments are never held back (no Nagle), and messages delimit themselves at no cost.
//! - The receive window is fixed and the receiver's application takes everything at once.
//! - No selective acknowledgements, tail loss probe or RACK (against TCP). The shortest timeout, 1 ms instead
//!   of Linux's 200 ms, makes more than good for them. Timestamps have no granularity.
//! - The congestion control is NewReno's, not CUBIC. Queues of this length and round trips of microseconds
//!   leave CUBIC in its Reno region.
//! - Hosts take no time for segments and nothing is offloaded into bursts.
//!
//! What to expect: the tail of short messages follows the queues, hence [`BUFFER`] for TCP (180 us at 10 Gbit/s,
//! 75 times the least time of a short message) and [`MARK`] for DCTCP (78 us, 32 times); a threshold of a quarter
//! more than halves it. Where messages of megabytes are frequent, as in W4, one short message in a hundred or so
//! also waits for one of them in its own stream, hundreds of times its least time; several connections for each
//! pair of hosts relieve that.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use peyk_sansio::Instant;
use serde::{Deserialize, Serialize};

use super::{Delivered, Host, OneWay};
use crate::packet::Packet;
use crate::topology::{ETHERNET_OVERHEAD, HostId, SHORTEST_FRAME};

pub mod congestion;
pub mod receiver;
pub mod sender;

use receiver::Receiver;
use sender::{Segment, Sender};

/// Headers of IP and TCP with timestamps.
pub const HEADERS: u32 = 20 + 20 + 12;
/// Bytes that may wait at each link of a switch, as in the evaluations of pFabric and its followers. Deep
/// enough for DCTCP's threshold, shallow as commodity switches are.
pub const BUFFER: u64 = 225_000;
/// DCTCP's marking threshold, as its paper has it for 10 Gbit/s: 65 packets of 1,500 bytes. (The measurements of
/// Homa/Linux had 70 kB at 25 Gbit/s.)
pub const MARK: u64 = 65 * 1_500;

/// How connections behave.
#[derive(Copy, Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Connections from each host to each other.
    pub connections: u16,
    /// Bytes of the stream in a segment at most.
    pub mss: u32,
    /// Window at the beginning and after idling, in segments.
    pub initial_window: u32,
    /// Bytes that may be under way on a connection at most.
    pub receive_window: u64,
    /// Bytes that may be written and unacknowledged on a connection; messages beyond are refused.
    pub send_buffer: u64,
    /// The shortest timeout, in nanoseconds; also the first, before a round trip has been measured.
    pub min_rto_ns: u64,
    /// Whether the window falls back to the initial one after idling for a timeout.
    pub idle_restart: bool,
    /// Gain of DCTCP's estimate; `None`: TCP, which ignores marks.
    pub dctcp_gain: Option<f64>,
    /// Whether a connection keeps to one path. Packets sprayed over all paths overtake each other, which TCP
    /// takes for losses.
    pub one_path: bool,
}

impl Default for Settings {
    /// TCP with an MTU of 1,500: an MSS of 1,460 less the option of timestamps.
    fn default() -> Settings {
        Settings {
            connections: 1,
            mss: 1_448,
            initial_window: 10,
            receive_window: 1 << 20,
            send_buffer: 1 << 32,
            min_rto_ns: 1_000_000,
            idle_restart: true,
            dctcp_gain: None,
            one_path: true,
        }
    }
}

impl Settings {
    /// DCTCP with the gain its authors recommend.
    pub fn dctcp() -> Settings {
        Settings { dctcp_gain: Some(1.0 / 16.0), ..Settings::default() }
    }

    /// What is wrong with them, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        match self {
            _ if self.connections == 0 => Some("hosts need a connection"),
            _ if !(1..=1 << 16).contains(&self.mss) => Some("a segment must have 1 to 65536 bytes"),
            _ if self.initial_window == 0 => Some("the initial window must hold a segment"),
            _ if self.receive_window < 4 * u64::from(self.mss) => {
                Some("the receive window must hold four segments")
            }
            _ if self.min_rto_ns == 0 => Some("the shortest timeout must not be zero"),
            _ if self.dctcp_gain.is_some_and(|gain| !(gain > 0.0 && gain <= 1.0)) => {
                Some("the gain of DCTCP must be above 0 and at most 1")
            }
            _ => None,
        }
    }
}

/// An acknowledgement.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    /// All bytes before this have arrived.
    pub upto: u64,
    /// The segment that caused it was marked.
    pub is_marked: bool,
    /// When that segment was sent.
    pub sent_at: Instant,
}

/// What a packet carries, and the connection among those of the host that sends data on it.
#[derive(Clone, Debug)]
pub enum WindowBody {
    /// Data.
    Data(u32, Segment),
    /// An acknowledgement of data.
    Ack(u32, Ack),
}

/// One host. See the module documentation.
#[derive(Debug)]
pub struct WindowHost {
    id: HostId,
    settings: Settings,
    senders: Vec<Sender>,
    /// By destination: its first connection, and how many messages it has been sent.
    destinations: HashMap<HostId, (u32, u64), FixedState>,
    receivers: HashMap<(HostId, u32), Receiver, FixedState>,
    /// Connections that can send, each once, in turn.
    turn: VecDeque<u32>,
    is_in_turn: Vec<bool>,
    acks: VecDeque<(HostId, u32, Ack)>,
    /// At least one entry for each connection with a deadline, no later than it.
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The earliest entry of each connection.
    timer_at: Vec<Option<Instant>>,
    delivered: VecDeque<Delivered>,
    next_key: u64,
}

impl WindowHost {
    /// A host that has just started.
    ///
    /// # Panics
    /// If the settings have a [problem](Settings::problem).
    pub fn new(id: HostId, settings: Settings) -> WindowHost {
        assert_eq!(settings.problem(), None, "experiments check their settings first");
        WindowHost {
            id,
            settings,
            senders: Vec::new(),
            destinations: HashMap::with_hasher(FixedState::with_seed(0)),
            receivers: HashMap::with_hasher(FixedState::with_seed(0)),
            turn: VecDeque::new(),
            is_in_turn: Vec::new(),
            acks: VecDeque::new(),
            timers: BinaryHeap::new(),
            timer_at: Vec::new(),
            delivered: VecDeque::new(),
            next_key: 0,
        }
    }

    /// Its connections, in the order of their first use.
    pub fn senders(&self) -> &[Sender] {
        &self.senders
    }

    fn open(&mut self, now: Instant, to: HostId) -> (u32, u64) {
        let first = self.senders.len() as u32;
        for _ in 0..self.settings.connections {
            self.senders.push(Sender::new(to, self.settings, now));
            self.is_in_turn.push(false);
            self.timer_at.push(None);
        }
        (first, 0)
    }

    /// Something has changed for a connection: gives it its turn and its timer.
    fn attend(&mut self, connection: u32) {
        let at = connection as usize;
        if !self.is_in_turn[at] && self.senders[at].can_send() {
            self.is_in_turn[at] = true;
            self.turn.push_back(connection);
        }
        let Some(deadline) = self.senders[at].deadline() else { return };
        if self.timer_at[at].is_none_or(|timer| timer > deadline) {
            self.timer_at[at] = Some(deadline);
            self.timers.push(Reverse((deadline, connection)));
        }
    }

    fn packet(
        &self,
        to: HostId,
        connection: u32,
        payload_bytes: u32,
        body: WindowBody,
    ) -> Packet<WindowBody> {
        let frame = payload_bytes + HEADERS + ETHERNET_OVERHEAD;
        Packet {
            from: self.id,
            to,
            priority: 0,
            is_marked: false,
            wire_bytes: frame.max(SHORTEST_FRAME),
            payload_bytes,
            flow: self.settings.one_path.then_some(connection),
            rank: 0,
            body,
        }
    }

    fn receive(&mut self, from: HostId, connection: u32, segment: &Segment, is_marked: bool) {
        let receiver = self.receivers.entry((from, connection)).or_default();
        let (delivered, room) = (&mut self.delivered, self.settings.receive_window);
        receiver.take(segment.seq, segment.len, &segment.ends, room, |key| {
            delivered.push_back(Delivered { from, key });
        });
        let ack = Ack { upto: receiver.next(), is_marked, sent_at: segment.sent_at };
        self.acks.push_back((from, connection, ack));
    }
}

impl Host for WindowHost {
    type Body = WindowBody;
    type Outcome = Delivered;

    fn handle_packet(&mut self, now: Instant, packet: Packet<WindowBody>) {
        match packet.body {
            WindowBody::Data(connection, segment) => {
                self.receive(packet.from, connection, &segment, packet.is_marked);
            }
            WindowBody::Ack(connection, ack) => {
                let Some(sender) = self.senders.get_mut(connection as usize) else { return };
                sender.handle_ack(now, &ack);
                self.attend(connection);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(&Reverse((at, connection))) = self.timers.peek().filter(|first| first.0.0 <= now) {
            self.timers.pop();
            let timer = &mut self.timer_at[connection as usize];
            if *timer != Some(at) {
                continue; // An earlier one has taken its place.
            }
            *timer = None;
            let sender = &mut self.senders[connection as usize];
            if sender.deadline().is_some_and(|deadline| deadline <= now) {
                sender.handle_timeout(now);
            }
            self.attend(connection);
        }
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Packet<WindowBody>> {
        if let Some((to, connection, ack)) = self.acks.pop_front() {
            return Some(self.packet(to, connection, 0, WindowBody::Ack(connection, ack)));
        }
        while let Some(connection) = self.turn.pop_front() {
            self.is_in_turn[connection as usize] = false;
            let sender = &mut self.senders[connection as usize];
            let to = sender.to;
            let Some(segment) = sender.next_segment(now) else { continue };
            self.attend(connection);
            return Some(self.packet(to, connection, segment.len, WindowBody::Data(connection, segment)));
        }
        None
    }

    fn poll_outcome(&mut self) -> Option<Delivered> {
        self.delivered.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|first| first.0.0)
    }
}

impl OneWay for WindowHost {
    fn send(&mut self, now: Instant, to: HostId, bytes: u32) -> Option<u64> {
        let (first, count) = match self.destinations.get(&to) {
            Some(&known) => known,
            None => self.open(now, to),
        };
        self.destinations.insert(to, (first, count + 1));
        let connection = first + (count % u64::from(self.settings.connections)) as u32;
        let key = self.next_key;
        if !self.senders[connection as usize].write(bytes, key) {
            return None;
        }
        self.next_key += 1;
        self.attend(connection);
        Some(key)
    }

    /// Nothing: the sender learns it from acknowledgements.
    fn finish(&mut self, _key: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem__names_what_cannot_work() {
        let good = Settings::default();
        assert_eq!((good.problem(), Settings::dctcp().problem()), (None, None));
        for (settings, word) in [
            (Settings { connections: 0, ..good }, "connection"),
            (Settings { mss: 0, ..good }, "segment"),
            (Settings { initial_window: 0, ..good }, "initial window"),
            (Settings { receive_window: 5_000, ..good }, "receive window"),
            (Settings { min_rto_ns: 0, ..good }, "timeout"),
            (Settings { dctcp_gain: Some(f64::NAN), ..good }, "gain"),
        ] {
            assert!(settings.problem().is_some_and(|problem| problem.contains(word)), "{settings:?}");
        }
    }

    #[test]
    fn poll_transmit__connections_take_turns_and_acknowledgements_go_first() {
        let now = Instant::from_nanos(0);
        let mut host = WindowHost::new(0, Settings { connections: 2, ..Settings::default() });
        (0..3).for_each(|_| _ = host.send(now, 1, 3_000));
        host.send(now, 2, 3_000);
        let segment = Segment { seq: 0, len: 100, ends: Vec::new(), sent_at: now };
        let data = host.packet(0, 7, 100, WindowBody::Data(7, segment));
        host.handle_packet(now, Packet { from: 3, ..data });
        let order: Vec<(HostId, u32)> = core::iter::from_fn(|| host.poll_transmit(now))
            .map(|packet| match packet.body {
                WindowBody::Ack(connection, _) | WindowBody::Data(connection, _) => (packet.to, connection),
            })
            .collect();
        // The first connection has two messages: five segments.
        let turns = [(1, 0), (1, 1), (2, 2), (1, 0), (1, 1), (2, 2), (1, 0), (1, 1), (2, 2), (1, 0), (1, 0)];
        assert_eq!((order[0], &order[1..]), ((3, 7), &turns[..]));
    }
}
