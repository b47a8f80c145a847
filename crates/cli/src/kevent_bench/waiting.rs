//! Round trips of 100 bytes over UDP between two threads, by the way both wait; and what an idle
//! wait costs.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use peyk::kevent::floor::RawReceive;
use peyk::kevent::{Backend, Config, Events, Queue, RecvMsg, Source, Spin, Token, Train, Wait, What, udp};

use super::{Effort, Findings, median};
use crate::process;

const HYBRID: Spin = Spin::Adaptive { max: Duration::from_micros(100) };

/// Measures.
pub fn run(effort: Effort, findings: &mut Findings) -> Result<()> {
    let case = "round trip of 100 B over UDP, median";
    type Contestant = (&'static str, fn(Duration) -> Result<f64>);
    let contestants: [Contestant; 8] = [
        ("blocking send and recv", |time| round_trips(time, Blocking::new)),
        ("epoll alone", |time| round_trips(time, Polled::new)),
        ("the io-uring crate alone", |time| round_trips(time, Ring::new)),
        ("tokio", |time| round_trips(time, Tokio::new)),
        ("kevent hybrid, io_uring", |time| round_trips(time, || Node::new(Backend::Uring, HYBRID))),
        ("kevent hybrid, epoll", |time| round_trips(time, || Node::new(Backend::Epoll, HYBRID))),
        ("kevent asleep, io_uring", |time| round_trips(time, || Node::new(Backend::Uring, Spin::Sleep))),
        ("kevent asleep, epoll", |time| round_trips(time, || Node::new(Backend::Epoll, Spin::Sleep))),
    ];
    let mut times: [Vec<f64>; 8] = Default::default();
    for _ in 0..effort.rounds {
        for (at, (_, contestant)) in contestants.iter().enumerate() {
            times[at].push(contestant(effort.time)?);
        }
    }
    for (at, (name, _)) in contestants.iter().enumerate() {
        findings.row(case, name, "us", &times[at], "");
    }
    findings.bar("round trip, hybrid wait / blocking", &times[4], &times[0], 0.2, false);
    findings.bar("round trip, asleep / crate alone", &times[6], &times[2], 1.08, false);
    let idle: Vec<f64> = (0..effort.rounds).map(|_| idle_cpu()).collect::<Result<_>>()?;
    findings.row("CPU of an idle hybrid wait", "kevent hybrid", "%", &idle, "");
    findings.bar("CPU of an idle hybrid wait, in %", &idle, &vec![1.0; idle.len()], 1.0, false);
    Ok(())
}

/// One side of a conversation by datagrams of at most 100 bytes.
trait Side {
    fn addr(&self) -> Result<SocketAddr>;
    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> Result<()>;
    /// Waits for the next datagram: its length, and from whom.
    fn recv(&mut self) -> Result<(usize, SocketAddr)>;
}

/// Microseconds of the median round trip between two sides, each on a thread and CPU of its own.
fn round_trips<S: Side>(time: Duration, make: impl Fn() -> Result<S> + Sync) -> Result<f64> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            super::pin(1);
            let mut side = make()?;
            tell.send(side.addr()?)?;
            loop {
                // An empty datagram is the end.
                let (len @ 1.., from) = side.recv()? else { return Ok(()) };
                side.send(from, &[7; 100][..len])?;
            }
        });
        super::pin(0);
        let to = told.recv()?;
        let mut side = make()?;
        let mut times = Vec::new();
        let start = Instant::now();
        while start.elapsed() < time {
            let sent = Instant::now();
            side.send(to, &[7; 100])?;
            side.recv()?;
            times.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        UdpSocket::bind("127.0.0.1:0")?.send_to(&[], to)?;
        echo.join().map_err(|_| anyhow!("the echo failed"))??;
        Ok(median(&times))
    })
}

struct Blocking(UdpSocket);

impl Blocking {
    fn new() -> Result<Blocking> {
        Ok(Blocking(UdpSocket::bind("127.0.0.1:0")?))
    }
}

