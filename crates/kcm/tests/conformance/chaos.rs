//! Random lives of a mux, by seed: any operation at any time, streams cut anywhere, connections that fail at
//! any byte. Nothing is lost on a healthy connection, nothing comes twice, nothing is left over. Cases 12,
//! 51, 107.

use std::collections::BTreeMap;

use crate::common::sim::*;
use peyk_kcm::error::Code;
use peyk_kcm::stats::PsockStats;
use peyk_kcm::*;
use peyk_sansio::Prng;

/// Seeds to run: a few by default, as many as `PEYK_SEEDS` says, or the one that `PEYK_SEED` names.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("PEYK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PEYK_SEEDS").unwrap_or(300),
    }
}

struct World {
    lab: Lab,
    prng: Prng,
    sockets: Vec<SocketId>,
    psocks: Vec<PsockId>,
    /// Number of the next outgoing message, and those dropped by a close.
    next_out: u32,
    unsent: usize,
    /// For each connection what its peer still has to write.
    to_come: BTreeMap<PsockId, Vec<u8>>,
    next_in: u32,
    /// Numbers received.
    received: Vec<u32>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut prng = Prng::new(seed);
        let config = Config {
            kind: *prng.pick(&[Kind::Datagram, Kind::SeqPacket]).unwrap(),
            order: *prng.pick(&[Order::Any, Order::Any, Order::Key]).unwrap(),
            steer: *prng.pick(&[Steer::Push, Steer::Push, Steer::Pull]).unwrap(),
            reenter: *prng.pick(&[Reenter::Half, Reenter::Empty]).unwrap(),
            receive_buffer: prng.between(10, 500) as usize,
            send_buffer: prng.between(100, 2000) as usize,
            quantum_messages: prng.between(1, 8) as usize,
            assembly_timeout: None,
            ..Config::default()
        };
        let (lab, first) = Lab::new(config);
        World {
            lab,
            prng,
            sockets: vec![first],
            psocks: Vec::new(),
            next_out: 0,
            unsent: 0,
            to_come: BTreeMap::new(),
            next_in: 0,
            received: Vec::new(),
        }
    }

    fn numbered(&mut self, number: u32) -> Vec<u8> {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(4 + self.prng.below(40) as usize, number as u8);
        body
    }

    fn step(&mut self) {
        let socket = *self.prng.pick(&self.sockets).unwrap();
        let psock = self.prng.pick(&self.psocks).copied();
        match (self.prng.below(100), psock) {
            (0..25, _) => {
                let body = self.numbered(self.next_out);
                let flags = SendFlags { batch: self.prng.chance(0.2), ..send_now() };
                if self.lab.mux.send(socket, msg(&body), flags, self.lab.now).is_ok() {
                    self.next_out += 1;
                }
            }
            (25..50, Some(psock)) => self.feed(psock),
            (50..75, _) => self.receive(socket),
            (75..78, _) if self.sockets.len() < 6 => {
                self.sockets.push(self.lab.mux.clone_socket(socket).unwrap());
            }
            (78..80, _) if self.sockets.len() > 1 => {
                self.unsent += self.lab.mux.close_socket(socket, self.lab.now).unsent;
                self.sockets.retain(|other| *other != socket);
            }
            (80..83, _) => {
                let disable = self.prng.chance(0.5);
                self.lab.mux.set_recv_disable(socket, disable).unwrap();
            }
            (83..87, _) if self.psocks.len() < 6 => {
                let psock = self.lab.attach();
                self.lab.peers.get_mut(&psock).unwrap().takes =
                    self.prng.chance(0.5).then(|| self.prng.between(1, 30) as usize);
                self.psocks.push(psock);
            }
            (87..89, Some(psock)) => self.unattach(psock),
            (89..91, Some(psock)) => {
                let peer = self.lab.peers.get_mut(&psock).unwrap();
                peer.fails_at = Some(peer.got.len() + self.prng.below(60) as usize);
            }
            (91..93, Some(psock)) => self.lab.error(psock, Code::CONNRESET),
            (93..95, Some(psock)) => self.lab.peers.get_mut(&psock).unwrap().is_full = true,
            (95..99, Some(psock)) => self.lab.unblock(psock),
            _ => self.lab.pass_time(std::time::Duration::from_millis(2)),
        }
        self.lab.run();
        self.check_counters();
    }

    /// A few bytes of a stream of messages, cut anywhere.
    fn feed(&mut self, psock: PsockId) {
        if !self.lab.mux.is_up(psock) {
            return;
        }
        while self.to_come.entry(psock).or_default().len() < 60 {
            let body = self.numbered(self.next_in);
            self.next_in += 1;
            self.to_come.get_mut(&psock).unwrap().extend_from_slice(&msg(&body));
        }
        let stream = self.to_come.get_mut(&psock).unwrap();
        let count = self.prng.between(1, stream.len() as u64) as usize;
        let bytes: Vec<u8> = stream.drain(..count).collect();
        self.lab.input(psock, &bytes);
    }

    fn number(bytes: &[u8]) -> u32 {
        u32::from_be_bytes(bytes[2..6].try_into().unwrap())
    }

    fn receive(&mut self, socket: SocketId) {
        for _ in 0..self.prng.between(1, 6) {
            if let Ok(message) = self.lab.mux.recv_message(socket) {
                self.received.push(World::number(&message.bytes));
            }
        }
    }

    fn unattach(&mut self, psock: PsockId) {
        self.lab.mux.unattach(psock, self.lab.now).unwrap();
        self.psocks.retain(|other| *other != psock);
    }

    /// Case 107: what the mux counts is what its connections count, the dead included.
    fn check_counters(&self) {
        let mux = self.lab.mux.stats();
        let live: u64 = self.psocks.iter().map(|p| self.lab.mux.psock_stats(*p).unwrap().tx_bytes).sum();
        let got: u64 = self.lab.peers.values().map(|peer| peer.got.len() as u64).sum();
        assert_eq!(mux.tx_bytes, got);
        assert!(live <= mux.tx_bytes);
        assert_eq!(mux.psock_attach - mux.psock_unattach, self.psocks.len() as u64);
        let sum: PsockStats = self.lab.mux.psock_stats_sum();
        assert!(sum.reserved - sum.unreserved <= self.psocks.len() as u64);
    }

    /// Lets everything come to rest, then compares what went in with what came out.
    fn finish(&mut self) {
        for peer in self.lab.peers.values_mut() {
            (peer.fails_at, peer.is_full) = (None, false);
        }
        for psock in self.psocks.clone() {
            self.lab.unblock(psock);
            // The end of the message that was cut.
            let stream = self.to_come.remove(&psock).unwrap_or_default();
            if self.lab.mux.is_up(psock) {
                self.lab.input(psock, &stream);
            }
        }
        let last = self.lab.attach();
        self.psocks.push(last);
        self.lab.pass_time(std::time::Duration::from_secs(1));
        for socket in self.sockets.clone() {
            self.lab.mux.set_recv_disable(socket, false).unwrap();
        }
        for _ in 0..2000 {
            self.lab.run();
            for socket in self.sockets.clone() {
                self.receive(socket);
            }
        }
        self.compare();
    }

    fn compare(&mut self) {
        // Out: every message that no close has dropped arrived once.
        let mut out: Vec<u32> =
            self.lab.all_got().iter().map(|body| u32::from_be_bytes(body[..4].try_into().unwrap())).collect();
        let count = out.len();
        out.sort_unstable();
        out.dedup();
        assert_eq!(out.len(), count, "a message came twice");
        assert_eq!(out.len() + self.unsent, self.next_out as usize, "a message was lost");
        // In: nothing twice; everything but what its connection took with it.
        let count = self.received.len();
        self.received.sort_unstable();
        self.received.dedup();
        assert_eq!(self.received.len(), count, "a message was received twice");
        let complete = self.lab.mux.stats().rx_msgs;
        let parked = self.lab.mux.stats().rx_ready_drops;
        assert_eq!(complete, count as u64 + parked, "a complete message was lost");
        // Nothing is left.
        for psock in self.psocks.clone() {
            self.lab.mux.unattach(psock, self.lab.now).unwrap();
        }
        assert_eq!((self.lab.mux.memory_used(), self.lab.mux.waiting_messages()), (0, 0));
    }
}

