//! The io_uring backend: receives as multishot operations into a ring of provided blocks. Operations
//! made of system calls are in `uring/ops.rs`.
//!
//! What the kernel may touch is owned by the slab entry of the operation (templates, trains) or by
//! the pool (blocks) until the completion that ends the operation has been seen. `in_kernel` counts
//! the submissions without such a completion; teardown cancels and waits for it to reach zero, or
//! leaks.

mod blocks;
mod bufs;
mod files;
mod ops;
mod setup;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::arrival::Datagrams;
use crate::backend::Batch;
use crate::config::Config;
use crate::core::{Core, SendEnd, is_own_fault};
use crate::event::{Events, Operands, What};
use crate::op::OpId;
use crate::pool::{MULTISHOT_HEAD, NAME_ROOM};
use crate::queue::{Leaked, send_end};
use crate::sys;
use crate::sys::addr::{decode, unspecified};
use crate::sys::cmsg::RECV_ROOM;

use blocks::Blocks;
use bufs::Bufs;
use files::Files;
use setup::build;

/// Groups of provided blocks: for datagrams, for streams.
const GROUP: u16 = 0;
const STREAM_GROUP: u16 = 1;
/// Completions taken from the ring before they are looked at.
const BATCH: usize = 64;

/// Kinds of submissions, in the low byte of the user data.
const RECV: u64 = 1;
const SEND: u64 = 2;
const DOORBELL: u64 = 3;
const CANCEL: u64 = 4;
const TEST: u64 = 5;
const IO: u64 = 6;

fn user_data(id: OpId, kind: u64) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.slot) << 8 | kind
}

fn id_of(user_data: u64) -> OpId {
    OpId { slot: (user_data >> 8) as u32 & 0xff_ffff, generation: (user_data >> 32) as u32 }
}

/// What the set-up obtained.
pub(crate) struct Setup {
    pub(crate) flags: Vec<&'static str>,
    pub(crate) registered_ring: bool,
}

/// Why a ring cannot be used.
#[derive(Debug)]
pub(crate) enum Unfit {
    NoMemory(String),
    Other(String),
}

pub(crate) struct Uring {
    // Dropped first: closes the ring before its block ring goes.
    ring: IoUring,
    blocks: Blocks,
    stream_blocks: Blocks,
    files: Files,
    bufs: Bufs,
    /// Operations made of system calls that the kernel has.
    ios: usize,
    in_kernel: usize,
    /// Streams to arm at the next call into the ring.
    idle: Vec<OpId>,
    /// Streams to arm when blocks are back.
    starved: Vec<OpId>,
    doorbell_armed: bool,
    /// Operations the kernel was asked to end and has not ended.
    cancelling: usize,
    batch: Vec<(u64, i32, u32)>,
    /// The kernel says in shared memory when completions wait for a call.
    taskrun_flag: bool,
    /// It can wait for many completions for a while, then for one.
    min_timeout: bool,
    /// Every so many calls into the ring fail with this error number, for tests.
    #[cfg(test)]
    faults: Option<(u32, i32)>,
    #[cfg(test)]
    calls: u32,
}

impl Uring {
    /// Sets up a ring and tries it out.
    pub(crate) fn new(config: &Config, core: &Core) -> Result<(Uring, Setup), String> {
        let entries = config.entries.clamp(8, 4096);
        let blocks = u32::from(core.pool.provided()) + u32::from(core.stream_pool.provided());
        let enough = config.max_ops.saturating_add(blocks).saturating_mul(4).clamp(256, 1 << 16);
        let asked = if config.completions == 0 { enough } else { config.completions };
        let cq = asked.clamp(entries, 1 << 16).next_power_of_two();
        let mut cq = cq;
        loop {
            // The blocks are charged to the same limit as the ring: a smaller one leaves room for them.
            match Uring::at_level(config, core, build(entries, cq, 0)?) {
                Err(Unfit::NoMemory(_)) if cq / 2 >= entries.max(64) => cq /= 2,
                Err(Unfit::NoMemory(why) | Unfit::Other(why)) => return Err(why),
                Ok(made) => return Ok(made),
            }
        }
    }

