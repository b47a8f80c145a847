//! The measurements of `peyk bench kevent`: the completion queue beside its peers, in one run.
//!
//! Each case runs its contestants in turns, round by round; a bar is the median of the ratios of
//! the rounds, so that all contestants see the same moods of the machine.

pub mod datagrams;
pub mod files;
pub mod http;
mod http_epoll;
pub mod http_node;
pub mod posts;
pub mod streams;
pub mod submits;
pub mod waiting;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// The CPUs this process may use, as they were before any thread was pinned: threads inherit.
static CPUS: OnceLock<CpuSet> = OnceLock::new();

fn cpus() -> CpuSet {
    *CPUS.get_or_init(|| sched_getaffinity(Pid::from_raw(0)).unwrap_or_default())
}

/// Keeps the calling thread on the `n`th of the CPUs of this process.
pub fn pin(n: usize) {
    let allowed = cpus();
    let list: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    let mut only = CpuSet::new();
    if !list.is_empty() && only.set(list[n % list.len()]).is_ok() {
        // Unpinned figures are rougher, no more.
        let _ = sched_setaffinity(Pid::from_raw(0), &only);
    }
}

/// Lets the calling thread, and the processes it starts, use all CPUs again.
pub fn unpin() {
    let _ = sched_setaffinity(Pid::from_raw(0), &cpus());
}

/// One contestant of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub case: String,
    /// By whom.
    pub peer: String,
    /// Median of the rounds.
    pub value: f64,
    /// What the value counts.
    pub unit: &'static str,
    /// Each round.
    pub rounds: Vec<f64>,
    /// Anything else worth knowing.
    pub note: String,
}

/// A goal, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// What is compared.
    pub what: String,
    /// The ratio measured; absent if a peer was absent.
    pub ratio: Option<f64>,
    /// The ratio asked for.
    pub goal: f64,
    /// Whether the ratio is to be at least, not at most, the goal.
    pub at_least: bool,
}

impl Bar {
    /// Whether the goal is reached; nothing if it was not measured.
    pub fn reached(&self) -> Option<bool> {
        self.ratio.map(|ratio| if self.at_least { ratio >= self.goal } else { ratio <= self.goal })
    }
}

/// What the cases found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// Figures.
    pub rows: Vec<Row>,
    /// Goals.
    pub bars: Vec<Bar>,
    /// Peers that are not there, and why.
    pub absent: Vec<String>,
}

impl Findings {
    /// Notes one contestant's rounds.
    pub fn row(
        &mut self,
        case: &str,
        peer: &str,
        unit: &'static str,
        rounds: &[f64],
        note: impl Into<String>,
    ) {
        self.rows.push(Row {
            case: case.into(),
            peer: peer.into(),
            value: median(rounds),
            unit,
            rounds: rounds.to_vec(),
            note: note.into(),
        });
    }

    /// Notes a goal: the median of `ours / theirs`, round by round.
    pub fn bar(&mut self, what: &str, ours: &[f64], theirs: &[f64], goal: f64, at_least: bool) {
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(a, b)| a / b).filter(|r| r.is_finite()).collect();
        let ratio = (!ratios.is_empty()).then(|| median(&ratios));
        self.bars.push(Bar { what: what.into(), ratio, goal, at_least });
    }
}

/// How long and how often to measure.
#[derive(Copy, Clone, Debug)]
pub struct Effort {
    /// Rounds.
    pub rounds: usize,
    /// Time of one contestant in one round.
    pub time: Duration,
}

/// The middle of some figures; of two, their mean.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Runs `step` again and again for `time`; returns how often, and nanoseconds for each.
pub fn repeat(time: Duration, mut step: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<(u64, f64)> {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        count += step()?;
    }
    Ok((count, start.elapsed().as_nanos() as f64 / count.max(1) as f64))
}

#[cfg(test)]
#[allow(non_snake_case)] // tests are named function__case
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn bar_is_reached_from_the_right_side() {
        let mut findings = Findings::default();
        findings.bar("more", &[20.0, 40.0, 30.0], &[1.0, 1.0, 1.0], 25.0, true);
        findings.bar("less", &[1.0], &[2.0], 0.4, false);
        findings.bar("absent", &[1.0], &[], 1.0, true);
        let reached: Vec<_> = findings.bars.iter().map(Bar::reached).collect();
        assert_eq!(reached, [Some(true), Some(false), None]);
    }
}
