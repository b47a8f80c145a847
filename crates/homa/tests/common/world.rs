//! Some endpoints and a scripted wire between them, on virtual time.
//!
//! Host `i` has the address 10.0.0.(i + 1). Every packet takes `latency`, unless
//! `rule` says otherwise about it; packets of equal arrival time keep their
//! order. When a test panics the packet trace is printed.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use peyk_homa::{
    Config, Endpoint, Event, Path, PeerAddr, RequestOptions, RpcError, RpcId, ServerRpc, SocketId,
    SocketOptions,
};
use peyk_sansio::Instant;
use peyk_sockbuf::{Payload, Pool};
use peyk_wire::homa::{Packet, PacketType};

use super::packets::{PORT, Sent};
use super::trace::Trace;

/// Index of the host that plays the client in tests of two.
pub const CLIENT: usize = 0;
/// Index of the host that plays the server in tests of two.
pub const SERVER: usize = 1;

/// What the wire does to a packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Drop,
    /// Arrives twice, the second time later by this much.
    Duplicate(Duration),
    /// Arrives later by this much.
    Delay(Duration),
    /// The byte at this position (modulo the length) arrives with its bits flipped.
    Corrupt(usize),
}

/// A packet about to travel.
pub struct Seen<'a> {
    pub now: Instant,
    pub from: usize,
    pub to: usize,
    pub priority: u8,
    pub bytes: &'a [u8],
}

impl Seen<'_> {
    pub fn packet(&self) -> Packet<'_> {
        Packet::parse(self.bytes).expect("an endpoint sends well-formed packets")
    }

    pub fn kind(&self) -> PacketType {
        self.packet().kind()
    }

    pub fn is(&self, kind: PacketType) -> bool {
        self.kind() == kind
    }
}

