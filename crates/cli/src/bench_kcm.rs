//! `peyk bench kcm`: the multiplexor beside threads that own their connections, in pairs of rounds. Cases that
//! measure other things than answers to requests have files of their own.

mod baseline;
mod client;
mod failover;
mod figure;
mod framers;
mod long;
mod memory;
mod own_mux;
mod pause;
mod segments;
mod work;
pub mod zipf;

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use peyk::kcm::framer::{Framer, LengthField, Spread};
use peyk::kcm::{Config, Mux, Order, ServeOptions, Steer, Workers};
use serde::Serialize;

use crate::command::bench::write_json;
use crate::flags::BenchKcm;
use crate::loopback;
use crate::progress::Bar;
use client::{Load, Round};
use figure::{Figure, print_figures, quartiles};
use work::Work;

/// One case: the load, the work, and what must come out.
struct Case {
    name: &'static str,
    about: &'static str,
    load: Load,
    threads: usize,
    work: Work,
    /// Worker of each connection in the baseline.
    placement: &'static [usize],
    /// Least ratio of requests per second; most of mean latency, its deviation, and its 99th percentile.
    bars: [Option<f64>; 4],
    is_pool: bool,
    /// Latencies are those of a client that asks for this share of what the baseline can do.
    pace: Option<f64>,
}

/// Ratios of KCM to baseline: quartiles over the pairs.
#[derive(Serialize)]
struct Ratios {
    rate: [f64; 3],
    mean: [f64; 3],
    deviation: [f64; 3],
    p99: [f64; 3],
    /// CPU time of server and client for a request.
    cpu: [f64; 3],
}

#[derive(Serialize)]
struct Row {
    case: &'static str,
    about: &'static str,
    ratios: Ratios,
    baseline_per_second: f64,
    kcm_per_second: f64,
    bars: [Option<f64>; 4],
    reached: bool,
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    figures: Vec<Figure>,
    pairs: u32,
    milliseconds_per_round: u64,
    cpus: usize,
    tcp: String,
}

fn load(connections: usize, depth: usize, bytes: usize) -> Load {
    Load { connections, depth, bytes, clients: 1, looks: false, pace: None }
}

/// Connections dealt out evenly to two threads.
const EVEN: &[usize] = &[0, 1];

fn cases() -> Vec<Case> {
    let mut cases = working_cases();
    let plain = |name, about, load, bars, is_pool| Case {
        name,
        about,
        load: Load { clients: 2, ..load },
        threads: 2,
        work: Work::None,
        placement: EVEN,
        bars,
        is_pool,
        pace: None,
    };
    let (many, pool) =
        ("8 connections x 32, 64 B, no work, 2 threads", "k3 with a reader and a pool of workers");
    let (few, first) = (load(8, 2, 5000), [Some(1.0), Some(0.92), None, None]);
    cases.insert(0, plain("k1", "8 connections x 2, 5000 B, dropped, 2 threads", few, first, false));
    // In a closed loop latency says what the rate says; this is that of a line which is not full.
    let paced = plain("k1p", "k1, latencies at 0.7 of the baseline's rate", few, first, false);
    cases.insert(1, Case { pace: Some(0.7), ..paced });
    cases.push(plain("k3", many, load(8, 32, 64), [Some(1.0), None, None, None], false));
    cases.push(plain("k3n", pool, load(8, 32, 64), [None; 4], true));
    cases
}

fn working_cases() -> Vec<Case> {
    let wait = Work::Wait { micros: 280.0 };
    let cpu = Work::Cpu { micros: 50 };
    let case = |name, about, load, threads, work, placement, bars| Case {
        name,
        about,
        load,
        threads,
        work,
        placement,
        bars,
        is_pool: false,
        pace: None,
    };
    // Nobody computes here: the client has a CPU to itself.
    let looking = |connections, depth| Load { looks: true, ..load(connections, depth, 64) };
    let unequal = [Some(1.55), None, Some(0.65), Some(0.65)];
    let about = "8 connections x 1, 280 us of waiting, 8 threads";
    vec![
        case("k2a", about, looking(8, 1), 8, wait, &[0, 0, 0, 1, 1, 2, 3, 4], unequal),
        case(
            "k2b",
            "1 connection x 8, 50 us of CPU, 2 threads",
            load(1, 8, 64),
            2,
            cpu,
            &[0],
            [Some(1.5), None, None, None],
        ),
        case(
            "k2c",
            "4 connections, 3 on one thread, 50 us of CPU, 2 threads",
            load(4, 1, 64),
            2,
            cpu,
            &[0, 0, 0, 1],
            [Some(1.15), None, None, Some(0.8)],
        ),
        case(
            "k2d",
            "1 connection x 8, 280 us of waiting, 8 threads",
            looking(1, 8),
            8,
            wait,
            &[0],
            [Some(5.5), None, None, None],
        ),
    ]
}

