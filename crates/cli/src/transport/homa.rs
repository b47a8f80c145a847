//! Homa by Peyk: client and server as services on the shard, so that no other thread is involved.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use peyk::{
    Backend, Config, Context, Faults, Instant, Poll, Service, Stack,
    homa::{
        Addr, Event, Message, Payload, PeerAddr, Reason, ReplyError, RequestOptions, SendError, ServerRpc,
        SocketId,
    },
};

use super::tcp::Waiting;
use crate::{
    flags::BackendName,
    node::HomaOptions,
    process::Clock,
    traffic::{HEADER, Outgoing, Traffic, target},
    verify::{Executed, Kind, Ledger},
};

/// Homa port of the server.
const PORT: u16 = 4_000;

/// Memory for messages being received, touched as needed: a machine-wide overload must not run into it first.
const RECEIVE_MEMORY: usize = 512 << 20;

/// Bodies up to this length are copied next to their headers; longer ones are sent from where they lie.
const COPY_MAX: usize = 4_096;

/// Held requests, at most.
const HELD_MAX: usize = 100_000;

/// How often a shard that holds requests looks whether another was told to answer them.
const HELD_LOOK: Duration = Duration::from_millis(1);

/// The kernel interface of a name.
pub fn backend(name: BackendName) -> Backend {
    match name {
        BackendName::Auto => Backend::Auto,
        BackendName::Uring => Backend::Uring,
        BackendName::Epoll => Backend::Epoll,
    }
}

/// Starts a stack for a node, on any free UDP port.
pub fn start(options: &HomaOptions, waiting: Waiting) -> Result<Stack> {
    let poll = match waiting {
        Waiting::Block if options.sleep => Poll::Sleep,
        Waiting::Block => Config::default().poll,
        Waiting::Spin => Poll::Spin,
    };
    let mut config = Config::default()
        .with_udp_port(0)
        .with_backend(backend(options.backend))
        .with_poll(poll)
        .with_receive_memory(RECEIVE_MEMORY)
        .with_shards(options.shards);
    if let Some(link) = &options.link {
        config.homa = link.protocol(config.homa);
    }
    if options.drop > 0.0 {
        config = config.with_faults(Faults::loss(options.drop));
    }
    Stack::start(config).context("starting the Homa stack")
}

/// A server that answers every message with itself.
pub struct Server {
    shards: usize,
    serving: peyk::Serving,
    ledger: Option<SharedLedger>,
    executed: Receiver<()>,
}

/// What all shards executed, in one record: it shall see what two of them execute.
type SharedLedger = Arc<Mutex<Ledger>>;

fn lock(ledger: &SharedLedger) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Starts it on a stack; also gives where it listens. With `checked`, requests are checked and may be held.
    pub fn start(stack: &Stack, ip: IpAddr, checked: bool) -> Result<(Server, Addr)> {
        let (tell, executed) = channel();
        let ledger = checked.then(|| Arc::new(Mutex::new(Ledger::default())));
        let shared = ledger.clone();
        let (open, released) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let serving = stack
            .serve_each(Addr::new(ip, PORT).with_udp_port(0), move |_, _| {
                Ok(Box::new(Echo {
                    ledger: shared.clone(),
                    held: Vec::new(),
                    open: open.clone(),
                    released: released.clone(),
                    seen_released: 0,
                    waiting: VecDeque::new(),
                    tell: tell.clone(),
                }))
            })
            .context("binding the Homa server")?;
        let address = serving.local_addr().context("the Homa server did not start")?;
        Ok((Server { shards: stack.shard_count(), serving, ledger, executed }, address))
    }

    /// Stops it and gives what it counted.
    pub fn stop(self) -> Result<Executed> {
        self.serving.stop();
        // One from each shard.
        for _ in 0..self.shards {
            self.executed.recv().context("the Homa server ended early")?;
        }
        let counts = self.ledger.map(|ledger| lock(&ledger).counts().clone());
        Ok(counts.unwrap_or_default())
    }
}

