//! Packet rates between two sockets on loopback: trains against `sendmmsg` and `recvmmsg`.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use peyk::kevent::{
    Backend, Config, Events, Queue, RecvMsg, Spin, Token, Train, Wait, What, floor::Batch, udp,
};

use super::{Effort, Findings};

const BATCH: usize = 64;

/// Measures.
pub fn run(effort: Effort, findings: &mut Findings) -> Result<()> {
    for (size, goal) in [(1400, 20.0), (100, 40.0)] {
        let case = format!("datagrams of {size} B");
        let mut rates: [Vec<f64>; 5] = Default::default();
        for _ in 0..effort.rounds {
            rates[0].push(plain(size, effort.time)?);
            rates[1].push(on_tokio(size, effort.time)?);
            rates[2].push(raw_trains(size, effort.time)?);
            rates[3].push(trains(size, effort.time, Backend::Uring)?);
            rates[4].push(trains(size, effort.time, Backend::Epoll)?);
        }
        findings.row(&case, "sendmmsg -> recvmmsg, 64 at a time", "packets/s", &rates[0], "");
        findings.row(&case, "tokio, one at a time", "packets/s", &rates[1], "");
        findings.row(&case, "trains by blocking calls alone", "packets/s", &rates[2], "UDP_SEGMENT, UDP_GRO");
        findings.row(&case, "kevent trains, io_uring", "packets/s", &rates[3], "");
        findings.row(&case, "kevent trains, epoll", "packets/s", &rates[4], "");
        findings.bar(&format!("{case}: packet rate, kevent / mmsg"), &rates[3], &rates[0], goal, true);
        findings.bar(&format!("{case}: time, kevent / trains alone"), &rates[2], &rates[3], 1.08, false);
    }
    Ok(())
}

/// The same trains by the system's calls, each of which waits.
fn raw_trains(size: usize, time: Duration) -> Result<f64> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
    setsockopt(&receiver, sockopt::UdpGroSegment, &true)?;
    // As large as the queue's, or as large as may be.
    let _ = setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20));
    let to = receiver.local_addr()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            super::pin(0);
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            setsockopt(&socket, sockopt::UdpGsoSegment, &(size as i32))?;
            let buf = vec![7; (65507 / size).min(64) * size];
            while !stop.load(Ordering::Relaxed) {
                socket.send_to(&buf, to)?;
            }
            Ok(())
        });
        super::pin(1);
        let mut buf = vec![0; 1 << 16];
        let (mut count, start) = (0, Instant::now());
        while start.elapsed() < time {
            count += receiver.recv(&mut buf).unwrap_or(0) / size;
        }
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow!("the sender failed"))??;
        Ok(count as f64 / seconds)
    })
}

fn on_tokio(size: usize, time: Duration) -> Result<f64> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_io().build();
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    receiver.set_nonblocking(true)?;
    let to = receiver.local_addr()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            super::pin(0);
            runtime()?.block_on(async {
                let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
                let buf = vec![7; size];
                while !stop.load(Ordering::Relaxed) {
                    socket.send_to(&buf, to).await?;
                }
                Ok(())
            })
        });
        super::pin(1);
        let rate = runtime()?.block_on(async {
            let socket = tokio::net::UdpSocket::from_std(receiver)?;
            let mut buf = vec![0; 2048];
            let (mut count, start) = (0u64, Instant::now());
            while start.elapsed() < time {
                socket.recv_from(&mut buf).await?;
                count += 1;
            }
            anyhow::Ok(count as f64 / start.elapsed().as_secs_f64())
        })?;
        stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow!("the sender failed"))??;
        Ok(rate)
    })
}

/// Packets a second that arrive.
fn plain(size: usize, time: Duration) -> Result<f64> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
    let to = receiver.local_addr()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            super::pin(0);
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            let mut batch = Batch::new(BATCH, size, Some(to));
            while !stop.load(Ordering::Relaxed) {
                batch.send(&socket)?;
            }
            Ok(())
        });
        super::pin(1);
        let mut batch = Batch::new(BATCH, 2048, None);
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < time {
            count += batch.recv(&receiver).unwrap_or(0);
        }
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow!("the sender failed"))??;
        Ok(count as f64 / seconds)
    })
}

fn trains(size: usize, time: Duration, backend: Backend) -> Result<f64> {
    let bound = udp::bind("127.0.0.1:0".parse()?, &udp::Options::default())?;
    let to = bound.local;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            super::pin(0);
            let mut queue = Queue::new(Config { backend, ..Config::default() })?;
            let bound = udp::bind("127.0.0.1:0".parse()?, &udp::Options::default())?;
            let source = queue.adopt(bound.fd)?;
            let mut train = Train::new();
            let count = (65507 / size).min(64);
            let payload = peyk::homa::Payload::copy_from(&vec![7; count * size]);
            train.start(to, 0);
            for i in 0..count {
                let piece = payload.slice(i * size..(i + 1) * size);
                train.push(&[], piece).map_err(|_| anyhow!("too long for a train"))?;
            }
            let mut trains = [train];
            while !stop.load(Ordering::Relaxed) {
                queue.send_now(&source, &mut trains)?;
            }
            Ok(())
        });
        super::pin(1);
        let mut queue = Queue::new(Config { backend, ..Config::default() })?;
        let source = queue.adopt(bound.fd)?;
        queue.submit(Token(0), RecvMsg { source }).map_err(|r| r.why)?;
        let mut events = Events::with_capacity(64);
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < time {
            let wait = Wait::until(Instant::now() + Duration::from_millis(50));
            queue.wait(&mut events, wait.spin(Spin::Adaptive { max: Duration::from_micros(50) }))?;
            for event in events.drain() {
                if let What::Dgrams(dgrams) = event.what {
                    count += dgrams.iter().count();
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow!("the sender failed"))??;
        Ok(count as f64 / seconds)
    })
}
