//! Transports that are libraries on tokio: a runtime with one thread, on which both the server and the client of the
//! node run, as Homa's do on one shard.

use std::{
    future::Future,
    net::IpAddr,
    os::fd::AsFd,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{net::unix::pipe::Receiver, sync::mpsc as orders};

use super::{Carrier, NodeLoad};
use crate::{
    cluster::Spec,
    process::Clock,
    traffic::{self, Outgoing, Traffic},
    verify::{Executed, Ledger},
};

/// What the server records.
pub type SharedLedger = Arc<Mutex<Ledger>>;

/// Records a request.
pub fn record(ledger: &SharedLedger, request: &[u8]) {
    if let Ok(mut ledger) = ledger.lock() {
        ledger.execute([request].into_iter());
    }
}

/// A library: how to serve and how to connect with it.
pub trait Library: Send + 'static {
    /// A connection.
    type Connection: Connection;

    /// Listens; spawns what answers every request with itself. Gives the port.
    fn serve(&mut self, ip: IpAddr, ledger: SharedLedger) -> impl Future<Output = Result<String>>;

    /// Connects.
    fn connect(&self, address: &str) -> impl Future<Output = Result<Self::Connection>>;

    /// Packets sent again by these connections and those accepted.
    fn retransmitted(&self, connections: &[Option<Self::Connection>]) -> u64;
}

/// A connection on which requests are made.
pub trait Connection: Clone + 'static {
    /// Sends a request and waits for its response.
    fn call(self, request: Bytes) -> impl Future<Output = Result<Bytes>>;
}

/// What the node's thread asks of the runtime's.
enum Ask {
    Connect(Vec<String>, mpsc::Sender<Result<()>>),
    Run(Box<NodeLoad>, Vec<usize>, mpsc::Sender<Result<Box<NodeLoad>>>),
    Retransmitted(mpsc::Sender<u64>),
}

/// Such a library in a node.
pub struct Async {
    address: String,
    ask: orders::UnboundedSender<Ask>,
    thread: JoinHandle<()>,
    ledger: SharedLedger,
}

impl Async {
    /// Starts the runtime and the server.
    pub fn start<L: Library>(spec: &Spec, mut library: L) -> Result<Async> {
        let ledger = SharedLedger::default();
        let (ask, mut asked) = orders::unbounded_channel();
        let (tell, address) = mpsc::channel();
        let (ip, index, shared) = (spec.ip, spec.index, ledger.clone());
        let thread = std::thread::spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = tell.send(Err(error.into()));
                    return;
                }
            };
            runtime.block_on(async {
                let served = library.serve(ip, shared).await;
                let is_well = served.is_ok();
                if tell.send(served).is_ok() && is_well {
                    obey(&library, index, &mut asked).await;
                }
            });
        });
        let address = address.recv().context("the runtime ended early")??;
        Ok(Async { address, ask, thread, ledger })
    }

    fn ask<T>(&self, what: impl FnOnce(mpsc::Sender<T>) -> Ask) -> Result<T> {
        let (answer, answered) = mpsc::channel();
        self.ask.send(what(answer)).map_err(|_| anyhow!("the runtime has ended"))?;
        answered.recv().context("the runtime ended early")
    }
}

impl Carrier for Async {
    fn address(&self) -> (String, String) {
        (self.address.clone(), String::new())
    }

    fn connect(&mut self, addresses: &[String]) -> Result<()> {
        self.ask(|answer| Ask::Connect(addresses.to_vec(), answer))?
    }

    fn run(&mut self, load: NodeLoad, targets: &[usize]) -> Result<NodeLoad> {
        Ok(*self.ask(|answer| Ask::Run(Box::new(load), targets.to_vec(), answer))??)
    }

    fn retransmitted(&self) -> u64 {
        self.ask(Ask::Retransmitted).unwrap_or(0)
    }

