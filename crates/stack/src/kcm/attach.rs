//! Putting streams below a mux and taking them off: checks of what a descriptor is, connecting, listening.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as SystemInstant};

use peyk_kcm::error::{Code, FrameError};
use peyk_kcm::framer::{Framer, Resume, Spread, Verdict};
use peyk_kcm::{AttachOptions, Config, PsockId, Unattached};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::conn::{Conn, Stream, TcpConn};
use super::engine::{FRAMING, Mux, Shared};
use super::keeper;
use super::socket::Socket;
use crate::sys::{READ_EDGE, READ_LEVEL, WRITE_EDGE};

/// A stream was not attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// It is not TCP over IPv4 or IPv6, or it listens, or it is not connected.
    #[error("not a connected TCP socket: {0}")]
    Unsupported(&'static str),
    /// The connection is attached already, here or elsewhere in this process.
    #[error("the connection is attached already")]
    Already,
    /// The mux refuses it.
    #[error(transparent)]
    Mux(#[from] peyk_kcm::error::AttachError),
    /// The system refuses something.
    #[error(transparent)]
    Os(#[from] io::Error),
}

/// A connection was not taken off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnattachError {
    /// No such connection on this mux.
    #[error("no such connection")]
    Unknown,
    /// It is being taken off already, or its own handler or framer asks for it.
    #[error("the connection is in use by its own handler or framer, or being taken off already")]
    Already,
}

/// Connections that may wait to be accepted; the system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Connections attached anywhere in this process: device and inode of their descriptors.
static OWNED: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

fn own(fd: BorrowedFd<'_>) -> Result<(u64, u64), AttachError> {
    let meta = std::fs::File::from(fd.try_clone_to_owned()?).metadata()?;
    let identity = (meta.dev(), meta.ino());
    match OWNED.lock().unwrap_or_else(PoisonError::into_inner).insert(identity) {
        true => Ok(identity),
        false => Err(AttachError::Already),
    }
}

pub(super) fn disown(identity: (u64, u64)) {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner).remove(&identity);
}

/// A framer whose panic ends its connection and nothing else, and which cannot enter the mux that runs it.
struct Guarded {
    framer: Box<dyn Framer>,
    /// What names its mux.
    mux: usize,
}

impl Guarded {
    fn guard<T>(&mut self, run: impl FnOnce(&mut dyn Framer) -> T) -> std::thread::Result<T> {
        let before = FRAMING.replace(self.mux);
        let outcome = catch_unwind(AssertUnwindSafe(|| run(self.framer.as_mut())));
        FRAMING.set(before);
        outcome
    }
}

const PANICKED: FrameError = FrameError { code: Code::FAULT, why: "the framer panicked" };

impl Framer for Guarded {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        self.guard(|framer| framer.frame(bytes, resume)).unwrap_or(Verdict::Bad(PANICKED))
    }

    fn frame_all(
        &mut self,
        bytes: &[u8],
        limits: (usize, usize),
        resume: &mut Resume,
        lengths: &mut Vec<u32>,
    ) -> usize {
        let before = lengths.len();
        let all = self.guard(|framer| framer.frame_all(bytes, limits, resume, lengths));
        // The message that it panicked at comes again, and ends the connection then.
        all.unwrap_or_else(|_| lengths[before..].iter().map(|length| *length as usize).sum())
    }

    fn finished(&mut self, message: &[u8]) {
        let _ = self.guard(|framer| framer.finished(message));
    }

    fn max_header(&self) -> usize {
        self.framer.max_header()
    }

    fn spread(&self) -> Spread {
        self.framer.spread()
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(Guarded { framer: self.framer.fresh(), mux: self.mux })
    }
}

/// Where connections come in.
pub(super) struct Listener {
    pub(super) listener: TcpListener,
    framer: Box<dyn Framer>,
    pub(super) token: u64,
}

/// A listening address; connections come in as long as the mux lives.
#[derive(Clone, Copy, Debug)]
pub struct ListenHandle {
    addr: SocketAddr,
}

impl ListenHandle {
    /// The address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Mux {
    /// A mux with its first socket.
    ///
    /// # Errors
    /// The system has no descriptor or thread to give.
    pub fn open(config: Config) -> io::Result<(Mux, Socket)> {
        let (shared, first) = Shared::new(config)?;
        keeper::start(&shared)?;
        let mux = Mux(shared);
        let socket = Socket::new(mux.clone(), first);
        Ok((mux, socket))
    }

