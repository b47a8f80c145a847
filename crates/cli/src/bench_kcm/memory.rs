//! K8: memory of connections on which nothing happens, half of them with a message begun.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use peyk::kcm::{Config, Mux};

use super::figure::Figure;
use super::frames;

const CONNECTIONS: usize = 8_000;

/// Resident memory of this process, in bytes. What the kernel holds for sockets is not in it.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    Ok(kilobytes * 1024.0)
}

pub fn run() -> Result<Vec<Figure>> {
    super::descriptors(2 * CONNECTIONS as u64)?;
    let config = Config { assembly_timeout: None, ..Config::default() };
    let (mux, _socket) = Mux::open(config)?;
    let addr = mux.listen("127.0.0.1:0".parse()?, frames(), false)?.local_addr();
    let mut clients: Vec<TcpStream> = Vec::with_capacity(CONNECTIONS);
    let before = resident()?;
    for number in 0..CONNECTIONS {
        let tcp = TcpStream::connect(addr)?;
        if number % 2 == 0 {
            (&tcp).write_all(&[0])?;
        }
        clients.push(tcp);
    }
    let started = Instant::now();
    while mux.psocks().len() < CONNECTIONS || mux.memory_used() < CONNECTIONS / 2 {
        ensure!(started.elapsed() < Duration::from_secs(30), "the connections were not accepted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let each = (resident()? - before) / CONNECTIONS as f64;
    Ok(vec![Figure::limited("k8", "bytes of memory of an idle connection", 2048.0, &[each])])
}
