//! A job: one experiment that can run anywhere, on its own.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Instant,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    plan::{Head, Published},
    result::{Cost, RunResult},
    spec::{Kind, Spec},
};

/// Whether experiments are to end early.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends all experiments of this process early, as Ctrl-C does; the second time it ends the process.
pub fn interrupt() {
    if INTERRUPTED.swap(true, Relaxed) {
        std::process::exit(130);
    }
}

/// Whether [`interrupt`] was called.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// One experiment of a plan. A line of a file of jobs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The plan it belongs to.
    pub plan: Head,
    /// Which of its jobs, from 0.
    pub index: usize,
    /// Of so many.
    pub of: usize,
    /// What sets it apart from the others.
    pub label: String,
    /// The experiment.
    pub spec: Spec,
    /// What was published of it.
    #[serde(default)]
    pub published: Published,
}

/// A job and what came of it: the file that a job leaves.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Done {
    /// The job.
    pub job: Job,
    /// What came of it.
    pub result: RunResult,
}

/// Runs an experiment; `watch` learns which part of it is done.
///
/// # Errors
/// The experiment cannot be.
pub fn run(spec: &Spec, mut watch: impl FnMut(f64)) -> Result<RunResult> {
    let (experiment, _) = spec.experiment()?;
    let begun = Instant::now();
    let mut hops = 0;
    let all = match spec.kind {
        Kind::Load => experiment.warmup + experiment.messages,
        Kind::Incast => u64::from(spec.incast().messages) * u64::from(spec.incast().rounds),
    };
    let mut follow = |progress: peyk_sim::load::Progress| {
        hops = progress.hops;
        let done = if spec.kind == Kind::Load { progress.created } else { progress.measured };
        watch((done as f64 / all.max(1) as f64).min(1.0));
        !is_interrupted()
    };
    Ok(match spec.kind {
        Kind::Load => {
            let outcome = experiment.run(&mut follow);
            let cost = Cost { seconds: begun.elapsed().as_secs_f64(), hops, interrupted: is_interrupted() };
            RunResult::of_load(spec, experiment.payload_load, outcome, cost)
        }
        Kind::Incast => {
            let outcome = experiment.run_incast(spec.incast(), &mut follow);
            let cost = Cost { seconds: begun.elapsed().as_secs_f64(), hops, interrupted: is_interrupted() };
            RunResult::of_incast(spec, spec.incast(), &outcome, cost)
        }
    })
}
