//! What both backends share: the operations in flight, the blocks, and receiving by plain calls.

mod merge;
mod ops;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::arrival::Datagrams;
use crate::config::Config;
use crate::event::{Event, Events, Operands, SocketError, What};
use crate::handle::Shared;
use crate::io::Io;
use crate::op::deliver::{Pending, Woken};
use crate::op::timer::{Ticking, Timers};
use crate::op::{OpId, Token};
use crate::pool::Pool;
use crate::slab::Slab;
use crate::source::Source;
use crate::sys::socket::{self, Arrived, SendScratch};
use crate::train::Train;

/// Entries taken off an error queue in one go at most.
const ERRORS_AT_ONCE: usize = 64;
/// Reported errors that wait for the next wait at most; more are counted and dropped.
const STASH: usize = 256;
/// Failures of a stream in a row, with nothing in between, before it is given up.
const FAILURES_IN_ROW: u32 = 64;
/// Looks by plain calls, by their weight, of which one includes the sources where little is expected.
const RARE: u32 = 32;

pub(crate) use ops::Flow;

/// Counters of a queue; all count from its start.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Waits that found something without sleeping.
    pub immediate: u64,
    /// Waits that slept.
    pub sleeps: u64,
    /// Times looking before sleeping paid off.
    pub spins_paid: u64,
    /// Times looking before sleeping was in vain.
    pub spins_vain: u64,
    /// Times the thread was descheduled while looking.
    pub preempted: u64,
    /// Datagrams or trains received by the ring.
    pub ring_receives: u64,
    /// Datagrams or trains received by plain calls.
    pub direct_receives: u64,
    /// Datagrams longer than a block.
    pub truncated: u64,
    /// Streams re-armed after an ordinary end.
    pub rearmed: u64,
    /// Streams stopped because no block was free, each re-armed when blocks came back.
    pub no_buffers: u64,
    /// Streams re-armed after a completion queue overflow, or overflows seen.
    pub overflows: u64,
    /// Streams re-armed after an error of the socket.
    pub socket_errors: u64,
    /// Reports taken off error queues.
    pub reports: u64,
    /// Reports dropped because too many were waiting.
    pub reports_lost: u64,
    /// Completions of operations that were gone, or with blocks that were not the kernel's.
    pub stale: u64,
    /// Sends that had to wait for room.
    pub sends_queued: u64,
    /// Calls into the ring.
    pub enters: u64,
    /// Stream receives that stopped because no block was free, each continued when blocks came back.
    pub starved: u64,
    /// Operations paused because the system was out of descriptors or memory.
    pub paused: u64,
    /// File reads served from the page cache at once.
    pub inline_reads: u64,
    /// Calls performed by worker threads.
    pub worker_calls: u64,
    /// Operations, with their memory, kept for reuse at this moment.
    pub spare_ops: u64,
}

/// An operation in flight.
#[derive(Debug)]
pub(crate) enum InFlight {
    Recv(Recv),
    Send(Send),
    Io(Box<Io>),
    Timer(Ticking),
    /// `None` while it is being polled.
    Future(Option<Pending>),
}

#[derive(Debug)]
pub(crate) struct Recv {
    pub(crate) source: Source,
    /// Name and control room for multishot receives; read by the kernel, hence boxed.
    pub(crate) template: Box<libc::msghdr>,
    /// The kernel knows of it.
    pub(crate) in_kernel: bool,
    pub(crate) cancelled: bool,
    /// io_uring: the kernel was asked to end it, for good or until the next sleep.
    pub(crate) ending: bool,
    /// epoll: may have something to read.
    pub(crate) ready: bool,
    pub(crate) failures: u32,
}

