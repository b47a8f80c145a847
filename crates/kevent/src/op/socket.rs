//! Operations on stream sockets: accept, connect, receive, send, shutdown, close.

use std::net::{Shutdown as How, SocketAddr};
use std::os::fd::RawFd;

use crate::buf::{Data, IoBuf};
use crate::call::Call;
use crate::event::{Operands, What, ZeroCopy};
use crate::io::{Io, Machine, Outcome, Scratch, Verdict, Work};
use crate::op::sealed::Sealed;
use crate::op::transfer::{Emptying, Filling};
use crate::op::{Mode, Rejected, Step, refuse};
use crate::source::{Kind, Route, Source};
use crate::sys::addr::encode;
use crate::sys::own;
use crate::sys::socket::empty_message;

/// Shorter sends are never asked to go without a copy: measured, they wait for the acknowledgement.
const ZERO_COPY_MIN: usize = 64 << 10;

/// Accepts connections: event [`What::Accepted`](crate::What::Accepted).
///
/// When the process is out of descriptors a stream of connections pauses and tries again, less and
/// less often, up to once a second.
#[derive(Debug, Clone)]
pub struct Accept {
    /// A listening socket.
    pub source: Source,
    /// One connection or all.
    pub mode: Mode,
}

/// Connects a socket: event [`What::Connected`](crate::What::Connected).
#[derive(Debug, Clone)]
pub struct Connect {
    /// A socket that is not connected.
    pub source: Source,
    /// Where to.
    pub to: SocketAddr,
}

/// Receives into blocks of the queue's pool: events [`What::Data`](crate::What::Data), then
/// [`What::Eof`](crate::What::Eof). One receive operation at a time on a socket.
#[derive(Debug, Clone)]
pub struct Recv {
    /// A connected stream socket.
    pub source: Source,
    /// One piece, or all of them until the end.
    pub mode: Mode,
}

/// Receives into the caller's own buffer: event [`What::Read`](crate::What::Read). Fewer bytes
/// than asked for with `fill` mean that the stream has ended.
#[derive(Debug)]
pub struct RecvInto {
    /// A connected stream socket.
    pub source: Source,
    /// Where to put the bytes; its length says how many at most.
    pub buf: IoBuf,
    /// Wait until the buffer is full.
    pub fill: bool,
}

/// Whether a send may go without a copy of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SendMode {
    /// Copy: right for short data and for loopback.
    #[default]
    Copy,
    /// Without a copy if the data is 64 KiB or more and such sends have not turned out to be
    /// copies on this socket.
    Auto,
    /// Ask for no copy, whatever came of it before.
    ZeroCopy,
}

/// Sends all of `data`: event [`What::Sent`](crate::What::Sent). Sends of one source leave in the
/// order of submission, none before the one before it has left entirely.
#[derive(Debug)]
pub struct Send {
    /// A connected stream socket.
    pub source: Source,
    /// What to send; comes back with the event.
    pub data: Data,
    /// Whether to copy.
    pub mode: SendMode,
}

/// Shuts down a direction of a connection, after the sends submitted before: event
/// [`What::Done`](crate::What::Done).
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// A connected stream socket.
    pub source: Source,
    /// Which direction.
    pub how: How,
}

/// How [`Close`] treats what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseMode {
    /// Let queued sends leave first.
    Graceful,
    /// Cancel everything. A connection with zero-copy sends that the peer has not taken is reset.
    Abort,
}

/// Closes a source, whoever holds it: its operations end (see [`CloseMode`]), each with its own
/// last event; then the descriptor is closed; then comes [`What::Closed`](crate::What::Closed).
/// From the submission on nothing else is accepted on the source.
///
/// An operation that a worker thread of the kernel did (see [`Config::force_async`]) may hold the
/// socket open for a moment after its end: then the peer sees the connection's end when this queue
/// sleeps next in [`Queue::wait`](crate::Queue::wait), or sleeps there already. A thread that goes to
/// wait for the peer by other means may keep it from that.
///
/// [`Config::force_async`]: crate::Config::force_async
#[derive(Debug, Clone)]
pub struct Close {
    /// What to close.
    pub source: Source,
    /// What about the operations on it.
    pub mode: CloseMode,
}

#[derive(Debug)]
pub(crate) struct Accepting(Mode);

impl Accepting {
    pub(crate) fn is_stream(&self) -> bool {
        self.0 == Mode::Stream
    }
}

