//! Sources: the descriptors a queue has adopted, each with its kind and the operations on it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::op::OpId;
use crate::sys::{self, socket};

/// What a descriptor is; checked once, when it is adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A socket of datagrams.
    Datagram,
    /// A socket of a byte stream, or one that listens for them.
    Stream,
    /// A regular file or block device. `align`: 0, or what offsets, lengths and addresses of direct
    /// access must be a multiple of.
    File {
        /// Bytes.
        align: u32,
    },
    /// Anything else: pipes, terminals, event descriptors. It can be polled.
    Other,
}

/// A descriptor the queue has adopted. Clones name the same one; it is closed when the last clone
/// and the last operation on it are gone, or by [`Close`](crate::Close).
#[derive(Debug, Clone)]
pub struct Source(pub(crate) Rc<SourceInner>);

#[derive(Debug)]
pub(crate) struct SourceInner {
    /// The number, -1 once closed.
    number: Cell<RawFd>,
    owner: RefCell<Option<OwnedFd>>,
    /// Names the source in the kernel's readiness reports.
    pub(crate) key: u64,
    pub(crate) kind: Kind,
    /// What a datagram socket was connected to when it was opened.
    pub(crate) remote: Option<SocketAddr>,
    /// Datagrams of others may have come before it was connected, and be there still.
    pub(crate) mixed: Cell<bool>,
    /// Receives may bring trains; else the shorter call will do.
    pub(crate) trains: Cell<bool>,
    /// Plain receives look here now and then only.
    pub(crate) rare: Cell<bool>,
    /// Traffic class of the socket itself, and how it comes to be changed.
    pub(crate) class: Cell<SocketClass>,
    /// Trains waiting for room, oldest first; only the first is known to the kernel.
    pub(crate) sends: RefCell<VecDeque<OpId>>,
    /// Sends, sendfiles and shutdowns of a stream, oldest first; only the first is under way.
    pub(crate) out: RefCell<VecDeque<OpId>>,
    /// All operations in flight on it but trains and datagram streams.
    pub(crate) ops: RefCell<Vec<OpId>>,
    /// The operation that will close it; nothing else is accepted any more.
    pub(crate) closing: Cell<Option<OpId>>,
    /// epoll: operations that wait for readiness, and for which.
    pub(crate) waits: RefCell<Vec<(OpId, u32)>>,
    /// Place in the ring's table of registered files.
    pub(crate) fixed: Cell<Option<u32>>,
    /// The descriptor itself has been told not to wait, for calls that know no flag for it.
    pub(crate) nonblocking: Cell<bool>,
    pub(crate) route: Cell<Route>,
    /// Reads to be handed over at once because the file was not in memory.
    pub(crate) cold: Cell<u8>,
}

/// What zero-copy sends turned out to be on this source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Route {
    pub(crate) sends: u32,
    pub(crate) copied: u32,
}

impl Route {
    /// Zero-copy sends after which the verdict stands.
    const TRIES: u32 = 16;

    /// Whether zero copy is worth asking for: not once half of the tries were copies.
    pub(crate) fn is_promising(self) -> bool {
        self.sends < Route::TRIES || self.copied * 2 < self.sends
    }
}

thread_local! {
    static NEXT_KEY: Cell<u64> = const { Cell::new(1) };
}

/// Keys above this mark other things in readiness reports.
pub(crate) const KEY_MAX: u64 = 1 << 62;

impl Source {
    pub(crate) fn new(fd: OwnedFd, kind: Kind) -> Source {
        Source::make(Some(fd), kind, None, true)
    }

    /// Stands for the source of an operation that needs none.
    pub(crate) fn nowhere() -> Source {
        Source::make(None, Kind::Other, None, true)
    }

