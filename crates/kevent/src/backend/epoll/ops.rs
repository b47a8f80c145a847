//! Operations made of system calls, on epoll: call, and if that would wait, wait for readiness;
//! what waits for devices goes to the workers.

use std::io;
use std::os::fd::AsRawFd;

use crate::backend::QUOTA;
use crate::backend::epoll::Epoll;
use crate::call::{Call, Class};
use crate::core::{Core, Flow};
use crate::io::{Outcome, Place, Verdict};
use crate::op::OpId;
use crate::source::Source;
use crate::sys::{self, check, own};

/// Marks the keys of descriptors watched by edges.
const EDGE: u64 = 1 << 63;

/// What came of trying a call.
enum Tried {
    Did(Outcome),
    /// It waits for readiness.
    Wait(u32),
    /// A worker has it, or the descriptor is watched by edges.
    Gone,
}

impl Epoll {
    /// Makes the calls of an operation as far as they do not wait.
    pub(crate) fn run(&mut self, core: &mut Core, id: OpId) {
        for _ in 0..QUOTA {
            let Some(io) = core.io(id) else { return };
            if io.place != Place::Here {
                return;
            }
            if io.cancelled {
                core.finish_cancelled(id);
                return;
            }
            let Some(call) = core.next_call(id) else { return };
            if let Class::Ready(mask) = call.class()
                && core.force_async
                && !matches!(call, Call::Connect { .. })
                && !core.is_waited_for(id)
            {
                core.unmerge(id);
                self.wait_for(core, id, mask);
                return;
            }
            let outcome = match self.attempt(core, id, call) {
                Tried::Did(outcome) => outcome,
                Tried::Wait(mask) => {
                    core.unmerge(id);
                    self.wait_for(core, id, mask);
                    return;
                }
                Tried::Gone => return,
            };
            let brought = outcome.result > 0;
            core.stats.inline_reads += u64::from(brought && matches!(call, Call::ReadNow { .. }));
            if core.settle(id, outcome) == Flow::Stop {
                if core.io(id).is_some_and(|io| matches!(io.place, Place::Starved | Place::Paused)) {
                    self.stop_waiting(core, id);
                }
                return;
            }
            if brought && matches!(call, Call::RecvPool { .. }) && !core.full_block {
                // Most probably that was all: asking again would only say so.
                self.wait_for(core, id, libc::POLLIN as u32);
                return;
            }
        }
        core.starts.push_back(id);
    }

    fn attempt(&mut self, core: &mut Core, id: OpId, call: Call) -> Tried {
        match (call, call.class()) {
            (Call::RecvPool { fd, .. }, _) => receive_into_pool(core, fd),
            (Call::ReadNow { .. }, _) if core.force_async => {
                Tried::Did(Outcome::plain(-i64::from(libc::EAGAIN)))
            }
            (Call::Poll { mask, many: true, .. }, _) => self.watch_edges(core, id, mask),
            (_, Class::File) => {
                if let Some(io) = core.io(id) {
                    io.place = Place::Worker;
                }
                core.stats.worker_calls += 1;
                match self.workers.perform(id, call) {
                    Ok(()) => Tried::Gone,
                    Err(error) => {
                        if let Some(io) = core.io(id) {
                            io.place = Place::Here;
                        }
                        Tried::Did(Outcome::plain(-i64::from(error.raw_os_error().unwrap_or(libc::EAGAIN))))
                    }
                }
            }
            (_, class) => {
                if let Call::Accept { fd, .. } = call {
                    // The descriptor is open, which is all that could be wrong.
                    let _ = sys::set_nonblocking(fd, true);
                }
                let result = call.perform();
                match class {
                    Class::Ready(mask) | Class::Direct(mask) if result == -i64::from(libc::EAGAIN) => {
                        Tried::Wait(mask)
                    }
                    _ => Tried::Did(Outcome::plain(result)),
                }
            }
        }
    }

