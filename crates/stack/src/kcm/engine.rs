//! The mux with its streams: passes of reading, writing what the mux hands out, and what follows from it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant as SystemInstant;

use bytes::Bytes;
use peyk_kcm::error::Code;
use peyk_kcm::{Config, Event, Instant, Partial, PsockId, SocketId, WantRead};

use super::conn::Conn;
use crate::sys::{Epoll, eventfd};

/// Bytes read at once, reads in one turn of a connection (more of them while a long message comes, which are not
/// parsed), bytes and slices of one write.
pub(super) const CHUNK: usize = 64 * 1024;
const READS: usize = 4;
const LONG_READS: usize = 16;
const WRITE_BYTES: usize = 256 * 1024;
const SLICES: usize = 64;
/// Events kept for the application.
const EVENTS: usize = 4096;

thread_local! {
    /// The mux whose framer this thread runs, by its name; 0 for none.
    pub(super) static FRAMING: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A mux of KCM sockets over real streams. Clones name the same mux; it lives until its last socket is
/// closed.
#[derive(Clone)]
pub struct Mux(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    pub(super) reads: Epoll,
    pub(super) writes: Epoll,
    /// Wakes one thread that waits on `reads`; wakes the keeper.
    pub(super) bell: std::fs::File,
    pub(super) keeper_bell: std::fs::File,
    /// Threads that wait on `reads`, and worker threads there are.
    pub(super) idle: AtomicUsize,
    pub(super) workers: AtomicUsize,
    /// One of the workers looks for work instead of sleeping.
    pub(super) is_looked: AtomicBool,
    pub(super) is_closed: AtomicBool,
    /// Something waits for whoever is free. A hint: who sets it under the mutex wakes somebody after.
    pub(super) waits: AtomicBool,
    started: SystemInstant,
}

/// What is behind the mutex.
pub(super) struct Core {
    pub(super) mux: peyk_kcm::Mux,
    /// By index of the connection.
    conns: Vec<Option<Arc<Conn>>>,
    pub(super) readers: Vec<Wakers>,
    pub(super) writers: Vec<Wakers>,
    pub(super) events: VecDeque<Event>,
    pub(super) event_wakers: Vec<Waker>,
    pub(super) events_lost: u64,
    /// Connections whose turn ended before they were empty.
    pub(super) pending: VecDeque<PsockId>,
    pub(super) accepted: Vec<super::attach::Listener>,
    /// How connections made on demand are framed.
    pub(super) on_demand: Option<Box<dyn peyk_kcm::framer::Framer>>,
    /// When the keeper looks at the clock next.
    pub(super) keeper_at: Option<Instant>,
    /// Memory for a list of what is to be written, between two writes.
    spare_slices: Vec<Bytes>,
}

/// How a turn of reading ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Nothing more was there.
    Empty,
    /// There may be more, but it is the turn of others.
    Over,
    /// The mux wants no more for the time being, or ever.
    Paused,
}

pub(super) type Wakers = Vec<Waker>;

/// What whoever reads does with what comes.
pub(super) trait Reader {
    /// Bytes came, the mutex is held: returns how many of them he takes where they lie.
    fn take_in_place(&mut self, _core: &mut Core, _conn: &Arc<Conn>, _bytes: &[u8]) -> usize {
        0
    }

    /// The mux has been told of all that was not taken, the mutex is still held.
    fn after_bytes(&mut self, _core: &mut Core) {}

    /// The buffer is about to be read into again.
    fn before_read(&mut self, _conn: &Arc<Conn>, _buffer: &[u8]) {}
}

/// Leaves everything to the mux.
pub(super) struct Nobody;

impl Reader for Nobody {}

/// Things to do once the mutex is free.
#[derive(Default)]
pub(super) struct After {
    wakers: Vec<Waker>,
    resumed: Vec<Arc<Conn>>,
    gone: Vec<Arc<Conn>>,
    connects: Vec<std::net::SocketAddr>,
    rings_keeper: bool,
}

impl Core {
    pub(super) fn conn(&self, id: PsockId) -> Option<&Arc<Conn>> {
        self.conns.get(id.index())?.as_ref().filter(|conn| conn.id == id)
    }

    pub(super) fn put(&mut self, conn: Arc<Conn>) {
        let index = conn.id.index();
        if self.conns.len() <= index {
            self.conns.resize(index + 1, None);
        }
        self.conns[index] = Some(conn);
    }

    pub(super) fn take(&mut self, id: PsockId) -> Option<Arc<Conn>> {
        self.conns.get_mut(id.index())?.take_if(|conn| conn.id == id)
    }

    pub(super) fn all_conns(&self) -> Vec<Arc<Conn>> {
        self.conns.iter().flatten().cloned().collect()
    }

