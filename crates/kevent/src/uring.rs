//! The io_uring backend: receives as multishot operations into a ring of provided blocks.
//!
//! What the kernel may touch is owned by the slab entry of the operation (templates, trains) or by
//! the pool (blocks) until the completion that ends the operation has been seen. `in_kernel` counts
//! the submissions without such a completion; teardown cancels and waits for it to reach zero, or
//! leaks.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use peyk_sockbuf::Payload;

use crate::config::Config;
use crate::core::{Core, SendEnd, is_own_fault};
use crate::event::{Datagrams, Events, What};
use crate::op::OpId;
use crate::pool::{MULTISHOT_HEAD, NAME_ROOM, Pool, STRIDE};
use crate::queue::{Leaked, send_end};
use crate::sys::addr::{decode, unspecified};
use crate::sys::cmsg::{RECV_ROOM, gro_segment};
use crate::sys::region::Region;
use crate::sys::socket;

/// The only group of provided blocks.
const GROUP: u16 = 0;
/// Completions taken from the ring before they are looked at.
const BATCH: usize = 64;

/// Kinds of submissions, in the low byte of the user data.
const RECV: u64 = 1;
const SEND: u64 = 2;
const DOORBELL: u64 = 3;
const CANCEL: u64 = 4;
const TEST: u64 = 5;

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

pub(crate) struct Uring {
    // Dropped first: closes the ring before its block ring goes.
    ring: IoUring,
    blocks: Blocks,
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
}

impl Uring {
    /// Sets up a ring and tries it out.
    pub(crate) fn new(config: &Config, core: &Core) -> Result<(Uring, Setup), String> {
        let cq =
            (4 * (config.max_ops + u32::from(core.pool.provided()))).clamp(256, 1 << 16).next_power_of_two();
        let (ring, flags) = build(config.entries.clamp(8, 4096), cq)?;
        let params = ring.params();
        if !(params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_fast_poll()) {
            return Err("kernel too old: NODROP, EXT_ARG or FAST_POLL is missing".into());
        }
        let registered_ring = ring.submitter().register_ring_fd().is_ok();
        let blocks = Blocks::register(&ring, &core.pool).map_err(|e| format!("provided blocks: {e}"))?;
        let mut uring = Uring {
            ring,
            blocks,
            in_kernel: 0,
            idle: Vec::new(),
            starved: Vec::new(),
            doorbell_armed: false,
            cancelling: 0,
            batch: Vec::with_capacity(BATCH),
            taskrun_flag: flags.contains(&"TASKRUN_FLAG"),
        };
        if let Err(e) = uring.self_test(core) {
            // Should the kernel hold a block still, the memory must stay.
            if uring.in_kernel > 0 {
                std::mem::forget(core.pool.clone());
                std::mem::forget(uring);
            }
            return Err(format!("self-test: {e}"));
        }
        Ok((uring, Setup { flags, registered_ring }))
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
        let builder = CancelBuilder::user_data(user_data);
        self.push(core, opcode::AsyncCancel2::new(builder).build().user_data(CANCEL));
    }

