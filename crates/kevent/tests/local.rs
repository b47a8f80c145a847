//! The executor: tasks, streams, files, messages and timers on one thread, on both backends.

#![allow(non_snake_case)]

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use peyk_kevent::local::{File, Local, TcpListener, TcpStream};
use peyk_kevent::{Backend, Config, Interest, Message, OpenOptions, Poll, PollMode, Token, Wait};

fn on_both(test: impl Fn(Local)) {
    for backend in [Backend::Uring, Backend::Epoll] {
        eprintln!("on {backend:?}");
        test(Local::new(Config { backend, ..Config::default() }).unwrap());
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<u64> {
    let mut count = 0;
    while let Some(buf) = stream.recv().await? {
        count += buf.len() as u64;
        stream.send(buf).await?;
    }
    Ok(count)
}

#[test]
fn tasks__serve_many_connections() {
    on_both(|local| {
        let inner = local.clone();
        local.block_on(async move {
            let mut listener = TcpListener::bind(&inner, "127.0.0.1:0".parse().unwrap()).unwrap();
            let addr = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..50u8)
                .map(|i| {
                    let local = inner.clone();
                    inner.spawn(async move {
                        let mut stream = TcpStream::connect(&local, addr).await.unwrap();
                        let sent = vec![i; 1 + usize::from(i) * 4000];
                        stream.send(sent.clone()).await.unwrap();
                        let mut back = Vec::new();
                        while back.len() < sent.len() {
                            back.extend_from_slice(&stream.recv().await.unwrap().unwrap());
                        }
                        assert_eq!(back, sent);
                        stream.shutdown().await.unwrap();
                        assert!(stream.recv().await.unwrap().is_none());
                    })
                })
                .collect();
            let mut servers = Vec::new();
            for _ in 0..50 {
                servers.push(inner.spawn(echo(listener.accept().await.unwrap())));
            }
            for client in clients {
                client.await;
            }
            let mut total = 0;
            for server in servers {
                total += server.await.unwrap();
            }
            assert_eq!(total, (0..50).map(|i| 1 + i * 4000).sum::<u64>());
        });
        assert_eq!(local.with_queue(|q| q.leased_blocks()), 0);
    });
}

#[test]
fn dropped_future__loses_no_bytes() {
    on_both(|local| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut theirs = listener.accept().unwrap().0;
            for i in 0..200u32 {
                theirs.write_all(&i.to_be_bytes()).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let inner = local.clone();
        local.block_on(async move {
            let mut stream = TcpStream::connect(&inner, addr).await.unwrap();
            let mut all = Vec::new();
            loop {
                match inner.timeout(Duration::from_micros(300), stream.recv()).await {
                    Ok(Ok(Some(buf))) => all.extend_from_slice(&buf),
                    Ok(Ok(None)) => break,
                    Ok(Err(e)) => panic!("{e}"),
                    // The future was dropped; the stream was not.
                    Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::TimedOut),
                }
            }
            let expected: Vec<u8> = (0..200u32).flat_map(u32::to_be_bytes).collect();
            assert_eq!(all, expected);
        });
        thread.join().unwrap();
    });
}

#[test]
fn t40__inbox_is_bounded_and_resumes() {
    on_both(|local| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        const TOTAL: usize = 16 << 20;
        let thread = std::thread::spawn(move || {
            let mut theirs = listener.accept().unwrap().0;
            theirs.write_all(&vec![7; TOTAL]).unwrap();
        });
        let inner = local.clone();
        local.block_on(async move {
            let mut stream = TcpStream::connect(&inner, addr).await.unwrap();
            let mut total = stream.recv().await.unwrap().unwrap().len();
            // Nobody asks: what is received ahead stays below its limit (and a block or two).
            inner.sleep(Duration::from_millis(50)).await.unwrap();
            let held = inner.with_queue(|q| q.leased_blocks());
            assert!(held <= 64, "{held} blocks");
            while let Some(buf) = stream.recv().await.unwrap() {
                total += buf.len();
            }
            assert_eq!(total, TOTAL);
        });
        thread.join().unwrap();
    });
}

#[test]
fn files_timers_and_messages__in_one_task() {
    on_both(|local| {
        let path = std::env::temp_dir().join(format!("peyk-local-{}-{:p}", std::process::id(), &local));
        let handle = local.handle();
        let inner = local.clone();
        let at = path.clone();
        local.block_on(async move {
            let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
            let file = File::open_with(&inner, &at, options).await.unwrap();
            file.write_at("hello", 3).await.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.file_len().unwrap(), 8);
            let (buf, bytes) = file.read_at(vec![0; 100], 3).await.unwrap();
            assert_eq!(&buf[..bytes], b"hello");

            std::thread::spawn(move || {
                for arg in 0..3 {
                    handle.post(Message { token: Token(1), kind: 2, arg, body: None }).unwrap();
                }
            });
            for arg in 0..3 {
                assert_eq!(inner.message().await.arg, arg);
            }
            let start = Instant::now();
            inner.sleep(Duration::from_millis(5)).await.unwrap();
            assert!(start.elapsed() >= Duration::from_millis(5));
            let never = inner.timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
            assert_eq!(never.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
            assert!(File::open(&inner, "/nowhere/at/all").await.is_err());
        });
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn foreign_futures__wake_the_executor() {
    on_both(|local| {
        let (mut to, from) = std::os::unix::net::UnixStream::pair().unwrap();
        let (send, receive) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            send.send(7).unwrap();
        });
        let inner = local.clone();
        local.block_on(async move {
            let source = inner.with_queue(|q| q.adopt(std::os::fd::OwnedFd::from(from))).unwrap();
            let poll = Poll { source, interest: Interest::READ, mode: PollMode::Once };
            let ready = inner.spawn(inner.submit(poll).unwrap());
            assert_eq!(receive.await.unwrap(), 7);
            assert!(!ready.is_over());
            to.write_all(b"x").unwrap();
            ready.await;
        });
        thread.join().unwrap();
    });
}

#[test]
fn guest__of_a_tokio_runtime() {
    on_both(|local| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut theirs = listener.accept().unwrap().0;
            std::thread::sleep(Duration::from_millis(20));
            theirs.write_all(b"hello").unwrap();
            let mut back = [0; 5];
            theirs.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"hello");
        });
        let inner = local.clone();
        let task = local.spawn(async move {
            let mut stream = TcpStream::connect(&inner, addr).await.unwrap();
            let buf = stream.recv().await.unwrap().unwrap();
            stream.send(buf).await.unwrap();
        });
        let fd = local.with_queue(|q| q.guest_fd().unwrap().try_clone_to_owned()).unwrap();
        runtime.block_on(async {
            // SAFETY: the descriptor is owned by the watch and closed after it.
            let watch = unsafe {
                tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE)
            }
            .unwrap();
            while !task.is_over() {
                while local.turn(Wait::now()).unwrap() > 0 || local.is_ready() {}
                if task.is_over() {
                    break;
                }
                watch.readable().await.unwrap().clear_ready();
            }
        });
        thread.join().unwrap();
    });
}
