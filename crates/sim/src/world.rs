//! The world: hosts, links and switches in virtual time, on one thread.
//!
//! ```text
//!   host ── network card ──► rack ──► spine ──► rack ──► host
//!            asks for a       a Port for every link of a switch
//!            packet when
//!            it is free
//! ```
//!
//! Same seed, same calls: the same run, to the byte, on any machine. The world knows no transport: it moves
//! packets, keeps time, and tells an [`Application`] what its hosts report.

use std::collections::VecDeque;

use peyk_sansio::{Instant, Prng};
use slab::Slab;

use crate::fault::{Rule, Verdict};
use crate::host::Host;
use crate::packet::Packet;
use crate::port::{Discipline, Offer, Port, QueueStats, Queued};
use crate::schedule::Schedule;
use crate::time::Picos;
use crate::topology::{HostId, Topology};

/// Time a slow host may lag behind its packets before it loses them.
const RECEIVE_LAG_MAX: Picos = Picos::from_millis(20);

/// What uses the hosts of a world.
pub trait Application<H: Host> {
    /// A moment asked for with [`World::wake_at`] has come.
    fn on_wake(&mut self, world: &mut World<H>, what: u64);
    /// A host reports something.
    fn on_outcome(&mut self, world: &mut World<H>, host: HostId, outcome: H::Outcome);
}

#[derive(Copy, Clone, Debug)]
enum Event {
    /// A packet joins the queue of a link.
    Enter { port: u32, packet: u32 },
    /// A link can send the next packet.
    Free { port: u32 },
    /// A packet has reached its host.
    Deliver { packet: u32 },
    /// A slow host gets round to a packet.
    Handle { packet: u32 },
    /// A network card can send the next packet.
    Nic { host: HostId },
    /// A host's transport has something to do.
    Timer { host: HostId },
    /// A host gets round to what its transport has to say and to send.
    Settle { host: HostId },
    /// The application wants to be called.
    Wake { what: u64 },
}

/// A host's clock against the world's.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Drift {
    /// Parts per million by which it runs fast.
    pub ppm: i32,
    /// How far ahead it began.
    pub ahead: Picos,
}

impl Drift {
    /// What the clock shows at `now`.
    pub fn local(self, now: Picos) -> Instant {
        if self.ppm == 0 {
            return (now + self.ahead).to_instant();
        }
        let drift = i128::from(now.0) * i128::from(self.ppm) / 1_000_000;
        let local = i128::from(now.0) + i128::from(self.ahead.0) + drift;
        Picos(u64::try_from(local.max(0)).unwrap_or(u64::MAX)).to_instant()
    }

    /// A moment at which the local clock shows `at` or a little more.
    fn world(self, at: Instant) -> Picos {
        if self.ppm == 0 {
            return Picos::at_instant(at).since(self.ahead);
        }
        let local = i128::from(Picos::at_instant(at).0) - i128::from(self.ahead.0);
        let world = local.max(0) * 1_000_000 / (1_000_000 + i128::from(self.ppm));
        Picos(u64::try_from(world).unwrap_or(u64::MAX)) + Picos(2)
    }
}

/// A host's place in the world.
#[derive(Debug)]
struct Place<H> {
    host: H,
    is_up: bool,
    is_dirty: bool,
    drift: Drift,
    nic_free_at: Picos,
    nic_is_armed: bool,
    /// The earliest timer in the schedule.
    timer_at: Picos,
    /// Time the host takes for each packet.
    receive_cost: Picos,
    busy_until: Picos,
    /// How long after a packet the host looks at what its transport has to say and to send.
    look_after: Picos,
    /// Until when the host does nothing.
    stalled_until: Picos,
}

/// What happened in a world.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Links crossed by packets.
    pub hops: u64,
    /// Packets that hosts put on the wire.
    pub packets_sent: u64,
    /// Bytes of them on the wire.
    pub wire_bytes_sent: u64,
    /// Packets handed to hosts.
    pub packets_delivered: u64,
    /// Packets lost by the verdict of a rule.
    pub lost: u64,
    /// Packets duplicated.
    pub duplicated: u64,
    /// Packets delayed.
    pub delayed: u64,
    /// Packets corrupted.
    pub corrupted: u64,
    /// Packets dropped by full buffers.
    pub overflowed: u64,
    /// Packets for hosts that were down, or too slow.
    pub missed: u64,
    /// Time the links to hosts had nothing to send, summed over the hosts.
    pub idle: Picos,
    /// The part of it in which the host was withholding permission to send.
    pub wasted: Picos,
}

