//! `peyk bench shards`: the same work by one thread and by two, and what crossing between them costs.

mod streams;

use std::{
    hint::{black_box, spin_loop},
    net::UdpSocket,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use peyk::{
    Config, Context, Poll, Service, Stack,
    homa::{Addr, Event, Payload, PeerAddr, RequestOptions, SocketId},
};
use peyk_sim::host::{
    Host,
    homa::{Carriage, HomaHost, server_of},
};
use serde::Serialize;

use super::bench::{median, write_json};
use crate::{flags::BenchShards, process::cpu_seconds};

/// Payload of requests and responses in bytes.
const SIZE: usize = 100;
/// Requests kept outstanding by each shard's client.
const OUTSTANDING: usize = 16;

/// Work by one thread and by two.
#[derive(Serialize)]
struct Row {
    /// What is done.
    work: &'static str,
    /// Operations per second by one.
    one: f64,
    /// Operations per second by two.
    two: f64,
    /// By how much two are faster.
    ratio: f64,
    /// CPU time of an operation by two, relative to one; processes are measured as a whole, load generators
    /// included. Only where the kernel takes part.
    cpu_ratio: Option<f64>,
    /// A cache line from one CPU to the other and back, in ns, at that time.
    line_ns: f64,
}

/// A packet handed from shard to shard.
#[derive(Serialize)]
struct Crossing {
    /// Length of the packet.
    bytes: usize,
    /// Nanoseconds each, at the rate at which the slower side works.
    ns: f64,
    /// As in [`Row`].
    line_ns: f64,
}

/// Bytes from thread to thread.
#[derive(Serialize)]
struct Stream {
    /// By what.
    by: &'static str,
    /// Length of a write in bytes.
    bytes: usize,
    /// Nanoseconds a write.
    ns: f64,
    /// How many times as long as the first of them, which is ours, in the same round.
    ratio: f64,
    /// As in [`Row`].
    line_ns: f64,
}

#[derive(Serialize)]
struct Report {
    cpus: Vec<usize>,
    rounds: u32,
    milliseconds_per_round: u64,
    outstanding_per_shard: usize,
    request_bytes: usize,
    rows: Vec<Row>,
    hand_over: Vec<Crossing>,
    streams: Vec<Stream>,
}

/// One round of a piece of work: operations and CPU seconds by so many threads in the time given.
type Work = fn(&[usize], Duration) -> Result<(f64, f64)>;

/// What is measured: a name, the work, and whether CPU time is shown.
const WORKS: [(&str, Work, bool); 5] = [
    ("no sharing (the most there can be)", count, false),
    ("Homa RPCs in memory", in_memory, false),
    ("the same, under one lock", in_memory_with_a_lock, false),
    ("bare UDP round trips, own sockets", bare_udp, true),
    ("Homa RPCs over loopback", over_loopback, true),
];

/// Runs the benchmark.
pub fn run(flags: &BenchShards) -> Result<()> {
    ensure!(flags.cpus.len() == 2, "two CPUs are needed, as in --cpus 0,1");
    let mut figures: Vec<Vec<[f64; 5]>> = vec![Vec::new(); WORKS.len()];
    let sizes = [64, 1400];
    let mut crossings: Vec<Vec<[f64; 2]>> = vec![Vec::new(); sizes.len()];
    let mut written: Vec<Vec<[f64; 3]>> = vec![Vec::new(); streams::CONTESTANTS.len()];
    for _ in 0..flags.rounds {
        for ((_, work, _), figures) in WORKS.iter().zip(&mut figures) {
            let (one, cpu_one) = work(&flags.cpus[..1], flags.time)?;
            let (two, cpu_two) = work(&flags.cpus, flags.time)?;
            figures.push([one, two, two / one, (cpu_two / two) / (cpu_one / one), line(&flags.cpus)]);
        }
        for (&bytes, crossings) in sizes.iter().zip(&mut crossings) {
            let ns = peyk::measure_hand_over([flags.cpus[0], flags.cpus[1]], 200_000, bytes)?;
            crossings.push([ns, line(&flags.cpus)]);
        }
        let mut ours = None;
        for ((_, contestant), written) in streams::CONTESTANTS.iter().zip(&mut written) {
            let ns = contestant(&flags.cpus);
            written.push([ns, ns / *ours.get_or_insert(ns), line(&flags.cpus)]);
        }
    }
    let middle = |values: &[[f64; 5]], at: usize| median(values.iter().map(|v| v[at]).collect());
    let per_second = 1.0 / flags.time.as_secs_f64();
    let rows = WORKS.iter().zip(&figures).map(|((work, _, shows_cpu), values)| Row {
        work,
        one: middle(values, 0) * per_second,
        two: middle(values, 1) * per_second,
        ratio: middle(values, 2),
        cpu_ratio: shows_cpu.then(|| middle(values, 3)),
        line_ns: middle(values, 4),
    });
    let hand_over = sizes.iter().zip(&crossings).map(|(&bytes, values)| Crossing {
        bytes,
        ns: median(values.iter().map(|v| v[0]).collect()),
        line_ns: median(values.iter().map(|v| v[1]).collect()),
    });
    let stream = |(by, values): (&'static str, &[[f64; 3]])| {
        let [ns, ratio, line_ns] = [0, 1, 2].map(|at| median(values.iter().map(|v| v[at]).collect()));
        Stream { by, bytes: streams::WRITE, ns, ratio, line_ns }
    };
    let report = Report {
        cpus: flags.cpus.clone(),
        rounds: flags.rounds,
        milliseconds_per_round: flags.time.as_millis() as u64,
        outstanding_per_shard: OUTSTANDING,
        request_bytes: SIZE,
        rows: rows.collect(),
        hand_over: hand_over.collect(),
        streams: streams::CONTESTANTS.iter().zip(&written).map(|((by, _), v)| stream((by, v))).collect(),
    };
    print(&report);
    if let Some(path) = &flags.json {
        write_json(path, &report)?;
        println!("\nWrote {}", path.display());
    }
    Ok(())
}

fn print(report: &Report) {
    println!("{:<40}{:>12}{:>12}{:>8}{:>10}{:>10}", "per second", "one", "two", "ratio", "CPU", "line ns");
    for row in &report.rows {
        let cpu = row.cpu_ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x"));
        println!(
            "{:<40}{:>12.0}{:>12.0}{:>8.2}{cpu:>10}{:>10.0}",
            row.work, row.one, row.two, row.ratio, row.line_ns
        );
    }
    println!("\n{:<40}{:>12}{:>42}", "from shard to shard", "ns each", "line ns");
    for crossing in &report.hand_over {
        let what = format!("packet of {} bytes", crossing.bytes);
        println!("{what:<40}{:>12.0}{:>42.0}", crossing.ns, crossing.line_ns);
    }
    println!("\n{:<40}{:>12}{:>20}{:>22}", "from thread to thread", "ns each", "times ours", "line ns");
    for stream in &report.streams {
        let what = format!("{} B by {}", stream.bytes, stream.by);
        println!("{what:<48}{:>4.0}{:>20.2}{:>22.0}", stream.ns, stream.ratio, stream.line_ns);
    }
    println!(
        "\nCPU: time of one operation by two, by that by one. Clients are part of the same threads or process."
    );
}

/// Two cache lines that are not neighbours.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// Nanoseconds of a cache line from one CPU to the other and back.
fn line(cpus: &[usize]) -> f64 {
    const ROUNDS: u64 = 20_000;
    let lines = [Line::default(), Line::default()];
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = peyk::pin_to_cpu(cpus[1]);
            for round in 1..=ROUNDS {
                while lines[0].0.load(Ordering::Acquire) != round {
                    spin_loop();
                }
                lines[1].0.store(round, Ordering::Release);
            }
        });
        let measuring = scope.spawn(|| {
            let _ = peyk::pin_to_cpu(cpus[0]);
            let mut start = Instant::now();
            for round in 1..=ROUNDS {
                if round == ROUNDS / 10 {
                    start = Instant::now();
                }
                lines[0].0.store(round, Ordering::Release);
                while lines[1].0.load(Ordering::Acquire) != round {
                    spin_loop();
                }
            }
            start.elapsed().as_nanos() as f64 / (ROUNDS - ROUNDS / 10) as f64
        });
        measuring.join().unwrap_or(f64::NAN)
    })
}

