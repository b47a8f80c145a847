//! CPU time for a gigabyte over one TCP connection on loopback, by unit and by way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use peyk::kevent::{
    Backend, Config, Data, Events, IoBuf, Mode, Queue, Recv, Send, SendMode, Token, Wait, What, ZeroCopy,
};

use super::{Effort, Findings};
use crate::process;

/// Measures.
pub fn run(effort: Effort, findings: &mut Findings) -> Result<()> {
    for unit in [4 << 10, 40 << 10, 256 << 10] {
        let case = format!("CPU for a GB of TCP, in units of {} KiB", unit >> 10);
        let mut costs: [Vec<f64>; 4] = Default::default();
        let mut copied = String::new();
        for _ in 0..effort.rounds {
            costs[0].push(plain(unit, effort.time)?);
            costs[1].push(queued(unit, effort.time, Backend::Uring, SendMode::Copy)?.0);
            costs[2].push(queued(unit, effort.time, Backend::Epoll, SendMode::Copy)?.0);
            if unit >= 64 << 10 {
                let (cost, notice) = queued(unit, effort.time, Backend::Uring, SendMode::ZeroCopy)?;
                costs[3].push(cost);
                copied = notice;
            }
        }
        findings.row(&case, "blocking send and recv", "CPU s/GB", &costs[0], "");
        findings.row(&case, "kevent, io_uring", "CPU s/GB", &costs[1], "");
        findings.row(&case, "kevent, epoll", "CPU s/GB", &costs[2], "");
        if costs[3].is_empty() {
            findings.absent.push(format!("zero copy in units of {} KiB: only from 64 KiB on", unit >> 10));
        } else {
            findings.row(&case, "kevent, zero copy asked for", "CPU s/GB", &costs[3], copied);
        }
    }
    Ok(())
}

fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let a = TcpStream::connect(listener.local_addr()?)?;
    Ok((a, listener.accept()?.0))
}

/// CPU seconds of both sides for a gigabyte.
fn plain(unit: usize, time: Duration) -> Result<f64> {
    let (mut a, mut b) = pair()?;
    let cpu = process::cpu_seconds();
    let reader = std::thread::spawn(move || {
        super::pin(1);
        let mut buf = vec![0; unit];
        let mut total = 0u64;
        while let Ok(n @ 1..) = b.read(&mut buf) {
            total += n as u64;
        }
        total
    });
    super::pin(0);
    let buf = vec![7; unit];
    let start = Instant::now();
    while start.elapsed() < time {
        a.write_all(&buf)?;
    }
    drop(a);
    let total = reader.join().map_err(|_| anyhow!("the reader failed"))?;
    Ok((process::cpu_seconds() - cpu) / total as f64 * 1e9)
}

fn queued(unit: usize, time: Duration, backend: Backend, mode: SendMode) -> Result<(f64, String)> {
    let (a, b) = pair()?;
    let cpu = process::cpu_seconds();
    let reader = std::thread::spawn(move || receive(b, unit, backend));
    super::pin(0);
    let mut queue = Queue::new(Config { backend, ..Config::default() })?;
    let source = queue.adopt(OwnedFd::from(a))?;
    let mut free: Vec<IoBuf> = (0..16).map(|_| vec![7; unit].into()).collect();
    let mut events = Events::with_capacity(64);
    let (mut flying, mut copied, mut used) = (0u32, 0u32, 0u32);
    let start = Instant::now();
    loop {
        while start.elapsed() < time
            && let Some(buf) = free.pop()
        {
            queue
                .submit(Token(0), Send { source: source.clone(), data: buf.into(), mode })
                .map_err(|r| r.why)?;
            flying += 1;
        }
        if flying == 0 {
            break;
        }
        queue.wait(&mut events, Wait::forever())?;
        for event in events.drain() {
            let data = match event.what {
                What::Sent { data, .. } => data,
                What::Released(data, how) => {
                    copied += u32::from(how == ZeroCopy::Copied);
                    used += u32::from(how == ZeroCopy::Used);
                    Some(data)
                }
                other => bail!("a send failed: {other:?}"),
            };
            flying -= u32::from(event.last);
            if let Some(Data::Buf(buf)) = data {
                free.push(buf);
            }
        }
    }
    drop((queue, source));
    let total = reader.join().map_err(|_| anyhow!("the reader failed"))??;
    let note = if copied + used == 0 {
        String::new()
    } else {
        format!("the kernel copied {copied} of {} sends after all", copied + used)
    };
    Ok(((process::cpu_seconds() - cpu) / total as f64 * 1e9, note))
}

fn receive(stream: TcpStream, unit: usize, backend: Backend) -> Result<u64> {
    super::pin(1);
    let stream_block = (unit as u32).min(64 << 10);
    let mut queue = Queue::new(Config { backend, stream_block, ..Config::default() })?;
    let source = queue.adopt(OwnedFd::from(stream))?;
    queue.submit(Token(0), Recv { source, mode: Mode::Stream }).map_err(|r| r.why)?;
    let mut events = Events::with_capacity(64);
    let mut total = 0;
    loop {
        queue.wait(&mut events, Wait::forever())?;
        for event in events.drain() {
            match event.what {
                What::Data(buf) => total += buf.len() as u64,
                _ => return Ok(total),
            }
        }
    }
}