#[derive(Debug)]
pub(crate) struct Send {
    pub(crate) source: Source,
    pub(crate) train: Box<Train>,
    /// The kernel reads the train.
    pub(crate) in_kernel: bool,
    pub(crate) cancelled: bool,
    pub(crate) failures: u32,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) ops: Slab<InFlight>,
    /// Receive operations, in the order of submission.
    pub(crate) streams: Vec<OpId>,
    /// Sends waiting for room, over all sources.
    pub(crate) sends_waiting: usize,
    /// Blocks for datagrams.
    pub(crate) pool: Rc<Pool>,
    /// Blocks for streams.
    pub(crate) stream_pool: Rc<Pool>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) woken: Arc<Woken>,
    pub(crate) stats: Stats,
    pub(crate) max_events: usize,
    /// Nothing is done at once that can be done elsewhere.
    pub(crate) force_async: bool,
    /// Looks by plain calls.
    looks: u32,
    pub(crate) timers: Timers,
    /// Events for the next wait.
    pub(crate) done: VecDeque<Event>,
    /// Operations to run.
    pub(crate) starts: VecDeque<OpId>,
    /// Operations to run at the next wait.
    pub(crate) next_wait: Vec<OpId>,
    /// Operations to run when blocks for streams are back.
    pub(crate) starved: Vec<OpId>,
    /// epoll: operations that wait for readiness, over all sources.
    pub(crate) waits: usize,
    /// epoll: keys of sources for which one wait less is to be kept.
    pub(crate) unwatched: Vec<u64>,
    /// The last receive of a stream filled its block: there may be more.
    pub(crate) full_block: bool,
    /// Operations that ended, for reuse. Boxed: they are moved to the slab and back, and the kernel
    /// may hold addresses in them.
    #[allow(clippy::vec_box)]
    pub(crate) spares: Vec<Box<Io>>,
    /// Sends that one call took along, while its outcome is dealt out.
    merging: Vec<OpId>,
    /// Reports found while sending, delivered by the next wait.
    stash: VecDeque<(OpId, SocketError)>,
    scratch: SendScratch,
}

/// What a plain receive on a stream needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    id: OpId,
    token: Token,
    fd: RawFd,
    /// Where all of it comes from.
    remote: Option<SocketAddr>,
    /// No trains come, and nothing has to be known but the bytes.
    single: bool,
}

impl Aim {
    #[inline]
    fn receive(&self, pool: &Pool, block: u16) -> io::Result<Option<Arrived>> {
        match self.remote {
            Some(remote) if self.single => socket::receive_single(self.fd, remote, pool, block),
            remote => socket::receive(self.fd, remote, pool, block),
        }
    }
}

/// How a round of plain receives ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left for now.
    Empty,
    /// The limit was reached, or no block was free: look again.
    More,
    /// The stream is over.
    Ended,
}

impl Core {
    pub(crate) fn new(config: &Config, pool: Rc<Pool>, stream_pool: Rc<Pool>) -> io::Result<Core> {
        Ok(Core {
            ops: Slab::new(config.max_ops),
            streams: Vec::new(),
            sends_waiting: 0,
            pool,
            stream_pool,
            shared: Shared::new(config.inlet as usize)?,
            woken: Arc::new(Woken::new(256)),
            stats: Stats::default(),
            max_events: config.max_events.max(1),
            force_async: config.force_async,
            looks: 0,
            timers: Timers::new(),
            done: VecDeque::new(),
            starts: VecDeque::new(),
            next_wait: Vec::new(),
            starved: Vec::new(),
            spares: Vec::new(),
            waits: 0,
            unwatched: Vec::new(),
            full_block: false,
            merging: Vec::new(),
            stash: VecDeque::new(),
            scratch: SendScratch::default(),
        })
    }

    pub(crate) fn recv(&mut self, id: OpId) -> Option<(Token, &mut Recv)> {
        match self.ops.entry(id)? {
            (token, InFlight::Recv(recv)) => Some((token, recv)),
            _ => None,
        }
    }

    pub(crate) fn send(&mut self, id: OpId) -> Option<(Token, &mut Send)> {
        match self.ops.entry(id)? {
            (token, InFlight::Send(send)) => Some((token, send)),
            _ => None,
        }
    }

    /// The receive operation on a source.
    pub(crate) fn stream_of(&mut self, source: &Source) -> Option<OpId> {
        let Core { ops, streams, .. } = self;
        streams.iter().copied().find(|id| match ops.entry(*id) {
            Some((_, InFlight::Recv(recv))) => recv.source.is(source),
            _ => false,
        })
    }

    /// Ends a stream with its last event.
    pub(crate) fn end_stream(&mut self, id: OpId, what: What, out: &mut Events) {
        self.streams.retain(|s| *s != id);
        if let Some((token, op)) = self.ops.remove(id) {
            out.push(token, id, true, what);
            if let InFlight::Recv(recv) = op {
                self.advance_close(&recv.source);
            }
        }
    }

