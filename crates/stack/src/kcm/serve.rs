//! Worker threads that read, handle and answer: no hand-off while messages are cheap, a shared queue when
//! they are not.
//!
//! A worker that finds a connection ready reads it. If handling the pass costs less than waking another
//! thread, it does so itself. Else it keeps its share, leaves the rest in the queue, wakes as many sleepers
//! as there is work for, and lets go of the connection before it begins: the next worker may read on.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use peyk_kcm::{Message, Order, PsockId};

use super::conn::Conn;
use super::engine::{CHUNK, Mux, Shared};
use super::keeper::BELL;
use super::socket::Socket;
use crate::sys::EpollEvent;

/// Most messages a worker takes from the queue at once.
const SHARE: usize = 64;

/// How workers decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Worker threads.
    pub threads: usize,
    /// Work that is not worth waking another thread for.
    pub wake_cost: Duration,
}

impl Default for ServeOptions {
    fn default() -> ServeOptions {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        ServeOptions { threads, wake_cost: Duration::from_micros(20) }
    }
}

/// What a message costs, in nanoseconds: falls fast and rises slowly, because pre-emption makes single
/// measurements far too long and never too short.
#[derive(Debug, Default)]
pub struct Estimate(AtomicU64);

impl Estimate {
    /// Takes a measurement in: the mean of a batch, in nanoseconds.
    pub fn add(&self, measured: u64) {
        let before = self.0.load(Ordering::Relaxed);
        let after = if measured < before {
            measured.max(before / 2)
        } else {
            measured.min(before + before / 8 + 200)
        };
        self.0.store(after, Ordering::Relaxed);
    }

    /// Nanoseconds for one message.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a handler puts its reply.
pub struct Replies<'a> {
    out: &'a mut BytesMut,
    count: &'a mut u64,
}

impl Replies<'_> {
    /// Answers the message at hand. More than one answer is more than one message.
    pub fn reply(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        *self.count += 1;
    }
}

/// Running workers; dropping this stops them.
pub struct Workers {
    shared: Arc<Shared>,
    stop: Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Mux {
    /// Handles all messages of this mux on worker threads. In the order [`Order::Connection`] messages of a
    /// connection are handled one after the other, with [`Order::Replies`] only the replies are ordered. The
    /// mux should be opened with `Steer::Pull`.
    ///
    /// # Errors
    /// The mux steers by key, which workers cannot, or has no socket to give; or there is no thread.
    pub fn serve<F>(&self, socket: &Socket, options: ServeOptions, handler: F) -> io::Result<Workers>
    where
        F: Fn(&Message, &mut Replies<'_>) + Send + Sync + 'static,
    {
        let config = self.0.lock().mux.config().clone();
        if config.order == Order::Key || config.steer != peyk_kcm::Steer::Pull {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "workers need Steer::Pull and no Order::Key",
            ));
        }
        self.0.lock().mux.set_served(config.order == Order::Connection);
        let handler = Arc::new(handler);
        let estimate = Arc::new(Estimate::default());
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        self.0.workers.fetch_add(options.threads, Ordering::AcqRel);
        self.0.ring(&self.0.keeper_bell);
        let mut workers = Workers { shared: self.0.clone(), stop: stop.clone(), threads: Vec::new() };
        for number in 0..options.threads {
            let socket = socket.try_clone().map_err(io::Error::other)?;
            let mut worker = Worker {
                shared: self.0.clone(),
                socket,
                handler: handler.clone(),
                estimate: estimate.clone(),
                stop: stop.clone(),
                wake_ns: options.wake_cost.as_nanos() as u64,
                order: config.order,
                batch: Vec::new(),
                known: Vec::new(),
                out: BytesMut::new(),
                buffer: BytesMut::with_capacity(CHUNK),
            };
            let name = format!("peyk-kcm-{number}");
            workers.threads.push(std::thread::Builder::new().name(name).spawn(move || worker.run())?);
        }
        Ok(workers)
    }
}

impl Workers {
    /// Stops the workers after what they are handling.
    pub fn stop(self) {}
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                self.shared.ring_reader();
                std::thread::sleep(Duration::from_micros(100));
            }
            let _ = thread.join();
            self.shared.workers.fetch_sub(1, Ordering::AcqRel);
        }
        self.shared.ring(&self.shared.keeper_bell);
    }
}

struct Worker<F> {
    shared: Arc<Shared>,
    socket: Socket,
    handler: Arc<F>,
    estimate: Arc<Estimate>,
    stop: Arc<std::sync::atomic::AtomicBool>,
    wake_ns: u64,
    order: Order,
    batch: Vec<(Message, Option<Arc<Conn>>)>,
    /// Connections met before, by index.
    known: Vec<(PsockId, Weak<Conn>)>,
    out: BytesMut,
    buffer: BytesMut,
}