/// The server's service, on one shard.
struct Echo {
    ledger: Option<SharedLedger>,
    held: Vec<(ServerRpc, Payload)>,
    /// Requests held by all shards.
    open: Arc<AtomicUsize>,
    /// How often all shards were told to answer what they hold, and what this one knows of it.
    released: Arc<AtomicU64>,
    seen_released: u64,
    /// Responses that wait for send memory; bounded by the requests that may be unanswered.
    waiting: VecDeque<(ServerRpc, Payload)>,
    tell: Sender<()>,
}

impl Echo {
    fn request(&mut self, cx: &mut Context<'_>, rpc: ServerRpc, message: Message) {
        let kind = self.ledger.as_ref().map_or(Kind::Echo, |ledger| lock(ledger).execute(message.chunks()));
        if kind == Kind::Hold && self.held.len() < HELD_MAX {
            // A copy: held requests would keep whole pages of the receive memory.
            self.held.push((rpc, Payload::copy_from(&message.contiguous())));
            if let Some(ledger) = &self.ledger {
                lock(ledger).holding(1 + self.open.fetch_add(1, Ordering::Relaxed));
            }
            return;
        }
        if kind == Kind::Release {
            self.released.fetch_add(1, Ordering::Relaxed);
            self.release();
        }
        let response = message.into();
        if !self.waiting.is_empty() || !Echo::reply(cx, rpc, &response) {
            self.waiting.push_back((rpc, response));
            self.answer(cx);
        }
    }

    /// Answers a request; false if there is no send memory.
    fn reply(cx: &mut Context<'_>, rpc: ServerRpc, response: &Payload) -> bool {
        match cx.reply(rpc, response.clone()) {
            Err(ReplyError::Full) => return false,
            // The client gave up; it counts what it did not get.
            Ok(()) | Err(ReplyError::Gone) => {}
            Err(_) => cx.reject(rpc, Reason::Aborted),
        }
        true
    }

    /// Answers what is held, if some shard was told to.
    fn release(&mut self) {
        let released = self.released.load(Ordering::Relaxed);
        if released != self.seen_released {
            self.seen_released = released;
            self.open.fetch_sub(self.held.len(), Ordering::Relaxed);
            self.waiting.extend(self.held.drain(..));
        }
    }

