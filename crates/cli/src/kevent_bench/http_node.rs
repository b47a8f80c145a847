//! The servers that `http` measures, each run in a process of its own: a small static file server
//! on the completion queue, and one on tokio.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use bytes::Bytes;
use peyk::kevent::{
    Accept, Close, CloseMode, Config, Event, Events, Mode, Queue, Recv, SendFile, Source, Token, Wait, What,
};

use crate::flags::{HttpNode, HttpServer};
use crate::process;

/// Serves until killed. The address is printed first.
pub fn run(flags: &HttpNode) -> Result<()> {
    if flags.server == HttpServer::Nginx {
        return Err(become_nginx(&flags.folder));
    }
    process::prepare();
    process::pin(0);
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(1024)?;
    let listener = TcpListener::from(listener);
    println!("{}", listener.local_addr()?);
    match flags.server {
        HttpServer::Kevent => Server::new(listener, &flags.folder)?.run(),
        HttpServer::Tokio => on_tokio(listener, &flags.folder),
        HttpServer::Epoll => super::http_epoll::run(listener, &flags.folder),
        HttpServer::Nginx => Ok(()),
    }
}

/// Replaces this process by nginx, whose master ends its worker when it is told to end: by a signal,
/// which the kernel sends when the parent is gone, however it went.
fn become_nginx(folder: &Path) -> anyhow::Error {
    process::end_with_parent(nix::sys::signal::Signal::SIGTERM);
    let path = "/usr/sbin:/usr/local/sbin:/usr/bin:/bin";
    Command::new("nginx").arg("-c").arg(folder.join("nginx.conf")).env("PATH", path).exec().into()
}

/// The head of a request.
pub(super) struct Request {
    /// Its length.
    pub(super) len: usize,
    pub(super) path: String,
    /// The connection ends after the response.
    pub(super) is_last: bool,
}

/// The first request, if its head is complete.
pub(super) fn parse(bytes: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => {
            let path = request.path.unwrap_or("/").trim_start_matches('/').to_owned();
            let closes = |h: &httparse::Header<'_>| {
                h.name.eq_ignore_ascii_case("connection") && h.value.eq_ignore_ascii_case(b"close")
            };
            let is_last = request.headers.iter().any(closes);
            Some(Request { len, path, is_last })
        }
        _ => None,
    }
}

/// The head of a response; by whether it is the connection's last.
pub(super) fn heads(len: u64) -> [Bytes; 2] {
    ["keep-alive", "close"].map(|connection| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: {connection}\r\n\r\n").into()
    })
}

struct Server {
    queue: Queue,
    folder: PathBuf,
    /// By token; 0 is the listener.
    connections: Vec<Option<(Source, Vec<u8>)>>,
    free: Vec<usize>,
    files: HashMap<String, (Source, u64, [Bytes; 2])>,
}

impl Server {
    fn new(listener: TcpListener, folder: &Path) -> Result<Server> {
        let mut queue = Queue::new(Config { max_ops: 4096, ..Config::default() })?;
        let source = queue.adopt(OwnedFd::from(listener))?;
        queue.submit(Token(0), Accept { source, mode: Mode::Stream }).map_err(|r| r.why)?;
        let connections = vec![None];
        Ok(Server { queue, folder: folder.to_owned(), connections, free: Vec::new(), files: HashMap::new() })
    }

    fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(64);
        loop {
            self.queue.wait(&mut events, Wait::forever())?;
            for event in events.drain() {
                self.on_event(event)?;
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Result<()> {
        let at = event.token.0 as usize;
        match event.what {
            What::Accepted(source) => {
                source.set_nodelay(true)?;
                let place = self.free.pop().unwrap_or_else(|| {
                    self.connections.push(None);
                    self.connections.len() - 1
                });
                let recv = Recv { source: source.clone(), mode: Mode::Stream };
                self.queue.submit(Token(place as u64), recv).map_err(|r| r.why)?;
                self.connections[place] = Some((source, Vec::new()));
            }
            What::Data(buf) => {
                let Some((source, mut unread)) = self.connections[at].take() else { return Ok(()) };
                let mut bytes: &[u8] = &buf;
                if !unread.is_empty() {
                    unread.extend_from_slice(bytes);
                    bytes = &unread;
                }
                let mut used = 0;
                while let Some(request) = parse(&bytes[used..]) {
                    used += request.len;
                    self.respond(at, &source, &request)?;
                    if request.is_last {
                        let close = Close { source, mode: CloseMode::Graceful };
                        self.queue.submit(event.token, close).map_err(|r| r.why)?;
                        return Ok(());
                    }
                }
                let rest = bytes[used..].to_vec();
                self.connections[at] = Some((source, rest));
            }
            What::Eof | What::Failed { .. } => {
                if let Some((source, _)) = self.connections[at].take() {
                    self.queue
                        .submit(event.token, Close { source, mode: CloseMode::Abort })
                        .map_err(|r| r.why)?;
                }
            }
            What::Closed => self.free.push(at),
            _ => {}
        }
        Ok(())
    }

    fn respond(&mut self, at: usize, source: &Source, request: &Request) -> Result<()> {
        let path = request.path.as_str();
        if !self.files.contains_key(path) {
            let file = std::fs::File::open(self.folder.join(path)).with_context(|| path.to_owned())?;
            let file = self.queue.adopt(OwnedFd::from(file))?;
            let len = file.file_len()?;
            self.files.insert(path.to_owned(), (file, len, heads(len)));
        }
        let (file, len, heads) = &self.files[path];
        let op = SendFile {
            source: source.clone(),
            file: file.clone(),
            offset: 0,
            len: *len,
            head: heads[usize::from(request.is_last)].clone().into(),
        };
        self.queue.submit(Token(at as u64), op).map_err(|r| r.why)?;
        Ok(())
    }
}

/// Bodies from memory: tokio has no files of its own that a server would use here.
fn on_tokio(listener: TcpListener, folder: &Path) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let body = std::fs::read(entry.path())?;
        let response = heads(body.len() as u64).map(|head| [&head[..], &body].concat());
        files.insert(entry.file_name().to_string_lossy().into_owned(), response);
    }
    let files: &'static HashMap<String, [Vec<u8>; 2]> = Box::leak(Box::new(files));
    listener.set_nonblocking(true)?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                let mut unread = Vec::with_capacity(8192);
                while let Ok(1..) = stream.read_buf(&mut unread).await {
                    while let Some(request) = parse(&unread) {
                        unread.drain(..request.len);
                        let Some(responses) = files.get(&request.path) else { return };
                        let sent = stream.write_all(&responses[usize::from(request.is_last)]).await;
                        if sent.is_err() || request.is_last {
                            return;
                        }
                    }
                }
            });
        }
    }))
}
