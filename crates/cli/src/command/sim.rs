//! `peyk sim`: simulated experiments, one or many, here or spread over machines.

mod check;
mod jobs;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::{
    command::bench::write_json,
    flags::{Sim, SimCommand, SimLoad, SimOutput},
    report::{sim_html, sim_text},
    sim::{fleet, job, spec::Settings},
};

/// Exit code after an interruption, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs what the flags ask for.
pub fn run(flags: &Sim) -> ExitCode {
    let result = ctrlc::set_handler(job::interrupt).context("catching interruptions").and_then(|()| {
        match &flags.command {
            None => load(&flags.load),
            Some(SimCommand::Check(flags)) => check::run(flags),
            Some(SimCommand::Run(flags)) => jobs::run(flags),
            Some(SimCommand::Jobs(flags)) => jobs::list(flags),
            Some(SimCommand::Job(flags)) => jobs::one(flags),
            Some(SimCommand::Merge(flags)) => jobs::merge(flags),
        }
    });
    match result {
        Ok(()) if job::is_interrupted() => ExitCode::from(INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peyk: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One experiment, with each of the transports.
fn load(flags: &SimLoad) -> Result<()> {
    let mut specs = Vec::new();
    for (n, transport) in flags.transport.iter().enumerate() {
        ensure!(!flags.transport[..n].contains(transport), "{transport} is named twice");
        let mut spec = flags.spec.clone();
        spec.transport = Some(transport.clone());
        spec.settings = if flags.shipped { Settings::Shipped } else { Settings::Published };
        spec.settle(flags.quick);
        specs.push((String::new(), spec));
    }
    let threads = fleet::threads(flags.jobs.map(usize::from));
    let results: Vec<_> = fleet::run("sim", &specs, threads)?.into_iter().flatten().collect();
    ensure!(!results.is_empty(), "interrupted before anything was measured");
    print!("{}", sim_text::runs(&results));
    write(&flags.output, &sim_html::runs(&results)?, &|path| match &results[..] {
        [one] => write_json(path, one),
        runs => write_json(path, &serde_json::json!({ "runs": runs })),
    })
}

/// Writes the files that were asked for and says so.
fn write(output: &SimOutput, page: &str, json: &dyn Fn(&std::path::Path) -> Result<()>) -> Result<()> {
    if let Some(path) = &output.html {
        std::fs::write(path, page).with_context(|| format!("writing {}", path.display()))?;
        println!("Report: {}", path.display());
    }
    if let Some(path) = &output.json {
        json(path)?;
        println!("Figures: {}", path.display());
    }
    Ok(())
}
