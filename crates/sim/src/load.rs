//! Open-loop load: every host sends messages of a workload to random others at random moments, whatever
//! becomes of them, and the slowdown of each is measured.
//!
//! Slowdown here is the one-way time from the creation of a message to its delivery, divided by the least
//! time an idle network needs for its size and pair of hosts ([`Topology::ideal`](crate::Topology::ideal)):
//! the definition of the SIGCOMM'18 simulations. Numbers by other definitions are not comparable.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use peyk_sansio::Prng;

use crate::host::{Delivered, OneWay};
use crate::time::Picos;
use crate::topology::HostId;
use crate::workload::Sizes;
use crate::world::{Application, Counters, World};

/// A network in which no packet has moved for so long will not deliver what it has not delivered: longer
/// than any transport waits before it sends something again.
const SILENCE: Picos = Picos::from_millis(2_000);

/// What is sent.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// Sizes of messages.
    pub sizes: Sizes,
    /// Payload each host sends, in bytes per second, on average.
    pub payload_bytes_per_sec: f64,
    /// Messages at the beginning that are not measured.
    pub warmup: u64,
    /// Messages measured, over all hosts.
    pub messages: u64,
    /// Longest time to wait for the last of them, as a multiple of the time it took to create all.
    pub drain: f64,
    /// Seed of sizes, destinations and moments.
    pub seed: u64,
}

/// One delivered message.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Sample {
    /// Its size in bytes.
    pub size: u32,
    /// Its slowdown.
    pub slowdown: f32,
}

/// Where a run stands.
#[derive(Copy, Clone, Debug)]
pub struct Progress {
    /// Messages created, warm-up included.
    pub created: u64,
    /// Measured messages delivered.
    pub measured: u64,
    /// Virtual time.
    pub now: Picos,
    /// Links crossed by packets.
    pub hops: u64,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct LoadResult {
    /// Every measured message that was delivered.
    pub samples: Vec<Sample>,
    /// Measured messages that were not.
    pub incomplete: u64,
    /// Measured messages that the transport refused.
    pub refused: u64,
    /// Deliveries of messages that had been delivered already.
    pub duplicates: u64,
    /// Messages that were not delivered although the network had fallen silent.
    pub lost: u64,
    /// Messages still under way when the wait for an empty network ended.
    pub left: u64,
    /// Packets that were sent and neither arrived nor were counted as dropped.
    pub unaccounted: u64,
    /// Messages under way when the last measured one was created.
    pub backlog_at_end: u64,
    /// Messages under way when half of them had been created.
    pub backlog_at_half: u64,
    /// Virtual time in which the measured messages were created.
    pub span: Picos,
    /// What the world counted in that time.
    pub counters: Counters,
    /// Payload bytes of messages delivered in that time.
    pub delivered_bytes: u64,
    /// Virtual time of the whole run.
    pub total: Picos,
}

struct Message {
    created: Picos,
    size: u32,
    number: u64,
}

struct Load {
    spec: LoadSpec,
    hosts: u64,
    mean_gap: f64,
    random: Vec<Prng>,
    created: u64,
    open: HashMap<(HostId, u64), Message, FixedState>,
    samples: Vec<Sample>,
    refused: u64,
    duplicates: u64,
    lost: u64,
    is_over: bool,
    begun: Option<(Picos, Counters)>,
    ended: Option<(Picos, Counters)>,
    backlog: [u64; 2],
    delivered_bytes: u64,
}

/// Runs a load. `watch` is called now and then; false from it ends the run early, as if nothing more arrived.
pub fn run<H: OneWay>(
    world: &mut World<H>,
    spec: LoadSpec,
    mut watch: impl FnMut(Progress) -> bool,
) -> LoadResult {
    let mut load = Load::new(world, spec);
    let tick = Picos((load.mean_gap * 1e12 / load.hosts as f64 * 2_000.0) as u64).max(Picos::from_micros(20));
    let mut until = Picos::ZERO;
    let mut limit = Picos::MAX;
    while (load.samples.len() as u64) < load.spec.messages && until < limit {
        until += tick;
        world.run(&mut load, until);
        if let (Some((from, _)), Some((to, _)), Picos::MAX) = (&load.begun, &load.ended, limit) {
            limit = *to + Picos((to.since(*from).0 as f64 * load.spec.drain) as u64);
        }
        if !watch(load.progress(world)) {
            return load.result(world);
        }
    }
    let grace =
        load.ended.as_ref().map_or(Picos::ZERO, |(at, _)| Picos((at.0 as f64 * load.spec.drain) as u64));
    load.empty(world, world.now() + grace, &mut watch);
    load.result(world)
}

impl Load {
    fn new<H: OneWay>(world: &mut World<H>, spec: LoadSpec) -> Load {
        let hosts = u64::from(world.hosts());
        let mut seed = Prng::new(spec.seed);
        let mean_gap = spec.sizes.mean() / spec.payload_bytes_per_sec;
        let mut random: Vec<Prng> = (0..hosts).map(|_| seed.fork()).collect();
        for (host, random) in random.iter_mut().enumerate() {
            world.wake_at(Picos::from_secs_f64(random.exponential(mean_gap)), host as u64);
        }
        Load {
            hosts,
            mean_gap,
            random,
            created: 0,
            open: HashMap::with_hasher(FixedState::with_seed(0)),
            samples: Vec::with_capacity(spec.messages.min(1 << 24) as usize),
            refused: 0,
            duplicates: 0,
            lost: 0,
            is_over: false,
            begun: None,
            ended: None,
            backlog: [0; 2],
            delivered_bytes: 0,
            spec,
        }
    }

