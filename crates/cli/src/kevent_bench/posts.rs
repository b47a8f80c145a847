//! What it costs to hand something to another thread: a posted message against an eventfd write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::sys::eventfd::{EfdFlags, EventFd};
use peyk::kevent::{Config, Events, Message, PostError, Queue, Spin, Wait};

use super::{Effort, Findings, repeat};

/// Measures.
pub fn run(effort: Effort, findings: &mut Findings) -> Result<()> {
    let case = "handing over, with the other thread at work";
    let (mut writes, mut channel, mut posts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        writes.push(eventfd(effort.time)?);
        channel.push(tokio_channel(effort.time)?);
        posts.push(post(effort.time)?);
    }
    findings.row(case, "eventfd write", "ns", &writes, "");
    findings.row(case, "tokio, send to a channel", "ns", &channel, "");
    findings.row(case, "kevent post", "ns", &posts, "the message included");
    findings.bar("handing over, post / eventfd write", &posts, &writes, 0.4, false);
    Ok(())
}

fn eventfd(time: Duration) -> Result<f64> {
    let fd = EventFd::from_flags(EfdFlags::empty())?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            super::pin(1);
            while !over.load(Ordering::Relaxed) {
                let _ = fd.read();
            }
        });
        super::pin(0);
        let (_, nanos) = repeat(time, || {
            for _ in 0..64 {
                fd.write(1)?;
            }
            Ok(64)
        })?;
        over.store(true, Ordering::Relaxed);
        fd.write(1)?;
        reader.join().map_err(|_| anyhow!("the reader failed"))?;
        Ok(nanos)
    })
}

fn tokio_channel(time: Duration) -> Result<f64> {
    let (to, mut from) = tokio::sync::mpsc::channel::<(u64, u64)>(1 << 14);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> Result<()> {
            super::pin(1);
            tokio::runtime::Builder::new_current_thread()
                .build()?
                .block_on(async { while from.recv().await.is_some() {} });
            Ok(())
        });
        super::pin(0);
        let (_, nanos) = repeat(time, || {
            for arg in 0..64 {
                // A full channel counts as part of the cost.
                while to.try_send((0, arg)).is_err() {
                    std::hint::spin_loop();
                }
            }
            Ok(64)
        })?;
        drop(to);
        reader.join().map_err(|_| anyhow!("the reader failed"))??;
        Ok(nanos)
    })
}

fn post(time: Duration) -> Result<f64> {
    let over = AtomicBool::new(false);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<()> {
            super::pin(1);
            let mut queue = Queue::new(Config { inlet: 1 << 14, ..Config::default() })?;
            tell.send(queue.handle())?;
            let mut events = Events::with_capacity(64);
            let spin = Spin::Adaptive { max: Duration::from_micros(50) };
            while !over.load(Ordering::Relaxed) {
                queue.wait(&mut events, Wait::forever().spin(spin))?;
                events.drain().for_each(drop);
            }
            Ok(())
        });
        super::pin(0);
        let handle = told.recv()?;
        let (_, nanos) = repeat(time, || {
            for arg in 0..64 {
                let mut message = Message { arg, ..Message::default() };
                // A full inlet counts as part of the cost.
                while let Err(PostError::Full(back)) = handle.post(message) {
                    message = back;
                    std::hint::spin_loop();
                }
            }
            Ok(64)
        })?;
        over.store(true, Ordering::Relaxed);
        handle.wake();
        reader.join().map_err(|_| anyhow!("the reader failed"))??;
        Ok(nanos)
    })
}
