//! The epoll backend: readiness, then plain calls.
//!
//! A source is registered, level-triggered, as long as an operation wants something from it: to
//! read (a stream) or to write (a send that waits for room). The eventfd of the doorbell is watched
//! by edges and never read. Operations made of system calls are in `epoll/ops.rs`.

mod ops;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::backend::Batch;
use crate::backend::workers::Workers;
use crate::core::{Core, SendEnd, is_own_fault};
use crate::event::{Events, Operands, What};
use crate::op::OpId;
use crate::source::{Kind, Source, SourceInner};
use crate::sys::{check, own, socket};

/// Readiness reports taken in one call.
const REPORTS: usize = 64;
/// Marks the doorbell among the keys of sources, which count from 1.
const DOORBELL: u64 = 0;

pub(crate) struct Epoll {
    fd: OwnedFd,
    /// What is registered: source and interest, by the source's key. Weak: that epoll still watches
    /// a source is no reason to keep it open; closing it unregisters it.
    registered: HashMap<u64, (Weak<SourceInner>, u32)>,
    /// Operations whose source's interest must be brought up to date before sleeping.
    changed: Vec<OpId>,
    /// Operations to end with a cancellation.
    cancelled: Vec<OpId>,
    reports: Vec<libc::epoll_event>,
    /// Descriptors watched by edges, each with its operation, by their keys.
    edges: HashMap<u64, (OwnedFd, OpId)>,
    workers: Workers,
    results: Vec<(OpId, i64)>,
}

