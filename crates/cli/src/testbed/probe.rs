//! What runs in the hosts when a network is checked: an echo, a flood, a probe. Bare UDP from the standard library; the
//! measuring process is `peyk testbed-agent`, started by [`check`](super::check) in a host.

use std::{
    io::{BufRead, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use socket2::SockRef;

use crate::{load::quantile, process};

/// Where echoes listen.
pub const ECHO_PORT: u16 = 7_007;

/// Where floods go; nobody listens there.
pub const FLOOD_PORT: u16 = 7_009;

/// Payload of a full packet of a flood.
pub const FLOOD_BYTES: usize = 1_472;

/// What an agent does.
#[derive(Subcommand, Debug)]
pub enum Agent {
    /// Send everything back, at the level it came by.
    Echo {
        /// Level of the answers.
        level: u8,
    },
    /// Send full packets as fast as the socket takes them, until standard input ends.
    Flood {
        /// To whom.
        to: IpAddr,
        /// At which level.
        level: u8,
    },
    /// Measure round trips of small packets, one at a time.
    Probe {
        /// To whom.
        to: IpAddr,
        /// At which level.
        level: u8,
        /// How many.
        count: usize,
        /// After how many milliseconds one is taken for lost.
        patience: u64,
    },
}

/// Does what an agent is there for.
pub fn run(agent: &Agent) -> Result<()> {
    process::prepare();
    match *agent {
        Agent::Echo { level } => echo(level),
        Agent::Flood { to, level } => flood(to, level),
        Agent::Probe { to, level, count, patience } => {
            probe(to, level, count, Duration::from_millis(patience))
        }
    }
}

/// A socket whose packets have a level.
fn socket(port: u16, level: u8) -> Result<UdpSocket> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let socket = UdpSocket::bind(any).with_context(|| format!("binding UDP port {port}"))?;
    SockRef::from(&socket).set_tos_v4(u32::from(level) << 5).context("setting the type of service")?;
    Ok(socket)
}

/// Tells the parent one line.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn echo(level: u8) -> Result<()> {
    let socket = socket(ECHO_PORT, level)?;
    end_with_input();
    say("ready");
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("receiving a probe")?;
        socket.send_to(&buffer[..length], from).context("answering a probe")?;
    }
}

fn flood(to: IpAddr, level: u8) -> Result<()> {
    let socket = socket(0, level)?;
    end_with_input();
    say("ready");
    let packet = [0x55; FLOOD_BYTES];
    loop {
        match socket.send_to(&packet, (to, FLOOD_PORT)) {
            Ok(_) => {}
            // A full queue of the host's own, or the answer that nobody listens.
            Err(e) if e.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
            Err(e) => return Err(e).context("flooding"),
        }
    }
}

/// The parent closes standard input when it has seen enough, or has ended.
fn end_with_input() {
    std::thread::spawn(|| {
        let mut line = String::new();
        while matches!(std::io::stdin().lock().read_line(&mut line), Ok(n) if n > 0) {}
        std::process::exit(0);
    });
}

/// Says the median, the 90th and 99th percentile in nanoseconds, and how many were lost.
fn probe(to: IpAddr, level: u8, count: usize, patience: Duration) -> Result<()> {
    let socket = socket(0, level)?;
    socket.connect((to, ECHO_PORT)).context("connecting")?;
    socket.set_read_timeout(Some(patience)).context("setting a time-out")?;
    let mut trips = Vec::with_capacity(count);
    let mut buffer = [0; 64];
    for number in 0..count as u64 {
        // Not in step with the flood.
        std::thread::sleep(Duration::from_micros(500 + number * 7_919 % 1_000));
        let start = Instant::now();
        socket.send(&number.to_le_bytes()).context("sending a probe")?;
        loop {
            match socket.recv(&mut buffer) {
                Ok(8) if buffer[..8] == number.to_le_bytes() => {
                    trips.push(start.elapsed().as_nanos() as u64);
                    break;
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context("waiting for an answer"),
            }
        }
    }
    if trips.is_empty() {
        bail!("none of {count} probes was answered within {patience:?}");
    }
    trips.sort_unstable();
    let at = |q| quantile(&trips, q).unwrap_or(0);
    say(&format!("{} {} {} {}", at(0.5), at(0.9), at(0.99), count - trips.len()));
    Ok(())
}
