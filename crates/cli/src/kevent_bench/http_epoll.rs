//! A static file server on epoll with nothing around it: what the completion queue is measured
//! beside.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, send};

use super::http_node::{Request, heads, parse};

/// Shorter files are read behind the head and sent by one call.
const SMALL: u64 = 64 << 10;
/// Marks the listener.
const LISTENER: u64 = u64::MAX;

struct Served {
    file: File,
    len: u64,
    heads: [Bytes; 2],
}

struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    /// The file under way, and what of it has left.
    sending: Option<(String, u64)>,
    /// Over when that has left.
    is_last: bool,
}

struct Server {
    epoll: Epoll,
    folder: PathBuf,
    files: HashMap<String, Served>,
    connections: Vec<Option<Connection>>,
    buf: Vec<u8>,
}

/// Serves until killed.
pub fn run(listener: TcpListener, folder: &Path) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut server = Server {
        epoll,
        folder: folder.to_owned(),
        files: HashMap::new(),
        connections: Vec::new(),
        buf: vec![0; SMALL as usize + 1024],
    };
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match server.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => server.accept(&listener)?,
                at => server.serve(at as usize)?,
            }
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let free = self.connections.iter().position(Option::is_none);
            let at = free.unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            self.epoll.add(&stream, EpollEvent::new(edges, at as u64))?;
            self.connections[at] =
                Some(Connection { stream, unread: Vec::new(), sending: None, is_last: false });
        }
        Ok(())
    }

    /// Goes on with a connection as far as that is possible without waiting.
    fn serve(&mut self, at: usize) -> Result<()> {
        let Some(mut connection) = self.connections[at].take() else { return Ok(()) };
        if self.advance(&mut connection)? {
            self.connections[at] = Some(connection);
        }
        Ok(())
    }

    /// False when the connection is over.
    fn advance(&mut self, connection: &mut Connection) -> Result<bool> {
        loop {
            if connection.sending.is_some() {
                match self.send_file(connection) {
                    Err(Errno::EAGAIN) => return Ok(true),
                    Err(_) => return Ok(false),
                    Ok(()) => {}
                }
            }
            if connection.is_last {
                return Ok(false);
            }
            if let Some(request) = parse(&connection.unread) {
                connection.unread.drain(..request.len);
                self.respond(connection, request)?;
                continue;
            }
            let mut piece = [0; 4096];
            match connection.stream.read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(n) => connection.unread.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
    }

    fn respond(&mut self, connection: &mut Connection, request: Request) -> Result<()> {
        let Request { path, is_last, .. } = request;
        connection.is_last = is_last;
        if !self.files.contains_key(&path) {
            let file = File::open(self.folder.join(&path)).with_context(|| path.clone())?;
            let len = file.metadata()?.len();
            self.files.insert(path.clone(), Served { file, len, heads: heads(len) });
        }
        let served = &self.files[&path];
        let head = &served.heads[usize::from(is_last)];
        let (fd, at) = (connection.stream.as_raw_fd(), head.len());
        if served.len <= SMALL {
            self.buf[..at].copy_from_slice(head);
            let end = at + served.len as usize;
            let body = &mut self.buf[at..end];
            nix::sys::uio::pread(&served.file, body, 0)?;
            // Responses this short fit into the socket's buffer.
            send(fd, &self.buf[..end], MsgFlags::MSG_NOSIGNAL)?;
            return Ok(());
        }
        let more = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
        send(fd, head, MsgFlags::MSG_NOSIGNAL | more)?;
        connection.sending = Some((path, 0));
        Ok(())
    }

    fn send_file(&self, connection: &mut Connection) -> Result<(), Errno> {
        let Some((path, done)) = &mut connection.sending else { return Ok(()) };
        let served = &self.files[path.as_str()];
        while *done < served.len {
            let mut offset = *done as i64;
            let left = (served.len - *done) as usize;
            *done += sendfile(&connection.stream, &served.file, Some(&mut offset), left)? as u64;
        }
        connection.sending = None;
        Ok(())
    }
}
