//! Requests and responses without async: a server with a pool of threads.
//!
//! `cargo run -p peyk --example blocking`

use std::time::Duration;

use peyk::blocking::Socket;
use peyk::homa::CallOptions;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stack = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
    let server = Socket::bind(&stack, "127.0.0.1:4000")?;
    let addr = server.local_addr().expect("it is bound");
    // Any number of threads may take requests from clones of one socket.
    let workers: Vec<_> = (1..=4)
        .map(|worker| {
            let server = server.clone();
            std::thread::spawn(move || {
                for request in server.requests() {
                    let words = request.message().to_vec().split(u8::is_ascii_whitespace).count();
                    let answer = format!("{words} words, counted by worker {worker}");
                    let _ = request.reply(answer); // fails only if the stack has stopped
                }
            })
        })
        .collect();

    let client = Socket::open(&stack)?;
    let options = CallOptions { timeout: Some(Duration::from_secs(1)) };
    let response = client.call_with(addr, "the shortest message goes first", options)?;
    println!("{}", String::from_utf8_lossy(&response.message.contiguous()));
    for result in client.call_many((0..8).map(|i| (addr, "a ".repeat(i) + "b"))) {
        println!("{}", String::from_utf8_lossy(&result?.message.contiguous()));
    }

    server.close(); // ends the workers' loops
    workers.into_iter().for_each(|worker| worker.join().expect("a worker does not panic"));
    Ok(())
}
