//! The load: connections that keep some requests open each, on one thread; the stamp in each reply tells
//! its latency.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::process::cpu_seconds;

/// Requests whose time has come are sent this often.
const TICK: Duration = Duration::from_micros(200);
/// Token of the timer that says so.
const TIMER: u64 = u64::MAX;

/// Time without any reply after which the server is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of the server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections.
    pub connections: usize,
    /// Requests kept open on each.
    pub depth: usize,
    /// Bytes of a request, its length field included.
    pub bytes: usize,
    /// Threads of the client, each with its share of the connections. One thread alone would be what is
    /// measured when the server has no work.
    pub clients: usize,
    /// The client looks for replies all the time instead of sleeping. For servers that wait: what the client's
    /// own wake-ups take would else be counted as theirs.
    pub looks: bool,
    /// Requests a second of all connections together; `None` is as many as are answered. Without a limit the
    /// requests open at once are always all there may be, and latency says nothing that the rate has not said.
    pub pace: Option<f64>,
}

/// What came of one round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Requests answered in a second.
    pub per_second: f64,
    /// Mean latency.
    pub mean_us: f64,
    /// Its standard deviation.
    pub deviation_us: f64,
    /// Its 99th percentile.
    pub p99_us: f64,
    /// CPU time of server and client for a request, warm-up included.
    pub cpu_us: f64,
}

struct Connection {
    tcp: TcpStream,
    /// Bytes of a reply that is cut.
    partial: Vec<u8>,
    /// Bytes of requests the socket has not taken.
    unsent: Vec<u8>,
    /// Requests that may be sent.
    free: usize,
}

/// Loads a server for some time, after a warm-up of a quarter of it.
pub fn round(addr: SocketAddr, load: Load, time: Duration) -> Result<Round> {
    let cpu_before = cpu_seconds();
    let pace = load.pace.map(|pace| pace / load.clients.max(1) as f64);
    let load = Load { pace, ..load };
    let share = Load { connections: load.connections / load.clients.max(1), ..load };
    let others: Vec<_> =
        (1..load.clients).map(|_| std::thread::spawn(move || measure(addr, share, time))).collect();
    let rest = load.connections - share.connections * others.len();
    let mut histogram = measure(addr, Load { connections: rest, ..load }, time)?;
    for other in others {
        let other = other.join().map_err(|_| anyhow::anyhow!("a thread of the client panicked"))??;
        histogram.add(other)?;
    }
    let cpu_us = (cpu_seconds() - cpu_before) * 1e6 / (histogram.len() as f64 * 1.25);
    Ok(Round {
        cpu_us,
        per_second: histogram.len() as f64 / time.as_secs_f64(),
        mean_us: histogram.mean() / 1e3,
        deviation_us: histogram.stdev() / 1e3,
        p99_us: histogram.value_at_quantile(0.99) as f64 / 1e3,
    })
}

/// The latencies of one thread's connections.
fn measure(addr: SocketAddr, load: Load, time: Duration) -> Result<Histogram<u64>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let base = Instant::now();
    let mut connections = Vec::new();
    for i in 0..load.connections {
        let tcp = TcpStream::connect(addr).context("connecting to the server of the benchmark")?;
        tcp.set_nodelay(true)?;
        epoll.add(&tcp, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))?;
        connections.push(Connection { tcp, partial: Vec::new(), unsent: Vec::new(), free: load.depth });
    }
    for connection in &mut connections {
        connection.tcp.set_nonblocking(true)?;
    }
    let timer = ticks(&epoll, load)?;
    let mut pacer = Pacer::default();
    pacer.ask(&mut connections, load, base)?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    let (warm, end) = (time / 4, time / 4 + time);
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = vec![0; 64 * 1024];
    let wait = if load.looks { EpollTimeout::ZERO } else { EpollTimeout::from(100u16) };
    let mut answered_at = Instant::now();
    while base.elapsed() < end {
        let ready = epoll.wait(&mut events, wait)?;
        if events[..ready].iter().all(|event| event.data() == TIMER) {
            ensure!(answered_at.elapsed() < PATIENCE, "the server does not answer any more");
            if load.looks {
                std::thread::yield_now();
            }
        } else {
            answered_at = Instant::now();
        }
        for event in &events[..ready] {
            if let (TIMER, Some(timer)) = (event.data(), &timer) {
                timer.wait().context("waiting for the timer")?;
                continue;
            }
            let connection = &mut connections[event.data() as usize];
            connection.free += connection.take(&mut buffer, base, warm, &mut histogram)?;
            if load.pace.is_none() {
                connection.ask_free(load, base)?;
            }
        }
        if load.pace.is_some() {
            pacer.ask(&mut connections, load, base)?;
        }
        for connection in connections.iter_mut().filter(|connection| !connection.unsent.is_empty()) {
            connection.push()?;
        }
    }
    Ok(histogram)
}

