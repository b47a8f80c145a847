//! Counters of a running stack, as a snapshot.

use std::fmt;

use peyk_homa::{Endpoint, TYPE_NAMES};

use crate::driver::DriverStats;

/// Counters of one shard at one moment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StackStats {
    /// Passes of the shard's loop.
    pub turns: u64,
    /// The protocol's counters.
    pub homa: peyk_homa::Stats,
    /// The driver's counters.
    pub driver: DriverStats,
    /// What passed between this shard and the others.
    pub mesh: MeshStats,
    /// What the protocol holds right now.
    pub usage: Usage,
    /// What the shard holds for applications on other threads right now.
    pub app: AppUsage,
}

/// Counters of what passed between a shard and the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MeshStats {
    /// Packets, acks and tables handed over to other shards.
    pub handed_over: u64,
    /// Those taken over from them.
    pub taken_over: u64,
    /// Those lost because the ring or the memory for them was full.
    pub dropped: u64,
}

/// What the protocol of a shard holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Open sockets, of services and of applications on other threads.
    pub sockets: usize,
    /// RPCs under way, of either role. An answered request counts until it is acknowledged.
    pub rpcs: usize,
    /// Hosts known.
    pub peers: usize,
    /// Bytes of outgoing messages.
    pub send_bytes: u64,
    /// Bytes granted to senders and not received.
    pub granted_bytes: u64,
    /// Messages that wait for receive memory.
    pub memory_waiters: usize,
    /// Pages of receive memory, 64 KiB each, that nobody uses.
    pub free_pages: u32,
    /// All pages of receive memory.
    pub total_pages: u32,
}

impl Usage {
    pub(crate) fn of(endpoint: &mut Endpoint) -> Usage {
        let pool = endpoint.pool();
        let (free_pages, total_pages) = (pool.free_pages(), pool.total_pages());
        Usage {
            sockets: endpoint.socket_count(),
            rpcs: endpoint.rpc_count(),
            peers: endpoint.peer_count(),
            send_bytes: endpoint.send_bytes(),
            granted_bytes: endpoint.total_incoming(),
            memory_waiters: endpoint.waiting_for_memory(),
            free_pages,
            total_pages,
        }
    }

    fn add(&mut self, other: &Usage) {
        self.sockets += other.sockets;
        self.rpcs += other.rpcs;
        self.peers += other.peers;
        self.send_bytes += other.send_bytes;
        self.granted_bytes += other.granted_bytes;
        self.memory_waiters += other.memory_waiters;
        self.free_pages += other.free_pages;
        self.total_pages += other.total_pages;
    }

    /// Whether nothing is under way and all memory is at home, whatever sockets are open.
    pub fn is_idle(&self) -> bool {
        self.rpcs == 0
            && self.send_bytes == 0
            && self.granted_bytes == 0
            && self.memory_waiters == 0
            && self.free_pages == self.total_pages
    }
}

/// What a shard holds for applications on other threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppUsage {
    /// Open sockets.
    pub sockets: usize,
    /// Sockets whose application does not keep up: what comes for them finds their rings full.
    pub behind: usize,
    /// Calls under way.
    pub calls: usize,
    /// Calls and replies that wait for send memory.
    pub parked: usize,
    /// Requests and outcomes in the sockets' rings, not yet taken by the application.
    pub queued: usize,
    /// Further requests and outcomes that wait for space in those rings.
    pub undelivered: usize,
}

impl AppUsage {
    fn add(&mut self, other: &AppUsage) {
        self.sockets += other.sockets;
        self.behind += other.behind;
        self.calls += other.calls;
        self.parked += other.parked;
        self.queued += other.queued;
        self.undelivered += other.undelivered;
    }

    /// Whether nothing is under way, whatever sockets are open.
    pub fn is_idle(&self) -> bool {
        self.calls + self.parked + self.queued + self.undelivered == 0
    }
}

/// The name of one number of [`StackStats`], as it is written for Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    group: &'static str,
    name: &'static str,
    /// It may fall, as what is held right now; all others only grow.
    pub is_gauge: bool,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_gauge { "" } else { "_total" };
        write!(f, "peyk_{}_{}{end}", self.group, self.name.to_ascii_lowercase())
    }
}

/// Priorities as words.
const LEVELS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];

impl StackStats {
    /// Every number with its name, always in the same order; of what is held for applications, what is
    /// known without a look at every socket.
    pub(crate) fn each(&self, mut to: impl FnMut(Name, u64)) {
        let mut counter = |group, name, value| to(Name { group, name, is_gauge: false }, value);
        counter("shard", "turns", self.turns);
        let homa = &self.homa;
        TYPE_NAMES.iter().zip(homa.sent).for_each(|(&kind, n)| counter("homa_sent", kind, n));
        TYPE_NAMES.iter().zip(homa.received).for_each(|(&kind, n)| counter("homa_received", kind, n));
        LEVELS.iter().zip(homa.data_sent_at).for_each(|(&level, n)| counter("homa_data_sent_at", level, n));
        homa.iter().for_each(|(name, n)| counter("homa", name, n));
        self.driver.iter().for_each(|(name, n)| counter("driver", name, n));
        counter("mesh", "handed_over", self.mesh.handed_over);
        counter("mesh", "taken_over", self.mesh.taken_over);
        counter("mesh", "dropped", self.mesh.dropped);
        let mut gauge = |group, name, value| to(Name { group, name, is_gauge: true }, value);
        let Usage {
            sockets,
            rpcs,
            peers,
            send_bytes,
            granted_bytes,
            memory_waiters,
            free_pages,
            total_pages,
        } = self.usage;
        gauge("usage", "sockets", sockets as u64);
        gauge("usage", "rpcs", rpcs as u64);
        gauge("usage", "peers", peers as u64);
        gauge("usage", "send_bytes", send_bytes);
        gauge("usage", "granted_bytes", granted_bytes);
        gauge("usage", "memory_waiters", memory_waiters as u64);
        gauge("usage", "free_pages", free_pages.into());
        gauge("usage", "total_pages", total_pages.into());
        gauge("app", "sockets", self.app.sockets as u64);
        gauge("app", "behind", self.app.behind as u64);
    }

    /// Adds another shard's counters.
    pub fn add(&mut self, other: &StackStats) {
        self.turns += other.turns;
        self.homa.add(&other.homa);
        self.driver.add(&other.driver);
        self.mesh.handed_over += other.mesh.handed_over;
        self.mesh.taken_over += other.mesh.taken_over;
        self.mesh.dropped += other.mesh.dropped;
        self.usage.add(&other.usage);
        self.app.add(&other.app);
    }

    /// Whether nothing is under way and all memory is at home, whatever sockets are open.
    pub fn is_idle(&self) -> bool {
        self.usage.is_idle() && self.app.is_idle()
    }
}
