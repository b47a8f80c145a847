//! A server that returns what it is sent, and a client, in one program on tokio.
//!
//! `cargo run -p peyk --example echo`

use peyk::homa::Socket;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Both sides could share one stack; two make it a network, though a short one.
    let here = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
    let there = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;

    let server = Socket::bind(&there, "127.0.0.1:4000")?;
    let addr = server.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok(request) = server.recv().await {
            let message = request.message().clone(); // counted, not copied
            request.reply(message).await?;
        }
        Ok::<(), peyk::Error>(())
    });

    let client = Socket::open(&here)?;
    for size in [1, 1_000, 1_000_000] {
        let start = std::time::Instant::now();
        let response = client.call(addr, vec![7; size]).await?;
        println!("{size:>9} bytes there and back in {:>9.1?} from {addr}", start.elapsed());
        assert_eq!(response.message.len(), size);
    }
    Ok(())
}
