//! Error codes and what the caller can do wrong. Codes are the system's numbers, so that old programs meet
//! the ones they know.

use core::fmt;

/// An error number as Linux has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub i32);

impl Code {
    /// The message breaks its protocol.
    pub const PROTO: Code = Code(71);
    /// The message is longer than allowed.
    pub const MSGSIZE: Code = Code(90);
    /// The message was not complete in time.
    pub const TIMEDOUT: Code = Code(110);
    /// The connection cannot be written any more.
    pub const PIPE: Code = Code(32);
    /// The connection was reset.
    pub const CONNRESET: Code = Code(104);
    /// A parser wanted to hand back a stream of whose message bytes had been taken.
    pub const NODATA: Code = Code(61);
    /// A parser hands the stream back.
    pub const STRPIPE: Code = Code(86);
    /// The program ran too long or failed.
    pub const FAULT: Code = Code(14);
    /// Not allowed for this kind.
    pub const OPNOTSUPP: Code = Code(95);
    /// No such thing.
    pub const NOENT: Code = Code(2);
    /// Done already, or owned by another.
    pub const ALREADY: Code = Code(114);
    /// A limit on memory or number was reached.
    pub const NOBUFS: Code = Code(105);
    /// No connection leads there.
    pub const NOTCONN: Code = Code(107);
    /// Invalid argument.
    pub const INVAL: Code = Code(22);
    /// Would block.
    pub const AGAIN: Code = Code(11);
    /// No such socket.
    pub const BADF: Code = Code(9);
    /// No such option.
    pub const NOPROTOOPT: Code = Code(92);
    /// No such protocol.
    pub const PROTONOSUPPORT: Code = Code(93);
    /// No such kind of socket.
    pub const SOCKTNOSUPPORT: Code = Code(94);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Code::PROTO => "EPROTO",
            Code::MSGSIZE => "EMSGSIZE",
            Code::TIMEDOUT => "ETIMEDOUT",
            Code::PIPE => "EPIPE",
            Code::CONNRESET => "ECONNRESET",
            Code::NODATA => "ENODATA",
            Code::STRPIPE => "ESTRPIPE",
            Code::FAULT => "EFAULT",
            Code::OPNOTSUPP => "EOPNOTSUPP",
            Code::NOENT => "ENOENT",
            Code::ALREADY => "EALREADY",
            Code::NOBUFS => "ENOBUFS",
            Code::NOTCONN => "ENOTCONN",
            Code::INVAL => "EINVAL",
            Code::AGAIN => "EAGAIN",
            Code::BADF => "EBADF",
            Code::NOPROTOOPT => "ENOPROTOOPT",
            Code::PROTONOSUPPORT => "EPROTONOSUPPORT",
            Code::SOCKTNOSUPPORT => "ESOCKTNOSUPPORT",
            Code(number) => return write!(f, "errno {number}"),
        };
        f.write_str(name)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{code}: {why}")]
pub struct FrameError {
    /// The number a kernel would have put on the socket.
    pub code: Code,
    /// What is wrong, in words.
    pub why: &'static str,
}

/// A socket could not be opened or cloned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloneError {
    /// The socket is closed.
    #[error("the socket is closed")]
    Closed,
    /// As many sockets as the configuration allows.
    #[error("too many sockets on this mux")]
    Full,
}

/// A connection was not attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// As many connections as the configuration allows.
    #[error("too many connections on this mux")]
    Full,
    /// All sockets of the mux are closed.
    #[error("the mux is closed")]
    Closed,
    /// Messages of one connection must stay in order here, and this mux spreads them over sockets.
    #[error("messages of this protocol must be handled in order; choose an order for the mux")]
    Ordered,
}

/// A connection was not taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnattachError {
    /// No such connection on this mux.
    #[error("no such connection")]
    Unknown,
    /// It is being taken off already.
    #[error("the connection is being taken off already")]
    Already,
}

/// A message, or a piece of one, was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The socket's send buffer is full; there will be a `Writable` event.
    #[error("the send buffer is full")]
    WouldBlock,
    /// The message can never fit the send buffer.
    #[error("the message is longer than the send buffer")]
    TooBig,
    /// The socket is closed.
    #[error("the socket is closed")]
    Closed,
    /// No connection is there, and the mux is told not to wait for one.
    #[error("no connection")]
    NoPsock,
    /// The connection of the token is gone.
    #[error("the connection is gone")]
    Gone,
    /// An earlier message met this error; said once.
    #[error("an earlier message failed: {0}")]
    Earlier(Code),
}

/// Nothing was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// No message is there.
    #[error("no message")]
    WouldBlock,
    /// The socket is closed.
    #[error("the socket is closed")]
    Closed,
    /// No connection is there, and the mux is told not to wait for one.
    #[error("no connection")]
    NoPsock,
}

impl SendError {
    /// The number old programs know.
    pub fn code(self) -> Code {
        match self {
            SendError::WouldBlock => Code::AGAIN,
            SendError::TooBig => Code::MSGSIZE,
            SendError::Closed | SendError::Earlier(_) => Code::PIPE,
            SendError::NoPsock | SendError::Gone => Code::NOTCONN,
        }
    }
}