    /// The rest of the set-up, with a ring and its flags.
    fn at_level(
        config: &Config,
        core: &Core,
        (ring, flags): (IoUring, Vec<&'static str>),
    ) -> Result<(Uring, Setup), Unfit> {
        let params = ring.params();
        if !(params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_fast_poll()) {
            let why = "kernel too old: NODROP, EXT_ARG or FAST_POLL is missing";
            return Err(Unfit::Other(why.into()));
        }
        let min_timeout = params.is_feature_min_timeout();
        let registered_ring = ring.submitter().register_ring_fd().is_ok();
        let register = |pool, group| {
            Blocks::register(&ring, pool, group).map_err(|e| {
                let why = format!("provided blocks: {e}");
                if e.raw_os_error() == Some(libc::ENOMEM) { Unfit::NoMemory(why) } else { Unfit::Other(why) }
            })
        };
        let blocks = register(&core.pool, GROUP)?;
        let stream_blocks = register(&core.stream_pool, STREAM_GROUP)?;
        let files = Files::register(&ring, config.registered);
        let bufs = Bufs::register(&ring, config.registered_bufs);
        // Bounded and unbounded workers; kernels that cannot be told have a limit of their own.
        let _ = ring.submitter().register_iowq_max_workers(&mut [config.workers.max(1); 2]);
        let mut uring = Uring {
            ring,
            blocks,
            stream_blocks,
            files,
            bufs,
            ios: 0,
            in_kernel: 0,
            idle: Vec::new(),
            starved: Vec::new(),
            doorbell_armed: false,
            cancelling: 0,
            batch: Vec::with_capacity(BATCH),
            min_timeout,
            taskrun_flag: flags.contains(&"TASKRUN_FLAG"),
            #[cfg(test)]
            faults: None,
            #[cfg(test)]
            calls: 0,
        };
        uring.stream_blocks.provide(&core.stream_pool);
        if let Err(e) = uring.self_test(core) {
            // Should the kernel hold a block still, the memory must stay.
            if uring.in_kernel > 0 {
                std::mem::forget((core.pool.clone(), core.stream_pool.clone()));
                std::mem::forget(uring);
            }
            return Err(Unfit::Other(format!("self-test: {e}")));
        }
        Ok((uring, Setup { flags, registered_ring }))
    }

    /// Has the ring write to an eventfd when something is to be done.
    pub(crate) fn tell_by_eventfd(&mut self) -> io::Result<OwnedFd> {
        let fd = sys::eventfd()?;
        self.ring.submitter().register_eventfd(fd.as_raw_fd())?;
        Ok(fd)
    }

    pub(crate) fn start_stream(&mut self, core: &mut Core, id: OpId) {
        if let Some((_, recv)) = core.recv(id) {
            recv.template.msg_namelen = NAME_ROOM as u32;
            recv.template.msg_controllen = RECV_ROOM;
        }
        self.idle.push(id);
    }

    pub(crate) fn start_send(&mut self, core: &mut Core, id: OpId) {
        let Some((_, send)) = core.send(id) else { return };
        if send.in_kernel {
            return;
        }
        send.in_kernel = true;
        let message = send.train.seal();
        let fd = Fd(send.source.raw());
        let entry = opcode::SendMsg::new(fd, message).flags(libc::MSG_NOSIGNAL as u32).build();
        self.push(core, entry.user_data(user_data(id, SEND)));
    }

    pub(crate) fn cancel(&mut self, core: &mut Core, id: OpId) {
        if core.io(id).is_some() {
            return self.cancel_io(core, id);
        }
        let kind = match (core.recv(id).map(|(_, r)| r.in_kernel), core.send(id).map(|(_, s)| s.in_kernel)) {
            (Some(true), _) => RECV,
            (_, Some(true)) => SEND,
            _ => {
                // Not known to the kernel: ended by the next look.
                self.idle.push(id);
                return;
            }
        };
        match (core.recv(id).map(|(_, recv)| std::mem::replace(&mut recv.ending, true)), kind) {
            (Some(true), _) => {}
            _ => self.ask_to_end(core, user_data(id, kind)),
        }
    }

    fn ask_to_end(&mut self, core: &mut Core, user_data: u64) {
        self.cancelling += 1;
        self.push_cancel(core, user_data);
    }

    fn push_cancel(&mut self, core: &mut Core, user_data: u64) {
        let builder = CancelBuilder::user_data(user_data);
        let own = (user_data & !0xff) | CANCEL;
        self.push(core, opcode::AsyncCancel2::new(builder).build().user_data(own));
    }

    /// A worker of the kernel had the operation in its hands when it was told to end it. A read of a file
    /// ends by itself; a socket may have been found empty just then, and is waited for from now on.
    fn cancel_again(&mut self, core: &mut Core, id: OpId) {
        let in_kernel = core.io(id).is_some_and(|io| io.ending && io.place == crate::io::Place::Kernel);
        if core.force_async && in_kernel {
            self.push_cancel(core, user_data(id, IO));
        }
    }

    pub(crate) fn disarm(&mut self, core: &mut Core) {
        for at in 0..core.streams.len() {
            let id = core.streams[at];
            let Some((_, recv)) = core.recv(id) else { continue };
            if recv.in_kernel && !std::mem::replace(&mut recv.ending, true) {
                self.ask_to_end(core, user_data(id, RECV));
            }
        }
    }

    /// Whether [`Uring::look`] has something to do.
    pub(crate) fn wants_look(&mut self, core: &Core) -> bool {
        let awaited = core.sends_waiting > 0 || self.cancelling > 0;
        if awaited || !self.ring.completion().is_empty() {
            return true;
        }
        let ios = self.ios > 0;
        let queue = self.ring.submission();
        !queue.is_empty() || (ios && queue.taskrun())
    }

    /// Handles completions already there. Calls into the ring only if sends, operations or
    /// cancellations wait for completion, the completion queue overflowed, or there is something to
    /// submit and no sleep is about to do it.
    pub(crate) fn look(&mut self, core: &mut Core, keen: bool, out: &mut Events) -> io::Result<()> {
        self.provide(core);
        let has_completions = !self.ring.completion().is_empty();
        let busy = keen || has_completions || !core.done.is_empty();
        let awaited = core.sends_waiting > 0 || self.cancelling > 0 || (keen && self.ios > 0);
        let queue = self.ring.submission();
        let overflow = queue.cq_overflow();
        let must_enter = overflow || (busy && !queue.is_empty()) || (awaited && queue.taskrun());
        drop(queue);
        if must_enter {
            core.stats.overflows += u64::from(overflow);
            self.enter(core, 0, None)?;
        }
        self.reap(core, out);
        self.settle(core, out);
        Ok(())
    }

    /// Waits for completions and handles them.
    pub(crate) fn sleep(
        &mut self,
        core: &mut Core,
        timeout: Option<Duration>,
        batch: Batch,
        out: &mut Events,
    ) -> io::Result<()> {
        let before = out.len();
        self.settle(core, out);
        self.provide(core);
        self.arm(core);
        let found = out.len() > before || !core.done.is_empty() || !core.starts.is_empty();
        let at_once = timeout == Some(Duration::ZERO) || found;
        if !at_once || self.kernel_has_work() {
            let batch = Batch { want: batch.want.clamp(1, self.ios.max(1)), ..batch };
            self.enter_for(core, (!at_once).then_some(batch), timeout)?;
        }
        self.reap(core, out);
        Ok(())
    }

    /// Whether a call into the ring would do anything without waiting.
    fn kernel_has_work(&mut self) -> bool {
        let flagged = self.taskrun_flag;
        let queue = self.ring.submission();
        !flagged || !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Ends cancelled operations that the kernel does not hold.
    fn settle(&mut self, core: &mut Core, out: &mut Events) {
        if self.idle.is_empty() {
            return;
        }
        self.idle.retain(|&id| match core.recv(id) {
            Some((_, recv)) if recv.cancelled && !recv.in_kernel => {
                core.end_stream(id, What::Cancelled { done: 0, operands: Operands::None }, out);
                false
            }
            Some(_) => true,
            None => {
                if core.send(id).is_some_and(|(_, send)| send.cancelled && !send.in_kernel) {
                    core.end_send(id, SendEnd::Cancelled, out);
                }
                false
            }
        });
    }

    /// Gives returned blocks to the kernel.
    fn provide(&mut self, core: &mut Core) {
        self.stream_blocks.provide(&core.stream_pool);
        // An empty group would fail a receive at once: wait for a quarter of the blocks.
        let enough = usize::from(core.stream_pool.provided());
        if !core.starved.is_empty() && self.stream_blocks.outstanding() * 4 >= enough {
            core.resume_starved();
        }
    }

    /// Gives returned blocks to the kernel and arms streams and doorbell.
    fn arm(&mut self, core: &mut Core) {
        self.blocks.provide(&core.pool);
        if !self.doorbell_armed {
            let fd = Fd(core.shared.eventfd.as_raw_fd());
            let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
            self.push(core, entry.user_data(DOORBELL));
            self.doorbell_armed = true;
        }
        // An empty group would fail a stream at once: wait for a quarter of the blocks.
        if !self.starved.is_empty() && self.blocks.outstanding() * 4 >= usize::from(core.pool.provided()) {
            self.idle.append(&mut self.starved);
        }
        while let Some(id) = self.idle.pop() {
            let Some((_, recv)) = core.recv(id) else { continue };
            if recv.in_kernel {
                continue;
            }
            recv.in_kernel = true;
            let entry =
                opcode::RecvMsgMulti::new(Fd(recv.source.raw()), &raw const *recv.template, GROUP).build();
            self.push(core, entry.user_data(user_data(id, RECV)));
        }
    }

    /// Queues a submission. Everything it points to is owned as described at the top.
    fn push(&mut self, core: &mut Core, entry: squeue::Entry) {
        self.in_kernel += 1;
        loop {
            // SAFETY: the entry's pointers lead to a template, train or boxed operation in a slab
            // entry that stays until the completion is seen, or to nothing; its descriptor is owned
            // by that entry's source or the shared state.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: hand over what is there. Errors are met again, and reported, by the next wait.
            if self.enter(core, 0, None).is_err() {
                std::thread::yield_now();
            }
        }
    }

    /// Submits what is queued and waits for `want` completions, at most for `timeout`.
    fn enter(&mut self, core: &mut Core, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.enter_for(core, (want > 0).then_some(Batch { want, window: Duration::ZERO }), timeout)
    }

    /// Submits what is queued and waits as told, at most for `timeout`.
    fn enter_for(
        &mut self,
        core: &mut Core,
        batch: Option<Batch>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        core.stats.enters += 1;
        #[cfg(test)]
        if let Some(errno) = self.fault() {
            return match errno {
                libc::ENOMEM => Err(io::Error::from_raw_os_error(errno)),
                _ => Ok(()),
            };
        }
        let submitter = self.ring.submitter();
        // More than one only if the kernel knows when to content itself with less.
        let (want, window) = match batch {
            Some(batch) if batch.want > 1 && self.min_timeout => (batch.want, batch.window),
            Some(_) => (1, Duration::ZERO),
            None => (0, Duration::ZERO),
        };
        let time = timeout.map(|timeout| Timespec::from(timeout.min(Duration::from_secs(1 << 40))));
        let args = SubmitArgs::new().min_wait_usec(u32::try_from(window.as_micros()).unwrap_or(u32::MAX));
        let result = match &time {
            Some(time) if want > 0 => submitter.submit_with_args(want, &args.timespec(time)),
            None if want > 1 => submitter.submit_with_args(want, &args),
            _ => submitter.submit_and_wait(want),
        };
        match result {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                // Time is up, a signal came, or the completion queue must be drained first: the
                // caller drains it, looks at its deadline and comes back.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Handles the completions in the queue, up to the number of events wanted.
    fn reap(&mut self, core: &mut Core, out: &mut Events) {
        loop {
            let room = core.max_events.saturating_sub(out.len() + core.done.len()).min(BATCH);
            let mut batch = std::mem::take(&mut self.batch);
            batch.extend(self.ring.completion().take(room).map(|c| (c.user_data(), c.result(), c.flags())));
            let count = batch.len();
            for (user_data, result, flags) in batch.drain(..) {
                self.complete(core, user_data, result, flags, out);
            }
            self.batch = batch;
            if count < BATCH {
                return;
            }
        }
    }

    fn complete(&mut self, core: &mut Core, user_data: u64, result: i32, flags: u32, out: &mut Events) {
        let more = cqueue::more(flags);
        self.in_kernel -= usize::from(!more);
        match user_data & 0xff {
            RECV => self.complete_recv(core, id_of(user_data), result, flags, out),
            SEND => self.complete_send(core, id_of(user_data), result, out),
            IO => self.complete_io(core, id_of(user_data), result, flags),
            DOORBELL => self.doorbell_armed = more,
            CANCEL if result == -libc::EALREADY => self.cancel_again(core, id_of(user_data)),
            // Otherwise its own result says nothing: the operation's last event does.
            CANCEL | TEST => {}
            _ => core.stats.stale += 1,
        }
    }

    fn complete_recv(&mut self, core: &mut Core, id: OpId, result: i32, flags: u32, out: &mut Events) {
        let more = cqueue::more(flags);
        let block = cqueue::buffer_select(flags);
        if block.is_some() {
            self.blocks.consumed();
        }
        let Some((_, recv)) = core.recv(id) else {
            core.stats.stale += 1;
            if let Some(block) = block {
                drop(core.pool.lease(block, 0, 0));
            }
            return;
        };
        recv.in_kernel = more;
        if !more && std::mem::replace(&mut recv.ending, false) {
            self.cancelling = self.cancelling.saturating_sub(1);
        }
        let cancelled = recv.cancelled;
        let mut starved = false;
        match (block, result) {
            (Some(block), 0..) => self.deliver(core, id, block, result as usize, out),
            (Some(block), _) => drop(core.pool.lease(block, 0, 0)),
            (None, 0..) => core.stats.stale += 1,
            (None, _) => {}
        }
        if result < 0 {
            match -result {
                libc::ENOBUFS => {
                    core.stats.no_buffers += 1;
                    starved = true;
                }
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                errno => drop(core.stream_error(id, io::Error::from_raw_os_error(errno), out)),
            }
        }
        if more || core.recv(id).is_none() {
            return;
        }
        if cancelled {
            core.end_stream(id, What::Cancelled { done: 0, operands: Operands::None }, out);
        } else if starved {
            self.starved.push(id);
        } else {
            core.stats.rearmed += 1;
            self.idle.push(id);
        }
    }

    fn deliver(&mut self, core: &mut Core, id: OpId, block: u16, len: usize, out: &mut Events) {
        let Some(buf) = core.pool.lease(block, 0, len) else {
            core.stats.stale += 1;
            return;
        };
        let Some((token, recv)) = core.recv(id) else { return };
        recv.failures = 0;
        let (from, control, payload, truncated) = match RecvMsgOut::parse(&buf, &recv.template) {
            Ok(head) => (
                decode(head.name_data()).unwrap_or(unspecified()),
                head.control_data().len(),
                head.payload_data().len(),
                head.is_payload_truncated(),
            ),
            Err(()) => {
                core.stats.stale += 1;
                return;
            }
        };
        core.stats.ring_receives += 1;
        core.stats.truncated += u64::from(truncated);
        let buf = buf.narrow(MULTISHOT_HEAD, payload);
        out.push(token, id, false, What::Dgrams(Datagrams::new(from, buf, control, truncated)));
    }

    fn complete_send(&mut self, core: &mut Core, id: OpId, result: i32, out: &mut Events) {
        let Some((_, send)) = core.send(id) else {
            core.stats.stale += 1;
            return;
        };
        send.in_kernel = false;
        send.failures += u32::from(result < 0);
        let (source, cancelled, failures) = (send.source.clone(), send.cancelled, send.failures);
        let outcome = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) };
        let again = match &outcome {
            Err(e) if cancelled || is_own_fault(e) => false,
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => true,
            // An error reported for an earlier datagram fails the next send once.
            Err(_) => failures <= 4 && core.stash_errors(&source) > 0,
            Ok(()) => false,
        };
        if again {
            self.start_send(core, id);
            return;
        }
        self.cancelling = self.cancelling.saturating_sub(usize::from(cancelled));
        core.end_send(id, send_end(outcome, cancelled), out);
        while let Some(next) = source.first_send() {
            let next_cancelled = core.send(next).is_some_and(|(_, send)| send.cancelled);
            if !next_cancelled {
                self.start_send(core, next);
                return;
            }
            core.end_send(next, SendEnd::Cancelled, out);
        }
    }

    /// Cancels everything and waits until the kernel has let go; leaks what it has not.
    pub(crate) fn teardown(&mut self, core: &mut Core, grace: Duration) -> Result<(), Leaked> {
        let deadline = Instant::now() + grace;
        core.cancel_all();
        let mut events = Events::default();
        let mut rounds = 0;
        while self.in_kernel > 0 {
            if rounds > 0 {
                core.reset_all_lingering();
            }
            rounds += 1;
            let all = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
            self.push(core, all.user_data(CANCEL));
            let round = deadline.min(Instant::now() + Duration::from_millis(100));
            while self.in_kernel > 0 {
                let left = round.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                if self.enter(core, 1, Some(left)).is_err() {
                    std::thread::yield_now();
                }
                self.reap(core, &mut events);
                events.drain().for_each(drop);
                core.done.clear();
            }
            if self.in_kernel > 0 && Instant::now() >= deadline {
                return Err(self.leak(core));
            }
        }
        Ok(())
    }

    fn leak(&mut self, core: &mut Core) -> Leaked {
        std::mem::forget((core.pool.clone(), core.stream_pool.clone()));
        std::mem::forget(Arc::clone(&core.shared));
        std::mem::forget(std::mem::replace(&mut core.ops, crate::slab::Slab::new(0)));
        self.blocks.leak();
        self.stream_blocks.leak();
        let leaked = Leaked { operations: self.in_kernel };
        self.in_kernel = 0;
        leaked
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("in_kernel", &self.in_kernel).finish_non_exhaustive()
    }
}
