//! Operations, their identity, and the ways they can be refused.

use crate::caps::Attempt;
use crate::queue::Queue;
use crate::source::Source;

pub(crate) mod datagram;
pub(crate) mod deliver;
pub(crate) mod file;
pub(crate) mod sendfile;
pub(crate) mod socket;
pub(crate) mod timer;
pub(crate) mod transfer;
pub(crate) mod watch;

/// The caller's own data, returned untouched with each event of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Token(pub u64);

/// Names one accepted operation; a later operation in the same place has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Once or again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One result, which ends the operation.
    #[default]
    Once,
    /// Results until the operation is cancelled, fails or finds the end of the stream.
    Stream,
}

/// An operation that can be submitted.
pub trait Op: sealed::Sealed + Sized {
    /// Used by [`Queue::submit`].
    #[doc(hidden)]
    fn start(self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<Self>>;
}

/// An operation made of system calls that the common machinery drives; it can be part of a
/// [`Chain`](crate::Chain).
pub trait Step: sealed::Sealed + Sized {
    /// Moves the operation into its place, unless it makes no sense: then it comes back.
    #[doc(hidden)]
    fn prepare(self, io: &mut crate::io::Io) -> Result<(), Rejected<Self>>;

    /// The last event, if that can be had without waiting and without anything of the common machinery.
    #[doc(hidden)]
    fn at_once(&mut self, _: &mut Queue) -> Option<crate::event::What> {
        None
    }
}

impl<T: Step> Op for T {
    fn start(mut self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<T>> {
        if let Some(what) = self.at_once(queue) {
            return Ok(queue.core().ended_at_once(token, what));
        }
        let mut io = queue.spare_io();
        match self.prepare(&mut io) {
            Ok(()) => Ok(queue.launch(token, io)),
            Err(rejected) => {
                queue.keep_spare(io);
                Err(rejected)
            }
        }
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// Refuses an operation whose source is closed or of the wrong kind.
pub(crate) fn refuse(source: &Source, right: bool) -> Option<Refusal> {
    if source.is_closed() {
        return Some(Refusal::Closed);
    }
    (!right).then_some(Refusal::Invalid)
}

/// A refused operation, given back with everything it owns.
#[derive(Debug)]
pub struct Rejected<O> {
    /// The operation, as it was.
    pub op: O,
    /// Why.
    pub why: Refusal,
}

impl<O> std::fmt::Display for Rejected<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.why.fmt(f)
    }
}

impl<O: std::fmt::Debug> std::error::Error for Rejected<O> {}

/// Why an operation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// As many operations as the queue allows are in flight.
    #[error("too many operations in flight")]
    Full,
    /// The operation makes no sense: an empty train, a second receive on one socket, a file where a
    /// socket is wanted, direct access that is not aligned.
    #[error("operation is not valid here")]
    Invalid,
    /// The source is closed or about to be.
    #[error("source is closed")]
    Closed,
    /// The system refused what the operation needs: no such process, no such signal, no descriptors.
    #[error("the system refused")]
    System,
    /// The queue was moved to a child process by fork.
    #[error("queue belongs to the parent process")]
    Forked,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// Requested; the operation ends with its own last event, cancelled or complete.
    Requested,
    /// There is no such operation (any more).
    AlreadyDone,
}

/// A queue could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no backend can be used: {}", list(attempts))]
pub struct SetupError {
    /// Every backend tried, with the reason.
    pub attempts: Vec<Attempt>,
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A descriptor could not be adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The system refused.
    #[error(transparent)]
    Os(#[from] std::io::Error),
}

/// A wait failed; the queue stays usable unless it was forked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The queue was moved to a child process by fork.
    #[error("queue belongs to the parent process")]
    Forked,
    /// The system refused to wait.
    #[error(transparent)]
    Os(#[from] std::io::Error),
}

impl From<WaitError> for std::io::Error {
    fn from(e: WaitError) -> std::io::Error {
        match e {
            WaitError::Os(e) => e,
            WaitError::Forked => std::io::Error::other(e),
        }
    }
}
