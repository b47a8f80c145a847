//! The queue: operations in, events out.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::caps::{Attempt, BackendKind, Caps};
use crate::config::{Backend, Config, Spin, Wait};
use crate::core::{Core, InFlight, Recv, Send, SendEnd, Stats};
use crate::epoll::Epoll;
use crate::event::Events;
use crate::handle::{Handle, Shared};
use crate::op::{
    AdoptError, Cancel, Op, OpId, RecvMsg, Refusal, Rejected, SendMsg, SetupError, SocketClass, Source,
    SourceInner, Token, WaitError,
};
use crate::pool::Pool;
use crate::spin::Spinner;
use crate::sys::region::ForkGuard;
use crate::sys::{self, socket};
use crate::train::Train;
use crate::udp;
use crate::uring::Uring;

/// A gap between two looks longer than this means the thread was descheduled.
const DESCHEDULED: Duration = Duration::from_micros(200);
/// Looks between two readings of the clock.
const LOOKS_PER_CLOCK: u32 = 8;
/// Waits without a sleep after which the streams are taken out of the kernel.
const HOT: u32 = 64;
/// Trains received by plain calls in one wait when there were some the time before: more would save
/// little, and what they ask for would wait.
const BULK: usize = 2;
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
    backend: Engine,
    core: Core,
    caps: Caps,
    spinner: Spinner,
    guard: ForkGuard,
    next_key: u64,
    /// The last wait found something at once: there may be more, so take it in bulk.
    eager: bool,
    /// Times that looking paid off since the last sleep.
    hot: u32,
    _not_send: PhantomData<*mut ()>,
}

