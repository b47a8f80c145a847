//! A worker thread: it waits, reads, handles and answers. When to hand messages over is decided here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use peyk_kcm::{Order, PsockId, Run};

use super::{Estimate, Incoming, Replies};
use crate::kcm::conn::Conn;
use crate::kcm::engine::{CHUNK, Core, Reader, Shared, write_slice};
use crate::kcm::keeper::BELL;
use crate::kcm::socket::Socket;
use crate::sys::EpollEvent;

/// Connections that a worker hears of at once while messages are cheap.
const EVENTS: usize = 16;
/// Most messages a worker takes from the queue at once.
const SHARE: usize = 64;
/// Longest look for work before sleeping, in wake-ups.
const LOOK: u32 = 5;
/// Who found something in less than one look of so many, looks only each 16th time.
const LUCK: u32 = 8;

/// What a worker is told when it starts.
pub(super) struct Shift<F> {
    pub(super) shared: Arc<Shared>,
    pub(super) socket: Socket,
    pub(super) handler: Arc<F>,
    pub(super) estimate: Arc<Estimate>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) wake_ns: u64,
    pub(super) order: Order,
}

pub(super) struct Worker<F> {
    shift: Shift<F>,
    batch: Vec<Run>,
    /// Connections of the batch, kept until its replies are under way.
    conns: Vec<Arc<Conn>>,
    /// Messages that lie in the buffer: their lengths, and the number of the first.
    placed: Vec<u32>,
    placed_number: u64,
    /// Their replies are written past the queues of the mux.
    is_claimed: bool,
    /// The connection of the messages that are being handled where they lie.
    serving: Option<PsockId>,
    /// Connections met before, by index.
    known: Vec<(PsockId, Weak<Conn>)>,
    replies: Outbox,
    buffer: Vec<u8>,
    /// Share of its looks for work that found some, of 256, the latest weighing most; and looks.
    luck: u32,
    looks: u32,
}

/// Replies that have not been given to the mux.
struct Outbox {
    order: Order,
    out: BytesMut,
    /// Messages in `out`.
    count: u64,
    /// Connection, number of the request, bytes, messages in them.
    done: Vec<(PsockId, u64, Bytes, u64)>,
}

impl Outbox {
    /// Has the messages of one connection handled. `goes_on` says that more of it follow, or
    /// that the replies stay in `out`.
    fn handle<'a, F: Fn(Incoming<'_>, &mut Replies<'_>)>(
        &mut self,
        handler: &F,
        from: PsockId,
        messages: impl Iterator<Item = (u64, &'a [u8])>,
        goes_on: bool,
    ) {
        for (number, bytes) in messages {
            let mut replies = Replies { out: &mut self.out, count: &mut self.count };
            handler(Incoming { bytes, from, number }, &mut replies);
            if self.order == Order::Replies {
                self.finish(from, number);
            }
        }
        if self.order != Order::Replies && !goes_on {
            self.finish(from, 0);
        }
    }

    fn finish(&mut self, from: PsockId, number: u64) {
        self.done.push((from, number, self.out.split().freeze(), std::mem::take(&mut self.count)));
    }
}

impl<F: Fn(Incoming<'_>, &mut Replies<'_>)> Worker<F> {
    pub(super) fn new(shift: Shift<F>) -> Worker<F> {
        let replies = Outbox { order: shift.order, out: BytesMut::new(), count: 0, done: Vec::new() };
        Worker {
            shift,
            batch: Vec::new(),
            conns: Vec::new(),
            placed: Vec::new(),
            placed_number: 0,
            is_claimed: false,
            serving: None,
            known: Vec::new(),
            replies,
            buffer: vec![0; CHUNK],
            luck: 256,
            looks: 0,
        }
    }

