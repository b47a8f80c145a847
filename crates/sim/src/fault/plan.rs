//! The faults of a scenario: what happens, when, and for how long.

use peyk_wire::homa::PacketType;

use crate::time::Picos;
use crate::topology::HostId;

/// Hosts, one bit each.
pub type Hosts = u64;

/// Chances per packet, until the network heals.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub struct Noise {
    /// It is lost.
    pub loss: f64,
    /// A copy follows, up to `lag` later.
    pub duplication: f64,
    /// It comes up to `jitter` later.
    pub reordering: f64,
    /// It comes up to `lag` later.
    pub spikes: f64,
    /// Some bits of it are not what they were, or its end is missing.
    pub corruption: f64,
    /// Longest delay by reordering.
    pub jitter: Picos,
    /// Longest delay of copies and by spikes.
    pub lag: Picos,
}

impl Noise {
    /// Whether nothing happens to any packet.
    pub fn is_none(&self) -> bool {
        self.loss + self.duplication + self.reordering + self.spikes + self.corruption == 0.0
    }
}

/// How a host lies: in its own packets, and in packets it makes up.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Its DATA packets give their message another length now and then.
    Lengths,
    /// Its DATA packets promise more, or less, than is sent.
    Incoming,
    /// Its packets name other RPCs now and then.
    Ids,
    /// It repeats packets of others as its own, with another type now and then.
    Impostor,
    /// It acknowledges what it has no business with.
    Acks,
    /// It sends packets of random bytes.
    Garbage,
}

/// Every lie.
pub const LIES: [Lie; 6] = [Lie::Lengths, Lie::Incoming, Lie::Ids, Lie::Impostor, Lie::Acks, Lie::Garbage];

/// What goes wrong.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum FaultKind {
    /// Packets from some hosts to some others are lost.
    Cut {
        /// Their senders.
        from: Hosts,
        /// Their receivers.
        to: Hosts,
        /// Also those the other way.
        both_ways: bool,
    },
    /// Packets of a type that a host sends are lost.
    Mute {
        /// The host.
        host: HostId,
        /// The type.
        kind: PacketType,
    },
    /// A host loses its state, and comes back without it.
    Crash {
        /// The host.
        host: HostId,
    },
    /// A host does nothing.
    Stall {
        /// The host.
        host: HostId,
    },
    /// A host takes long for each packet.
    SlowReceiver {
        /// The host.
        host: HostId,
        /// How long.
        cost: Picos,
    },
    /// The application of a host keeps all receive memory but a few pages.
    Hog {
        /// The host.
        host: HostId,
        /// Pages it leaves.
        leave: u32,
    },
    /// A host closes a socket and opens another in its place.
    Close {
        /// The host.
        host: HostId,
        /// The one that takes requests, rather than the one that makes them.
        is_server: bool,
    },
    /// A host lies.
    Lie {
        /// The host.
        host: HostId,
        /// In which way.
        how: Lie,
    },
}

/// One fault of a scenario.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Fault {
    /// When it begins.
    pub at: Picos,
    /// How long it lasts; of no meaning for [`FaultKind::Close`].
    pub span: Picos,
    /// What it is.
    pub kind: FaultKind,
}

impl Fault {
    /// When it is over.
    pub fn end(&self) -> Picos {
        self.at + self.span
    }

    /// Whether it lasts at a moment.
    pub fn lasts_at(&self, now: Picos) -> bool {
        self.at <= now && now < self.end()
    }

    /// The highest host it concerns.
    pub fn highest_host(&self) -> HostId {
        match self.kind {
            FaultKind::Cut { from, to, .. } => (63 - (from | to | 1).leading_zeros()) as HostId,
            FaultKind::Mute { host, .. }
            | FaultKind::Crash { host }
            | FaultKind::Stall { host }
            | FaultKind::SlowReceiver { host, .. }
            | FaultKind::Hog { host, .. }
            | FaultKind::Close { host, .. }
            | FaultKind::Lie { host, .. } => host,
        }
    }
}