impl Machine for Accepting {
    fn next(&mut self, source: &Source, _: &mut Scratch) -> Call {
        Call::Accept { fd: source.raw(), many: self.0 == Mode::Stream }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(fd) => {
                let accepted = What::Accepted(Source::new(own(fd as RawFd), Kind::Stream));
                if self.0 == Mode::Stream { Verdict::More(accepted) } else { Verdict::Last(accepted) }
            }
            Err(libc::ECONNABORTED | libc::EAGAIN) => Verdict::Again,
            Err(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) if self.0 == Mode::Stream => {
                Verdict::Pause
            }
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connecting {
    to: SocketAddr,
    started: bool,
}

impl Machine for Connecting {
    fn next(&mut self, source: &Source, scratch: &mut Scratch) -> Call {
        if std::mem::replace(&mut self.started, true) {
            return Call::Connected { fd: source.raw() };
        }
        let len = encode(&self.to, &mut scratch.address) as u32;
        Call::Connect { fd: source.raw(), addr: scratch.address.as_ptr(), len }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(_) => Verdict::Last(What::Connected),
            Err(libc::EINPROGRESS | libc::EALREADY | libc::EAGAIN) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Receive(Mode);

impl Receive {
    pub(crate) fn is_stream(&self) -> bool {
        self.0 == Mode::Stream
    }
}

impl Machine for Receive {
    fn next(&mut self, source: &Source, _: &mut Scratch) -> Call {
        Call::RecvPool { fd: source.raw(), many: self.0 == Mode::Stream }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(0) => Verdict::Last(What::Eof),
            Ok(_) => match outcome.buf {
                Some(buf) if self.0 == Mode::Stream => Verdict::More(What::Data(buf)),
                Some(buf) => Verdict::Last(What::Data(buf)),
                None => Verdict::Again,
            },
            Err(libc::ENOBUFS) => Verdict::Starved,
            Err(libc::EAGAIN) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

#[derive(Debug)]
pub(crate) struct ReceiveInto {
    into: Filling,
    fill: bool,
}

impl Machine for ReceiveInto {
    fn next(&mut self, source: &Source, _: &mut Scratch) -> Call {
        let (at, len) = self.into.rest();
        Call::Recv { fd: source.raw(), at, len, fill: self.fill }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(count) => match self.into.note(count) {
                true if self.fill && count > 0 => Verdict::Again,
                _ => Verdict::Last(self.into.read()),
            },
            Err(libc::EAGAIN) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }

    fn take(&mut self) -> (u64, Operands) {
        self.into.take()
    }
}

/// Bytes on their way out, and how far they got.
#[derive(Debug)]
pub(crate) struct Sending {
    from: Emptying,
    mode: SendMode,
    /// The call under way asked for no copy.
    asked: bool,
    /// Notices of the kernel that are still to come.
    notices: u32,
    /// What those that came said.
    copied: bool,
    /// It failed, but notices are to come.
    failed: Option<i32>,
}

impl Sending {
    fn new(data: Data, mode: SendMode) -> Sending {
        let from = Emptying::new(data);
        Sending { from, mode, asked: false, notices: 0, copied: false, failed: None }
    }

    pub(crate) fn wants_zero_copy(&self, source: &Source) -> bool {
        match self.mode {
            SendMode::Copy => false,
            SendMode::Auto => self.from.left() >= ZERO_COPY_MIN && source.0.route.get().is_promising(),
            SendMode::ZeroCopy => true,
        }
    }

    /// The bytes that are left.
    pub(crate) fn from(&self) -> &Emptying {
        &self.from
    }

    /// The kernel is done with the memory of a zero-copy send. True if it was the last notice.
    pub(crate) fn notice(&mut self, source: &Source, copied: bool) -> bool {
        self.notices = self.notices.saturating_sub(1);
        self.copied |= copied;
        let Route { sends, copied: so_far } = source.0.route.get();
        source.0.route.set(Route { sends: sends + 1, copied: so_far + u32::from(copied) });
        self.notices == 0
    }

    /// Whether notices are to come; if so, the send has failed once they have.
    pub(crate) fn linger(&mut self, errno: i32) -> bool {
        if self.notices > 0 {
            self.failed = Some(errno);
        }
        self.notices > 0
    }

    /// The event that gives the memory back, or the error number of a send that failed.
    pub(crate) fn release(&mut self) -> Result<What, i32> {
        if let Some(errno) = self.failed {
            return Err(errno);
        }
        let how = if self.copied { ZeroCopy::Copied } else { ZeroCopy::Used };
        Ok(What::Released(self.from.take().1, how))
    }

    fn all_left(&mut self) -> Verdict {
        if self.notices > 0 {
            let bytes = self.from.done();
            return Verdict::Lingering(What::Sent { bytes, data: None });
        }
        let (bytes, data) = self.from.take();
        Verdict::Last(What::Sent { bytes, data: Some(data) })
    }
}

/// One call that sends the slices in `scratch`.
pub(crate) fn send_slices(fd: RawFd, scratch: &mut Scratch, zero_copy: bool) -> Call {
    scratch.message = empty_message();
    scratch.message.msg_iov = scratch.slices.as_mut_ptr();
    scratch.message.msg_iovlen = scratch.slices.len();
    Call::SendMsg { fd, message: &raw const scratch.message, zero_copy }
}

impl Machine for Sending {
    fn next(&mut self, source: &Source, scratch: &mut Scratch) -> Call {
        let zero_copy = self.wants_zero_copy(source);
        self.asked = zero_copy;
        if let Some(rest) = self.from.piece() {
            return Call::Send { fd: source.raw(), at: rest.as_ptr(), len: rest.len(), zero_copy };
        }
        scratch.slices.clear();
        self.from.gather(&mut scratch.slices);
        send_slices(source.raw(), scratch, zero_copy)
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        self.notices += u32::from(outcome.notice);
        match outcome.number() {
            Ok(count) if self.from.note(count) => self.all_left(),
            Ok(_) | Err(libc::EAGAIN) => Verdict::Again,
            // Not here, or not so much memory may be pinned: copy instead.
            Err(libc::EOPNOTSUPP | libc::ENOMEM | libc::ENOBUFS) if self.asked => {
                self.mode = SendMode::Copy;
                Verdict::Again
            }
            Err(errno) if self.notices > 0 => {
                self.failed = Some(errno);
                Verdict::Hold
            }
            Err(errno) => Verdict::Fail(errno),
        }
    }

    fn take(&mut self) -> (u64, Operands) {
        let (done, data) = self.from.take();
        (done, Operands::Data(data))
    }
}

#[derive(Debug)]
pub(crate) struct Shutting(How);

impl Machine for Shutting {
    fn next(&mut self, source: &Source, _: &mut Scratch) -> Call {
        let how = match self.0 {
            How::Read => libc::SHUT_RD,
            How::Write => libc::SHUT_WR,
            How::Both => libc::SHUT_RDWR,
        };
        Call::Shutdown { fd: source.raw(), how }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(_) => Verdict::Last(What::Done),
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

/// Driven by the queue itself.
#[derive(Debug)]
pub(crate) struct Closing(pub(crate) CloseMode);

/// Operations with a source and nothing to give back but themselves.
macro_rules! step {
    ($op:ident, |$o:ident| $right:expr, $ordered:expr, $work:expr) => {
        impl Sealed for $op {}
        impl Step for $op {
            fn prepare(self, io: &mut Io) -> Result<(), Rejected<$op>> {
                let $o = self;
                if let Some(why) = refuse(&$o.source, $right) {
                    return Err(Rejected { op: $o, why });
                }
                let source = $o.source.clone();
                io.fill(source, $ordered, $work);
                Ok(())
            }
        }
    };
}
pub(crate) use step;

step!(Accept, |op| op.source.kind() == Kind::Stream, false, Work::Accept(Accepting(op.mode)));
step!(Connect, |op| matches!(op.source.kind(), Kind::Stream | Kind::Datagram), false, {
    Work::Connect(Connecting { to: op.to, started: false })
});
step!(Recv, |op| op.source.kind() == Kind::Stream, false, Work::Receive(Receive(op.mode)));
step!(
    RecvInto,
    |op| op.source.kind() == Kind::Stream && !op.buf.is_empty(),
    false,
    Work::ReceiveInto(ReceiveInto { into: Filling::new(op.buf), fill: op.fill })
);
step!(Send, |op| op.source.kind() == Kind::Stream, true, Work::Send(Sending::new(op.data, op.mode)));
step!(Shutdown, |op| op.source.kind() == Kind::Stream, true, Work::Shutdown(Shutting(op.how)));
step!(Close, |_op| true, false, Work::Close(Closing(_op.mode)));