    /// Ends the send `id`, which the kernel does not hold, with its last event.
    pub(crate) fn end_send(&mut self, id: OpId, result: SendEnd, out: &mut Events) {
        let Some((token, InFlight::Send(send))) = self.ops.remove(id) else { return };
        send.source.0.sends.borrow_mut().retain(|s| *s != id);
        self.sends_waiting -= 1;
        let operands = |train| Operands::Train(train);
        let what = match result {
            SendEnd::Sent => What::TrainSent(send.train),
            SendEnd::Failed(error) => What::Failed { error, done: 0, operands: operands(send.train) },
            SendEnd::Cancelled => What::Cancelled { done: 0, operands: operands(send.train) },
        };
        out.push(token, id, true, what);
        self.advance_close(&send.source);
    }

    /// Marks every operation as cancelled.
    pub(crate) fn cancel_all(&mut self) {
        for op in self.ops.values() {
            match op {
                InFlight::Recv(recv) => recv.cancelled = true,
                InFlight::Send(send) => send.cancelled = true,
                InFlight::Io(io) => io.cancelled = true,
                InFlight::Timer(_) | InFlight::Future(_) => {}
            }
        }
    }

    /// One plain receive on each stream, with `rare` on those where little is expected too; true if something
    /// came, good or bad.
    pub(crate) fn receive_each(&mut self, rare: bool, out: &mut Events) -> bool {
        let before = out.len();
        let mut at = 0;
        while let Some(&id) = self.streams.get(at) {
            if rare || !self.is_rare(id) {
                self.receive_direct(id, 1, out);
            }
            at += usize::from(self.streams.get(at) == Some(&id));
        }
        out.len() > before
    }

    /// The stream to look at, if much is expected of no other.
    pub(crate) fn focus(&mut self) -> Option<Aim> {
        let mut focus = None;
        for at in 0..self.streams.len() {
            let id = self.streams[at];
            if !self.is_rare(id) && focus.replace(id).is_some() {
                return None;
            }
        }
        focus.and_then(|id| self.aim(id))
    }

    /// One plain receive on the stream of [`Core::focus`]; true if something came, good or bad.
    pub(crate) fn receive_on(&mut self, aim: &Aim, out: &mut Events) -> bool {
        let Some(block) = self.pool.peek() else { return false };
        let result = aim.receive(&self.pool, block);
        if matches!(result, Ok(None)) {
            return false;
        }
        let before = out.len();
        self.received(aim, block, result, out);
        out.len() > before
    }

    fn aim(&mut self, id: OpId) -> Option<Aim> {
        let (token, recv) = self.recv(id)?;
        let source = &recv.source.0;
        let remote = source.remote.filter(|_| !source.mixed.get());
        Some(Aim {
            id,
            token,
            fd: recv.source.raw(),
            remote,
            single: remote.is_some() && !source.trains.get(),
        })
    }

    /// Counts a look by plain calls, which weighs so much; true if it includes the sources where little is
    /// expected.
    pub(crate) fn is_turn_of_rare(&mut self, weight: u32) -> bool {
        self.looks += weight;
        let is_turn = self.looks >= RARE;
        if is_turn {
            self.looks = 0;
        }
        is_turn
    }

    pub(crate) fn is_rare(&mut self, id: OpId) -> bool {
        self.recv(id).is_some_and(|(_, recv)| recv.source.0.rare.get())
    }

    /// Receives by plain calls on one stream, `limit` times at most.
    pub(crate) fn receive_direct(&mut self, id: OpId, limit: usize, out: &mut Events) -> Drained {
        for _ in 0..limit {
            let Some(aim) = self.aim(id) else { return Drained::Ended };
            let Some(block) = self.pool.peek() else { return Drained::More };
            let result = aim.receive(&self.pool, block);
            if let Some(end) = self.received(&aim, block, result, out) {
                return end;
            }
        }
        Drained::More
    }

