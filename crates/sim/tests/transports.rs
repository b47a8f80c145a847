//! The transports that Homa is compared with, in the world: their speed alone, how they share, what loss,
//! duplication and reordering do to them, and the same run for the same seed.
#![allow(non_snake_case)] // tests are named function__case

use std::collections::BTreeSet;

use peyk_sansio::Prng;
use peyk_sim::experiment::{Experiment, Transport};
use peyk_sim::fault::{Rule, Verdict};
use peyk_sim::host::srpt::{self, SrptHost};
use peyk_sim::host::window::{self, WindowBody, WindowHost};
use peyk_sim::host::{Delivered, OneWay};
use peyk_sim::packet::Packet;
use peyk_sim::port::Discipline;
use peyk_sim::workload::Name;
use peyk_sim::{Application, HostId, Picos, Topology, World};
use proptest::prelude::*;

/// Notes what arrives when.
#[derive(Default)]
struct Log(Vec<(Picos, HostId, Delivered)>);

impl<H: OneWay> Application<H> for Log {
    fn on_wake(&mut self, _: &mut World<H>, _: u64) {}
    fn on_outcome(&mut self, world: &mut World<H>, host: HostId, delivered: Delivered) {
        self.0.push((world.now(), host, delivered));
    }
}

fn window_world(topology: &Topology, transport: Transport, settings: window::Settings) -> World<WindowHost> {
    let network = transport.network(topology);
    let hosts = (0..network.hosts()).map(|id| WindowHost::new(id, settings)).collect();
    World::new(network, transport.discipline(), 1, hosts)
}

fn tcp(hosts: u16) -> World<WindowHost> {
    let transport = Transport::Tcp { connections: 1 };
    window_world(&Topology::with_hosts(hosts), transport, window::Settings::default())
}

fn dctcp(hosts: u16) -> World<WindowHost> {
    let transport = Transport::Dctcp { connections: 1 };
    window_world(&Topology::with_hosts(hosts), transport, window::Settings::dctcp())
}

fn srpt(hosts: u16) -> World<SrptHost> {
    let network = Transport::Srpt.network(&Topology::with_hosts(hosts));
    let hosts = (0..network.hosts()).map(|id| SrptHost::new(id, srpt::Settings::default())).collect();
    World::new(network, Discipline::LowestRank, 1, hosts)
}

fn send<H: OneWay>(world: &mut World<H>, from: HostId, to: HostId, bytes: u32) -> u64 {
    world.call(from, |host, now| host.send(now, to, bytes)).expect("accepted")
}

/// Share of the link that a lone message of 20 MB has used, wire bytes counted.
fn lone_share<H: OneWay>(mut world: World<H>, payload: u32, headers: u32) -> f64 {
    const BYTES: u32 = 20_000_000;
    let mut log = Log::default();
    send(&mut world, 0, 20, BYTES);
    world.run(&mut log, Picos::from_millis(100));
    let [(at, 20, Delivered { from: 0, key: 0 })] = log.0[..] else { panic!("{:?}", log.0) };
    assert_eq!(world.counters.overflowed, 0);
    let wire = f64::from(BYTES) * (1.0 + f64::from(headers + 38) / f64::from(payload));
    wire * 800e-12 / at.as_secs_f64()
}

#[test]
fn lone_message__uses_the_link() {
    let shares = [
        lone_share(tcp(32), 1_448, window::HEADERS),
        lone_share(dctcp(32), 1_448, window::HEADERS),
        lone_share(srpt(32), srpt::PAYLOAD, srpt::HEADERS),
    ];
    assert!(shares.iter().all(|share| (0.95..=1.0).contains(share)), "{shares:?}");
}

/// How many messages of 100 kB from each of several hosts reach one within 100 ms.
fn shares(world: &mut World<WindowHost>, senders: u16) -> Vec<usize> {
    let mut log = Log::default();
    for from in 1..=senders {
        (0..2_000).for_each(|_| _ = send(world, from, 0, 100_000));
    }
    world.run(&mut log, Picos::from_millis(100));
    (1..=senders).map(|from| log.0.iter().filter(|entry| entry.2.from == from).count()).collect()
}

