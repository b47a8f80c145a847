//! Measuring processes. `peyk demo` and `peyk bench` run each client and each server as a process of its own, which
//! is `peyk demo-node`: it reads one specification from its standard input and writes events to its standard
//! output, both as lines of JSON.
//!
//! ```text
//!            parent                          node
//!              │── NodeSpec ─────────────────►│
//!              │◄──────────── Ready, Progress │   Ready: a server's address
//!              │── "stop" ───────────────────►│   servers that cannot see the end of their client
//!              │◄──────────────── Done/Failed │
//! ```
//!
//! A node ends when its standard input does (and the kernel kills it with its parent); the parent gives each step a
//! deadline and kills what passes it.

mod child;
mod pair;
mod parent;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{child::run as run_child, pair::Pair, parent::Node};
use crate::{
    bench_traffic::{FixedPlan, FixedResult},
    flags::BackendName,
    load::{LoadPlan, LoadResult, Progress},
    transport::tcp::Waiting,
    verify::Executed,
};

/// Which transport a node speaks.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// Homa, by Peyk.
    Homa,
    /// Kernel TCP.
    Tcp,
    /// Bare UDP.
    Udp,
}

/// How the Homa nodes are set up.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HomaOptions {
    /// Kernel interface, by name.
    pub backend: BackendName,
    /// Share of packets lost on purpose below Homa, 0 to 1.
    pub drop: f64,
    /// Where peers block: sleep at once, instead of the stack's default policy.
    pub sleep: bool,
    /// Shards of each node's stack.
    pub shards: usize,
    /// The link, where it is known.
    pub link: Option<Link>,
}

/// A link that Homa knows, and what of the settings that follow from it is to be different.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Link {
    /// Its rate in Mbit/s.
    pub mbps: u32,
    /// Best round trip of a full packet and its answer, in microseconds.
    pub round_trip_us: f64,
    /// Priority levels in use.
    pub levels: Option<u8>,
    /// Most messages granted to at a time.
    pub overcommit: Option<u32>,
    /// Bytes of a message sent without a grant.
    pub unscheduled: Option<u32>,
    /// Bytes left up to which the shortest goes first; among longer messages, the oldest.
    pub srpt_limit: Option<u32>,
}

impl Link {
    /// The protocol's parameters for this link.
    pub fn protocol(&self, config: peyk::homa::Config) -> peyk::homa::Config {
        let mut config = config.for_link(self.mbps, Duration::from_secs_f64(self.round_trip_us / 1e6));
        if let Some(levels) = self.levels {
            config.num_priorities = levels;
        }
        if let Some(overcommit) = self.overcommit {
            config.max_overcommit = overcommit;
        }
        if let Some(unscheduled) = self.unscheduled {
            config.unsched_bytes = unscheduled;
        }
        if let Some(limit) = self.srpt_limit {
            config.srpt_limit = limit;
        }
        config
    }
}

/// What a node is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Transport.
    pub carrier: Carrier,
    /// Connections, where the transport has them.
    pub connections: usize,
    /// What to do when there is nothing to do.
    pub waiting: Waiting,
    /// Whether to use IPv6.
    pub ipv6: bool,
    /// The CPU to stay on, counted among those allowed.
    pub cpu: Option<usize>,
    /// For Homa.
    pub homa: HomaOptions,
    /// The work.
    pub job: Job,
}

/// The work of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Serve checked messages.
    ServeChecked,
    /// Serve without looking at the messages.
    ServePlain,
    /// Be the client of a load.
    Load {
        /// The server, as it said when it was ready.
        server: String,
        /// The load.
        plan: LoadPlan,
    },
    /// Be the client of a closed loop of one size.
    Fixed {
        /// The server, as it said when it was ready.
        server: String,
        /// The loop.
        plan: FixedPlan,
    },
}

/// What a node tells its parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeEvent {
    /// A server listens.
    Ready {
        /// Where: address and port, for Homa with the UDP port.
        address: String,
    },
    /// A load has come so far.
    Progress(Progress),
    /// A server has ended.
    Served(Executed),
    /// A load has ended.
    Loaded(Box<LoadResult>),
    /// A closed loop has ended.
    Looped(FixedResult),
    /// Something for the report, such as the congestion control in use.
    Note(String),
    /// The node could not do its work.
    Failed(String),
}
