//! Operations, their identity, and the ways they can be refused.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::caps::Attempt;
use crate::queue::Queue;
use crate::train::Train;

/// The caller's own data, returned untouched with each event of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Token(pub u64);

/// Names one accepted operation; a later operation in the same place has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A socket the queue has adopted. Clones name the same socket; it is closed when the last clone
/// and the last operation on it are gone.
#[derive(Debug, Clone)]
pub struct Source(pub(crate) Rc<SourceInner>);

#[derive(Debug)]
pub(crate) struct SourceInner {
    pub(crate) fd: OwnedFd,
    /// Names the source in the kernel's readiness reports.
    pub(crate) key: u64,
    /// What it is connected to.
    pub(crate) remote: Option<SocketAddr>,
    /// Datagrams of others may have come before it was connected, and be there still.
    pub(crate) mixed: Cell<bool>,
    /// Receives may bring trains; else the shorter call will do.
    pub(crate) trains: Cell<bool>,
    /// Plain receives look here now and then only.
    pub(crate) rare: Cell<bool>,
    /// Traffic class of the socket itself, and how it comes to be changed.
    pub(crate) class: Cell<SocketClass>,
    /// Sends waiting for room, oldest first; only the first is known to the kernel.
    pub(crate) sends: RefCell<VecDeque<OpId>>,
}

/// The traffic class a socket gives to what it sends. Saying it once is cheaper than saying it with
/// each send, if many sends in a row want the same.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SocketClass {
    /// As set now; adopted sockets start with 0.
    now: u8,
    /// What the latest sends wanted instead, and how many of them in a row.
    wanted: u8,
    streak: u8,
}

impl SocketClass {
    /// Sends in a row before the socket is changed.
    const STREAK: u8 = 32;

    /// Notes a send of this class; true if the socket should be given it.
    pub(crate) fn note(&mut self, class: u8) -> bool {
        if class == self.now {
            self.streak = 0;
            return false;
        }
        self.streak = if class == self.wanted { self.streak.saturating_add(1) } else { 1 };
        self.wanted = class;
        self.streak == SocketClass::STREAK
    }

    /// The socket has been given this class.
    pub(crate) fn set(&mut self, class: u8) {
        *self = SocketClass { now: class, wanted: class, streak: 0 };
    }

    pub(crate) fn now(self) -> u8 {
        self.now
    }
}

impl Source {
    pub(crate) fn raw(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }

    /// The oldest send waiting for room.
    pub(crate) fn first_send(&self) -> Option<OpId> {
        self.0.sends.borrow().front().copied()
    }

    /// Looking again and again before a sleep, look here less often than elsewhere: little is
    /// expected, and each look costs a system call.
    pub fn set_rare(&self, rare: bool) {
        self.0.rare.set(rare);
    }

    pub(crate) fn is(&self, other: &Source) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// Receives datagrams until cancelled: events [`What::Dgrams`](crate::What::Dgrams), and
/// [`What::Error`](crate::What::Error) for errors the network reported about earlier sends.
#[derive(Debug, Clone)]
pub struct RecvMsg {
    /// The socket; one receive operation at a time.
    pub source: Source,
}

/// Sends one train when the socket has room: event [`What::Sent`](crate::What::Sent). Trains of
/// one source leave in the order of submission.
#[derive(Debug)]
pub struct SendMsg {
    /// The socket.
    pub source: Source,
    /// What to send; comes back with the event.
    pub train: Box<Train>,
}

/// An operation that can be submitted.
pub trait Op: sealed::Sealed + Sized {
    /// Used by [`Queue::submit`].
    #[doc(hidden)]
    fn start(self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<Self>>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
    impl Sealed for super::RecvMsg {}
    impl Sealed for super::SendMsg {}
}

/// A refused operation, given back with everything it owns.
#[derive(Debug)]
pub struct Rejected<O> {
    /// The operation, as it was.
    pub op: O,
    /// Why.
    pub why: Refusal,
}

/// Why an operation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// As many operations as the queue allows are in flight.
    #[error("too many operations in flight")]
    Full,
    /// The operation makes no sense: an empty train, a second receive on one socket.
    #[error("operation is not valid here")]
    Invalid,
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
    /// Only datagram sockets are supported.
    #[error("not a datagram socket")]
    NotDatagram,
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