    /// Answers in order what there is send memory for.
    fn answer(&mut self, cx: &mut Context<'_>) {
        while let Some((rpc, response)) = self.waiting.front() {
            if !Echo::reply(cx, *rpc, response) {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

impl Service for Echo {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        match event {
            Event::Request { rpc, message, .. } => self.request(cx, rpc, message),
            Event::Writable { .. } => self.answer(cx),
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        if self.held.is_empty() {
            return None;
        }
        self.release();
        self.answer(cx);
        // Another shard may be told.
        Some(cx.now() + HELD_LOOK)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Nobody may be interested any more.
        let _ = self.tell.send(());
    }
}

/// Drives a traffic against one or several servers and gives it back when it is done.
pub fn run_client<T: Traffic + 'static>(
    stack: &Stack,
    servers: &[Addr],
    clock: Clock,
    traffic: T,
) -> Result<T> {
    let (tell, done) = channel();
    let servers = servers.to_vec();
    let names = servers.iter().map(Addr::to_string).collect::<Vec<_>>().join(", ");
    let serving = stack
        .serve(move |cx| {
            let socket = cx.open()?;
            let peers = servers.iter().map(|&server| cx.peer(socket, server)).collect::<Result<Vec<_>, _>>();
            let block = traffic.block().clone();
            let client = Client {
                traffic: Some(traffic),
                block,
                clock,
                batch: None,
                socket,
                peers: peers.unwrap_or_default(),
                unsent: None,
                scratch: Vec::new(),
                tell,
            };
            Ok(Box::new(client))
        })
        .context("opening the Homa client")?;
    let traffic =
        done.recv().map_err(|_| anyhow!("the Homa client found no way to {names} or ended early"))?;
    serving.stop();
    Ok(traffic)
}

/// The client's service.
struct Client<T> {
    /// `None` when it is done.
    traffic: Option<T>,
    block: Bytes,
    clock: Clock,
    /// The time of the events since the last turn, if one was read.
    batch: Option<u64>,
    socket: SocketId,
    /// The servers; empty if there is no way to one of them.
    peers: Vec<PeerAddr>,
    /// A message that found no send memory.
    unsent: Option<Outgoing>,
    scratch: Vec<u8>,
    tell: Sender<T>,
}

impl<T: Traffic> Client<T> {
    fn payload(&mut self, message: &Outgoing) -> Payload {
        let body = message.body.clone();
        if body.len() <= COPY_MAX {
            self.scratch.clear();
            self.scratch.extend_from_slice(&message.header);
            self.scratch.extend_from_slice(&self.block[body]);
            return Payload::copy_from(&self.scratch);
        }
        [Bytes::copy_from_slice(&message.header), self.block.slice(body)].into_iter().collect()
    }

    /// Sends a message; gives it back if there is no memory for it.
    fn send(&mut self, cx: &mut Context<'_>, message: Outgoing) -> Option<Outgoing> {
        let sequence = message.sequence();
        let peer = self.peers[target(sequence, self.peers.len())];
        let options = RequestOptions { cookie: sequence, ..RequestOptions::default() };
        let payload = self.payload(&message);
        match cx.send_request(self.socket, peer, payload, options) {
            Ok(_) => None,
            Err(SendError::Full) => Some(message),
            Err(_) => {
                if let Some(traffic) = &mut self.traffic {
                    traffic.fail(sequence);
                }
                None
            }
        }
    }

    fn response(&mut self, message: &Message) {
        // Checked traffic takes long per message, so each gets the time of its own event.
        let now = match self.batch {
            Some(now) if !T::CHECKS_BODIES => now,
            _ => self.clock.now(),
        };
        self.batch = Some(now);
        let Some(traffic) = &mut self.traffic else { return };
        let mut chunks = message.chunks();
        let Some((header, rest)) = chunks.next().and_then(|first| first.split_first_chunk::<HEADER>()) else {
            return;
        };
        let expected = traffic.expect(header, message.len());
        let intact = match expected {
            Some(offset) if T::CHECKS_BODIES => is_same(&self.block[offset..], rest, chunks),
            other => other.is_some(),
        };
        traffic.complete(header, intact, now);
    }
}

/// Whether the rest of the first chunk and the other chunks are what the block says.
fn is_same<'a>(mut expected: &[u8], rest: &'a [u8], others: impl Iterator<Item = &'a [u8]>) -> bool {
    std::iter::once(rest).chain(others).all(|chunk| {
        let (head, tail) = expected.split_at(chunk.len());
        expected = tail;
        head == chunk
    })
}

impl<T: Traffic> Service for Client<T> {
    fn on_event(&mut self, _: &mut Context<'_>, event: Event) {
        match event {
            Event::Response { message, .. } => self.response(&message),
            Event::Failed { cookie, .. } => {
                if let Some(traffic) = &mut self.traffic {
                    traffic.fail(cookie);
                }
            }
            _ => {}
        }
    }

    fn on_turn(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        self.batch = None;
        let now = self.clock.now();
        if self.peers.is_empty() {
            cx.stop();
            return None;
        }
        if self.traffic.as_mut()?.turn(now) {
            if let Some(traffic) = self.traffic.take() {
                let _ = self.tell.send(traffic);
            }
            return None;
        }
        while let Some(message) = self.unsent.take().or_else(|| self.traffic.as_mut()?.next_due(now)) {
            self.unsent = self.send(cx, message);
            if self.unsent.is_some() {
                break;
            }
        }
        let wakeup = self.traffic.as_ref()?.wakeup()?;
        Some(cx.now() + Duration::from_nanos(wakeup.saturating_sub(now)))
    }
}
