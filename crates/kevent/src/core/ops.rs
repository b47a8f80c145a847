//! The life of operations made of system calls, as far as it is the same on both backends.

use std::time::Duration;

use crate::chain;
use crate::core::{Core, InFlight};
use crate::event::{Event, What};
use crate::io::{Io, Place, Verdict, Work};
use crate::op::{OpId, Token};
use crate::source::Source;

/// Ended operations kept for reuse.
const SPARES: usize = 256;
/// The first pause of an operation that the system has no resources for.
const PAUSE: Duration = Duration::from_millis(10);

/// What to do with an operation after a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Make its next call.
    Run,
    /// Nothing for now.
    Stop,
}

impl Core {
    pub(crate) fn io(&mut self, id: OpId) -> Option<&mut Io> {
        match self.ops.entry(id)? {
            (_, InFlight::Io(io)) => Some(io),
            _ => None,
        }
    }

    /// Takes an operation in.
    pub(crate) fn insert(&mut self, token: Token, mut io: Box<Io>) -> OpId {
        io.place = Place::Queued;
        let ordered = io.ordered;
        let source = io.source.clone();
        let id = self.ops.insert(token, InFlight::Io(io));
        if let Some(source) = source {
            source.0.ops.borrow_mut().push(id);
            if ordered {
                source.0.out.borrow_mut().push_back(id);
            }
        }
        id
    }

    /// Takes in an operation that has ended already.
    pub(crate) fn ended_at_once(&mut self, token: Token, what: What) -> OpId {
        let id = self.ops.pass();
        self.push(token, id, true, what);
        id
    }

    /// Puts a queued operation among those to run, if nothing holds it.
    pub(crate) fn start(&mut self, id: OpId) {
        let Some(io) = self.io(id) else { return };
        let first = |source: &Source| source.0.out.borrow().front() == Some(&id);
        let free = !io.ordered || io.source.as_ref().is_none_or(first);
        if io.place == Place::Queued && !io.link.held && free {
            io.place = Place::Here;
            self.starts.push_back(id);
        }
    }

    /// Resets the connection of an operation whose memory the kernel still reads, which makes it
    /// stop. False if it is not one.
    pub(crate) fn reset_lingering(&mut self, id: OpId) -> bool {
        let Some(io) = self.io(id).filter(|io| io.place == Place::Lingering) else { return false };
        let fd = io.source.as_ref().map_or(-1, Source::raw);
        // Fails for what is not connected any more, which is as good.
        let _ = crate::sys::socket::disconnect(&fd);
        true
    }

