//! The queue: operations in, events out.

mod wait;

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::Engine;
use crate::backend::epoll::Epoll;
use crate::backend::uring::Uring;
use crate::buf::IoBuf;
use crate::caps::{Attempt, BackendKind, Caps};
use crate::chain::Chain;
use crate::config::{Backend, Config};
use crate::core::{Core, InFlight, SendEnd, Stats};
use crate::handle::Handle;
use crate::io::{Io, Work};
use crate::op::socket::CloseMode;
use crate::op::{AdoptError, Cancel, Op, OpId, Refusal, Rejected, SetupError, Token};
use crate::pool::{Pool, STRIDE};
use crate::source::Source;
use crate::spin::Spinner;
use crate::sys;
use crate::sys::region::ForkGuard;
use crate::sys::socket;
use crate::train::Train;
use crate::udp;

/// How long dropping a queue waits for the kernel to let go of its memory.
const DROP_GRACE: Duration = Duration::from_secs(2);

/// One thread's completion queue.
///
/// ```
/// use peyk_kevent::{Config, Queue, RecvMsg, SendMsg, Token, Train, Events, Wait, What, udp};
/// let mut queue = Queue::new(Config::default())?;
/// let bound = udp::bind("127.0.0.1:0".parse()?, &udp::Options::default())?;
/// let local = bound.local;
/// let source = queue.adopt(bound.fd)?;
/// queue.submit(Token(1), RecvMsg { source: source.clone() }).map_err(|r| r.why)?;
/// let mut train = Train::new();
/// train.start(local, 0);
/// train.push(b"header", b"payload".to_vec().into()).map_err(|_| "too long")?;
/// queue.submit(Token(2), SendMsg { source, train }).map_err(|r| r.why)?;
/// let mut events = Events::with_capacity(16);
/// let mut got = Vec::new();
/// while got.is_empty() {
///     queue.wait(&mut events, Wait::forever())?;
///     for event in events.drain() {
///         if let What::Dgrams(dgrams) = event.what {
///             got.extend(dgrams.iter().map(<[u8]>::to_vec));
///         }
///     }
/// }
/// assert_eq!(got, [b"headerpayload"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Queue {
    // Dropped before `core`: the kernel lets go of memory before the memory goes.
    pub(crate) backend: Engine,
    core: Core,
    caps: Caps,
    spinner: Spinner,
    guard: ForkGuard,
    /// io_uring as a guest of another loop: told by the ring when something is to be done there.
    guest: Option<Guest>,
    /// The last wait found something at once: there may be more, so take it in bulk.
    eager: bool,
    /// Times that looking paid off since the last sleep.
    hot: u32,
    /// Waits that ended without asking the kernel, since one that did.
    unasked: u32,
    _not_send: PhantomData<*mut ()>,
}

impl Queue {
    /// Makes a queue for the calling thread.
    ///
    /// # Errors
    /// No backend (or not the one asked for) can be used; every attempt is listed.
    pub fn new(config: Config) -> Result<Queue, SetupError> {
        let mut attempts = Vec::new();
        let wish = match std::env::var("PEYK_BACKEND").as_deref() {
            Ok("epoll") => Backend::Epoll,
            Ok("uring") => Backend::Uring,
            Ok("auto") => Backend::Auto,
            _ => config.backend,
        };
        if wish != Backend::Epoll {
            match Queue::with_uring(&config) {
                Ok(queue) => return Ok(queue),
                Err(reason) => attempts.push(Attempt { backend: BackendKind::Uring, reason }),
            }
        } else {
            attempts.push(Attempt { backend: BackendKind::Uring, reason: "epoll was asked for".into() });
        }
        if wish == Backend::Uring {
            return Err(SetupError { attempts });
        }
        Queue::with_epoll(&config, attempts)
    }

