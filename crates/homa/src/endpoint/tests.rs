//! What the endpoint must survive whatever others send: two endpoints whose packets are lost,
//! doubled, delayed and forged, with every count checked at the end.

use core::time::Duration;

use peyk_sansio::{Instant, Prng};
use peyk_sockbuf::{Payload, Pool};
use peyk_wire::homa::{
    Ack, AckEntry, Cutoffs, Data, Grant, Header, Packet, PacketType, Resend, Unreachable, UnreachableCode,
};

use super::*;
use crate::{Path, PeerAddr, Reason, RequestOptions, SocketOptions};

struct Pair {
    now: Instant,
    rng: Prng,
    ends: [Endpoint; 2],
    sockets: [SocketId; 2],
    /// Packets on their way: when, to which end, bytes.
    wire: Vec<(Instant, usize, Vec<u8>)>,
    /// What the applications know: requests to be answered, and outcomes.
    held: Vec<crate::ServerRpc>,
    outcomes: u64,
    pages: [u32; 2],
}

fn path(end: usize) -> Path {
    let remote = if end == 0 { "10.0.0.1:14600" } else { "10.0.0.2:14600" };
    Path { remote: remote.parse().unwrap(), local: 0 }
}

impl Pair {
    fn new(seed: u64, config: &Config, pages: u32) -> Pair {
        let now = Instant::from_nanos(1_000_000_000);
        let end = |n| Endpoint::new(config.clone(), seed ^ n, Pool::new(pages), now).unwrap();
        let mut ends = [end(1), end(2)];
        let client = ends[0].open_socket(None, SocketOptions::default()).unwrap();
        let server = ends[1].open_socket(Some(99), SocketOptions::default()).unwrap();
        Pair {
            now,
            rng: Prng::new(seed),
            pages: [ends[0].pool().free_pages(), ends[1].pool().free_pages()],
            ends,
            sockets: [client, server],
            wire: Vec::new(),
            held: Vec::new(),
            outcomes: 0,
        }
    }

    fn request(&mut self, length: usize) -> bool {
        let to = PeerAddr { path: path(1), port: 99 };
        let body: Vec<u8> = (0..length).map(|i| (i ^ length) as u8).collect();
        let options = RequestOptions { cookie: length as u64, deadline: None };
        self.ends[0].send_request(self.now, self.sockets[0], to, Payload::from(body), options).is_ok()
    }

    /// Moves packets and time; `loss` of the packets vanish, as many come twice or late.
    fn step(&mut self, loss: f64) {
        for from in 0..2 {
            while let Some(packet) = self.ends[from].poll_transmit(self.now) {
                let mut bytes = Vec::new();
                packet.write_to(&mut bytes);
                assert!(Packet::parse(&bytes).is_ok());
                for _ in 0..1 + usize::from(self.rng.chance(loss)) {
                    if !self.rng.chance(loss) {
                        let late = if self.rng.chance(loss) { 3_000_000 } else { 20_000 };
                        let at = self.now + Duration::from_nanos(5_000 + self.rng.below(late));
                        self.wire.push((at, 1 - from, bytes.clone()));
                    }
                }
            }
        }
        self.now += Duration::from_micros(10);
        let now = self.now;
        let due: Vec<_> = self.wire.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, to, bytes) in due {
            self.ends[to].handle_packet(now, &path(1 - to), &bytes);
        }
        for end in 0..2 {
            if self.ends[end].poll_timeout().is_some_and(|at| at <= now) {
                self.ends[end].handle_timeout(now);
            }
            while let Some(event) = self.ends[end].poll_event() {
                self.on_event(event);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Request { rpc, message, .. } => match self.rng.below(20) {
                0 => self.ends[1].reject(self.now, rpc, Reason::Aborted),
                1 => self.held.push(rpc),
                _ => {
                    let _ = self.ends[1].reply(self.now, rpc, Payload::from(message));
                }
            },
            Event::Response { cookie, message, .. } => {
                let body = message.to_vec();
                assert_eq!(body.len() as u64, cookie);
                assert!(body.iter().enumerate().all(|(i, &b)| b == (i ^ body.len()) as u8));
                self.outcomes += 1;
            }
            Event::Failed { .. } => self.outcomes += 1,
            Event::Cancelled { rpc, .. } => self.held.retain(|held| *held != rpc),
            Event::Writable { .. } => {}
        }
    }

