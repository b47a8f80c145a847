//! What must hold in every run. Each violation is a value that says where and by how much.
//!
//! ```text
//!   calls.rs   executions and outcomes: once, exactly one, in time, with their contents
//!   wire.rs    packets: grants within their window, fewest bytes left first, the oldest not starved
//!   state.rs   hosts: within their limits at all times, empty in the end
//! ```
//!
//! Homa has no end-to-end check. Where packets are corrupted, contents and identities prove nothing: a bit
//! of an id makes one request another. What must still hold then: nobody panics, limits are kept, a request
//! (as it arrived) is executed once, a call has one outcome in time, and in the end nothing is left. A host
//! that lies spoils what has to do with itself only: calls among the others keep all of their promises but
//! one, that they succeed, for the liar may take memory from them.

pub mod calls;
pub mod state;
pub mod wire;

use core::fmt;

use peyk_homa::RpcError;

use crate::time::Picos;
use crate::topology::HostId;

/// What a host must not have left in the end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Leftover {
    /// RPCs.
    Rpcs,
    /// Bytes of outgoing messages.
    SendBytes,
    /// Bytes granted and not received.
    Incoming,
    /// Messages that wait for memory.
    MemoryWaiters,
    /// Pages of its pool, beyond the one that small messages share.
    Pages,
    /// Packets or events.
    Work,
    /// A timer.
    Timer,
}

/// A limit that a host must keep.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Limit {
    /// `max_incoming`, beside FIFO grants and unscheduled bytes.
    Incoming,
    /// `max_rpcs`.
    Rpcs,
    /// `wmem_max` of its sockets.
    SendBytes,
}

/// Something that must not happen has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// The code under test, or the simulator, panicked.
    Panicked {
        /// What it said.
        message: String,
    },
    /// A server executed a request twice without having restarted in between.
    ExecutedTwice {
        /// The server.
        server: HostId,
        /// The client.
        client: HostId,
        /// The client's id.
        rpc: u64,
    },
    /// A server got a request that nobody made.
    UnknownRequest {
        /// The server.
        server: HostId,
        /// The client, as it seems.
        client: HostId,
        /// The client's id.
        rpc: u64,
    },
    /// A request did not arrive as it was sent.
    RequestAltered {
        /// Number of the call.
        call: usize,
    },
    /// A response did not arrive as it was sent.
    ResponseAltered {
        /// Number of the call.
        call: usize,
    },
    /// A call ended again.
    SecondOutcome {
        /// Number of the call.
        call: usize,
    },
    /// An outcome of a call that its host did not make, or not under this id.
    StrangeOutcome {
        /// The host.
        host: HostId,
        /// The id.
        rpc: u64,
    },
    /// A call never ended.
    NoOutcome {
        /// Number of the call.
        call: usize,
    },
    /// A call failed although everything it needed was there.
    FailedNeedlessly {
        /// Number of the call.
        call: usize,
        /// How.
        error: RpcError,
    },
    /// After everything had healed and settled, a call failed.
    ProbeFailed {
        /// Its client.
        client: HostId,
        /// Its server.
        server: HostId,
        /// How; `None` if it was refused at once.
        error: Option<RpcError>,
    },
    /// A call went on beyond its deadline.
    OutlivedDeadline {
        /// Number of the call.
        call: usize,
    },
    /// A call failed for its deadline before that.
    EarlyDeadline {
        /// Number of the call.
        call: usize,
    },
    /// A call went on although its server had been silent for longer than any call may bear.
    OutlivedSilence {
        /// Number of the call.
        call: usize,
        /// How long.
        silent: Picos,
    },
    /// A host used an id again, perhaps after a restart.
    IdReused {
        /// The host.
        host: HostId,
        /// The id.
        rpc: u64,
    },
    /// A request was cancelled that had not been handed over, or had been answered.
    StrangeCancel {
        /// The server.
        server: HostId,
        /// Its id there.
        rpc: u64,
    },
    /// A socket that was refused a send never heard that it may try again.
    NeverWritable {
        /// The host.
        host: HostId,
    },
    /// A grant ran further ahead of what was received than the window and FIFO grants allow.
    GrantedTooFar {
        /// The receiver of the message.
        host: HostId,
        /// Its id for the RPC.
        rpc: u64,
        /// The grant.
        offset: u32,
        /// Bytes received, as seen on the wire.
        received: u32,
        /// Furthest allowed.
        allowed: u64,
    },
    /// A host exceeded a limit.
    OverLimit {
        /// The host.
        host: HostId,
        /// Which limit.
        limit: Limit,
        /// By how much it is used.
        used: u64,
        /// How much is allowed.
        allowed: u64,
    },
    /// A host preferred longer messages to shorter ones more often than the share of the oldest allows.
    OutOfOrder {
        /// The host.
        host: HostId,
        /// Packets sent before their turn.
        early: u64,
        /// Packets sent.
        sent: u64,
    },
    /// The oldest message of a host got no turn.
    Starved {
        /// The host.
        host: HostId,
        /// The id of the RPC.
        rpc: u64,
        /// Packets of younger messages that went before it.
        packets: u64,
    },
    /// A host sent DATA without an acknowledgement although it owed some to the receiver.
    AckWithheld {
        /// The host.
        host: HostId,
        /// To whom it owes them.
        server: HostId,
        /// How many.
        owed: u64,
    },
    /// A server answered a request that its client had given up long before.
    NotCancelled {
        /// Number of the call.
        call: usize,
    },
    /// A server was never told that its responses had arrived.
    Unacknowledged {
        /// The server.
        server: HostId,
        /// Responses it forgot unasked.
        count: u64,
    },
    /// Something is left in the end.
    Left {
        /// The host.
        host: HostId,
        /// What.
        what: Leftover,
        /// How much of it.
        count: u64,
    },
    /// The run does not come to rest.
    NoRest {
        /// Things that happened until it was given up.
        steps: u64,
    },
}

impl Violation {
    /// Whether it is of the same kind as another.
    pub fn is_like(&self, other: &Violation) -> bool {
        core::mem::discriminant(self) == core::mem::discriminant(other)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Panicked { message } => write!(f, "panicked: {message}"),
            other => fmt::Debug::fmt(other, f),
        }
    }
}
