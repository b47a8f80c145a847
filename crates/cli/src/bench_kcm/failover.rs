//! K4: one socket sends over four connections, and connections are killed under it.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use peyk::kcm::{Config, Event, Mux, Socket};
use socket2::SockRef;

use super::figure::{Figure, Goal};
use super::{frames, shut};

const CONNECTIONS: usize = 4;
const BYTES: usize = 1024;
/// Messages a round may number.
const MOST: usize = 1 << 22;
/// One connection dies in this time.
const KILL_EVERY: Duration = Duration::from_secs(1);

/// The far ends: count each message by its number.
struct Sink {
    addr: SocketAddr,
    seen: Arc<Vec<AtomicU8>>,
    whole: Arc<AtomicUsize>,
    tcps: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
}

impl Sink {
    fn start() -> Result<Sink> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let sink = Sink {
            addr: listener.local_addr()?,
            seen: Arc::new((0..MOST).map(|_| AtomicU8::new(0)).collect()),
            whole: Arc::default(),
            tcps: Arc::default(),
            stop: Arc::default(),
        };
        let (seen, whole, tcps, stop) =
            (sink.seen.clone(), sink.whole.clone(), sink.tcps.clone(), sink.stop.clone());
        std::thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (seen, whole) = (seen.clone(), whole.clone());
                if let Ok(reader) = tcp.try_clone() {
                    tcps.lock().unwrap_or_else(PoisonError::into_inner).push(tcp);
                    std::thread::spawn(move || count(reader, &seen, &whole));
                }
            }
        });
        Ok(sink)
    }

    /// Resets the oldest connection: what it has not read is lost.
    fn kill(&self) {
        let mut tcps = self.tcps.lock().unwrap_or_else(PoisonError::into_inner);
        if !tcps.is_empty() {
            let tcp = tcps.remove(0);
            let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
            shut(&tcp);
        }
    }

    fn duplicates(&self) -> usize {
        self.seen.iter().filter(|count| count.load(Ordering::Relaxed) > 1).count()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.addr);
        self.tcps.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(shut);
    }
}

fn count(tcp: TcpStream, seen: &[AtomicU8], whole: &AtomicUsize) {
    let mut tcp = std::io::BufReader::with_capacity(64 * 1024, tcp);
    let mut message = [0; BYTES];
    while tcp.read_exact(&mut message).is_ok() {
        let number = u64::from_be_bytes(message[4..12].try_into().unwrap_or_default()) as usize;
        if let Some(count) = seen.get(number) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        whole.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends for some time; returns messages that arrived in a second, and duplicates.
fn round(time: Duration, kills: bool) -> Result<(f64, usize)> {
    let sink = Sink::start()?;
    let (mux, socket) = Mux::open(Config::default())?;
    for _ in 0..CONNECTIONS {
        mux.connect(sink.addr, frames()).context("connecting to the far ends")?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let sender = std::thread::spawn({
        let stop = stop.clone();
        move || send(&socket, &stop)
    });
    std::thread::sleep(time / 4);
    let (before, started) = (sink.whole.load(Ordering::Relaxed), Instant::now());
    let mut next_kill = started + KILL_EVERY / 2;
    while started.elapsed() < time {
        if kills && Instant::now() >= next_kill {
            sink.kill();
            next_kill += KILL_EVERY;
        }
        // Whoever loses a connection makes a new one.
        while let Some(event) = mux.try_event() {
            if matches!(event, Event::PsockDown { .. }) {
                mux.connect(sink.addr, frames()).context("connecting again")?;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let arrived = sink.whole.load(Ordering::Relaxed) - before;
    let rate = arrived as f64 / started.elapsed().as_secs_f64();
    stop.store(true, Ordering::Release);
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok((rate, sink.duplicates()))
}

fn send(socket: &Socket, stop: &AtomicBool) -> Result<()> {
    let mut message = vec![0; BYTES];
    message[..4].copy_from_slice(&(BYTES as u32 - 4).to_be_bytes());
    for number in 0..MOST as u64 {
        if stop.load(Ordering::Acquire) {
            break;
        }
        message[4..12].copy_from_slice(&number.to_be_bytes());
        peyk::block_on(socket.send(message.clone()))?;
    }
    Ok(())
}

pub fn run(pairs: u32, time: Duration) -> Result<Vec<Figure>> {
    let time = time.max(2 * KILL_EVERY);
    let (mut rates, mut duplicates) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let (calm, none) = round(time, false)?;
        let (killed, twice) = round(time, true)?;
        rates.push((calm, killed));
        duplicates.push((none + twice) as f64);
    }
    let worst = duplicates.iter().fold(0.0, |a: f64, b| a.max(*b));
    let mut twice = Figure::new(
        "k4",
        "messages that arrived twice, most of any round",
        "none",
        &[(1.0, worst)],
        Goal::AtMost(0.0),
    );
    twice.baseline = 0.0;
    Ok(vec![
        Figure::new(
            "k4",
            "messages/s over 4 connections, one reset each second",
            "the same without resets",
            &rates,
            Goal::AtLeast(0.95),
        ),
        twice,
    ])
}
