//! K6: ten thousand connections, of which few carry most of the load, on two threads; requests come whether
//! or not earlier ones are answered.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::figure::{Figure, Goal};
use super::work::Work;
use super::{baseline, served};
use crate::flags::KcmClients;

const CONNECTIONS: usize = 10_000;
const EXPONENT: f64 = 1.2;
const WORK: Work = Work::Wait { micros: 280.0 };
/// Requests a second: about two thirds of what two threads can do.
const RATE: f64 = 3_800.0;
/// Connections are dealt out to two threads in turn: the busiest to one, the next to the other, and so on.
const EVEN: &[usize] = &[0, 1];

struct Clients {
    tcps: Vec<TcpStream>,
    epoll: Epoll,
    /// Cumulative shares of the connections.
    shares: Vec<f64>,
    random: Xoshiro256PlusPlus,
}

impl Clients {
    fn connect(addr: SocketAddr) -> Result<Clients> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut tcps = Vec::with_capacity(CONNECTIONS);
        for number in 0..CONNECTIONS {
            let tcp = TcpStream::connect(addr)
                .with_context(|| format!("connection {number} of {CONNECTIONS} to the benchmark's server"))?;
            tcp.set_nodelay(true)?;
            tcp.set_nonblocking(true)?;
            epoll.add(&tcp, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
            tcps.push(tcp);
        }
        let weight = |rank: usize| (rank as f64 + 1.0).powf(-EXPONENT);
        let all: f64 = (0..CONNECTIONS).map(weight).sum();
        let mut sum = 0.0;
        let shares = (0..CONNECTIONS).map(|rank| {
            sum += weight(rank) / all;
            sum
        });
        let (shares, random) = (shares.collect(), Xoshiro256PlusPlus::seed_from_u64(6));
        Ok(Clients { tcps, epoll, shares, random })
    }

    fn unit(&mut self) -> f64 {
        1.0 - (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 99th percentile of the latency, in microseconds.
    fn run(&mut self, time: Duration) -> Result<f64> {
        let (base, warm, end) = (Instant::now(), time / 4, time + time / 4);
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
        let (mut due, mut open) = (Duration::ZERO, 0u64);
        let mut events = [EpollEvent::empty(); 64];
        let mut partial: std::collections::HashMap<u64, Vec<u8>> = std::collections::HashMap::new();
        loop {
            let now = base.elapsed();
            while due <= now && due < end {
                self.ask(due)?;
                open += 1;
                due += Duration::from_secs_f64(-self.unit().ln() / RATE);
            }
            if due >= end && open == 0 {
                return Ok(histogram.value_at_quantile(0.99) as f64 / 1e3);
            }
            ensure!(now < end + Duration::from_secs(20), "{open} requests were not answered");
            // The timer of epoll counts milliseconds: waiting for the next request spins.
            let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
            if ready == 0 {
                std::thread::yield_now();
            }
            for event in &events[..ready] {
                let bytes = partial.entry(event.data()).or_default();
                read_into(&self.tcps[event.data() as usize], bytes)?;
                let whole = bytes.len() / 12;
                for reply in bytes.chunks_exact(12) {
                    let asked = Duration::from_nanos(u64::from_be_bytes(reply[4..12].try_into()?));
                    open -= 1;
                    if asked >= warm {
                        let taken = base.elapsed().saturating_sub(asked);
                        histogram.saturating_record(taken.as_nanos() as u64);
                    }
                }
                bytes.drain(..whole * 12);
            }
        }
    }

    /// A request that was due at this time, over a connection by its share.
    fn ask(&mut self, due: Duration) -> Result<()> {
        let at = self.unit();
        let rank = self.shares.partition_point(|share| *share < at).min(CONNECTIONS - 1);
        let mut request = [7; 64];
        request[..4].copy_from_slice(&60u32.to_be_bytes());
        request[4..12].copy_from_slice(&(due.as_nanos() as u64).to_be_bytes());
        (&self.tcps[rank]).write_all(&request).context("a connection takes no more requests")
    }
}

fn read_into(mut tcp: &TcpStream, bytes: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0; 4096];
    match tcp.read(&mut buffer) {
        Ok(0) => anyhow::bail!("the server has closed a connection"),
        Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error).context("receiving replies"),
    }
    Ok(())
}

/// The process of the clients: both ends of all connections would be too many descriptors for one.
pub fn clients(flags: &KcmClients) -> Result<()> {
    super::descriptors(CONNECTIONS as u64)?;
    println!("{}", Clients::connect(flags.server)?.run(flags.time)?);
    Ok(())
}

fn measure(addr: SocketAddr, time: Duration) -> Result<f64> {
    let time = format!("{}ms", time.as_millis());
    let output = Command::new(std::env::current_exe()?)
        .args(["kcm-clients", &addr.to_string(), &time])
        .stderr(Stdio::inherit())
        .output()
        .context("starting the clients")?;
    ensure!(output.status.success(), "the clients failed");
    std::str::from_utf8(&output.stdout)?.trim().parse().context("what the clients say is no number")
}

pub fn run(pairs: u32, time: Duration) -> Result<Vec<Figure>> {
    super::descriptors(CONNECTIONS as u64)?;
    let time = time.max(Duration::from_secs(1));
    let mut both = Vec::new();
    for _ in 0..pairs.min(5) {
        let theirs = {
            let (addr, _server) = baseline::threads(2, EVEN, WORK)?;
            measure(addr, time)?
        };
        let ours = {
            let (addr, _server) = served(2, WORK)?;
            measure(addr, time)?
        };
        both.push((theirs, ours));
    }
    let what = "p99 in us, 10,000 connections with Zipf load, 280 us of waiting, 2 threads";
    Ok(vec![Figure::new("k6", what, "threads that own their connections", &both, Goal::AtMost(0.5))])
}