    fn with_uring(config: &Config) -> Result<Queue, String> {
        let round = |blocks: u16| blocks.max(2).checked_next_power_of_two().ok_or("too many blocks");
        let (blocks, stream_blocks) = (round(config.blocks)?, round(config.stream_blocks)?);
        let core = Queue::make_core(config, blocks, stream_blocks).map_err(|e| e.to_string())?;
        let (uring, setup) = Uring::new(config, &core)?;
        let caps = Caps {
            backend: BackendKind::Uring,
            kernel: sys::kernel(),
            attempts: Vec::new(),
            multishot_recvmsg: true,
            flags: setup.flags,
            registered_ring: setup.registered_ring,
            zero_copy: true,
        };
        Queue::assemble(Engine::Uring(Box::new(uring)), core, caps).map_err(|e| e.to_string())
    }

    fn with_epoll(config: &Config, mut attempts: Vec<Attempt>) -> Result<Queue, SetupError> {
        let made = Queue::make_core(config, 0, 0).and_then(|core| {
            let epoll = Epoll::new(&core, config.workers)?;
            Ok((core, epoll))
        });
        let caps = |attempts| Caps {
            backend: BackendKind::Epoll,
            kernel: sys::kernel(),
            attempts,
            multishot_recvmsg: false,
            flags: Vec::new(),
            registered_ring: false,
            zero_copy: false,
        };
        let queue = made.and_then(|(core, epoll)| {
            Queue::assemble(Engine::Epoll(Box::new(epoll)), core, caps(attempts.clone()))
        });
        queue.map_err(|e| {
            attempts.push(Attempt { backend: BackendKind::Epoll, reason: e.to_string() });
            SetupError { attempts }
        })
    }

    fn make_core(config: &Config, blocks: u16, stream_blocks: u16) -> io::Result<Core> {
        let pool = Pool::new(STRIDE, blocks, config.direct_blocks.max(2))?;
        let stride = (config.stream_block.max(1) as usize).next_multiple_of(4096);
        // Streams are received by one way or the other, never both.
        let direct = if stream_blocks == 0 { config.stream_blocks.max(2) } else { 0 };
        let stream_pool = Pool::new(stride, stream_blocks, direct)?;
        Core::new(config, pool, stream_pool)
    }

    fn assemble(backend: Engine, core: Core, caps: Caps) -> io::Result<Queue> {
        Ok(Queue {
            backend,
            core,
            caps,
            spinner: Spinner::new(),
            guard: ForkGuard::new()?,
            guest: None,
            eager: false,
            hot: 0,
            unasked: 0,
            _not_send: PhantomData,
        })
    }

