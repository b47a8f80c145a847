//! A service on the shard itself, beside the same service on a thread: what the hand-off costs.
//!
//! `cargo run --release -p peyk --example shard_service`

use std::collections::HashMap;
use std::time::{Duration, Instant};

use peyk::blocking::Socket;
use peyk::homa::{Addr, Event, Reason};
use peyk::{Context, Service};

/// Counts words, and says how often each was asked for. It needs no lock: only the shard's thread
/// ever touches it.
#[derive(Default)]
struct Counter {
    seen: HashMap<Vec<u8>, u64>,
}

impl Service for Counter {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        if let Event::Request { rpc, message, .. } = event {
            let times = self.seen.entry(message.to_vec()).or_default();
            *times += 1;
            if cx.reply(rpc, times.to_string().into()).is_err() {
                cx.reject(rpc, Reason::Overloaded);
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stack = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
    println!("{}", stack.caps());

    let (tell, told) = std::sync::mpsc::channel();
    stack
        .serve(move |cx| {
            let (_, addr) = cx.bind("127.0.0.1:4000".parse()?)?;
            let _ = tell.send(addr);
            Ok(Box::new(Counter::default()))
        })?
        .detach(); // runs as long as the stack
    let on_shard = told.recv()?;

    let server = Socket::bind(&stack, "127.0.0.1:4001")?;
    let on_thread = server.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut seen = HashMap::<Vec<u8>, u64>::new();
        for request in server.requests() {
            let times = seen.entry(request.message().to_vec()).or_default();
            *times += 1;
            let answer = times.to_string();
            let _ = request.reply(answer);
        }
    });

    let other = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
    let client = Socket::open(&other)?;
    println!("median of 2000 calls: on the shard {:.1?}", median(&client, on_shard)?);
    println!("                      on a thread  {:.1?}", median(&client, on_thread)?);
    Ok(())
}

fn median(client: &Socket, to: Addr) -> Result<Duration, peyk::Error> {
    let mut times = Vec::new();
    for i in 1..=2000u32 {
        let start = Instant::now();
        let response = client.call(to, "homa")?;
        times.push(start.elapsed());
        assert_eq!(response.message, i.to_string().into_bytes());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
