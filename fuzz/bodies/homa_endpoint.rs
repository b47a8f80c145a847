//! Any bytes as a story of one endpoint: packets of three hosts, calls of the application, time.
//!
//! ```text
//!   3 bytes of configuration | operation, its arguments | operation, ...
//! ```
//!
//! Claims: no panic; every limit holds; each request gets exactly one outcome, none after an
//! abort; what is sent is well-formed and fits the link; once the network is silent and the
//! application has answered, everything ends and all memory comes home; and then as much is
//! accepted as by a new endpoint.

use peyk_homa::{
    Config, Endpoint, Event, Pacing, Path, PeerAddr, Reason, RequestOptions, RpcId, ServerRpc, SocketId,
    SocketOptions, Unreachable,
};
use peyk_sansio::Instant;
use peyk_sockbuf::{Message, Payload, Pool};
use peyk_wire::homa::{
    Ack, AckEntry, Cutoffs, Data, Grant, Header, Packet, PacketType, Resend, UnreachableCode,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const PORT: u16 = 99;
const FOREIGN_PORT: u16 = 40_000;
const FOREIGN_ID: u64 = 0x1234_5678_0000;
/// Sent packets kept to be reflected.
const KEPT_PACKETS: usize = 64;
/// Received messages the application keeps, to make memory short.
const KEPT_MESSAGES: usize = 8;
/// Time after the last packet in which everything must have ended.
const AFTERMATH: Duration = Duration::from_secs(60);
/// What the tightest configuration takes at once: of one peer's RPCs, of one socket's requests.
const ANEW_SENT: usize = 6;
const ANEW_RECEIVED: u64 = 4;
const ANEW_ID: u64 = 0x7777_0000_0000;
const LENGTHS: [u32; 8] = [1, 100, 1424, 5000, 40_000, 60_000, 300_000, 1_000_000];
const OFFSETS: [u32; 8] = [0, 1424, 2848, 4272, 39_872, 40_000, 1_000_000, u32::MAX];
const TIMES_US: [u64; 8] = [0, 1, 100, 1000, 5000, 20_000, 150_000, 5_000_000];
static BYTES: [u8; 9000] = [0x5a; 9000];
static MEGABYTE: [u8; 1_000_000] = [0xa5; 1_000_000];

/// How often what happened in a story: tells whether the inputs reach anything.
#[derive(Copy, Clone, Debug, Default)]
pub struct Tally {
    pub requests: u64,
    pub responses: u64,
    pub failures: u64,
    pub cancellations: u64,
    pub refusals: u64,
}

/// Does what the target claims with one input; panics where a claim fails.
pub fn run(bytes: &[u8]) -> Tally {
    let mut input = Input(bytes);
    let mut world = World::new(&mut input);
    while let Some(operation) = input.next() {
        world.operate(operation, &mut input);
        world.check();
    }
    world.finish();
    let tally = world.tally;
    world.start_anew();
    tally
}

/// The bytes not read yet; zeros follow the last.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// One of the usual values, or any.
    fn pick(&mut self, usual: &[u32]) -> u32 {
        match self.byte() {
            255 => self.number(),
            byte => usual[usize::from(byte) % usual.len()],
        }
    }

    fn path(&mut self) -> Path {
        path(self.byte())
    }
}

/// The way to one of three hosts.
fn path(n: u8) -> Path {
    let (ip, port): (IpAddr, u16) = match n % 3 {
        0 => (Ipv4Addr::new(10, 0, 0, 100).into(), 0),
        1 => (Ipv4Addr::new(10, 0, 0, 101).into(), 14600),
        _ => (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(), 14600),
    };
    Path { remote: SocketAddr::new(ip, port), local: 0 }
}