#[test]
fn dctcp__flows_share_a_link_and_keep_its_queue_at_the_threshold() {
    let mut world = dctcp(4);
    let shares = shares(&mut world, 2);
    let sum: usize = shares.iter().sum();
    // 100 ms at 10 Gbit/s are 1,176 messages with their headers.
    assert!((1_150..=1_177).contains(&sum), "{shares:?}");
    assert!(shares.iter().all(|n| n * 2 * 10 > sum * 9), "within a tenth of half: {shares:?}");
    let stats = world.downlink_stats();
    assert_eq!(stats.drops, 0);
    assert!((40_000.0..110_000.0).contains(&stats.mean_bytes()), "{}", stats.mean_bytes());
}

#[test]
fn tcp__flows_share_a_link_and_fill_its_buffer() {
    let mut world = tcp(4);
    let shares = shares(&mut world, 2);
    let sum: usize = shares.iter().sum();
    assert!((1_050..=1_177).contains(&sum), "{shares:?}");
    assert!(shares.iter().all(|n| n * 2 * 4 > sum * 3), "within a quarter of half: {shares:?}");
    let stats = world.downlink_stats();
    assert!(stats.drops > 0 && stats.max_bytes > 200_000, "{stats:?}");
}

/// Loses the packets of data with these numbers, counted from 0 as they are sent.
struct Lose(Vec<u64>, u64);

impl Rule<WindowBody> for Lose {
    fn judge(&mut self, _: Picos, packet: &mut Packet<WindowBody>) -> Verdict {
        if matches!(packet.body, WindowBody::Ack(..)) {
            return Verdict::Pass;
        }
        self.1 += 1;
        if self.0.contains(&(self.1 - 1)) { Verdict::Drop } else { Verdict::Pass }
    }
}

/// When a message of ten segments arrives of which those with these numbers are lost, and how many packets of
/// data are sent.
fn ten_segments(lost: &[u64]) -> (Picos, u64) {
    let mut world = tcp(4);
    world.set_rule(Box::new(Lose(lost.to_vec(), 0)));
    let mut log = Log::default();
    send(&mut world, 1, 2, 14_480);
    assert!(!world.run(&mut log, Picos::from_millis(1_000)), "all timers end");
    let [(at, ..)] = log.0[..] else { panic!("{:?}", log.0) };
    (at, world.counters.packets_sent)
}

