//! Plans: all of one here, or its jobs one by one anywhere, and one report of the results.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};

use super::write;
use crate::{
    command::bench::write_json,
    flags::{SimJob, SimJobs, SimMerge, SimOutput, SimRun},
    report::{sim_html, sim_plan},
    sim::{
        fleet,
        job::{self, Done, Job},
        plan,
    },
};

/// `peyk sim run`.
pub fn run(flags: &SimRun) -> Result<()> {
    let jobs = plan::read(&flags.plan, flags.quick)?;
    let specs: Vec<_> = jobs.iter().map(|job| (job.label.clone(), job.spec.clone())).collect();
    let threads = fleet::threads(flags.jobs.map(usize::from));
    let results = fleet::run(&format!("sim run {}", jobs[0].plan.name), &specs, threads)?;
    let done = jobs.into_iter().zip(results).filter_map(|(job, result)| Some(Done { job, result: result? }));
    report(&done.collect::<Vec<_>>(), &flags.output)
}

/// `peyk sim jobs`.
pub fn list(flags: &SimJobs) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for job in plan::read(&flags.plan, flags.quick)? {
        writeln!(out, "{}", serde_json::to_string(&job)?).context("writing jobs")?;
    }
    Ok(())
}

/// `peyk sim job`.
pub fn one(flags: &SimJob) -> Result<()> {
    let job = find(&flags.jobs, flags.index)?;
    let label = format!("job {} of {}", job.index, job.of);
    let result = fleet::run(&label, &[(job.label.clone(), job.spec.clone())], 1)?.pop().flatten();
    let Some(result) = result.filter(|result| !result.interrupted) else {
        bail!("interrupted: job {} leaves no result", job.index);
    };
    std::fs::create_dir_all(&flags.out).with_context(|| format!("making {}", flags.out.display()))?;
    let name = file_name(job.index);
    let path = flags.out.join(&name);
    // Readers and a second attempt never see half a file.
    let unfinished = flags.out.join(format!(".{name}.{}", std::process::id()));
    write_json(&unfinished, &Done { job, result })?;
    std::fs::rename(&unfinished, &path).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// `peyk sim merge`.
pub fn merge(flags: &SimMerge) -> Result<()> {
    let mut done = Vec::new();
    let entries =
        std::fs::read_dir(&flags.dir).with_context(|| format!("reading {}", flags.dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("job-") && name.ends_with(".json") {
            let file = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
            let result: Done = serde_json::from_reader(BufReader::new(file))
                .with_context(|| format!("{} is not the result of a job", path.display()))?;
            done.push(result);
        }
    }
    ensure!(!done.is_empty(), "{} holds no results of jobs", flags.dir.display());
    done.sort_by_key(|d| d.job.index);
    let first = done[0].job.clone();
    for other in &done {
        ensure!(
            other.job.plan == first.plan && other.job.of == first.of,
            "{} holds results of several plans: {} and {}",
            flags.dir.display(),
            first.plan.name,
            other.job.plan.name,
        );
    }
    report(&done, &flags.output)
}

/// The job with this index in a file of jobs.
fn find(path: &Path, index: usize) -> Result<Job> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let mut number = 0;
    for line in BufReader::new(file).lines() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        number += 1;
        let job: Job = serde_json::from_str(&line)
            .with_context(|| format!("{}: line {number} is not a job", path.display()))?;
        if job.index == index {
            return Ok(job);
        }
    }
    bail!("{}: no job {index}, it has {number}", path.display())
}

fn file_name(index: usize) -> String {
    format!("job-{index:05}.json")
}

/// Prints and writes what came of the jobs of a plan.
fn report(done: &[Done], output: &SimOutput) -> Result<()> {
    let Some(first) = done.first() else { bail!("interrupted before anything was measured") };
    print!("{}", sim_plan::text(done));
    let head = &first.job.plan;
    let missing: Vec<usize> = (0..first.job.of).filter(|i| done.iter().all(|d| d.job.index != *i)).collect();
    write(output, &sim_html::plan(done)?, &|path| {
        write_json(
            path,
            &serde_json::json!({
                "plan": head.name,
                "title": head.title,
                "jobs": first.job.of,
                "missing": missing,
                "highest": sim_plan::highest(done),
                "runs": done.iter().map(sim_plan::entry).collect::<Vec<_>>(),
            }),
        )
    })?;
    if !missing.is_empty() && !job::is_interrupted() {
        bail!("results of {} of {} jobs are missing: {}", missing.len(), first.job.of, some(&missing));
    }
    Ok(())
}

/// The first few of some numbers.
fn some(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(20).map(usize::to_string).collect();
    format!("{}{}", shown.join(", "), if numbers.len() > 20 { ", ..." } else { "" })
}