/// Cases with measures of their own.
const OTHERS: [&str; 8] = ["k4", "k5", "k6", "k7", "k8", "k9", "k10", "k11"];

fn other(name: &str, flags: &BenchKcm) -> Result<Vec<Figure>> {
    match name {
        "k4" => failover::run(flags.pairs, flags.time),
        "k5" => segments::run(flags.pairs),
        "k6" => zipf::run(flags.pairs, flags.time),
        "k7" => framers::run(),
        "k8" => memory::run(),
        "k9" => long::run(flags.pairs, flags.time),
        "k10" => pause::run(flags.pairs, flags.time),
        _ => own_mux::run(flags.pairs, flags.time),
    }
}

/// Runs the benchmark.
pub fn run(flags: &BenchKcm) -> Result<()> {
    let all = cases();
    let known: Vec<&str> = all.iter().map(|case| case.name).chain(OTHERS).collect();
    if let Some(wrong) = flags.cases.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no case {wrong}; there are {}", known.join(", "));
    }
    let is_chosen = |name: &str| flags.cases.iter().any(|case| case == name);
    let chosen: Vec<&Case> = all.iter().filter(|case| is_chosen(case.name)).collect();
    let others: Vec<&str> = OTHERS.into_iter().filter(|name| is_chosen(name)).collect();
    let pairs = u64::from(flags.pairs);
    let tcp = loopback::prepare(&flags.tcp);
    let bar = Bar::new(pairs * (chosen.len() + others.len()) as u64, "bench kcm");
    let mut rows = Vec::new();
    for case in chosen {
        rows.push(pairs_of(case, flags, &bar)?);
    }
    let mut figures = Vec::new();
    for name in others {
        bar.say(name);
        figures.extend(other(name, flags).with_context(|| format!("case {name}"))?);
        bar.advance(pairs);
    }
    bar.finish();
    println!("{tcp}");
    print_table(&rows);
    print_figures(&figures);
    if let Some(path) = &flags.json {
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let milliseconds_per_round = flags.time.as_millis() as u64;
        write_json(path, &Report { rows, figures, pairs: flags.pairs, milliseconds_per_round, cpus, tcp })?;
        println!("\nWrote {}", path.display());
    }
    Ok(())
}

/// Baseline and KCM in turns.
fn pairs_of(case: &Case, flags: &BenchKcm, bar: &Bar) -> Result<Row> {
    let mut pairs = Vec::new();
    for _ in 0..flags.pairs {
        bar.say(case.name);
        let (mut baseline, mut ours) = pair_of(case, case.load, flags)?;
        if let Some(share) = case.pace {
            let load = Load { pace: Some(share * baseline.per_second), ..case.load };
            let (calm, ours_calm) = pair_of(case, load, flags)?;
            baseline = Round { per_second: baseline.per_second, ..calm };
            ours = Round { per_second: ours.per_second, ..ours_calm };
        }
        pairs.push((baseline, ours));
        bar.advance(1);
    }
    Ok(row(case, &pairs))
}

/// One round of each.
fn pair_of(case: &Case, load: Load, flags: &BenchKcm) -> Result<(Round, Round)> {
    let baseline = {
        let (addr, _server) = baseline::threads(case.threads, case.placement, case.work)?;
        client::round(addr, load, flags.time)?
    };
    let ours = if case.is_pool {
        let (addr, _server) = baseline::pool(case.threads, case.work)?;
        client::round(addr, load, flags.time)?
    } else {
        let (addr, _server) = served(case.threads, case.work)?;
        client::round(addr, load, flags.time)?
    };
    Ok((baseline, ours))
}

