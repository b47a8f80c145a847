//! An operation in flight that is made of system calls: what it does next, and what a result means.
//!
//! Both backends drive the same machine: [`Io::next`] says which call comes next, the backend gets
//! its result by whatever means it has, and [`Io::advance`] says what follows from it. So short
//! transfers, interruptions and errors mean the same on both.

use std::io;

use crate::call::{Call, Class};
use crate::chain::Link;
use crate::event::{Operands, What};
use crate::op::file::{Open, Read, Sync, Write};
use crate::op::sendfile::Sendfile;
use crate::op::socket::{Accepting, Closing, Connecting, Receive, ReceiveInto, Sending, Shutting};
use crate::op::timer::WallClock;
use crate::op::watch::{Child, Polling, Signals};
use crate::pool::RecvBuf;
use crate::source::Source;
use crate::sys::addr::ADDR_LEN;
use crate::sys::socket::empty_message;

/// What became of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What the kernel returned: a number, or an error number negated.
    pub(crate) result: i64,
    /// The block it received into.
    pub(crate) buf: Option<RecvBuf>,
    /// Zero copy was asked for, and the kernel will say when it is done with the memory.
    pub(crate) notice: bool,
}

impl Outcome {
    pub(crate) fn plain(result: i64) -> Outcome {
        Outcome { result, buf: None, notice: false }
    }

    /// The number, or the error.
    pub(crate) fn number(&self) -> Result<u64, i32> {
        u64::try_from(self.result).map_err(|_| i32::try_from(-self.result).unwrap_or(libc::EIO))
    }
}

/// What follows from an outcome.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Another call is needed.
    Again,
    /// A result, and the operation goes on.
    More(What),
    /// As `More`, but not before the next wait.
    MoreLater(What),
    /// A result, then nothing until the kernel is done with the memory.
    Lingering(What),
    /// As `Lingering`, without a result.
    Hold,
    /// The last result.
    Last(What),
    /// No block was free: go on when some are.
    Starved,
    /// The system is out of something: go on after a while.
    Pause,
    /// It failed with this error number; or was cancelled, if that was asked for.
    Fail(i32),
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// With its owner; about to run.
    Here,
    /// Behind another on its source, or in a chain.
    Queued,
    /// Its bytes are in the call of the first send on its source.
    Merged,
    /// The ring has its call.
    Kernel,
    /// The ring watches its descriptor for it.
    Watched,
    /// epoll watches its descriptor for it.
    Waiting,
    /// A worker performs its call.
    Worker,
    /// Waits for blocks.
    Starved,
    /// Waits for some time to pass.
    Paused,
    /// Waits for the next wait.
    NextWait,
    /// Done, but the kernel still reads its memory.
    Lingering,
}

/// Memory that calls refer to. The operation is boxed, so it does not move.
pub struct Scratch {
    pub(crate) slices: Vec<libc::iovec>,
    pub(crate) message: libc::msghdr,
    pub(crate) address: [u8; ADDR_LEN],
    pub(crate) info: libc::siginfo_t,
    pub(crate) small: [u8; 128],
}

/// One operation.
pub struct Io {
    pub(crate) source: Option<Source>,
    pub(crate) work: Work,
    pub(crate) place: Place,
    pub(crate) cancelled: bool,
    /// The ring was asked to end it.
    pub(crate) ending: bool,
    /// How often it was paused in a row.
    pub(crate) pauses: u32,
    /// Sends behind it whose bytes are in its call.
    pub(crate) merged: u32,
    /// Only one at a time runs on its source, in order of submission.
    pub(crate) ordered: bool,
    pub(crate) link: Link,
    pub(crate) scratch: Scratch,
}

/// Kinds of operations. They live in boxes that are used again, so their size costs nothing.
#[derive(Debug, Default)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum Work {
    #[default]
    None,
    Accept(Accepting),
    Connect(Connecting),
    Receive(Receive),
    ReceiveInto(ReceiveInto),
    Send(Sending),
    Shutdown(Shutting),
    Close(Closing),
    Open(Open),
    Read(Read),
    Write(Write),
    Sync(Sync),
    Sendfile(Sendfile),
    Poll(Polling),
    Signals(Signals),
    Child(Child),
    /// The queue's own: see `op/timer.rs`.
    Wall(WallClock),
}

impl Work {
    /// Whether it goes on until something ends it.
    pub(crate) fn is_stream(&self) -> bool {
        match self {
            Work::Accept(w) => w.is_stream(),
            Work::Receive(w) => w.is_stream(),
            Work::Poll(w) => w.is_stream(),
            Work::Signals(_) | Work::Wall(_) => true,
            _ => false,
        }
    }
}

