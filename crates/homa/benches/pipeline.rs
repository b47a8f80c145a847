//! What a packet costs: two endpoints in memory, 100-byte RPCs, up to 64 under way.
//!
//! No network and no clock are involved; each packet is copied once into a buffer, as a driver
//! would. Every packet counts twice, as produced and as handled; the RESENDs and BUSYs of RPCs
//! that the server leaves unanswered count as well. Run with
//! `cargo bench -p peyk-homa --bench pipeline`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a bench measures real time")]

use std::net::SocketAddr;
use std::time::Duration;

use peyk_homa::{Config, Endpoint, Event, Path, PeerAddr, RequestOptions, SocketId, SocketOptions};
use peyk_sansio::Instant;
use peyk_sockbuf::{Payload, Pool};

/// A host, its endpoint, and the packets it has sent.
struct Host {
    endpoint: Endpoint,
    socket: SocketId,
    path_to_other: Path,
    wire: Vec<u8>,
    ends: Vec<usize>,
}

impl Host {
    fn new(port: Option<u16>, other: SocketAddr, seed: u64) -> Host {
        let now = Instant::from_nanos(0);
        let mut endpoint = Endpoint::new(Config::default(), seed, Pool::new(1024), now).unwrap();
        let socket = endpoint.open_socket(port, SocketOptions::default()).unwrap();
        let path_to_other = Path { remote: other, local: 0 };
        Host { endpoint, socket, path_to_other, wire: Vec::new(), ends: Vec::new() }
    }

    /// Puts everything that may be sent on the wire.
    fn transmit(&mut self, now: Instant) -> usize {
        self.wire.clear();
        self.ends.clear();
        loop {
            let packet = self.endpoint.poll_packet(now);
            let Some(packet) = &packet else { return self.ends.len() };
            let (start, header) = (self.wire.len(), packet.header_len());
            self.wire.resize(start + packet.len(), 0);
            let (head, body) = self.wire[start..].split_at_mut(header);
            packet.write_header(head);
            match packet.message().as_slice() {
                Some(bytes) => body.copy_from_slice(&bytes[packet.range()]),
                None => assert_eq!(packet.message().slice(packet.range()).copy_to(body), body.len()),
            }
            self.ends.push(self.wire.len());
        }
    }

    /// Takes everything the other host put on the wire.
    fn receive(&mut self, now: Instant, other: &Host) {
        let mut start = 0;
        for &end in &other.ends {
            self.endpoint.handle_packet(now, &self.path_to_other, &other.wire[start..end]);
            start = end;
        }
    }
}

struct Bench {
    client: Host,
    server: Host,
    to: PeerAddr,
    request: Payload,
    /// Requests that the server will leave unanswered.
    parked: u64,
    now: Instant,
    done: u64,
    packets: u64,
}

impl Bench {
    fn new(length: usize) -> Bench {
        let client_at: SocketAddr = "10.0.0.1:14600".parse().unwrap();
        let server_at: SocketAddr = "10.0.0.2:14600".parse().unwrap();
        Bench {
            client: Host::new(None, server_at, 1),
            server: Host::new(Some(99), client_at, 2),
            to: PeerAddr { path: Path { remote: server_at, local: 0 }, port: 99 },
            request: Payload::from(vec![7; length]),
            parked: 0,
            now: Instant::from_nanos(1_000_000),
            done: 0,
            packets: 0,
        }
    }

    fn send(&mut self) {
        let (request, options) = (self.request.clone(), RequestOptions::default());
        let (endpoint, socket) = (&mut self.client.endpoint, self.client.socket);
        endpoint.send_request(self.now, socket, self.to, request, options).unwrap();
    }

    /// One round: requests over, responses back, new requests for the responses.
    fn round(&mut self, step: Duration) {
        self.now += step;
        self.packets += self.client.transmit(self.now) as u64;
        self.server.receive(self.now, &self.client);
        while let Some(event) = self.server.endpoint.poll_event() {
            if let Event::Request { rpc, message, .. } = event {
                if self.parked > 0 {
                    self.parked -= 1;
                    continue;
                }
                self.server.endpoint.reply(self.now, rpc, Payload::from(message)).unwrap();
            }
        }
        self.packets += self.server.transmit(self.now) as u64;
        self.client.receive(self.now, &self.server);
        while let Some(event) = self.client.endpoint.poll_event() {
            if let Event::Response { message, .. } = event {
                assert_eq!(message.len(), self.request.len());
                self.done += 1;
                self.send();
            }
        }
        self.client.endpoint.handle_timeout(self.now);
        self.server.endpoint.handle_timeout(self.now);
    }
}

/// Parts of a run that are timed one by one: the best one suffered least from other programs.
const PARTS: u64 = 40;

fn run(name: &str, length: usize, depth: u64, open: u64, rpcs: u64) {
    if std::env::args().skip(1).any(|arg| !arg.starts_with("--") && !name.contains(&arg)) {
        return;
    }
    let mut bench = Bench::new(length);
    bench.parked = open;
    while bench.server.endpoint.rpc_count() < open as usize {
        (0..open.min(500)).for_each(|_| bench.send());
        bench.round(Duration::from_micros(1));
    }
    (0..depth).for_each(|_| bench.send());
    let step = Duration::from_nanos(500 * depth);
    while bench.done < (rpcs / 10).max(2 * depth) {
        bench.round(step);
    }
    let mut costs: Vec<(f64, f64)> = Vec::new();
    let (done_before, packets_before) = (bench.done, bench.packets);
    for _ in 0..PARTS {
        let (done, packets) = (bench.done, bench.packets);
        let begin = std::time::Instant::now();
        while bench.done - done < rpcs / PARTS {
            bench.round(step);
        }
        let elapsed = begin.elapsed().as_nanos() as f64;
        costs.push((elapsed / (bench.packets - packets) as f64 / 2.0, elapsed / (bench.done - done) as f64));
    }
    costs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ((best, best_rpc), (median, _)) = (costs[0], costs[costs.len() / 2]);
    println!(
        "{name:<31} {best:>6.1} ns per packet produced or handled (median {median:.1}), \
         {best_rpc:>7.1} ns per RPC of {:.2} packets",
        (bench.packets - packets_before) as f64 / (bench.done - done_before) as f64,
    );
}

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let scale = if is_test { 100 } else { 1 };
    run("100 B, 1 under way", 100, 1, 0, 1_000_000 / scale);
    run("100 B, 64 under way", 100, 64, 0, 4_000_000 / scale);
    run("100 B, 64, beside 1,000 open", 100, 64, 1_000, 4_000_000 / scale);
    run("100 B, 64, beside 100,000 open", 100, 64, 100_000, 4_000_000 / scale);
    run("100 B, 1,024 under way", 100, 1024, 0, 4_000_000 / scale);
    run("100 B, 65,536 under way", 100, 65_536, 0, 4_000_000 / scale);
    run("1,000 B, 64 under way", 1_000, 64, 0, 2_000_000 / scale);
    run("10,000 B, 64 under way", 10_000, 64, 0, 300_000 / scale);
    run("200,000 B, 8 under way", 200_000, 8, 0, 20_000 / scale);
}