/// A timer in the set for a load with a pace.
fn ticks(epoll: &Epoll, load: Load) -> Result<Option<TimerFd>> {
    if load.pace.is_none() {
        return Ok(None);
    }
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    timer.set(Expiration::Interval(TICK.into()), TimerSetTimeFlags::empty())?;
    epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
    Ok(Some(timer))
}

/// Which connection asks next, and how many requests have been sent.
#[derive(Default)]
struct Pacer {
    next: usize,
    asked: u64,
}

impl Pacer {
    /// Sends what is due, one request of each connection in turn as long as they may have more open. What finds
    /// no connection is not made up for.
    fn ask(&mut self, connections: &mut [Connection], load: Load, base: Instant) -> Result<()> {
        let Some(pace) = load.pace else {
            return connections.iter_mut().try_for_each(|connection| connection.ask_free(load, base));
        };
        let due = (base.elapsed().as_secs_f64() * pace) as u64;
        let mut rest = due.saturating_sub(self.asked);
        let mut counts = vec![0; connections.len()];
        let mut refused = 0;
        while rest > 0 && refused < connections.len() {
            let at = self.next % connections.len();
            self.next += 1;
            if counts[at] < connections[at].free {
                (counts[at], rest, refused) = (counts[at] + 1, rest - 1, 0);
            } else {
                refused += 1;
            }
        }
        self.asked = due;
        for (connection, count) in connections.iter_mut().zip(counts) {
            connection.free -= count;
            connection.ask(load, count, base)?;
        }
        Ok(())
    }
}

impl Connection {
    /// Sends as many requests as may be open.
    fn ask_free(&mut self, load: Load, base: Instant) -> Result<()> {
        let count = std::mem::take(&mut self.free);
        self.ask(load, count, base)
    }

    /// Sends so many requests, stamped with the time, in one piece.
    fn ask(&mut self, load: Load, count: usize, base: Instant) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let stamp = (base.elapsed().as_nanos() as u64).to_be_bytes();
        for _ in 0..count {
            self.unsent.extend_from_slice(&(load.bytes as u32 - 4).to_be_bytes());
            self.unsent.extend_from_slice(&stamp);
            self.unsent.resize(self.unsent.len() + load.bytes - 12, 7);
        }
        self.push()
    }

    fn push(&mut self) -> Result<()> {
        match (&self.tcp).write(&self.unsent) {
            Ok(count) => {
                self.unsent.drain(..count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("sending requests"),
        }
        Ok(())
    }

    /// Takes the replies that are there and returns how many.
    fn take(
        &mut self,
        buffer: &mut [u8],
        base: Instant,
        warm: Duration,
        histogram: &mut Histogram<u64>,
    ) -> Result<usize> {
        let count = match (&self.tcp).read(buffer) {
            Ok(0) => anyhow::bail!("the server has closed a connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error).context("receiving replies"),
        };
        self.partial.extend_from_slice(&buffer[..count]);
        let now = base.elapsed();
        let whole = self.partial.len() / 12;
        for reply in self.partial.chunks_exact(12) {
            let stamp = u64::from_be_bytes(reply[4..12].try_into()?);
            if now >= warm {
                histogram.saturating_record((now.as_nanos() as u64).saturating_sub(stamp));
            }
        }
        self.partial.drain(..whole * 12);
        Ok(whole)
    }
}