    /// Attaches a connected TCP socket. Its messages go to the sockets of the mux, and theirs over it.
    ///
    /// # Errors
    /// It is none, it is attached already, or the mux refuses it; then it is closed unless others hold it.
    pub fn attach(&self, tcp: TcpStream, framer: Box<dyn Framer>) -> Result<PsockId, AttachError> {
        let options = AttachOptions { addr: tcp.peer_addr().ok(), only_targeted: false };
        self.attach_with(tcp, framer, options)
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Mux::attach`].
    pub fn attach_with(
        &self,
        tcp: TcpStream,
        framer: Box<dyn Framer>,
        options: AttachOptions,
    ) -> Result<PsockId, AttachError> {
        let socket = SockRef::from(&tcp);
        if socket.r#type()? != Type::STREAM {
            return Err(AttachError::Unsupported("not a stream"));
        }
        if !matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6) {
            return Err(AttachError::Unsupported("neither IPv4 nor IPv6"));
        }
        if socket.is_listener()? {
            return Err(AttachError::Unsupported("it listens"));
        }
        // A socket that is connecting has a local port and no peer yet.
        let is_connecting = socket.peer_addr().is_err();
        if is_connecting && tcp.local_addr().map_or(0, |addr| addr.port()) == 0 {
            return Err(AttachError::Unsupported("neither connected nor connecting"));
        }
        self.attach_stream(Box::new(TcpConn::new(tcp)?), framer, options, is_connecting)
    }

    /// Attaches any stream: TLS, a Unix socket, one of your own.
    ///
    /// # Errors
    /// It is attached already, or the mux refuses it.
    pub fn attach_stream(
        &self,
        stream: Box<dyn Stream>,
        framer: Box<dyn Framer>,
        options: AttachOptions,
        is_connecting: bool,
    ) -> Result<PsockId, AttachError> {
        let shared = &self.0;
        let identity = own(stream.fd())?;
        let mut core = shared.lock();
        let id = match core.mux.attach(Box::new(Guarded { framer, mux: shared.name() }), options) {
            Ok(id) => id,
            Err(error) => {
                disown(identity);
                return Err(error.into());
            }
        };
        let conn = Arc::new(Conn::new(id, stream, identity, is_connecting));
        core.put(conn.clone());
        let added = shared
            .writes
            .add(conn.stream.fd(), WRITE_EDGE, id.to_bits())
            .and_then(|()| shared.reads.add(conn.stream.fd(), READ_EDGE, id.to_bits()));
        if let Err(error) = added {
            core.take(id);
            let _ = core.mux.unattach(id, shared.now());
            shared.forget(&conn);
            return Err(error.into());
        }
        // What a stream has in buffers of its own raises no edge.
        core.pending.push_back(id);
        shared.leave(core);
        shared.ring_reader();
        Ok(id)
    }

    /// Connects and attaches.
    ///
    /// # Errors
    /// Nobody is there, or as [`Mux::attach`].
    pub fn connect(&self, addr: SocketAddr, framer: Box<dyn Framer>) -> Result<PsockId, AttachError> {
        self.attach(TcpStream::connect_timeout(&addr, Duration::from_secs(10))?, framer)
    }

    /// Attaches every connection that comes in at `addr`, with a fresh framer each. They take messages for
    /// any connection only if `is_any` says so; replies by token always find them.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn listen(
        &self,
        addr: SocketAddr,
        framer: Box<dyn Framer>,
        is_any: bool,
    ) -> io::Result<ListenHandle> {
        let listener = listen_at(addr)?;
        let addr = listener.local_addr()?;
        let mut core = self.0.lock();
        let token = keeper::LISTENER + 2 * core.accepted.len() as u64 + u64::from(is_any);
        self.0.writes.add(listener.as_fd(), READ_LEVEL, token)?;
        core.accepted.push(Listener { listener, framer, token });
        Ok(ListenHandle { addr })
    }

    /// Takes a connection off and gives it back as it was, with what had been read and not delivered. What
    /// was being sent over it for a socket goes over another.
    ///
    /// # Errors
    /// It is not here, or it cannot be had now.
    pub fn unattach(&self, psock: PsockId) -> Result<(Unattached, Option<TcpStream>), UnattachError> {
        let shared = &self.0;
        if shared.is_framing() {
            return Err(UnattachError::Already);
        }
        let conn = shared.lock().conn(psock).cloned().ok_or(UnattachError::Unknown)?;
        let deadline = SystemInstant::now() + Duration::from_secs(5);
        // Whoever reads or writes it is let finish.
        while !conn.begin_read() {
            // Another has taken it off and waits for this hold on it to end.
            if shared.lock().conn(psock).is_none() {
                return Err(UnattachError::Unknown);
            }
            if SystemInstant::now() > deadline {
                return Err(UnattachError::Already);
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        let mut core = shared.lock();
        while core.mux.is_writing(psock) {
            drop(core);
            std::thread::sleep(Duration::from_micros(20));
            core = shared.lock();
        }
        if core.take(psock).is_none() {
            return Err(UnattachError::Unknown);
        }
        let off = core.mux.unattach(psock, shared.now()).map_err(|_| UnattachError::Unknown)?;
        shared.forget(&conn);
        shared.leave(core);
        // Others may hold the connection for a moment more; it is given back by the last.
        let mut conn = conn;
        let stream = loop {
            match Arc::try_unwrap(conn) {
                Ok(conn) => break conn.stream.release(),
                Err(shared) if SystemInstant::now() > deadline => {
                    drop(shared);
                    break None;
                }
                Err(shared) => {
                    conn = shared;
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
        };
        Ok((off, stream))
    }

    /// Closes a connection: its peer sees the end, messages of it that wait are still delivered.
    ///
    /// # Errors
    /// It is not here.
    pub fn close_psock(&self, psock: PsockId) -> Result<(), UnattachError> {
        let shared = &self.0;
        let mut core = shared.lock();
        let conn = core.conn(psock).cloned().ok_or(UnattachError::Unknown)?;
        core.mux.stream_dropped(psock, shared.now());
        conn.stream.shut_down();
        shared.leave(core);
        Ok(())
    }

    /// Says how connections to an address are framed when a message for it comes and none is there:
    /// they are then made on demand.
    pub fn connect_on_demand(&self, framer: Box<dyn Framer>) {
        self.0.lock().on_demand = Some(framer);
    }
}

impl Shared {
    /// The keeper accepts what waits at a listener.
    pub(super) fn accept(self: &Arc<Self>, token: u64) {
        loop {
            let core = self.lock();
            let Some(listener) = core.accepted.iter().find(|listener| listener.token == token) else {
                return;
            };
            let (accepted, framer) = (listener.listener.accept(), listener.framer.fresh());
            drop(core);
            match accepted {
                Ok((tcp, addr)) => {
                    let options = AttachOptions { addr: Some(addr), only_targeted: token.is_multiple_of(2) };
                    if let Err(error) = Mux(self.clone()).attach_with(tcp, framer, options) {
                        tracing::debug!(%addr, %error, "connection refused");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, most likely: the backlog waits.
                    tracing::debug!(%error, "accept failed");
                    std::thread::sleep(Duration::from_millis(10));
                    return;
                }
            }
        }
    }

    pub(super) fn connect_to(self: &Arc<Self>, addr: SocketAddr) {
        let framer = self.lock().on_demand.as_ref().map(|framer| framer.fresh());
        let Some(framer) = framer else { return };
        let outcome = begin_connect(addr).map_err(AttachError::from).and_then(|tcp| {
            let options = AttachOptions { addr: Some(addr), only_targeted: true };
            Mux(self.clone()).attach_stream(Box::new(TcpConn::new(tcp)?), framer, options, true)
        });
        if let Err(error) = outcome {
            let code = match &error {
                AttachError::Os(os) => Code(os.raw_os_error().unwrap_or(Code::NOTCONN.0)),
                _ => Code::NOTCONN,
            };
            let mut core = self.lock();
            core.mux.connect_failed(addr, code);
            self.leave(core);
        }
    }
}

/// As the standard library does it, but for the backlog: 128 that connect at once would be a limit on a quick
/// machine, and who comes too much tries again after a second.
fn listen_at(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn begin_connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(addr)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}