    /// Has epoll watch the operation's source for it.
    fn wait_for(&mut self, core: &mut Core, id: OpId, mask: u32) {
        let Some(io) = core.io(id) else { return };
        let Some(source) = io.source.clone() else { return };
        io.place = Place::Waiting;
        let known = source.0.waits.borrow().contains(&(id, mask));
        if known {
            return;
        }
        core.forget_wait(&source, id);
        source.0.waits.borrow_mut().push((id, mask));
        core.waits += 1;
        match self.update(core, &source) {
            Ok(()) => {}
            // Files and the like are always ready.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                core.forget_wait(&source, id);
                self.always_ready(core, id, mask);
            }
            Err(error) => {
                core.forget_wait(&source, id);
                core.apply(id, Verdict::Fail(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }

    /// Takes an operation that does not wait for readiness any more out of the reports.
    fn stop_waiting(&mut self, core: &mut Core, id: OpId) {
        let Some(source) = core.io(id).and_then(|io| io.source.clone()) else { return };
        core.forget_wait(&source, id);
        // What cannot be unregistered is closed or will be.
        let _ = self.update(core, &source);
    }

    /// What epoll refuses to watch is ready at all times.
    fn always_ready(&mut self, core: &mut Core, id: OpId, mask: u32) {
        let Some(io) = core.io(id) else { return };
        io.place = Place::Here;
        let verdict = io.advance(Outcome::plain(i64::from(mask)));
        core.apply(id, verdict);
    }

    /// Runs the operations that waited for one of `events`. They stay in the list of those that
    /// wait, so that nothing changes in the kernel if they wait for the same again.
    pub(super) fn run_waiting(&mut self, core: &mut Core, source: &Source, events: u32) {
        let always = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
        for (id, mask) in source.0.waits.borrow().iter() {
            if (mask | always) & events == 0 {
                continue;
            }
            let Some(io) = core.io(*id) else { continue };
            if io.place == Place::Waiting {
                io.place = Place::Here;
                core.starts.push_back(*id);
            }
        }
    }

    /// Watches a duplicate of the descriptor by edges: a registration of its own.
    fn watch_edges(&mut self, core: &mut Core, id: OpId, mask: u32) -> Tried {
        let Some(source) = core.io(id).and_then(|io| io.source.clone()) else { return Tried::Gone };
        let key = EDGE | u64::from(id.generation) << 24 | u64::from(id.slot);
        // SAFETY: no pointers are passed.
        let twin = check(unsafe { libc::fcntl(source.raw(), libc::F_DUPFD_CLOEXEC, 0) }).map(own);
        let added = twin.and_then(|twin| {
            self.control(libc::EPOLL_CTL_ADD, twin.as_raw_fd(), mask | libc::EPOLLET as u32, key)?;
            Ok(twin)
        });
        match added {
            Ok(twin) => {
                self.edges.insert(key, (twin, id));
                if let Some(io) = core.io(id) {
                    io.place = Place::Watched;
                }
                Tried::Gone
            }
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                if let Some(io) = core.io(id) {
                    io.place = Place::Watched;
                    let verdict = io.advance(Outcome::plain(i64::from(mask)));
                    core.apply(id, verdict);
                }
                Tried::Gone
            }
            Err(error) => Tried::Did(failure(&error)),
        }
    }

    /// An edge of a watched descriptor.
    pub(super) fn edge(&mut self, core: &mut Core, key: u64) {
        let Some((twin, id)) = self.edges.get(&key) else { return };
        let (fd, id) = (twin.as_raw_fd(), *id);
        let Some(io) = core.io(id) else { return };
        let Some(Call::Poll { mask, .. }) = io.next() else { return };
        let found = Call::Poll { fd, mask, many: false }.perform();
        if found > 0 {
            let verdict = io.advance(Outcome::plain(found));
            core.apply(id, verdict);
        }
        if core.io(id).is_none() {
            self.edges.remove(&key);
        }
    }

    pub(super) fn cancel_io(&mut self, core: &mut Core, id: OpId) {
        let Some(io) = core.io(id) else { return };
        let Some(source) = io.source.clone() else { return };
        match io.place {
            // Comes back with its result.
            Place::Worker | Place::Lingering => return,
            Place::Watched => {
                let key = EDGE | u64::from(id.generation) << 24 | u64::from(id.slot);
                self.edges.remove(&key);
            }
            _ => {}
        }
        core.finish_cancelled(id);
        // What cannot be unregistered is closed or will be.
        let _ = self.update(core, &source);
    }

    /// Takes what the workers did.
    pub(crate) fn take_results(&mut self, core: &mut Core) {
        let mut results = std::mem::take(&mut self.results);
        self.workers.take(&mut results);
        for (id, result) in results.drain(..) {
            let Some(io) = core.io(id) else {
                core.stats.stale += 1;
                continue;
            };
            io.place = Place::Here;
            let verdict = io.advance(Outcome::plain(result));
            if core.apply(id, verdict) == Flow::Run {
                core.starts.push_back(id);
            }
        }
        self.results = results;
    }

    /// Lets receives go on that waited for blocks.
    pub(super) fn resume_starved(&self, core: &mut Core) {
        if !core.starved.is_empty() && core.stream_pool.has_quarter() {
            core.resume_starved();
        }
    }

    pub(crate) fn forget(&mut self, source: &Source) {
        if self.registered.remove(&source.0.key).is_some() {
            // Closing the descriptor unregisters it, too, unless somebody has a duplicate.
            let _ = self.control(libc::EPOLL_CTL_DEL, source.raw(), 0, source.0.key);
        }
    }

    /// Waits until no worker uses memory of an operation; true if that came about before `deadline`.
    pub(crate) fn settle_workers(&mut self, core: &mut Core, deadline: std::time::Instant) -> bool {
        self.workers.clear();
        while self.workers.out > 0 && std::time::Instant::now() < deadline {
            self.take_results(core);
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        let settled = self.workers.out == 0;
        if !settled {
            self.workers.abandon();
        }
        settled
    }

    pub(crate) fn worker_threads(&self) -> usize {
        self.workers.threads()
    }
}

fn failure(error: &io::Error) -> Outcome {
    Outcome::plain(-i64::from(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn receive_into_pool(core: &mut Core, fd: std::os::fd::RawFd) -> Tried {
    let Some(block) = core.stream_pool.peek() else {
        return Tried::Did(Outcome::plain(-i64::from(libc::ENOBUFS)));
    };
    let len = core.stream_pool.stride();
    let call = Call::Recv { fd, at: core.stream_pool.address(block), len, fill: false };
    let result = call.perform();
    let received = usize::try_from(result).ok().filter(|n| *n > 0);
    let buf = received.and_then(|n| core.stream_pool.lease_free(block, 0, n));
    if result == -i64::from(libc::EAGAIN) {
        return Tried::Wait(libc::POLLIN as u32);
    }
    core.full_block = usize::try_from(result).is_ok_and(|n| n == len);
    Tried::Did(Outcome { result, buf, notice: false })
}