    /// Answers what is held, lets everything end, and checks that nothing is left behind.
    fn finish(mut self, sent: u64) {
        for _ in 0..200_000 {
            if self.ends.iter().all(|end| end.rpc_count() == 0) {
                break;
            }
            self.step(0.0);
            for rpc in core::mem::take(&mut self.held) {
                self.ends[1].reject(self.now, rpc, Reason::Overloaded);
            }
        }
        assert_eq!(self.outcomes, sent, "every request has one outcome");
        for (end, pages) in self.ends.iter_mut().zip(self.pages) {
            end.close_socket(self.now, end.sockets.id(0));
            assert_eq!((end.rpc_count(), end.send_bytes(), end.total_incoming()), (0, 0, 0));
            assert!(end.queue.is_empty() && end.waiters.is_empty());
            assert!((end.index.client_count(), end.index.server_count()) == (0, 0));
            assert!(end.peers.iter_mut().all(|(_, peer)| peer.rpcs == 0 && peer.incoming_bytes == 0));
            assert_eq!(end.pool().free_pages(), pages, "all memory came home");
        }
    }

    /// A packet that means to do harm: plausible ports and ids, and anything else.
    fn forge(&mut self, ids: &[u64]) -> Vec<u8> {
        let rng = &mut self.rng;
        let port = self.ends[0].port(self.sockets[0]).unwrap();
        let kind = PacketType::ALL[rng.below(10) as usize];
        let id = ids[rng.below(ids.len() as u64) as usize] ^ rng.below(2);
        let ports = if rng.chance(0.5) { (port, 99) } else { (99, port) };
        let header = Header::new(kind, ports.0, ports.1, id);
        let any = |rng: &mut Prng| match rng.below(4) {
            0 => rng.next_u32(),
            1 => u32::MAX,
            _ => rng.below(100_000) as u32,
        };
        let body = vec![0xee; rng.below(1500) as usize];
        let entry = AckEntry { client_id: id, server_port: 99 };
        let packet = match kind {
            PacketType::Data => {
                let length = 1 + rng.below(60_000) as u32;
                let offset = rng.below(u64::from(length)) as u32;
                let body = &body[..body.len().min((length - offset) as usize)];
                let mut data = Data::new(header, length, any(rng), offset, body);
                data.ack = entry;
                Packet::Data(data)
            }
            PacketType::Grant => Packet::Grant(Grant::new(header, any(rng), rng.next_u32() as u8)),
            PacketType::Resend => {
                Packet::Resend(Resend::new(header, any(rng), any(rng), rng.next_u32() as u8))
            }
            PacketType::RpcUnknown => Packet::RpcUnknown(header),
            PacketType::Busy => Packet::Busy(header),
            PacketType::Cutoffs => {
                Packet::Cutoffs(Cutoffs::new(header, [any(rng); 8], rng.next_u32() as u16))
            }
            PacketType::Freeze => Packet::Freeze(header),
            PacketType::NeedAck => Packet::NeedAck(header),
            PacketType::Ack => Packet::Ack(Ack::new(header, &[entry; 5])),
            PacketType::Unreachable => {
                Packet::Unreachable(Unreachable::new(header, UnreachableCode::from_code(any(rng) as u8)))
            }
        };
        let mut bytes = vec![0; packet.emit_len()];
        packet.emit(&mut bytes);
        if rng.chance(0.1) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u32() as u8;
        }
        bytes
    }
}

fn length(rng: &mut Prng) -> usize {
    match rng.below(4) {
        0 => 1 + rng.below(100_000) as usize,
        1 => 1 + rng.below(10_000) as usize,
        _ => 1 + rng.below(1_400) as usize,
    }
}

#[test]
fn a_bad_network_loses_nothing_and_leaks_nothing() {
    for seed in 0..12 {
        let mut pair = Pair::new(seed, &Config::default(), 64);
        let mut sent = 0;
        for _ in 0..60 {
            let length = length(&mut pair.rng);
            sent += u64::from(pair.request(length));
            (0..20).for_each(|_| pair.step(0.1));
        }
        pair.finish(sent);
    }
}

#[test]
fn little_memory_and_narrow_limits_delay_but_do_not_lose() {
    let config = Config {
        max_unanswered: 4,
        max_memory_waiters: 3,
        max_gaps: 2,
        max_retransmits: 2,
        max_socket_rpcs: 10,
        max_incoming: 50_000,
        max_overcommit: 2,
        ..Config::default()
    };
    for seed in 0..12 {
        let mut pair = Pair::new(seed, &config, 3);
        let mut sent = 0;
        for _ in 0..40 {
            let length = length(&mut pair.rng);
            sent += u64::from(pair.request(length));
            (0..20).for_each(|_| pair.step(0.05));
        }
        pair.finish(sent);
    }
}

