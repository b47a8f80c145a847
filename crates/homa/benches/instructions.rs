//! How many instructions a packet costs beside 1, 1,000 and 100,000 open RPCs.
//!
//! The clock sees misses of caches and of the TLB, which depend on the machine and its neighbours. What
//! the protocol does with a packet is a number of instructions: this bench runs itself under Valgrind,
//! with few and with many rounds, and divides the difference. The numbers are the same in every run, so
//! this fails when they grow with the number of RPCs by more than trees and heaps explain: no list is walked.
//! Run with `cargo bench -p peyk-homa --bench instructions`; it needs `valgrind`.

use std::process::{Command, ExitCode};

mod open;

use open::{OPEN, Run, call, receive, serve};

/// Most instructions with 100,000 open RPCs, times those with 1,000: trees and heaps are some 17 levels deep
/// instead of 10.
const GROWTH: f64 = 1.1;
/// Most instructions with 1,000 open RPCs, times those with one, for which there is no tree to walk.
const FIRST: f64 = 1.7;
const FEW: usize = 2_000;
const MANY: usize = 12_000;

/// A scenario, and packets in a round of it.
const SCENARIOS: [(&str, Scenario); 3] = [
    ("small request served (in service beside it)", serve),
    ("DATA of a long request (all need grants)", receive),
    ("response received, next request sent", call),
];

type Scenario = fn(usize, Run<'_>) -> f64;

/// In the child: runs `rounds` rounds; returns the part of a round that is one packet.
fn run(scenario: Scenario, open: usize, rounds: usize) -> f64 {
    scenario(open, &mut |round| {
        for _ in 0..rounds {
            round();
        }
        1.0
    })
}

/// Instructions that this program needs for a scenario, all in all.
fn count(scenario: usize, open: usize, rounds: usize) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--child", &scenario.to_string(), &open.to_string(), &rounds.to_string()])
        .output()
        .map_err(|e| format!("valgrind cannot be run: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).ok_or(text)
}

/// Instructions per packet.
fn per_packet(scenario: usize, open: usize) -> Result<f64, String> {
    let difference = count(scenario, open, MANY)? - count(scenario, open, FEW)?;
    let part = run(SCENARIOS[scenario].1, 1, 1);
    Ok(difference as f64 / (MANY - FEW) as f64 * part)
}

fn compare() -> Result<bool, String> {
    let head = "instructions per packet";
    println!("{head:<44} {:>11} {:>19} {:>19}", "1 open", "1,000 open", "100,000 open");
    let mut is_flat = true;
    for (scenario, (name, _)) in SCENARIOS.iter().enumerate() {
        let mut costs = [0.0; 3];
        for (cost, open) in costs.iter_mut().zip(OPEN) {
            *cost = per_packet(scenario, open)?;
        }
        let [one, thousand, many] = costs;
        println!(
            "{name:<44} {one:>11.0} {thousand:>11.0} ({:.2}x) {many:>11.0} ({:.2}x)",
            thousand / one,
            many / one
        );
        is_flat &= thousand <= FIRST * one && many <= GROWTH * thousand;
    }
    Ok(is_flat)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, rest @ ..] = &arguments[..]
        && flag == "--child"
    {
        let numbers: Vec<usize> = rest.iter().filter_map(|n| n.parse().ok()).collect();
        let [scenario, open, rounds] = numbers[..] else { return ExitCode::FAILURE };
        run(SCENARIOS[scenario].1, open, rounds);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--test") {
        // As a test: that the scenarios run.
        for (_, scenario) in SCENARIOS {
            run(scenario, 10, 10);
        }
        return ExitCode::SUCCESS;
    }
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!(
                "the cost of a packet grows: more than {FIRST} up to 1,000 RPCs, or {GROWTH} from there on"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("instructions could not be counted: {error}");
            ExitCode::FAILURE
        }
    }
}
