//! A static file server over HTTP/1.1: GET and HEAD, connections kept alive, bodies by `sendfile`.
//!
//! `cargo run --release -p peyk --example file_server -- DIRECTORY 127.0.0.1:8080`

use std::error::Error;
use std::io;
use std::path::{Component, Path, PathBuf};

use peyk::kevent::Config;
use peyk::kevent::local::{File, Local, TcpListener, TcpStream};

/// Longest request head.
const HEAD_MAX: usize = 16 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let root = PathBuf::from(args.next().unwrap_or_else(|| ".".into())).canonicalize()?;
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:8080".into()).parse()?;
    let local = Local::new(Config { max_ops: 20_000, ..Config::default() })?;
    println!("{} at http://{addr}/, {}", root.display(), local.with_queue(|q| q.caps().to_string()));
    let executor = local.clone();
    local.block_on(async move {
        let mut listener = TcpListener::bind(&executor, addr)?;
        loop {
            let stream = listener.accept().await?;
            let (local, root) = (executor.clone(), root.clone());
            // A client that goes away is no news.
            executor.spawn(async move {
                let _ = serve(&local, &root, stream).await;
            });
        }
    })
}

struct Request {
    path: String,
    is_head: bool,
    keep_alive: bool,
}

async fn serve(local: &Local, root: &Path, mut stream: TcpStream) -> io::Result<()> {
    let mut unread = Vec::new();
    loop {
        let request = loop {
            match parse(&unread) {
                Ok(Some((request, len))) => {
                    unread.drain(..len);
                    break request;
                }
                Ok(None) if unread.len() < HEAD_MAX => match stream.recv().await? {
                    Some(bytes) => unread.extend_from_slice(&bytes),
                    None => return Ok(()),
                },
                Ok(None) => return refuse(&stream, "431 Request Header Fields Too Large", false).await,
                Err(status) => return refuse(&stream, status, false).await,
            }
        };
        let keep = request.keep_alive;
        match find(local, root, &request.path).await {
            Ok((file, len)) => {
                let body = if request.is_head { 0 } else { len };
                stream.send_file(head("200 OK", len, keep), &file, 0, body).await?;
            }
            Err(_) => refuse(&stream, "404 Not Found", keep).await?,
        }
        if !keep {
            return stream.shutdown().await;
        }
    }
}

/// The first request, and how long its head is; nothing if it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes).map_err(|_| "400 Bad Request")? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err("405 Method Not Allowed"),
    };
    let connection = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("connection"));
    let says = |word: &[u8]| connection.is_some_and(|h| h.value.eq_ignore_ascii_case(word));
    let keep_alive = if request.version == Some(1) { !says(b"close") } else { says(b"keep-alive") };
    let path = request.path.unwrap_or("/").to_owned();
    Ok(Some((Request { path, is_head, keep_alive }, len)))
}

/// Opens the file a path names, below `root` only.
async fn find(local: &Local, root: &Path, path: &str) -> io::Result<(File, u64)> {
    let path = path.split(['?', '#']).next().unwrap_or("/").trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::open(local, root.join(path)).await?;
    match file.source().kind() {
        peyk::kevent::Kind::File { .. } => file.file_len().map(|len| (file, len)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn head(status: &str, len: u64, keep: bool) -> Vec<u8> {
    let connection = if keep { "keep-alive" } else { "close" };
    format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: {connection}\r\n\r\n").into_bytes()
}

async fn refuse(stream: &TcpStream, status: &str, keep: bool) -> io::Result<()> {
    stream.send(head(status, 0, keep)).await.map(drop)
}
