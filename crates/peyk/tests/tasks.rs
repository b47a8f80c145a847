//! Application tasks on a shard: sockets, files and Homa calls awaited where the protocol runs.

#![allow(non_snake_case)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use common::World;
use peyk::homa::Socket;
use peyk::kevent::Config;
use peyk::kevent::local::{File, Local, TcpListener};
use peyk::{BindError, Poll};

fn on_both(test: impl Fn(World)) {
    for world in [World::URING_V4, World::EPOLL_V4] {
        if world.is_available() {
            test(world);
        }
    }
}

fn config(world: World) -> Config {
    Config { backend: world.backend, ..Config::default() }
}

/// Answers each piece of a connection with what a Homa server says to it.
async fn gateway(local: Local, client: Socket, to: peyk::homa::Addr, tell: mpsc::Sender<(String, u16)>) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let mut listener = TcpListener::bind(&local, "127.0.0.1:0".parse().unwrap()).unwrap();
    tell.send((name, listener.local_addr().unwrap().port())).unwrap();
    let client = std::rc::Rc::new(client);
    while let Ok(mut stream) = listener.accept().await {
        let client = client.clone();
        // It goes on by itself.
        drop(local.spawn(async move {
            while let Ok(Some(piece)) = stream.recv().await {
                let answer = client.call(to, piece.to_vec()).await.unwrap();
                stream.send(answer.message.to_vec()).await.unwrap();
            }
        }));
    }
}

#[test]
fn tasks__serve_tcp_by_homa_calls_on_the_shards_thread() {
    on_both(|world| {
        for poll in [Poll::Sleep, Poll::Adaptive { max: Duration::from_micros(50) }] {
            let backend = world.stack();
            let shout =
                backend.serve_fn(world.at(4001), |request| request.to_vec().to_ascii_uppercase()).unwrap();
            let stack = world.stack_with(|config| {
                config.poll = poll;
                config.name = "the-shard".into();
            });
            let (client, to) = (Socket::open(&stack).unwrap(), shout.local_addr().unwrap());
            let (tell, told) = mpsc::channel();
            let tasks = peyk::tasks::run(config(world), move |local| gateway(local, client, to, tell));
            let serving = stack.serve(tasks).unwrap();
            let (thread, port) = told.recv().unwrap();
            assert!(thread.starts_with("the-shard"), "{thread}");
            let mut streams: Vec<_> =
                (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
            for round in 0..50u8 {
                for stream in &mut streams {
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    stream.write_all(&[b'a' + round % 26; 100]).unwrap();
                }
                for stream in &mut streams {
                    let mut back = [0; 100];
                    stream.read_exact(&mut back).unwrap();
                    assert_eq!(back, [b'A' + round % 26; 100]);
                }
            }
            // Ends with the service: the listener goes, and so do the connections.
            serving.stop();
            assert!(matches!(streams[0].read(&mut [0; 1]), Ok(0) | Err(_)));
            assert!(stack.stats().is_ok(), "the shard goes on");
        }
    });
}

#[test]
fn tasks__wait_for_files_and_time_and_end_the_service() {
    on_both(|world| {
        let stack = world.stack();
        let path = std::env::temp_dir().join(format!("peyk-tasks-{}", std::process::id()));
        std::fs::write(&path, b"content").unwrap();
        let (tell, told) = mpsc::channel();
        let name = path.clone();
        let tasks = peyk::tasks::run(config(world), move |local| async move {
            local.sleep(Duration::from_millis(5)).await.unwrap();
            let file = File::open(&local, &name).await.unwrap();
            let (buf, bytes) = file.read_at(vec![0; 100], 0).await.unwrap();
            tell.send(buf[..bytes].to_vec()).unwrap();
        });
        let serving = stack.serve(tasks).unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap(), b"content");
        // The channel's end was the task's: it is dropped when the service has ended.
        assert!(told.recv_timeout(Duration::from_secs(20)).is_err());
        serving.stop();
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn tasks__of_a_stopped_stack_are_dropped() {
    on_both(|world| {
        let stack = world.stack();
        let (tell, told) = mpsc::channel::<()>();
        let tasks = peyk::tasks::run(config(world), move |local| async move {
            local.message().await;
            drop(tell);
        });
        stack.serve(tasks).unwrap().detach();
        stack.stop();
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Err(mpsc::RecvTimeoutError::Disconnected));
        let late = stack.serve(peyk::tasks::run(config(world), |_| async {}));
        assert!(matches!(late, Err(BindError::Stopped)));
    });
}
