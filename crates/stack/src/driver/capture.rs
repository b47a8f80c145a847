//! A driver that writes every packet it carries to a pcapng file.
//!
//! Sent packets are written when they are handed to the driver below, so faults made above it show
//! and losses below it do not. A file that cannot be written is given up; packets go on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path as FilePath;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peyk_homa::{PacketOut, Path};
use peyk_kevent::udp;
use peyk_wire::pcapng::{Carriage, Envelope, Writer};

use crate::driver::{Bound, Driver, DriverStats, Handle, Received, Wait, Watched};

/// How often what is buffered goes to the file.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// Own addresses remembered, by remote host.
const SOURCES: usize = 4096;

/// A driver with a capture file.
#[derive(Debug)]
pub struct Capture<D> {
    inner: D,
    tape: Tape,
}

struct Tape {
    /// `None` after a failure to write.
    writer: Option<Writer<BufWriter<File>>>,
    locals: HashMap<u16, SocketAddr>,
    sources: HashMap<IpAddr, IpAddr>,
    flushed: Instant,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("writing", &self.writer.is_some()).finish_non_exhaustive()
    }
}

impl<D: Driver> Capture<D> {
    /// Creates the file at `path` and puts it between the caller and `inner`.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub fn create(inner: D, path: &FilePath) -> io::Result<Capture<D>> {
        let writer = Writer::new(BufWriter::with_capacity(1 << 18, File::create(path)?))?;
        let tape = Tape {
            writer: Some(writer),
            locals: HashMap::new(),
            sources: HashMap::new(),
            flushed: Instant::now(),
        };
        Ok(Capture { inner, tape })
    }
}

impl Tape {
    fn write(&mut self, source: SocketAddr, destination: SocketAddr, traffic_class: u8, pieces: &[&[u8]]) {
        let Some(writer) = &mut self.writer else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let envelope = Envelope { time_ns, source, destination, carriage: Carriage::Udp, traffic_class };
        if let Err(error) = writer.write(&envelope, pieces) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::error!(%error, "capture stopped");
        self.writer = None;
    }

    /// Our own address on a path: the one bound, or the one the route to the remote starts from.
    fn own(&mut self, path: &Path) -> SocketAddr {
        let bound = self.locals.get(&path.local).copied();
        let port = bound.map_or(0, |b| b.port());
        let remote = path.remote.ip();
        if let Some(ip) =
            bound.map(|b| b.ip()).filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == remote.is_ipv4())
        {
            return SocketAddr::new(ip, port);
        }
        if self.sources.len() >= SOURCES {
            self.sources.clear();
        }
        let unknown =
            if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let ip =
            self.sources.entry(remote).or_insert_with(|| udp::route_source(path.remote).unwrap_or(unknown));
        SocketAddr::new(*ip, port)
    }

    fn flush_sometimes(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.flushed) < FLUSH_EVERY {
            return;
        }
        self.flushed = now;
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(Err(error)) = self.writer.as_mut().map(|w| w.writer_mut().flush()) {
            self.give_up(&error);
        }
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<D: Driver> Driver for Capture<D> {
    fn open_local(&mut self, bind: SocketAddr) -> io::Result<(u16, SocketAddr)> {
        let (local, addr) = self.inner.open_local(bind)?;
        self.tape.locals.insert(local, addr);
        Ok((local, addr))
    }

    fn adopt_local(&mut self, bound: Bound) -> io::Result<u16> {
        let addr = bound.local;
        let local = self.inner.adopt_local(bound)?;
        self.tape.locals.insert(local, addr);
        Ok(local)
    }

    fn close_local(&mut self, local: u16) {
        self.tape.locals.remove(&local);
        self.inner.close_local(local);
    }

    fn mtu(&mut self, remote: SocketAddr) -> u32 {
        self.inner.mtu(remote)
    }

    fn can_send(&self) -> bool {
        self.inner.can_send()
    }

    fn send(&mut self, packet: &PacketOut<'_>) {
        let own = self.tape.own(&packet.path);
        let kept = packet.to_transmit();
        let mut pieces = vec![kept.header.as_slice()];
        pieces.extend(kept.payload.chunks());
        self.tape.write(own, packet.path.remote, packet.priority << 5, &pieces);
        self.inner.send(packet);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn poll(&mut self, wait: Wait, sink: &mut dyn FnMut(Received<'_>)) -> io::Result<usize> {
        let tape = &mut self.tape;
        let result = self.inner.poll(wait, &mut |received| {
            if let Received::Packet { path, data } = &received {
                let own = tape.own(path);
                tape.write(path.remote, own, 0, &[data]);
            }
            sink(received);
        });
        self.tape.flush_sometimes();
        result
    }

    fn waker(&self) -> Handle {
        self.inner.waker()
    }

    fn watch(&mut self, fd: OwnedFd) -> io::Result<Watched> {
        self.inner.watch(fd)
    }

    fn unwatch(&mut self, watched: Watched) {
        self.inner.unwatch(watched);
    }

    fn stats(&self) -> DriverStats {
        self.inner.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::memory::tests::{collect, pair, transmit};
    use peyk_wire::pcapng::{Finder, Reader};

    #[test]
    fn capture__holds_what_was_sent_and_received() {
        let dir = std::env::temp_dir().join(format!("peyk-capture-{}.pcapng", std::process::id()));
        let (mut a, b, path) = pair();
        let mut b = Capture::create(b, &dir).unwrap();
        let header = [7u8; 28];
        a.send(&transmit(path, 0, &header, b"first").as_out());
        a.flush();
        assert_eq!(collect(&mut b).len(), 1);
        let back = Path { remote: SocketAddr::from(([127, 0, 0, 1], 9)), local: 0 };
        b.send(&transmit(back, 5, &header, b"second").as_out());
        b.flush();
        drop(b);
        let reader = Reader::with_finder(File::open(&dir).unwrap(), Finder::with_udp_ports([1, 9])).unwrap();
        let records: Vec<_> = reader.map(Result::unwrap).collect();
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(records.len(), 2);
        assert!(records[0].payload.ends_with(b"first") && records[1].payload.ends_with(b"second"));
        assert_eq!(records[1].envelope.priority(), 5);
        assert_eq!(records[1].envelope.destination, back.remote);
    }
}