/// Runs `work` on each of the CPUs until the time is over; it is told when by the flag. Sums what they return.
fn on_each(cpus: &[usize], time: Duration, work: impl Fn(usize, &AtomicBool) -> u64 + Sync) -> (f64, f64) {
    let (done, cpu) = (AtomicBool::new(false), cpu_seconds());
    let total = thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter()
            .enumerate()
            .map(|(number, &place)| {
                let (work, done) = (&work, &done);
                scope.spawn(move || {
                    let _ = peyk::pin_to_cpu(place);
                    work(number, done)
                })
            })
            .collect();
        thread::sleep(time);
        done.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum::<u64>()
    });
    (total as f64, cpu_seconds() - cpu)
}

fn count(cpus: &[usize], time: Duration) -> Result<(f64, f64)> {
    Ok(on_each(cpus, time, |_, done| {
        let (mut rounds, mut value) = (0u64, 1u64);
        while !done.load(Ordering::Relaxed) {
            for _ in 0..1000 {
                value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).rotate_left(7));
            }
            rounds += 1;
        }
        rounds
    }))
}

fn in_memory(cpus: &[usize], time: Duration) -> Result<(f64, f64)> {
    Ok(on_each(cpus, time, |number, done| rpcs(number, done, || ())))
}

fn in_memory_with_a_lock(cpus: &[usize], time: Duration) -> Result<(f64, f64)> {
    let shared = Mutex::new(());
    Ok(on_each(cpus, time, |number, done| rpcs(number, done, || shared.lock())))
}

