//! The short way for worker threads: whole messages of one connection in one piece, in one shared queue.

use bytes::Bytes;

use super::Mux;
use crate::config::Order;
use crate::event::{Message, PsockId, Run, SocketId, Target};
use crate::framer::Meta;
use crate::psock::Source;
use crate::socket::TxMessage;
use crate::table::Id;

impl Mux {
    /// Says that worker threads take all messages by [`Mux::take_waiting`]: nobody need be told of them. With
    /// `ordered` whoever reads a connection handles its messages before he reads on, so that the order of
    /// connections needs no care here.
    pub fn set_served(&mut self, ordered: bool) {
        self.is_served = true;
        self.ordered_by_reader = ordered;
        for message in std::mem::take(&mut self.hold) {
            self.hold_len -= message.bytes.len();
            let (lengths, from, number) = (vec![message.bytes.len() as u32], message.from, message.number);
            self.wait_run(Run { bytes: message.bytes, lengths, from, number });
        }
        self.hold_compact = 0;
    }

    /// The workers are gone: what waits for them is for whoever receives.
    pub fn end_served(&mut self) {
        (self.is_served, self.ordered_by_reader) = (false, false);
        self.runs_waiting = 0;
        for mut run in std::mem::take(&mut self.runs) {
            self.hold_len -= run.bytes.len();
            let addr = self.addr(run.from);
            for (length, number) in run.lengths.iter().zip(run.number..) {
                let bytes = run.bytes.split_to(*length as usize);
                let meta = Meta::default();
                self.hold_message(Message { bytes, from: run.from, addr, meta, number });
            }
        }
        self.tell_line();
    }

    pub(super) fn wait_run(&mut self, run: Run) {
        self.hold_len += run.bytes.len();
        self.runs_waiting += run.lengths.len();
        self.runs.push_back(run);
    }

    /// Messages of a connection that may be taken on: in the order of replies no more than its window holds,
    /// and none while the queue is full.
    fn run_limit(&self, id: Id) -> usize {
        if self.hold_len >= self.config.receive_buffer.saturating_mul(self.sockets.len().max(1)) {
            return 0;
        }
        match (self.config.order, self.psocks.get(id)) {
            (Order::Replies, Some(state)) => {
                let open = state.next_number - state.next_reply;
                (self.config.reply_window as u64).saturating_sub(open) as usize
            }
            _ => usize::MAX,
        }
    }

    /// The short way for workers: all whole messages at the front of a chunk at once. False if there is none,
    /// or something is not plain.
    pub(super) fn pump_run(&mut self, id: Id) -> bool {
        let limits = (self.run_limit(id), self.config.max_message);
        let Some(state) = self.psocks.get_mut(id) else { return false };
        let Some(chunk) = state.backlog.front_mut() else { return false };
        let mut lengths = Vec::new();
        let taken = state.assembler.next_run(chunk, limits, &mut lengths, &mut state.stats);
        if taken == 0 {
            return false;
        }
        let bytes = chunk.split_to(taken);
        if chunk.is_empty() {
            state.backlog.pop_front();
        }
        state.backlog_len -= taken;
        let run = Run { bytes, lengths, from: PsockId(id), number: state.next_number };
        state.next_number += run.lengths.len() as u64;
        self.wait_run(run);
        true
    }

    /// The shortest way: whole messages at the front of bytes that were just read, where they lie. Their
    /// lengths are appended; returned are their bytes and the number of the first. They are the caller's,
    /// who handles them ([`Mux::count_taken`]) or puts them in the queue ([`Mux::queue_run`]); what follows
    /// them goes to [`Mux::stream_bytes`].
    pub fn frame_in_place(
        &mut self,
        psock: PsockId,
        bytes: &[u8],
        lengths: &mut Vec<u32>,
    ) -> Option<(usize, u64)> {
        let limits = (self.run_limit(psock.0), self.config.max_message);
        let state = self.psocks.get_mut(psock.0)?;
        let is_plain = self.is_served
            && state.ending.is_none()
            && state.backlog_len == 0
            && state.parked.is_none()
            && !state.is_lent;
        if !is_plain {
            return None;
        }
        let before = lengths.len();
        let taken = state.assembler.next_run(bytes, limits, lengths, &mut state.stats);
        let number = state.next_number;
        state.next_number += (lengths.len() - before) as u64;
        (taken > 0).then_some((taken, number))
    }

