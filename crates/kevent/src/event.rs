//! What comes out of a queue.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use crate::arrival::Datagrams;
use crate::buf::{Data, IoBuf};
use crate::handle::Message;
use crate::op::watch::Interest;
use crate::op::{OpId, Token};
use crate::pool::RecvBuf;
use crate::source::Source;
use crate::train::Train;

/// One result of one operation.
#[derive(Debug)]
pub struct Event {
    /// The token given with the operation, or the message's own; zero for [`What::Woken`].
    pub token: Token,
    /// The operation; `None` for [`What::Woken`] and [`What::Message`].
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
    TrainSent(Box<Train>),
    /// A connection was accepted.
    Accepted(Source),
    /// The socket is connected.
    Connected,
    /// Bytes of a stream, in a block of the queue's pool.
    Data(RecvBuf),
    /// The other side will send no more.
    Eof,
    /// Everything was handed to the network.
    Sent {
        /// How many bytes.
        bytes: u64,
        /// What was sent; absent while the kernel still reads it: [`What::Released`] follows.
        data: Option<Data>,
    },
    /// The kernel is done with the memory of a send without a copy.
    Released(Data, ZeroCopy),
    /// The caller's buffer was read into.
    Read {
        /// How many bytes, from the start of the buffer.
        bytes: usize,
        /// The buffer, as long as it was.
        buf: IoBuf,
    },
    /// Everything was written.
    Wrote {
        /// How many bytes.
        bytes: u64,
        /// What was written.
        data: Data,
    },
    /// A file was opened.
    Opened(Source),
    /// Head and file left.
    FileSent {
        /// How many bytes, the head included.
        bytes: u64,
        /// By which ways.
        how: SendfileHow,
    },
    /// Conditions hold.
    Ready(Interest),
    /// A timer went off.
    Tick {
        /// How long after its time.
        late: Duration,
        /// Periods of a periodic timer that passed unnoticed.
        missed: u32,
    },
    /// A signal arrived.
    Signal {
        /// Which one.
        number: i32,
        /// The process that sent it; 0 for the kernel.
        from: u32,
    },
    /// A child process ended.
    Exited(ExitStatus),
    /// [`Handle::post`](crate::Handle::post) was called.
    Message(Message),
    /// A future is complete; its output.
    Output(Box<dyn Any>),
    /// The source is closed.
    Closed,
    /// An operation without any result of its own is complete.
    Done,
    /// The operation failed.
    Failed {
        /// Why.
        error: io::Error,
        /// Bytes that moved before.
        done: u64,
        /// What the operation owned.
        operands: Operands,
    },
    /// The operation ended because it was cancelled.
    Cancelled {
        /// Bytes that moved before.
        done: u64,
        /// What the operation owned.
        operands: Operands,
    },
    /// [`Handle::wake`](crate::Handle::wake) was called; at most one in a wait.
    Woken,
}

/// What an operation owned, given back.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Operands {
    /// Nothing.
    #[default]
    None,
    /// A train.
    Train(Box<Train>),
    /// What was to be sent or written; of a [`SendFile`](crate::SendFile), the head.
    Data(Data),
    /// What was to be read into.
    Buf(IoBuf),
}

/// What a send that asked for no copy turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroCopy {
    /// The device took the memory itself.
    Used,
    /// The kernel copied after all, as it does on loopback.
    Copied,
}

/// Bytes of a [`SendFile`](crate::SendFile) by the way they took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendfileHow {
    /// From the page cache, without a copy to this process.
    pub sendfile: u64,
    /// Read into a buffer and sent from there: the head, short files, and what was not in memory.
    pub copied: u64,
}

/// An error the network reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketError {
    /// Where the datagram at fault was sent to, if known.
    pub remote: Option<SocketAddr>,
    /// What happened to it.
    pub why: Why,
    /// How the datagram began: what the report quotes of it, the rest zeros.
    pub quote: [u8; QUOTE],
    /// Bytes quoted, at most [`QUOTE`]; none if the report quotes no payload.
    pub quoted: usize,
}

/// Most bytes of a datagram at fault that are kept.
pub const QUOTE: usize = 32;

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
    list: VecDeque<Event>,
}

impl Events {
    /// Room for `n` events without allocating.
    pub fn with_capacity(n: usize) -> Events {
        Events { list: VecDeque::with_capacity(n) }
    }

    /// Takes the events out, in order. Those that are not taken, be it because of a panic, stay.
    pub fn drain(&mut self) -> impl Iterator<Item = Event> {
        std::iter::from_fn(|| self.pop())
    }

    /// Takes the next event out.
    pub fn pop(&mut self) -> Option<Event> {
        self.list.pop_front()
    }

    /// The events where they lie: moving one out costs more than looking at it.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.list.iter()
    }

    /// As [`Events::iter`], to take something out of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Event> {
        self.list.iter_mut()
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
        self.list.push_back(Event { token, id: Some(id), last, what });
    }

    pub(crate) fn add(&mut self, event: Event) {
        self.list.push_back(event);
    }

    pub(crate) fn woken(&mut self) {
        self.list.push_back(Event { token: Token::default(), id: None, last: true, what: What::Woken });
    }
}