type Rule = Box<dyn FnMut(&Seen<'_>) -> Verdict>;

/// One endpoint and what it told its application.
pub struct Host {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    /// Its socket: the server's at `PORT`, an automatic one at clients.
    pub socket: SocketId,
    pub events: VecDeque<Event>,
    /// Everything it sent.
    pub sent: Vec<Sent>,
    /// Packets to it vanish, its timers do not run.
    pub is_down: bool,
}

/// Endpoints, wire and clock.
pub struct World {
    pub now: Instant,
    pub hosts: Vec<Host>,
    pub latency: Duration,
    pub rule: Rule,
    pub trace: Trace,
    /// Server hosts answer requests with the same bytes by themselves.
    pub is_echo: bool,
    wire: BTreeMap<(Instant, u64), Flight>,
    flights: u64,
}

struct Flight {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

impl World {
    /// A client and a server with default settings.
    pub fn pair() -> World {
        World::with(Config::default(), Config::default())
    }

    /// A client and a server with these settings.
    pub fn with(client: Config, server: Config) -> World {
        World::of(vec![(client, false, 256), (server, true, 256)])
    }

    /// Hosts given by settings, whether they serve `PORT`, and pages of pool.
    pub fn of(hosts: Vec<(Config, bool, u32)>) -> World {
        let now = Instant::from_nanos(1_000_000_000);
        let mut world = World {
            now,
            hosts: Vec::new(),
            latency: Duration::from_micros(10),
            rule: Box::new(|_| Verdict::Pass),
            trace: Trace::default(),
            is_echo: true,
            wire: BTreeMap::new(),
            flights: 0,
        };
        for (i, (config, is_server, pages)) in hosts.into_iter().enumerate() {
            let host = make_host(i, config, is_server, pages, i as u64 + 1, now);
            world.hosts.push(host);
        }
        world
    }

    /// Replaces a host by a fresh one at the same address: it has restarted.
    pub fn restart(&mut self, host: usize, seed: u64, pages: u32) {
        let config = self.hosts[host].endpoint.config().clone();
        let is_server = self.port_of(host) == PORT;
        let (sent, now) = (std::mem::take(&mut self.hosts[host].sent), self.now);
        self.hosts[host] = make_host(host, config, is_server, pages, seed, now);
        self.hosts[host].sent = sent;
        self.trace.note(now, format!("host {host} restarts"));
    }

    /// How `from` reaches `to`.
    pub fn path_to(&self, to: usize) -> Path {
        Path { remote: self.hosts[to].address, local: 0 }
    }

    /// The server socket of a host.
    pub fn server_at(&self, to: usize) -> PeerAddr {
        PeerAddr { path: self.path_to(to), port: PORT }
    }

    fn port_of(&self, host: usize) -> u16 {
        self.hosts[host].endpoint.port(self.hosts[host].socket).unwrap_or(0)
    }

    /// Sends a request from the client to the server.
    pub fn request(&mut self, message: impl Into<Payload>) -> RpcId {
        self.request_with(CLIENT, SERVER, message, RequestOptions::default())
    }

    /// Sends a request between any two hosts.
    pub fn request_with(
        &mut self,
        from: usize,
        to: usize,
        message: impl Into<Payload>,
        options: RequestOptions,
    ) -> RpcId {
        let server = self.server_at(to);
        let host = &mut self.hosts[from];
        let sent = host.endpoint.send_request(self.now, host.socket, server, message.into(), options);
        let rpc = sent.expect("request accepted");
        self.drain(from);
        rpc
    }

    /// Answers a request.
    pub fn reply(&mut self, host: usize, rpc: ServerRpc, message: impl Into<Payload>) {
        let reply = self.hosts[host].endpoint.reply(self.now, rpc, message.into());
        reply.expect("reply accepted");
        self.drain(host);
    }

    /// Abandons a request of the client.
    pub fn abort(&mut self, rpc: RpcId) -> bool {
        let host = &mut self.hosts[CLIENT];
        let known = host.endpoint.abort(self.now, host.socket, rpc);
        self.drain(CLIENT);
        known
    }

    /// Feeds bytes to a host as if another one had sent them.
    pub fn inject(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let (source, target) = (self.hosts[from].address, self.hosts[to].address);
        self.trace.packet(self.now, source, target, 0, bytes, "injected");
        let path = self.path_to(from);
        self.hosts[to].endpoint.handle_packet(self.now, &path, bytes);
        self.drain(to);
    }

    /// Does the next thing that is to happen. False if nothing ever will.
    pub fn step(&mut self) -> bool {
        self.step_until(Instant::from_nanos(u64::MAX))
    }

    /// Runs until nothing is left to happen or a second has passed.
    pub fn settle(&mut self) {
        self.run(Duration::from_secs(1));
    }

    /// Runs for this long.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0u32;
        while self.step_until(end) {
            steps += 1;
            assert!(steps < 20_000_000, "the world does not come to rest");
        }
        self.now = end;
    }

    /// Does the next thing that is to happen before `end`, if there is one.
    fn step_until(&mut self, end: Instant) -> bool {
        let arrival = self.wire.first_key_value().map(|(&(at, _), _)| at);
        let timer = |h: &Host| if h.is_down { None } else { h.endpoint.poll_timeout() };
        let timeout = self.hosts.iter().filter_map(timer).min();
        let Some(at) = [arrival, timeout].into_iter().flatten().min().filter(|&at| at <= end) else {
            return false;
        };
        self.now = self.now.max(at);
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let flight = entry.remove();
            self.deliver(&flight);
        }
        for i in 0..self.hosts.len() {
            let is_due = timer(&self.hosts[i]).is_some_and(|at| at <= self.now);
            if is_due {
                self.hosts[i].endpoint.handle_timeout(self.now);
                self.drain(i);
                let next = timer(&self.hosts[i]);
                let is_stuck = next.is_some_and(|at| at <= self.now);
                assert!(!is_stuck, "host {i} asks for a time-out at or before the present");
            }
        }
        true
    }

    fn deliver(&mut self, flight: &Flight) {
        if self.hosts[flight.to].is_down {
            return;
        }
        let path = self.path_to(flight.from);
        self.hosts[flight.to].endpoint.handle_packet(self.now, &path, &flight.bytes);
        self.drain(flight.to);
    }

    /// Takes what a host has to tell and to send.
    pub fn drain(&mut self, host: usize) {
        loop {
            let mut is_quiet = true;
            while let Some(event) = self.hosts[host].endpoint.poll_event() {
                is_quiet = false;
                self.trace.note(self.now, format!("host {host}: {}", describe(&event)));
                self.on_event(host, event);
            }
            while let Some(transmit) = self.hosts[host].endpoint.poll_transmit(self.now) {
                is_quiet = false;
                let sent = Sent::new(&transmit);
                self.transmit(host, transmit.path.remote, sent);
            }
            if is_quiet {
                return;
            }
        }
    }

    fn on_event(&mut self, host: usize, event: Event) {
        match event {
            Event::Request { rpc, ref message, .. } if self.is_echo => {
                let reply = Payload::from(message.clone());
                self.hosts[host].endpoint.reply(self.now, rpc, reply).expect("echo accepted");
            }
            event => self.hosts[host].events.push_back(event),
        }
    }

    fn transmit(&mut self, from: usize, remote: SocketAddr, sent: Sent) {
        let to = self.hosts.iter().position(|h| h.address == remote);
        let verdict = match to {
            Some(to) => {
                let seen = Seen { now: self.now, from, to, priority: sent.priority, bytes: &sent.bytes };
                (self.rule)(&seen)
            }
            None => Verdict::Drop,
        };
        let note = match verdict {
            Verdict::Pass => "",
            Verdict::Drop => "dropped",
            Verdict::Duplicate(_) => "duplicated",
            Verdict::Delay(_) => "delayed",
            Verdict::Corrupt(_) => "corrupted on the way",
        };
        let source = self.hosts[from].address;
        self.trace.packet(self.now, source, remote, sent.priority, &sent.bytes, note);
        if let Some(to) = to {
            let mut bytes = sent.bytes.clone();
            let at = self.now + self.latency;
            match verdict {
                Verdict::Drop => {}
                Verdict::Pass => self.put(at, Flight { from, to, bytes }),
                Verdict::Delay(more) => self.put(at + more, Flight { from, to, bytes }),
                Verdict::Duplicate(more) => {
                    self.put(at, Flight { from, to, bytes: bytes.clone() });
                    self.put(at + more, Flight { from, to, bytes });
                }
                Verdict::Corrupt(position) => {
                    let position = position % bytes.len();
                    bytes[position] ^= 0xff;
                    self.put(at, Flight { from, to, bytes });
                }
            }
        }
        self.hosts[from].sent.push(sent);
    }

    fn put(&mut self, at: Instant, flight: Flight) {
        self.flights += 1;
        self.wire.insert((at, self.flights), flight);
    }

    /// Packets on the way.
    pub fn in_flight(&self) -> usize {
        self.wire.len()
    }

    /// The next event of a host; panics if there is none.
    pub fn event(&mut self, host: usize) -> Event {
        let event = self.hosts[host].events.pop_front();
        event.unwrap_or_else(|| panic!("host {host} has an event"))
    }

    /// The next event of the client, which must be a response; its bytes.
    pub fn response(&mut self, expected: RpcId) -> Vec<u8> {
        match self.event(CLIENT) {
            Event::Response { rpc, message, .. } if rpc == expected => message.to_vec(),
            other => panic!("response to {expected:?} expected, not {}", describe(&other)),
        }
    }

    /// The next event of the client, which must be a failure.
    pub fn failure(&mut self, expected: RpcId) -> RpcError {
        match self.event(CLIENT) {
            Event::Failed { rpc, error, .. } if rpc == expected => error,
            other => panic!("failure of {expected:?} expected, not {}", describe(&other)),
        }
    }

    /// The next event of the server, which must be a request; its handle and bytes.
    pub fn incoming_request(&mut self) -> (ServerRpc, Vec<u8>) {
        match self.event(SERVER) {
            Event::Request { rpc, message, .. } => (rpc, message.to_vec()),
            other => panic!("request expected, not {}", describe(&other)),
        }
    }

    /// Asserts that no host has anything left: no RPC, no event, all pages free.
    pub fn assert_clean(&mut self) {
        for (i, host) in self.hosts.iter_mut().enumerate() {
            assert!(host.events.is_empty(), "host {i} has events: {:?}", host.events);
            assert_eq!(host.endpoint.rpc_count(), 0, "host {i} has RPCs");
            assert_eq!(host.endpoint.send_bytes(), 0, "host {i} holds outgoing bytes");
            assert_eq!(host.endpoint.total_incoming(), 0, "host {i} waits for granted bytes");
            let pool = host.endpoint.pool();
            let (free, total) = (pool.free_pages(), pool.total_pages());
            assert!(free + 1 >= total, "host {i}: {free} of {total} pages are free");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace.text());
        }
    }
}

fn make_host(i: usize, config: Config, is_server: bool, pages: u32, seed: u64, now: Instant) -> Host {
    let mut endpoint = Endpoint::new(config, seed, Pool::new(pages), now).expect("valid settings");
    let port = is_server.then_some(PORT);
    let socket = endpoint.open_socket(port, SocketOptions::default()).expect("port is free");
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, i as u8 + 1)), 14600);
    Host { endpoint, address, socket, events: VecDeque::new(), sent: Vec::new(), is_down: false }
}

/// An event in few words.
pub fn describe(event: &Event) -> String {
    match event {
        Event::Request { rpc, message, .. } => format!("request {} of {} bytes", rpc.id(), message.len()),
        Event::Response { rpc, message, .. } => format!("response {} of {} bytes", rpc.0, message.len()),
        Event::Failed { rpc, error, .. } => format!("failure {}: {error}", rpc.0),
        Event::Cancelled { rpc, .. } => format!("cancelled {}", rpc.id()),
        Event::Writable { .. } => "writable".into(),
    }
}
