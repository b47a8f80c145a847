//! `peyk stat`: counters and rates of a running stack, by shard: on the terminal, as lines, as JSON or as
//! Prometheus has it. It reads what the stack exports and disturbs nothing.

mod place;
mod rows;
mod sample;
mod terminal;

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::flags::Stat;
pub use place::own as own_place;
use sample::Sample;

/// Shows what a stack exports.
pub fn run(flags: &Stat) -> Result<()> {
    let path = place::find(flags.stack.as_deref())?;
    if flags.prometheus {
        print!("{}", sample::read_text(&path)?);
        return Ok(());
    }
    if !flags.json && flags.count.is_none() && std::io::stdout().is_terminal() {
        return terminal::run(&path, flags.interval);
    }
    lines(&path, flags)
}

/// Samples one after the other, each with the rates since the one before.
fn lines(path: &Path, flags: &Stat) -> Result<()> {
    let (interrupt, interrupted) = channel();
    ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    })
    .context("preparing for interruption")?;
    let mut before = sample::read(path)?;
    for round in 0.. {
        if flags.count.is_some_and(|count| round >= count)
            || interrupted.recv_timeout(flags.interval) != Err(RecvTimeoutError::Timeout)
        {
            break;
        }
        let now = sample::read(path)?;
        let text = if flags.json { json_line(&before, &now)? } else { table(&before, &now, round == 0) };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            // Whoever read it has seen enough.
            break;
        }
        before = now;
    }
    Ok(())
}

fn json_line(before: &Sample, now: &Sample) -> Result<String> {
    let part = |shard: Option<usize>| {
        let (mut numbers, mut rates) = (Map::new(), Map::new());
        for (at, name) in now.names.iter().enumerate() {
            numbers.insert(name.clone(), now.number(shard, at).into());
            if !now.gauges[at] {
                rates.insert(name.clone(), Value::from(now.rate(before, shard, at)));
            }
        }
        json!({ "shard": shard.map(|at| now.shards[at].number), "numbers": numbers, "per_second": rates })
    };
    let shards: Vec<Value> = (0..now.shards.len()).map(|at| part(Some(at))).collect();
    let seconds = now.since(before).as_secs_f64();
    Ok(serde_json::to_string(
        &json!({ "seconds": seconds, "info": now.info, "shards": shards, "total": part(None) }),
    )?)
}

/// The rows of [`rows`] as text, a column for each shard and one for all.
fn table(before: &Sample, now: &Sample, is_first: bool) -> String {
    let mut text = String::new();
    if is_first {
        text.push_str(&format!("{}\n", title(now)));
    }
    text.push_str(&format!("{:<34}{:>12}", "", "all"));
    now.shards.iter().for_each(|shard| text.push_str(&format!("{:>12}", format!("shard {}", shard.number))));
    for row in rows::rows(now) {
        text.push_str(&format!("\n{:<34}{:>12}", row.title, row.value(before, now, None)));
        (0..now.shards.len())
            .for_each(|at| text.push_str(&format!("{:>12}", row.value(before, now, Some(at)))));
    }
    text.push('\n');
    text
}

fn title(now: &Sample) -> String {
    let info = |name: &str| now.info.get(name).map_or("?", String::as_str);
    format!("peyk {} (process {}, {} shards): {}", info("version"), info("pid"), info("shards"), info("uses"))
}

/// For one that serves: exports at `place`, or where [`own_place`] says, and says so; where nobody asked
/// for it, failing to do so is no reason not to serve.
pub fn export(stack: &peyk::Stack, place: Option<&str>) -> Result<Option<peyk::Exporting>> {
    if place == Some("none") {
        return Ok(None);
    }
    let exported = match place {
        Some(path) => stack.export(path).with_context(|| format!("exporting counters at {path}")),
        None => own_place().and_then(|path| {
            stack.export(&path).with_context(|| format!("exporting counters at {}", path.display()))
        }),
    };
    match exported {
        Ok(exporting) => Ok(Some(exporting)),
        Err(error) if place.is_none() => {
            eprintln!("peyk: no counters for `peyk stat`: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Shortest time between two looks.
pub const SHORTEST: Duration = Duration::from_millis(100);
