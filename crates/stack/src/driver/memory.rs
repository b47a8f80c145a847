//! A wire in memory between two drivers of one process, for tests: no sockets, no loss.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use peyk_homa::{PacketOut, Path, Transmit};
use peyk_kevent::{Config, Events, Queue, Token};

use crate::driver::{Bound, Driver, DriverStats, Handle, Received, Wait, Watched};

/// Packets waiting at one end at most; more are lost, as on a real wire.
const INBOX: usize = 1 << 16;
/// Bytes an IP packet may have on the wire.
const MTU: u32 = 9000;

/// One end of a wire, to be attached in the thread that shall use it.
#[derive(Debug)]
pub struct End {
    wire: Arc<Wire>,
    side: usize,
}

#[derive(Debug, Default)]
struct Wire {
    sides: [Mutex<Side>; 2],
}

#[derive(Debug, Default)]
struct Side {
    inbox: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Handle>,
}

/// The two ends of a new wire: the first answers to 127.0.0.1, the second to 127.0.0.2.
pub fn wire() -> (End, End) {
    let wire = Arc::new(Wire::default());
    (End { wire: wire.clone(), side: 0 }, End { wire, side: 1 })
}

/// A driver at one end of a wire. It has one carriage socket, whatever address is asked for.
#[derive(Debug)]
pub struct MemoryDriver {
    end: End,
    queue: Queue,
    events: Events,
    port: u16,
    burst: Vec<Transmit>,
    stats: DriverStats,
}

impl MemoryDriver {
    /// Attaches the calling thread to an end.
    ///
    /// # Errors
    /// No completion queue can be made.
    pub fn attach(end: End) -> io::Result<MemoryDriver> {
        let queue = Queue::new(Config::default()).map_err(io::Error::other)?;
        lock(&end.wire.sides[end.side]).waker = Some(queue.handle());
        Ok(MemoryDriver {
            end,
            queue,
            events: Events::default(),
            port: 0,
            burst: Vec::new(),
            stats: DriverStats::default(),
        })
    }

    /// The address packets of this end come from.
    fn address(&self) -> SocketAddr {
        (Ipv4Addr::new(127, 0, 0, 1 + self.end.side as u8), self.port).into()
    }
}

fn lock(side: &Mutex<Side>) -> std::sync::MutexGuard<'_, Side> {
    side.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver for MemoryDriver {
    fn open_local(&mut self, bind: SocketAddr) -> io::Result<(u16, SocketAddr)> {
        self.port = if bind.port() == 0 { 1 } else { bind.port() };
        Ok((0, self.address()))
    }

    fn adopt_local(&mut self, _bound: Bound) -> io::Result<u16> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close_local(&mut self, _local: u16) {}

    fn mtu(&mut self, _remote: SocketAddr) -> u32 {
        MTU
    }

    fn can_send(&self) -> bool {
        true
    }

    fn send(&mut self, packet: &PacketOut<'_>) {
        self.burst.push(packet.to_transmit());
    }

    fn flush(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        let from = self.address();
        let mut other = lock(&self.end.wire.sides[1 - self.end.side]);
        for packet in self.burst.drain(..) {
            self.stats.packets_sent += 1;
            self.stats.bytes_sent += packet.len() as u64;
            let mut bytes = Vec::with_capacity(packet.len());
            packet.write_to(&mut bytes);
            if other.inbox.len() < INBOX {
                other.inbox.push_back((from, bytes));
            }
        }
        self.stats.trains_sent += 1;
        if let Some(waker) = &other.waker {
            waker.wake();
        }
    }

    fn poll(&mut self, wait: Wait, sink: &mut dyn FnMut(Received<'_>)) -> io::Result<usize> {
        let own = &self.end.wire.sides[self.end.side];
        let mut arrived = std::mem::take(&mut lock(own).inbox);
        let wait = if arrived.is_empty() { wait } else { Wait::now() };
        self.queue.wait(&mut self.events, wait)?;
        self.events.drain().for_each(drop);
        arrived.append(&mut lock(own).inbox);
        let count = arrived.len();
        for (remote, data) in arrived {
            self.stats.packets_received += 1;
            self.stats.bytes_received += data.len() as u64;
            sink(Received::Packet { path: &Path { remote, local: 0 }, data: &data });
        }
        Ok(count)
    }

    fn waker(&self) -> Handle {
        self.queue.handle()
    }

    fn watch(&mut self, fd: OwnedFd) -> io::Result<Watched> {
        Watched::by(&mut self.queue, Token::default(), fd)
    }

    fn unwatch(&mut self, watched: Watched) {
        self.queue.close(watched.0);
    }

    fn stats(&self) -> DriverStats {
        self.stats.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use peyk_homa::PacketHeader;

    /// Two attached ends with their sockets open, and the path from the first to the second.
    pub(crate) fn pair() -> (MemoryDriver, MemoryDriver, Path) {
        let (a, b) = wire();
        let (mut a, mut b) = (MemoryDriver::attach(a).unwrap(), MemoryDriver::attach(b).unwrap());
        a.open_local(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
        let (_, remote) = b.open_local(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
        (a, b, Path { remote, local: 0 })
    }

    pub(crate) fn transmit(path: Path, priority: u8, header: &[u8], payload: &[u8]) -> Transmit {
        Transmit { path, priority, header: PacketHeader::copy_from(header), payload: payload.to_vec().into() }
    }

    /// All packets that have arrived.
    pub(crate) fn collect(driver: &mut impl Driver) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        driver
            .poll(Wait::now(), &mut |r| {
                if let Received::Packet { data, .. } = r {
                    got.push(data.to_vec());
                }
            })
            .unwrap();
        got
    }

    #[test]
    fn wire__carries_packets_and_wakes() {
        let (a, b) = wire();
        let receiver = std::thread::spawn(move || {
            let mut b = MemoryDriver::attach(b).unwrap();
            let mut got = Vec::new();
            while got.is_empty() {
                b.poll(Wait::forever(), &mut |r| {
                    if let Received::Packet { path, data } = r {
                        got.push((path.remote, data.to_vec()));
                    }
                })
                .unwrap();
            }
            got
        });
        let mut a = MemoryDriver::attach(a).unwrap();
        let (_, from) = a.open_local(SocketAddr::from(([0, 0, 0, 0], 77))).unwrap();
        let path = Path { remote: SocketAddr::from(([127, 0, 0, 2], 1)), local: 0 };
        a.send(&transmit(path, 0, &[1; 28], b"x").as_out());
        a.flush();
        let mut expected = vec![1; 28];
        expected.push(b'x');
        assert_eq!(receiver.join().unwrap(), [(from, expected)]);
    }
}
