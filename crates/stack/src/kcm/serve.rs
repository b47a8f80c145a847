//! Worker threads that read, handle and answer: no hand-off while messages are cheap, a shared queue when
//! they are not.
//!
//! A worker that finds a connection ready reads it. If handling the pass costs less than waking another
//! thread, it does so itself. Else it keeps its share, leaves the rest in the queue, wakes as many sleepers
//! as there is work for, and lets go of the connection before it begins: the next worker may read on.

mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use peyk_kcm::{Order, PsockId};

use super::engine::{Mux, Shared};
use super::socket::Socket;
use worker::{Shift, Worker};

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

/// A message as a handler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// All its bytes, header included.
    pub bytes: &'a [u8],
    /// The connection it came from.
    pub from: PsockId,
    /// Its number among the messages of that connection.
    pub number: u64,
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
        F: Fn(Incoming<'_>, &mut Replies<'_>) + Send + Sync + 'static,
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
            let mut worker = Worker::new(Shift {
                shared: self.0.clone(),
                socket,
                handler: handler.clone(),
                estimate: estimate.clone(),
                stop: stop.clone(),
                wake_ns: options.wake_cost.as_nanos() as u64,
                order: config.order,
            });
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
            if self.shared.workers.fetch_sub(1, Ordering::AcqRel) == 1 {
                let mut core = self.shared.lock();
                core.mux.end_served();
                self.shared.leave(core);
            }
        }
        self.shared.ring(&self.shared.keeper_bell);
    }
}
