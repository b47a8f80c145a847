//! What KCM is compared with: threads that own their connections, and the usual pool of workers behind a
//! reader.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::work::{Work, answer, first_message};

/// A running server; dropping it ends it.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    addr: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // One connection more lets the accepting thread look.
        if let Ok(tcp) = TcpStream::connect(self.addr) {
            super::shut(&tcp);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Accepts connections until told to stop and gives each with its number to `place`.
fn accept(mut place: impl FnMut(usize, TcpStream) + Send + 'static) -> Result<Server> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let mut number = 0;
        while let Ok((tcp, _)) = listener.accept() {
            if stopped.load(Ordering::Acquire) {
                return;
            }
            if tcp.set_nodelay(true).is_ok() && tcp.set_nonblocking(true).is_ok() {
                place(number, tcp);
                number += 1;
            }
        }
    });
    Ok(Server { stop, threads: vec![thread], addr })
}

/// A connection and the bytes of a request that is cut.
struct Connection {
    tcp: Arc<TcpStream>,
    partial: Vec<u8>,
}

/// A thread with its own set of connections.
struct Owner {
    epoll: Epoll,
    connections: Mutex<Vec<Arc<Mutex<Connection>>>>,
}

impl Owner {
    fn new() -> Result<Owner> {
        Ok(Owner { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, connections: Mutex::default() })
    }

    fn add(&self, tcp: TcpStream) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let number = connections.len() as u64;
        let connection = Connection { tcp: Arc::new(tcp), partial: Vec::new() };
        if self.epoll.add(&*connection.tcp, EpollEvent::new(EpollFlags::EPOLLIN, number)).is_ok() {
            connections.push(Arc::new(Mutex::new(connection)));
        }
    }

    /// Reads, and gives all whole requests of each read to `handle`.
    fn run(&self, stop: &AtomicBool, mut handle: impl FnMut(&Arc<TcpStream>, &[u8])) {
        let mut events = [EpollEvent::empty(); 16];
        let mut buffer = vec![0; 64 * 1024];
        // Known to this thread alone once fetched: the lock is for the thread that accepts.
        let mut known: Vec<Arc<Mutex<Connection>>> = Vec::new();
        while !stop.load(Ordering::Acquire) {
            let Ok(ready) = self.epoll.wait(&mut events, EpollTimeout::from(20u16)) else { continue };
            for event in &events[..ready] {
                let number = event.data() as usize;
                if number >= known.len() {
                    known.clone_from(&self.connections.lock().unwrap_or_else(PoisonError::into_inner));
                }
                let mut connection = known[number].lock().unwrap_or_else(PoisonError::into_inner);
                let Connection { tcp, partial } = &mut *connection;
                match (&**tcp).read(&mut buffer) {
                    Ok(count) if count > 0 => take(tcp, partial, &buffer[..count], &mut handle),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => drop(self.epoll.delete(&**tcp)),
                }
            }
        }
    }
}

/// Whole requests are handled where they lie; only one that is cut is copied.
fn take(
    tcp: &Arc<TcpStream>,
    partial: &mut Vec<u8>,
    new: &[u8],
    handle: &mut impl FnMut(&Arc<TcpStream>, &[u8]),
) {
    let joined;
    let bytes = if partial.is_empty() {
        new
    } else {
        partial.extend_from_slice(new);
        joined = std::mem::take(partial);
        &joined
    };
    let mut at = 0;
    while let Some(message) = first_message(&bytes[at..]) {
        at += message.len();
    }
    if at > 0 {
        handle(tcp, &bytes[..at]);
    }
    partial.extend_from_slice(&bytes[at..]);
}

fn write_all(mut tcp: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match tcp.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(_) => return,
        }
    }
}

/// A thread for each share of the connections: reads, handles, writes the replies of one read at once.
pub fn threads(count: usize, placement: &'static [usize], work: Work) -> Result<(SocketAddr, Server)> {
    let owners: Vec<Arc<Owner>> = (0..count).map(|_| Owner::new().map(Arc::new)).collect::<Result<_>>()?;
    let places = owners.clone();
    let mut server = accept(move |number, tcp| places[placement[number % placement.len()]].add(tcp))?;
    for owner in owners {
        let stop = server.stop.clone();
        server.threads.push(std::thread::spawn(move || {
            let mut out = Vec::new();
            owner.run(&stop, |tcp, mut messages| {
                out.clear();
                while let Some(message) = first_message(messages) {
                    work.run();
                    out.extend_from_slice(&answer(message));
                    messages = &messages[message.len()..];
                }
                write_all(tcp, &out);
            });
        }));
    }
    Ok((server.addr, server))
}

type Job = (Arc<TcpStream>, Vec<u8>);

/// One reader, a channel, and workers: each message is handed over, each reply written by itself.
pub fn pool(count: usize, work: Work) -> Result<(SocketAddr, Server)> {
    let owner = Arc::new(Owner::new()?);
    let place = owner.clone();
    let mut server = accept(move |_, tcp| place.add(tcp))?;
    let (jobs, taken): (Sender<Job>, Receiver<Job>) = channel();
    let taken = Arc::new(Mutex::new(taken));
    for _ in 0..count {
        let taken = taken.clone();
        server.threads.push(std::thread::spawn(move || {
            loop {
                let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((tcp, message)) = job else { return };
                work.run();
                write_all(&tcp, &answer(&message));
            }
        }));
    }
    let stop = server.stop.clone();
    server.threads.push(std::thread::spawn(move || {
        owner.run(&stop, |tcp, mut messages| {
            while let Some(message) = first_message(messages) {
                let _ = jobs.send((tcp.clone(), message.to_vec()));
                messages = &messages[message.len()..];
            }
        });
    }));
    Ok((server.addr, server))
}
