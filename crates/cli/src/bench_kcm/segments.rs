//! K5: messages of 1400 bytes that come in segments of ten, over a thousand connections: how often the
//! application is woken.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use peyk::kcm::{Config, Mux};

use super::figure::{Figure, Goal};
use super::frames;

const CONNECTIONS: usize = 1000;
const BYTES: usize = 1400;
const SEGMENT: usize = 10;

struct Counting {
    thread: Thread,
    wakes: AtomicUsize,
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.thread.unpark();
    }
}

/// One message on each connection, ten bytes of each at a time.
fn trickle(clients: &[TcpStream]) -> Result<()> {
    let mut message = vec![7; BYTES];
    message[..4].copy_from_slice(&(BYTES as u32 - 4).to_be_bytes());
    for segment in message.chunks(SEGMENT) {
        for mut client in clients {
            client.write_all(segment)?;
        }
    }
    Ok(())
}

/// Connects all, then lets them trickle in a thread of their own.
fn clients(addr: std::net::SocketAddr) -> Result<Vec<TcpStream>> {
    let mut all = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let tcp = TcpStream::connect(addr)?;
        tcp.set_nodelay(true)?;
        all.push(tcp);
    }
    Ok(all)
}

/// A thread that reads what is ready and looks whether it is a message: wakes for each message.
fn baseline() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let connecting = std::thread::spawn(move || clients(addr));
    let mut servers = Vec::new();
    for number in 0..CONNECTIONS {
        let (tcp, _) = listener.accept()?;
        tcp.set_nonblocking(true)?;
        epoll.add(&tcp, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        servers.push((tcp, 0));
    }
    let clients = connecting.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    let trickling = std::thread::spawn(move || trickle(&clients).map(|()| clients));
    let (mut whole, mut looks, mut buffer) = (0, 0, [0; 4096]);
    let mut events = [EpollEvent::empty(); 64];
    while whole < CONNECTIONS {
        let ready = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        ensure!(ready > 0, "the messages stopped coming");
        for event in &events[..ready] {
            let (tcp, have) = &mut servers[event.data() as usize];
            looks += 1;
            match tcp.read(&mut buffer) {
                Ok(count) => *have += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            whole += usize::from(*have == BYTES);
        }
    }
    trickling.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    Ok(looks as f64 / CONNECTIONS as f64)
}

fn ours() -> Result<f64> {
    let (mux, socket) = Mux::open(Config::default())?;
    let addr = mux.listen("127.0.0.1:0".parse()?, frames(), false)?.local_addr();
    let clients = clients(addr)?;
    let trickling = std::thread::spawn(move || trickle(&clients).map(|()| clients));
    let counting = Arc::new(Counting { thread: std::thread::current(), wakes: AtomicUsize::new(0) });
    let waker = Waker::from(counting.clone());
    let mut context = Context::from_waker(&waker);
    for received in 0..CONNECTIONS {
        let mut next = pin!(socket.recv());
        let mut quiet = 0;
        let message = loop {
            match next.as_mut().poll(&mut context) {
                Poll::Ready(message) => break message?,
                Poll::Pending => std::thread::park_timeout(Duration::from_secs(1)),
            }
            quiet += 1;
            ensure!(quiet < 100_000, "the messages stopped coming after {received}");
        };
        ensure!(message.len() == BYTES, "a message of {} bytes", message.len());
    }
    trickling.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    Ok(counting.wakes.load(Ordering::Relaxed) as f64 / CONNECTIONS as f64)
}

pub fn run(pairs: u32) -> Result<Vec<Figure>> {
    super::descriptors(2 * CONNECTIONS as u64)?;
    let mut both = Vec::new();
    for _ in 0..pairs.min(3) {
        both.push((baseline()?, ours()?));
    }
    let wakes: Vec<f64> = both.iter().map(|(_, ours)| *ours).collect();
    Ok(vec![
        Figure::limited("k5", "wake-ups of the application for a message in 140 segments", 1.0, &wakes),
        Figure::new("k5", "the same", "a thread that reads what is ready", &both, Goal::None),
    ])
}
