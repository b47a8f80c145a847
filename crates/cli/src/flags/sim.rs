//! Flags of `peyk sim`.

use std::{ops::Range, path::PathBuf};

use clap::{Args, Subcommand};

use crate::sim::spec::Spec;

/// Simulate a data centre: a workload at a load on many hosts, with the Homa that ships.
///
/// Runs hosts, links and switches in virtual time; the hosts run the same protocol code as the library. Every host
/// sends messages of the workload to random others at random moments. Prints the slowdown by message size: the
/// one-way time of a message divided by the least time an idle network needs for it. The same seed gives the same
/// figures on any machine. docs/simulator.md says what is simulated and what is not.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "EXAMPLES:\n  peyk sim --quick                                    workload W4 at 80 % load on 144 hosts\n  \
                  peyk sim --workload w1 --load 0.5 --html w1.html\n  \
                  peyk sim --transport homa,dctcp --json both.json    curves side by side\n  \
                  peyk sim --shipped --overcommit 4                   the defaults of the library, but for one\n  \
                  peyk sim run plans/slowdown-80.toml --quick         published figures beside ours\n  \
                  peyk sim check --seeds 1..1000000 --minutes 10      look for violations on all cores"
)]
pub struct Sim {
    /// What else to do.
    #[command(subcommand)]
    pub command: Option<SimCommand>,
    /// The experiment.
    #[command(flatten)]
    pub load: SimLoad,
}

/// One experiment, with one transport or several.
#[derive(Args, Debug)]
pub struct SimLoad {
    /// The experiment.
    #[command(flatten)]
    pub spec: Spec,
    /// Transports: homa, tcp, dctcp, srpt.
    #[arg(long, value_delimiter = ',', default_value = "homa", value_name = "NAMES")]
    pub transport: Vec<String>,
    /// Homa as in the simulations of the SIGCOMM'18 paper (the default).
    #[arg(long, conflicts_with = "shipped", help_heading = "Homa")]
    pub published: bool,
    /// Homa with the library's defaults.
    #[arg(long, help_heading = "Homa")]
    pub shipped: bool,
    /// Done in about ten seconds, with rougher figures.
    #[arg(long)]
    pub quick: bool,
    /// Transports simulated at the same time [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Where to write.
    #[command(flatten)]
    pub output: SimOutput,
}

/// Where results go besides the terminal.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub struct SimOutput {
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a report to look at.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// What `peyk sim` can do besides one experiment.
#[derive(Subcommand, Debug)]
pub enum SimCommand {
    // Described by their flags, whose longer texts a comment here would hide.
    Check(SimCheck),
    Run(SimRun),
    Jobs(SimJobs),
    Job(SimJob),
    Merge(SimMerge),
}

/// Look for violations: hostile scenarios from seeds, on all cores.
///
/// Each seed is a network, settings, calls and faults: losses, delays, duplicates, corruption, crashes, clocks that
/// drift, hosts that lie. Checkers watch calls, packets and hosts. A seed that fails is printed with the smallest
/// scenario found that fails in the same way and the trace of its packets; the exit code is 1 then.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk sim check --minutes 10\n  peyk sim check --seeds 1..100000\n  \
                        peyk sim check --seeds 4711            one seed again")]
pub struct SimCheck {
    /// Seeds to run: FIRST..END (without END), or one.
    #[arg(long, default_value = "0..1000000", value_parser = seeds, value_name = "FIRST..END")]
    pub seeds: Range<u64>,
    /// Time after which no further seed is begun [default: until the seeds are used up].
    #[arg(long, value_parser = minutes, value_name = "MINUTES")]
    pub minutes: Option<f64>,
    /// Seeds run at the same time [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Also write what was found as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Parses `1..1000`, or one seed.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let bad = || format!("`{text}` are no seeds: write 1..1000, or one number");
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().map_err(|_| bad());
    let range = match text.split_once("..") {
        Some((first, end)) => number(first)?..number(end)?,
        None => number(text)?..number(text)?.checked_add(1).ok_or_else(bad)?,
    };
    if range.is_empty() {
        Err(format!("`{text}` has no seeds: the end is not part of it"))
    } else {
        Ok(range)
    }
}

/// Parses a time in minutes.
fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 1e6 => Ok(minutes),
        _ => Err(format!("`{text}` is not a number of minutes: write 10 or 0.5")),
    }
}

/// Run all experiments of a plan on this machine.
///
/// Prints the published values beside ours with their ratio. The plans in plans/ are the published experiments;
/// docs/simulator.md describes their form.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk sim run plans/slowdown-80.toml --quick --html slowdown-80.html")]
pub struct SimRun {
    /// The plan.
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// A tenth of the messages, with rougher figures.
    #[arg(long)]
    pub quick: bool,
    /// Experiments run at the same time [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Where to write.
    #[command(flatten)]
    pub output: SimOutput,
}

/// Write the experiments of a plan as independent jobs, one JSON object a line, to standard output.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk sim jobs plans/slowdown-80.toml > jobs.jsonl\n  \
                        peyk sim job jobs.jsonl --index 3 --out results\n  peyk sim merge results --html report.html")]
pub struct SimJobs {
    /// The plan.
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// A tenth of the messages, with rougher figures.
    #[arg(long)]
    pub quick: bool,
}

/// Run one job of such a file.
///
/// Its result appears in the directory when it is complete, never in part.
#[derive(Args, Debug)]
pub struct SimJob {
    /// The jobs, as `peyk sim jobs` writes them.
    #[arg(value_name = "JOBS")]
    pub jobs: PathBuf,
    /// Which, from 0.
    #[arg(long, value_name = "I")]
    pub index: usize,
    /// Directory for the result; made if there is none.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Make one report of the results of all jobs.
#[derive(Args, Debug)]
pub struct SimMerge {
    /// The directory that the jobs wrote to.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Where to write.
    #[command(flatten)]
    pub output: SimOutput,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(seeds("1..1_000"), Ok(1..1_000));
        assert_eq!(seeds("7"), Ok(7..8));
        for bad in ["", "x", "5..5", "9..1", "1...3", "18446744073709551615"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn minutes_are_positive() {
        assert_eq!(minutes("0.5"), Ok(0.5));
        for bad in ["0", "-1", "NaN", "soon", "inf"] {
            assert!(minutes(bad).is_err(), "{bad}");
        }
    }
}
