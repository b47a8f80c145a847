//! What can go wrong on the application's side of the stack, by operation.

use std::io;
use std::net::SocketAddr;

use peyk_homa::RpcError;

/// The stack could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(#[from] peyk_homa::ConfigError),
    /// More shards than RPC ids can name.
    #[error("at most 255 shards")]
    TooManyShards,
    /// The completion queue or a driver's socket could not be made.
    #[error("cannot set up network I/O: {0}")]
    Io(#[from] io::Error),
    /// The capture file could not be written.
    #[error("cannot write the capture file {path}: {source}")]
    Capture {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The text given is not an address.
    #[error(transparent)]
    Addr(#[from] crate::AddrError),
    /// The UDP port that carries Homa packets cannot be had.
    #[error("cannot bind UDP {addr}, which is to carry Homa packets: {source}")]
    Carriage {
        /// The UDP address asked for.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The Homa port cannot be had.
    #[error("cannot open the Homa socket: {0}")]
    Homa(#[from] peyk_homa::OpenError),
    /// The tasks of a service cannot run: there is no queue for them.
    #[error("cannot run tasks on the shard: {0}")]
    Tasks(io::Error),
    /// Called on a shard's own thread, which would wait for itself; a service uses its
    /// [`Context`](crate::Context) instead.
    #[error("called on the shard's own thread: use the service's context")]
    OnShard,
    /// The stack has no shard with that number.
    #[error("there is no such shard")]
    NoShard,
    /// The stack has stopped.
    #[error("the stack has stopped")]
    Stopped,
}

/// A call, or another operation of a socket, did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The RPC ended without a response.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The message or its destination cannot be sent as it is.
    #[error("cannot send: {0}")]
    Send(peyk_homa::SendError),
    /// The text given is not an address.
    #[error("`{0}` is not an address: write host:port, or host:port/udp-port")]
    Addr(String),
    /// No UDP socket could be opened towards the destination.
    #[error("no way to {0}: {1}")]
    Unroutable(SocketAddr, io::ErrorKind),
    /// More messages wait for send memory than the configuration allows.
    #[error("too many messages wait to be sent")]
    Full,
    /// This socket was closed.
    #[error("the socket is closed")]
    Closed,
    /// Called on the shard's own thread, which would wait for itself; a service uses its
    /// [`Context`](crate::Context) instead.
    #[error("called on the shard's own thread: use the service's context")]
    OnShard,
    /// The stack has stopped.
    #[error("the stack has stopped")]
    Stopped,
}

impl From<Error> for io::Error {
    fn from(e: Error) -> io::Error {
        let kind = match &e {
            Error::Rpc(e) => (*e).into(),
            Error::Send(_) | Error::Addr(_) => io::ErrorKind::InvalidInput,
            Error::Unroutable(_, kind) => *kind,
            Error::Full => io::ErrorKind::WouldBlock,
            Error::Closed | Error::Stopped => io::ErrorKind::NotConnected,
            Error::OnShard => io::ErrorKind::Deadlock,
        };
        io::Error::new(kind, e)
    }
}