#[test]
fn tcp__one_lost_segment_costs_a_round_trip_a_lost_window_a_timeout() {
    let (at, packets) = ten_segments(&[]);
    assert!(at < Picos::from_micros(17) && packets == 20, "{at} {packets}");
    let (at, packets) = ten_segments(&[2]);
    assert!(at < Picos::from_micros(30) && packets == 21, "{at} {packets}: sent twice, acknowledged once");
    let (at, _) = ten_segments(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!((Picos::from_micros(1_000)..Picos::from_micros(1_100)).contains(&at), "{at}");
    let (at, _) = ten_segments(&[9]);
    assert!((Picos::from_micros(1_000)..Picos::from_micros(1_100)).contains(&at), "{at}: nothing after it");
}

#[test]
fn one_path__packets_of_a_connection_do_not_overtake_each_other_sprayed_ones_do() {
    // A whole rack sends to another one: the links between them are full.
    let run = |one_path, senders| {
        let settings = window::Settings { one_path, ..window::Settings::default() };
        let unlimited = Topology { buffer_bytes: Some(u64::MAX), ..Topology::with_hosts(32) };
        let mut world = window_world(&unlimited, Transport::Tcp { connections: 1 }, settings);
        let mut log = Log::default();
        (0..senders).for_each(|from| _ = send(&mut world, from, 16 + from, 1_448 * 1_000));
        world.run(&mut log, Picos::from_millis(1_000));
        assert_eq!((log.0.len(), world.counters.overflowed), (usize::from(senders), 0));
        world.counters.packets_sent
    };
    assert_eq!(run(true, 16), 2 * 16 * 1_000, "each segment once");
    assert!(run(false, 16) > 2 * 16 * 1_000, "what was overtaken is sent again for nothing");
}

/// Loses, duplicates and delays.
struct Hostile {
    random: Prng,
    drop: f64,
    duplicate: f64,
    delay: f64,
}

impl<B> Rule<B> for Hostile {
    fn judge(&mut self, _: Picos, _: &mut Packet<B>) -> Verdict {
        let dice = self.random.f64_unit();
        let by = Picos::from_nanos(self.random.below(300_000));
        match self {
            _ if dice < self.drop => Verdict::Drop,
            _ if dice < self.drop + self.duplicate => Verdict::Duplicate(by),
            _ if dice < self.drop + self.duplicate + self.delay => Verdict::Delay(by),
            _ => Verdict::Pass,
        }
    }
}

/// Every message once; gives them in the order of delivery, with who got them.
fn survive<H: OneWay>(mut world: World<H>, rates: [f64; 3], seed: u64) -> Vec<(HostId, HostId, u64)> {
    let mut random = Prng::new(seed);
    let [drop, duplicate, delay] = rates;
    world.set_rule(Box::new(Hostile { random: random.fork(), drop, duplicate, delay }));
    let (mut log, mut sent) = (Log::default(), BTreeSet::new());
    for _ in 0..60 {
        let from = random.below(4) as HostId;
        let to = (from + 1 + random.below(3) as HostId) % 4;
        let bytes = [1, 100, 1_448, 5_000, 60_000][random.below(5) as usize];
        sent.insert((from, to, send(&mut world, from, to, bytes)));
        let until = world.now() + Picos::from_nanos(random.below(50_000));
        world.run(&mut log, until);
    }
    assert!(!world.run(&mut log, Picos::from_millis(600_000)), "all timers end");
    let order: Vec<_> = log.0.iter().map(|&(_, to, delivered)| (delivered.from, to, delivered.key)).collect();
    let delivered: BTreeSet<_> = order.iter().copied().collect();
    assert_eq!(delivered.len(), order.len(), "none twice");
    assert_eq!(delivered, sent, "all of them");
    order
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// On any network that lets something through, every message arrives exactly once; on one connection, in
    /// order.
    #[test]
    fn hostile_network__every_message_once(
        rates in (0.0..0.25, 0.0..0.2, 0.0..0.3),
        seed: u64,
    ) {
        let rates = [rates.0, rates.1, rates.2];
        for world in [tcp(4), dctcp(4)] {
            let order = survive(world, rates, seed);
            for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
                let keys: Vec<u64> =
                    order.iter().filter(|m| (m.0, m.1) == (from, to)).map(|m| m.2).collect();
                prop_assert!(keys.is_sorted(), "{keys:?}");
            }
        }
        let settings = window::Settings { connections: 3, ..window::Settings::default() };
        let network = Topology::with_hosts(4);
        survive(window_world(&network, Transport::Tcp { connections: 3 }, settings), rates, seed);
        survive(srpt(4), rates, seed);
    }
}

#[test]
fn experiment__same_seed_same_run_and_nothing_is_lost_for_good() {
    for name in ["tcp", "tcp:4", "dctcp", "srpt"] {
        let run = |seed| {
            let mut experiment = Experiment::published(Name::W3, 0.7, 3_000, seed);
            experiment.transport = name.parse().expect("a name");
            experiment.topology = Topology { buffer_bytes: Some(20_000), ..Topology::with_hosts(32) };
            experiment.drain = 100.0;
            let outcome = experiment.run(|_| true);
            assert_eq!((outcome.load.incomplete, outcome.load.refused), (0, 0), "{name}");
            assert!(outcome.downlinks.drops > 0, "{name}: buffers were full");
            (
                outcome.load.samples,
                outcome.load.total,
                outcome.load.counters.hops,
                outcome.downlinks.sum_bytes,
            )
        };
        assert_eq!(run(1), run(1), "{name}");
        assert_ne!(run(1).1, run(2).1, "{name}");
    }
}

#[test]
fn experiment__order_of_the_transports() {
    // Median and tail of the shortest half, at a load that all of them sustain.
    let tail = |transport: &str| {
        let mut experiment = Experiment::published(Name::W3, 0.6, 10_000, 5);
        experiment.topology = Topology::with_hosts(32);
        experiment.transport = transport.parse().expect("a name");
        let mut outcome = experiment.run(|_| true);
        peyk_sim::measure::points(&mut outcome.load.samples, &[30.0])[0].p99_slowdown
    };
    let [homa, tcp, dctcp, srpt] = ["homa", "tcp", "dctcp", "srpt"].map(tail);
    assert!(srpt < 3.0 && homa < 4.0, "srpt {srpt}, homa {homa}");
    assert!(dctcp > 4.0 * homa && tcp > dctcp, "homa {homa}, dctcp {dctcp}, tcp {tcp}");
}