    pub(super) fn run(&mut self) {
        let mut events = [EpollEvent { events: 0, u64: 0 }; EVENTS];
        let shared = self.shift.shared.clone();
        while !self.shift.stop.load(Ordering::Acquire) && !shared.is_closed.load(Ordering::Acquire) {
            if shared.waits.load(Ordering::Acquire) {
                if self.take_share() {
                    self.handle();
                    continue;
                }
                if let Some(conn) = shared.next_pending() {
                    self.read(&conn);
                    continue;
                }
            }
            let Some(ready) = self.wait(&mut events) else { return };
            for event in ready.iter().filter(|event| event.u64 != BELL) {
                if let Some(conn) = self.find(PsockId::from_bits(event.u64)) {
                    conn.note_edge(event.events);
                    self.read(&conn);
                }
            }
        }
    }

    /// Waits for connections, or for the bell.
    fn wait<'a>(&mut self, events: &'a mut [EpollEvent]) -> Option<&'a [EpollEvent]> {
        let shared = &self.shift.shared;
        let estimate = self.shift.estimate.get();
        // While messages are cheap, several connections at a time save calls; else others are faster.
        let most = if estimate < self.shift.wake_ns / 16 { events.len() } else { 1 };
        // Cheap messages are better met in numbers; for others a wake-up is a delay worth avoiding.
        if estimate >= self.shift.wake_ns && !shared.is_looked.swap(true, Ordering::AcqRel) {
            let count = self.look(&mut events[..most]);
            let shared = &self.shift.shared;
            shared.is_looked.store(false, Ordering::SeqCst);
            if let Some(count) = count {
                return Some(&events[..count]);
            }
            // Either this sees what was put into the queue, or whoever put it sees that nobody looks.
            if shared.waits.load(Ordering::SeqCst) {
                return Some(&[]);
            }
        }
        let shared = &self.shift.shared;
        shared.idle.fetch_add(1, Ordering::AcqRel);
        let ready = shared.reads.wait(&mut events[..most], 1000);
        shared.idle.fetch_sub(1, Ordering::AcqRel);
        ready.ok()
    }

    /// Looks for work for a moment, unless that was in vain lately. Only one worker does at a time, and
    /// whoever else wants to run goes first.
    fn look(&mut self, events: &mut [EpollEvent]) -> Option<usize> {
        self.looks = self.looks.wrapping_add(1);
        if self.luck < 256 / LUCK && !self.looks.is_multiple_of(16) {
            return None;
        }
        let (started, longest) = (Instant::now(), Duration::from_nanos(self.shift.wake_ns) * LOOK);
        while started.elapsed() < longest {
            let count = self.shift.shared.reads.wait(events, 0).map_or(0, <[EpollEvent]>::len);
            if count > 0 || self.shift.shared.waits.load(Ordering::Acquire) {
                self.luck += (256 - self.luck) / 8;
                return Some(count);
            }
            std::thread::yield_now();
        }
        self.luck -= self.luck / 8;
        None
    }

    /// A connection by its id. Those met before are found without the mutex; they are not kept alive.
    fn find(&mut self, id: PsockId) -> Option<Arc<Conn>> {
        if let Some((known, conn)) = self.known.get(id.index())
            && *known == id
            && let Some(conn) = conn.upgrade()
        {
            return Some(conn);
        }
        let conn = self.shift.shared.lock().conn(id).cloned()?;
        if self.known.len() <= id.index() {
            self.known.resize(id.index() + 1, (id, Weak::new()));
        }
        self.known[id.index()] = (id, Arc::downgrade(&conn));
        Some(conn)
    }

    /// Takes a share of what waits for any worker. True if there was something.
    fn take_share(&mut self) -> bool {
        let shared = self.shift.shared.clone();
        let mut core = shared.lock();
        let waiting = core.mux.waiting_messages();
        if waiting == 0 && !core.mux.has_parked() {
            return false;
        }
        core.mux.advance(shared.now());
        let idle = shared.idle.load(Ordering::Acquire);
        let share = (waiting / (idle + 1)).min(self.worth()).clamp(1, SHARE);
        self.take(&mut core, share);
        let is_left = core.mux.waiting_messages() > 0;
        shared.leave(core);
        // Bells that were rung together may have woken only one.
        if is_left && idle > 0 {
            shared.ring_reader();
        }
        !self.batch.is_empty()
    }

    fn take(&mut self, core: &mut Core, most: usize) {
        let first = self.batch.len();
        core.mux.take_waiting(self.shift.socket.id(), most, &mut self.batch);
        for run in &self.batch[first..] {
            if let Some(conn) = core.conn(run.from) {
                conn.in_service.fetch_add(1, Ordering::AcqRel);
                self.conns.push(conn.clone());
            }
        }
    }

    /// Messages that together cost as much as a wake-up. If a worker takes more at once because all are busy, they
    /// wait for it even when another has become free.
    fn worth(&self) -> usize {
        (self.shift.wake_ns / self.shift.estimate.get().max(1)) as usize
    }

    /// Whether handling so many messages is not worth waking another thread.
    fn is_cheap(&self, messages: usize) -> bool {
        let cost = self.shift.estimate.get().saturating_mul(messages as u64);
        self.shift.order == Order::Connection || cost < self.shift.wake_ns
    }

    /// Reads a connection for a turn, and handles what is its share.
    fn read(&mut self, conn: &Arc<Conn>) {
        if !conn.begin_read() {
            return;
        }
        let shared = self.shift.shared.clone();
        let mut buffer = std::mem::take(&mut self.buffer);
        let turn = shared.pass(conn, &mut buffer, self);
        // In the order of connections nobody reads on before all is handled.
        if self.shift.order == Order::Connection {
            self.before_read(conn, &buffer);
            self.handle();
            shared.end_turn(conn, turn);
        } else {
            shared.end_turn(conn, turn);
            self.before_read(conn, &buffer);
            self.handle();
        }
        self.buffer = buffer;
    }

    /// Handles the batch, then sends all replies: one piece for each connection.
    fn handle(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let started = Instant::now();
        let mut messages = 0;
        for (i, run) in self.batch.iter().enumerate() {
            messages += run.lengths.len();
            let goes_on = self.batch.get(i + 1).is_some_and(|next| next.from == run.from);
            self.replies.handle(&*self.shift.handler, run.from, run.iter(), goes_on);
        }
        self.batch.clear();
        self.note_cost(started, messages);
        self.answer();
        for conn in std::mem::take(&mut self.conns) {
            self.let_go(&conn);
        }
    }

    /// The replies to a message of the connection are under way.
    fn let_go(&self, conn: &Arc<Conn>) {
        conn.in_service.fetch_sub(1, Ordering::AcqRel);
        if conn.is_down.load(Ordering::Acquire) {
            self.shift.shared.retire_later(conn);
        }
    }

    fn note_cost(&self, started: Instant, messages: usize) {
        self.shift.estimate.add(started.elapsed().as_nanos() as u64 / messages.max(1) as u64);
    }

    /// Writes all replies to the connection that is claimed for them.
    fn answer_directly(&mut self, conn: &Arc<Conn>) {
        let (shared, socket) = (&self.shift.shared, self.shift.socket.id());
        let bytes = &self.replies.out[..];
        let outcome = if bytes.is_empty() { Ok(0) } else { write_slice(conn, bytes) };
        let mut core = shared.lock();
        match outcome {
            Ok(taken) => {
                core.mux.end_claim(conn.id, socket, bytes, self.replies.count, taken);
                if conn.was_writable.swap(false, Ordering::Relaxed) {
                    core.mux.stream_writable(conn.id);
                }
            }
            Err(error) => shared.broken(&mut core, conn, &error, true),
        }
        shared.leave(core);
        self.replies.out.clear();
        self.replies.count = 0;
    }

    /// Gives all replies to the mux.
    fn answer(&mut self) {
        let (shared, socket) = (&self.shift.shared, self.shift.socket.id());
        let now = shared.now();
        let mut core = shared.lock();
        for (psock, number, bytes, count) in self.replies.done.drain(..) {
            // Who has gone needs no answer.
            let _ = match self.shift.order {
                Order::Replies if bytes.is_empty() => {
                    core.mux.skip_reply(psock, number);
                    Ok(())
                }
                Order::Replies => core.mux.send_reply(socket, psock, number, bytes, now),
                _ if bytes.is_empty() => Ok(()),
                _ => core.mux.send_joined(socket, psock, bytes, count),
            };
        }
        shared.leave(core);
        self.replies.out.reserve(CHUNK / 16);
    }
}