    fn make(fd: Option<OwnedFd>, kind: Kind, remote: Option<SocketAddr>, trains: bool) -> Source {
        let key = NEXT_KEY.with(|next| next.replace(next.get() + 1)) % KEY_MAX;
        Source(Rc::new(SourceInner {
            number: Cell::new(fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)),
            owner: RefCell::new(fd),
            key,
            kind,
            remote,
            mixed: true.into(),
            trains: trains.into(),
            rare: false.into(),
            class: Cell::default(),
            sends: RefCell::default(),
            out: RefCell::default(),
            ops: RefCell::default(),
            closing: Cell::default(),
            waits: RefCell::default(),
            fixed: Cell::default(),
            nonblocking: Cell::default(),
            route: Cell::default(),
            cold: Cell::default(),
        }))
    }

    /// Looks at what `fd` is.
    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Source> {
        let kind = sys::kind(&fd)?;
        match kind {
            // Operations decide for themselves whether they wait, and io_uring would take the
            // descriptor's own flag as a wish to fail at once.
            Kind::Datagram => {
                sys::set_nonblocking(fd.as_raw_fd(), false)?;
                // Sockets without traffic classes are adopted too; it does not matter to them.
                let _ = socket::set_class(&fd, 0);
            }
            Kind::Stream | Kind::Other => sys::set_nonblocking(fd.as_raw_fd(), false)?,
            Kind::File { .. } => {}
        }
        Ok(Source::new(fd, kind))
    }

    /// A datagram socket that is connected to `remote`; `trains` says whether it may receive some.
    pub(crate) fn adopt_connected(fd: OwnedFd, remote: SocketAddr, trains: bool) -> io::Result<Source> {
        sys::set_nonblocking(fd.as_raw_fd(), false)?;
        let _ = socket::set_class(&fd, 0);
        Ok(Source::make(Some(fd), Kind::Datagram, Some(remote), trains))
    }

    /// Looking again and again before a sleep, look here less often than elsewhere: little is
    /// expected, and each look costs a system call.
    pub fn set_rare(&self, rare: bool) {
        self.0.rare.set(rare);
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether it was closed by [`Close`](crate::Close) or is about to be.
    pub fn is_closed(&self) -> bool {
        self.raw() < 0 || self.0.closing.get().is_some()
    }

    /// The address a socket is bound to.
    ///
    /// # Errors
    /// It is no socket, or its addresses are of another kind.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(&self.raw())
    }

    /// The address a socket is connected to.
    ///
    /// # Errors
    /// As for [`Source::local_addr`], and when it is not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_addr(&self.raw())
    }

    /// Whether a TCP socket sends short segments at once instead of waiting for acknowledgements
    /// first (`TCP_NODELAY`). Right for requests and responses.
    ///
    /// # Errors
    /// It is no TCP socket.
    pub fn set_nodelay(&self, at_once: bool) -> io::Result<()> {
        socket::set(&self.raw(), libc::IPPROTO_TCP, libc::TCP_NODELAY, at_once.into())
    }

    /// Length of a file in bytes, as it is at this moment.
    ///
    /// # Errors
    /// The system does not say.
    pub fn file_len(&self) -> io::Result<u64> {
        sys::file_len(self.raw())
    }

    /// Takes the descriptor out, if nobody else holds the source and nothing is in flight on it.
    ///
    /// # Errors
    /// The source comes back.
    pub fn into_fd(self) -> Result<OwnedFd, Source> {
        if Rc::strong_count(&self.0) > 1 || !self.0.ops.borrow().is_empty() || self.0.fixed.get().is_some() {
            return Err(self);
        }
        if self.0.nonblocking.take() {
            // As it came; the descriptor is open, which is all that could be wrong.
            let _ = sys::set_nonblocking(self.raw(), false);
        }
        let owner = self.0.owner.borrow_mut().take();
        self.0.number.set(-1);
        owner.ok_or(self)
    }

    /// Tells the descriptor itself not to wait, once and for all: operations that do wait ask for it by
    /// other means.
    pub(crate) fn refuse_to_wait(&self) {
        if !self.0.nonblocking.get() {
            self.0.nonblocking.set(sys::set_nonblocking(self.raw(), true).is_ok());
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.number.get()
    }

    /// Closes the descriptor, whoever holds the source.
    pub(crate) fn close_fd(&self) {
        self.0.number.set(-1);
        drop(self.0.owner.borrow_mut().take());
    }

    /// The oldest train waiting for room.
    pub(crate) fn first_send(&self) -> Option<OpId> {
        self.0.sends.borrow().front().copied()
    }

    pub(crate) fn is(&self, other: &Source) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
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
