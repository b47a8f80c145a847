//! Sends that queued up behind one another on a stream leave together: the call of the first takes
//! along the bytes of those behind it, and its outcome is dealt out in their order.
//!
//! The operations stay what they are, each with its own events. While the kernel has the call, those
//! taken along are [`Place::Merged`]: their memory is in use, so cancelling one first ends the call.

use crate::call::Call;
use crate::core::{Core, Flow};
use crate::io::{Io, Outcome, Place, Verdict, Work};
use crate::op::OpId;
use crate::op::socket::{Sending, send_slices};
use crate::source::Source;

/// Bytes of one call: beyond this there is nothing to gain.
const ENOUGH: usize = 1 << 20;

impl Core {
    /// The next call of an operation, with the sends behind it taken along.
    pub(crate) fn next_call(&mut self, id: OpId) -> Option<Call> {
        let io = self.io(id)?;
        let call = io.next()?;
        let plain =
            matches!(call, Call::Send { zero_copy: false, .. } | Call::SendMsg { zero_copy: false, .. });
        let alone = !plain || io.source.as_ref().is_none_or(|source| source.0.out.borrow().len() < 2);
        if alone { Some(call) } else { Some(self.merge(id).unwrap_or(call)) }
    }

    /// A call that sends what is left of `id` and of those behind it, if there are some.
    fn merge(&mut self, id: OpId) -> Option<Call> {
        let io = self.io(id)?;
        let source = io.source.clone()?;
        let mut slices = std::mem::take(&mut io.scratch.slices);
        slices.clear();
        let (mut bytes, mut merged) = (0, 0);
        for (at, other) in source.0.out.borrow().iter().enumerate() {
            let Some(io) = self.io(*other) else { break };
            let Some(sending) = io.joins(at > 0, &source) else { break };
            let before = slices.len();
            let whole = sending.from().gather(&mut slices);
            if at > 0 && !whole {
                slices.truncate(before);
                break;
            }
            if at > 0 {
                io.place = Place::Merged;
                merged += 1;
            }
            bytes += sending_left(io);
            if !whole || bytes >= ENOUGH {
                break;
            }
        }
        let io = self.io(id)?;
        io.scratch.slices = slices;
        io.merged = merged;
        (merged > 0).then(|| send_slices(source.raw(), &mut io.scratch, false))
    }

    /// The call of `id` is not made after all, or has failed: those taken along queue again.
    pub(crate) fn unmerge(&mut self, id: OpId) {
        let behind = self.take_merged(id);
        self.end_cancelled(&behind);
        self.merging = behind;
    }

    /// Does what an outcome means for an operation and for those taken along.
    pub(crate) fn settle(&mut self, id: OpId, outcome: Outcome) -> Flow {
        let Some(io) = self.io(id) else { return Flow::Stop };
        if io.merged > 0 {
            return self.settle_merged(id, outcome);
        }
        let verdict = io.advance(outcome);
        self.apply(id, verdict)
    }

    fn settle_merged(&mut self, id: OpId, outcome: Outcome) -> Flow {
        let behind = self.take_merged(id);
        let Some(io) = self.io(id) else { return Flow::Stop };
        let mut rest = outcome.result;
        let own = match outcome.number() {
            Ok(count) => count.min(sending_left(io) as u64) as i64,
            // Ended because one of those behind it is cancelled.
            Err(libc::ECANCELED) if !io.cancelled => -i64::from(libc::EINTR),
            Err(errno) => -i64::from(errno),
        };
        rest -= own.max(0);
        let verdict = io.advance(Outcome::plain(own));
        let flow = self.apply(id, verdict);
        let mut goes_on = flow == Flow::Stop && own >= 0;
        for other in &behind {
            let Some(io) = self.io(*other).filter(|_| goes_on) else { break };
            let left = sending_left(io) as i64;
            let share = left.min(rest);
            rest -= share;
            goes_on = share == left;
            if let Verdict::Last(what) = io.advance(Outcome::plain(share)) {
                self.finish(*other, what);
            }
        }
        self.end_cancelled(&behind);
        self.merging = behind;
        flow
    }

    /// Puts those taken along back into the queue; the list is to be kept again.
    fn take_merged(&mut self, id: OpId) -> Vec<OpId> {
        let mut behind = std::mem::take(&mut self.merging);
        behind.clear();
        let Some(io) = self.io(id) else { return behind };
        let merged = std::mem::take(&mut io.merged) as usize;
        if let Some(source) = io.source.clone().filter(|_| merged > 0) {
            behind.extend(source.0.out.borrow().iter().skip(1).take(merged));
        }
        for other in &behind {
            if let Some(io) = self.io(*other) {
                io.place = Place::Queued;
            }
        }
        behind
    }

    /// Ends those that were cancelled meanwhile.
    fn end_cancelled(&mut self, ids: &[OpId]) {
        for id in ids {
            if self.io(*id).is_some_and(|io| io.cancelled) {
                self.finish_cancelled(*id);
            }
        }
    }

    /// The operation in whose call this one was taken along.
    pub(crate) fn leader_of(&mut self, id: OpId) -> Option<OpId> {
        let source = self.io(id).filter(|io| io.place == Place::Merged)?.source.as_ref()?;
        source.0.out.borrow().front().copied()
    }
}

impl Io {
    /// The send, if it may share a call.
    fn joins(&self, is_behind: bool, source: &Source) -> Option<&Sending> {
        let Work::Send(sending) = &self.work else { return None };
        let ready = !is_behind || (self.place == Place::Queued && !self.link.held && !self.cancelled);
        (ready && !sending.wants_zero_copy(source)).then_some(sending)
    }
}

fn sending_left(io: &Io) -> usize {
    match &io.work {
        Work::Send(sending) => sending.from().left(),
        _ => 0,
    }
}
