//! A driver that loses, doubles, delays and spoils packets on their way out, by chance and seed.
//!
//! Faults are made on the sending side; with such a driver on both hosts they hit both directions.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use peyk_homa::{PacketHeader, PacketOut, Transmit};
use peyk_sansio::Prng;

use crate::driver::{Bound, Driver, DriverStats, FaultStats, Handle, Received, Wait, Watched};

/// Longest time a packet is held back.
const HELD: Duration = Duration::from_micros(200);
/// Packets held back at most.
const HELD_MAX: usize = 1024;

/// Probabilities of faults, each from 0 to 1 and for each packet by itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The packet is lost.
    pub drop: f64,
    /// The packet is sent twice.
    pub duplicate: f64,
    /// The packet is held back until three others have left, or 200 us have passed.
    pub reorder: f64,
    /// One bit is flipped. UDP's checksum is computed afterwards, so the peer sees it.
    pub corrupt: f64,
}

impl Faults {
    /// Nothing but loss, with this probability.
    pub fn loss(drop: f64) -> Faults {
        Faults { drop, ..Faults::default() }
    }
}

/// A driver with faults.
#[derive(Debug)]
pub struct Faulty<D> {
    inner: D,
    faults: Faults,
    rng: Prng,
    held: Vec<Held>,
    made: FaultStats,
}

#[derive(Debug)]
struct Held {
    packet: Transmit,
    overtaken_by: u32,
    until: Instant,
}

impl<D: Driver> Faulty<D> {
    /// Puts faults between the caller and `inner`; the same seed makes the same choices.
    pub fn new(inner: D, faults: Faults, seed: u64) -> Faulty<D> {
        Faulty { inner, faults, rng: Prng::new(seed), held: Vec::new(), made: FaultStats::default() }
    }

    fn pass(&mut self, packet: &Transmit) {
        let mut at = 0;
        self.inner.send(&packet.as_out());
        while at < self.held.len() {
            self.held[at].overtaken_by += 1;
            if self.held[at].overtaken_by >= 3 {
                let held = self.held.remove(at);
                self.inner.send(&held.packet.as_out());
            } else {
                at += 1;
            }
        }
    }

    fn release(&mut self, now: Instant) {
        while let Some(at) = self.held.iter().position(|h| h.until <= now) {
            let held = self.held.remove(at);
            self.inner.send(&held.packet.as_out());
        }
    }

    fn spoil(&mut self, packet: Transmit) -> Transmit {
        let mut bytes = Vec::new();
        packet.write_to(&mut bytes);
        let bit = self.rng.below(8 * bytes.len().max(1) as u64) as usize;
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        let payload = bytes.split_off(packet.header.len());
        Transmit { header: PacketHeader::copy_from(&bytes), payload: payload.into(), ..packet }
    }
}

impl<D: Driver> Driver for Faulty<D> {
    fn open_local(&mut self, bind: SocketAddr) -> io::Result<(u16, SocketAddr)> {
        self.inner.open_local(bind)
    }

    fn adopt_local(&mut self, bound: Bound) -> io::Result<u16> {
        self.inner.adopt_local(bound)
    }

    fn close_local(&mut self, local: u16) {
        self.held.retain(|h| h.packet.path.local != local);
        self.inner.close_local(local);
    }

    fn mtu(&mut self, remote: SocketAddr) -> u32 {
        self.inner.mtu(remote)
    }

    fn can_send(&self) -> bool {
        self.inner.can_send()
    }

    fn send(&mut self, packet: &PacketOut<'_>) {
        if self.rng.chance(self.faults.drop) {
            self.made.dropped += 1;
            return;
        }
        let mut packet = packet.to_transmit();
        if self.rng.chance(self.faults.corrupt) {
            self.made.corrupted += 1;
            packet = self.spoil(packet);
        }
        if self.rng.chance(self.faults.duplicate) {
            self.made.duplicated += 1;
            self.pass(&packet);
        }
        if self.held.len() < HELD_MAX && self.rng.chance(self.faults.reorder) {
            self.made.reordered += 1;
            self.held.push(Held { packet, overtaken_by: 0, until: Instant::now() + HELD });
            return;
        }
        self.pass(&packet);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn poll(&mut self, mut wait: Wait, sink: &mut dyn FnMut(Received<'_>)) -> io::Result<usize> {
        if let Some(due) = self.held.iter().map(|h| h.until).min() {
            wait.until = Some(wait.until.map_or(due, |until| until.min(due)));
        }
        let result = self.inner.poll(wait, sink);
        if !self.held.is_empty() {
            self.release(Instant::now());
            self.inner.flush();
        }
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
        DriverStats { faults: self.made, ..self.inner.stats() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::memory::tests::{collect, pair, transmit};

    fn run(faults: Faults, count: u32, seed: u64) -> (Vec<u32>, DriverStats) {
        let (a, mut b, path) = pair();
        let mut a = Faulty::new(a, faults, seed);
        for i in 0..count {
            a.send(&transmit(path, 0, &[0; 28], &i.to_be_bytes()).as_out());
        }
        a.flush();
        std::thread::sleep(HELD * 2);
        a.poll(Wait::now(), &mut |_| {}).unwrap();
        let got = collect(&mut b);
        let number = |d: &Vec<u8>| u32::from_be_bytes(d[28..32].try_into().unwrap());
        (got.iter().map(number).collect(), a.stats())
    }

    #[test]
    fn faulty__without_faults_is_transparent() {
        let (got, stats) = run(Faults::default(), 100, 1);
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        assert_eq!(stats.faults, Default::default());
    }

    #[test]
    fn faulty__drops_by_probability_and_repeats_by_seed() {
        let (got, stats) = run(Faults::loss(0.1), 2000, 2);
        assert_eq!(got.len() as u64, 2000 - stats.faults.dropped);
        assert!((150..250).contains(&stats.faults.dropped), "{}", stats.faults.dropped);
        assert_eq!(run(Faults::loss(0.1), 2000, 2).0, got);
        assert_ne!(run(Faults::loss(0.1), 2000, 3).0, got);
    }

    #[test]
    fn faulty__duplicates_and_reorders_without_loss() {
        let faults = Faults { duplicate: 0.1, reorder: 0.1, ..Faults::default() };
        let (got, stats) = run(faults, 1000, 4);
        assert_eq!(got.len() as u64, 1000 + stats.faults.duplicated);
        assert!(stats.faults.reordered > 50 && !got.is_sorted());
        let mut sorted = got;
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn faulty__corrupts_one_bit() {
        let (a, mut b, path) = pair();
        let mut a = Faulty::new(a, Faults { corrupt: 1.0, ..Faults::default() }, 5);
        a.send(&transmit(path, 0, &[0; 28], &[0; 100]).as_out());
        a.flush();
        let got = collect(&mut b);
        assert_eq!(got[0].len(), 128);
        assert_eq!(got[0].iter().map(|b| b.count_ones()).sum::<u32>(), 1);
    }
}
