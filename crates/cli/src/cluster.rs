//! Many hosts under load: every host is client and server of all others. `peyk cluster` starts one process per host,
//! `peyk cluster-node`, in the namespaces of a testbed, over ssh, or wherever it was started by others and joins.
//!
//! ```text
//!             parent                                  node (one of many)
//!               │── Spec ─────────────────────────────►│   which transport, who am I
//!               │◄──────────────────────────── Ready ──│   where I listen
//!               │── Connect(where all listen) ────────►│
//!               │◄──────────────────────── Connected ──│
//!               │── Load(plan, targets) ──────────────►│   any number of times
//!               │◄──────────────── Progress ... Loaded │
//!               │── Stop ─────────────────────────────►│
//!               │◄─────────────────────────── Stopped ─│   what the server saw
//! ```
//!
//! Both sides speak lines of JSON, over the node's standard input and output or over a TCP connection. A node ends when
//! its parent does. What is measured, and how long, is in `run`; what becomes of it in `outcome`.

mod carrier;
mod crew;
mod node;
pub mod outcome;
mod remote;
pub mod run;
mod usage;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::{
    node::run as run_node,
    remote::{Door, Place},
    usage::Usage,
};
use crate::{
    load::{LoadPlan, Measured, Progress},
    node::HomaOptions,
    verify::Executed,
};

/// What carries the messages.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Homa by Peyk, over UDP.
    Homa,
    /// Kernel TCP, one connection for each pair of hosts.
    Tcp1,
    /// Kernel TCP, four connections for each pair.
    Tcp4,
    /// gRPC by tonic: unary calls on one HTTP/2 connection for each pair.
    Tonic,
    /// QUIC by quinn: a stream for each message, one connection for each pair.
    Quinn,
}

impl Transport {
    /// The name in flags and results.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Homa => "homa",
            Transport::Tcp1 => "tcp1",
            Transport::Tcp4 => "tcp4",
            Transport::Tonic => "tonic",
            Transport::Quinn => "quinn",
        }
    }

    /// Connections of a pair of hosts; Homa has none.
    pub fn connections(self) -> usize {
        match self {
            Transport::Homa => 0,
            Transport::Tcp4 => 4,
            Transport::Tcp1 | Transport::Tonic | Transport::Quinn => 1,
        }
    }
}

/// What a node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Its place among the nodes, counted from 0.
    pub index: usize,
    /// Nodes in all.
    pub nodes: usize,
    /// Where it listens and, over TCP-like transports, sends from.
    pub ip: IpAddr,
    /// What carries the messages.
    pub transport: Transport,
    /// For Homa.
    pub homa: HomaOptions,
    /// For QUIC: the certificate and the private key that all nodes share, both DER.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// What the parent tells a node that has its [`Spec`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Connect to all others.
    Connect {
        /// Where each node listens, by place.
        addresses: Vec<String>,
    },
    /// Send messages.
    Load {
        /// The load.
        plan: LoadPlan,
        /// The places of those to send to; empty: be a server only, until the others are done.
        targets: Vec<usize>,
    },
    /// End, and say what was served.
    Stop,
}

/// What a node tells its parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It listens.
    Ready {
        /// Where.
        address: String,
        /// Congestion control, kernel interface, or other particulars.
        note: String,
    },
    /// It is connected to all others.
    Connected,
    /// A load has come so far.
    Progress(Progress),
    /// A load has ended.
    Loaded {
        /// What was measured.
        measured: Box<Measured>,
        /// What it took.
        usage: Usage,
    },
    /// The server has ended.
    Stopped(Executed),
    /// The node could not do its work.
    Failed(String),
}