impl<F: Fn(Incoming<'_>, &mut Replies<'_>)> Reader for Worker<F> {
    /// Cheap messages are handled where they lie, unless others of this turn wait for it.
    fn take_in_place(&mut self, core: &mut Core, conn: &Arc<Conn>, bytes: &[u8]) -> usize {
        if !self.batch.is_empty() {
            return 0;
        }
        let Some((taken, number)) = core.mux.frame_in_place(conn.id, bytes, &mut self.placed) else {
            return 0;
        };
        if self.is_cheap(self.placed.len() + core.mux.waiting_messages()) {
            core.mux.count_taken(self.shift.socket.id(), self.placed.len(), taken);
            conn.in_service.fetch_add(1, Ordering::AcqRel);
            self.placed_number = number;
            self.is_claimed = self.shift.order != Order::Replies && core.mux.claim_tx(conn.id);
        } else {
            let bytes = Bytes::copy_from_slice(&bytes[..taken]);
            let lengths = self.placed.drain(..).collect();
            core.mux.queue_run(Run { bytes, lengths, from: conn.id, number });
        }
        taken
    }

    fn after_bytes(&mut self, core: &mut Core) {
        let waiting = core.mux.waiting_messages();
        if waiting == 0 && !core.mux.has_parked() {
            return;
        }
        let has_none = self.batch.is_empty() && self.placed.is_empty();
        let most = if self.is_cheap(waiting) { usize::MAX } else { usize::from(has_none) };
        self.take(core, most);
        let shared = &self.shift.shared;
        let mut left = core.mux.waiting_messages();
        if left > 0 {
            shared.waits.store(true, Ordering::SeqCst);
            // Who looks needs no bell.
            left -= usize::from(shared.is_looked.load(Ordering::SeqCst));
        }
        let idle = shared.idle.load(Ordering::Acquire);
        (0..left.min(idle)).for_each(|_| shared.ring_reader());
    }

