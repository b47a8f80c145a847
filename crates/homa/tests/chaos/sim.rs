//! One run: hosts, network, applications, and a queue of what is to happen.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;

use peyk_homa::{
    Endpoint, Event, Path, PeerAddr, Reason, ReplyError, RequestOptions, SendError, ServerRpc, SocketId,
    SocketOptions,
};
use peyk_sansio::{Instant, Prng};
use peyk_sockbuf::{Message, MessageBuf, Payload, Pool};

use crate::check::{Call, Checker, Outcome};
use crate::common::trace::Trace;
use crate::common::world::describe;
use crate::common::{PORT, Sent, keyed, ms, us};
use crate::plan::Plan;

/// What happened, to see that the seeds reach everything.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub calls: u64,
    pub responses: u64,
    pub failures: BTreeMap<String, u64>,
    pub executions: u64,
    pub cancellations: u64,
    pub refused_sends: u64,
    pub aborts: u64,
    pub restarts: u64,
    pub packets: u64,
    pub lost: u64,
    pub retransmitted: u64,
    pub memory_waits: u64,
    pub drop_completed: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.calls += other.calls;
        self.responses += other.responses;
        for (name, count) in &other.failures {
            *self.failures.entry(name.clone()).or_default() += count;
        }
        self.executions += other.executions;
        self.cancellations += other.cancellations;
        self.refused_sends += other.refused_sends;
        self.aborts += other.aborts;
        self.restarts += other.restarts;
        self.packets += other.packets;
        self.lost += other.lost;
        self.retransmitted += other.retransmitted;
        self.memory_waits += other.memory_waits;
        self.drop_completed += other.drop_completed;
    }

    /// Whether everything worth testing occurred.
    pub fn is_rich(&self) -> bool {
        self.responses > 0
            && self.failures.len() >= 3
            && self.cancellations > 0
            && self.refused_sends > 0
            && self.aborts > 0
            && self.restarts > 0
            && self.retransmitted > 0
            && self.memory_waits > 0
            && self.drop_completed > 0
    }
}

struct Host {
    endpoint: Endpoint,
    address: SocketAddr,
    server: SocketId,
    client: SocketId,
    incarnation: u32,
    /// Until then it neither receives nor looks at the clock; then it catches up.
    paused_until: Instant,
    backlog: Vec<(usize, Vec<u8>)>,
    /// The last moment at which it was not itself.
    last_pause: Instant,
    hogged: Vec<MessageBuf>,
}

enum Item {
    Packet { from: usize, to: usize, bytes: Vec<u8> },
    Call,
    Answer { host: usize, incarnation: u32, rpc: ServerRpc, call: Option<usize>, message: Message },
    Abort { call: usize },
    Restart { host: usize },
    Resume { host: usize },
    Pause { host: usize },
    Close { host: usize, is_server: bool },
    Hog { host: usize },
    Unhog { host: usize, incarnation: u32 },
    Drain { host: usize },
}

/// See the module documentation.
pub struct Sim {
    pub trace: Trace,
    pub tally: Tally,
    plan: Plan,
    now: Instant,
    random: Prng,
    hosts: Vec<Host>,
    queue: BTreeMap<(Instant, u64), Item>,
    items: u64,
    checker: Checker,
    is_healed: bool,
}

impl Sim {
    pub fn new(seed: u64, plan: Plan, is_verbose: bool) -> Sim {
        let mut random = Prng::new(seed);
        let now = Instant::from_nanos(1_000_000_000);
        let hosts = (0..plan.hosts).map(|i| make_host(i, &plan, random.next_u64(), 0, now)).collect();
        let mut checker = Checker::default();
        checker.is_garbled = plan.corruption > 0.0;
        checker.is_calm = plan.is_calm();
        let mut trace = Trace::default();
        trace.is_brief = !is_verbose;
        let (queue, items, tally) = (BTreeMap::new(), 0, Tally::default());
        let is_healed = false;
        let mut sim = Sim { trace, tally, plan, now, random, hosts, queue, items, checker, is_healed };
        sim.schedule();
        sim
    }

