//! `peyk serve`: answers every message with itself, on the shard, until interrupted.

use std::sync::mpsc::channel;

use anyhow::{Context, Result};

use super::{start, stat};
use crate::flags::Serve;

/// Serves until interrupted.
pub fn run(flags: &Serve) -> Result<()> {
    let (interrupt, interrupted) = channel();
    ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    })
    .context("preparing for interruption")?;
    let address = start::resolve(&flags.bind, flags.stack.udp_port)?;
    let stack = start::start(&flags.stack, address.udp_port)?;
    let serving = stack
        .serve_fn_each(address, || |request| request)
        .with_context(|| format!("binding {}", flags.bind))?;
    // Before anybody is told where it listens: it may be what does not work.
    let exporting = stat::export(&stack, flags.export.as_deref())?;
    let bound = serving.local_addr().unwrap_or(address);
    println!(
        "echo server at Homa port {} of {}, over UDP port {} ({})",
        bound.port,
        bound.ip,
        bound.udp_port,
        stack.caps()
    );
    println!("peyk ping {bound} sends requests to it; Ctrl-C stops it");
    if let Some(exporting) = &exporting {
        println!("peyk stat {} shows its counters", exporting.path().display());
    }
    // The handler lives as long as the process, so only an interruption ends this wait.
    let _ = interrupted.recv();
    drop(exporting);
    let stats = stack.stats().ok();
    serving.stop();
    stack.stop();
    match stats {
        Some(stats) => println!("stopped after {} requests", stats.homa.requests_received),
        None => println!("stopped"),
    }
    Ok(())
}