impl Counters {
    /// What has been counted since `earlier`.
    pub fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            hops: self.hops - earlier.hops,
            packets_sent: self.packets_sent - earlier.packets_sent,
            wire_bytes_sent: self.wire_bytes_sent - earlier.wire_bytes_sent,
            packets_delivered: self.packets_delivered - earlier.packets_delivered,
            lost: self.lost - earlier.lost,
            duplicated: self.duplicated - earlier.duplicated,
            delayed: self.delayed - earlier.delayed,
            corrupted: self.corrupted - earlier.corrupted,
            overflowed: self.overflowed - earlier.overflowed,
            missed: self.missed - earlier.missed,
            idle: self.idle.since(earlier.idle),
            wasted: self.wasted.since(earlier.wasted),
        }
    }
}

/// See the module documentation.
pub struct World<H: Host> {
    now: Picos,
    topology: Topology,
    schedule: Schedule<Event>,
    packets: Slab<Packet<H::Body>>,
    ports: Vec<Port>,
    places: Vec<Place<H>>,
    dirty: VecDeque<HostId>,
    /// Packets that a full buffer has just dropped.
    victims: Vec<u32>,
    random: Prng,
    rule: Option<Box<dyn Rule<H::Body>>>,
    host_ps_per_byte: u64,
    send_delay: Picos,
    receive_delay: Picos,
    switch_delay: Picos,
    /// What happened so far.
    pub counters: Counters,
}

impl<H: Host> World<H> {
    /// A network of the given hosts, one for each place in the topology.
    ///
    /// # Panics
    /// If the topology is not valid or the number of hosts is another.
    pub fn new(topology: Topology, discipline: Discipline, seed: u64, hosts: Vec<H>) -> World<H> {
        assert_eq!(topology.problem(), None, "experiments check their topology first");
        assert_eq!(hosts.len(), usize::from(topology.hosts()), "one host for each place");
        let (racks, spines) = (usize::from(topology.racks), usize::from(topology.spines));
        let (buffer, mark) = (topology.buffer_bytes, topology.mark_bytes);
        let port = |speed| Port::new(speed, buffer, mark, discipline);
        let mut ports: Vec<Port> = hosts.iter().map(|_| port(topology.host_ps_per_byte())).collect();
        if racks > 1 {
            ports.extend((0..2 * racks * spines).map(|_| port(topology.fabric_ps_per_byte())));
        }
        let place = |host| Place {
            host,
            is_up: true,
            is_dirty: false,
            drift: Drift::default(),
            nic_free_at: Picos::ZERO,
            nic_is_armed: false,
            timer_at: Picos::MAX,
            receive_cost: Picos::ZERO,
            busy_until: Picos::ZERO,
            look_after: Picos::ZERO,
            stalled_until: Picos::ZERO,
        };
        World {
            now: Picos::ZERO,
            schedule: Schedule::new(),
            packets: Slab::new(),
            ports,
            places: hosts.into_iter().map(place).collect(),
            dirty: VecDeque::new(),
            victims: Vec::new(),
            random: Prng::new(seed),
            rule: None,
            host_ps_per_byte: topology.host_ps_per_byte(),
            send_delay: Picos::from_nanos(topology.host_send_delay_ns),
            receive_delay: Picos::from_nanos(topology.host_receive_delay_ns),
            switch_delay: Picos::from_nanos(topology.switch_delay_ns),
            topology,
            counters: Counters::default(),
        }
    }

    /// Lets a rule decide the fate of every packet.
    pub fn set_rule(&mut self, rule: Box<dyn Rule<H::Body>>) {
        self.rule = Some(rule);
    }

    /// The time.
    pub fn now(&self) -> Picos {
        self.now
    }

    /// The network.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Number of hosts.
    pub fn hosts(&self) -> u16 {
        self.places.len() as u16
    }

    /// A host, to look at.
    pub fn host(&self, host: HostId) -> &H {
        &self.places[usize::from(host)].host
    }

    /// Packets on their way.
    pub fn packets_under_way(&self) -> usize {
        self.packets.len()
    }