#[test]
fn case_107__identity_after_any_script() {
    for seed in seeds() {
        let mut world = World::new(seed ^ 107 << 32);
        // What each connection had counted when it was last seen, alive or not.
        let mut known: BTreeMap<PsockId, PsockStats> = BTreeMap::new();
        for _ in 0..200 {
            for psock in world.lab.mux.psocks() {
                known.insert(psock, world.lab.mux.psock_stats(psock).unwrap());
            }
            world.step();
            let live: BTreeMap<PsockId, PsockStats> =
                world.lab.mux.psocks().map(|p| (p, world.lab.mux.psock_stats(p).unwrap())).collect();
            let (mut alive, mut dead) = (PsockStats::default(), PsockStats::default());
            live.values().for_each(|stats| alive.add(stats));
            known.iter().filter(|(p, _)| !live.contains_key(p)).for_each(|(_, stats)| dead.add(stats));
            let departed = known.keys().filter(|p| !live.contains_key(p)).count() as u64;
            let all = world.lab.mux.psock_stats_sum();
            let folded = |of: fn(&PsockStats) -> u64| of(&all) - of(&alive) - of(&dead);
            let exact: [fn(&PsockStats) -> u64; 7] = [
                |s| s.rx_msgs,
                |s| s.rx_bytes,
                |s| s.tx_msgs,
                |s| s.tx_bytes,
                |s| s.reserved,
                |s| s.rx_need_more_hdr,
                |s| s.rx_aborts,
            ];
            assert!(exact.into_iter().all(|of| folded(of) == 0), "seed {seed}");
            // Taking a connection off may end a reservation, and counts that.
            assert!(folded(|s| s.unreserved).max(folded(|s| s.tx_aborts)) <= departed, "seed {seed}");
            let mux = world.lab.mux.stats();
            assert_eq!(
                (mux.rx_msgs, mux.rx_bytes, mux.tx_msgs, mux.tx_bytes),
                (all.rx_msgs, all.rx_bytes, all.tx_msgs, all.tx_bytes)
            );
        }
    }
}

#[test]
fn random_lives__lose_nothing_and_leave_nothing() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..400 {
                world.step();
            }
            world.finish();
        });
        if let Err(panic) = outcome {
            eprintln!("PEYK_SEED={seed} shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}