#[test]
fn forged_packets_do_no_more_than_fail_rpcs() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed, &Config::default(), 64);
        let mut sent = 0;
        for _ in 0..40 {
            let length = 1 + pair.rng.below(60_000) as usize;
            sent += u64::from(pair.request(length));
            let ids: Vec<u64> =
                (0..pair.ends[0].rpcs.places()).map(|slot| pair.ends[0].rpcs[slot].id).collect();
            for _ in 0..30 {
                let bytes = pair.forge(&ids);
                let to = pair.rng.below(2) as usize;
                pair.ends[to].handle_packet(pair.now, &path(1 - to), &bytes);
                while let Some(event) = pair.ends[to].poll_event() {
                    // Contents may be the forger's; only the number of outcomes counts.
                    match event {
                        Event::Response { .. } | Event::Failed { .. } => pair.outcomes += 1,
                        other => pair.on_event(other),
                    }
                }
            }
            while pair.ends.iter_mut().any(|end| end.poll_transmit(pair.now).is_some()) {}
            pair.now += Duration::from_micros(100);
        }
        // Forged requests are held and responses may be forged: end it by closing.
        for end in 0..2 {
            pair.ends[end].close_socket(pair.now, pair.sockets[end]);
            while let Some(event) = pair.ends[end].poll_event() {
                pair.outcomes += u64::from(matches!(event, Event::Response { .. } | Event::Failed { .. }));
            }
        }
        assert_eq!(pair.outcomes, sent);
        assert!(pair.ends.iter().all(|end| end.rpc_count() == 0 && end.total_incoming() == 0));
    }
}

#[test]
fn one_peer_cannot_take_all_of_the_pool() {
    let mut pair = Pair::new(1, &Config::default(), 64);
    let (now, server) = (pair.now, &mut pair.ends[1]);
    let mut first_packet = |host: &str, id: u64, length: u32| {
        let header = Header::new(PacketType::Data, 0x8000, 99, id);
        let data = Packet::Data(Data::new(header, length, 40_000, 0, &[1; 1000]));
        let mut bytes = vec![0; data.emit_len()];
        data.emit(&mut bytes);
        let path = Path { remote: host.parse().unwrap(), local: 0 };
        server.handle_packet(now, &path, &bytes);
        server.pool().free_pages()
    };
    let pages = (1..100).map(|n| first_packet("10.0.0.1:1", n * 2, 900_000)).last().unwrap();
    assert!((2..17).contains(&pages), "{pages} pages left of 64");
    assert!(first_packet("10.0.0.2:1", 2, 100_000) < pages);
    first_packet("10.0.0.1:1", 1000, 1000);
    assert!(matches!(server.poll_event(), Some(Event::Request { .. })), "short ones still pass");
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let run = || {
        let mut pair = Pair::new(5, &Config::default(), 64);
        for _ in 0..30 {
            let length = length(&mut pair.rng);
            pair.request(length);
            (0..10).for_each(|_| pair.step(0.1));
        }
        (format!("{:?}", pair.ends[0].stats()), format!("{:?}", pair.ends[1].stats()), pair.wire)
    };
    assert_eq!(run(), run());
}

#[test]
fn expects_packets_while_granted_bytes_or_grants_are_due() {
    let mut pair = Pair::new(1, &Config::default(), 64);
    let (now, soon) = (pair.now, pair.now + Duration::from_micros(100));
    let to = PeerAddr { path: path(1), port: 99 };
    let send = |pair: &mut Pair, length: usize| {
        let (socket, message) = (pair.sockets[0], Payload::from(vec![7; length]));
        pair.ends[0].send_request(now, socket, to, message, RequestOptions::default()).unwrap();
        let mut packets = Vec::new();
        while let Some(packet) = pair.ends[0].poll_transmit(now) {
            let mut bytes = Vec::new();
            packet.write_to(&mut bytes);
            packets.push(bytes);
        }
        packets
    };
    let short = send(&mut pair, 1000);
    assert!(!pair.ends[0].expects_packets(now), "an answer takes as long as the application takes");
    for bytes in &short {
        pair.ends[1].handle_packet(now, &path(0), bytes);
    }
    assert!(!pair.ends[1].expects_packets(now), "all of it is here");
    let long = send(&mut pair, 500_000);
    assert!(pair.ends[0].expects_packets(soon), "a grant is due");
    assert!(!pair.ends[0].expects_packets(now + Duration::from_millis(1)), "it did not come");
    for bytes in &long {
        pair.ends[1].handle_packet(now, &path(0), bytes);
    }
    assert!(pair.ends[1].poll_transmit(now).is_some(), "it grants");
    assert!(pair.ends[1].expects_packets(now), "what it granted is due");
}