    /// Takes the streams out of the kernel until the next sleep: an armed stream makes every
    /// arriving datagram pay for a wake-up that nobody needs.
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
        awaited || !self.ring.completion().is_empty() || !self.ring.submission().is_empty()
    }

    /// Handles completions already there. Calls into the ring only if something was submitted, sends
    /// or cancellations wait for completion, or the completion queue overflowed.
    pub(crate) fn look(&mut self, core: &mut Core, out: &mut Events) -> io::Result<()> {
        let queue = self.ring.submission();
        let overflow = queue.cq_overflow();
        let awaited = core.sends_waiting > 0 || self.cancelling > 0;
        let must_enter = overflow || !queue.is_empty() || (awaited && queue.taskrun());
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
        out: &mut Events,
    ) -> io::Result<()> {
        self.settle(core, out);
        self.arm(core);
        let at_once = timeout == Some(Duration::ZERO) || !out.is_empty();
        if !at_once || self.kernel_has_work() {
            self.enter(core, usize::from(!at_once), timeout)?;
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
                core.end_stream(id, What::Cancelled(None), out);
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
            // SAFETY: the entry's pointers lead to a template or train in a slab entry that stays
            // until the completion is seen, or to nothing; its descriptor is owned by that entry's
            // source or the shared state.
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
        core.stats.enters += 1;
        let submitter = self.ring.submitter();
        let result = match timeout {
            Some(timeout) if want > 0 => {
                let time = Timespec::from(timeout.min(Duration::from_secs(1 << 40)));
                submitter.submit_with_args(want, &SubmitArgs::new().timespec(&time))
            }
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
            let room = core.max_events.saturating_sub(out.len()).min(BATCH);
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
            DOORBELL => self.doorbell_armed = more,
            // A cancellation's own result says nothing: the operation's last event does.
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
            core.end_stream(id, What::Cancelled(None), out);
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
        let (from, segment, payload, truncated) = match RecvMsgOut::parse(&buf, &recv.template) {
            Ok(head) => (
                decode(head.name_data()).unwrap_or(unspecified()),
                gro_segment(head.control_data()),
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
        out.push(token, id, false, What::Dgrams(Datagrams { from, buf, segment, truncated }));
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

    /// Receives one datagram as a stream does, and cancels it: the op codes being there says
    /// nothing about what they can do.
    fn self_test(&mut self, core: &Core) -> io::Result<()> {
        let (ours, theirs) = socket::pair()?;
        let mut template = Box::new(socket::empty_message());
        template.msg_namelen = NAME_ROOM as u32;
        template.msg_controllen = RECV_ROOM;
        self.blocks.provide(&core.pool);
        let mut train = crate::train::Train::new();
        train.start(unspecified(), 0);
        train.push(b"self-test", Payload::new()).map_err(|_| io::ErrorKind::InvalidInput)?;
        socket::send(theirs.as_raw_fd(), &mut train, None)?;
        let receive = opcode::RecvMsgMulti::new(Fd(ours.as_raw_fd()), &raw const *template, GROUP).build();
        self.test_push(&receive.user_data(TEST))?;
        let seen = self.test_reap(1)?;
        let verdict = match seen.first() {
            Some(&(TEST, result, flags)) if result >= 0 && cqueue::more(flags) => {
                self.test_content(core, result as usize, flags, &template)
            }
            Some(&(_, result, _)) if result < 0 => Err(io::Error::from_raw_os_error(-result)),
            _ => Err(io::Error::other("multishot recvmsg did not stay armed")),
        };
        if self.in_kernel > 0 {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(TEST)).build();
            self.test_push(&cancel.user_data(CANCEL))?;
            self.test_reap(2)?;
        }
        if self.in_kernel > 0 {
            std::mem::forget((template, ours, theirs));
            return Err(io::Error::other("a cancelled operation did not end"));
        }
        verdict
    }

    fn test_content(
        &mut self,
        core: &Core,
        len: usize,
        flags: u32,
        template: &libc::msghdr,
    ) -> io::Result<()> {
        let block = cqueue::buffer_select(flags).ok_or_else(|| io::Error::other("no block was used"))?;
        self.blocks.consumed();
        let buf = core.pool.lease(block, 0, len).ok_or_else(|| io::Error::other("not a block of ours"))?;
        match RecvMsgOut::parse(&buf, template) {
            Ok(head) if head.payload_data() == b"self-test" => Ok(()),
            _ => Err(io::Error::other("multishot recvmsg delivered something else")),
        }
    }

    fn test_push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the template and sockets live in `self_test` until the completion was seen, or
        // are leaked there.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::Error::other("submission queue full"))?;
        self.in_kernel += 1;
        Ok(())
    }

    fn test_reap(&mut self, want: usize) -> io::Result<Vec<(u64, i32, u32)>> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut seen = Vec::new();
        while seen.len() < want && Instant::now() < deadline {
            let time = Timespec::from(Duration::from_millis(100));
            match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time)) {
                Ok(_) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
                Err(e) => return Err(e),
            }
            for c in self.ring.completion() {
                self.in_kernel -= usize::from(!cqueue::more(c.flags()));
                seen.push((c.user_data(), c.result(), c.flags()));
            }
        }
        Ok(seen)
    }

    /// Cancels everything and waits until the kernel has let go; leaks what it has not.
    pub(crate) fn teardown(&mut self, core: &mut Core, grace: Duration) -> Result<(), Leaked> {
        let deadline = Instant::now() + grace;
        core.cancel_all();
        let mut events = Events::default();
        while self.in_kernel > 0 {
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
            }
            if self.in_kernel > 0 && Instant::now() >= deadline {
                return Err(self.leak(core));
            }
        }
        Ok(())
    }

    fn leak(&mut self, core: &mut Core) -> Leaked {
        std::mem::forget(core.pool.clone());
        std::mem::forget(Arc::clone(&core.shared));
        std::mem::forget(std::mem::replace(&mut core.ops, crate::slab::Slab::new(0)));
        self.blocks.leak();
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

/// Builds the ring with the most useful flags the kernel takes.
fn build(entries: u32, cq: u32) -> Result<(IoUring, Vec<&'static str>), String> {
    let mut last = String::new();
    for attempt in 0..4 {
        let mut builder = IoUring::builder();
        let mut flags = vec!["CQSIZE"];
        builder.setup_cqsize(cq);
        if attempt < 3 {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            flags.extend(["COOP_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL"]);
        }
        if attempt < 2 {
            builder.setup_single_issuer().setup_defer_taskrun();
            flags.extend(["SINGLE_ISSUER", "DEFER_TASKRUN"]);
        }
        if attempt < 1 {
            builder.setup_no_sqarray();
            flags.push("NO_SQARRAY");
        }
        match builder.build(entries) {
            Ok(ring) => return Ok((ring, flags)),
            Err(e) => {
                last = format!("io_uring_setup: {e}");
                if e.raw_os_error() != Some(libc::EINVAL) {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// The ring through which blocks are provided to the kernel.
struct Blocks {
    region: Option<Region>,
    tail: u16,
    mask: u16,
    /// Blocks the kernel has and has not used.
    provided: usize,
}

impl Blocks {
    fn register(ring: &IoUring, pool: &Pool) -> io::Result<Blocks> {
        let count = pool.provided();
        let region = Region::new(usize::from(count) * size_of::<BufRingEntry>())?;
        // SAFETY: the region is page-aligned, large enough, and lives until the ring is closed:
        // `Uring` drops the ring first, or leaks the region.
        unsafe { ring.submitter().register_buf_ring_with_flags(region.base() as u64, count, GROUP, 0) }?;
        Ok(Blocks { region: Some(region), tail: 0, mask: count - 1, provided: 0 })
    }

    /// Hands all returned blocks to the kernel.
    fn provide(&mut self, pool: &Pool) {
        let Some(region) = &self.region else { return };
        if pool.returned() == 0 {
            return;
        }
        let base = region.base().cast::<BufRingEntry>();
        pool.provide(|block| {
            let place = base.wrapping_add(usize::from(self.tail & self.mask));
            // SAFETY: `place` is one of the ring's entries, which the kernel does not read before
            // the tail passes it; there are as many entries as blocks, so none is in use.
            let entry = unsafe { &mut *place };
            entry.set_addr(pool.address(block) as u64);
            entry.set_len(STRIDE as u32);
            entry.set_bid(block);
            self.tail = self.tail.wrapping_add(1);
            self.provided += 1;
        });
        // SAFETY: `base` is the first entry of the registered ring; its tail is a properly aligned
        // u16 that the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn consumed(&mut self) {
        self.provided = self.provided.saturating_sub(1);
    }

    /// Blocks the kernel can use.
    fn outstanding(&self) -> usize {
        self.provided
    }

    fn leak(&mut self) {
        std::mem::forget(self.region.take());
    }
}
