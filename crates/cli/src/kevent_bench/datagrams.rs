//! Packet rates between two sockets on loopback: trains against `sendmmsg` and `recvmmsg`.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use peyk::kevent::{
    Backend, Config, Events, Queue, RecvMsg, Spin, Token, Train, Wait, What, floor::Batch, udp,
};

use super::{Effort, Findings};

const BATCH: usize = 64;

/// Measures.
pub fn run(effort: Effort, findings: &mut Findings) -> Result<()> {
    for (size, goal) in [(1400, 20.0), (100, 40.0)] {
        let case = format!("datagrams of {size} B");
        let mut rates: [Vec<f64>; 3] = Default::default();
        for _ in 0..effort.rounds {
            rates[0].push(plain(size, effort.time)?);
            rates[1].push(trains(size, effort.time, Backend::Uring)?);
            rates[2].push(trains(size, effort.time, Backend::Epoll)?);
        }
        findings.row(&case, "sendmmsg -> recvmmsg, 64 at a time", "packets/s", &rates[0], "");
        findings.row(&case, "kevent trains, io_uring", "packets/s", &rates[1], "");
        findings.row(&case, "kevent trains, epoll", "packets/s", &rates[2], "");
        findings.bar(&format!("{case}: packet rate, kevent / mmsg"), &rates[1], &rates[0], goal, true);
    }
    Ok(())
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
            let payload = vec![7; size];
            train.start(to, 0);
            while train.push(&[], peyk::homa::Payload::copy_from(&payload)).is_ok() {}
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