impl Side for Blocking {
    fn addr(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> Result<()> {
        self.0.send_to(bytes, to)?;
        Ok(())
    }

    fn recv(&mut self) -> Result<(usize, SocketAddr)> {
        Ok(self.0.recv_from(&mut [0; 200])?)
    }
}

/// Waits by epoll, then receives.
struct Polled(Blocking, Epoll);

impl Polled {
    fn new() -> Result<Polled> {
        let (socket, epoll) = (Blocking::new()?, Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        socket.0.set_nonblocking(true)?;
        epoll.add(&socket.0, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Polled(socket, epoll))
    }
}

impl Side for Polled {
    fn addr(&self) -> Result<SocketAddr> {
        self.0.addr()
    }

    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> Result<()> {
        self.0.send(to, bytes)
    }

    fn recv(&mut self) -> Result<(usize, SocketAddr)> {
        loop {
            self.1.wait(&mut [EpollEvent::empty(); 8], EpollTimeout::NONE)?;
            match self.0.0.recv_from(&mut [0; 200]) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                result => return Ok(result?),
            }
        }
    }
}

/// Sends by a plain call, receives by the ring's crate.
struct Ring(Blocking, RawReceive);

impl Ring {
    fn new() -> Result<Ring> {
        let socket = Blocking::new()?;
        let receive = RawReceive::new(socket.0.try_clone()?.into(), 200)?;
        Ok(Ring(socket, receive))
    }
}

impl Side for Ring {
    fn addr(&self) -> Result<SocketAddr> {
        self.0.addr()
    }

    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> Result<()> {
        self.0.send(to, bytes)
    }

    fn recv(&mut self) -> Result<(usize, SocketAddr)> {
        Ok(self.1.recv()?)
    }
}

struct Tokio(tokio::runtime::Runtime, tokio::net::UdpSocket);

impl Tokio {
    fn new() -> Result<Tokio> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let socket = runtime.block_on(tokio::net::UdpSocket::bind("127.0.0.1:0"))?;
        Ok(Tokio(runtime, socket))
    }
}

impl Side for Tokio {
    fn addr(&self) -> Result<SocketAddr> {
        Ok(self.1.local_addr()?)
    }

    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> Result<()> {
        self.0.block_on(self.1.send_to(bytes, to))?;
        Ok(())
    }

    fn recv(&mut self) -> Result<(usize, SocketAddr)> {
        Ok(self.0.block_on(self.1.recv_from(&mut [0; 200]))?)
    }
}

/// A queue.
struct Node {
    queue: Queue,
    source: Source,
    spin: Spin,
    events: Events,
    train: [Box<Train>; 1],
}

impl Node {
    fn new(backend: Backend, spin: Spin) -> Result<Node> {
        let mut queue = Queue::new(Config { backend, ..Config::default() })?;
        let bound = udp::bind("127.0.0.1:0".parse()?, &udp::Options::default())?;
        let source = queue.adopt(bound.fd)?;
        queue.submit(Token(0), RecvMsg { source: source.clone() }).map_err(|r| r.why)?;
        Ok(Node { queue, source, spin, events: Events::with_capacity(8), train: [Train::new()] })
    }

    /// The next datagram, if one comes within 100 ms.
    fn try_recv(&mut self) -> Result<Option<(usize, SocketAddr)>> {
        let until = Instant::now() + Duration::from_millis(100);
        self.queue.wait(&mut self.events, Wait::until(until).spin(self.spin))?;
        Ok(self.events.drain().find_map(|event| match event.what {
            What::Dgrams(dgrams) => Some((dgrams.bytes().len(), dgrams.from)),
            _ => None,
        }))
    }
}

impl Side for Node {
    fn addr(&self) -> Result<SocketAddr> {
        Ok(self.source.local_addr()?)
    }

    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> Result<()> {
        self.train[0].start(to, 0);
        self.train[0].push(bytes, peyk::homa::Payload::new()).map_err(|_| anyhow!("too long"))?;
        self.queue.send_now(&self.source, &mut self.train)?;
        Ok(())
    }

    fn recv(&mut self) -> Result<(usize, SocketAddr)> {
        loop {
            if let Some(found) = self.try_recv()? {
                return Ok(found);
            }
        }
    }
}

/// Per cent of a CPU that waiting for nothing takes.
fn idle_cpu() -> Result<f64> {
    let mut node = Node::new(Backend::Uring, HYBRID)?;
    let (start, cpu) = (Instant::now(), process::cpu_seconds());
    while start.elapsed() < Duration::from_millis(500) {
        node.try_recv()?;
    }
    Ok(100.0 * (process::cpu_seconds() - cpu) / start.elapsed().as_secs_f64())
}