    pub(super) fn wait_on(list: &mut Vec<Wakers>, socket: SocketId, waker: &Waker) {
        if list.len() <= socket.index() {
            list.resize(socket.index() + 1, Vec::new());
        }
        let wakers = &mut list[socket.index()];
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// Moves what the mux says to where it belongs.
    fn sort_events(&mut self, after: &mut After) {
        while let Some(event) = self.mux.poll_event() {
            match &event {
                Event::Readable(socket) => {
                    after
                        .wakers
                        .extend(self.readers.get_mut(socket.index()).into_iter().flat_map(std::mem::take));
                    continue;
                }
                Event::Writable(socket) => {
                    after
                        .wakers
                        .extend(self.writers.get_mut(socket.index()).into_iter().flat_map(std::mem::take));
                    continue;
                }
                Event::PsockDown { psock, .. } => {
                    if let Some(conn) = self.conn(*psock).cloned() {
                        conn.is_down.store(true, Ordering::Release);
                        self.retire(&conn, after);
                    }
                }
                Event::Connect(addr) => after.connects.push(*addr),
                _ => {}
            }
            if self.events.len() >= EVENTS {
                self.events.pop_front();
                self.events_lost += 1;
            }
            self.events.push_back(event);
            after.wakers.append(&mut self.event_wakers);
        }
        while let Some(psock) = self.mux.poll_resumed() {
            after.resumed.extend(self.conn(psock).cloned());
        }
        let at = self.mux.poll_timeout();
        if at.is_some() && self.keeper_at.is_none_or(|keeper| at < Some(keeper)) {
            self.keeper_at = at;
            after.rings_keeper = true;
        }
    }

    /// Lets a connection that is down go, once its last message is handled and its last reply sent.
    pub(super) fn retire(&mut self, conn: &Arc<Conn>, after: &mut After) {
        if !conn.is_down.load(Ordering::Acquire)
            || conn.in_service.load(Ordering::Acquire) > 0
            || !self.mux.is_drained(conn.id)
            || self.mux.is_writing(conn.id)
        {
            return;
        }
        if let Some(conn) = self.take(conn.id) {
            let _ = self.mux.unattach(conn.id, Instant::ZERO);
            after.gone.push(conn);
        }
    }
}

impl Shared {
    pub(super) fn new(config: Config) -> io::Result<(Arc<Shared>, SocketId)> {
        let started = SystemInstant::now();
        let (mux, first) = peyk_kcm::Mux::new(config, Instant::ZERO);
        let core = Core {
            mux,
            conns: Vec::new(),
            readers: Vec::new(),
            writers: Vec::new(),
            events: VecDeque::new(),
            event_wakers: Vec::new(),
            events_lost: 0,
            pending: VecDeque::new(),
            accepted: Vec::new(),
            on_demand: None,
            keeper_at: None,
            spare_slices: Vec::new(),
        };
        let shared = Shared {
            core: Mutex::new(core),
            reads: Epoll::new()?,
            writes: Epoll::new()?,
            bell: eventfd()?,
            keeper_bell: eventfd()?,
            idle: AtomicUsize::new(0),
            workers: AtomicUsize::new(0),
            is_looked: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            started,
        };
        Ok((Arc::new(shared), first))
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(self.started.elapsed().as_nanos() as u64)
    }

    /// A name for this mux while it lives.
    pub(super) fn name(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether this thread is inside a framer that this mux runs.
    pub(super) fn is_framing(&self) -> bool {
        FRAMING.get() == self.name()
    }

    /// A panic of one user must not take the others along: the mux is consistent between calls.
    ///
    /// # Panics
    /// A framer uses the mux that runs it, and would wait for itself; its connection ends with that.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        assert!(!self.is_framing(), "a framer must not use the mux that runs it");
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the mutex back and does what the mux wants done: writes, wake-ups, farewells.
    pub(super) fn leave<'a>(self: &'a Arc<Self>, mut core: MutexGuard<'a, Core>) {
        let mut after = After::default();
        loop {
            core.sort_events(&mut after);
            let Some(psock) = core.mux.poll_write() else { break };
            let Some(conn) = core.conn(psock).cloned() else { continue };
            let mut slices = std::mem::take(&mut core.spare_slices);
            let offered = core.mux.tx_slices(psock, WRITE_BYTES, &mut slices);
            if offered == 0 {
                core.spare_slices = slices;
                continue;
            }
            drop(core);
            let outcome = write(&conn, &slices, offered);
            slices.clear();
            let now = self.now();
            core = self.lock();
            core.spare_slices = slices;
            match outcome {
                Ok(taken) => {
                    core.mux.stream_wrote(psock, taken, now);
                    if conn.was_writable.swap(false, Ordering::Relaxed) {
                        core.mux.stream_writable(psock);
                    }
                }
                Err(error) => self.broken(&mut core, &conn, &error, true),
            }
            core.retire(&conn, &mut after);
        }
        let waits = core.mux.waiting_messages() > 0 || core.mux.has_parked() || !core.pending.is_empty();
        self.waits.store(waits, Ordering::Release);
        drop(core);
        self.finish(after);
    }