    /// Packets that were put on the wire and neither arrived, nor were lost in a way that is counted, nor
    /// are on their way: none, if this world keeps its books. Not for worlds with corrupted or forged packets.
    pub fn unaccounted(&self) -> u64 {
        let c = &self.counters;
        let ended = c.packets_delivered + c.lost + c.overflowed + c.missed + self.packets.len() as u64;
        (c.packets_sent + c.duplicated).abs_diff(ended)
    }

    /// Queues at the links to hosts.
    pub fn downlink_stats(&self) -> QueueStats {
        self.sum_of_ports(0, self.places.len())
    }

    /// Queues at the links between switches.
    pub fn fabric_stats(&self) -> QueueStats {
        self.sum_of_ports(self.places.len(), self.ports.len())
    }

    /// Does something with a host at the present moment; what follows from it is seen to.
    pub fn call<R>(&mut self, host: HostId, f: impl FnOnce(&mut H, Instant) -> R) -> R {
        let place = &mut self.places[usize::from(host)];
        let result = f(&mut place.host, place.drift.local(self.now));
        self.touch(host);
        result
    }

    /// Calls the application back at `at`.
    pub fn wake_at(&mut self, at: Picos, what: u64) {
        self.schedule.put(at, Event::Wake { what });
    }

    /// Puts a packet on the wire that the host it comes from did not send. No rule judges it.
    pub fn forge(&mut self, packet: Packet<H::Body>) {
        let at = self.now + self.send_delay + self.switch_delay;
        self.inject(packet, at);
    }

    /// A host stops at once: it loses its state and its packets.
    pub fn crash(&mut self, host: HostId) {
        self.places[usize::from(host)].is_up = false;
    }

    /// Whether a host is up.
    pub fn is_up(&self, host: HostId) -> bool {
        self.places[usize::from(host)].is_up
    }

    /// The local time of a host.
    pub fn local_time(&self, host: HostId) -> Instant {
        self.places[usize::from(host)].drift.local(self.now)
    }

    /// A host starts anew.
    pub fn restart(&mut self, id: HostId, host: H) {
        let place = &mut self.places[usize::from(id)];
        place.host = host;
        place.is_up = true;
        place.timer_at = Picos::MAX;
        place.stalled_until = Picos::ZERO;
        place.busy_until = Picos::ZERO;
        self.touch(id);
    }

    /// A host does nothing until `until`; then it handles what has come meanwhile.
    pub fn stall(&mut self, host: HostId, until: Picos) {
        let place = &mut self.places[usize::from(host)];
        place.stalled_until = place.stalled_until.max(until);
    }

    /// A host takes `cost` for each packet from now on.
    pub fn set_receive_cost(&mut self, host: HostId, cost: Picos) {
        self.places[usize::from(host)].receive_cost = cost;
    }

    /// A host takes packets and calls in batches: it looks at what its transport has to say and to send only
    /// `time` after the first of them. To be set before it does anything.
    pub fn set_look_after(&mut self, host: HostId, time: Picos) {
        self.places[usize::from(host)].look_after = time;
    }

    /// A host's clock runs otherwise. To be set before it does anything.
    pub fn set_drift(&mut self, host: HostId, drift: Drift) {
        self.places[usize::from(host)].drift = drift;
    }

    /// Lets everything happen that happens no later than `until`. Returns false if nothing is left to happen.
    pub fn run(&mut self, app: &mut impl Application<H>, until: Picos) -> bool {
        self.settle(app);
        while let Some((at, event)) = self.schedule.take(until) {
            self.now = self.now.max(at);
            self.happen(app, event);
            self.settle(app);
        }
        self.now = self.now.max(until.min(Picos(u64::MAX - 1)));
        !self.schedule.is_empty()
    }

    /// Lets the next thing happen, if it happens no later than `until`.
    pub fn step(&mut self, app: &mut impl Application<H>, until: Picos) -> bool {
        self.settle(app);
        let Some((at, event)) = self.schedule.take(until) else { return false };
        self.now = self.now.max(at);
        self.happen(app, event);
        self.settle(app);
        true
    }

    fn happen(&mut self, app: &mut impl Application<H>, event: Event) {
        match event {
            Event::Enter { port, packet } => self.enter(port, packet),
            Event::Free { port } => {
                self.ports[port as usize].is_armed = false;
                self.start(port);
            }
            Event::Deliver { packet } => self.deliver(packet),
            Event::Handle { packet } => self.handle(packet),
            Event::Nic { host } => {
                let place = &mut self.places[usize::from(host)];
                place.nic_is_armed = false;
                // A host that is about to look sends then.
                if !place.is_dirty {
                    self.pump(host);
                    // The end of a message may begin a wait for its answer.
                    self.arm_timer(host);
                }
            }
            Event::Timer { host } => self.timer(host),
            Event::Settle { host } => self.dirty.push_back(host),
            Event::Wake { what } => app.on_wake(self, what),
        }
    }