impl Epoll {
    pub(crate) fn new(core: &Core, workers: u32) -> io::Result<Epoll> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(own)?;
        let empty = libc::epoll_event { events: 0, u64: 0 };
        let epoll = Epoll {
            fd,
            registered: HashMap::new(),
            changed: Vec::new(),
            cancelled: Vec::new(),
            reports: vec![empty; REPORTS],
            edges: HashMap::new(),
            workers: Workers::new(workers, &core.shared),
            results: Vec::new(),
        };
        let interest = (libc::EPOLLIN | libc::EPOLLET) as u32;
        epoll.control(libc::EPOLL_CTL_ADD, core.shared.eventfd.as_raw_fd(), interest, DOORBELL)?;
        Ok(epoll)
    }

    fn control(&self, action: i32, fd: i32, interest: u32, key: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: key };
        // SAFETY: `event` is readable for the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), action, fd, &raw mut event) }).map(drop)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn start_stream(&mut self, _: &mut Core, id: OpId) {
        self.changed.push(id);
    }

    pub(crate) fn start_send(&mut self, _: &mut Core, id: OpId) {
        self.changed.push(id);
    }

    pub(crate) fn cancel(&mut self, core: &mut Core, id: OpId) {
        match core.io(id) {
            Some(_) => self.cancel_io(core, id),
            None => self.cancelled.push(id),
        }
    }

    /// Unregisters the streams until the next sleep: a registered socket makes every arriving
    /// datagram pay for a wake-up that nobody needs.
    pub(crate) fn disarm(&mut self, core: &mut Core) -> io::Result<()> {
        for &id in &core.streams {
            let Some(source) = core.ops.entry(id).and_then(|(_, op)| op.source()) else { continue };
            if source.first_send().is_none() && self.registered.remove(&source.0.key).is_some() {
                self.control(libc::EPOLL_CTL_DEL, source.raw(), 0, source.0.key)?;
                self.changed.push(id);
            }
        }
        Ok(())
    }

    /// Whether [`Epoll::look`] has something to do.
    pub(crate) fn wants_look(&self, core: &Core) -> bool {
        !self.cancelled.is_empty() || self.is_awaited(core)
    }

    /// Whether anything but datagrams to receive, which plain calls find, may have become ready.
    fn is_awaited(&self, core: &Core) -> bool {
        core.waits > 0 || core.sends_waiting > 0 || !self.edges.is_empty()
    }

    /// Ends what was cancelled. Receiving datagrams is done by the caller.
    pub(crate) fn look(&mut self, core: &mut Core, keen: bool, out: &mut Events) -> io::Result<()> {
        self.resume_starved(core);
        if keen && self.is_awaited(core) {
            self.register_sends(core)?;
            self.collect(core, Some(Duration::ZERO), out)?;
        }
        while let Some(id) = self.cancelled.pop() {
            let Some(source) = core.ops.entry(id).and_then(|(_, op)| op.source()).cloned() else { continue };
            match core.recv(id) {
                Some(_) => {
                    let what = What::Cancelled { done: 0, operands: Operands::None };
                    core.end_stream(id, what, out);
                }
                None => core.end_send(id, SendEnd::Cancelled, out),
            }
            self.update(core, &source)?;
        }
        Ok(())
    }

    /// Waits for readiness, then receives and sends.
    pub(crate) fn sleep(
        &mut self,
        core: &mut Core,
        timeout: Option<Duration>,
        _: Batch,
        out: &mut Events,
    ) -> io::Result<()> {
        while let Some(id) = self.changed.pop() {
            let source = core.ops.entry(id).and_then(|(_, op)| op.source()).cloned();
            if let Some(source) = source {
                self.update(core, &source)?;
            }
        }
        self.tidy(core)?;
        self.resume_starved(core);
        let at_once = !core.done.is_empty() || !core.starts.is_empty();
        self.collect(core, if at_once { Some(Duration::ZERO) } else { timeout }, out)
    }

    /// Registers the sources of sends that have begun to wait for room. Streams wait for the next
    /// sleep: only that needs them registered.
    fn register_sends(&mut self, core: &mut Core) -> io::Result<()> {
        if core.sends_waiting == 0 {
            return Ok(());
        }
        let mut at = 0;
        while let Some(&id) = self.changed.get(at) {
            let Some((_, send)) = core.send(id) else {
                at += 1;
                continue;
            };
            let source = send.source.clone();
            self.changed.swap_remove(at);
            self.update(core, &source)?;
        }
        Ok(())
    }

    fn source_of(&self, key: u64) -> Option<Source> {
        self.registered.get(&key)?.0.upgrade().map(Source)
    }

    /// Unregisters sources that no operation waits for any more. Not done as soon as one ends: the
    /// next one mostly wants the same.
    fn tidy(&mut self, core: &mut Core) -> io::Result<()> {
        while let Some(key) = core.unwatched.pop() {
            match self.source_of(key) {
                Some(source) => self.update(core, &source)?,
                None => drop(self.registered.remove(&key)),
            }
        }
        Ok(())
    }

    /// Takes reports of readiness and does what they allow.
    fn collect(&mut self, core: &mut Core, timeout: Option<Duration>, out: &mut Events) -> io::Result<()> {
        let count = self.wait(timeout)?;
        for i in 0..count {
            let (events, key) = (self.reports[i].events, self.reports[i].u64);
            let Some(source) = self.source_of(key) else {
                self.edge(core, key);
                continue;
            };
            self.run_waiting(core, &source, events);
            if source.kind() != Kind::Datagram {
                self.update(core, &source)?;
                continue;
            }
            if events & libc::EPOLLOUT as u32 != 0 {
                Epoll::send_waiting(core, &source, out);
            }
            if events & !(libc::EPOLLOUT as u32) != 0 {
                self.receive(core, &source, out);
            }
            self.update(core, &source)?;
        }
        Ok(())
    }

    /// One receive; what is left is taken in bulk by the next look.
    fn receive(&mut self, core: &mut Core, source: &Source, out: &mut Events) {
        let Some(id) = core.stream_of(source) else { return };
        if let Some((_, recv)) = core.recv(id) {
            recv.ready = true;
        }
        if !core.pool.has_free() {
            core.stats.no_buffers += 1;
            // The caller holds every block; give it the turn instead of spinning here.
            out.woken();
            return;
        }
        if core.receive_direct(id, 1, out) == crate::core::Drained::Empty
            && let Some((_, recv)) = core.recv(id)
        {
            recv.ready = false;
        }
    }

    /// Sends what waited for room, in order, until the socket is full again.
    fn send_waiting(core: &mut Core, source: &Source, out: &mut Events) {
        while let Some(id) = source.first_send() {
            let Some((_, send)) = core.send(id) else { return };
            let error = match socket::send(source.raw(), &mut send.train, None) {
                Ok(()) => {
                    core.end_send(id, SendEnd::Sent, out);
                    continue;
                }
                Err(error) => error,
            };
            send.failures += 1;
            let again = send.failures <= 4 && !is_own_fault(&error);
            match error.kind() {
                io::ErrorKind::WouldBlock => return,
                io::ErrorKind::Interrupted => {}
                _ if core.stash_errors(source) > 0 && again => {}
                _ => core.end_send(id, SendEnd::Failed(error), out),
            }
        }
    }

    /// Makes the registration of a source match what its operations want.
    fn update(&mut self, core: &mut Core, source: &Source) -> io::Result<()> {
        let mut wanted = source.0.waits.borrow().iter().fold(0, |all, (_, mask)| all | mask);
        if source.kind() == Kind::Datagram {
            wanted |= u32::from(core.stream_of(source).is_some()) * libc::EPOLLIN as u32;
            wanted |= u32::from(source.first_send().is_some()) * libc::EPOLLOUT as u32;
        }
        let key = source.0.key;
        let current = self.registered.get(&key).map_or(0, |(_, interest)| *interest);
        if wanted == current || source.raw() < 0 {
            return Ok(());
        }
        let action = match (current, wanted) {
            (0, _) => libc::EPOLL_CTL_ADD,
            (_, 0) => libc::EPOLL_CTL_DEL,
            _ => libc::EPOLL_CTL_MOD,
        };
        match self.control(action, source.raw(), wanted, key) {
            // Somebody has put another descriptor in its place, which epoll was not told.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) && wanted == 0 => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                self.control(libc::EPOLL_CTL_ADD, source.raw(), wanted, key)?;
            }
            result => result?,
        }
        if wanted == 0 {
            self.registered.remove(&key);
        } else {
            self.registered.insert(key, (Rc::downgrade(&source.0), wanted));
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let time = timeout.map_or(std::ptr::null(), |timeout| {
            time.tv_sec = timeout.as_secs().min(1 << 40) as libc::time_t;
            time.tv_nsec = timeout.subsec_nanos().into();
            &raw const time
        });
        let (fd, room) = (self.fd.as_raw_fd(), self.reports.len() as i32);
        // SAFETY: `reports` has room for `room` entries; `time` is null or readable for the call.
        let result =
            check(unsafe { libc::epoll_pwait2(fd, self.reports.as_mut_ptr(), room, time, std::ptr::null()) });
        let result = match result {
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
                // Kernels before 5.11 count in milliseconds; round up so as not to spin.
                let ms = timeout
                    .map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
                // SAFETY: as above.
                check(unsafe { libc::epoll_wait(fd, self.reports.as_mut_ptr(), room, ms) })
            }
            other => other,
        };
        match result {
            Ok(count) => Ok(count as usize),
            // The caller looks at its deadline and comes back.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(e),
        }
    }
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll")
            .field("fd", &self.fd)
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}