    /// Deals with what a receive into the next free block brought; how the round ends, if it does.
    fn received(
        &mut self,
        aim: &Aim,
        block: u16,
        result: io::Result<Option<Arrived>>,
        out: &mut Events,
    ) -> Option<Drained> {
        match result {
            Ok(Some(arrived)) => {
                let Some(buf) = self.pool.lease_free(block, arrived.start, arrived.len) else {
                    return Some(Drained::More);
                };
                self.stats.direct_receives += 1;
                self.stats.truncated += u64::from(arrived.truncated);
                let dgrams = Datagrams::new(arrived.from, buf, arrived.control, arrived.truncated);
                out.push(aim.token, aim.id, false, What::Dgrams(dgrams));
                if let Some((_, recv)) = self.recv(aim.id) {
                    recv.failures = 0;
                }
                None
            }
            Ok(None) => {
                if let Some((_, recv)) = self.recv(aim.id) {
                    recv.source.0.mixed.set(false);
                }
                Some(Drained::Empty)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => None,
            Err(e) => (!self.stream_error(aim.id, e, out)).then_some(Drained::Ended),
        }
    }

    /// A receive failed: collects what the network reported. False if the stream must end, which
    /// has then been done unless the kernel still holds it.
    pub(crate) fn stream_error(&mut self, id: OpId, error: io::Error, out: &mut Events) -> bool {
        self.stats.socket_errors += 1;
        let found = self.drain_errors(id, out);
        let Some((_, recv)) = self.recv(id) else { return false };
        // An error without a report is normal too: a send may have collected the report before.
        recv.failures = if found > 0 { 0 } else { recv.failures + 1 };
        if recv.failures < FAILURES_IN_ROW || recv.in_kernel {
            return true;
        }
        let what = What::Failed { error, done: 0, operands: Operands::None };
        self.end_stream(id, what, out);
        false
    }

    fn drain_errors(&mut self, id: OpId, out: &mut Events) -> usize {
        let Some((token, recv)) = self.recv(id) else { return 0 };
        let fd = recv.source.raw();
        let mut found = 0;
        while found < ERRORS_AT_ONCE {
            let Ok(Some(report)) = socket::receive_error(fd) else { break };
            found += 1;
            if let Some(report) = report {
                out.push(token, id, false, What::Error(report));
            }
        }
        self.stats.reports += found as u64;
        found
    }

    /// Takes reports off a source's error queue and keeps them for the next wait.
    pub(crate) fn stash_errors(&mut self, source: &Source) -> usize {
        let stream = self.stream_of(source);
        let mut found = 0;
        while found < ERRORS_AT_ONCE {
            let Ok(Some(report)) = socket::receive_error(source.raw()) else { break };
            found += 1;
            match (stream, report) {
                (Some(id), Some(report)) if self.stash.len() < STASH => self.stash.push_back((id, report)),
                _ => self.stats.reports_lost += 1,
            }
        }
        self.stats.reports += found as u64;
        found
    }

    /// Delivers kept reports.
    pub(crate) fn unstash(&mut self, out: &mut Events) {
        while let Some((id, report)) = self.stash.pop_front() {
            if let Some((token, _)) = self.recv(id) {
                out.push(token, id, false, What::Error(report));
            }
        }
    }

    /// Sends as many trains as the socket takes; an error is that of the first train.
    pub(crate) fn send_direct(&mut self, source: &Source, trains: &mut [Box<Train>]) -> io::Result<usize> {
        let mut class = source.0.class.get();
        for train in trains.iter() {
            if class.note(train.class()) && socket::set_class(&source.raw(), train.class()).is_ok() {
                class.set(train.class());
            }
        }
        source.0.class.set(class);
        // An error reported for an earlier datagram fails the next call on the socket once.
        let mut tries = 0;
        loop {
            let result = match &mut *trains {
                [] => return Ok(0),
                [one] => socket::send(source.raw(), one, Some(class.now())).map(|()| 1),
                many => socket::send_many(source.raw(), many, class.now(), &mut self.scratch),
            };
            let error = match result {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            tries += 1;
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(0),
                io::ErrorKind::Interrupted => {}
                _ if tries <= 4 && self.stash_errors(source) > 0 && !is_own_fault(&error) => {}
                _ => return Err(error),
            }
        }
    }
}

/// The error concerns the very datagram being sent, not an earlier one.
pub(crate) fn is_own_fault(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMSGSIZE | libc::EINVAL | libc::EIO | libc::EPERM | libc::EACCES)
    )
}

/// How a queued send ended.
#[derive(Debug)]
pub(crate) enum SendEnd {
    Sent,
    Failed(io::Error),
    Cancelled,
}