    /// Puts everything the applications will do of themselves into the queue.
    fn schedule(&mut self) {
        let span = self.plan.active.as_nanos() as u64;
        let (calls, hosts) = (self.plan.calls, self.plan.hosts as u64);
        for _ in 0..calls {
            let at = self.now + us(self.random.below(span) / 1000);
            self.put(at, Item::Call);
        }
        let plan = self.plan.clone();
        for (count, kind) in [(plan.restarts, 0), (plan.pauses, 1), (plan.closings, 2), (plan.hogs, 3)] {
            for _ in 0..count {
                let at = self.now + us(self.random.below(span) / 1000);
                let host = self.random.below(hosts) as usize;
                let is_server = self.random.chance(0.5);
                self.put(
                    at,
                    match kind {
                        0 => Item::Restart { host },
                        1 => Item::Pause { host },
                        2 => Item::Close { host, is_server },
                        _ => Item::Hog { host },
                    },
                );
            }
        }
    }

    /// Runs to the end and checks.
    pub fn run(&mut self) {
        let end_of_acting = self.now + self.plan.active;
        self.run_until(end_of_acting);
        self.trace.note(self.now, "the network heals".into());
        self.is_healed = true;
        // Answers, late packets, time-outs, and twice that of silence for the servers.
        self.run_until(end_of_acting + ms(4000));
        for tally in self.hosts.iter().map(|h| h.endpoint.stats().clone()).collect::<Vec<_>>() {
            self.count(&tally);
        }
        self.check_end();
    }

    fn count(&mut self, stats: &peyk_homa::Stats) {
        self.tally.retransmitted += stats.data_retransmitted;
        self.tally.memory_waits += stats.memory_waits;
        self.tally.drop_completed += stats.drop_completed;
    }

    fn check_end(&mut self) {
        self.checker.check_end();
        for (i, host) in self.hosts.iter_mut().enumerate() {
            let e = &mut host.endpoint;
            assert_eq!(e.rpc_count(), 0, "host {i} has RPCs left");
            assert_eq!(e.send_bytes(), 0, "host {i} holds outgoing bytes");
            assert_eq!(e.total_incoming(), 0, "host {i} waits for granted bytes");
            assert_eq!(e.waiting_for_memory(), 0, "host {i} has messages waiting");
            assert!(e.is_idle(), "host {i} is not idle");
            assert_eq!(e.poll_timeout(), None, "host {i} has a timer left");
            let (free, total) = (e.pool().free_pages(), e.pool().total_pages());
            assert!(free + 1 >= total, "host {i}: only {free} of {total} pages are free");
        }
    }

    fn run_until(&mut self, end: Instant) {
        let mut steps = 0u64;
        loop {
            let queued = self.queue.first_key_value().map(|(&(at, _), _)| at);
            let timers = (0..self.hosts.len()).filter_map(|i| self.timer_of(i)).min();
            let Some(at) = [queued, timers].into_iter().flatten().min().filter(|&at| at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            steps += 1;
            assert!(steps < 3_000_000, "the run does not come to rest");
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let item = entry.remove();
                self.act(item);
            }
            for i in 0..self.hosts.len() {
                if self.timer_of(i).is_some_and(|at| at <= self.now) {
                    self.hosts[i].endpoint.handle_timeout(self.now);
                    self.drain(i);
                    let next = self.timer_of(i);
                    assert!(next.is_none_or(|at| at > self.now), "host {i} spins");
                }
            }
        }
        self.now = end;
        let (now, hosts) = (self.now, &self.hosts);
        self.checker.check_deadlines(now, |i| hosts[i].last_pause.max(hosts[i].paused_until) + ms(10) > now);
    }

    fn timer_of(&self, host: usize) -> Option<Instant> {
        let host = &self.hosts[host];
        if host.paused_until > self.now { None } else { host.endpoint.poll_timeout() }
    }

    fn put(&mut self, at: Instant, item: Item) {
        self.items += 1;
        self.queue.insert((at, self.items), item);
    }

