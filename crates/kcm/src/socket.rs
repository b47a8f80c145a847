//! The state of one KCM socket: what waits to be received and to be sent. Decisions are the mux's.

use std::collections::VecDeque;

use bytes::Bytes;
use peyk_sansio::Instant;
use smallvec::SmallVec;

use crate::error::Code;
use crate::event::{Message, PsockId, SocketId, Target};
use crate::stats::SocketStats;
use crate::table::Id;

/// A message on its way out.
#[derive(Clone, Debug)]
pub(crate) struct TxMessage {
    pub(crate) parts: SmallVec<[Bytes; 1]>,
    pub(crate) len: usize,
    /// Messages in it: replies to one connection may travel as one piece.
    pub(crate) count: u64,
    pub(crate) from: SocketId,
    pub(crate) to: Target,
}

impl TxMessage {
    pub(crate) fn new(from: SocketId, to: Target) -> TxMessage {
        TxMessage { parts: SmallVec::new(), len: 0, count: 1, from, to }
    }

    /// Appends the bytes from `offset` on to `out`.
    pub(crate) fn slices(&self, mut offset: usize, out: &mut Vec<Bytes>) {
        for part in &self.parts {
            if offset >= part.len() {
                offset -= part.len();
                continue;
            }
            out.push(part.slice(offset..));
            offset = 0;
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Socket {
    // Receiving.
    /// Messages delivered and not received, oldest first.
    pub(crate) queue: VecDeque<Message>,
    /// Bytes of them, and of what is left of the message being read.
    pub(crate) charged: usize,
    /// A message received in pieces, and where the next piece starts.
    pub(crate) reading: Option<(Message, usize)>,
    pub(crate) is_disabled: bool,
    /// Its buffer was full and it has not drained yet.
    pub(crate) is_full: bool,
    /// It stands in the line of receivers.
    pub(crate) in_line: bool,
    /// It is bound to a connection for the current pass.
    pub(crate) bound: Option<PsockId>,
    /// `Readable` was said and the queue has not been found empty since.
    pub(crate) was_told: bool,
    /// Connection whose message was received last, in connection order.
    pub(crate) serving: Option<PsockId>,

    // Sending.
    /// The open message, to which pieces are added.
    pub(crate) open: Option<TxMessage>,
    /// Messages for any connection, oldest first; the first may be under way.
    pub(crate) tx: VecDeque<TxMessage>,
    /// Bytes of all its messages anywhere in the mux that no connection has taken.
    pub(crate) tx_charged: usize,
    /// The connection reserved for it.
    pub(crate) reserved: Option<Id>,
    pub(crate) is_tx_waiting: bool,
    /// A batch is being gathered; it must leave at this time.
    pub(crate) batch: Option<Instant>,
    /// A send was refused and `Writable` is owed.
    pub(crate) wants_room: bool,
    /// Said once by the next send.
    pub(crate) error: Option<Code>,
    /// It is closed as soon as all is sent, or at this time.
    pub(crate) closing: Option<Instant>,

    pub(crate) stats: SocketStats,
}

impl Socket {
    /// Whether a message may be delivered here: checked before adding, so one message may overshoot.
    pub(crate) fn has_room(&self, limit: usize) -> bool {
        !self.is_disabled && self.closing.is_none() && !self.is_full && self.charged < limit
    }
}
