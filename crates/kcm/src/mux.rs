//! The multiplexor: N KCM sockets above, M connections below. It decides who gets what; it moves no byte
//! between memory and network.
//!
//! ```text
//!   send ──> socket queue ──reserve──> psock ──poll_write / wrote──> stream
//!   recv <── socket queue <──steer──── psock <──stream_bytes──────── stream
//!                 │  hold queue: what was queued at sockets that closed or are disabled
//!                 │  parked: one complete message per psock that nobody takes; then reading pauses
//! ```
//!
//! Its whole interface, in the order of use: application calls (`send`, `recv`, ...), things that happened
//! (`stream_*`, `handle_timeout`), then what follows (`poll_write`, `poll_resumed`, `poll_event`,
//! `poll_timeout`) until each has nothing more.

mod life;
mod recv;
mod runs;
mod rx;
mod send;
mod steer;
mod timer;
mod tx;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use peyk_sansio::{Instant, Wheel};

use crate::config::{Config, Kind, Order, Steer};
use crate::error::{AttachError, CloneError};
use crate::event::{Event, Message, PsockId, Run, SocketId};
use crate::framer::{Framer, Spread};
use crate::partial::Spares;
use crate::psock::Psock;
use crate::socket::{Socket, TxMessage};
use crate::stats::{MuxStats, PsockStats, SocketStats};
use crate::table::{Id, Table};
use timer::Timer;

/// How a connection is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AttachOptions {
    /// Where it leads; messages to an address find it by this.
    pub addr: Option<SocketAddr>,
    /// It is not offered to messages that may take any connection.
    pub only_targeted: bool,
}

/// N sockets by M connections, without any of the two being real.
pub struct Mux {
    config: Config,
    sockets: Table<Socket>,
    psocks: Table<Psock>,
    /// Sockets that may be given messages, next first.
    rx_line: VecDeque<SocketId>,
    /// Messages without a socket, and their bytes.
    hold: VecDeque<Message>,
    hold_len: usize,
    /// Messages at the front of `hold` that do not pin a chunk.
    hold_compact: usize,
    /// The same for workers, and how many messages that is.
    runs: VecDeque<Run>,
    runs_waiting: usize,
    /// Connections with a parked message.
    ready: VecDeque<Id>,
    /// Connections free for the next sender, and senders that wait for one.
    available: VecDeque<Id>,
    tx_line: VecDeque<SocketId>,
    /// Connections with something to write; connections that may be read again.
    writes: VecDeque<Id>,
    resumed: VecDeque<Id>,
    starved: VecDeque<Id>,
    /// Connections by where they lead, and messages for addresses no connection leads to.
    by_addr: BTreeMap<SocketAddr, Vec<Id>>,
    unrouted: BTreeMap<SocketAddr, VecDeque<TxMessage>>,
    /// Bytes of received messages, whole or not.
    used: usize,
    /// Memory for long messages; it is not counted among what is used.
    spares: Spares,
    /// The latest time that was told.
    clock: Instant,
    /// Sockets that are being flushed.
    closing: usize,
    events: VecDeque<Event>,
    timers: Wheel<Timer>,
    due: Vec<Timer>,
    /// Workers take what waits, and are not told of it.
    is_served: bool,
    /// Whoever reads a connection keeps the order of its messages.
    ordered_by_reader: bool,
    /// `NoPsock` was said and no connection came since.
    told_no_psock: bool,
    stats: MuxStats,
    /// Counters of connections that are gone.
    folded: PsockStats,
}

impl Mux {
    /// A mux with its first socket.
    pub fn new(config: Config, now: Instant) -> (Mux, SocketId) {
        let mut mux = Mux {
            config,
            sockets: Table::new(),
            psocks: Table::new(),
            rx_line: VecDeque::new(),
            hold: VecDeque::new(),
            hold_len: 0,
            hold_compact: 0,
            runs: VecDeque::new(),
            runs_waiting: 0,
            ready: VecDeque::new(),
            available: VecDeque::new(),
            tx_line: VecDeque::new(),
            writes: VecDeque::new(),
            resumed: VecDeque::new(),
            starved: VecDeque::new(),
            by_addr: BTreeMap::new(),
            unrouted: BTreeMap::new(),
            closing: 0,
            used: 0,
            spares: Spares::default(),
            clock: now,
            events: VecDeque::new(),
            timers: Wheel::new(core::time::Duration::from_millis(1), now),
            due: Vec::new(),
            is_served: false,
            ordered_by_reader: false,
            told_no_psock: false,
            stats: MuxStats::default(),
            folded: PsockStats::default(),
        };
        let first = mux.open();
        (mux, first)
    }

    fn open(&mut self) -> SocketId {
        let id = SocketId(self.sockets.insert(Socket::default()));
        self.enter_line(id);
        id
    }

    /// Another socket of the same mux and kind, without the options of the one it is cloned from.
    ///
    /// # Errors
    /// That one is closed, or there are too many.
    pub fn clone_socket(&mut self, socket: SocketId) -> Result<SocketId, CloneError> {
        let original = self.sockets.get(socket.0).ok_or(CloneError::Closed)?;
        if original.closing.is_some() {
            return Err(CloneError::Closed);
        }
        if self.sockets.len() >= self.config.max_sockets {
            return Err(CloneError::Full);
        }
        let id = self.open();
        self.refill(id);
        Ok(id)
    }

