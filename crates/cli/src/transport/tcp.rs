//! What the TCP client and server share: socket options, calls that may or may not wait, readiness.
//!
//! The sockets stay in blocking mode and each call says whether it may wait: so a peer with one connection and
//! nothing else to do waits inside `recv` and needs no second system call for readiness.

use std::{
    io::{self, ErrorKind},
    net::TcpStream,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        socket::{MsgFlags, recv},
        time::TimeSpec,
    },
};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

/// What a peer does when it has nothing to do, the same for every transport.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Waiting {
    /// Sleep in the kernel until something arrives or is due. (Homa by its default policy, which looks for a moment
    /// first.)
    Block,
    /// Ask again and again.
    Spin,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Waiting::Block => "block",
            Waiting::Spin => "spin",
        })
    }
}

/// The congestion control of the TCP peers: what TCP means in all measurements.
pub const CONGESTION: &str = "cubic";

/// Sets the options of a connection: no delay of small segments; CUBIC whatever the system's default is.
pub fn configure(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    // Where the kernel has no CUBIC, its default must do.
    let _ = SockRef::from(stream).set_tcp_congestion(CONGESTION.as_bytes());
    Ok(())
}

/// The congestion control that a connection uses, for the report.
pub fn congestion(stream: &TcpStream) -> String {
    let name = SockRef::from(stream).tcp_congestion().unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
}

/// Receives into the buffer; `None`: nothing there (only without `wait`), 0: the stream has ended.
pub fn receive(stream: &TcpStream, buffer: &mut [u8], wait: bool) -> io::Result<Option<usize>> {
    let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    match recv(stream.as_raw_fd(), buffer, flags) {
        Ok(n) => Ok(Some(n)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(Errno::ECONNRESET) => Ok(Some(0)),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends what fits without waiting.
pub fn send(stream: &TcpStream, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match SockRef::from(stream).send_vectored_with_flags(slices, flags.bits()) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}

/// What a connection waits for, and what it got.
#[derive(Copy, Clone, Debug)]
pub struct Interest {
    /// Bytes to read, or the end of the stream.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

/// Sleeps until one of the streams is ready or the timeout is over, to the nanosecond. (`ppoll`: with at most a
/// handful of connections it costs no more than epoll, and epoll counts milliseconds.)
pub fn wait<'a>(
    streams: impl Iterator<Item = (&'a TcpStream, Interest)>,
    timeout: Option<Duration>,
    ready: &mut Vec<Interest>,
) -> Result<()> {
    let mut fds: Vec<PollFd<'_>> = streams
        .map(|(stream, interest)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, interest.read);
            flags.set(PollFlags::POLLOUT, interest.write);
            PollFd::new(stream.as_fd(), flags)
        })
        .collect();
    match ppoll(&mut fds, timeout.map(TimeSpec::from_duration), None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("waiting for connections"),
    }
    ready.clear();
    ready.extend(fds.iter().map(|fd| {
        let flags = fd.revents().unwrap_or(PollFlags::empty());
        Interest {
            read: flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR),
            write: flags.contains(PollFlags::POLLOUT),
        }
    }));
    Ok(())
}