    fn progress<H: OneWay>(&self, world: &World<H>) -> Progress {
        let measured = self.samples.len() as u64;
        Progress { created: self.created, measured, now: world.now(), hops: world.counters.hops }
    }

    /// Creates nothing more and lets the network deliver what it has, until `limit`. What a network that has
    /// fallen silent has not delivered is lost.
    fn empty<H: OneWay>(
        &mut self,
        world: &mut World<H>,
        limit: Picos,
        watch: &mut impl FnMut(Progress) -> bool,
    ) {
        self.is_over = true;
        let (mut hops, mut moved_at) = (world.counters.hops, world.now());
        while !self.open.is_empty() && world.now() < limit.max(moved_at + SILENCE) {
            let until = world.now() + Picos::from_millis(1);
            world.run(self, until);
            if world.counters.hops != hops {
                (hops, moved_at) = (world.counters.hops, world.now());
                if world.now() >= limit {
                    return;
                }
            }
            if !watch(self.progress(world)) {
                return;
            }
        }
        self.lost = self.open.len() as u64;
    }

    /// Notes what there is to note when one more message has been created.
    fn count<H: OneWay>(&mut self, world: &World<H>) {
        self.created += 1;
        let last = self.spec.warmup + self.spec.messages;
        if self.created == self.spec.warmup + 1 {
            self.begun = Some((world.now(), world.counters.clone()));
        }
        if self.created == self.spec.warmup + self.spec.messages / 2 {
            self.backlog[0] = self.open.len() as u64;
        }
        if self.created == last {
            self.ended = Some((world.now(), world.counters.clone()));
            self.backlog[1] = self.open.len() as u64;
        }
    }

    fn result<H: OneWay>(self, world: &World<H>) -> LoadResult {
        let begun = self.begun.unwrap_or_default();
        let ended = self.ended.unwrap_or_else(|| (world.now(), world.counters.clone()));
        let measured = self.created.saturating_sub(self.spec.warmup).min(self.spec.messages);
        LoadResult {
            incomplete: measured - self.samples.len() as u64 - self.refused.min(measured),
            samples: self.samples,
            refused: self.refused,
            duplicates: self.duplicates,
            lost: self.lost,
            left: self.open.len() as u64 - self.lost,
            unaccounted: world.unaccounted(),
            backlog_at_half: self.backlog[0],
            backlog_at_end: self.backlog[1],
            span: ended.0.since(begun.0),
            counters: ended.1.since(&begun.1),
            delivered_bytes: self.delivered_bytes,
            total: world.now(),
        }
    }

    fn is_measured(&self, number: u64) -> bool {
        (self.spec.warmup..self.spec.warmup + self.spec.messages).contains(&number)
    }
}

impl<H: OneWay> Application<H> for Load {
    fn on_wake(&mut self, world: &mut World<H>, what: u64) {
        if self.is_over {
            return;
        }
        let from = what as HostId;
        let random = &mut self.random[usize::from(from)];
        let size = self.spec.sizes.size(self.spec.sizes.draw(random.f64_unit()));
        let other = random.below(self.hosts - 1);
        let to = (other + u64::from(other >= u64::from(from))) as HostId;
        let next = world.now() + Picos::from_secs_f64(random.exponential(self.mean_gap));
        world.wake_at(next, what);
        let number = self.created;
        match world.call(from, |host, now| host.send(now, to, size)) {
            Some(key) => {
                self.open.insert((from, key), Message { created: world.now(), size, number });
            }
            None => self.refused += u64::from(self.is_measured(number)),
        }
        self.count(world);
    }

    fn on_outcome(&mut self, world: &mut World<H>, host: HostId, delivered: Delivered) {
        let Some(message) = self.open.remove(&(delivered.from, delivered.key)) else {
            self.duplicates += 1;
            return;
        };
        world.call(delivered.from, |host, _| host.finish(delivered.key));
        if self.begun.is_some() && self.ended.is_none() {
            self.delivered_bytes += u64::from(message.size);
        }
        if self.is_measured(message.number) {
            let took = world.now().since(message.created);
            let ideal = world.topology().ideal(delivered.from, host, u64::from(message.size));
            let slowdown = took.0 as f64 / ideal.0 as f64;
            self.samples.push(Sample { size: message.size, slowdown: slowdown as f32 });
        }
    }
}
