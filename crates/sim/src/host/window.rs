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
/// DCTCP's marking threshold, as its paper has it for 10 Gbit/s: 65 packets of 1,500 bytes.
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
    pub fn new(id: HostId, settings: Settings) -> WindowHost {
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
        for _ in 0..self.settings.connections.max(1) {
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
        let connection = first + (count % u64::from(self.settings.connections.max(1))) as u32;
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
