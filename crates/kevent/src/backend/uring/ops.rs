//! Operations made of system calls, on the ring.

use std::io;

use io_uring::{cqueue, squeue};

use crate::backend::QUOTA;
use crate::backend::uring::{IO, STREAM_GROUP, Uring, user_data};
use crate::buf::IoBuf;
use crate::call::{Call, Class};
use crate::core::{Core, Flow};
use crate::io::{Outcome, Place, Verdict, Work};
use crate::op::OpId;
use crate::source::Source;

/// In a notice: the kernel copied after all.
const COPIED: u32 = 1 << 31;

impl Uring {
    /// Makes the calls of an operation that the ring cannot, and hands it the first that it can.
    pub(crate) fn run(&mut self, core: &mut Core, id: OpId) {
        for _ in 0..QUOTA {
            let Some(io) = core.io(id) else { return };
            if io.place != Place::Here {
                return;
            }
            if io.cancelled {
                if io.lingers(libc::ECANCELED) {
                    io.place = Place::Lingering;
                } else {
                    core.finish_cancelled(id);
                }
                return;
            }
            let fixed = io.source.as_ref().and_then(|source| source.0.fixed.get());
            let is_sendfile = matches!(io.work, Work::Sendfile(_));
            let Some(call) = core.next_call(id) else { return };
            // A call that concerns the file of a sendfile is not on the operation's own source.
            let fixed = fixed.filter(|_| !(is_sendfile && matches!(call, Call::Read { .. })));
            let result = match call.class() {
                Class::Ready(_) | Class::File => return self.hand_over(core, id, &call, fixed),
                Class::Direct(mask) => match call.perform() {
                    result if result == -i64::from(libc::EAGAIN) => return self.watch(core, id, mask),
                    result => result,
                },
                Class::Instant if core.force_async && matches!(call, Call::ReadNow { .. }) => {
                    -i64::from(libc::EAGAIN)
                }
                Class::Instant => call.perform(),
            };
            let inline = matches!(call, Call::ReadNow { len: 2.., .. }) && result > 0;
            core.stats.inline_reads += u64::from(inline);
            if core.settle(id, Outcome::plain(result)) == Flow::Stop {
                return;
            }
        }
        core.starts.push_back(id);
    }

    fn hand_over(&mut self, core: &mut Core, id: OpId, call: &Call, fixed: Option<u32>) {
        let known = match call {
            Call::Read { known, .. } => self.bufs.place(*known),
            _ => None,
        };
        let known = known.and_then(|index| call.known_entry(fixed, index));
        let Some(entry) = known.or_else(|| call.entry(fixed, STREAM_GROUP)) else {
            core.apply(id, Verdict::Fail(libc::EOPNOTSUPP));
            return;
        };
        // What stays armed is not the kernel's workers' to do.
        let entry = match core.force_async && !call.is_many() {
            true => entry.flags(squeue::Flags::ASYNC),
            false => entry,
        };
        self.give(core, id, Place::Kernel, entry);
    }

    /// Lets the ring say when a descriptor is ready.
    fn watch(&mut self, core: &mut Core, id: OpId, mask: u32) {
        core.unmerge(id);
        let Some(fd) = core.io(id).and_then(|io| io.source.as_ref()).map(Source::raw) else { return };
        let poll = Call::Poll { fd, mask, many: false };
        match poll.entry(None, STREAM_GROUP) {
            Some(entry) => self.give(core, id, Place::Watched, entry),
            None => drop(core.apply(id, Verdict::Fail(libc::EOPNOTSUPP))),
        }
    }

    fn give(&mut self, core: &mut Core, id: OpId, place: Place, entry: squeue::Entry) {
        if let Some(io) = core.io(id) {
            io.place = place;
            self.ios += 1;
            self.push(core, entry.user_data(user_data(id, IO)));
        }
    }

    pub(super) fn complete_io(&mut self, core: &mut Core, id: OpId, result: i32, flags: u32) {
        let more = cqueue::more(flags);
        self.ios -= usize::from(!more);
        let buf = cqueue::buffer_select(flags).and_then(|block| {
            self.stream_blocks.consumed();
            core.stream_pool.lease(block, 0, usize::try_from(result).unwrap_or(0))
        });
        let Some(io) = core.io(id) else {
            core.stats.stale += 1;
            return;
        };
        if cqueue::notif(flags) {
            return Uring::on_notice(core, id, result as u32 & COPIED != 0);
        }
        let notice = more && matches!(io.work, Work::Send(_));
        if (!more || notice) && std::mem::replace(&mut io.ending, false) {
            self.cancelling = self.cancelling.saturating_sub(1);
        }
        let watched = io.place == Place::Watched;
        if !more || notice {
            io.place = Place::Here;
        }
        if watched && (result >= 0 || result == -libc::ECANCELED) {
            // Ready, or cancelled: either way the next step knows what to do.
            return self.run(core, id);
        }
        let mask = match io.next_class() {
            Some(Class::Ready(mask)) => mask,
            _ => 0,
        };
        if result == -libc::EAGAIN && !more && mask != 0 && !io.cancelled {
            // The descriptor's own flags forbid to wait: have it watched instead.
            return self.watch(core, id, mask);
        }
        let flow = core.settle(id, Outcome { result: result.into(), buf, notice });
        if flow == Flow::Run && (!more || notice) {
            core.stats.rearmed += u64::from(!notice && result > 0);
            self.run(core, id);
        }
    }

    /// The kernel is done with the memory of a send.
    fn on_notice(core: &mut Core, id: OpId, copied: bool) {
        let Some(io) = core.io(id) else { return };
        let (Some(source), Work::Send(sending)) = (io.source.clone(), &mut io.work) else { return };
        if !sending.notice(&source, copied) || io.place != Place::Lingering {
            return;
        }
        let what = match sending.release() {
            Ok(what) => what,
            Err(errno) => io.failed(errno),
        };
        core.finish(id, what);
    }

    pub(super) fn cancel_io(&mut self, core: &mut Core, id: OpId) {
        let Some(io) = core.io(id) else { return };
        match io.place {
            Place::Kernel | Place::Watched => {
                if !std::mem::replace(&mut io.ending, true) {
                    self.ask_to_end(core, user_data(id, IO));
                }
            }
            // The call that has its bytes ends first; then it is gone from there.
            Place::Merged => {
                let leader = core.leader_of(id);
                let Some(io) = leader.and_then(|leader| core.io(leader)) else { return };
                if let (Some(leader), false) = (leader, std::mem::replace(&mut io.ending, true)) {
                    self.ask_to_end(core, user_data(leader, IO));
                }
            }
            Place::Lingering => {}
            Place::Here => core.starts.push_back(id),
            _ => core.finish_cancelled(id),
        }
    }

    /// Makes a source known to the ring.
    pub(crate) fn register(&mut self, source: &Source) -> bool {
        self.files.add(&self.ring, source)
    }

    /// Makes a buffer known to the ring.
    pub(crate) fn register_buf(&mut self, buf: &mut IoBuf) -> bool {
        self.bufs.add(&self.ring, buf)
    }

    pub(crate) fn forget_buf(&mut self, buf: &mut IoBuf) {
        self.bufs.remove(&self.ring, buf);
    }

    pub(crate) fn forget(&mut self, source: &Source) {
        self.files.remove(&self.ring, source);
    }

    /// Hands over what is queued, without waiting.
    pub(crate) fn flush(&mut self, core: &mut Core) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.enter(core, 0, None)
    }
}