    /// Hands up what hosts report, and lets them send.
    fn settle(&mut self, app: &mut impl Application<H>) {
        while let Some(host) = self.dirty.pop_front() {
            let place = &mut self.places[usize::from(host)];
            place.is_dirty = false;
            while self.places[usize::from(host)].is_up {
                let Some(outcome) = self.places[usize::from(host)].host.poll_outcome() else { break };
                app.on_outcome(self, host, outcome);
            }
            self.pump(host);
            self.arm_timer(host);
        }
    }

    fn touch(&mut self, host: HostId) {
        let place = &mut self.places[usize::from(host)];
        if place.is_dirty {
            return;
        }
        place.is_dirty = true;
        if place.look_after == Picos::ZERO {
            self.dirty.push_back(host);
        } else {
            self.schedule.put(self.now + place.look_after, Event::Settle { host });
        }
    }

    /// Gives the network card of a host the next packet if it is free.
    fn pump(&mut self, host: HostId) {
        let place = &mut self.places[usize::from(host)];
        if place.nic_is_armed || !place.is_up {
            return;
        }
        let free_at = place.nic_free_at.max(place.stalled_until);
        if free_at > self.now {
            place.nic_is_armed = true;
            self.schedule.put(free_at, Event::Nic { host });
            return;
        }
        let Some(packet) = place.host.poll_transmit(place.drift.local(self.now)) else { return };
        debug_assert!(packet.from == host && packet.to != host, "a packet from one host to another");
        let sent_at = self.now + Picos(u64::from(packet.wire_bytes) * self.host_ps_per_byte);
        place.nic_free_at = sent_at;
        place.nic_is_armed = true;
        self.schedule.put(sent_at, Event::Nic { host });
        self.counters.packets_sent += 1;
        self.counters.wire_bytes_sent += u64::from(packet.wire_bytes);
        self.counters.hops += 1;
        self.put_on_wire(packet, sent_at);
    }

    fn put_on_wire(&mut self, mut packet: Packet<H::Body>, sent_at: Picos) {
        let at = sent_at + self.send_delay + self.switch_delay;
        let Some(rule) = &mut self.rule else { return self.inject(packet, at) };
        match rule.judge(self.now, &mut packet) {
            Verdict::Pass => self.inject(packet, at),
            Verdict::Drop => self.counters.lost += 1,
            Verdict::Delay(by) => {
                self.counters.delayed += 1;
                self.inject(packet, at + by);
            }
            Verdict::Duplicate(by) => {
                self.counters.duplicated += 1;
                self.inject(packet.clone(), at);
                self.inject(packet, at + by);
            }
            Verdict::Corrupt => {
                self.counters.corrupted += 1;
                if H::corrupt(&mut packet, &mut self.random) {
                    self.inject(packet, at);
                }
            }
        }
    }

    /// A packet joins the queue of the first link of its sender's rack at `at`.
    fn inject(&mut self, packet: Packet<H::Body>, at: Picos) {
        let port = self.first_port(packet.from, packet.to, packet.flow);
        let key = self.packets.insert(packet) as u32;
        self.schedule.put(at, Event::Enter { port, packet: key });
    }

    /// The link over which the sender's rack sends a packet.
    fn first_port(&mut self, from: HostId, to: HostId, flow: Option<u32>) -> u32 {
        let rack = self.topology.rack(from);
        if self.topology.rack(to) == rack {
            return u32::from(to);
        }
        let spines = u32::from(self.topology.spines);
        let spine = match flow {
            Some(flow) => u32::from(self.topology.spine_of(from, to, flow)),
            None => self.random.below(u64::from(spines)) as u32,
        };
        self.places.len() as u32 + u32::from(rack) * spines + spine
    }