    /// A stream failed in reading or writing.
    pub(super) fn broken(&self, core: &mut Core, conn: &Conn, error: &io::Error, writing: bool) {
        let code = Code(error.raw_os_error().unwrap_or(Code::PIPE.0));
        let now = self.now();
        let addr = conn.is_connecting.load(Ordering::Relaxed).then(|| core.mux.addr(conn.id)).flatten();
        if writing {
            core.mux.write_failed(conn.id, code, now);
        } else {
            core.mux.stream_error(conn.id, code, now);
        }
        // Nobody is there: asking again at once would only repeat it.
        if let Some(addr) = addr {
            core.mux.connect_failed(addr, code);
        }
    }

    fn finish(self: &Arc<Self>, after: After) {
        after.wakers.into_iter().for_each(Waker::wake);
        for conn in after.gone {
            self.forget(&conn);
            conn.stream.shut_down();
        }
        if after.rings_keeper {
            self.ring(&self.keeper_bell);
        }
        for addr in after.connects {
            self.connect_to(addr);
        }
        if !after.resumed.is_empty() {
            let mut core = self.lock();
            core.pending.extend(after.resumed.iter().map(|conn| conn.id));
            self.waits.store(true, Ordering::Release);
            drop(core);
            self.ring_reader();
        }
    }

    /// The last message of a connection that is down has been handled.
    pub(super) fn retire_later(self: &Arc<Self>, conn: &Arc<Conn>) {
        let mut after = After::default();
        let mut core = self.lock();
        core.retire(conn, &mut after);
        drop(core);
        self.finish(after);
    }

    pub(super) fn forget(&self, conn: &Conn) {
        let _ = self.reads.remove(conn.stream.fd());
        let _ = self.writes.remove(conn.stream.fd());
        super::attach::disown(conn.identity);
    }

    pub(super) fn ring(&self, mut bell: &std::fs::File) {
        use std::io::Write;
        let _ = bell.write(&1u64.to_ne_bytes());
    }

    /// Wakes a thread that reads.
    pub(super) fn ring_reader(&self) {
        self.ring(&self.bell);
    }

