//! `peyk bench kevent`: the completion queue beside its peers, with the goals it was built to.

use anyhow::Result;
use serde::Serialize;
use std::{path::Path, time::Duration};

use crate::{
    command::bench::write_json,
    flags::{BenchKevent, KeventCase},
    kevent_bench::{Effort, Findings, datagrams, files, http, posts, streams, submits, unpin, waiting},
    loopback,
    progress::Bar,
};

#[derive(Serialize)]
struct Report<'a> {
    rounds: usize,
    milliseconds_per_round: u64,
    queue: String,
    tcp: &'a str,
    #[serde(flatten)]
    findings: &'a Findings,
}

/// Runs the benchmark.
pub fn run(flags: &BenchKevent) -> Result<()> {
    let rounds = flags.rounds.unwrap_or(if flags.quick { 1 } else { 5 }) as usize;
    let time = Duration::from_millis(if flags.quick { 150 } else { 300 });
    let effort = Effort { rounds, time };
    let folder = flags.folder.clone().unwrap_or_else(std::env::temp_dir);
    let tcp = loopback::prepare(&flags.tcp);
    let mut findings = Findings::default();
    let mut failed = 0;
    let bar = Bar::new(flags.cases.len() as u64, "bench kevent");
    for case in &flags.cases {
        bar.say(&format!("{case:?}"));
        unpin();
        // What the other cases found is shown in any case.
        if let Err(error) = measure(*case, effort, &folder, &mut findings) {
            findings.absent.push(format!("{case:?}: it failed: {error:#}"));
            failed += 1;
        }
        bar.advance(1);
    }
    bar.finish();
    println!("\n{tcp}");
    print(&findings);
    if let Some(path) = &flags.json {
        let queue = peyk::kevent::Queue::new(peyk::kevent::Config::default())?.caps().to_string();
        let milliseconds_per_round = time.as_millis() as u64;
        write_json(path, &Report { rounds, milliseconds_per_round, queue, tcp: &tcp, findings: &findings })?;
        println!("\nWrote {}", path.display());
    }
    anyhow::ensure!(failed == 0, "{failed} cases failed");
    Ok(())
}

fn measure(case: KeventCase, effort: Effort, folder: &Path, findings: &mut Findings) -> Result<()> {
    match case {
        KeventCase::Datagrams => datagrams::run(effort, findings),
        KeventCase::Waiting => waiting::run(effort, findings),
        KeventCase::Submits => submits::run(effort, folder, findings),
        KeventCase::Posts => posts::run(effort, findings),
        KeventCase::Files => files::run(effort, folder, findings),
        KeventCase::Streams => streams::run(effort, findings),
        KeventCase::Http => http::run(effort, folder, findings),
    }
}

fn print(findings: &Findings) {
    let mut case = "";
    for row in &findings.rows {
        if row.case != case {
            println!("\n{}", row.case);
            case = &row.case;
        }
        println!("  {:<38} {:>14.2} {:<16} {}", row.peer, row.value, row.unit, row.note);
    }
    println!("\nGoals (median of the rounds' ratios)");
    for bar in &findings.bars {
        let sign = if bar.at_least { ">=" } else { "<=" };
        let (ratio, verdict) = match (bar.ratio, bar.reached()) {
            (Some(ratio), Some(true)) => (format!("{ratio:.2}"), "reached"),
            (Some(ratio), _) => (format!("{ratio:.2}"), "NOT reached"),
            (None, _) => ("-".into(), "not measured"),
        };
        println!("  {:<62} {ratio:>7} {sign} {:<5} {verdict}", bar.what, bar.goal);
    }
    for absent in &findings.absent {
        println!("absent: {absent}");
    }
}
