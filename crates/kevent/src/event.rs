//! What comes out of a queue.

use std::io;
use std::net::SocketAddr;

use crate::op::{OpId, Token};
use crate::pool::RecvBuf;
use crate::train::Train;

/// One result of one operation.
#[derive(Debug)]
pub struct Event {
    /// The token given with the operation; zero for [`What::Woken`].
    pub token: Token,
    /// The operation; `None` for [`What::Woken`].
    pub id: Option<OpId>,
    /// No further event of this operation follows.
    pub last: bool,
    /// The result.
    pub what: What,
}

/// Kinds of results.
#[derive(Debug)]
#[non_exhaustive]
pub enum What {
    /// One or more datagrams of one sender.
    Dgrams(Datagrams),
    /// The network reported an error about something sent earlier on this socket.
    Error(SocketError),
    /// A train left.
    Sent(Box<Train>),
    /// A send failed; the train comes back.
    SendFailed(io::Error, Box<Train>),
    /// A receive operation failed for good.
    Failed(io::Error),
    /// The operation ended because it was cancelled; a send's train comes back.
    Cancelled(Option<Box<Train>>),
    /// [`Handle::wake`](crate::Handle::wake) was called; at most one in a wait.
    Woken,
}

/// Datagrams of equal size (the last may be shorter) that one sender sent to one socket.
#[derive(Debug)]
pub struct Datagrams {
    /// The sender; unspecified for sockets without addresses.
    pub from: SocketAddr,
    pub(crate) buf: RecvBuf,
    /// Bytes in each datagram but the last; 0 means there is one datagram.
    pub(crate) segment: u32,
    pub(crate) truncated: bool,
}

impl Datagrams {
    /// The datagrams, in the order of arrival. A single empty datagram yields one empty slice.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let data: &[u8] = &self.buf;
        let step = if self.segment == 0 { data.len().max(1) } else { self.segment as usize };
        let empty = data.is_empty().then_some(data);
        data.chunks(step).chain(empty)
    }

    /// All bytes together.
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// The block the bytes lie in, which goes back to the pool when dropped.
    pub fn into_buf(self) -> RecvBuf {
        self.buf
    }

    /// The last datagram was longer than a block and was cut.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }
}

/// An error the network reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketError {
    /// Where the datagram at fault was sent to, if known.
    pub remote: Option<SocketAddr>,
    /// What happened to it.
    pub why: Why,
}

/// Reasons for not delivering a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// No socket at that port.
    Port,
    /// The host does not speak the protocol.
    Protocol,
    /// The host cannot be reached.
    Host,
    /// The network cannot be reached.
    Network,
    /// A filter on the way, or here, forbids it.
    Prohibited,
    /// The datagram is longer than the route carries.
    TooBig {
        /// Bytes the route carries in one IP packet.
        mtu: u32,
    },
    /// Something else, by number of the system.
    Other(i32),
}

/// Events of one wait. Keep it between waits: its memory is reused.
#[derive(Debug, Default)]
pub struct Events {
    pub(crate) list: Vec<Event>,
}

impl Events {
    /// Room for `n` events without allocating.
    pub fn with_capacity(n: usize) -> Events {
        Events { list: Vec::with_capacity(n) }
    }

    /// Takes all events out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Event> {
        self.list.drain(..)
    }

    /// Number of events held.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Holds no event.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn push(&mut self, token: Token, id: OpId, last: bool, what: What) {
        self.list.push(Event { token, id: Some(id), last, what });
    }

    pub(crate) fn woken(&mut self) {
        self.list.push(Event { token: Token::default(), id: None, last: true, what: What::Woken });
    }
}