    /// Resets all such connections.
    pub(crate) fn reset_all_lingering(&mut self) {
        let ids: Vec<OpId> = self.ops.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.reset_lingering(id);
        }
    }

    /// Lets an operation that waited for blocks, time or the next wait go on.
    pub(crate) fn resume(&mut self, id: OpId) {
        let Some(io) = self.io(id) else { return };
        if matches!(io.place, Place::Starved | Place::Paused | Place::NextWait) {
            io.place = Place::Here;
            self.starts.push_back(id);
        }
    }

    pub(crate) fn resume_starved(&mut self) {
        for id in std::mem::take(&mut self.starved) {
            self.resume(id);
        }
    }

    /// An event for the next wait.
    pub(crate) fn push(&mut self, token: Token, id: OpId, last: bool, what: What) {
        self.done.push_back(Event { token, id: Some(id), last, what });
    }

    /// An event of an operation that goes on.
    pub(crate) fn push_more(&mut self, id: OpId, what: What) {
        let Some((token, InFlight::Io(io))) = self.ops.entry(id) else { return };
        if matches!(io.work, Work::Wall(_)) {
            self.expire_wall();
            return;
        }
        self.push(token, id, false, what);
    }

    /// Does what a verdict says.
    pub(crate) fn apply(&mut self, id: OpId, verdict: Verdict) -> Flow {
        match verdict {
            Verdict::Again => return Flow::Run,
            Verdict::More(what) => {
                self.push_more(id, what);
                return Flow::Run;
            }
            Verdict::MoreLater(what) => {
                self.push_more(id, what);
                self.set_place(id, Place::NextWait);
                self.next_wait.push(id);
            }
            Verdict::Lingering(what) => {
                self.push_more(id, what);
                self.set_place(id, Place::Lingering);
            }
            Verdict::Hold => self.set_place(id, Place::Lingering),
            Verdict::Last(what) => self.finish(id, what),
            Verdict::Fail(errno) => {
                let Some(io) = self.io(id) else { return Flow::Stop };
                let what = io.failed(errno);
                self.finish(id, what);
            }
            Verdict::Starved | Verdict::Pause if self.io(id).is_some_and(|io| io.cancelled) => {
                self.finish_cancelled(id);
            }
            Verdict::Starved => {
                self.stats.starved += 1;
                self.set_place(id, Place::Starved);
                self.starved.push(id);
            }
            Verdict::Pause => {
                self.stats.paused += 1;
                self.set_place(id, Place::Paused);
                let Some(io) = self.io(id) else { return Flow::Stop };
                let wait = PAUSE * (1 << io.pauses.min(7));
                io.pauses += 1;
                self.retry_later(id, wait);
            }
        }
        Flow::Stop
    }

    fn set_place(&mut self, id: OpId, place: Place) {
        if let Some(io) = self.io(id) {
            io.place = place;
        }
    }

    pub(crate) fn finish_cancelled(&mut self, id: OpId) {
        if let Some(io) = self.io(id) {
            let what = io.cancelled();
            self.finish(id, what);
        }
    }

    /// Ends an operation with its last event and starts what waited for it.
    pub(crate) fn finish(&mut self, id: OpId, what: What) {
        if !matches!(self.ops.entry(id), Some((_, InFlight::Io(_)))) {
            return;
        }
        let Some((token, InFlight::Io(mut io))) = self.ops.remove(id) else { return };
        let (source, next, ordered) = (io.source.take(), io.link.next.take(), io.ordered);
        let goes_on = next.is_some() && chain::goes_on(&what);
        self.push(token, id, true, what);
        self.keep_spare(io);
        if let Some(source) = source {
            remove(&mut source.0.ops.borrow_mut(), id);
            self.forget_wait(&source, id);
            if ordered {
                let first = {
                    let mut out = source.0.out.borrow_mut();
                    out.retain(|other| *other != id);
                    out.front().copied()
                };
                first.into_iter().for_each(|first| self.start(first));
            }
            self.advance_close(&source);
        }
        let Some(next) = next else { return };
        if goes_on {
            if let Some(io) = self.io(next) {
                io.link.held = false;
            }
            self.start(next);
        } else {
            self.finish_cancelled(next);
        }
    }

    /// epoll: the operation does not wait for readiness any more.
    pub(crate) fn forget_wait(&mut self, source: &Source, id: OpId) {
        let mut waits = source.0.waits.borrow_mut();
        let before = waits.len();
        waits.retain(|(other, _)| *other != id);
        if waits.len() < before {
            self.waits -= before - waits.len();
            self.unwatched.push(source.0.key);
        }
    }

    /// epoll: whether the operation has been waiting for readiness.
    pub(crate) fn is_waited_for(&mut self, id: OpId) -> bool {
        let Some(source) = self.io(id).and_then(|io| io.source.as_ref()) else { return false };
        source.0.waits.borrow().iter().any(|(other, _)| *other == id)
    }

    /// Lets the operation that closes `source`, if there is one, look at what is left.
    pub(crate) fn advance_close(&mut self, source: &Source) {
        if let Some(close) = source.0.closing.get() {
            self.starts.push_back(close);
        }
    }

    pub(crate) fn keep_spare(&mut self, mut io: Box<Io>) {
        io.clear();
        if self.spares.len() < SPARES {
            self.spares.push(io);
        }
    }
}

fn remove(ops: &mut Vec<OpId>, id: OpId) {
    if let Some(at) = ops.iter().position(|other| *other == id) {
        ops.swap_remove(at);
    }
}
