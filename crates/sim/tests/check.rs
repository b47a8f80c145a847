//! Seeds of hostile scenarios under checkers.
//!
//! ```text
//! cargo test -p peyk-sim --test check                     some hundred seeds
//! PEYK_SEEDS=10000 cargo test -p peyk-sim --test check    as many as you like
//! PEYK_SEED=123 cargo test -p peyk-sim --test check -- --nocapture    one, made smaller if it fails
//! ```
#![allow(non_snake_case)] // tests are named function__case

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use peyk_homa::{Config, Pacing};
use peyk_sim::check::{Scenario, Tally, check, run};
use peyk_sim::fault::plan::{Fault, FaultKind, Noise};
use peyk_sim::scenario::CallPlan;
use peyk_sim::{Picos, Topology};

/// Seeds by default.
const SEEDS: u64 = 300;
/// Failures after which there is nothing more to learn.
const FAILURES: usize = 5;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Calls `f` for each seed, on all cores, until it says that it is enough.
fn on_all_cores(first: u64, count: u64, f: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || !f(seed) {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn seeds__hold() {
    if let Some(seed) = number("PEYK_SEED") {
        match check(seed) {
            Ok(report) => println!("{}{report:#?}", Scenario::of(seed)),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let (first, count) = (number("PEYK_FIRST_SEED").unwrap_or(0), number("PEYK_SEEDS").unwrap_or(SEEDS));
    let (total, failures) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    on_all_cores(first, count, |seed| {
        let report = run(&Scenario::of(seed));
        total.lock().expect("no poison").add(&report.tally);
        let mut failures = failures.lock().expect("no poison");
        if !report.violations.is_empty() {
            failures.push((seed, report.violations));
        }
        failures.len() < FAILURES
    });
    let total = total.into_inner().expect("no poison");
    println!("{count} seeds from {first}: {total:?}");
    let mut failures = failures.into_inner().expect("no poison");
    failures.sort_by_key(|f| f.0);
    for (seed, violations) in &failures {
        eprintln!("seed {seed} fails; see PEYK_SEED={seed} cargo test -p peyk-sim --test check");
        for violation in violations {
            eprintln!("  {violation}");
        }
    }
    assert!(failures.is_empty(), "{} seeds fail", failures.len());
    let reached = [
        total.responses,
        total.timeouts,
        total.aborts,
        total.refusals,
        total.cancellations,
        total.crashes,
        total.forged,
        total.retransmitted,
        total.memory_waits,
        total.known_over,
    ];
    assert!(count < SEEDS || reached.iter().all(|&n| n > 0), "the seeds do not reach everything: {total:?}");
}

#[test]
fn same_seed__same_run() {
    for seed in 0..20 {
        let (first, second) = (run(&Scenario::of(seed)), run(&Scenario::of(seed)));
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(run(&Scenario::of(0)).digest, run(&Scenario::of(1)).digest);
}

/// A scenario without trouble: two hosts at 200 Mbit/s.
fn plain(calls: &[(u32, u32)]) -> Scenario {
    let call = |(n, &(request, response)): (usize, &(u32, u32))| CallPlan {
        at: Picos::from_micros(1 + n as u64),
        client: 0,
        server: 1,
        request,
        response,
        service: Picos::ZERO,
        rejection: None,
        abort: None,
        deadline: None,
        from_server_socket: false,
    };
    Scenario {
        seed: 1,
        topology: Topology { host_mbps: 200, ..Topology::with_hosts(2) },
        config: Config { link_mbps: 200, ..Config::default() },
        pages: 1024,
        active: Picos::from_millis(1),
        calls: calls.iter().enumerate().map(call).collect(),
        noise: Noise::default(),
        faults: Vec::new(),
        drifts: Vec::new(),
        look_after: Picos::ZERO,
    }
}

/// The simulator armed no timer for the last packet of a response, so the server never asked for its ack.
#[test]
fn long_response__is_acknowledged() {
    let report = run(&plain(&[(1, 7_251)]));
    assert_eq!(report.violations, []);
}

/// A client whose response waited for grants, which others had, did not answer NEED_ACK. The server heard
/// nothing of it for two time-outs, forgot the response, and the call failed.
#[test]
fn response_that_waits_for_grants__is_not_forgotten() {
    let mut scenario = plain(&[(1, 188_315), (119_439, 1), (1, 163_750), (182_360, 1)]);
    let pairs = [(0, 1, 8_379), (2, 0, 12_589), (0, 2, 12_655), (2, 0, 19_122)];
    for (call, (client, server, micros)) in scenario.calls.iter_mut().zip(pairs) {
        (call.client, call.server, call.at) = (client, server, Picos::from_micros(micros));
    }
    // Hardly more than a packet a round trip: the longest has to wait for half a second.
    let topology = &mut scenario.topology;
    (topology.hosts_per_rack, topology.host_mbps) = (3, 10_000);
    (topology.host_send_delay_ns, topology.host_receive_delay_ns) = (1_000_000, 500_000);
    let config = &mut scenario.config;
    (config.unsched_bytes, config.window, config.max_incoming) = (5_000, 50_000, 2_000);
    (config.link_mbps, config.grant_fifo_fraction) = (25_000, 0);
    let report = run(&scenario);
    assert_eq!(report.violations, []);
    assert_eq!((report.tally.failures, report.tally.responses), (0, report.tally.calls));
}

/// The late copy of a packet from the end of a request that was given up began it anew: all before it counted as
/// granted, more than `max_incoming` of it, and kept grants from the others.
#[test]
fn late_copy_of_a_request_given_up__holds_no_grants() {
    assert_eq!(run(&Scenario::of(24_124)).violations, []);
}

/// A server whose client had given up answered before it looked at that: the cancellation came after the answer,
/// which had been refused.
#[test]
fn cancellation_not_yet_looked_at__is_no_fault() {
    assert_eq!(run(&Scenario::of(1_003_763)).violations, []);
}

/// The timer of a paced host fired at every picosecond while its network card was busy.
#[test]
fn paced_host__does_not_spin() {
    let mut scenario = plain(&[(500_000, 1), (400_000, 1)]);
    scenario.config.pacing = Pacing::NicEstimate;
    assert_eq!(run(&scenario).violations, []);
}

/// What is said about a run: the settings that are not the usual ones, the calls and the faults.
#[test]
fn scenario__reads_well() {
    let mut scenario = plain(&[(10, 20)]);
    scenario.config.num_priorities = 2;
    let kind = FaultKind::Crash { host: 1 };
    scenario.faults.push(Fault { at: Picos::from_micros(5), span: Picos::from_micros(7), kind });
    let text = scenario.to_string();
    for part in ["num_priorities: 2", "default num_priorities: 8", "Crash { host: 1 }", "h0 > h1, 10 bytes"] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}
