//! Independent jobs on the cores of this machine: each is single-threaded, so as many run as there are threads.

use std::{
    sync::{
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{job, result::RunResult, spec::Spec};
use crate::progress::Bar;

/// Steps of the progress bar.
const STEPS: u64 = 10_000;

/// How often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);

/// As many threads as there are cores, or as asked for.
pub fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1)
}

/// Runs experiments, each with a label. After an interruption those that had begun give what they have; the
/// others give nothing.
///
/// # Errors
/// An experiment cannot be; none has run then.
pub fn run(what: &str, specs: &[(String, Spec)], threads: usize) -> Result<Vec<Option<RunResult>>> {
    let works: Vec<f64> = specs
        .iter()
        .map(|(label, spec)| match spec.experiment() {
            Ok((_, work)) => Ok(work.max(1.0)),
            Err(error) => Err(if label.is_empty() { error } else { error.context(label.clone()) }),
        })
        .collect::<Result<_>>()?;
    let total: f64 = works.iter().sum();
    let done: Vec<AtomicU64> = works.iter().map(|_| AtomicU64::new(0)).collect();
    let steps = || {
        let parts = works.iter().zip(&done).map(|(work, done)| work * f64::from_bits(done.load(Relaxed)));
        (parts.sum::<f64>() / total * STEPS as f64) as u64
    };
    let next = AtomicUsize::new(0);
    let mut results: Vec<Option<RunResult>> = specs.iter().map(|_| None).collect();
    let bar = Bar::new(STEPS, what);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads.min(specs.len()) {
            let (sender, next, done) = (sender.clone(), &next, &done);
            scope.spawn(move || {
                while let Some((index, (_, spec))) = take(next, specs) {
                    let result = job::run(spec, |part| done[index].store(part.to_bits(), Relaxed));
                    if sender.send((index, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut finished = 0;
        loop {
            match receiver.recv_timeout(REDRAW) {
                Ok((index, result)) => {
                    results[index] = Some(result?);
                    finished += 1;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok::<(), anyhow::Error>(()),
            }
            bar.set(steps());
            bar.say(&format!("{finished} of {} done", specs.len()));
        }
    })?;
    bar.finish();
    Ok(results)
}

fn take<'a, T>(next: &AtomicUsize, items: &'a [T]) -> Option<(usize, &'a T)> {
    if job::is_interrupted() {
        return None;
    }
    let index = next.fetch_add(1, Relaxed);
    items.get(index).map(|item| (index, item))
}