    /// Reads a connection that is ready, as long as the mux wants it and its turn lasts. The baton stays with
    /// the caller, who gives it to [`Shared::end_turn`].
    pub(super) fn pass(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        buffer: &mut [u8],
        reader: &mut impl Reader,
    ) -> Turn {
        let (mut reads, mut long_reads) = (0, 0);
        while reads < READS && long_reads < LONG_READS {
            reads += 1;
            reader.before_read(conn, buffer);
            conn.look_again();
            let mut lent = None;
            if conn.asks_first.load(Ordering::Acquire) {
                let mut core = self.lock();
                // The mux says when to go on; an edge until then adds nothing.
                let WantRead::Min(missing) = core.mux.want_read(conn.id) else { return Turn::Paused };
                conn.asks_first.store(missing >= CHUNK, Ordering::Release);
                lent = core.mux.lend(conn.id, CHUNK);
            }
            if let Some((memory, missing)) = lent {
                if self.read_long(conn, memory, missing, reader) {
                    (reads, long_reads) = (reads - 1, long_reads + 1);
                    continue;
                }
                return Turn::Empty;
            }
            match conn.stream.try_read(buffer) {
                Ok(count) if count > 0 => {
                    conn.is_connecting.store(false, Ordering::Relaxed);
                    let mut core = self.lock();
                    let rest = &buffer[reader.take_in_place(&mut core, conn, &buffer[..count])..count];
                    if !rest.is_empty() {
                        // A copy as long as what came: slices of it pin nothing else.
                        core.mux.stream_bytes(conn.id, Bytes::copy_from_slice(rest), self.now());
                    }
                    reader.after_bytes(&mut core);
                    core.mux.settle(rest.len());
                    let is_plain = matches!(core.mux.want_read(conn.id), WantRead::Min(n) if n < CHUNK);
                    conn.asks_first.store(!is_plain, Ordering::Release);
                    self.note_room(&mut core, conn);
                    self.leave(core);
                    // The edge of an end that came with these bytes has been taken: nobody would look again.
                    let has_end = conn.is_ending.load(Ordering::Acquire);
                    if count < buffer.len() && conn.stream.short_read_is_all() && !has_end {
                        return Turn::Empty;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !conn.stream.short_read_is_all() {
                        let mut core = self.lock();
                        self.note_room(&mut core, conn);
                        self.leave(core);
                    }
                    return Turn::Empty;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => {
                    let mut core = self.lock();
                    match outcome {
                        Ok(_) => core.mux.stream_eof(conn.id, self.now()),
                        Err(error) => self.broken(&mut core, conn, &error, false),
                    }
                    reader.after_bytes(&mut core);
                    self.leave(core);
                    return Turn::Paused;
                }
            }
        }
        Turn::Over
    }

    /// Lays down the baton after a pass.
    pub(super) fn end_turn(self: &Arc<Self>, conn: &Conn, turn: Turn) {
        if turn == Turn::Empty && conn.end_read() {
            return;
        }
        let mut core = self.lock();
        conn.drop_read();
        // The mux says when a connection that is paused may be read, unless it may already.
        if turn == Turn::Paused && !matches!(core.mux.want_read(conn.id), WantRead::Min(_)) {
            return;
        }
        core.pending.push_back(conn.id);
        self.waits.store(true, Ordering::Release);
        drop(core);
        if self.idle.load(Ordering::Acquire) > 0 {
            self.ring_reader();
        }
    }

    /// A stream with buffers of its own may have made room when it was read.
    fn note_room(&self, core: &mut Core, conn: &Conn) {
        if conn.stream.short_read_is_all() {
            return;
        }
        match core.mux.is_writing(conn.id) {
            true => conn.was_writable.store(true, Ordering::Relaxed),
            false => core.mux.stream_writable(conn.id),
        }
    }

    /// Reads right into the memory of a long message. True if there may be more.
    fn read_long(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        mut memory: Partial,
        missing: usize,
        reader: &mut impl Reader,
    ) -> bool {
        let outcome = conn.stream.try_read(memory.room(missing));
        let count = *outcome.as_ref().unwrap_or(&0);
        memory.advance(count);
        let now = self.now();
        let mut core = self.lock();
        core.mux.give_back(conn.id, memory, count, now);
        let goes_on = match outcome {
            Ok(0) => {
                core.mux.stream_eof(conn.id, now);
                false
            }
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                self.broken(&mut core, conn, &error, false);
                false
            }
        };
        reader.after_bytes(&mut core);
        self.leave(core);
        goes_on
    }

    /// One of the connections whose turn is not over.
    pub(super) fn next_pending(&self) -> Option<Arc<Conn>> {
        let mut core = self.lock();
        while let Some(id) = core.pending.pop_front() {
            if let Some(conn) = core.conn(id) {
                return Some(conn.clone());
            }
        }
        None
    }

    /// Ends everything: the last socket is closed. The connections are to be dropped once the mutex is free.
    #[must_use]
    pub(super) fn dissolve(&self, core: &mut Core) -> Vec<Arc<Conn>> {
        self.is_closed.store(true, Ordering::Release);
        let conns = core.all_conns();
        for conn in &conns {
            core.take(conn.id);
            self.forget(conn);
            conn.stream.shut_down();
        }
        core.accepted.clear();
        core.events.push_back(Event::NoPsock);
        core.event_wakers.drain(..).for_each(Waker::wake);
        for wakers in core.readers.iter_mut().chain(&mut core.writers) {
            wakers.drain(..).for_each(Waker::wake);
        }
        self.ring(&self.keeper_bell);
        for _ in 0..=self.workers.load(Ordering::Acquire) {
            self.ring_reader();
        }
        conns
    }
}

/// Writes one piece once; what is not taken waits for room.
pub(super) fn write_slice(conn: &Conn, bytes: &[u8]) -> io::Result<usize> {
    match conn.stream.try_write(&[IoSlice::new(bytes)]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            conn.was_writable.store(true, Ordering::Relaxed);
            Ok(0)
        }
        outcome => outcome,
    }
}

/// Writes once; what is not taken waits for room.
fn write(conn: &Conn, slices: &[Bytes], offered: usize) -> io::Result<usize> {
    let mut taken = 0;
    for group in slices.chunks(SLICES) {
        let wanted: usize = group.iter().map(Bytes::len).sum();
        let outcome = match group {
            [one] => conn.stream.try_write(&[IoSlice::new(one)]),
            _ => {
                let views: Vec<IoSlice<'_>> = group.iter().map(|slice| IoSlice::new(slice)).collect();
                conn.stream.try_write(&views)
            }
        };
        match outcome {
            Ok(count) => {
                taken += count;
                if count < wanted {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // What was taken before counts; the error comes again with the next write.
            Err(error) if taken > 0 || error.kind() == ErrorKind::Interrupted => {
                conn.was_writable.store(true, Ordering::Relaxed);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    debug_assert!(taken <= offered);
    Ok(taken)
}