    fn act(&mut self, item: Item) {
        match item {
            Item::Packet { from, to, bytes } => self.arrive(from, to, bytes),
            Item::Call => self.call(),
            Item::Answer { host, incarnation, rpc, call, message } => {
                self.answer(host, incarnation, rpc, call, message);
            }
            Item::Abort { call } => self.abort(call),
            Item::Restart { host } => self.restart(host),
            Item::Pause { host } => {
                let until = self.now + ms(1 + self.random.below(250));
                self.trace.note(self.now, format!("host {host} pauses"));
                self.hosts[host].paused_until = until;
                self.put(until, Item::Resume { host });
            }
            Item::Resume { host } => self.resume(host),
            Item::Close { host, is_server } => self.close(host, is_server),
            Item::Hog { host } => self.hog(host),
            Item::Drain { host } => self.drain(host),
            Item::Unhog { host, incarnation } => {
                if self.hosts[host].incarnation == incarnation {
                    self.hosts[host].hogged.clear();
                    self.drain(host);
                }
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if self.hosts[to].paused_until > self.now {
            // A socket buffer holds some of it.
            if self.hosts[to].backlog.len() < 200 {
                self.hosts[to].backlog.push((from, bytes));
            }
            return;
        }
        let path = self.path_to(from);
        self.hosts[to].endpoint.handle_packet(self.now, &path, &bytes);
        if self.random.chance(0.2) {
            // A burst is handed over before anything is drained.
            let at = self.now + us(2);
            self.put(at, Item::Drain { host: to });
        } else {
            self.drain(to);
        }
    }

    fn call(&mut self) {
        let hosts = self.hosts.len() as u64;
        let client = self.random.below(hosts) as usize;
        let server = (client + 1 + self.random.below(hosts - 1) as usize) % hosts as usize;
        if self.hosts[client].paused_until > self.now {
            return;
        }
        let (length, response) = (self.some_length(), self.some_length());
        let number = self.checker.calls.len();
        let has_deadline = self.random.chance(self.plan.deadline);
        let deadline = has_deadline.then(|| self.now + us(self.random.below(60_000)));
        let options = RequestOptions { cookie: number as u64, deadline };
        let to = PeerAddr { path: self.path_to(server), port: PORT };
        let message = Payload::from(keyed(number as u64, length as usize));
        let from_server_socket = self.random.chance(0.2);
        let host = &mut self.hosts[client];
        let socket = if from_server_socket { host.server } else { host.client };
        let incarnation = host.incarnation;
        match host.endpoint.send_request(self.now, socket, to, message, options) {
            Ok(rpc) => {
                let outcome = Outcome::Pending;
                let text = format!("host {client} calls host {server}: {} of {length} bytes", rpc.0);
                self.trace.note(self.now, text);
                self.checker.on_call(Call { client, incarnation, rpc, length, response, deadline, outcome });
                self.tally.calls += 1;
                if self.random.chance(self.plan.abortion) {
                    let at = self.now + us(self.random.below(20_000));
                    self.put(at, Item::Abort { call: number });
                }
            }
            Err(SendError::Full) => {
                self.tally.refused_sends += 1;
                self.checker.blocked.insert((client, incarnation, socket));
            }
            Err(other) => panic!("send: {other}"),
        }
        self.drain(client);
    }

    fn some_length(&mut self) -> u32 {
        let longest = u64::from(self.plan.longest);
        let length = match self.random.below(4) {
            0 => 1 + self.random.below(32),
            1 => 1 + self.random.below(1500),
            2 => 1 + self.random.below(longest.min(20_000)),
            _ => 1 + self.random.below(longest),
        };
        // A message must fit into the pool with room to spare.
        length.min(u64::from(self.plan.pages) * 65_536 / 3) as u32
    }

    fn answer(
        &mut self,
        host: usize,
        incarnation: u32,
        rpc: ServerRpc,
        call: Option<usize>,
        message: Message,
    ) {
        if self.hosts[host].incarnation != incarnation {
            return;
        }
        if self.hosts[host].paused_until > self.now {
            let at = self.hosts[host].paused_until + us(1);
            return self.put(at, Item::Answer { host, incarnation, rpc, call, message });
        }
        let endpoint = &mut self.hosts[host].endpoint;
        if self.random.chance(self.plan.rejection) {
            let reasons = [Reason::Aborted, Reason::Overloaded, Reason::TooLarge, Reason::Closing];
            endpoint.reject(self.now, rpc, *self.random.pick(&reasons).expect("not empty"));
        } else {
            let reply = match call {
                Some(n) => Payload::from(keyed(!(n as u64), self.checker.calls[n].response as usize)),
                // Of a garbled request: its own bytes.
                None => Payload::from(message.clone()),
            };
            match endpoint.reply(self.now, rpc, reply) {
                Ok(()) | Err(ReplyError::Gone) => {}
                Err(ReplyError::Full) => {
                    let at = self.now + ms(1);
                    self.put(at, Item::Answer { host, incarnation, rpc, call, message });
                }
                Err(other) => panic!("reply: {other}"),
            }
        }
        self.drain(host);
    }

    fn abort(&mut self, number: usize) {
        let call = &self.checker.calls[number];
        let (client, rpc) = (call.client, call.rpc);
        if self.hosts[client].incarnation != call.incarnation {
            return;
        }
        let is_pending = call.outcome == Outcome::Pending;
        let host = &mut self.hosts[client];
        let sockets = [host.client, host.server];
        let was_known = sockets.iter().any(|&s| host.endpoint.abort(self.now, s, rpc));
        if was_known {
            assert!(is_pending, "an aborted call had an outcome before");
            self.checker.calls[number].outcome = Outcome::Void;
            self.tally.aborts += 1;
        }
        self.trace.note(self.now, format!("host {client} aborts {}", rpc.0));
        self.drain(client);
    }

    fn restart(&mut self, host: usize) {
        self.trace.note(self.now, format!("host {host} restarts"));
        let stats = self.hosts[host].endpoint.stats().clone();
        self.count(&stats);
        self.checker.on_restart(host);
        let incarnation = self.hosts[host].incarnation + 1;
        let seed = self.random.next_u64();
        self.hosts[host] = make_host(host, &self.plan, seed, incarnation, self.now);
        self.tally.restarts += 1;
    }

    fn resume(&mut self, host: usize) {
        if self.hosts[host].paused_until > self.now {
            return;
        }
        self.trace.note(self.now, format!("host {host} resumes"));
        self.hosts[host].last_pause = self.now;
        for (from, bytes) in std::mem::take(&mut self.hosts[host].backlog) {
            let path = self.path_to(from);
            self.hosts[host].endpoint.handle_packet(self.now, &path, &bytes);
        }
        self.drain(host);
    }

    fn close(&mut self, host: usize, is_server: bool) {
        if self.hosts[host].paused_until > self.now {
            return;
        }
        self.trace.note(self.now, format!("host {host} closes a socket (server: {is_server})"));
        let h = &mut self.hosts[host];
        let options = SocketOptions::default();
        let (socket, port) = if is_server { (h.server, Some(PORT)) } else { (h.client, None) };
        self.checker.blocked.retain(|b| b.2 != socket || b.0 != host);
        h.endpoint.close_socket(self.now, socket);
        let opened = h.endpoint.open_socket(port, options).expect("the port is free again");
        *(if is_server { &mut h.server } else { &mut h.client }) = opened;
        self.drain(host);
    }

    fn hog(&mut self, host: usize) {
        let leave = self.random.below(4) as u32;
        let h = &mut self.hosts[host];
        while h.endpoint.pool().free_pages() > leave {
            let Some(page) = h.endpoint.pool().alloc(65_536) else { break };
            h.hogged.push(page);
        }
        let incarnation = h.incarnation;
        let at = self.now + ms(1 + self.random.below(150));
        self.put(at, Item::Unhog { host, incarnation });
    }

    fn drain(&mut self, host: usize) {
        loop {
            let mut is_quiet = true;
            while let Some(event) = self.hosts[host].endpoint.poll_event() {
                is_quiet = false;
                if !self.trace.is_brief {
                    self.trace.note(self.now, format!("host {host}: {}", describe(&event)));
                }
                self.on_event(host, event);
            }
            while let Some(transmit) = self.hosts[host].endpoint.poll_transmit(self.now) {
                is_quiet = false;
                let remote = transmit.path.remote;
                self.transmit(host, remote, &Sent::new(&transmit));
            }
            if is_quiet {
                return;
            }
        }
    }

    fn on_event(&mut self, host: usize, event: Event) {
        let incarnation = self.hosts[host].incarnation;
        match event {
            Event::Request { rpc, from, message, .. } => {
                let client = self.hosts.iter().position(|h| h.address == from.path.remote);
                let bytes = message.contiguous();
                let call = self.checker.on_request(host, incarnation, client, rpc.id(), &bytes);
                drop(bytes);
                self.tally.executions += 1;
                let at = self.now + self.thinking_time();
                self.put(at, Item::Answer { host, incarnation, rpc, call, message });
            }
            Event::Response { .. } | Event::Failed { .. } => {
                self.checker.on_outcome(self.now, host, incarnation, &event);
                match event {
                    Event::Failed { error, .. } => {
                        *self.tally.failures.entry(format!("{error:?}")).or_default() += 1;
                    }
                    _ => self.tally.responses += 1,
                }
            }
            Event::Cancelled { .. } => self.tally.cancellations += 1,
            Event::Writable { socket } => {
                self.checker.blocked.remove(&(host, incarnation, socket));
            }
        }
    }

    fn thinking_time(&mut self) -> core::time::Duration {
        if self.is_healed || !self.random.chance(self.plan.slow_reply) {
            return us(self.random.below(3));
        }
        let most = if self.random.chance(0.2) { 250_000 } else { 20_000 };
        us(self.random.below(most))
    }

    fn path_to(&self, host: usize) -> Path {
        Path { remote: self.hosts[host].address, local: 0 }
    }

    /// The network: what becomes of a packet.
    fn transmit(&mut self, from: usize, remote: SocketAddr, sent: &Sent) {
        self.tally.packets += 1;
        let source = self.hosts[from].address;
        let Some(to) = self.hosts.iter().position(|h| h.address == remote) else {
            return self.trace.packet(self.now, source, remote, sent.priority, &sent.bytes, "nowhere");
        };
        let (p, r) = (&self.plan, &mut self.random);
        let is_hostile = !self.is_healed;
        let mut arrivals = Vec::new();
        let mut note = "";
        let mut bytes = sent.bytes.clone();
        if is_hostile && r.chance(p.loss) {
            note = "lost";
            self.tally.lost += 1;
        } else {
            let jitter = |r: &mut Prng| us(r.below(4 * p.latency.as_micros() as u64 + 1));
            let is_reordered = is_hostile && r.chance(p.reordering);
            arrivals.push(self.now + p.latency + if is_reordered { jitter(r) } else { us(0) });
            if is_hostile && r.chance(p.duplication) {
                note = "repeated";
                arrivals.push(self.now + p.latency + jitter(r));
            }
            if is_hostile && r.chance(p.lateness) {
                note = "repeated late";
                arrivals.push(self.now + p.latency + us(r.below(600_000)));
            }
            if is_hostile && r.chance(p.corruption) {
                note = "garbled";
                garble(r, &mut bytes);
            }
        }
        self.trace.packet(self.now, source, remote, sent.priority, &sent.bytes, note);
        for at in arrivals {
            self.put(at, Item::Packet { from, to, bytes: bytes.clone() });
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.trace.is_brief {
            eprintln!("{}", self.trace.text());
        }
    }
}

/// Flips bits of the header or cuts the packet.
fn garble(r: &mut Prng, bytes: &mut Vec<u8>) {
    if r.chance(0.2) {
        let len = r.below(bytes.len() as u64 + 1) as usize;
        bytes.truncate(len);
        return;
    }
    for _ in 0..1 + r.below(3) {
        let at = r.below(bytes.len().min(80) as u64) as usize;
        bytes[at] ^= 1 << r.below(8);
    }
}

fn make_host(i: usize, plan: &Plan, seed: u64, incarnation: u32, now: Instant) -> Host {
    let pool = Pool::new(plan.pages);
    let mut endpoint = Endpoint::new(plan.config.clone(), seed, pool, now).expect("valid settings");
    let server = endpoint.open_socket(Some(PORT), SocketOptions::default()).expect("free port");
    let client = endpoint.open_socket(None, SocketOptions::default()).expect("free port");
    Host {
        endpoint,
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, i as u8 + 1)), 14600),
        server,
        client,
        incarnation,
        paused_until: Instant::ZERO,
        backlog: Vec::new(),
        last_pause: now,
        hogged: Vec::new(),
    }
}