struct World {
    now: Instant,
    endpoint: Endpoint,
    config: Config,
    sockets: Vec<SocketId>,
    /// Requests without an outcome, by id, with their cookies.
    waiting: BTreeMap<u64, (SocketId, u64)>,
    /// Ids of our last requests, to forge answers with.
    ids: VecDeque<RpcId>,
    serving: Vec<ServerRpc>,
    messages: VecDeque<Message>,
    sent: VecDeque<(Path, Vec<u8>)>,
    tally: Tally,
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let (flags, seed, pages) = (input.byte(), input.byte(), input.byte());
        let config = config(flags);
        let now = Instant::from_nanos(10_000_000_000);
        let pool = Pool::new(1 + u32::from(pages % 32));
        let mut endpoint = Endpoint::new(config.clone(), u64::from(seed), pool, now).expect("it is valid");
        let server = endpoint.open_socket(Some(PORT), SocketOptions::default()).expect("it is free");
        let client = endpoint.open_socket(None, SocketOptions::default()).expect("it is free");
        World {
            now,
            endpoint,
            config,
            sockets: vec![server, client],
            waiting: BTreeMap::new(),
            ids: VecDeque::new(),
            serving: Vec::new(),
            messages: VecDeque::new(),
            sent: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    fn operate(&mut self, operation: u8, input: &mut Input<'_>) {
        match operation % 16 {
            0 => {
                let path = input.path();
                let length = usize::from(input.byte()).min(input.0.len());
                let (packet, rest) = input.0.split_at(length);
                input.0 = rest;
                self.endpoint.handle_packet(self.now, &path, packet);
            }
            1..=3 => self.forge(input),
            4 => self.reflect(input),
            5 => self.reflect_all(),
            6 => self.send_request(input),
            7 => self.answer(input),
            8 => self.abort(input),
            9 | 10 => self.pass(Duration::from_micros(TIMES_US[usize::from(input.byte() % 8)])),
            11 => self.report(input),
            12 => self.open_or_close(input),
            13 => {
                self.messages.pop_front();
            }
            _ => self.drain(),
        }
    }

    /// A packet with plausible fields, so that most of them reach an RPC.
    fn forge(&mut self, input: &mut Input<'_>) {
        let path = input.path();
        let kind = PacketType::ALL[usize::from(input.byte()) % PacketType::ALL.len()];
        let who = input.byte();
        let header = match who % 4 {
            0 | 1 => Header::new(kind, FOREIGN_PORT, PORT, FOREIGN_ID + 2 * u64::from(who >> 4)),
            2 => {
                let client = self.sockets.last().and_then(|socket| self.endpoint.port(*socket));
                let id = self.ids.get(usize::from(who >> 2)).map_or(7, |id| id.0 | 1);
                Header::new(kind, PORT, client.unwrap_or(PORT), id)
            }
            _ => {
                let (ports, id) = (input.number(), input.number());
                Header::new(kind, (ports >> 16) as u16, ports as u16, u64::from(id))
            }
        };
        let mut bytes = [0; 9100];
        let length = forged(header, input).emit(&mut bytes);
        self.endpoint.handle_packet(self.now, &path, &bytes[..length]);
    }

    /// What we sent comes back from where it went: both sides of an RPC are ours.
    fn reflect(&mut self, input: &mut Input<'_>) {
        let index = usize::from(input.byte());
        let Some((path, mut bytes)) = self.sent.get(index % KEPT_PACKETS).cloned() else { return };
        let (at, change) = (usize::from(input.byte()), input.byte());
        if let Some(byte) = bytes.get_mut(at).filter(|_| at < 80 && change < 64) {
            *byte = byte.wrapping_add(change);
        }
        self.endpoint.handle_packet(self.now, &path, &bytes);
    }

    fn reflect_all(&mut self) {
        for (path, bytes) in std::mem::take(&mut self.sent) {
            self.endpoint.handle_packet(self.now, &path, &bytes);
        }
        self.drain();
    }

    fn send_request(&mut self, input: &mut Input<'_>) {
        let socket = self.socket(input);
        let to = PeerAddr { path: input.path(), port: PORT };
        let length = input.pick(&LENGTHS).min(MEGABYTE.len() as u32) as usize;
        let deadline = match input.byte() % 4 {
            0 => Some(self.now + Duration::from_micros(TIMES_US[usize::from(input.byte() % 8)])),
            _ => None,
        };
        let cookie = u64::from(input.byte());
        let message = Payload::from(&MEGABYTE[..length]);
        let options = RequestOptions { cookie, deadline };
        match self.endpoint.send_request(self.now, socket, to, message, options) {
            Ok(rpc) => {
                assert_eq!(rpc.0 & 1, 0, "ids of clients are even");
                assert!(self.waiting.insert(rpc.0, (socket, cookie)).is_none(), "the id is in use");
                self.ids.push_front(rpc);
                self.ids.truncate(64);
            }
            Err(_) => self.tally.refusals += 1,
        }
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        if self.serving.is_empty() {
            return;
        }
        let index = usize::from(input.byte()) % self.serving.len();
        let rpc = self.serving[index];
        let was_waiting = self.endpoint.is_waiting(rpc);
        let how = input.byte();
        if how & 7 == 0 {
            let reasons = [Reason::Aborted, Reason::Overloaded, Reason::TooLarge, Reason::Closing];
            self.endpoint.reject(self.now, rpc, reasons[usize::from(how >> 3) % 4]);
        } else {
            let length = input.pick(&LENGTHS).min(MEGABYTE.len() as u32) as usize;
            let answer = self.endpoint.reply(self.now, rpc, Payload::from(&MEGABYTE[..length]));
            assert!(was_waiting || answer.is_err(), "nobody waits, but the reply is taken");
            if answer.is_err() && self.endpoint.is_waiting(rpc) {
                return;
            }
        }
        assert!(!self.endpoint.is_waiting(rpc), "answered twice");
        self.serving.swap_remove(index);
    }

    fn abort(&mut self, input: &mut Input<'_>) {
        let Some(rpc) = self.ids.get(usize::from(input.byte())).copied() else { return };
        let socket = self.waiting.get(&rpc.0).map_or(self.sockets[0], |(socket, _)| *socket);
        if self.endpoint.abort(self.now, socket, rpc) {
            assert!(self.waiting.remove(&rpc.0).is_some(), "it had an outcome, but was aborted");
        }
    }

    fn report(&mut self, input: &mut Input<'_>) {
        let remote = input.path().remote;
        let how = input.byte();
        let why = match how % 4 {
            0 => Unreachable::Port { homa_port: None },
            1 => Unreachable::Port { homa_port: Some(PORT) },
            2 => Unreachable::Protocol,
            _ => Unreachable::Host,
        };
        let id = self.ids.get(usize::from(how >> 3)).filter(|_| how & 4 != 0).map(|rpc| rpc.0);
        self.endpoint.handle_unreachable(self.now, remote, why, id);
    }

    fn open_or_close(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        if how & 1 == 0 {
            let port = (how & 3 == 0).then_some(PORT + u16::from(how >> 4));
            let options = SocketOptions { server: how & 8 == 0, ..SocketOptions::default() };
            self.sockets.extend(self.endpoint.open_socket(port, options));
        } else if self.sockets.len() > 1 {
            let socket = self.sockets.swap_remove(usize::from(how >> 1) % self.sockets.len());
            self.endpoint.close_socket(self.now, socket);
        }
    }

    fn socket(&self, input: &mut Input<'_>) -> SocketId {
        self.sockets[usize::from(input.byte()) % self.sockets.len()]
    }

    /// Lets time pass as a driver would: every deadline is kept, and all output is taken.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut idle_rounds = 0;
        self.drain();
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= end) {
            idle_rounds = if at > self.now { 0 } else { idle_rounds + 1 };
            assert!(idle_rounds < 100, "the same deadline for ever");
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.endpoint.handle_timeout(end);
        self.drain();
    }

