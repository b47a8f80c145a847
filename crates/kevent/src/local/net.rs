//! TCP for tasks.

use std::io;
use std::net::{Shutdown as How, SocketAddr};
use std::os::fd::OwnedFd;

use crate::buf::Data;
use crate::event::What;
use crate::local::file::File;
use crate::local::{Local, Operation, refused, unexpected};
use crate::op::Mode;
use crate::op::sendfile::SendFile;
use crate::op::socket::{Accept, Close, CloseMode, Connect, Recv, Send, SendMode, Shutdown};
use crate::pool::RecvBuf;
use crate::source::Source;

/// Bytes received and not asked for before a stream is paused.
const INBOX: usize = 256 << 10;

/// Accepts connections.
#[derive(Debug)]
pub struct TcpListener {
    local: Local,
    source: Source,
    accept: Operation,
}

impl TcpListener {
    /// Listens at `addr`.
    ///
    /// # Errors
    /// Those of the system, or too many operations are in flight.
    pub fn bind(local: &Local, addr: SocketAddr) -> io::Result<TcpListener> {
        let listener = std::net::TcpListener::bind(addr)?;
        let source = local.with_queue(|q| q.adopt(OwnedFd::from(listener))).map_err(io::Error::other)?;
        let accept = Accept { source: source.clone(), mode: Mode::Stream };
        let accept = local.submit(accept).map_err(refused)?;
        Ok(TcpListener { local: local.clone(), source, accept })
    }

    /// The address it listens at.
    ///
    /// # Errors
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.local_addr()
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// Listening failed for good.
    pub async fn accept(&mut self) -> io::Result<TcpStream> {
        match self.accept.next().await {
            Some(What::Accepted(source)) => Ok(TcpStream::new(&self.local, source)),
            Some(other) => Err(unexpected(other)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// A connection; short sends leave at once (`TCP_NODELAY`). Dropping it closes it when queued sends have left; see [`TcpStream::abort`].
#[derive(Debug)]
pub struct TcpStream {
    local: Local,
    source: Source,
    recv: Option<Operation>,
    over: bool,
}

impl TcpStream {
    fn new(local: &Local, source: Source) -> TcpStream {
        // A connection that is gone already says so when it is used.
        let _ = source.set_nodelay(true);
        TcpStream { local: local.clone(), source, recv: None, over: false }
    }

    /// Connects to `to`.
    ///
    /// # Errors
    /// Those of the system, or too many operations are in flight.
    pub async fn connect(local: &Local, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = crate::sys::socket::stream_socket(&to)?;
        let source = local.with_queue(|q| q.adopt(socket)).map_err(io::Error::other)?;
        match local.submit(Connect { source: source.clone(), to }).map_err(refused)?.await {
            What::Connected => Ok(TcpStream::new(local, source)),
            other => Err(unexpected(other)),
        }
    }

    /// The source, for operations of one's own.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The address of the other side.
    ///
    /// # Errors
    /// Those of the system.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.source.peer_addr()
    }

    /// The next bytes; `None` at the end. Dropping the future loses none. While nobody asks, up to
    /// 256 KiB are received ahead, then the connection is left to its window.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn recv(&mut self) -> io::Result<Option<RecvBuf>> {
        while !self.over {
            let recv = match &mut self.recv {
                Some(recv) => recv,
                place => {
                    let op = Recv { source: self.source.clone(), mode: Mode::Stream };
                    place.insert(self.local.submit_limited(op, Some(INBOX)).map_err(refused)?)
                }
            };
            match recv.next().await {
                Some(What::Data(buf)) => return Ok(Some(buf)),
                Some(What::Eof) => self.over = true,
                // Paused because too much waited here.
                Some(What::Cancelled { .. }) | None => self.recv = None,
                Some(other) => {
                    self.over = true;
                    return Err(unexpected(other));
                }
            }
        }
        Ok(None)
    }

    /// Sends all of `data`, which comes back. Dropping the future does not call the send off.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn send(&self, data: impl Into<Data>) -> io::Result<Data> {
        self.send_by(data, SendMode::Copy).await
    }

    /// As [`TcpStream::send`], with or without a copy.
    ///
    /// # Errors
    /// As for [`TcpStream::send`].
    pub async fn send_by(&self, data: impl Into<Data>, mode: SendMode) -> io::Result<Data> {
        let op = Send { source: self.source.clone(), data: data.into(), mode };
        let mut send = self.local.submit(op).map_err(refused)?;
        send.keep = true;
        match send.await {
            What::Sent { data, .. } => Ok(data.unwrap_or_default()),
            What::Released(data, _) => Ok(data),
            other => Err(unexpected(other)),
        }
    }

    /// Sends `head`, then a part of a file; returns how many bytes left.
    ///
    /// # Errors
    /// Those of the connection and of the file; `ENODATA` if the file is shorter.
    pub async fn send_file(
        &self,
        head: impl Into<Data>,
        file: &File,
        offset: u64,
        len: u64,
    ) -> io::Result<u64> {
        let file = file.source().clone();
        let op = SendFile { source: self.source.clone(), file, offset, len, head: head.into() };
        let mut send = self.local.submit(op).map_err(refused)?;
        send.keep = true;
        match send.await {
            What::FileSent { bytes, .. } => Ok(bytes),
            other => Err(unexpected(other)),
        }
    }

    /// Says that nothing more will be sent, after what has been.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn shutdown(&self) -> io::Result<()> {
        let op = Shutdown { source: self.source.clone(), how: How::Write };
        let mut shutdown = self.local.submit(op).map_err(refused)?;
        shutdown.keep = true;
        match shutdown.await {
            What::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Closes the connection at once; queued sends are dropped.
    pub fn abort(self) {
        self.close(CloseMode::Abort);
    }

    fn close(&self, mode: CloseMode) {
        // Refused if closed already, or if there is no room; then the last clone closes it.
        if let Ok(close) = self.local.submit(Close { source: self.source.clone(), mode }) {
            close.detach();
        }
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        if !self.source.is_closed() {
            self.close(CloseMode::Graceful);
        }
    }
}