    /// Puts a connection below the mux. The framer must be in its initial state.
    ///
    /// # Errors
    /// The mux is closed or full, or the protocol needs an order that the mux does not keep.
    pub fn attach(
        &mut self,
        framer: Box<dyn Framer>,
        options: AttachOptions,
    ) -> Result<PsockId, AttachError> {
        if self.sockets.len() == 0 {
            return Err(AttachError::Closed);
        }
        if self.psocks.len() >= self.config.max_psocks {
            return Err(AttachError::Full);
        }
        if self.config.order == Order::Checked && framer.spread() == Spread::Connection {
            return Err(AttachError::Ordered);
        }
        let mut psock = Psock::new(framer, options.addr, self.spares.clone());
        psock.only_targeted = options.only_targeted;
        let id = self.psocks.insert(psock);
        self.stats.psock_attach += 1;
        self.told_no_psock = false;
        if let Some(addr) = options.addr {
            self.by_addr.entry(addr).or_default().push(id);
        }
        if let Some(waiting) = options.addr.and_then(|addr| self.unrouted.remove(&addr)) {
            for message in waiting {
                self.push_direct(id, message);
            }
        }
        self.make_available(id);
        Ok(PsockId(id))
    }

    /// The next connection with something to write: ask [`Mux::tx_slices`] for it.
    pub fn poll_write(&mut self) -> Option<PsockId> {
        while let Some(id) = self.writes.pop_front() {
            if let Some(psock) = self.psocks.get_mut(id) {
                psock.in_writes = false;
                return Some(PsockId(id));
            }
        }
        None
    }

    /// The next connection that had been paused and may be read again.
    pub fn poll_resumed(&mut self) -> Option<PsockId> {
        while let Some(id) = self.resumed.pop_front() {
            if self.psocks.get(id).is_some() {
                return Some(PsockId(id));
            }
        }
        None
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Mux::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Tells the time, for calls that parse what has waited ([`Mux::recv`] may).
    pub fn advance(&mut self, now: Instant) {
        self.clock = self.clock.max(now);
    }

    fn keeps_connection_order(&self) -> bool {
        self.config.order == Order::Connection && !self.ordered_by_reader
    }

    /// Whether connections wait for a socket that takes their messages.
    pub fn has_parked(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sockets that are open.
    pub fn sockets(&self) -> impl Iterator<Item = SocketId> {
        self.sockets.iter().map(|(id, _)| SocketId(id))
    }

    /// Connections that are attached.
    pub fn psocks(&self) -> impl Iterator<Item = PsockId> {
        self.psocks.iter().map(|(id, _)| PsockId(id))
    }

    /// Whether the connection is attached and not down.
    pub fn is_up(&self, psock: PsockId) -> bool {
        self.psocks.get(psock.0).is_some_and(|psock| psock.ending.is_none() && !psock.tx_stopped)
    }

    /// Whether nothing more is to be sent over the connection or delivered from it.
    pub fn is_drained(&self, psock: PsockId) -> bool {
        self.psocks.get(psock.0).is_none_or(|state| {
            let sends = state.reserved.is_some() || state.unsent() > 0 || !state.plan.is_empty();
            !sends && state.parked.is_none() && state.backlog_len == 0
        })
    }

    /// Where the connection leads, as said when it was attached.
    pub fn addr(&self, psock: PsockId) -> Option<SocketAddr> {
        self.psocks.get(psock.0)?.addr
    }

    /// Whether a write to the connection is under way.
    pub fn is_writing(&self, psock: PsockId) -> bool {
        self.psocks.get(psock.0).is_some_and(|state| !state.plan.is_empty())
    }

    /// Whether messages wait for a connection to this address.
    pub fn is_awaited(&self, addr: SocketAddr) -> bool {
        self.unrouted.contains_key(&addr)
    }

    /// Messages that wait in the shared queue.
    pub fn waiting_messages(&self) -> usize {
        self.hold.len() + self.runs_waiting
    }

    /// Bytes of received messages held, whole or not.
    pub fn memory_used(&self) -> usize {
        self.used
    }

    /// Counters of the mux; connections that are there are included.
    pub fn stats(&self) -> MuxStats {
        let sum = self.psock_stats_sum();
        MuxStats {
            rx_msgs: sum.rx_msgs,
            rx_bytes: sum.rx_bytes,
            tx_msgs: sum.tx_msgs,
            tx_bytes: sum.tx_bytes,
            ..self.stats
        }
    }

    /// Counters of all connections, those that are gone included.
    pub fn psock_stats_sum(&self) -> PsockStats {
        let mut sum = self.folded;
        self.psocks.iter().for_each(|(_, psock)| sum.add(&psock.stats));
        sum
    }

    /// Counters of one socket.
    pub fn socket_stats(&self, socket: SocketId) -> Option<SocketStats> {
        self.sockets.get(socket.0).map(|socket| socket.stats)
    }

    /// Counters of one connection.
    pub fn psock_stats(&self, psock: PsockId) -> Option<PsockStats> {
        self.psocks.get(psock.0).map(|psock| psock.stats)
    }

    /// The whole state in the kernel's words; for `status::kcm` and its like.
    pub fn snapshot(&self) -> crate::status::MuxSnapshot {
        crate::status::MuxSnapshot::take(
            self.stats(),
            self.psock_stats_sum(),
            self.sockets.iter().map(|(id, socket)| (id.index, socket)),
            self.psocks.iter().map(|(id, psock)| (id.index, psock)),
        )
    }

    fn is_seqpacket(&self) -> bool {
        self.config.kind == Kind::SeqPacket
    }

    fn is_pull(&self) -> bool {
        self.config.steer == Steer::Pull
    }

    fn say(&mut self, event: Event) {
        self.events.push_back(event);
    }
}