    /// Takes all events and packets.
    fn drain(&mut self) {
        let config = &self.config;
        // No RPC is accepted over `max_events`; those there are may still end, and sockets may
        // become writable.
        let most = config.max_events + 2 * config.max_rpcs + config.max_sockets;
        loop {
            let mut is_done = true;
            let mut events = 0;
            while let Some(event) = self.endpoint.poll_event() {
                is_done = false;
                events += 1;
                self.event(event);
            }
            assert!(events <= most, "{events} events waited");
            while let Some(transmit) = self.endpoint.poll_transmit(self.now) {
                is_done = false;
                assert!(transmit.priority <= 7);
                let mut bytes = Vec::with_capacity(transmit.len());
                transmit.write_to(&mut bytes);
                self.check_packet(&transmit.path, &bytes);
                if self.sent.len() == KEPT_PACKETS {
                    self.sent.pop_front();
                }
                self.sent.push_back((transmit.path, bytes));
            }
            if is_done {
                return;
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Request { rpc, message, .. } => {
                self.tally.requests += 1;
                assert!(!message.is_empty());
                self.serving.push(rpc);
                self.keep(message);
            }
            Event::Response { socket, rpc, cookie, message, .. } => {
                self.tally.responses += 1;
                assert!(!message.is_empty());
                assert_eq!(self.waiting.remove(&rpc.0), Some((socket, cookie)), "one outcome each");
                self.keep(message);
            }
            Event::Failed { socket, rpc, cookie, .. } => {
                self.tally.failures += 1;
                assert_eq!(self.waiting.remove(&rpc.0), Some((socket, cookie)), "one outcome each");
            }
            Event::Cancelled { rpc, .. } => {
                self.tally.cancellations += 1;
                assert!(!self.endpoint.is_waiting(rpc));
                self.serving.retain(|other| *other != rpc);
            }
            Event::Writable { .. } => {}
        }
    }

    fn keep(&mut self, message: Message) {
        if self.messages.len() == KEPT_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(message);
    }

    fn check_packet(&self, path: &Path, bytes: &[u8]) {
        let packet = Packet::parse(bytes).expect("what is sent is well-formed");
        let ip = if path.remote.is_ipv4() { 20 } else { 40 };
        let udp = if path.remote.port() == 0 { 0 } else { 8 };
        assert!(ip + udp + bytes.len() <= self.config.mtu as usize, "{packet} of {} bytes", bytes.len());
        assert_eq!(packet.emit_len(), bytes.len(), "{packet} has a tail");
        match packet {
            Packet::Data(data) => assert!(!data.payload.is_empty(), "{packet} has no payload"),
            Packet::Unreachable(_) => assert!(self.config.unreachable_packets),
            Packet::Freeze(_) => panic!("nobody sends FREEZE"),
            _ => {}
        }
    }

    /// The limits, after each operation.
    fn check(&mut self) {
        let (endpoint, config) = (&mut self.endpoint, &self.config);
        assert!(endpoint.rpc_count() <= config.max_rpcs as usize);
        assert!(endpoint.peer_count() <= config.max_peers as usize);
        assert!(endpoint.socket_count() <= config.max_sockets as usize);
        assert!(endpoint.waiting_for_memory() <= config.max_memory_waiters as usize);
        let last = u64::from(config.max_message);
        assert!(endpoint.send_bytes() < config.max_send_bytes + last);
        assert!(endpoint.pool().free_pages() <= endpoint.pool().total_pages());
    }

    /// The network falls silent, the application answers what it has: all must end.
    fn finish(&mut self) {
        self.messages.clear();
        self.drain();
        let until = self.now + AFTERMATH;
        while self.now < until && !(self.endpoint.is_idle() && self.endpoint.poll_timeout().is_none()) {
            for rpc in std::mem::take(&mut self.serving) {
                self.endpoint.reject(self.now, rpc, Reason::Aborted);
            }
            self.messages.clear();
            let next = self.endpoint.poll_timeout().unwrap_or(until);
            self.pass(next.saturating_since(self.now));
            self.check();
        }
        self.messages.clear();
        assert!(self.waiting.is_empty(), "no outcome: {:x?}", self.waiting);
        assert_eq!(self.endpoint.rpc_count(), 0, "RPCs that never end");
        assert_eq!(self.endpoint.send_bytes(), 0);
        assert_eq!(self.endpoint.waiting_for_memory(), 0);
        assert_eq!(self.endpoint.total_incoming(), 0, "grants to nobody");
        let pool = self.endpoint.pool();
        assert_eq!(pool.free_pages(), pool.total_pages(), "pages are lost");
    }

    /// All that a new endpoint takes is taken again: no count has leaked.
    fn start_anew(&mut self) {
        let client = self.sockets[0];
        for n in 0..3 {
            // A peer must be idle for a while before it makes room for the next.
            self.pass(AFTERMATH);
            let to = PeerAddr { path: path(n), port: PORT };
            let ids = [(); ANEW_SENT].map(|()| {
                let message = Payload::from(&MEGABYTE[..1]);
                let sent =
                    self.endpoint.send_request(self.now, client, to, message, RequestOptions::default());
                sent.unwrap_or_else(|error| panic!("a request to an idle peer: {error}"))
            });
            for id in ids {
                assert!(self.endpoint.abort(self.now, client, id));
            }
        }
        let is_server = |socket: &&SocketId| self.endpoint.port(**socket) == Some(PORT);
        if !self.sockets.iter().any(|socket| is_server(&socket)) {
            self.endpoint.close_socket(self.now, client);
            self.endpoint.open_socket(Some(PORT), SocketOptions::default()).expect("it is free");
        }
        self.pass(AFTERMATH);
        self.serving.clear();
        for i in 0..ANEW_RECEIVED {
            let header = Header::new(PacketType::Data, FOREIGN_PORT, PORT, ANEW_ID + 2 * i);
            let mut bytes = [0; 57];
            Data::new(header, 1, 1, 0, &BYTES[..1]).emit(&mut bytes);
            self.endpoint.handle_packet(self.now, &path(0), &bytes);
            // One at a time: in a pool of few pages each message may need a page of its own.
            self.drain();
            self.messages.clear();
        }
        assert_eq!(self.serving.len(), ANEW_RECEIVED as usize, "requests to an idle server");
    }
}

/// Small limits, so that a short story reaches them.
fn config(flags: u8) -> Config {
    let mut config = Config {
        resend_ticks: 2,
        resend_interval: 2,
        timeout_ticks: 12,
        mtu: [1500, 9000, 256, 1500][usize::from(flags & 3)],
        pacing: match (flags >> 2) & 3 {
            0 | 1 => Pacing::Off,
            2 => Pacing::NicEstimate,
            _ => Pacing::TokenBucket { bytes_per_sec: 1_000_000_000, burst_bytes: 20_000 },
        },
        unreachable_packets: flags & 16 == 0,
        adaptive_cutoffs: flags & 32 == 0,
        ..Config::default()
    };
    if flags & 64 == 0 {
        config.max_rpcs = 12;
        config.max_socket_rpcs = 8;
        config.max_peer_rpcs = 6;
        config.max_unanswered = 4;
        config.wmem_max = 500_000;
        config.max_send_bytes = 1_000_000;
        config.max_sockets = 4;
        config.max_events = 8;
        config.max_control = 8;
        config.max_gaps = 4;
        config.max_retransmits = 4;
        config.max_memory_waiters = 2;
        config.max_peers = 2;
        config.max_completed_chunks = 4;
    }
    config
}

/// A packet of the header's type with plausible fields.
fn forged<'a>(header: Header, input: &mut Input<'_>) -> Packet<'a> {
    match header.kind {
        PacketType::Data => {
            let length = input.pick(&LENGTHS);
            let offset = input.pick(&OFFSETS);
            let payload = [0, 1, 100, 1424, 1404, 8924][usize::from(input.byte()) % 6];
            let payload = payload.min(length.saturating_sub(offset)) as usize;
            let incoming = input.pick(&OFFSETS);
            let mut data = Data::new(header, length, incoming, offset, &BYTES[..payload]);
            let more = input.byte();
            data.retransmit = more & 1;
            data.cutoff_version = u16::from(more >> 1 & 3);
            if more & 8 != 0 {
                let client_id = FOREIGN_ID + 2 * u64::from(more >> 4);
                data.ack = AckEntry { client_id, server_port: PORT };
            }
            Packet::Data(data)
        }
        PacketType::Grant => Packet::Grant(Grant::new(header, input.pick(&OFFSETS), input.byte())),
        PacketType::Resend => {
            let (offset, length) = (input.pick(&OFFSETS), input.pick(&OFFSETS));
            Packet::Resend(Resend::new(header, offset, length, input.byte()))
        }
        PacketType::Cutoffs => {
            let cutoffs = [(); 8].map(|()| input.pick(&LENGTHS));
            Packet::Cutoffs(Cutoffs::new(header, cutoffs, u16::from(input.byte())))
        }
        PacketType::Ack => {
            let count = usize::from(input.byte() % 6);
            let entry = |i: u64| AckEntry { client_id: FOREIGN_ID + 2 * i, server_port: PORT };
            let entries = [0, 1, 2, 3, 4].map(entry);
            Packet::Ack(Ack::new(header, &entries[..count]))
        }
        PacketType::Unreachable => {
            let code = UnreachableCode::from_code(input.byte() % 8);
            Packet::Unreachable(peyk_wire::homa::Unreachable::new(header, code))
        }
        PacketType::RpcUnknown => Packet::RpcUnknown(header),
        PacketType::Busy => Packet::Busy(header),
        PacketType::Freeze => Packet::Freeze(header),
        PacketType::NeedAck => Packet::NeedAck(header),
    }
}
