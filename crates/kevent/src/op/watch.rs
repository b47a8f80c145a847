//! Operations that wait for something to happen: readiness, signals, the end of a process.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::call::Call;
use crate::event::What;
use crate::io::{Io, Machine, Outcome, Scratch, Verdict, Work};
use crate::op::sealed::Sealed;
use crate::op::{Refusal, Rejected, Step, refuse};
use crate::source::{Kind, Source};
use crate::sys;

/// Conditions of a descriptor, asked for or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest(pub(crate) u32);

impl Interest {
    /// There is something to read, or the end has come.
    pub const READ: Interest = Interest(libc::POLLIN as u32);
    /// There is room to write.
    pub const WRITE: Interest = Interest(libc::POLLOUT as u32);
    /// The other side is gone; found, whether asked for or not.
    pub const HANGUP: Interest = Interest(libc::POLLHUP as u32);
    /// An error waits to be collected; found, whether asked for or not.
    pub const ERROR: Interest = Interest(libc::POLLERR as u32);

    /// Whether any of `other` is among these.
    pub fn has(self, other: Interest) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

/// When [`Poll`] reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollMode {
    /// Once; it ends the operation.
    Once,
    /// Each time that a condition comes about anew: data left unread is not reported again.
    Edge,
    /// In each wait in which a condition holds.
    Level,
}

/// Reports conditions of a descriptor: event [`What::Ready`](crate::What::Ready). What is always
/// ready, such as a file, is reported once, or in each wait if that is asked for.
#[derive(Debug, Clone)]
pub struct Poll {
    /// Any source.
    pub source: Source,
    /// Conditions of interest.
    pub interest: Interest,
    /// When to report.
    pub mode: PollMode,
}

/// Collects signals sent to this process until cancelled: event
/// [`What::Signal`](crate::What::Signal).
///
/// They are blocked for the calling thread, so that they do not act by themselves; threads started
/// before must block them, too.
#[derive(Debug, Clone)]
pub struct Signal {
    /// Their numbers.
    pub signals: Vec<i32>,
}

/// Waits for the end of a child process and collects it: event
/// [`What::Exited`](crate::What::Exited).
#[derive(Debug, Clone)]
pub struct ChildExit {
    /// Its number.
    pub pid: u32,
}

#[derive(Debug)]
pub(crate) struct Polling {
    interest: Interest,
    mode: PollMode,
}

impl Polling {
    pub(crate) fn is_stream(&self) -> bool {
        self.mode != PollMode::Once
    }
}

impl Machine for Polling {
    fn next(&mut self, source: &Source, _: &mut Scratch) -> Call {
        Call::Poll { fd: source.raw(), mask: self.interest.0, many: self.mode == PollMode::Edge }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(found) => {
                let ready = What::Ready(Interest(found as u32));
                match self.mode {
                    PollMode::Once => Verdict::Last(ready),
                    PollMode::Edge => Verdict::More(ready),
                    PollMode::Level => Verdict::MoreLater(ready),
                }
            }
            Err(libc::EAGAIN) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Signals;

/// Bytes the kernel writes for one signal.
const INFO: usize = size_of::<libc::signalfd_siginfo>();
const _: () = assert!(INFO == 128);

impl Machine for Signals {
    fn next(&mut self, source: &Source, scratch: &mut Scratch) -> Call {
        Call::Take { fd: source.raw(), at: scratch.small.as_mut_ptr(), len: INFO }
    }

    fn advance(&mut self, _: &Source, scratch: &mut Scratch, outcome: Outcome) -> Verdict {
        let word = |at: usize| {
            u32::from_ne_bytes([0, 1, 2, 3].map(|i| scratch.small.get(at + i).copied().unwrap_or(0)))
        };
        match outcome.number() {
            // Number first; the sender is the fourth word.
            Ok(_) => Verdict::More(What::Signal { number: word(0) as i32, from: word(12) }),
            Err(libc::EAGAIN) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Child;

impl Machine for Child {
    fn next(&mut self, source: &Source, scratch: &mut Scratch) -> Call {
        Call::Reap { fd: source.raw(), info: &raw mut scratch.info }
    }

    fn advance(&mut self, _: &Source, scratch: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(_) => {
                let status = crate::sys::status(&scratch.info);
                // As wait(2) has it: the exit code in the second byte, or the signal in the first.
                let raw = match scratch.info.si_code {
                    libc::CLD_EXITED => (status & 0xff) << 8,
                    libc::CLD_DUMPED => status | 0x80,
                    _ => status,
                };
                Verdict::Last(What::Exited(ExitStatus::from_raw(raw)))
            }
            Err(libc::EAGAIN) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

impl Sealed for Poll {}
impl Step for Poll {
    fn prepare(self, io: &mut Io) -> Result<(), Rejected<Poll>> {
        if let Some(why) = refuse(&self.source, true) {
            return Err(Rejected { op: self, why });
        }
        let Poll { source, interest, mode } = self;
        io.fill(source, false, Work::Poll(Polling { interest, mode }));
        Ok(())
    }
}

impl Sealed for Signal {}
impl Step for Signal {
    fn prepare(self, io: &mut Io) -> Result<(), Rejected<Signal>> {
        match sys::signal_fd(&self.signals) {
            Ok(fd) => io.fill(Source::new(fd, Kind::Other), false, Work::Signals(Signals)),
            Err(_) => return Err(Rejected { op: self, why: Refusal::System }),
        }
        Ok(())
    }
}

impl Sealed for ChildExit {}
impl Step for ChildExit {
    fn prepare(self, io: &mut Io) -> Result<(), Rejected<ChildExit>> {
        match sys::pid_fd(self.pid) {
            Ok(fd) => io.fill(Source::new(fd, Kind::Other), false, Work::Child(Child)),
            Err(_) => return Err(Rejected { op: self, why: Refusal::System }),
        }
        Ok(())
    }
}
