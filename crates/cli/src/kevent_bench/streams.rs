//! CPU time for a gigabyte over one TCP connection on loopback, by unit and by way.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use peyk::kevent::floor::RawStream;
use peyk::kevent::{
    Backend, Config, Data, Events, IoBuf, Mode, Queue, Recv, Send, SendMode, Token, Wait, What, ZeroCopy,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Effort, Findings};
use crate::process;

/// Measures.
pub fn run(effort: Effort, findings: &mut Findings) -> Result<()> {
    let (mut by_unit, mut by_calls) = (Vec::new(), Vec::new());
    for unit in [4 << 10, 40 << 10, 256 << 10] {
        let case = format!("CPU for a GB of TCP, in units of {} KiB", unit >> 10);
        let mut costs: [Vec<f64>; 7] = Default::default();
        let mut copied = String::new();
        for _ in 0..effort.rounds {
            costs[0].push(plain(unit, effort.time)?);
            costs[1].push(polled(unit, effort.time)?);
            costs[2].push(by_ring(unit, effort.time)?);
            costs[3].push(on_tokio(unit, effort.time)?);
            costs[4].push(queued(unit, effort.time, Backend::Uring, SendMode::Copy)?.0);
            costs[5].push(queued(unit, effort.time, Backend::Epoll, SendMode::Copy)?.0);
            if unit >= 64 << 10 {
                let (cost, notice) = queued(unit, effort.time, Backend::Uring, SendMode::ZeroCopy)?;
                costs[6].push(cost);
                copied = notice;
            }
        }
        let names = [
            "blocking send and recv",
            "epoll alone",
            "the io-uring crate alone",
            "tokio",
            "kevent, io_uring",
            "kevent, epoll",
        ];
        for (name, costs) in names.iter().zip(&costs) {
            findings.row(&case, name, "CPU s/GB", costs, "");
        }
        if costs[6].is_empty() {
            findings.absent.push(format!("zero copy in units of {} KiB: only from 64 KiB on", unit >> 10));
        } else {
            findings.row(&case, "kevent, zero copy asked for", "CPU s/GB", &costs[6], copied);
        }
        findings.bar(&format!("{case}, kevent / crate alone"), &costs[4], &costs[2], 1.08, false);
        by_unit.push(std::mem::take(&mut costs[4]));
        by_calls.push(std::mem::take(&mut costs[0]));
    }
    // The units' own price: a queue that gathers short sends has less of it to save.
    findings.bar(
        "CPU for a GB of TCP, units of 40 KiB / 4 KiB, blocking calls",
        &by_calls[1],
        &by_calls[0],
        0.5,
        false,
    );
    findings.bar("CPU for a GB of TCP, units of 40 KiB / 4 KiB", &by_unit[1], &by_unit[0], 0.5, false);
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

/// By epoll and calls that do not wait.
fn polled(unit: usize, time: Duration) -> Result<f64> {
    let (mut a, mut b) = pair()?;
    let watch = |stream: &TcpStream, what| -> Result<Epoll> {
        stream.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stream, EpollEvent::new(what, 0))?;
        Ok(epoll)
    };
    let cpu = process::cpu_seconds();
    let (readable, writable) = (watch(&b, EpollFlags::EPOLLIN)?, watch(&a, EpollFlags::EPOLLOUT)?);
    let mut events = [EpollEvent::empty(); 8];
    let reader = std::thread::spawn(move || -> Result<u64> {
        super::pin(1);
        let (mut buf, mut total) = (vec![0; unit], 0u64);
        loop {
            match b.read(&mut buf) {
                Ok(0) => return Ok(total),
                Ok(n) => total += n as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    readable.wait(&mut [EpollEvent::empty(); 8], EpollTimeout::NONE)?;
                }
                Err(e) => return Err(e.into()),
            }
        }
    });
    super::pin(0);
    let buf = vec![7; unit];
    let start = Instant::now();
    while start.elapsed() < time {
        let mut left = &buf[..];
        while !left.is_empty() {
            match a.write(left) {
                Ok(n) => left = &left[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    writable.wait(&mut events, EpollTimeout::NONE)?;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
    drop(a);
    let total = reader.join().map_err(|_| anyhow!("the reader failed"))??;
    Ok((process::cpu_seconds() - cpu) / total as f64 * 1e9)
}

/// By the ring's crate, one call after another.
fn by_ring(unit: usize, time: Duration) -> Result<f64> {
    let (a, b) = pair()?;
    let cpu = process::cpu_seconds();
    let reader = std::thread::spawn(move || -> Result<u64> {
        super::pin(1);
        let (mut stream, mut total) = (RawStream::new(b.into(), unit)?, 0);
        loop {
            match stream.recv()? {
                0 => return Ok(total),
                n => total += n as u64,
            }
        }
    });
    super::pin(0);
    let mut stream = RawStream::new(a.into(), unit)?;
    let start = Instant::now();
    while start.elapsed() < time {
        stream.send()?;
    }
    drop(stream);
    let total = reader.join().map_err(|_| anyhow!("the reader failed"))??;
    Ok((process::cpu_seconds() - cpu) / total as f64 * 1e9)
}

fn on_tokio(unit: usize, time: Duration) -> Result<f64> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_io().build();
    let (a, b) = pair()?;
    a.set_nonblocking(true)?;
    b.set_nonblocking(true)?;
    let cpu = process::cpu_seconds();
    let reader = std::thread::spawn(move || -> Result<u64> {
        super::pin(1);
        runtime()?.block_on(async {
            let mut stream = tokio::net::TcpStream::from_std(b)?;
            let (mut buf, mut total) = (vec![0; unit], 0);
            loop {
                match stream.read(&mut buf).await? {
                    0 => return Ok(total),
                    n => total += n as u64,
                }
            }
        })
    });
    super::pin(0);
    runtime()?.block_on(async {
        let mut stream = tokio::net::TcpStream::from_std(a)?;
        let (buf, start) = (vec![7; unit], Instant::now());
        while start.elapsed() < time {
            stream.write_all(&buf).await?;
        }
        anyhow::Ok(())
    })?;
    let total = reader.join().map_err(|_| anyhow!("the reader failed"))??;
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