/// Makes sure that so many descriptors and some more may be open.
fn descriptors(count: u64) -> Result<()> {
    let wanted = count + 256;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .with_context(|| format!("the case needs {wanted} open files and may have {hard}: ulimit -n"))?;
    }
    ensure!(getrlimit(Resource::RLIMIT_NOFILE)?.0 >= wanted, "the limit of open files stayed below {wanted}");
    Ok(())
}

/// Messages of the benchmark: four bytes of length, then so many.
fn frames() -> Box<dyn Framer> {
    Box::new(LengthField::be(0, 4).plus(4).spread_as(Spread::Any))
}

/// What must live while the server runs, in the order of its end.
struct Served {
    _workers: Workers,
    _socket: peyk::kcm::Socket,
}

/// A mux whose workers answer each request after the work for it.
fn served(threads: usize, work: Work) -> Result<(SocketAddr, Served)> {
    let config = Config { steer: Steer::Pull, order: Order::Any, ..Config::default() };
    let (mux, socket) = Mux::open(config)?;
    let addr = mux.listen("127.0.0.1:0".parse()?, frames(), false)?.local_addr();
    let options = ServeOptions { threads, ..ServeOptions::default() };
    let workers = mux
        .serve(&socket, options, move |message, replies| {
            work.run();
            replies.reply(&work::answer(message.bytes));
        })
        .context("starting the workers")?;
    Ok((addr, Served { _workers: workers, _socket: socket }))
}

fn row(case: &Case, pairs: &[(Round, Round)]) -> Row {
    let ratio = |of: &dyn Fn(&Round) -> f64| quartiles(pairs.iter().map(|(a, b)| of(b) / of(a)).collect());
    let median = |of: &dyn Fn(&(Round, Round)) -> f64| quartiles(pairs.iter().map(of).collect())[1];
    let ratios = Ratios {
        rate: ratio(&|round| round.per_second),
        mean: ratio(&|round| round.mean_us),
        deviation: ratio(&|round| round.deviation_us),
        p99: ratio(&|round| round.p99_us),
        cpu: ratio(&|round| round.cpu_us),
    };
    let most = [ratios.mean[1], ratios.deviation[1], ratios.p99[1]];
    let reached = case.bars[0].is_none_or(|bar| ratios.rate[1] >= bar)
        && most.iter().zip(&case.bars[1..]).all(|(value, bar)| bar.is_none_or(|bar| *value <= bar));
    Row {
        case: case.name,
        about: case.about,
        ratios,
        baseline_per_second: median(&|(baseline, _)| baseline.per_second),
        kcm_per_second: median(&|(_, ours)| ours.per_second),
        bars: case.bars,
        reached,
    }
}

fn print_table(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!("KCM over a thread for each share of the connections; medians of pairs [quartiles], then bars");
    println!(
        "{:<5} {:>9} {:>9}  {:<17} {:<17} {:<17} {:<17} CPU of both sides",
        "case", "base/s", "kcm/s", "requests/s", "mean latency", "deviation", "p99"
    );
    for row in rows {
        let cell = |ratio: &[f64; 3]| format!("{:.2} [{:.2}-{:.2}]", ratio[1], ratio[0], ratio[2]);
        println!(
            "{:<5} {:>9.0} {:>9.0}  {:<17} {:<17} {:<17} {:<17} {}",
            row.case,
            row.baseline_per_second,
            row.kcm_per_second,
            cell(&row.ratios.rate),
            cell(&row.ratios.mean),
            cell(&row.ratios.deviation),
            cell(&row.ratios.p99),
            cell(&row.ratios.cpu)
        );
        let bars: Vec<String> = ["requests/s >=", "latency <=", "deviation <=", "p99 <="]
            .iter()
            .zip(row.bars)
            .filter_map(|(what, bar)| bar.map(|bar| format!("{what} {bar:.2}")))
            .collect();
        let verdict = match (bars.is_empty(), row.reached) {
            (true, _) => "for contrast",
            (_, true) => "reached",
            _ => "missed",
        };
        println!("      {}: {} {verdict}", row.about, bars.join(", "));
    }
}

/// Ends a stream in both directions; it may have ended already.
fn shut(tcp: &TcpStream) {
    let _ = tcp.shutdown(std::net::Shutdown::Both);
}
