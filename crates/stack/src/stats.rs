//! Counters of a running stack, as a snapshot.

use peyk_homa::Endpoint;

use crate::driver::DriverStats;

/// Counters of one shard at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StackStats {
    /// Passes of the shard's loop.
    pub turns: u64,
    /// The protocol's counters.
    pub homa: peyk_homa::Stats,
    /// The driver's counters.
    pub driver: DriverStats,
    /// What the protocol holds right now.
    pub usage: Usage,
    /// What the shard holds for applications on other threads right now.
    pub app: AppUsage,
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
    /// Whether nothing is under way, whatever sockets are open.
    pub fn is_idle(&self) -> bool {
        self.calls + self.parked + self.queued + self.undelivered == 0
    }
}

impl StackStats {
    /// Whether nothing is under way and all memory is at home, whatever sockets are open.
    pub fn is_idle(&self) -> bool {
        self.usage.is_idle() && self.app.is_idle()
    }
}
