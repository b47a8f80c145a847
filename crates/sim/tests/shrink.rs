//! What fails is made small, stays the same failure, and is shown packet by packet.
#![allow(non_snake_case)] // tests are named function__case

use peyk_homa::Mutant;
use peyk_sim::check::{Scenario, Violation, check_scenario, run};

/// A seed at which a mutant is caught, and what it violates there.
fn broken(mutant: Mutant, seeds: core::ops::Range<u64>) -> Scenario {
    let with_mutant = |seed| {
        let mut scenario = Scenario::of(seed);
        scenario.config.mutant = Some(mutant);
        scenario
    };
    seeds.map(with_mutant).find(|s| !run(s).violations.is_empty()).expect("tests/mutants.rs finds one")
}

#[test]
fn shrink__executed_twice_needs_one_call() {
    let scenario = broken(Mutant::ForgetCompleted, 0..300);
    let before = scenario.clone();
    let failure = check_scenario(scenario).expect_err("it is broken");
    let small = &failure.scenario;
    assert!(before.calls.len() > 3 && small.calls.len() <= 2, "{small}");
    assert!(small.hosts() <= before.hosts());
    assert!(failure.violations[0].is_like(&Violation::ExecutedTwice { server: 0, client: 0, rpc: 0 }));
    assert!(failure.shrunk_violations.iter().any(|v| v.is_like(&failure.violations[0])));
    assert_eq!(run(small).violations, failure.shrunk_violations, "it fails again in the same way");
}

#[test]
fn trace__tells_times_hosts_packets_and_events() {
    let scenario = broken(Mutant::LeakSendBytes, 0..300);
    let failure = check_scenario(scenario).expect_err("it is broken");
    let lines: Vec<&str> = failure.trace.lines().collect();
    for part in [" ms  h", " > h", " DATA ", " bytes 0..", "calls", "executes call", "ends: "] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part:?} in\n{}", failure.trace);
    }
    let text = failure.to_string();
    assert!(text.starts_with(&format!("seed {} fails:", failure.seed)), "{text}");
}
