//! The hunt for violations: seeds on all cores, until one fails, the time is over or there are no more.

use std::{
    ops::Range,
    panic,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use peyk_sim::check::{Failure, Scenario, Tally, check_scenario, run};

use super::job;
use crate::progress::Bar;

/// Steps of the progress bar.
const STEPS: u64 = 10_000;

/// How often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);

/// What a hunt has found.
#[derive(Default)]
pub struct Hunt {
    /// Seeds that were run to their end.
    pub seeds: u64,
    /// Packets of them.
    pub packets: u64,
    /// Virtual time of them, in seconds.
    pub virtual_seconds: f64,
    /// What happened in them.
    pub tally: Tally,
    /// The failure with the lowest seed of those found.
    pub failure: Option<Failure>,
}

/// Hunts with so many threads; `scenario` gives the scenario of a seed. Prints nothing but progress; panics of
/// scenarios are violations and stay silent.
pub fn hunt(
    seeds: Range<u64>,
    time: Option<Duration>,
    threads: usize,
    scenario: impl Fn(u64) -> Scenario + Sync,
) -> Hunt {
    let begun = Instant::now();
    let bar = Bar::new(STEPS, "sim check");
    let (next, is_over) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let found = Mutex::new(Hunt::default());
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| work(&seeds, &next, &is_over, &found, &scenario))).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            let elapsed = begun.elapsed();
            if job::is_interrupted() || time.is_some_and(|time| elapsed >= time) {
                is_over.store(true, Relaxed);
            }
            let done = lock(&found).seeds;
            let by_seeds = done as f64 / (seeds.end - seeds.start) as f64;
            let by_time = time.map_or(0.0, |time| elapsed.as_secs_f64() / time.as_secs_f64());
            bar.set((by_seeds.max(by_time) * STEPS as f64) as u64);
            let shrinking = if is_over.load(Relaxed) { ", ending" } else { "" };
            bar.say(&format!("{done} seeds hold{shrinking}"));
            thread::sleep(REDRAW.min(time.unwrap_or(REDRAW)));
        }
    });
    panic::set_hook(hook);
    bar.finish();
    found.into_inner().unwrap_or_else(|poison| poison.into_inner())
}

/// One thread: takes seeds until it is over.
fn work(
    seeds: &Range<u64>,
    next: &AtomicU64,
    is_over: &AtomicBool,
    found: &Mutex<Hunt>,
    scenario: &impl Fn(u64) -> Scenario,
) {
    while !is_over.load(Relaxed) {
        let seed = next.fetch_add(1, Relaxed);
        if seed >= seeds.end {
            return;
        }
        let report = run(&scenario(seed));
        if report.violations.is_empty() {
            let mut hunt = lock(found);
            hunt.seeds += 1;
            hunt.packets += report.packets;
            hunt.virtual_seconds += report.time.as_secs_f64();
            hunt.tally.add(&report.tally);
            continue;
        }
        // The others may end: making the scenario smaller takes some hundred runs.
        is_over.store(true, Relaxed);
        if let Err(failure) = check_scenario(scenario(seed)) {
            let mut hunt = lock(found);
            if hunt.failure.as_ref().is_none_or(|known| known.seed > seed) {
                hunt.failure = Some(failure);
            }
        }
    }
}

fn lock(found: &Mutex<Hunt>) -> std::sync::MutexGuard<'_, Hunt> {
    found.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunt_counts_the_seeds_that_hold() {
        let found = hunt(0..6, None, 2, Scenario::of);
        assert!(found.failure.is_none());
        assert_eq!(found.seeds, 6);
        assert!(found.packets > 0 && found.tally.calls > 0);
    }

    #[test]
    fn hunt_ends_with_the_seed_that_fails() {
        // A scenario that cannot even be set up: no priorities.
        let broken = |seed| {
            let mut scenario = Scenario::of(seed);
            if seed == 3 {
                scenario.config.num_priorities = 0;
            }
            scenario
        };
        let found = hunt(0..1_000_000, None, 1, broken);
        assert_eq!(found.seeds, 3);
        let failure = found.failure.expect("seed 3 fails");
        assert!(!failure.violations.is_empty() && !failure.shrunk_violations.is_empty());
    }

    #[test]
    fn hunt_ends_with_the_time() {
        let found = hunt(0..u64::MAX, Some(Duration::from_millis(300)), 1, Scenario::of);
        assert!(found.failure.is_none());
        assert!(found.seeds < u64::MAX);
    }
}