impl<F: Fn(&Message, &mut Replies<'_>)> Worker<F> {
    fn run(&mut self) {
        let mut events = [EpollEvent { events: 0, u64: 0 }; 1];
        while !self.stop.load(Ordering::Acquire) && !self.shared.is_closed.load(Ordering::Acquire) {
            if self.shared.waits.load(Ordering::Acquire) {
                if self.take_share() {
                    self.handle();
                    continue;
                }
                if let Some(conn) = self.shared.next_pending() {
                    self.read(&conn);
                    continue;
                }
            }
            self.shared.idle.fetch_add(1, Ordering::AcqRel);
            let ready = self.shared.reads.wait(&mut events, 1000);
            self.shared.idle.fetch_sub(1, Ordering::AcqRel);
            let Ok(ready) = ready else { return };
            if let [event] = ready
                && event.u64 != BELL
                && let Some(conn) = self.find(PsockId::from_bits(event.u64))
            {
                conn.note_edge(event.events);
                self.read(&conn);
            }
        }
    }

    /// A connection by its id. Those met before are found without the mutex; they are not kept alive.
    fn find(&mut self, id: PsockId) -> Option<Arc<Conn>> {
        if let Some((known, conn)) = self.known.get(id.index())
            && *known == id
            && let Some(conn) = conn.upgrade()
        {
            return Some(conn);
        }
        let conn = self.shared.lock().conn(id).cloned()?;
        if self.known.len() <= id.index() {
            self.known.resize(id.index() + 1, (id, Weak::new()));
        }
        self.known[id.index()] = (id, Arc::downgrade(&conn));
        Some(conn)
    }

    /// Takes a share of what waits for any worker. True if there was something.
    fn take_share(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut core = shared.lock();
        let waiting = core.mux.waiting_messages();
        if waiting == 0 && !core.mux.has_parked() {
            return false;
        }
        core.mux.advance(shared.now());
        let idle = shared.idle.load(Ordering::Acquire);
        let share = (waiting / (idle + 1)).clamp(1, SHARE);
        self.take(&mut core, share);
        shared.leave(core);
        !self.batch.is_empty()
    }

    fn take(&mut self, core: &mut super::engine::Core, most: usize) {
        let first = self.batch.len();
        let batch = &mut self.batch;
        core.mux.take_waiting(self.socket.id(), most, |message| batch.push((message, None)));
        // The first message of a run keeps its connection alive for all of them.
        for i in first..self.batch.len() {
            let from = self.batch[i].0.from;
            if i == 0 || self.batch[i - 1].0.from != from {
                let conn = core.conn(from).cloned();
                if let Some(conn) = &conn {
                    conn.in_service.fetch_add(1, Ordering::AcqRel);
                }
                self.batch[i].1 = conn;
            }
        }
    }

    /// Reads a connection for a turn, and handles what is its share.
    fn read(&mut self, conn: &Arc<Conn>) {
        if !conn.begin_read() {
            return;
        }
        let shared = self.shared.clone();
        let mut buffer = std::mem::take(&mut self.buffer);
        let keeps_order = self.order == Order::Connection;
        let turn = shared.pass(conn, &mut buffer, |core| {
            let waiting = core.mux.waiting_messages().max(1);
            let cost = self.estimate.get().saturating_mul(waiting as u64);
            let idle = shared.idle.load(Ordering::Acquire);
            let is_cheap = keeps_order || cost < self.wake_ns;
            let most = if is_cheap { usize::MAX } else { usize::from(self.batch.is_empty()) };
            self.take(core, most);
            let left = core.mux.waiting_messages().min(idle);
            (0..left).for_each(|_| shared.ring_reader());
        });
        self.buffer = buffer;
        // In the order of connections nobody reads on before all is handled.
        if keeps_order {
            self.handle();
            shared.end_turn(conn, turn);
        } else {
            shared.end_turn(conn, turn);
            self.handle();
        }
    }

    /// Handles the batch, then sends all replies: one piece for each connection.
    fn handle(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let started = Instant::now();
        let mut done: Vec<(PsockId, u64, bytes::Bytes, u64)> = Vec::new();
        let mut count = 0;
        for (i, (message, _)) in batch.iter().enumerate() {
            (self.handler)(message, &mut Replies { out: &mut self.out, count: &mut count });
            let is_last = batch.get(i + 1).is_none_or(|(next, _)| next.from != message.from);
            if is_last || self.order == Order::Replies {
                done.push((message.from, message.number, self.out.split().freeze(), count));
                count = 0;
            }
        }
        self.estimate.add(started.elapsed().as_nanos() as u64 / batch.len() as u64);
        let shared = self.shared.clone();
        let mut core = shared.lock();
        let now = shared.now();
        for (psock, number, bytes, count) in done {
            // Who has gone needs no answer.
            let _ = match self.order {
                Order::Replies if bytes.is_empty() => {
                    core.mux.skip_reply(psock, number);
                    Ok(())
                }
                Order::Replies => core.mux.send_reply(self.socket.id(), psock, number, bytes, now),
                _ if bytes.is_empty() => Ok(()),
                _ => core.mux.send_joined(self.socket.id(), psock, bytes, count),
            };
        }
        shared.leave(core);
        shared.retire_handled(&batch);
        self.batch = batch;
        self.batch.clear();
        self.out.reserve(CHUNK / 2);
    }
}
