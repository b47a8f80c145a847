//! Packet I/O of a shard: the trait, and what all drivers share.
//!
//! A driver belongs to its shard's thread. It carries Homa packets between this host and others
//! without looking inside; the protocol's own reading of time, order and loss stays above it.

pub mod capture;
pub mod fault;
pub mod memory;
mod plan;
pub mod udp;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

pub use peyk_kevent::udp::Bound;
pub use peyk_kevent::{Handle, Wait};

use peyk_homa::{PacketOut, Path, Unreachable};
use peyk_kevent::{Interest, Poll, PollMode, Queue, Source, Token};

/// Carries packets for one shard.
pub trait Driver {
    /// Opens a socket for carriage bound to `bind` (port 0: any free one). Returns its number,
    /// used as [`Path::local`], and the address it got. An unspecified IPv6 address takes IPv4 too.
    ///
    /// # Errors
    /// The address cannot be bound, or there are too many sockets.
    fn open_local(&mut self, bind: SocketAddr) -> io::Result<(u16, SocketAddr)>;

    /// Takes over a socket for carriage that was bound elsewhere, one of a group at its address.
    /// Returns its number.
    ///
    /// # Errors
    /// The driver has no such sockets, or too many.
    fn adopt_local(&mut self, bound: Bound) -> io::Result<u16>;

    /// Closes a carriage socket; packets still queued on it are dropped.
    fn close_local(&mut self, local: u16);

    /// Bytes the route to `remote` carries in one IP packet; a cautious guess if unknown.
    fn mtu(&mut self, remote: SocketAddr) -> u32;

    /// False while too much waits to be sent; [`Driver::poll`] makes it true again.
    fn can_send(&self) -> bool;