/// RPCs between two endpoints on one thread, packets carried by hand; `guard` is taken for the handling of each.
fn rpcs<G>(number: usize, done: &AtomicBool, guard: impl Fn() -> G) -> u64 {
    let host = |id| {
        let config = peyk::homa::Config { shard: number as u8, shards: 16, ..Default::default() };
        HomaHost::in_memory(id, config, Carriage::default(), 64)
    };
    let (mut client, mut server) = (host(0), host(1));
    let origin = Instant::now();
    let (mut completed, mut open) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let now = peyk::Instant::from_nanos(origin.elapsed().as_nanos() as u64);
        while open < OUTSTANDING {
            let request = Payload::copy_from(&[7; SIZE]);
            let (socket, options) = (client.client, RequestOptions::default());
            if client.endpoint.send_request(now, socket, server_of(1), request, options).is_err() {
                break;
            }
            open += 1;
        }
        for turn in 0..2 {
            let (from, to) = if turn == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            while let Some(packet) = from.poll_transmit(now) {
                let _held = guard();
                to.handle_packet(now, packet);
            }
            while let Some(event) = to.poll_outcome() {
                match event {
                    Event::Request { rpc, message, .. } => _ = to.endpoint.reply(now, rpc, message.into()),
                    Event::Response { .. } | Event::Failed { .. } => {
                        (completed, open) = (completed + 1, open - 1)
                    }
                    _ => {}
                }
            }
        }
        for host in [&mut client, &mut server] {
            if host.poll_timeout().is_some_and(|at| at <= now) {
                host.handle_timeout(now);
            }
        }
    }
    completed
}

/// Datagrams there and back between two sockets of one thread.
fn bare_udp(cpus: &[usize], time: Duration) -> Result<(f64, f64)> {
    Ok(on_each(cpus, time, |_, done| {
        let trip = || -> std::io::Result<u64> {
            let (client, server) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
            client.connect(server.local_addr()?)?;
            server.connect(client.local_addr()?)?;
            let (mut buffer, mut trips) = ([0; 2048], 0);
            while !done.load(Ordering::Relaxed) {
                client.send(&[7; SIZE])?;
                let length = server.recv(&mut buffer)?;
                server.send(&buffer[..length])?;
                client.recv(&mut buffer)?;
                trips += 1;
            }
            Ok(trips)
        };
        trip().unwrap_or(0)
    }))
}

/// A client on a shard, with as many requests to the socket of all shards as may be outstanding.
struct Client {
    socket: SocketId,
    to: PeerAddr,
    completed: Arc<AtomicU64>,
    open: usize,
}

impl Client {
    fn fill(&mut self, cx: &mut Context<'_>) {
        while self.open < OUTSTANDING {
            let request = Payload::copy_from(&[7; SIZE]);
            if cx.send_request(self.socket, self.to, request, RequestOptions::default()).is_err() {
                break;
            }
            self.open += 1;
        }
    }
}

impl Service for Client {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        if matches!(event, Event::Response { .. } | Event::Failed { .. }) {
            self.open -= 1;
            // This shard's own count; read when the time is over.
            self.completed.store(self.completed.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.fill(cx);
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) -> Option<peyk::Instant> {
        self.fill(cx);
        None
    }
}

/// A stack with a shard on each CPU; each serves its part of one socket and runs a client of it.
fn over_loopback(cpus: &[usize], time: Duration) -> Result<(f64, f64)> {
    let config = Config::default().with_udp_port(0).with_shards(cpus.len()).with_cpus(cpus);
    let stack = Stack::start(config.with_poll(Poll::Spin)).context("starting the stack")?;
    let address: Addr = "127.0.0.1:4000".parse()?;
    let serving = stack.serve_fn_each(address, || |request| request)?;
    let to = serving.local_addr().context("the server has no address")?;
    let mut clients = Vec::new();
    for shard in 0..cpus.len() {
        let completed = Arc::new(AtomicU64::new(0));
        let count = completed.clone();
        let client = stack.serve_on(shard, move |cx| {
            let socket = cx.open()?;
            let to = cx.peer(socket, to).map_err(|_| peyk::BindError::Stopped)?;
            Ok(Box::new(Client { socket, to, completed: count, open: 0 }))
        })?;
        clients.push((client, completed));
    }
    // Until it runs evenly.
    thread::sleep(time / 5);
    let count = || clients.iter().map(|(_, count)| count.load(Ordering::Relaxed)).sum::<u64>();
    let (before, cpu) = (count(), cpu_seconds());
    thread::sleep(time);
    let (completed, cpu) = (count() - before, cpu_seconds() - cpu);
    drop(clients);
    serving.stop();
    stack.stop();
    ensure!(completed > 0, "no RPC came back over loopback");
    Ok((completed as f64, cpu))
}
