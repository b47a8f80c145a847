//! What applications on other threads ask of a shard, and what they get.

use std::net::SocketAddr;
use std::sync::Arc;

use peyk_homa::{PeerAddr, Reason, ServerRpc, SocketId};
use peyk_sockbuf::oneshot::Completer;
use peyk_sockbuf::snapshot::Publisher;
use peyk_sockbuf::{Message, Payload};

use super::{Front, SocketShared};
use crate::addr::Addr;
use crate::driver::Bound;
use crate::error::{BindError, Error};
use crate::service::{Context, Service};
use crate::stats::StackStats;

/// Makes a service on the shard's thread.
pub(crate) type Build = Box<dyn FnOnce(&mut Context<'_>) -> Result<Box<dyn Service>, BindError> + Send>;
/// Told which place in the shard's list the service got, and as which occupant.
pub(crate) type ServeDone = Completer<Result<(usize, u64), BindError>>;

/// What an application asks of a shard.
pub(crate) enum Submission {
    Open {
        addr: Option<Addr>,
        done: Completer<Result<Opened, BindError>>,
    },
    /// A server socket at this Homa port, or any, with no carriage yet: one part of a socket that
    /// all shards serve.
    OpenPart {
        port: Option<u16>,
        front: Arc<Front>,
        index: usize,
        done: Completer<Result<Part, BindError>>,
    },
    /// Lets a group of carriage sockets serve a part, by a new member of it or by the one that is
    /// here already; answers with its address, or `None` if there is neither.
    Carry {
        socket: SocketId,
        asked: SocketAddr,
        bound: Option<Bound>,
        done: Completer<CarryResult>,
    },
    Close {
        socket: SocketId,
    },
    Call {
        socket: SocketId,
        to: Addr,
        message: Payload,
        options: CallOptions,
        key: u64,
        reply_to: ReplyTo,
    },
    Cancel {
        socket: SocketId,
        key: u64,
    },
    Reply {
        socket: SocketId,
        rpc: ServerRpc,
        message: Payload,
    },
    Reject {
        rpc: ServerRpc,
        reason: Reason,
    },
    Serve {
        build: Build,
        done: ServeDone,
    },
    StopService {
        id: usize,
        generation: u64,
    },
    Stats {
        done: Completer<StackStats>,
    },
    /// Publishes the shard's counters from now on.
    Export {
        publisher: Publisher,
        done: Completer<()>,
    },
    /// Tells all applications on other threads that the stack stops, and takes no more from them.
    EndApp {
        done: Completer<()>,
    },
    Stop,
}

/// A socket as the shard made it.
pub(crate) struct Opened {
    pub socket: SocketId,
    pub addr: Option<Addr>,
    pub shared: Arc<SocketShared>,
}

/// What became of [`Submission::Carry`].
pub(crate) type CarryResult = std::io::Result<Option<SocketAddr>>;

/// One shard's part of a socket.
pub(crate) struct Part {
    pub socket: SocketId,
    pub port: u16,
    pub shared: Arc<SocketShared>,
}

/// Per-call choices.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallOptions {
    /// Gives up after this time even if the peer is making progress.
    pub timeout: Option<std::time::Duration>,
}

/// Where the outcome of a request goes.
pub(crate) enum ReplyTo {
    /// To the future that waits for it.
    Call(Completer<Result<Response, Error>>),
    /// To the socket's queue of responses, with this cookie.
    Queue(u64),
}

/// A response and where it came from.
#[derive(Debug, Clone)]
pub struct Response {
    /// The message.
    pub message: Message,
    /// The server's address.
    pub from: Addr,
}

/// A request as it waits for the application.
pub(crate) struct Arrived {
    pub rpc: ServerRpc,
    pub from: PeerAddr,
    pub message: Message,
}

/// The outcome of a request sent without a future of its own.
#[derive(Debug)]
pub struct Outcome {
    /// The value given when the request was sent.
    pub cookie: u64,
    /// The response, or why there is none.
    pub result: Result<Response, Error>,
}
