//! An echo server for TCP on one completion queue: what arrives goes out again from the very block
//! it was received in.
//!
//! `cargo run -p peyk --example tcp_echo -- 127.0.0.1:7777`, then `nc 127.0.0.1 7777`

use std::collections::HashMap;
use std::error::Error;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use peyk::kevent::{
    Accept, Close, CloseMode, Config, Events, Mode, Queue, Recv, Send, SendMode, Source, Token, Wait, What,
};

fn main() -> Result<(), Box<dyn Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".into());
    let listener = TcpListener::bind(&addr)?;
    let mut queue = Queue::new(Config { max_ops: 10_000, ..Config::default() })?;
    println!("echo on {addr}, {}", queue.caps());

    let source = queue.adopt(OwnedFd::from(listener))?;
    queue.submit(Token(0), Accept { source, mode: Mode::Stream }).map_err(|r| r.why)?;
    let mut connections: HashMap<u64, Source> = HashMap::new();
    let mut next = 1; // the token of a connection; 0 is the listener
    let mut events = Events::with_capacity(64);
    loop {
        queue.wait(&mut events, Wait::forever())?;
        for event in events.drain() {
            let token = event.token;
            let over = match event.what {
                What::Accepted(source) => {
                    let recv = Recv { source: source.clone(), mode: Mode::Stream };
                    if queue.submit(Token(next), recv).is_ok() {
                        connections.insert(next, source); // else it is closed here
                        next += 1;
                    }
                    false
                }
                What::Data(buf) => match connections.get(&token.0) {
                    Some(source) => {
                        let send = Send { source: source.clone(), data: buf.into(), mode: SendMode::Copy };
                        queue.submit(token, send).is_err()
                    }
                    None => false,
                },
                What::Eof | What::Failed { .. } => true,
                _ => false,
            };
            if over && let Some(source) = connections.remove(&token.0) {
                // What was received before the end is sent before the close.
                let close = Close { source: source.clone(), mode: CloseMode::Graceful };
                if queue.submit(token, close).is_err() {
                    queue.close(source);
                }
            }
        }
    }
}