    /// Which backend runs, and why.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.core.stats
    }

    /// A handle by which other threads wake this queue.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.core.shared))
    }

    /// Takes over a descriptor and finds out what it is. Its `O_NONBLOCK` is cleared.
    ///
    /// # Errors
    /// The system does not say; the descriptor is then closed.
    pub fn adopt(&mut self, fd: impl Into<OwnedFd>) -> Result<Source, AdoptError> {
        Ok(Source::adopt(fd.into())?)
    }

    /// Makes a source known to the ring, which saves some work in each operation on it: worth it for
    /// sources that are used often and kept. False if there is no place (see
    /// [`Config::registered`]) or no ring. The place is free again when the source is closed by
    /// [`Close`](crate::Close); until then the descriptor stays open.
    pub fn register(&mut self, source: &Source) -> bool {
        match &mut self.backend {
            Engine::Uring(uring) => source.raw() >= 0 && uring.register(source),
            Engine::Epoll(_) => false,
        }
    }

    /// Makes a buffer known to the ring, which pins its pages once instead of in each read of a file
    /// into it: worth it for buffers that are used again and again for direct access. The pages count
    /// against what the process may lock. False if there is no place (see
    /// [`Config::registered_bufs`]), no ring, too little lockable memory, or the buffer is not of
    /// [`IoBuf::aligned`]; it serves as before then. The place is free again by
    /// [`Queue::forget_buf`], not by dropping the buffer: until then its pages stay with the ring.
    pub fn register_buf(&mut self, buf: &mut IoBuf) -> bool {
        match &mut self.backend {
            Engine::Uring(uring) => uring.register_buf(buf),
            Engine::Epoll(_) => false,
        }
    }

    /// Undoes [`Queue::register_buf`]; the buffer stays what it is. Nothing happens if another queue
    /// knows it, or none.
    pub fn forget_buf(&mut self, buf: &mut IoBuf) {
        if let Engine::Uring(uring) = &mut self.backend {
            uring.forget_buf(buf);
        }
    }

    /// Opens a UDP socket beside `source`: at the same local address, but for one host only.
    /// Datagrams from there arrive at the new socket from now on, and sending them there by it
    /// ([`Train::start_connected`]) costs less, for the kernel need not look for the way each time.
    /// Without `options.gro`, receiving costs less as well, but trains arrive as single datagrams.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `connect`; `source` is as before.
    pub fn connect_beside(
        &mut self,
        source: &Source,
        remote: SocketAddr,
        options: &udp::Options,
    ) -> io::Result<Source> {
        let fd = udp::connect_beside(source.raw(), remote, options)?;
        Source::adopt_connected(fd, remote, options.gro)
    }

    /// Lets trains arrive whole at a socket that was opened without (`gro`). There is no way back:
    /// a train in the socket's queue could not be told from a datagram.
    ///
    /// # Errors
    /// The kernel does not know of trains.
    pub fn receive_trains(&mut self, source: &Source) -> io::Result<()> {
        // First this: a train must not meet the shorter call.
        source.0.trains.set(true);
        socket::set(&source.raw(), libc::SOL_UDP, libc::UDP_GRO, 1)
    }

    /// Starts an operation. What can be done at once is; the rest is handed to the kernel by the next
    /// [`Queue::wait`] or [`Queue::flush`], so that a batch of submissions costs one call.
    ///
    /// # Errors
    /// The operation is refused and given back; nothing has happened.
    pub fn submit<O: Op>(&mut self, token: Token, op: O) -> Result<OpId, Rejected<O>> {
        if self.guard.is_child() {
            return Err(Rejected { op, why: Refusal::Forked });
        }
        if self.core.ops.is_full() {
            return Err(Rejected { op, why: Refusal::Full });
        }
        op.start(self, token)
    }

    /// Sends trains in order as far as the socket takes them now, without an operation: returns
    /// how many left. The rest is still the caller's, to be tried later or submitted as
    /// [`SendMsg`](crate::SendMsg). Nothing leaves while such operations wait for room on this source.
    ///
    /// # Errors
    /// The first train cannot be sent: its size, its destination. Errors that concern datagrams
    /// sent earlier become [`What::Error`](crate::What::Error) events instead.
    pub fn send_now(&mut self, source: &Source, trains: &mut [Box<Train>]) -> io::Result<usize> {
        if source.first_send().is_some() {
            return Ok(0);
        }
        self.core.send_direct(source, trains)
    }

    /// Starts linked operations; see [`Chain`]. Either all are accepted or none.
    ///
    /// # Errors
    /// There is no room for all, or one of them has no end of its own.
    pub fn submit_chain(&mut self, mut chain: Chain) -> Result<Vec<OpId>, Rejected<Chain>> {
        let why = if self.guard.is_child() {
            Some(Refusal::Forked)
        } else if !chain.is_valid() {
            Some(Refusal::Invalid)
        } else if self.core.ops.room() < chain.steps.len() {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(why) = why {
            return Err(Rejected { op: chain, why });
        }
        let mut ids: Vec<OpId> = Vec::with_capacity(chain.steps.len());
        for (token, mut io) in chain.steps.drain(..) {
            io.link.held = !ids.is_empty();
            let id = self.core.insert(token, io);
            if let Some(before) = ids.last().and_then(|before| self.core.io(*before)) {
                before.link.next = Some(id);
            }
            ids.push(id);
        }
        if let Some(first) = ids.first() {
            self.core.start(*first);
        }
        self.pump();
        Ok(ids)
    }

    /// Asks for the end of an operation; its last event follows in any case.
    pub fn cancel(&mut self, id: OpId) -> Cancel {
        let cancelled = match self.core.ops.entry(id) {
            None => return Cancel::AlreadyDone,
            Some((_, InFlight::Recv(recv))) => &mut recv.cancelled,
            Some((_, InFlight::Send(send))) => &mut send.cancelled,
            // Closing cannot be called off.
            Some((_, InFlight::Io(io))) if matches!(io.work, Work::Close(_)) => return Cancel::Requested,
            Some((_, InFlight::Io(io))) => &mut io.cancelled,
            Some((_, InFlight::Timer(_))) => {
                self.core.cancel_timer(id);
                return Cancel::Requested;
            }
            Some((_, InFlight::Future(_))) => {
                self.core.cancel_future(id);
                return Cancel::Requested;
            }
        };
        if std::mem::replace(cancelled, true) {
            return Cancel::Requested;
        }
        self.backend.cancel(&mut self.core, id);
        self.pump();
        Cancel::Requested
    }

    /// Cancels every operation on a source.
    pub fn cancel_source(&mut self, source: &Source) {
        let mut ids: Vec<OpId> = source.0.ops.borrow().clone();
        ids.extend(source.0.sends.borrow().iter().copied());
        ids.extend(self.core.stream_of(source));
        for id in ids {
            self.cancel(id);
        }
    }

    /// Cancels every operation on a source. The descriptor is closed when their last events are out
    /// and the caller's clones of the source are gone; [`Close`](crate::Close) closes it whoever
    /// holds it, and says when.
    pub fn close(&mut self, source: Source) {
        self.cancel_source(&source);
    }

    /// Number of operations whose last event is still to come.
    pub fn in_flight(&self) -> usize {
        self.core.ops.len() - usize::from(self.core.timers.clock_op.is_some())
    }

    /// Blocks for streams that are leased out at this moment.
    pub fn leased_blocks(&self) -> usize {
        self.core.stream_pool.leased()
    }

    /// Threads this queue has started to work on files; those of the kernel are not among them.
    pub fn worker_threads(&self) -> usize {
        match &self.backend {
            Engine::Uring(_) => 0,
            Engine::Epoll(epoll) => epoll.worker_threads(),
        }
    }

    /// Hands submitted operations to the kernel without waiting. [`Queue::wait`] does it, too.
    ///
    /// # Errors
    /// The system refused; the operations are handed over by the next wait.
    pub fn flush(&mut self) -> io::Result<()> {
        self.pump();
        match &mut self.backend {
            Engine::Uring(uring) => uring.flush(&mut self.core),
            Engine::Epoll(_) => Ok(()),
        }
    }

    /// A descriptor for another event loop to watch: it is readable when a wait might find
    /// something. The other loop also has to call [`Queue::wait`] (with [`Wait::now`], until it
    /// finds nothing) before it first sleeps, when the descriptor is readable, after submitting, and
    /// at [`Queue::next_deadline`].
    ///
    /// [`Wait::now`]: crate::Wait::now
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn guest_fd(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.guest.is_none() {
            self.guest = Some(match &mut self.backend {
                Engine::Uring(uring) => Guest::Told(uring.tell_by_eventfd()?),
                Engine::Epoll(_) => Guest::Watched,
            });
        }
        match (&self.guest, &self.backend) {
            (Some(Guest::Told(fd)), _) => Ok(fd.as_fd()),
            (_, Engine::Epoll(epoll)) => Ok(epoll.as_fd()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// When the next timer goes off.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.core.timers.next()
    }

    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    pub(crate) fn start_stream(&mut self, id: OpId) {
        self.backend.start_stream(&mut self.core, id);
    }

    pub(crate) fn start_send(&mut self, id: OpId) {
        self.backend.start_send(&mut self.core, id);
    }

    /// Memory for an operation.
    pub(crate) fn spare_io(&mut self) -> Box<Io> {
        self.core.spares.pop().unwrap_or_else(Io::new)
    }

    pub(crate) fn keep_spare(&mut self, io: Box<Io>) {
        self.core.keep_spare(io);
    }

    /// Starts a prepared operation.
    pub(crate) fn launch(&mut self, token: Token, io: Box<Io>) -> OpId {
        let closes = matches!(io.work, Work::Close(_)).then(|| io.source.clone()).flatten();
        let id = self.core.insert(token, io);
        if let Some(source) = closes {
            source.0.closing.set(Some(id));
        }
        self.core.start(id);
        self.pump();
        id
    }

    /// Runs the operations that can go on, until none can.
    fn pump(&mut self) {
        // What runs long is put at the end: each gets one turn.
        for _ in 0..self.core.starts.len() {
            let Some(id) = self.core.starts.pop_front() else { return };
            match self.core.io(id).map(|io| &io.work) {
                Some(Work::Close(closing)) => {
                    let mode = closing.0;
                    self.drive_close(id, mode);
                }
                Some(_) => self.backend.run(&mut self.core, id),
                None => {}
            }
        }
    }

    /// Closes a source as soon as nothing is in flight on it.
    fn drive_close(&mut self, id: OpId, mode: CloseMode) {
        let Some(source) = self.core.io(id).and_then(|io| io.source.clone()) else { return };
        if mode == CloseMode::Graceful && !source.0.out.borrow().is_empty() {
            return;
        }
        let mut others: Vec<OpId> = source.0.ops.borrow().iter().copied().filter(|op| *op != id).collect();
        others.extend(source.0.sends.borrow().iter().copied());
        others.extend(self.core.stream_of(&source));
        for other in &others {
            let uncancelled = match self.core.ops.entry(*other) {
                Some((_, InFlight::Recv(recv))) => !recv.cancelled,
                Some((_, InFlight::Send(send))) => !send.cancelled,
                Some((_, InFlight::Io(io))) => !io.cancelled,
                _ => false,
            };
            if uncancelled {
                self.cancel(*other);
            }
            if mode == CloseMode::Abort {
                self.core.reset_lingering(*other);
            }
        }
        if source.0.ops.borrow().len() > 1
            || !source.0.sends.borrow().is_empty()
            || self.core.stream_of(&source).is_some()
        {
            return;
        }
        self.backend.forget(&source);
        source.close_fd();
        self.core.finish(id, crate::event::What::Closed);
    }

    /// Ends every operation and lets go of all memory shared with the kernel. Connections with
    /// zero-copy sends that the peer does not take in the meantime are reset.
    ///
    /// # Errors
    /// The kernel still holds memory after `grace`; that memory is leaked, never freed.
    pub fn shutdown(mut self, grace: Duration) -> Result<(), Leaked> {
        self.teardown(grace)
    }

    fn teardown(&mut self, grace: Duration) -> Result<(), Leaked> {
        if self.guard.is_child() {
            return Ok(());
        }
        match &mut self.backend {
            Engine::Uring(uring) => uring.teardown(&mut self.core, grace),
            Engine::Epoll(epoll) => {
                if epoll.settle_workers(&mut self.core, Instant::now() + grace) {
                    return Ok(());
                }
                let operations = self.core.ops.len();
                std::mem::forget(std::mem::replace(&mut self.core.ops, crate::slab::Slab::new(0)));
                Err(Leaked { operations })
            }
        }
    }
}

/// How another loop learns of this queue.
#[derive(Debug)]
enum Guest {
    /// It watches epoll's own descriptor.
    Watched,
    /// It watches an eventfd that the ring writes to: the ring's own descriptor says nothing of work
    /// that is left to the thread.
    Told(OwnedFd),
}

/// The kernel did not let go of some memory in time; it stays allocated for ever.
#[derive(Debug, thiserror::Error)]
#[error("{operations} operations still held by the kernel; their memory is leaked")]
pub struct Leaked {
    /// Operations without a last event.
    pub operations: usize,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.core.shared.close();
        if let Err(leaked) = self.teardown(DROP_GRACE) {
            tracing::error!(%leaked, "queue dropped");
        }
    }
}

impl InFlight {
    pub(crate) fn source(&self) -> Option<&Source> {
        match self {
            InFlight::Recv(recv) => Some(&recv.source),
            InFlight::Send(send) => Some(&send.source),
            InFlight::Io(io) => io.source.as_ref(),
            InFlight::Timer(_) | InFlight::Future(_) => None,
        }
    }
}

/// What a finished send call means for its operation.
pub(crate) fn send_end(result: io::Result<()>, cancelled: bool) -> SendEnd {
    match result {
        Ok(()) => SendEnd::Sent,
        Err(e) if e.raw_os_error() == Some(libc::ECANCELED) && cancelled => SendEnd::Cancelled,
        Err(e) => SendEnd::Failed(e),
    }
}