    fn enter(&mut self, port: u32, key: u32) {
        let packet = &mut self.packets[key as usize];
        let queued = Queued { key, bytes: packet.wire_bytes, priority: packet.priority, rank: packet.rank };
        let at = &mut self.ports[port as usize];
        match at.offer(queued, &mut self.victims) {
            Offer::Taken => {}
            Offer::TakenMarked => packet.is_marked = true,
            Offer::Dropped => self.victims.push(key),
        }
        for victim in self.victims.drain(..) {
            self.packets.remove(victim as usize);
            self.counters.overflowed += 1;
        }
        if at.is_armed || at.is_empty() {
            return;
        }
        if at.free_at() <= self.now {
            self.start(port);
        } else {
            at.is_armed = true;
            let free_at = at.free_at();
            self.schedule.put(free_at, Event::Free { port });
        }
    }

    /// A link begins to send its next packet.
    fn start(&mut self, port: u32) {
        let at = &mut self.ports[port as usize];
        let idle = self.now.since(at.free_at());
        let Some((key, sent_at)) = at.start(self.now) else { return };
        if !at.is_empty() {
            at.is_armed = true;
            self.schedule.put(sent_at, Event::Free { port });
        }
        self.counters.hops += 1;
        let hosts = self.places.len() as u32;
        if port < hosts {
            if idle > Picos::ZERO {
                self.counters.idle += idle;
                if self.places[port as usize].host.is_withholding() {
                    self.counters.wasted += idle;
                }
            }
            self.schedule.put(sent_at + self.receive_delay, Event::Deliver { packet: key });
            return;
        }
        let (racks, spines) = (u32::from(self.topology.racks), u32::from(self.topology.spines));
        let up = port - hosts;
        let to = self.packets[key as usize].to;
        let rack = self.topology.rack(to);
        let next = if up < racks * spines {
            hosts + racks * spines + (up % spines) * racks + u32::from(rack)
        } else {
            u32::from(to)
        };
        self.schedule.put(sent_at + self.switch_delay, Event::Enter { port: next, packet: key });
    }

    fn deliver(&mut self, key: u32) {
        let to = self.packets[key as usize].to;
        let place = &mut self.places[usize::from(to)];
        if place.receive_cost == Picos::ZERO && place.stalled_until <= self.now {
            return self.handle(key);
        }
        let begin = self.now.max(place.busy_until).max(place.stalled_until);
        if begin.since(self.now) > RECEIVE_LAG_MAX {
            self.packets.remove(key as usize);
            self.counters.missed += 1;
            return;
        }
        place.busy_until = begin + place.receive_cost;
        self.schedule.put(place.busy_until, Event::Handle { packet: key });
    }

    fn handle(&mut self, key: u32) {
        let packet = self.packets.remove(key as usize);
        let to = packet.to;
        let place = &mut self.places[usize::from(to)];
        if !place.is_up {
            self.counters.missed += 1;
            return;
        }
        self.counters.packets_delivered += 1;
        if let Some(rule) = &mut self.rule {
            rule.on_delivery(self.now, &packet);
        }
        place.host.handle_packet(place.drift.local(self.now), packet);
        self.touch(to);
    }

    fn timer(&mut self, host: HostId) {
        let place = &mut self.places[usize::from(host)];
        if place.timer_at > self.now {
            // A later one that an earlier one has replaced.
            return;
        }
        place.timer_at = Picos::MAX;
        if !place.is_up {
            return;
        }
        if place.stalled_until > self.now {
            let until = place.stalled_until;
            place.timer_at = until;
            self.schedule.put(until, Event::Timer { host });
            return;
        }
        let local = place.drift.local(self.now);
        if place.host.poll_timeout().is_some_and(|at| at <= local) {
            place.host.handle_timeout(local);
        }
        self.touch(host);
    }

    fn arm_timer(&mut self, host: HostId) {
        let place = &mut self.places[usize::from(host)];
        if !place.is_up {
            return;
        }
        let Some(deadline) = place.host.poll_timeout() else { return };
        let mut at = place.drift.world(deadline).max(self.now + Picos(1));
        if place.nic_is_armed && deadline <= place.drift.local(self.now) {
            // It wants to send; until the network card is free there is nothing to be done.
            at = at.max(place.nic_free_at);
        }
        if at < place.timer_at {
            place.timer_at = at;
            self.schedule.put(at, Event::Timer { host });
        }
    }

    fn sum_of_ports(&self, from: usize, to: usize) -> QueueStats {
        let mut sum = QueueStats::default();
        self.ports[from..to].iter().for_each(|port| sum.add(&port.stats));
        sum
    }
}
