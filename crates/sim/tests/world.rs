//! The world with the protocol that ships: times on an idle network, order, and the same run for the same seed.
#![allow(non_snake_case)] // tests are named function__case

use bytes::Bytes;
use peyk_sim::experiment::{Experiment, simulated};
use peyk_sim::host::homa::{Carriage, HomaHost, OneWayHoma};
use peyk_sim::host::{Delivered, OneWay};
use peyk_sim::port::Discipline;
use peyk_sim::workload::{Encoding, Name, Sizes};
use peyk_sim::{Application, HostId, Picos, Topology, World};
use peyk_sockbuf::Pool;

const CARRIAGE: Carriage = Carriage { contents: false, data_header_bytes: 0 };

fn world(topology: Topology) -> World<OneWayHoma> {
    let zeros = Bytes::from(vec![0; 1 << 20]);
    let config = peyk_homa::Config { mtu: 1_472 + 20 + 8 + 56, ..simulated() };
    let host = |id| {
        let pool = Pool::hollow(64).expect("memory");
        let host = HomaHost::new(id, config.clone(), CARRIAGE, 7 + u64::from(id), pool, Default::default());
        OneWayHoma::new(host, zeros.clone(), true)
    };
    let hosts = (0..topology.hosts()).map(host).collect();
    World::new(topology, Discipline::StrictPriority, 1, hosts)
}

/// Notes what arrives when.
#[derive(Default)]
struct Log(Vec<(Picos, HostId, Delivered)>);

impl<H: OneWay> Application<H> for Log {
    fn on_wake(&mut self, _: &mut World<H>, _: u64) {}
    fn on_outcome(&mut self, world: &mut World<H>, host: HostId, delivered: Delivered) {
        self.0.push((world.now(), host, delivered));
    }
}

#[test]
fn idle_network__messages_take_the_ideal_time() {
    for (from, to) in [(0, 1), (0, 143)] {
        // With headers of no bytes the transport costs nothing; beyond the unscheduled bytes a grant is in
        // time if the window is longer than the round trip.
        for bytes in [1, 100, 1_472, 1_473, 5_000, 39_744, 1_000_000] {
            let mut world = world(Topology::default());
            let mut log = Log::default();
            let ideal = world.topology().ideal(from, to, u64::from(bytes));
            world.call(from, |host, now| host.send(now, to, bytes)).expect("accepted");
            world.run(&mut log, Picos::from_millis(4));
            let [(at, host, delivered)] = log.0[..] else { panic!("{} deliveries", log.0.len()) };
            assert_eq!((host, delivered.from), (to, from));
            // The last segment before the unscheduled limit is short, which costs one more frame.
            let slack = if bytes > 40_000 { 2_000 * 800 } else { 0 };
            let late = at.0 as i64 - ideal.0 as i64;
            // The formula stores a full frame in each switch, even if the last frame is shorter.
            let early = if bytes % 1_472 == 0 || bytes < 1_472 { 0 } else { -1_538 * (800 + 2 * 200) };
            assert!((early..=slack).contains(&late), "{bytes} bytes {from} -> {to}: {at}, ideal {ideal}");
        }
    }
}

#[test]
fn one_receiver__shortest_message_first() {
    let mut world = world(Topology::with_hosts(4));
    let mut log = Log::default();
    for (from, bytes) in [(1, 900_000), (2, 500_000), (3, 300_000)] {
        world.call(from, |host, now| host.send(now, 0, bytes)).expect("accepted");
    }
    world.run(&mut log, Picos::from_millis(4));
    let order: Vec<HostId> = log.0.iter().map(|(_, _, delivered)| delivered.from).collect();
    assert_eq!(order, [3, 2, 1]);
    assert_eq!(world.packets_under_way(), 0);
}

#[test]
fn same_seed__same_run() {
    let run = |seed| {
        let mut experiment = Experiment::published(Name::W4, 0.6, 300, seed);
        experiment.topology = Topology::with_hosts(32);
        experiment.drain = 100.0;
        experiment.sizes = Sizes::of(Name::W3, Encoding::Simulation, 1);
        let outcome = experiment.run(|_| true);
        assert_eq!(outcome.load.incomplete, 0);
        (outcome.load.samples, outcome.load.total, outcome.load.counters.hops, outcome.downlinks.sum_bytes)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn published_settings__short_messages_are_hardly_slowed_at_high_load() {
    let mut outcome = Experiment::published(Name::W3, 0.8, 20_000, 3).run(|_| true);
    let points = peyk_sim::measure::points(&mut outcome.load.samples, &[10.0, 50.0]);
    assert!(points.iter().all(|p| p.p50_slowdown < 1.6 && p.p99_slowdown < 4.0), "{points:?}");
    assert_eq!(outcome.load.refused, 0);
}