    fn stop(self: Box<Self>) -> Result<Executed> {
        let Async { ask, thread, ledger, .. } = *self;
        drop(ask);
        thread.join().map_err(|_| anyhow!("the runtime panicked"))?;
        let counts = ledger.lock().map_err(|_| anyhow!("the server panicked"))?.counts().clone();
        Ok(counts)
    }
}

/// Does what is asked until nobody can ask any more.
async fn obey<L: Library>(library: &L, index: usize, asked: &mut orders::UnboundedReceiver<Ask>) {
    let mut connections: Vec<Option<L::Connection>> = Vec::new();
    while let Some(ask) = asked.recv().await {
        match ask {
            Ask::Connect(addresses, answer) => {
                let result = connect_all(library, index, &addresses).await;
                let _ = answer.send(result.map(|all| connections = all));
            }
            Ask::Run(mut load, targets, answer) => {
                let chosen: Vec<_> = targets.iter().filter_map(|&t| connections[t].clone()).collect();
                let result = drive(&chosen, &mut *load).await;
                let _ = answer.send(result.map(|()| load));
            }
            Ask::Retransmitted(answer) => _ = answer.send(library.retransmitted(&connections)),
        }
    }
}

async fn connect_all<L: Library>(
    library: &L,
    index: usize,
    addresses: &[String],
) -> Result<Vec<Option<L::Connection>>> {
    let mut connections = Vec::new();
    for (place, address) in addresses.iter().enumerate() {
        let connection = match place == index {
            true => None,
            false => {
                let connected = library.connect(address).await;
                Some(connected.with_context(|| format!("connecting to {address}"))?)
            }
        };
        connections.push(connection);
    }
    Ok(connections)
}

/// Runs a traffic to its end.
async fn drive<C: Connection, T: Traffic>(connections: &[C], traffic: &mut T) -> Result<()> {
    let clock = Clock::start();
    let timer = Timer::new()?;
    let mut calls = FuturesUnordered::new();
    loop {
        let now = clock.now();
        if traffic.turn(now) {
            return Ok(());
        }
        while let Some(message) = traffic.next_due(now) {
            let sequence = message.sequence();
            let connection = connections[traffic::target(sequence, connections.len())].clone();
            let request = whole(traffic.block(), &message);
            calls.push(async move { (sequence, connection.call(request).await) });
        }
        if let Some(at) = traffic.wakeup() {
            timer.set(Duration::from_nanos(at.saturating_sub(clock.now())))?;
        }
        tokio::select! {
            Some((sequence, result)) = calls.next(), if !calls.is_empty() => match result {
                Ok(response) => traffic::respond(traffic, &response, clock.now()),
                Err(error) => {
                    tracing::debug!(%error, "a call failed");
                    traffic.fail(sequence);
                }
            },
            rung = timer.rung() => rung?,
        }
    }
}

/// A message in one piece.
fn whole(block: &Bytes, message: &Outgoing) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len());
    bytes.extend_from_slice(&message.header);
    bytes.extend_from_slice(&block[message.body.clone()]);
    bytes.freeze()
}

/// A timer as precise as the kernel's; the runtime's own counts milliseconds.
struct Timer {
    timer: TimerFd,
    /// The same timer as the runtime watches it: all it asks of a pipe is to become readable and to be read.
    watched: Receiver,
}

impl Timer {
    fn new() -> Result<Timer> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).context("making a timer")?;
        let twin = timer.as_fd().try_clone_to_owned().context("sharing a timer")?;
        let watched = Receiver::from_owned_fd_unchecked(twin).context("watching a timer")?;
        Ok(Timer { timer, watched })
    }

    fn set(&self, after: Duration) -> Result<()> {
        // Zero would switch it off.
        let after = Expiration::OneShot(TimeSpec::from_duration(after.max(Duration::from_nanos(1))));
        Ok(self.timer.set(after, TimerSetTimeFlags::empty())?)
    }

    async fn rung(&self) -> Result<()> {
        self.watched.readable().await.context("waiting for a timer")?;
        // How often it rang does not matter, nor that it was set anew meanwhile.
        let _ = self.watched.try_read(&mut [0; 8]);
        Ok(())
    }
}
