//! A relay: connections of clients above, M connections to backends below, each whole message over whichever
//! backend connection has the least to do, each reply back to who asked, in order.
//!
//! A backend's replies are matched to requests by the key of the protocol if it has one in both directions
//! and messages may be spread, else by order. Sessions that live in a connection (SELECT, transactions,
//! subscriptions) cannot be relayed this way.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use peyk_kcm::framer::{Framer, Spread};
use peyk_kcm::status::MuxSnapshot;
use peyk_kcm::{Config, Event, Order, PsockId, Target};

use super::attach::AttachError;
use super::engine::Mux;
use super::socket::{Message, Socket};

/// Messages moved at once.
const BATCH: usize = 128;
/// Time until a backend that was lost is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What a relay is made of.
pub struct RelayOptions {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where requests go, one connection for each entry; an address may stand here several times.
    pub backends: Vec<SocketAddr>,
    /// Frames what clients send, and what backends send.
    pub framers: (Box<dyn Framer>, Box<dyn Framer>),
    /// Requests that get no reply, recognised by their bytes.
    pub is_silent: fn(&[u8]) -> bool,
    /// Limits of both sides.
    pub config: Config,
}

/// A running relay; dropping it ends it.
pub struct Relay {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
    addr: SocketAddr,
}

struct Inner {
    front: Mux,
    back: Mux,
    backends: Mutex<BTreeMap<PsockId, Backend>>,
    framer: Mutex<Box<dyn Framer>>,
    by_key: bool,
    is_silent: fn(&[u8]) -> bool,
    stop: AtomicBool,
    failed: AtomicU64,
}

/// A backend connection and the requests it has not answered, oldest first.
struct Backend {
    addr: SocketAddr,
    open: VecDeque<(Option<u32>, PsockId, u64)>,
}

impl Relay {
    /// Starts it: all backends must be there.
    ///
    /// # Errors
    /// An address cannot be bound, or a backend not be reached.
    pub fn start(options: RelayOptions) -> Result<Relay, AttachError> {
        let (requests, replies) = options.framers;
        let by_key = requests.spread() == Spread::Any && replies.spread() == Spread::Any;
        let (front, above) = Mux::open(Config { order: Order::Replies, ..options.config.clone() })?;
        let (back, below) = Mux::open(Config { order: Order::Any, ..options.config })?;
        let inner = Arc::new(Inner {
            front,
            back,
            backends: Mutex::new(BTreeMap::new()),
            framer: Mutex::new(replies),
            by_key,
            is_silent: options.is_silent,
            stop: AtomicBool::new(false),
            failed: AtomicU64::new(0),
        });
        for addr in options.backends {
            inner.connect(addr)?;
        }
        let addr = inner.front.listen(options.listen, requests, false)?.local_addr();
        let above = Arc::new(above);
        let below = Arc::new(below);
        let mut relay = Relay { inner, threads: Vec::new(), addr };
        relay.spawn("requests", {
            let (above, below) = (above.clone(), below.clone());
            move |inner| inner.move_requests(&above, &below)
        })?;
        relay.spawn("replies", move |inner| inner.move_replies(&above, &below))?;
        relay.spawn("backends", Inner::mind_backends)?;
        Ok(relay)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(&Arc<Inner>) + Send + 'static) -> io::Result<()> {
        let inner = self.inner.clone();
        let thread = std::thread::Builder::new().name(format!("peyk-{name}"));
        self.threads.push(thread.spawn(move || run(&inner))?);
        Ok(())
    }

    /// Where clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The sides of the clients and of the backends.
    pub fn snapshots(&self) -> [MuxSnapshot; 2] {
        [self.inner.front.snapshot(), self.inner.back.snapshot()]
    }

    /// Requests whose backend was lost before it answered; their clients were disconnected.
    pub fn failed(&self) -> u64 {
        self.inner.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn connect(&self, addr: SocketAddr) -> Result<(), AttachError> {
        let framer = self.framer.lock().unwrap_or_else(PoisonError::into_inner).fresh();
        // The list is locked first: the connection may be lost before it is in it.
        let mut backends = self.lock();
        let psock = self.back.connect(addr, framer)?;
        backends.insert(psock, Backend { addr, open: VecDeque::new() });
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PsockId, Backend>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn move_requests(&self, above: &Socket, below: &Socket) {
        let mut batch: Vec<Message> = Vec::new();
        while !self.is_stopped() {
            above.recv_many(BATCH, &mut batch, Duration::from_millis(100));
            let mut out = Vec::with_capacity(batch.len());
            let mut backends = self.lock();
            for message in &batch {
                if (self.is_silent)(message) {
                    above.skip_reply(message);
                    continue;
                }
                let least = backends.iter_mut().min_by_key(|(_, backend)| backend.open.len());
                let Some((psock, backend)) = least else {
                    self.fail(message.from());
                    continue;
                };
                let key = message.meta().key.filter(|_| self.by_key);
                backend.open.push_back((key, message.from(), message.number()));
                out.push((message.bytes().clone(), Target::Psock(*psock)));
            }
            drop(backends);
            below.send_many(out);
            batch.clear();
        }
    }

    fn move_replies(&self, above: &Socket, below: &Socket) {
        let mut batch: Vec<Message> = Vec::new();
        while !self.is_stopped() {
            below.recv_many(BATCH, &mut batch, Duration::from_millis(100));
            let mut out = Vec::with_capacity(batch.len());
            let mut backends = self.lock();
            for message in &batch {
                let Some(backend) = backends.get_mut(&message.from()) else { continue };
                let key = message.meta().key.filter(|_| self.by_key);
                // A reply nobody has asked for belongs to nobody.
                let Some(at) = backend.open.iter().position(|(open, _, _)| *open == key) else { continue };
                if let Some((_, client, number)) = backend.open.remove(at) {
                    out.push((message.bytes().clone(), Target::Reply(client, number)));
                }
            }
            drop(backends);
            above.send_many(out);
            batch.clear();
        }
    }

    /// Its client would wait for ever, or get the replies of others.
    fn fail(&self, client: PsockId) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        // It may be gone by itself.
        let _ = self.front.close_psock(client);
    }

    fn mind_backends(self: &Arc<Self>) {
        let mut lost: Vec<SocketAddr> = Vec::new();
        while !self.is_stopped() {
            while let Some(event) = self.back.try_event() {
                let Event::PsockDown { psock, .. } = event else { continue };
                let Some(backend) = self.lock().remove(&psock) else { continue };
                backend.open.iter().for_each(|(_, client, _)| self.fail(*client));
                tracing::warn!(addr = %backend.addr, "backend lost");
                lost.push(backend.addr);
            }
            while self.front.try_event().is_some() {}
            lost.retain(|addr| self.connect(*addr).is_err());
            std::thread::sleep(if lost.is_empty() { Duration::from_millis(20) } else { RETRY });
        }
    }
}