/// Does the same with whatever the work is.
macro_rules! each {
    ($work:expr, $none:expr, $w:ident => $do:expr) => {
        match $work {
            Work::None | Work::Close(_) => $none,
            Work::Accept($w) => $do,
            Work::Connect($w) => $do,
            Work::Receive($w) => $do,
            Work::ReceiveInto($w) => $do,
            Work::Send($w) => $do,
            Work::Shutdown($w) => $do,
            Work::Open($w) => $do,
            Work::Read($w) => $do,
            Work::Write($w) => $do,
            Work::Sync($w) => $do,
            Work::Sendfile($w) => $do,
            Work::Poll($w) => $do,
            Work::Signals($w) => $do,
            Work::Child($w) => $do,
            Work::Wall($w) => $do,
        }
    };
}

/// What each kind of operation can do.
pub(crate) trait Machine {
    /// The next call on `source`.
    fn next(&mut self, source: &Source, scratch: &mut Scratch) -> Call;

    /// What follows from its outcome.
    fn advance(&mut self, source: &Source, scratch: &mut Scratch, outcome: Outcome) -> Verdict;

    /// Bytes moved so far, and what the operation owns.
    fn take(&mut self) -> (u64, Operands) {
        (0, Operands::None)
    }
}

impl Io {
    pub(crate) fn new() -> Box<Io> {
        // SAFETY: a record of integers, for which zero is a value.
        let info = unsafe { std::mem::zeroed() };
        Box::new(Io {
            source: None,
            work: Work::None,
            place: Place::Here,
            cancelled: false,
            ending: false,
            pauses: 0,
            merged: 0,
            ordered: false,
            link: Link::default(),
            scratch: Scratch {
                slices: Vec::new(),
                message: empty_message(),
                address: [0; ADDR_LEN],
                info,
                small: [0; 128],
            },
        })
    }

    /// Makes it an operation on `source`.
    pub(crate) fn fill(&mut self, source: Source, ordered: bool, work: Work) {
        self.source = Some(source);
        self.ordered = ordered;
        self.work = work;
    }

    /// Forgets the operation, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.source = None;
        self.work = Work::None;
        self.place = Place::Here;
        self.cancelled = false;
        self.ending = false;
        self.pauses = 0;
        self.merged = 0;
        self.ordered = false;
        self.link = Link::default();
        self.scratch.slices.clear();
    }

    pub(crate) fn next(&mut self) -> Option<Call> {
        let Io { source, work, scratch, .. } = self;
        let source = source.as_ref()?;
        each!(work, None, w => Some(w.next(source, scratch)))
    }

    /// What the call under way waits for.
    pub(crate) fn next_class(&self) -> Option<Class> {
        let (into, out) = (libc::POLLIN as u32, libc::POLLOUT as u32);
        match &self.work {
            Work::Accept(_) | Work::Receive(_) | Work::ReceiveInto(_) => Some(Class::Ready(into)),
            Work::Send(_) | Work::Sendfile(_) => Some(Class::Ready(out)),
            _ => None,
        }
    }

    pub(crate) fn advance(&mut self, outcome: Outcome) -> Verdict {
        // Tried again in any case; data may come along with neither.
        if outcome.result == -i64::from(libc::EINTR) && !self.cancelled {
            return Verdict::Again;
        }
        let Io { source, work, scratch, .. } = self;
        let Some(source) = source.as_ref() else { return Verdict::Fail(libc::EBADF) };
        let verdict = each!(work, Verdict::Fail(libc::EINVAL), w => w.advance(source, scratch, outcome));
        if matches!(verdict, Verdict::More(_) | Verdict::Last(_)) {
            self.pauses = 0;
        }
        verdict
    }

    /// Whether the kernel still reads memory of calls that are over; notes that the operation ends
    /// with `errno` when it has stopped.
    pub(crate) fn lingers(&mut self, errno: i32) -> bool {
        match &mut self.work {
            Work::Send(sending) => sending.linger(errno),
            _ => false,
        }
    }

    /// The last event of an operation that is cancelled.
    pub(crate) fn cancelled(&mut self) -> What {
        let (done, operands) = each!(&mut self.work, (0, Operands::None), w => w.take());
        What::Cancelled { done, operands }
    }

    /// The last event of one that failed.
    pub(crate) fn failed(&mut self, errno: i32) -> What {
        if self.cancelled && matches!(errno, libc::ECANCELED | libc::EINTR | libc::EAGAIN) {
            return self.cancelled();
        }
        let (done, operands) = each!(&mut self.work, (0, Operands::None), w => w.take());
        What::Failed { error: io::Error::from_raw_os_error(errno), done, operands }
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io").field("work", &self.work).field("place", &self.place).finish_non_exhaustive()
    }
}
