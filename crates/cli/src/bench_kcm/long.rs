//! K9: messages of 16 MiB beside a loop that reads them into one buffer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use peyk::kcm::{Config, Mux, Target};

use super::figure::{Figure, Goal};
use super::frames;

const BYTES: usize = 16 << 20;
const ACK: [u8; 12] = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];

/// Sends as many messages as are acknowledged in the time, two open at once: gigabits a second.
fn load(addr: SocketAddr, time: Duration) -> Result<f64> {
    let tcp = TcpStream::connect(addr)?;
    tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut message = vec![7; BYTES];
    message[..4].copy_from_slice(&(BYTES as u32 - 4).to_be_bytes());
    let send = || (&tcp).write_all(&message).context("sending a message");
    let receive = || (&tcp).read_exact(&mut [0; ACK.len()]).context("waiting for an acknowledgement");
    send()?;
    send()?;
    receive()?;
    let (started, mut count) = (Instant::now(), 0u32);
    while started.elapsed() < time {
        send()?;
        receive()?;
        count += 1;
    }
    Ok(f64::from(count) * BYTES as f64 * 8.0 / started.elapsed().as_secs_f64() / 1e9)
}

fn baseline(time: Duration) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let server = std::thread::spawn(move || -> Result<()> {
        let (mut tcp, _) = listener.accept()?;
        let mut buffer = vec![0; BYTES];
        while tcp.read_exact(&mut buffer).is_ok() {
            tcp.write_all(&ACK)?;
        }
        Ok(())
    });
    let rate = load(addr, time);
    let ended = server.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    // The client leaves with a message under way: an acknowledgement may meet nobody.
    drop(ended);
    rate
}

fn ours(time: Duration) -> Result<f64> {
    let (mux, socket) = Mux::open(Config { max_message: BYTES, ..Config::default() })?;
    let addr = mux.listen("127.0.0.1:0".parse()?, frames(), false)?.local_addr();
    let client = std::thread::spawn(move || load(addr, time));
    while !client.is_finished() {
        let Ok(message) = socket.recv_timeout(Duration::from_millis(20)) else { continue };
        ensure!(message.len() == BYTES, "a message of {} bytes", message.len());
        // The client may be gone.
        let _ = peyk::block_on(socket.send_to(&ACK[..], Target::Psock(message.from())));
    }
    client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
}

pub fn run(pairs: u32, time: Duration) -> Result<Vec<Figure>> {
    let mut both = Vec::new();
    for _ in 0..pairs {
        both.push((baseline(time)?, ours(time)?));
    }
    let goal = Goal::AtLeast(0.95);
    Ok(vec![Figure::new("k9", "Gbit/s, messages of 16 MiB", "reading into one buffer", &both, goal)])
}