#[derive(Debug)]
enum Engine {
    Uring(Box<Uring>),
    Epoll(Box<Epoll>),
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
        let blocks = config.blocks.max(2).checked_next_power_of_two().ok_or("too many blocks")?;
        let core = Queue::core(config, blocks).map_err(|e| e.to_string())?;
        let (uring, setup) = Uring::new(config, &core)?;
        let caps = Caps {
            backend: BackendKind::Uring,
            kernel: sys::kernel(),
            attempts: Vec::new(),
            multishot_recvmsg: true,
            flags: setup.flags,
            registered_ring: setup.registered_ring,
        };
        Queue::assemble(Engine::Uring(Box::new(uring)), core, caps).map_err(|e| e.to_string())
    }

    fn with_epoll(config: &Config, mut attempts: Vec<Attempt>) -> Result<Queue, SetupError> {
        let made = Queue::core(config, 0).and_then(|core| {
            let epoll = Epoll::new(&core)?;
            Ok((core, epoll))
        });
        let caps = |attempts| Caps {
            backend: BackendKind::Epoll,
            kernel: sys::kernel(),
            attempts,
            multishot_recvmsg: false,
            flags: Vec::new(),
            registered_ring: false,
        };
        let queue = made.and_then(|(core, epoll)| {
            Queue::assemble(Engine::Epoll(Box::new(epoll)), core, caps(attempts.clone()))
        });
        queue.map_err(|e| {
            attempts.push(Attempt { backend: BackendKind::Epoll, reason: e.to_string() });
            SetupError { attempts }
        })
    }

    fn core(config: &Config, provided: u16) -> io::Result<Core> {
        let pool = Pool::new(provided, config.direct_blocks.max(2))?;
        Ok(Core::new(config.max_ops, config.max_events, pool, Shared::new()?))
    }

    fn assemble(backend: Engine, core: Core, caps: Caps) -> io::Result<Queue> {
        Ok(Queue {
            backend,
            core,
            caps,
            spinner: Spinner::new(),
            guard: ForkGuard::new()?,
            next_key: 0,
            eager: false,
            hot: 0,
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

    /// Takes over a datagram socket.
    ///
    /// # Errors
    /// It is not a datagram socket; the descriptor is then closed.
    pub fn adopt(&mut self, fd: impl Into<OwnedFd>) -> Result<Source, AdoptError> {
        let fd = fd.into();
        if socket::get(&fd, libc::SOL_SOCKET, libc::SO_TYPE).is_ok_and(|kind| kind != libc::SOCK_DGRAM) {
            return Err(AdoptError::NotDatagram);
        }
        sys::set_blocking(&fd)?;
        Ok(self.source(fd, None, true))
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
        let fd = udp::connect_beside(&source.0.fd, remote, options)?;
        sys::set_blocking(&fd)?;
        Ok(self.source(fd, Some(remote), options.gro))
    }

    /// Lets trains arrive whole at a socket that was opened without (`gro`). There is no way back:
    /// a train in the socket's queue could not be told from a datagram.
    ///
    /// # Errors
    /// The kernel does not know of trains.
    pub fn receive_trains(&mut self, source: &Source) -> io::Result<()> {
        // First this: a train must not meet the shorter call.
        source.0.trains.set(true);
        socket::set(&source.0.fd, libc::SOL_UDP, libc::UDP_GRO, 1)
    }

    fn source(&mut self, fd: OwnedFd, remote: Option<SocketAddr>, trains: bool) -> Source {
        self.next_key += 1;
        // Sockets without traffic classes are adopted too; it does not matter to them.
        let _ = socket::set_class(&fd, 0);
        let (class, sends) = (SocketClass::default().into(), VecDeque::new().into());
        let (mixed, trains, rare) = (true.into(), trains.into(), false.into());
        Source(Rc::new(SourceInner { fd, key: self.next_key, remote, mixed, trains, rare, class, sends }))
    }

    /// Starts an operation.
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
    /// [`SendMsg`]. Nothing leaves while such operations wait for room on this source.
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

    /// Asks for the end of an operation; its last event follows in any case.
    pub fn cancel(&mut self, id: OpId) -> Cancel {
        let cancelled = match self.core.ops.entry(id) {
            None => return Cancel::AlreadyDone,
            Some((_, InFlight::Recv(recv))) => &mut recv.cancelled,
            Some((_, InFlight::Send(send))) => &mut send.cancelled,
        };
        if std::mem::replace(cancelled, true) {
            return Cancel::Requested;
        }
        match &mut self.backend {
            Engine::Uring(uring) => uring.cancel(&mut self.core, id),
            Engine::Epoll(epoll) => epoll.cancel(id),
        }
        Cancel::Requested
    }

    /// Cancels every operation on a source. The socket is closed when their last events are out
    /// and the caller's clones of the source are gone.
    pub fn close(&mut self, source: Source) {
        let ids: Vec<OpId> =
            self.core.ops.iter().filter(|(_, op)| op.source().is(&source)).map(|(id, _)| id).collect();
        for id in ids {
            self.cancel(id);
        }
    }

    /// Number of operations whose last event is still to come.
    pub fn in_flight(&self) -> usize {
        self.core.ops.len()
    }

    /// Waits for events and appends them to `out`; returns how many, 0 when the deadline passed.
    ///
    /// # Errors
    /// The system refused to wait, or this is a forked child.
    pub fn wait(&mut self, out: &mut Events, wait: Wait) -> Result<usize, WaitError> {
        if self.guard.is_child() {
            return Err(WaitError::Forked);
        }
        let before = out.len();
        let disarmed = self.hot >= HOT;
        self.look(out, disarmed || wait.spin != Spin::Sleep)?;
        if out.len() > before {
            self.eager = true;
            self.core.stats.immediate += 1;
            return Ok(out.len() - before);
        }
        self.eager = false;
        let start = Instant::now();
        if disarmed && wait.until.is_some_and(|until| until <= start) {
            // The look was all there is; arming the streams would end being hot.
            return Ok(0);
        }
        let budget = self.spinner.budget(wait.spin);
        if !budget.is_zero() && self.look_for(budget, start, wait, out)? {
            return Ok(out.len() - before);
        }
        self.sleep(wait, budget.is_zero(), start, out)?;
        Ok(out.len() - before)
    }

    /// Looks again and again for `budget`. True if the wait is over.
    fn look_for(
        &mut self,
        budget: Duration,
        start: Instant,
        wait: Wait,
        out: &mut Events,
    ) -> Result<bool, WaitError> {
        let mut last = start;
        loop {
            if wait.until.is_some_and(|until| last >= until) {
                return Ok(true);
            }
            if last.saturating_duration_since(start) >= budget {
                self.core.stats.spins_vain += 1;
                self.spinner.in_vain();
                return Ok(false);
            }
            // Reading the clock takes a good part of the time of a look.
            for _ in 0..LOOKS_PER_CLOCK {
                std::hint::spin_loop();
                if self.glance(out)? {
                    self.core.stats.spins_paid += 1;
                    self.spinner.paid_off(wait.spin);
                    return self.on_hot().map(|()| true);
                }
            }
            let now = Instant::now();
            if now.saturating_duration_since(last) > DESCHEDULED && wait.spin != Spin::Spin {
                self.core.stats.preempted += 1;
                self.spinner.preempted();
                return Ok(false);
            }
            last = now;
        }
    }

    /// The shortest look that misses nothing: true if there are events.
    fn glance(&mut self, out: &mut Events) -> Result<bool, WaitError> {
        let more = match &mut self.backend {
            Engine::Uring(uring) => uring.wants_look(&self.core),
            Engine::Epoll(epoll) => epoll.wants_look(),
        };
        if more || self.core.shared.is_pending() {
            let before = out.len();
            self.look(out, true)?;
            return Ok(out.len() > before);
        }
        Ok(self.core.receive_each(out))
    }

    /// Looking paid off once more without a sleep in between.
    fn on_hot(&mut self) -> Result<(), WaitError> {
        self.hot += 1;
        if self.hot == HOT {
            match &mut self.backend {
                Engine::Uring(uring) => uring.disarm(&mut self.core),
                Engine::Epoll(epoll) => epoll.disarm(&mut self.core)?,
            }
        }
        Ok(())
    }

    fn sleep(&mut self, wait: Wait, fresh: bool, start: Instant, out: &mut Events) -> Result<(), WaitError> {
        let before = out.len();
        self.hot = 0;
        let mut now = start;
        loop {
            let timeout = wait.until.map(|until| until.saturating_duration_since(now));
            let asleep = timeout != Some(Duration::ZERO) && self.core.shared.prepare_sleep();
            let timeout = if asleep { timeout } else { Some(Duration::ZERO) };
            self.core.stats.sleeps += u64::from(asleep);
            let result = match &mut self.backend {
                Engine::Uring(uring) => uring.sleep(&mut self.core, timeout, out),
                Engine::Epoll(epoll) => epoll.sleep(&mut self.core, timeout, out),
            };
            if asleep {
                self.core.shared.end_sleep();
            }
            result?;
            if self.core.shared.take_pending() {
                out.woken();
            }
            now = Instant::now();
            if out.len() > before {
                if fresh {
                    self.spinner.slept(wait.spin, now.saturating_duration_since(start));
                }
                return Ok(());
            }
            if wait.until.is_some_and(|until| now >= until) {
                return Ok(());
            }
        }
    }

    /// Takes what is there. With `direct`, receives by plain calls too.
    fn look(&mut self, out: &mut Events, direct: bool) -> Result<(), WaitError> {
        if self.core.shared.take_pending() {
            out.woken();
        }
        self.core.unstash(out);
        match &mut self.backend {
            Engine::Uring(uring) => uring.look(&mut self.core, out)?,
            Engine::Epoll(epoll) => epoll.look(&mut self.core, out)?,
        }
        let limit = if self.eager { BULK } else { 1 };
        let rare = self.core.is_turn_of_rare();
        let mut at = 0;
        while let Some(&id) = self.core.streams.get(at) {
            let room = self.core.max_events.saturating_sub(out.len()).min(limit);
            let wanted = self.core.recv(id).is_some_and(|(_, recv)| recv.ready)
                || direct && (rare || !self.core.is_rare(id));
            if room > 0 && wanted && self.core.pool.has_free() {
                let drained = self.core.receive_direct(id, room, out);
                if let Some((_, recv)) = self.core.recv(id) {
                    recv.ready = recv.ready && drained == crate::core::Drained::More;
                }
            }
            // A stream that ended has left the list.
            at += usize::from(self.core.streams.get(at) == Some(&id));
        }
        Ok(())
    }

    /// Gives every operation its last event and lets go of all memory shared with the kernel.
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
            Engine::Epoll(_) => Ok(()),
        }
    }
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
        if let Err(leaked) = self.teardown(DROP_GRACE) {
            tracing::error!(%leaked, "queue dropped");
        }
    }
}

