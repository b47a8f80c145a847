//! Loads and incasts: what they count, and that what they count is so.
#![allow(non_snake_case)] // tests are named function__case

use peyk_sim::Topology;
use peyk_sim::experiment::{Experiment, Transport};
use peyk_sim::incast::IncastSpec;
use peyk_sim::workload::{Name, Sizes};

fn experiment(load: f64, messages: u64) -> Experiment {
    // So few messages take a millisecond or two: none may be long.
    let sizes = Sizes::uniform(&[100, 1_000, 10_000, 30_000]);
    let published = Experiment::published(Name::W3, load, messages, 3);
    Experiment { topology: Topology::with_hosts(32), sizes, drain: 5.0, ..published }
}

#[test]
fn run__a_network_without_limits_delivers_everything_once() {
    let load = experiment(0.6, 5_000).run(|_| true).load;
    assert_eq!((load.samples.len(), load.incomplete, load.refused), (5_000, 0, 0));
    assert_eq!((load.duplicates, load.lost, load.left, load.unaccounted), (0, 0, 0, 0));
}

#[test]
fn run__without_timers_what_buffers_drop_is_lost() {
    let mut experiment = experiment(0.6, 5_000);
    experiment.topology.buffer_bytes = Some(10_000);
    let outcome = experiment.run(|_| true);
    let (load, drops) = (outcome.load, outcome.downlinks.drops + outcome.fabric.drops);
    assert!(drops > 0 && load.lost > 0, "{drops} drops, {} lost", load.lost);
    assert_eq!((load.duplicates, load.left, load.unaccounted), (0, 0, 0));
}

#[test]
fn run__stopped_early_has_lost_nothing() {
    let mut calls = 0;
    let load = experiment(0.6, 50_000).run(|_| {
        calls += 1;
        calls < 8
    });
    let load = load.load;
    assert!(load.samples.len() < 50_000 && load.left > 0);
    assert_eq!((load.duplicates, load.lost, load.unaccounted), (0, 0, 0));
}

#[test]
fn run__more_than_the_network_carries_grows_the_backlog() {
    let mut overload = experiment(0.6, 20_000);
    overload.payload_load = 1.4;
    overload.drain = 0.0;
    let load = overload.run(|_| true).load;
    assert!(load.backlog_at_end as f64 > 1.7 * load.backlog_at_half as f64);
    assert!(load.incomplete > 0);
}

#[test]
fn run_incast__the_receiver_gets_what_its_link_carries() {
    for transport in ["homa", "tcp", "dctcp"] {
        let transport: Transport = transport.parse().expect("a transport");
        let mut experiment = Experiment { transport, ..experiment(0.5, 1) };
        experiment.topology.buffer_bytes = Some(10_000_000);
        let spec = IncastSpec { messages: 100, bytes: 10_000, rounds: 3 };
        let outcome = experiment.run_incast(spec, |_| true);
        let incast = outcome.incast;
        assert_eq!((incast.rounds.len(), incast.incomplete, incast.duplicates), (3, 0, 0), "{transport}");
        assert_eq!((incast.refused, incast.unaccounted), (0, 0), "{transport}");
        assert!((8.5..9.5).contains(&incast.gbps()), "{transport}: {} Gbit/s", incast.gbps());
        assert!(outcome.downlinks.max_bytes > 100_000, "{transport}");
    }
}

#[test]
fn run_incast__what_cannot_be_delivered_ends() {
    let mut experiment = experiment(0.5, 1);
    experiment.topology.buffer_bytes = Some(50_000);
    let outcome = experiment.run_incast(IncastSpec { messages: 60, bytes: 10_000, rounds: 2 }, |_| true);
    assert_eq!(outcome.incast.rounds.len(), 0, "without timers nothing is sent again");
    assert!(outcome.incast.incomplete > 0);
    assert_eq!(outcome.incast.gbps(), 0.0);
}
