//! Bare UDP: what a round trip costs when there is no transport at all. The floor that others are compared with.
//!
//! One datagram per message, one system call per datagram, at most one message per datagram. Lost datagrams are
//! given up, not repeated: a response that overtakes others shows that these are lost (one path keeps the order),
//! and a silence of [`SILENCE`] that all are.

use std::{
    collections::VecDeque,
    io::IoSlice,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use socket2::SockRef;

use super::tcp::Waiting;
use crate::{
    process::Clock,
    traffic::{HEADER, Traffic},
};

/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 60_000;

/// Without a response for so long, everything outstanding is lost.
const SILENCE: Duration = Duration::from_millis(50);

/// Socket buffers asked for; the kernel may give less.
const BUFFER: usize = 8 << 20;

/// A socket on an address, with large buffers.
pub fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("binding UDP to {address}"))?;
    let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER);
    let _ = SockRef::from(&socket).set_send_buffer_size(BUFFER);
    Ok(socket)
}

/// One datagram; `None`: nothing there or, when waiting, silence.
fn receive(socket: &UdpSocket, buffer: &mut [u8], waiting: Waiting) -> Result<Option<usize>> {
    let flags = match waiting {
        Waiting::Block => MsgFlags::empty(),
        Waiting::Spin => MsgFlags::MSG_DONTWAIT,
    };
    match recv(socket.as_raw_fd(), buffer, flags) {
        Ok(n) => Ok(Some(n)),
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(None),
        Err(errno) => Err(errno).context("receiving a datagram"),
    }
}

/// Drives a traffic against a server.
pub fn run_client<T: Traffic>(
    server: SocketAddr,
    waiting: Waiting,
    clock: &Clock,
    traffic: &mut T,
) -> Result<()> {
    let socket = bind(SocketAddr::new(super::any(server.is_ipv6()), 0))?;
    socket.connect(server).with_context(|| format!("connecting to {server} over UDP"))?;
    socket.set_read_timeout(Some(SILENCE)).context("setting a receive timeout")?;
    let block = traffic.block().clone();
    let mut buffer = vec![0; 1 << 16];
    let mut outstanding = VecDeque::new();
    let mut now = clock.now();
    let mut heard = now;
    loop {
        if traffic.turn(now) {
            // An empty datagram ends the server.
            socket.send(&[]).context("ending the UDP server")?;
            return Ok(());
        }
        while let Some(message) = traffic.next_due(now) {
            let pieces = [IoSlice::new(&message.header), IoSlice::new(&block[message.body.clone()])];
            outstanding.push_back(message.sequence());
            // A datagram that the kernel does not take counts like one that it drops.
            let _ = SockRef::from(&socket).send_vectored(&pieces);
        }
        let got = receive(&socket, &mut buffer, waiting)?;
        now = clock.now();
        match got {
            Some(n) => {
                heard = now;
                if let Some((header, _)) = buffer[..n].split_first_chunk::<HEADER>() {
                    overtaken(&mut outstanding, header, traffic);
                    let intact = traffic.expect(header, n).is_some();
                    traffic.complete(header, intact, now);
                }
            }
            None if waiting == Waiting::Block || now - heard > SILENCE.as_nanos() as u64 => {
                heard = now;
                outstanding.drain(..).for_each(|sequence| traffic.fail(sequence));
            }
            None => {}
        }
    }
}

/// Gives up on everything that was sent before the request of this response, and takes that off the list.
fn overtaken<T: Traffic>(outstanding: &mut VecDeque<u64>, header: &[u8; HEADER], traffic: &mut T) {
    let sequence = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
    if outstanding.front() != Some(&sequence) && !outstanding.contains(&sequence) {
        return;
    }
    while let Some(first) = outstanding.pop_front() {
        if first == sequence {
            break;
        }
        traffic.fail(first);
    }
}

/// Answers every datagram with itself until one is empty.
pub fn serve(socket: &UdpSocket, waiting: Waiting) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut peer = None;
    socket.set_nonblocking(waiting == Waiting::Spin).context("setting the socket's mode")?;
    loop {
        if peer.is_none() {
            match socket.peek_from(&mut buffer) {
                Ok((_, from)) => {
                    // One client: a connected socket spares the address and route look-up of each datagram.
                    socket.connect(from).with_context(|| format!("connecting to {from} over UDP"))?;
                    peer = Some(from);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e).context("receiving the first datagram"),
            }
        }
        let Some(n) = receive(socket, &mut buffer, waiting)? else { continue };
        if n == 0 {
            return Ok(());
        }
        let _ = socket.send(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_traffic::{Fixed, FixedPlan};

    #[test]
    fn ping_pong_completes_at_one_and_many_outstanding() {
        for (waiting, outstanding) in [(Waiting::Block, 1), (Waiting::Spin, 1), (Waiting::Block, 64)] {
            let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = socket.local_addr().unwrap();
            let server = std::thread::spawn(move || serve(&socket, waiting));
            let plan = FixedPlan { size: 10_000, outstanding, warmup_ms: 5, measure_ms: 50 };
            let mut fixed = Fixed::new(plan);
            run_client(address, waiting, &Clock::start(), &mut fixed).unwrap();
            let result = fixed.finish();
            assert!(result.completed >= 20, "{result:?}");
            assert_eq!(result.unexpected, 0);
            server.join().unwrap().unwrap();
        }
    }
}
