//! `peyk sim check`: hostile scenarios from seeds, on all cores, until one violates something.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use peyk_sim::check::Scenario;
use serde_json::json;

use crate::{
    command::bench::write_json,
    flags::SimCheck,
    report::bench_text::grouped,
    sim::{
        fleet,
        hunt::{self, Hunt},
    },
};

/// Runs the hunt; an error if a seed fails.
pub fn run(flags: &SimCheck) -> Result<()> {
    let begun = Instant::now();
    let time = flags.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let threads = fleet::threads(flags.jobs.map(usize::from));
    let found = hunt::hunt(flags.seeds.clone(), time, threads, Scenario::of);
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(path) = &flags.json {
        write_json(path, &figures(&found, seconds))?;
    }
    println!("{}", summary(&found, seconds));
    if let Some(failure) = &found.failure {
        println!("\n{failure}");
        bail!("seed {} fails: peyk sim check --seeds {} shows it again", failure.seed, failure.seed);
    }
    Ok(())
}

fn summary(found: &Hunt, seconds: f64) -> String {
    let t = &found.tally;
    format!(
        "{} seeds hold in {seconds:.1} s: {} calls, {} responses, {} failures ({} timeouts), {} executions; {} hosts \
         crashed, {} packets forged, {} retransmitted, {} sent, {:.0} s of virtual time.",
        grouped(found.seeds),
        grouped(t.calls),
        grouped(t.responses),
        grouped(t.failures),
        grouped(t.timeouts),
        grouped(t.executions),
        grouped(t.crashes),
        grouped(t.forged),
        grouped(t.retransmitted),
        grouped(found.packets),
        found.virtual_seconds,
    )
}

fn figures(found: &Hunt, seconds: f64) -> serde_json::Value {
    let texts = |violations: &[peyk_sim::check::Violation]| {
        violations.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let failure = found.failure.as_ref().map(|f| {
        json!({
            "seed": f.seed,
            "violations": texts(&f.violations),
            "scenario": f.scenario.to_string(),
            "shrunk_violations": texts(&f.shrunk_violations),
            "trace": f.trace,
        })
    });
    json!({
        "seeds": found.seeds,
        "seconds": seconds,
        "packets": found.packets,
        "virtual_seconds": found.virtual_seconds,
        "calls": found.tally.calls,
        "responses": found.tally.responses,
        "failures": found.tally.failures,
        "crashes": found.tally.crashes,
        "failure": failure,
    })
}