    /// Claims a connection for writing to it directly, past the queues, if nothing else is under way or waits
    /// there. What others send over it meanwhile waits. Ends with [`Mux::end_claim`], or with
    /// [`Mux::write_failed`].
    pub fn claim_tx(&mut self, psock: PsockId) -> bool {
        let Some(state) = self.psocks.get_mut(psock.0) else { return false };
        let is_idle = state.plan.is_empty() && state.direct.is_empty() && state.reserved.is_none();
        let is_free = is_idle && state.current.is_none() && !state.is_blocked && !state.tx_stopped;
        if is_free {
            state.plan.push_back(Source::Direct);
        }
        is_free
    }

    /// Ends a claim: the stream took the first `taken` of these bytes, `count` whole messages by this socket.
    /// If that was not all, it must say when there is room, and the rest follows.
    pub fn end_claim(&mut self, psock: PsockId, socket: SocketId, bytes: &[u8], count: u64, taken: usize) {
        let (id, len) = (psock.0, bytes.len());
        let Some(state) = self.psocks.get_mut(id) else { return };
        state.plan.clear();
        state.stats.tx_bytes += taken as u64;
        if taken == len {
            state.stats.tx_msgs += count;
        } else {
            let mut message = TxMessage::new(socket, Target::Psock(psock));
            (message.len, message.count) = (len, count);
            message.parts.push(Bytes::copy_from_slice(bytes));
            state.direct.push_front(message);
            (state.current, state.offset) = ((taken > 0).then_some(Source::Direct), taken);
            state.is_blocked = true;
        }
        let is_stopping = state.tx_stopping;
        if let Some(state) = self.sockets.get_mut(socket.0) {
            state.stats.tx_msgs += count;
            state.stats.tx_bytes += len as u64;
            state.tx_charged += if taken < len { len } else { 0 };
        }
        if is_stopping {
            return self.abort_tx(id, self.clock);
        }
        self.after_write(id);
    }

    /// Puts messages that were framed where they lay into the shared queue.
    pub fn queue_run(&mut self, run: Run) {
        self.used += run.bytes.len();
        self.wait_run(run);
    }

    /// Counts messages as received by a socket.
    pub fn count_taken(&mut self, socket: SocketId, messages: usize, bytes: usize) {
        if let Some(state) = self.sockets.get_mut(socket.0) {
            state.stats.rx_msgs += messages as u64;
            state.stats.rx_bytes += bytes as u64;
        }
    }

    /// Takes up to `most` messages from the shared queue, for a worker with this socket; connections that had
    /// to wait for room in the queue go on.
    pub fn take_waiting(&mut self, socket: SocketId, most: usize, out: &mut Vec<Run>) {
        let (mut count, mut bytes) = (0, 0);
        while count < most {
            let Some(front) = self.runs.front_mut() else { break };
            let run = match most - count {
                left if left >= front.lengths.len() => self.runs.pop_front(),
                left => Some(front.split(left)),
            };
            let Some(run) = run else { break };
            (count, bytes) = (count + run.lengths.len(), bytes + run.bytes.len());
            out.push(run);
        }
        if count > 0 {
            self.hold_len -= bytes;
            self.runs_waiting -= count;
            self.count_taken(socket, count, bytes);
            self.release_memory(bytes);
        }
        if !self.ready.is_empty() && self.runs.is_empty() {
            self.refill(socket);
        }
    }
}
