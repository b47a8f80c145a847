//! What can go wrong for the application, one small enum per operation.
//!
//! Faults of a peer are not here: they are dropped and counted, see [`crate::Stats`].

use std::io;

/// Why an endpoint cannot be made of a configuration.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The number of priorities is not in 1..=8.
    #[error("num_priorities must be 1 to 8")]
    NumPriorities,
    /// The MTU leaves no useful room for data.
    #[error("mtu must be 256 to 65535 bytes")]
    Mtu,
    /// Packets cannot speak of messages that long.
    #[error("max_message must be at most 2^30 bytes")]
    MaxMessage,
    /// A limit that must not be zero is.
    #[error("{0} must not be zero")]
    Zero(&'static str),
    /// The timers contradict each other.
    #[error("timeout_ticks must exceed resend_ticks and stay below 1000000")]
    Ticks,
    /// The shard is not one of the shards.
    #[error("shard must be below shards")]
    Shard,
}

/// Why a socket cannot be opened.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Explicit ports are 1 to 32767.
    #[error("port must be 1 to 32767")]
    InvalidPort,
    /// Another socket has the port.
    #[error("port is in use")]
    InUse,
    /// No automatic port is free, or there are as many sockets as allowed.
    #[error("no port is free")]
    Exhausted,
}

/// Why a request was not accepted. Nothing was sent.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The socket is closed.
    #[error("the socket is closed")]
    Closed,
    /// A message has at least one byte.
    #[error("the message is empty")]
    Empty,
    /// The message exceeds `max_message`.
    #[error("the message is too long")]
    TooLong,
    /// Too many RPCs or bytes are under way; [`Event::Writable`](crate::Event::Writable) follows.
    #[error("too much is under way")]
    Full,
    /// More hosts are in use than there is room for.
    #[error("too many peers are in use")]
    TooManyPeers,
    /// Homa port 0 is reserved.
    #[error("port 0 is reserved")]
    InvalidPort,
}

/// Why a reply was not accepted.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The request was answered already, its client gave up, or the socket is closed.
    #[error("nobody waits for this reply")]
    Gone,
    /// A message has at least one byte. The request can still be answered.
    #[error("the message is empty")]
    Empty,
    /// The message exceeds `max_message`. The request can still be answered.
    #[error("the message is too long")]
    TooLong,
    /// Too many bytes are under way; [`Event::Writable`](crate::Event::Writable) follows and the
    /// request can still be answered.
    #[error("too much is under way")]
    Full,
}

/// How a request of ours failed.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The server was silent for `timeout_ticks`.
    #[error("the peer does not answer")]
    Timeout,
    /// No socket has the port at the server.
    #[error("no socket at the peer's port")]
    NoSocket,
    /// The socket at that port takes no requests.
    #[error("the socket at the peer's port is not a server")]
    NotServer,
    /// The server's application gave the request up.
    #[error("the server abandoned the request")]
    Aborted,
    /// The server refused the request because it has too much to do.
    #[error("the server is overloaded")]
    Overloaded,
    /// The network says that the host cannot be reached.
    #[error("the host is unreachable")]
    HostUnreachable,
    /// The network says that the host does not speak the protocol.
    #[error("the host does not speak the protocol")]
    ProtocolUnreachable,
    /// The deadline given with the request has passed.
    #[error("the deadline has passed")]
    Deadline,
    /// The request or the response exceeds what its receiver takes.
    #[error("the message is longer than its receiver accepts")]
    TooLarge,
    /// The server's socket was closed before it answered.
    #[error("the server closed its socket")]
    PeerClosed,
    /// Our own socket was closed.
    #[error("the socket is closed")]
    Closed,
    /// No memory became free for the response in `memory_timeout_ticks`: the application holds as
    /// many messages as it may.
    #[error("no memory became free for the response")]
    NoMemory,
}

impl From<RpcError> for io::ErrorKind {
    fn from(error: RpcError) -> io::ErrorKind {
        match error {
            RpcError::Timeout | RpcError::Deadline => io::ErrorKind::TimedOut,
            RpcError::NoSocket | RpcError::NotServer => io::ErrorKind::NotConnected,
            RpcError::Aborted => io::ErrorKind::ConnectionAborted,
            RpcError::Overloaded => io::ErrorKind::ConnectionRefused,
            RpcError::HostUnreachable => io::ErrorKind::HostUnreachable,
            RpcError::ProtocolUnreachable => io::ErrorKind::Unsupported,
            RpcError::TooLarge => io::ErrorKind::InvalidInput,
            RpcError::PeerClosed => io::ErrorKind::ConnectionReset,
            RpcError::Closed => io::ErrorKind::BrokenPipe,
            RpcError::NoMemory => io::ErrorKind::OutOfMemory,
        }
    }
}

impl From<RpcError> for io::Error {
    fn from(error: RpcError) -> io::Error {
        io::Error::new(error.into(), error)
    }
}

/// Why a server application refuses a request; its client is told.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The request was given up: the client sees [`RpcError::Aborted`].
    Aborted,
    /// There is too much to do: the client sees [`RpcError::Overloaded`].
    Overloaded,
    /// The response would exceed what can be sent: the client sees [`RpcError::TooLarge`].
    TooLarge,
    /// The service is ending: the client sees [`RpcError::PeerClosed`].
    Closing,
}

/// What the network reported about packets of ours, by ICMP or a socket error.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Unreachable {
    /// Nothing listens there: the Homa port named, or (UDP carriage) the whole UDP port.
    Port {
        /// The Homa port, if the report names one.
        homa_port: Option<u16>,
    },
    /// The host does not speak the protocol.
    Protocol,
    /// The host or its network cannot be reached.
    Host,
}