    fn before_read(&mut self, conn: &Arc<Conn>, buffer: &[u8]) {
        if self.placed.is_empty() {
            return;
        }
        let started = Instant::now();
        let mut at = 0;
        let messages = self.placed.iter().zip(self.placed_number..).map(|(length, number)| {
            let start = at;
            at += *length as usize;
            (number, &buffer[start..at])
        });
        self.serving = Some(conn.id);
        self.replies.handle(&*self.shift.handler, conn.id, messages, self.is_claimed);
        self.note_cost(started, self.placed.len());
        self.placed.clear();
        match std::mem::take(&mut self.is_claimed) {
            true => self.answer_directly(conn),
            false => self.answer(),
        }
        self.serving = None;
        self.let_go(conn);
    }
}

impl<F> Drop for Worker<F> {
    /// A handler that panics takes its worker along, and the connections whose messages it had at hand: their
    /// peers would wait for replies.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let shared = self.shift.shared.clone();
        let mut core = shared.lock();
        let serving = self.serving.and_then(|id| core.conn(id).cloned());
        if let Some(conn) = &serving
            && self.is_claimed
        {
            core.mux.end_claim(conn.id, self.shift.socket.id(), &[], 0, 0);
        }
        let hurt: Vec<Arc<Conn>> = self.conns.drain(..).chain(serving).collect();
        for conn in &hurt {
            core.mux.stream_dropped(conn.id, shared.now());
            conn.stream.shut_down();
            conn.in_service.fetch_sub(1, Ordering::AcqRel);
        }
        shared.leave(core);
        hurt.iter().for_each(|conn| shared.retire_later(conn));
    }
}
