//! Round trips of 100 bytes over UDP between two threads, by the way both wait; and what an idle
//! wait costs.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use peyk::kevent::{Backend, Config, Events, Queue, RecvMsg, Source, Spin, Token, Train, Wait, What, udp};

use super::{Effort, Findings, median};
use crate::process;

const HYBRID: Spin = Spin::Adaptive { max: Duration::from_micros(100) };

/// Measures.
pub fn run(effort: Effort, findings: &mut Findings) -> Result<()> {
    let case = "round trip of 100 B over UDP, median";
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..effort.rounds {
        times[0].push(blocking(effort.time)?);
        times[1].push(queued(effort.time, Backend::Uring, HYBRID)?);
        times[2].push(queued(effort.time, Backend::Epoll, HYBRID)?);
        times[3].push(queued(effort.time, Backend::Uring, Spin::Sleep)?);
    }
    findings.row(case, "blocking send and recv", "us", &times[0], "");
    findings.row(case, "kevent hybrid, io_uring", "us", &times[1], "");
    findings.row(case, "kevent hybrid, epoll", "us", &times[2], "");
    findings.row(case, "kevent asleep, io_uring", "us", &times[3], "");
    findings.bar("round trip, hybrid wait / blocking", &times[1], &times[0], 0.2, false);
    let idle: Vec<f64> = (0..effort.rounds).map(|_| idle_cpu()).collect::<Result<_>>()?;
    findings.row("CPU of an idle hybrid wait", "kevent hybrid", "%", &idle, "");
    findings.bar("CPU of an idle hybrid wait, in %", &idle, &vec![1.0; idle.len()], 1.0, false);
    Ok(())
}

fn blocking(time: Duration) -> Result<f64> {
    let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let to = b.local_addr()?;
    a.set_read_timeout(Some(Duration::from_secs(2)))?;
    let echo = std::thread::spawn(move || {
        super::pin(1);
        let mut buf = [0; 200];
        while let Ok((n @ 1.., from)) = b.recv_from(&mut buf) {
            let _ = b.send_to(&buf[..n], from);
        }
    });
    super::pin(0);
    let mut buf = [0; 200];
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let sent = Instant::now();
        a.send_to(&[7; 100], to)?;
        a.recv_from(&mut buf)?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    a.send_to(&[], to)?;
    echo.join().map_err(|_| anyhow!("the echo failed"))?;
    Ok(median(&times))
}

struct Node {
    queue: Queue,
    source: Source,
    events: Events,
    train: [Box<Train>; 1],
}

impl Node {
    fn new(backend: Backend) -> Result<(Node, std::net::SocketAddr)> {
        let mut queue = Queue::new(Config { backend, ..Config::default() })?;
        let bound = udp::bind("127.0.0.1:0".parse()?, &udp::Options::default())?;
        let source = queue.adopt(bound.fd)?;
        queue.submit(Token(0), RecvMsg { source: source.clone() }).map_err(|r| r.why)?;
        Ok((Node { queue, source, events: Events::with_capacity(8), train: [Train::new()] }, bound.local))
    }

    fn send(&mut self, to: std::net::SocketAddr, bytes: &[u8]) -> Result<()> {
        self.train[0].start(to, 0);
        self.train[0].push(bytes, peyk::homa::Payload::new()).map_err(|_| anyhow!("too long"))?;
        self.queue.send_now(&self.source, &mut self.train)?;
        Ok(())
    }

    /// The sender of the next datagram.
    fn recv(&mut self, spin: Spin) -> Result<Option<std::net::SocketAddr>> {
        self.queue
            .wait(&mut self.events, Wait::until(Instant::now() + Duration::from_millis(100)).spin(spin))?;
        Ok(self.events.drain().find_map(|event| match event.what {
            What::Dgrams(dgrams) => Some(dgrams.from),
            _ => None,
        }))
    }
}

fn queued(time: Duration, backend: Backend, spin: Spin) -> Result<f64> {
    let over = AtomicBool::new(false);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            super::pin(1);
            let (mut node, addr) = Node::new(backend)?;
            tell.send(addr)?;
            while !over.load(Ordering::Relaxed) {
                if let Some(from) = node.recv(spin)? {
                    node.send(from, &[7; 100])?;
                }
            }
            Ok(())
        });
        super::pin(0);
        let to = told.recv()?;
        let (mut node, _) = Node::new(backend)?;
        let mut times = Vec::new();
        let start = Instant::now();
        while start.elapsed() < time {
            let sent = Instant::now();
            node.send(to, &[7; 100])?;
            while node.recv(spin)?.is_none() {}
            times.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        over.store(true, Ordering::Relaxed);
        echo.join().map_err(|_| anyhow!("the echo failed"))??;
        Ok(median(&times))
    })
}

/// Per cent of a CPU that waiting for nothing takes.
fn idle_cpu() -> Result<f64> {
    let (mut node, _) = Node::new(Backend::Uring)?;
    let (start, cpu) = (Instant::now(), process::cpu_seconds());
    while start.elapsed() < Duration::from_millis(500) {
        node.recv(HYBRID)?;
    }
    Ok(100.0 * (process::cpu_seconds() - cpu) / start.elapsed().as_secs_f64())
}
