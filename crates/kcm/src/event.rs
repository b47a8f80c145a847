//! What a mux tells its surroundings, and the values that go in and out of it.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::error::{Code, FrameError};
use crate::framer::Meta;
use crate::table::Id;

/// Names a KCM socket of a mux; it stays dead when the socket is closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SocketId(pub(crate) Id);

/// Names a connection of a mux: the token by which a reply finds its way. It stays dead when the connection
/// is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PsockId(pub(crate) Id);

impl SocketId {
    /// The number in the status text.
    pub fn index(self) -> usize {
        self.0.index as usize
    }
}

impl PsockId {
    /// The number in the status text.
    pub fn index(self) -> usize {
        self.0.index as usize
    }

    /// Index and generation as one number.
    pub fn to_bits(self) -> u64 {
        u64::from(self.0.generation) << 32 | u64::from(self.0.index)
    }

    /// The id of which these are the bits.
    pub fn from_bits(bits: u64) -> PsockId {
        PsockId(Id { index: bits as u32, generation: (bits >> 32) as u32 })
    }
}

/// A whole message from a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// All its bytes, header included.
    pub bytes: Bytes,
    /// The connection it came from.
    pub from: PsockId,
    /// The address given for that connection.
    pub addr: Option<SocketAddr>,
    /// What the framer knows of it.
    pub meta: Meta,
    /// Its number among the messages of that connection, from 0.
    pub number: u64,
}

/// Whole messages that came one after the other over one connection, as workers take them: one piece of
/// memory, told apart by their lengths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// All bytes of all of them.
    pub bytes: Bytes,
    /// The length of each, in order.
    pub lengths: Vec<u32>,
    /// The connection they came from.
    pub from: PsockId,
    /// The number of the first among the messages of that connection.
    pub number: u64,
}

impl Run {
    /// The messages, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut at = 0;
        self.lengths.iter().zip(self.number..).map(move |(length, number)| {
            let start = at;
            at += *length as usize;
            (number, &self.bytes[start..at])
        })
    }

    /// Takes the first `count` messages off.
    pub(crate) fn split(&mut self, count: usize) -> Run {
        let rest = self.lengths.split_off(count.min(self.lengths.len()));
        let lengths = core::mem::replace(&mut self.lengths, rest);
        let size = lengths.iter().map(|length| *length as usize).sum();
        let first = Run { bytes: self.bytes.split_to(size), lengths, from: self.from, number: self.number };
        self.number += first.lengths.len() as u64;
        first
    }
}

/// What one receive yields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes of one message, all or some.
    pub bytes: Bytes,
    /// With these bytes the message ends (`MSG_EOR`).
    pub is_end: bool,
    /// The rest of the message was dropped (`MSG_TRUNC`).
    pub is_truncated: bool,
    /// The connection it came from.
    pub from: PsockId,
    /// The number of the message among those of its connection.
    pub number: u64,
}

/// Where a message is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    /// Over any connection.
    #[default]
    Any,
    /// Over this very connection.
    Psock(PsockId),
    /// Over any connection to this address; one is asked for if there is none.
    Addr(SocketAddr),
    /// As the reply to message `number` of this connection: after the replies to those before it.
    Reply(PsockId, u64),
}

/// How a message, or a piece of one, is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendFlags {
    /// `MSG_MORE`: a datagram goes on with the next send.
    pub more: bool,
    /// `MSG_EOR`: a sequenced packet ends here.
    pub end: bool,
    /// `MSG_BATCH`: more messages follow at once, none of them need leave yet.
    pub batch: bool,
    /// Where it goes; what the first piece says holds.
    pub to: Target,
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The peer closed it between two messages.
    Eof,
    /// The peer closed it inside a message.
    Truncated {
        /// Bytes of the message that were there.
        have: usize,
        /// Bytes it should have had, if known.
        need: Option<u64>,
    },
    /// Reading or writing failed with this number.
    Io(Code),
    /// What came is no message.
    Frame {
        /// What is wrong.
        error: FrameError,
        /// Position in the stream of the message at fault.
        offset: u64,
        /// Its first bytes.
        first: [u8; 16],
        /// How many of them there are.
        first_len: u8,
    },
    /// A message was not complete in time.
    Timeout {
        /// Bytes of it that were there.
        have: usize,
    },
    /// Its framer hands the stream back: no byte of it has been taken.
    HandBack,
    /// A socket was closed in the middle of sending a message over it.
    HolderClosed,
    /// Its owner dropped it.
    Dropped,
}

impl Cause {
    /// The number the kernel would have put on the TCP socket.
    pub fn code(&self) -> Code {
        match self {
            Cause::Eof | Cause::Truncated { .. } | Cause::HolderClosed | Cause::Dropped => Code::PIPE,
            Cause::Io(code) => *code,
            Cause::Frame { error, .. } => error.code,
            Cause::Timeout { .. } => Code::TIMEDOUT,
            Cause::HandBack => Code::STRPIPE,
        }
    }
}

/// Something the surroundings should know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The socket has a message to receive; said again only after it was found empty.
    Readable(SocketId),
    /// The socket, which was full, takes messages again.
    Writable(SocketId),
    /// The connection ended; all messages that came over it have been handed to sockets. It is still there
    /// for what is being sent until it is unattached.
    PsockDown {
        /// Which.
        psock: PsockId,
        /// Why.
        cause: Cause,
        /// Messages given to it that it had not wholly taken.
        tx_unsent: usize,
    },
    /// A message waits and there is no connection.
    NoPsock,
    /// A message for this address waits and no connection leads there.
    Connect(SocketAddr),
    /// A message for a connection was not sent because that is gone.
    Undelivered {
        /// Who had sent it.
        socket: SocketId,
        /// Where it should have gone.
        psock: PsockId,
    },
    /// A socket that was being flushed is closed.
    Closed {
        /// Which.
        socket: SocketId,
        /// Messages it could not send.
        unsent: usize,
    },
}

/// What becomes of what a closed socket had not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Closed {
    /// Messages dropped.
    pub unsent: usize,
    /// Their bytes.
    pub unsent_bytes: usize,
}

/// A connection that was taken off.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unattached {
    /// A message that was complete and that no socket had taken.
    pub parked: Option<Message>,
    /// Bytes read from the stream that belong to no complete message; the stream goes on after them.
    pub buffered: Bytes,
    /// Bytes of an outgoing message that the peer has seen the beginning of.
    pub tx_partial: usize,
}

/// Whether and how much of a stream is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WantRead {
    /// At least so many bytes make it worthwhile.
    Min(usize),
    /// Not for the time being.
    Paused,
    /// Never again.
    Stopped,
}