    /// Adds a packet to the burst. It leaves with the next [`Driver::flush`].
    fn send(&mut self, packet: &PacketOut<'_>);

    /// Sends the burst.
    fn flush(&mut self);

    /// Waits as told and hands everything that arrived to `sink`; returns the number of calls. A
    /// call of the waker's `wake` ends the wait as well.
    ///
    /// # Errors
    /// The system refused to wait; nothing is lost.
    fn poll(&mut self, wait: Wait, sink: &mut dyn FnMut(Received<'_>)) -> io::Result<usize>;

    /// Ends the current or next wait of [`Driver::poll`] from any thread.
    fn waker(&self) -> Handle;

    /// From now on, [`Driver::poll`] also returns when `fd` becomes readable (by edges: what is left
    /// unread is not reported again).
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    fn watch(&mut self, fd: OwnedFd) -> io::Result<Watched>;

    /// Ends that, and closes the descriptor.
    fn unwatch(&mut self, watched: Watched);

    /// The counters as they are now.
    fn stats(&self) -> DriverStats;
}

/// A descriptor that a driver watches.
#[derive(Debug)]
pub struct Watched(Source);

impl Watched {
    /// Watches a descriptor by a queue whose events of that token are to be dropped.
    fn by(queue: &mut Queue, token: Token, fd: OwnedFd) -> io::Result<Watched> {
        let source = queue.adopt(fd).map_err(io::Error::other)?;
        let poll = Poll { source: source.clone(), interest: Interest::READ, mode: PollMode::Edge };
        queue.submit(token, poll).map_err(|r| io::Error::other(r.why))?;
        Ok(Watched(source))
    }
}

impl<D: Driver + ?Sized> Driver for Box<D> {
    fn open_local(&mut self, bind: SocketAddr) -> io::Result<(u16, SocketAddr)> {
        (**self).open_local(bind)
    }
    fn adopt_local(&mut self, bound: Bound) -> io::Result<u16> {
        (**self).adopt_local(bound)
    }
    fn close_local(&mut self, local: u16) {
        (**self).close_local(local);
    }
    fn mtu(&mut self, remote: SocketAddr) -> u32 {
        (**self).mtu(remote)
    }
    fn can_send(&self) -> bool {
        (**self).can_send()
    }
    fn send(&mut self, packet: &PacketOut<'_>) {
        (**self).send(packet);
    }
    fn flush(&mut self) {
        (**self).flush();
    }
    fn poll(&mut self, wait: Wait, sink: &mut dyn FnMut(Received<'_>)) -> io::Result<usize> {
        (**self).poll(wait, sink)
    }
    fn waker(&self) -> Handle {
        (**self).waker()
    }
    fn watch(&mut self, fd: OwnedFd) -> io::Result<Watched> {
        (**self).watch(fd)
    }
    fn unwatch(&mut self, watched: Watched) {
        (**self).unwatch(watched);
    }
    fn stats(&self) -> DriverStats {
        (**self).stats()
    }
}

/// What a driver hands up.
#[derive(Debug)]
pub enum Received<'a> {
    /// One packet.
    Packet {
        /// Where it came from, and through which socket.
        path: &'a Path,
        /// The Homa packet.
        data: &'a [u8],
    },
    /// The network reported that packets to a host do not arrive.
    Unreachable {
        /// The destination of the packet at fault.
        remote: SocketAddr,
        /// What was reported.
        why: Unreachable,
        /// The RPC that the packet was of, by our id for it, if the report quotes as much.
        id: Option<u64>,
    },
}

/// Counters of a driver, from its start.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DriverStats {
    /// Packets handed to the network.
    pub packets_sent: u64,
    /// Bytes of those packets, without the headers below Homa.
    pub bytes_sent: u64,
    /// Trains (or single packets) in which they left.
    pub trains_sent: u64,
    /// Packets that arrived.
    pub packets_received: u64,
    /// Bytes of those packets.
    pub bytes_received: u64,
    /// Trains (or single packets) in which they arrived.
    pub trains_received: u64,
    /// Trains that had to wait because the system's send queue was full.
    pub sends_delayed: u64,
    /// Sockets opened for one host that a carriage socket talked with most.
    pub flows_opened: u64,
    /// Trains taken apart because the kernel or the route refused them as such.
    pub trains_refused: u64,
    /// Packets dropped because they were too long for the route.
    pub dropped_too_big: u64,
    /// Packets dropped because a filter forbids them.
    pub dropped_prohibited: u64,
    /// Packets dropped because there is no way to the host.
    pub dropped_unreachable: u64,
    /// Packets dropped for other errors, or because too much was queued.
    pub dropped_other: u64,
    /// Packets dropped because their socket was closed.
    pub dropped_closed: u64,
    /// Datagrams received longer than any packet can be.
    pub truncated: u64,
    /// Reports from the network that packets do not arrive.
    pub unreachable_reports: u64,
    /// Reports from the network that a route carries less than assumed.
    pub mtu_reports: u64,
    /// Packets lost, doubled, delayed or spoilt on purpose.
    pub faults: FaultStats,
    /// Counters of the completion queue.
    pub queue: peyk_kevent::Stats,
}

impl DriverStats {
    /// Every counter with its name; those of the completion queue begin with `queue_`, those of
    /// faults made on purpose with `fault_`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut copy = self.clone();
        copy.entries().map(|(name, value)| (name, *value)).into_iter()
    }

    /// Adds another driver's counters.
    pub fn add(&mut self, other: &DriverStats) {
        for ((_, own), (_, other)) in self.entries().into_iter().zip(other.iter()) {
            *own += other;
        }
    }

    fn entries(&mut self) -> [(&'static str, &mut u64); 38] {
        let (queue, faults) = (&mut self.queue, &mut self.faults);
        [
            ("packets_sent", &mut self.packets_sent),
            ("bytes_sent", &mut self.bytes_sent),
            ("trains_sent", &mut self.trains_sent),
            ("packets_received", &mut self.packets_received),
            ("bytes_received", &mut self.bytes_received),
            ("trains_received", &mut self.trains_received),
            ("sends_delayed", &mut self.sends_delayed),
            ("flows_opened", &mut self.flows_opened),
            ("trains_refused", &mut self.trains_refused),
            ("dropped_too_big", &mut self.dropped_too_big),
            ("dropped_prohibited", &mut self.dropped_prohibited),
            ("dropped_unreachable", &mut self.dropped_unreachable),
            ("dropped_other", &mut self.dropped_other),
            ("dropped_closed", &mut self.dropped_closed),
            ("truncated", &mut self.truncated),
            ("unreachable_reports", &mut self.unreachable_reports),
            ("mtu_reports", &mut self.mtu_reports),
            ("queue_immediate", &mut queue.immediate),
            ("queue_sleeps", &mut queue.sleeps),
            ("queue_spins_paid", &mut queue.spins_paid),
            ("queue_spins_vain", &mut queue.spins_vain),
            ("queue_preempted", &mut queue.preempted),
            ("queue_ring_receives", &mut queue.ring_receives),
            ("queue_direct_receives", &mut queue.direct_receives),
            ("queue_truncated", &mut queue.truncated),
            ("queue_rearmed", &mut queue.rearmed),
            ("queue_no_buffers", &mut queue.no_buffers),
            ("queue_overflows", &mut queue.overflows),
            ("queue_socket_errors", &mut queue.socket_errors),
            ("queue_reports", &mut queue.reports),
            ("queue_reports_lost", &mut queue.reports_lost),
            ("queue_stale", &mut queue.stale),
            ("queue_sends_queued", &mut queue.sends_queued),
            ("queue_enters", &mut queue.enters),
            ("fault_dropped", &mut faults.dropped),
            ("fault_duplicated", &mut faults.duplicated),
            ("fault_reordered", &mut faults.reordered),
            ("fault_corrupted", &mut faults.corrupted),
        ]
    }
}

/// Counters of faults made on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultStats {
    /// Packets lost.
    pub dropped: u64,
    /// Packets sent twice.
    pub duplicated: u64,
    /// Packets held back so that others overtook them.
    pub reordered: u64,
    /// Packets with a flipped bit.
    pub corrupted: u64,
}

/// What the driver found on this machine.
#[derive(Debug, Clone)]
pub struct Caps {
    /// The completion queue: backend and why.
    pub queue: peyk_kevent::Caps,
    /// The kernel cuts trains into packets.
    pub gso: bool,
    /// The kernel joins arriving packets to trains.
    pub gro: bool,
}

impl std::fmt::Display for Caps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |on| if on { "on" } else { "off" };
        write!(f, "{}; send trains {}, receive trains {}", self.queue, word(self.gso), word(self.gro))
    }
}

/// Binds the calling thread, and thereby the driver it makes, to one CPU.
///
/// # Errors
/// There is no such CPU, or the process may not use it.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    crate::sys::pin_to_cpu(cpu)
}
