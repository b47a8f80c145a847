//! The checkers see what they are there for: every variant of the protocol that is broken on purpose is caught
//! within some seeds, all of which hold without it (see `check.rs`, which runs the same ones).
#![allow(non_snake_case)] // tests are named function__case

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use peyk_homa::Mutant;
use peyk_sim::check::{Scenario, Violation, run};

/// Seeds within which each must be caught.
const SEEDS: u64 = 300;

/// The first seed at which a mutant is caught, and how. A panic in the protocol would do as well, but most
/// of its assertions are not in what ships: the checkers have to see it from outside.
fn caught(mutant: Mutant) -> Option<(u64, Violation)> {
    (0..SEEDS).find_map(|seed| {
        let mut scenario = Scenario::of(seed);
        scenario.config.mutant = Some(mutant);
        let violations = run(&scenario).violations;
        violations.into_iter().find(|v| !matches!(v, Violation::Panicked { .. })).map(|v| (seed, v))
    })
}

#[test]
fn every_mutant__is_caught() {
    // The hook would print the assertions that mutants run into.
    std::panic::set_hook(Box::new(|_| ()));
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some(&mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = caught(mutant);
                    results.lock().expect("no poison").push((mutant, result));
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let results = results.into_inner().expect("no poison");
    for (mutant, result) in &results {
        match result {
            Some((seed, violation)) => println!("{mutant:?}: seed {seed}: {violation}"),
            None => println!("{mutant:?}: NOT CAUGHT"),
        }
    }
    assert_eq!(results.len(), Mutant::ALL.len());
    assert!(results.iter().all(|(_, result)| result.is_some()), "a mutant is not caught by {SEEDS} seeds");
}