impl InFlight {
    pub(crate) fn source(&self) -> &Source {
        match self {
            InFlight::Recv(recv) => &recv.source,
            InFlight::Send(send) => &send.source,
        }
    }
}

impl Op for RecvMsg {
    fn start(self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<RecvMsg>> {
        let core = &mut queue.core;
        if core.stream_of(&self.source).is_some() {
            return Err(Rejected { op: self, why: Refusal::Invalid });
        }
        let recv = Recv {
            source: self.source,
            template: Box::new(socket::empty_message()),
            in_kernel: false,
            cancelled: false,
            ending: false,
            ready: true,
            failures: 0,
        };
        let id = core.ops.insert(token, InFlight::Recv(recv));
        core.streams.push(id);
        match &mut queue.backend {
            Engine::Uring(uring) => uring.start_stream(core, id),
            Engine::Epoll(epoll) => epoll.start_stream(id),
        }
        Ok(id)
    }
}

impl Op for SendMsg {
    fn start(self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<SendMsg>> {
        if self.train.packets() == 0 {
            return Err(Rejected { op: self, why: Refusal::Invalid });
        }
        let core = &mut queue.core;
        let SendMsg { source, train } = self;
        let send = Send { source: source.clone(), train, in_kernel: false, cancelled: false, failures: 0 };
        let id = core.ops.insert(token, InFlight::Send(send));
        core.stats.sends_queued += 1;
        core.sends_waiting += 1;
        let first = source.first_send().is_none();
        source.0.sends.borrow_mut().push_back(id);
        if first {
            match &mut queue.backend {
                Engine::Uring(uring) => uring.start_send(core, id),
                Engine::Epoll(epoll) => epoll.start_send(id),
            }
        }
        Ok(id)
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
