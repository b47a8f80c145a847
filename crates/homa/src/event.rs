//! What an endpoint tells its application.

use peyk_sockbuf::Message;

use crate::error::RpcError;
use crate::transmit::PeerAddr;

/// A socket of an endpoint: its place and which of its occupants.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// An RPC at its client: the 64-bit id on the wire, always even and never 0.
///
/// ```text
///   63              32 31   24 23              1  0
///   [ random epoch    | shard | counter         | 0 ]
/// ```
///
/// Epoch and counter are one 55-bit number that starts at a random epoch and counts up, so an id
/// does not return within the life of an endpoint, and hardly ever after a restart. The shard is
/// one whole byte of the packet (offset 24), for a packet filter to steer by; it stands above the
/// counter so that the ids of one endpoint are dense, see [`Completed`](crate::Completed).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RpcId(pub u64);

impl RpcId {
    /// The shard of the endpoint that made the id; works on the id of either side.
    pub const fn shard(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// A request that the application is to answer: place and occupant of its state.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerRpc {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) id: u64,
}

impl ServerRpc {
    /// The id at the server: the client's with bit 0 set. Different clients may use the same.
    pub const fn id(&self) -> u64 {
        self.id
    }
}

/// What happened, in the order in which it happened.
///
/// Events carry the cookie given with the request; whether an answer is private to one waiter is
/// the application's affair and is decided by its cookie.
#[derive(Clone, Debug)]
pub enum Event {
    /// A whole request arrived. It must be answered once, with
    /// [`reply`](crate::Endpoint::reply) or [`reject`](crate::Endpoint::reject).
    Request {
        /// The socket it was sent to.
        socket: SocketId,
        /// The handle to answer with.
        rpc: ServerRpc,
        /// The client.
        from: PeerAddr,
        /// The request.
        message: Message,
    },
    /// The response to a request of ours. The RPC is over.
    Response {
        /// The socket that made the request.
        socket: SocketId,
        /// Which request.
        rpc: RpcId,
        /// The cookie given with the request.
        cookie: u64,
        /// The server.
        from: PeerAddr,
        /// The response.
        message: Message,
    },
    /// A request of ours failed. The RPC is over; it may or may not have been executed.
    Failed {
        /// The socket that made the request.
        socket: SocketId,
        /// Which request.
        rpc: RpcId,
        /// The cookie given with the request.
        cookie: u64,
        /// The server.
        from: PeerAddr,
        /// Why.
        error: RpcError,
    },
    /// The client of a request that was handed over and not yet answered has given up: an answer
    /// would be refused with [`ReplyError::Gone`](crate::ReplyError::Gone).
    Cancelled {
        /// The socket it was sent to.
        socket: SocketId,
        /// The handle of the request.
        rpc: ServerRpc,
    },
    /// Requests or replies that were refused as [`Full`](crate::SendError::Full) may be tried
    /// again.
    Writable {
        /// The socket concerned.
        socket: SocketId,
    },
}
