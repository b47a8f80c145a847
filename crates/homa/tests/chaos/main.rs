//! Random applications on a hostile network, by seed.
//!
//! Every seed makes up some hosts with some settings, a network that loses,
//! repeats, delays and garbles packets, and applications that call, answer,
//! refuse, abort, close, restart and hold memory at random. Then the network
//! heals, everything open is answered, and the checkers must be content; see
//! `check.rs`. The same seed gives the same run, to the last packet.
//!
//! ```text
//! cargo test -p peyk-homa --test chaos                     two hundred seeds
//! PEYK_SEEDS=10000 cargo test -p peyk-homa --test chaos    as many as you like
//! PEYK_SEED=123 cargo test -p peyk-homa --test chaos       one, with its packet trace
//! ```

#[path = "../common/mod.rs"]
mod common;

mod check;
mod plan;
mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use plan::Plan;
use sim::{Sim, Tally};

const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Runs one seed; the hash of its packets and what happened in it.
fn run(seed: u64, is_verbose: bool) -> (u64, Tally) {
    let mut sim = Sim::new(seed, Plan::of(seed), is_verbose);
    sim.run();
    (sim.trace.hash(), sim.tally.clone())
}

/// Runs one seed; what is wrong with it, if anything is.
fn failure_of(seed: u64, total: &Mutex<Tally>) -> Option<String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let (hash, tally) = run(seed, false);
        total.lock().expect("no poison").add(&tally);
        if seed.is_multiple_of(16) {
            assert_eq!(run(seed, false).0, hash, "the same seed gave another run");
        }
    }));
    let payload = result.err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(text.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
}

#[test]
fn seeds() {
    if let Some(seed) = number("PEYK_SEED") {
        println!("{:#?}", Plan::of(seed));
        let (hash, tally) = run(seed, true);
        println!("seed {seed}: hash {hash:016x}, {tally:?}");
        return;
    }
    let seeds = number("PEYK_SEEDS").unwrap_or(SEEDS);
    let first = number("PEYK_FIRST_SEED").unwrap_or(0);
    let (next, total, failures) = (AtomicU64::new(0), Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= seeds || failures.lock().expect("no poison").len() >= 5 {
                        return;
                    }
                    if let Some(text) = failure_of(first + n, &total) {
                        failures.lock().expect("no poison").push((first + n, text));
                    }
                }
            });
        }
    });
    let total = total.into_inner().expect("no poison");
    println!("{seeds} seeds: {total:?}");
    let mut failures = failures.into_inner().expect("no poison");
    failures.sort();
    for (seed, text) in &failures {
        eprintln!("seed {seed} failed: {text}");
        eprintln!("  replay: PEYK_SEED={seed} cargo test -p peyk-homa --test chaos -- --nocapture");
    }
    if let Some((seed, _)) = failures.first() {
        eprintln!("--- packet trace of seed {seed} ---");
        let _ = catch_unwind(AssertUnwindSafe(|| run(*seed, true)));
        panic!("{} seeds failed", failures.len());
    }
    assert!(total.is_rich(), "the seeds do not reach everything: {total:?}");
}
