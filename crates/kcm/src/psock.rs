//! The state of one attached connection. Decisions are the mux's.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use crate::assemble::Assembler;
use crate::event::{Cause, Message, SocketId};
use crate::framer::Framer;
use crate::partial::Spares;
use crate::socket::TxMessage;
use crate::stats::PsockStats;

/// Where the message under way comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The queue of the socket that has reserved the connection.
    Holder,
    /// The connection's own queue.
    Direct,
}

pub(crate) struct Psock {
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) stats: PsockStats,

    // Receiving.
    pub(crate) assembler: Assembler,
    /// Bytes read and not parsed, because nobody takes messages.
    pub(crate) backlog: VecDeque<Bytes>,
    pub(crate) backlog_len: usize,
    /// A complete message that nobody takes.
    pub(crate) parked: Option<Message>,
    /// It stands in the line of connections with a parked message.
    pub(crate) in_ready: bool,
    /// The stream ended or failed; said once everything before it is delivered.
    pub(crate) ending: Option<Cause>,
    /// `PsockDown` was said.
    pub(crate) is_down: bool,
    /// Reading stopped for lack of memory.
    pub(crate) is_starved: bool,
    /// The socket that takes the messages of this pass, or, in connection order, until all are handled.
    pub(crate) bound: Option<SocketId>,
    /// Messages delivered and not handled, in connection order; of these, in the hold queue.
    pub(crate) outstanding: usize,
    pub(crate) held: usize,
    /// Number of the next message.
    pub(crate) next_number: u64,
    /// Its partial message is lent out to be read into.
    pub(crate) is_lent: bool,

    /// A timer for its assembly is set.
    pub(crate) is_timed: bool,

    // Sending.
    /// It is not offered to messages that may take any connection.
    pub(crate) only_targeted: bool,
    pub(crate) tx_stopped: bool,
    /// It is to be stopped as soon as the write under way has ended.
    pub(crate) tx_stopping: bool,
    /// What was offered to the stream and not yet answered for, message by message.
    pub(crate) plan: VecDeque<Source>,
    pub(crate) planned: usize,
    /// It stands in the line of available connections.
    pub(crate) is_available: bool,
    pub(crate) reserved: Option<SocketId>,
    /// Messages for this very connection.
    pub(crate) direct: VecDeque<TxMessage>,
    /// The message under way, and how much of it the stream has taken.
    pub(crate) current: Option<Source>,
    pub(crate) offset: usize,
    /// The stream took less than it was offered; it will say when there is room.
    pub(crate) is_blocked: bool,
    /// It stands in the line of connections with something to write.
    pub(crate) in_writes: bool,
    /// Sent under the current reservation.
    pub(crate) quantum_messages: usize,
    pub(crate) quantum_bytes: usize,
    /// Replies that wait for those before them, and the number of the next to leave.
    pub(crate) replies: BTreeMap<u64, Option<TxMessage>>,
    pub(crate) next_reply: u64,
}

impl Psock {
    pub(crate) fn new(framer: Box<dyn Framer>, addr: Option<SocketAddr>, spares: Spares) -> Psock {
        Psock {
            addr,
            stats: PsockStats::default(),
            assembler: Assembler::new(framer, spares),
            backlog: VecDeque::new(),
            backlog_len: 0,
            parked: None,
            in_ready: false,
            ending: None,
            is_down: false,
            is_starved: false,
            bound: None,
            outstanding: 0,
            held: 0,
            next_number: 0,
            is_lent: false,
            is_timed: false,
            only_targeted: false,
            tx_stopped: false,
            tx_stopping: false,
            plan: VecDeque::new(),
            planned: 0,
            is_available: false,
            reserved: None,
            direct: VecDeque::new(),
            current: None,
            offset: 0,
            is_blocked: false,
            in_writes: false,
            quantum_messages: 0,
            quantum_bytes: 0,
            replies: BTreeMap::new(),
            next_reply: 0,
        }
    }

    /// Bytes of received data that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.backlog_len + self.assembler.have() + self.parked.as_ref().map_or(0, |m| m.bytes.len())
    }

    /// Messages given to it that it has not wholly taken.
    pub(crate) fn unsent(&self) -> usize {
        self.direct.len() + self.replies.len() + usize::from(self.current == Some(Source::Holder))
    }
}
