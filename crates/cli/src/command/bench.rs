//! `peyk bench rpc`: closed loops of one size, transport beside transport.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    bench_traffic::{FixedPlan, FixedResult},
    flags::{BenchRpc, BenchTransport},
    node::{Carrier, HomaOptions, Pair},
    progress::Bar,
    report::bench_text,
    transport::{tcp::Waiting, udp_floor},
    verify::Executed,
};

/// One figure of the benchmark: a transport under one kind of load.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// `homa`, `homa_sleep`, `udp_floor` or `tcp`.
    pub transport: &'static str,
    /// What an idle peer did.
    pub waiting: Waiting,
    /// Length of request and response in bytes.
    pub size: u32,
    /// Requests kept outstanding.
    pub outstanding: u32,
    /// Median round trip in microseconds.
    pub p50_us: f64,
    /// 99th percentile of it.
    pub p99_us: f64,
    /// Completed RPCs a second.
    pub rpcs_per_second: f64,
    /// Payload in one direction, in Gbit/s.
    pub goodput_gbps: f64,
    /// CPU time of client and server.
    pub cpu_seconds_per_million_rpcs: f64,
    /// Requests that were given up, all rounds together.
    pub failed: u64,
    /// Responses that were not expected, all rounds together.
    pub unexpected: u64,
    /// RPC/s of each round.
    pub rounds: Vec<f64>,
}

#[derive(Serialize)]
struct Report<'a> {
    rows: &'a [Row],
    rounds: u32,
    milliseconds_per_round: u64,
    pinned: bool,
    ipv6: bool,
}

/// One kind of load on one transport.
#[derive(Copy, Clone)]
struct Cell {
    transport: BenchTransport,
    waiting: Waiting,
    size: u32,
    outstanding: u32,
}

/// Runs the benchmark.
pub fn rpc(flags: &BenchRpc) -> Result<()> {
    let rounds = flags.rounds.unwrap_or(if flags.quick { 1 } else { 3 });
    let time = flags.time.unwrap_or(Duration::from_millis(if flags.quick { 150 } else { 200 }));
    let cells = cells(flags);
    let mut results: Vec<Vec<(FixedResult, Executed)>> = vec![Vec::new(); cells.len()];
    let bar = Bar::new(u64::from(rounds) * cells.len() as u64, "bench rpc");
    for _ in 0..rounds {
        for (cell, results) in cells.iter().zip(&mut results) {
            bar.say(&format!(
                "{} {} B x{} {}",
                cell.transport.name(),
                cell.size,
                cell.outstanding,
                cell.waiting
            ));
            results.push(measure(flags, *cell, time)?);
            bar.advance(1);
        }
    }
    bar.finish();
    let rows: Vec<Row> = cells.iter().zip(&results).map(|(cell, results)| row(*cell, results)).collect();
    print!("{}", bench_text::table(&rows));
    if let Some(path) = &flags.json {
        let report = Report {
            rows: &rows,
            rounds,
            milliseconds_per_round: time.as_millis() as u64,
            pinned: !flags.nodes.no_pin,
            ipv6: flags.ipv6,
        };
        write_json(path, &report)?;
        println!("\nWrote {}", path.display());
    }
    Ok(())
}

/// Writes a value as JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("writing JSON")?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// What is measured, in this order: transports next to each other.
fn cells(flags: &BenchRpc) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &waiting in &flags.waiting {
        for &outstanding in &flags.outstanding {
            for &size in &flags.sizes {
                for &transport in &flags.transports {
                    let exists = match transport {
                        BenchTransport::Udp => size as usize <= udp_floor::MESSAGE_MAX,
                        BenchTransport::HomaSleep => waiting == Waiting::Block,
                        BenchTransport::Homa | BenchTransport::Tcp => true,
                    };
                    if exists {
                        cells.push(Cell { transport, waiting, size, outstanding });
                    }
                }
            }
        }
    }
    cells
}

fn measure(flags: &BenchRpc, cell: Cell, time: Duration) -> Result<(FixedResult, Executed)> {
    let carrier = match cell.transport {
        BenchTransport::Homa | BenchTransport::HomaSleep => Carrier::Homa,
        BenchTransport::Udp => Carrier::Udp,
        BenchTransport::Tcp => Carrier::Tcp,
    };
    let pair = Pair {
        name: cell.transport.name().to_owned(),
        carrier,
        connections: 1,
        waiting: cell.waiting,
        ipv6: flags.ipv6,
        pinned: !flags.nodes.no_pin,
        homa: HomaOptions {
            backend: flags.nodes.backend,
            drop: 0.0,
            sleep: cell.transport == BenchTransport::HomaSleep,
            shards: flags.nodes.shards,
            link: None,
        },
    };
    pair.fixed(FixedPlan {
        size: cell.size,
        outstanding: cell.outstanding,
        warmup_ms: (time.as_millis() / 4).clamp(20, 500) as u64,
        measure_ms: time.as_millis() as u64,
    })
}

fn row(cell: Cell, results: &[(FixedResult, Executed)]) -> Row {
    let of = |value: &dyn Fn(&(FixedResult, Executed)) -> f64| median(results.iter().map(value).collect());
    let rate = |r: &FixedResult| if r.seconds > 0.0 { r.completed as f64 / r.seconds } else { 0.0 };
    let rpcs_per_second = of(&|(r, _)| rate(r));
    // The server's CPU time belongs to all requests, the client's to those in the measured time.
    let cpu = of(&|(r, server)| {
        1e6 * (r.cpu_seconds / r.completed.max(1) as f64 + server.cpu_seconds / r.answered.max(1) as f64)
    });
    Row {
        transport: cell.transport.name(),
        waiting: cell.waiting,
        size: cell.size,
        outstanding: cell.outstanding,
        p50_us: of(&|(r, _)| r.p50_us),
        p99_us: of(&|(r, _)| r.p99_us),
        rpcs_per_second,
        goodput_gbps: rpcs_per_second * f64::from(cell.size) * 8.0 / 1e9,
        cpu_seconds_per_million_rpcs: cpu,
        failed: results.iter().map(|(r, _)| r.failed).sum(),
        unexpected: results.iter().map(|(r, _)| r.unexpected).sum(),
        rounds: results.iter().map(|(r, _)| rate(r).round()).collect(),
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => values[n / 2],
        _ => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn row_has_the_promised_fields() {
        let cell =
            Cell { transport: BenchTransport::Udp, waiting: Waiting::Spin, size: 100, outstanding: 64 };
        let result = FixedResult {
            completed: 1_000,
            answered: 2_000,
            seconds: 0.5,
            p50_us: 7.0,
            p99_us: 9.0,
            cpu_seconds: 0.25,
            ..FixedResult::default()
        };
        let executed = Executed { cpu_seconds: 0.5, ..Executed::default() };
        let json = serde_json::to_value(row(cell, &[(result, executed)])).unwrap();
        assert_eq!(json["transport"], "udp_floor");
        assert_eq!(json["waiting"], "spin");
        assert_eq!((&json["size"], &json["outstanding"]), (&100.into(), &64.into()));
        assert_eq!(json["rpcs_per_second"], 2_000.0);
        assert_eq!(json["goodput_gbps"], 0.0016);
        assert_eq!(json["cpu_seconds_per_million_rpcs"], 500.0);
        assert_eq!((&json["p50_us"], &json["p99_us"]), (&7.0.into(), &9.0.into()));
    }
}
