//! What a packet costs beside 1, 1,000 and 100,000 open RPCs, and what the parts
//! that have to scale cost by themselves.
//!
//! The packets of the other host are made by hand, one endpoint is measured, and
//! the cost of making a packet (about 20 ns) is included. Ratios are to the
//! cost with one open RPC. Run with `cargo bench -p peyk-homa --bench open_rpcs`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a bench measures real time")]

use core::hint::black_box;
use core::time::Duration;
use std::net::SocketAddr;

use peyk_homa::completed::{Completed, CompletedConfig};
use peyk_homa::grant::{GrantConfig, GrantOut, Grants};
use peyk_homa::srpt::SendQueue;
use peyk_homa::{
    Config, Endpoint, Event, Path, PeerAddr, RequestOptions, ServerRpc, SocketId, SocketOptions,
};
use peyk_sansio::{Instant, Prng};
use peyk_sockbuf::{Payload, Pool};
use peyk_wire::homa::{Ack, Data, Header, Packet, PacketType};

const OPEN: [usize; 3] = [1, 1_000, 100_000];
const SERVER_PORT: u16 = 99;
const CLIENT_PORT: u16 = 0x8001;
const HOSTS: usize = 64;

/// Timers so long that nothing of them is seen, and a pool that all may share.
fn config() -> Config {
    Config {
        resend_ticks: 800_000,
        timeout_ticks: 900_000,
        request_ack_ticks: 800_000,
        request_ack_max_ticks: 800_000,
        unsched_bytes: 10_000,
        max_peer_incoming: u64::MAX,
        ..Config::default()
    }
}

fn path(host: usize) -> Path {
    Path { remote: SocketAddr::from(([10, 0, 1, host as u8], 14_600)), local: 0 }
}

struct Bench {
    endpoint: Endpoint,
    server: SocketId,
    client: SocketId,
    now: Instant,
    random: Prng,
    buffer: Vec<u8>,
    sent: usize,
    next_id: u64,
}

impl Bench {
    fn new(pages: u32) -> Bench {
        let now = Instant::from_nanos(1_000_000_000);
        let mut endpoint = Endpoint::new(config(), 1, Pool::new(pages), now).expect("valid settings");
        let server = endpoint.open_socket(Some(SERVER_PORT), SocketOptions::default()).expect("free port");
        let client = endpoint.open_socket(None, SocketOptions::default()).expect("free port");
        let (random, buffer, sent) = (Prng::new(7), Vec::new(), 0);
        Bench { endpoint, server, client, now, random, buffer, sent, next_id: 1 << 40 }
    }

    fn make_id(&mut self) -> u64 {
        self.next_id += 2;
        self.next_id
    }

    /// Hands over DATA that a host sends.
    fn data(&mut self, host: usize, header: Header, length: u32, incoming: u32, offset: u32, payload: &[u8]) {
        let data = Data::new(header, length, incoming, offset, payload);
        let mut data = data;
        data.cutoff_version = 1;
        self.feed(host, &Packet::Data(data));
    }

    fn feed(&mut self, host: usize, packet: &Packet<'_>) {
        self.buffer.resize(packet.emit_len(), 0);
        packet.emit(&mut self.buffer);
        self.now += Duration::from_nanos(100);
        self.endpoint.handle_packet(self.now, &path(host), &self.buffer);
    }

    fn request_header(id: u64) -> Header {
        Header::new(PacketType::Data, CLIENT_PORT, SERVER_PORT, id)
    }

    fn drain(&mut self) {
        while let Some(packet) = self.endpoint.poll_transmit(self.now) {
            black_box(&packet);
            self.sent += 1;
        }
    }

    fn take_request(&mut self) -> Option<ServerRpc> {
        match self.endpoint.poll_event()? {
            Event::Request { rpc, .. } => Some(rpc),
            other => panic!("{other:?}"),
        }
    }
}

/// Nanoseconds per run of `f`, of `rounds` runs.
fn measure(rounds: usize, mut f: impl FnMut()) -> f64 {
    for _ in 0..rounds / 10 {
        f();
    }
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        f();
    }
    start.elapsed().as_nanos() as f64 / rounds as f64
}

/// A small request is taken, answered and acknowledged, beside `open` in service.
fn serve(open: usize, rounds: usize) -> f64 {
    let mut b = Bench::new(1024);
    let payload = [7u8; 100];
    for _ in 0..open {
        let (id, host) = (b.make_id(), b.random.below(HOSTS as u64) as usize);
        b.data(host, Bench::request_header(id), 100, 100, 0, &payload);
        b.drain();
        drop(b.endpoint.poll_event());
    }
    let answer = Payload::from(vec![1; 100]);
    let rpc = measure(rounds, || {
        let (id, host) = (b.make_id(), b.random.below(HOSTS as u64) as usize);
        b.data(host, Bench::request_header(id), 100, 100, 0, &payload);
        b.drain();
        let rpc = b.take_request().expect("the request is complete");
        b.endpoint.reply(b.now, rpc, answer.clone()).expect("reply accepted");
        b.drain();
        let header = Header::new(PacketType::Ack, CLIENT_PORT, SERVER_PORT, id);
        b.feed(host, &Packet::Ack(Ack::new(header, &[])));
        b.drain();
    });
    assert_eq!(b.endpoint.rpc_count(), open);
    // DATA in, DATA out, ACK in.
    rpc / 3.0
}

/// DATA of one of `open` long requests that wait for grants, most of them in vain. The packets are
/// small, or the first touch of each page of the pool would be most of the cost.
fn receive(open: usize, rounds: usize) -> f64 {
    const LENGTH: u32 = 40_000;
    const STEP: u32 = 16;
    let mut b = Bench::new(open as u32 + 64);
    let payload = [7u8; STEP as usize];
    let mut messages: Vec<(u64, usize, u32)> = Vec::new();
    for i in 0..open {
        let id = b.make_id();
        b.data(i % HOSTS, Bench::request_header(id), LENGTH, 10_000, 0, &payload);
        b.drain();
        messages.push((id, i % HOSTS, STEP));
    }
    let packet = measure(rounds, || {
        let i = b.random.below(open as u64) as usize;
        let (id, host, offset) = messages[i];
        b.data(host, Bench::request_header(id), LENGTH, 10_000, offset, &payload);
        b.drain();
        messages[i].2 += STEP;
        if messages[i].2 == LENGTH {
            let rpc = b.take_request().expect("the request is complete");
            b.endpoint.reject(b.now, rpc, peyk_homa::Reason::Aborted);
            b.drain();
            let id = b.make_id();
            messages[i] = (id, host, 0);
        }
    });
    black_box(b.sent);
    packet
}

/// A response to one of `open` requests of ours, and the next request.
fn call(open: usize, rounds: usize) -> f64 {
    let mut b = Bench::new(1024);
    let port = b.endpoint.port(b.client).expect("open socket");
    let message = Payload::from(vec![1; 100]);
    let payload = [7u8; 100];
    let mut calls = Vec::new();
    let send = |b: &mut Bench, host: usize| {
        let to = PeerAddr { path: path(host), port: SERVER_PORT };
        let options = RequestOptions::default();
        let rpc = b.endpoint.send_request(b.now, b.client, to, message.clone(), options);
        let rpc = rpc.expect("request accepted").0;
        b.drain();
        (rpc, host)
    };
    for i in 0..open {
        let call = send(&mut b, i % HOSTS);
        calls.push(call);
    }
    let rpc = measure(rounds, || {
        let i = b.random.below(open as u64) as usize;
        let (id, host) = calls[i];
        let header = Header::new(PacketType::Data, SERVER_PORT, port, id | 1);
        b.data(host, header, 100, 100, 0, &payload);
        black_box(b.endpoint.poll_event().expect("the response is complete"));
        calls[i] = send(&mut b, host);
    });
    black_box(b.server);
    // DATA in, DATA out.
    rpc / 2.0
}

/// One packet of one of `open` messages in the grant scheduler alone.
fn grants(open: usize, rounds: usize) -> f64 {
    let mut grants = Grants::new(GrantConfig::default());
    let mut random = Prng::new(3);
    let mut received = vec![0u32; open];
    let birth = |n: usize| Instant::from_nanos(n as u64);
    for slot in 0..open {
        grants.manage(slot as u32, (slot % HOSTS) as u32, 1_000_000, 10_000, 0, birth(slot));
    }
    let mut out: Vec<GrantOut> = Vec::new();
    let mut now = 0;
    measure(rounds, || {
        let slot = random.below(open as u64) as usize;
        received[slot] += 1000;
        grants.on_received(slot as u32, received[slot]);
        if received[slot] == 1_000_000 {
            received[slot] = 0;
            grants.manage(slot as u32, (slot % HOSTS) as u32, 1_000_000, 10_000, 0, birth(now as usize));
        }
        now += 100;
        grants.poll(Instant::from_nanos(now), &mut out);
        out.clear();
    })
}

/// One packet sent of the best of `open` messages in the send queue alone.
fn send_queue(open: usize, rounds: usize) -> f64 {
    let mut queue = SendQueue::new();
    let mut random = Prng::new(5);
    let mut left: Vec<u32> = (0..open).map(|_| 10_000 + random.below(900_000) as u32).collect();
    for (slot, &left) in left.iter().enumerate() {
        queue.insert(slot as u32, left, Instant::ZERO);
    }
    measure(rounds, || {
        let slot = queue.best().expect("never empty");
        let left = &mut left[slot as usize];
        if *left <= 1424 {
            queue.remove(slot);
            *left = 10_000 + random.below(900_000) as u32;
            queue.insert(slot, *left, Instant::ZERO);
        } else {
            *left -= 1424;
            queue.update(slot, *left);
        }
    })
}

fn print(name: &str, costs: [f64; 3]) {
    let ratio = |n: usize| costs[n] / costs[0];
    println!(
        "{name:<44} {:>8.0} ns {:>8.0} ns ({:.2}x) {:>8.0} ns ({:.2}x)",
        costs[0],
        costs[1],
        ratio(1),
        costs[2],
        ratio(2)
    );
}

fn record() {
    let config = CompletedConfig { retention: Duration::from_secs(1), max_chunks: 65_536 };
    let mut record = Completed::new(config, 1);
    let mut id = 0;
    let insert = measure(5_000_000, || {
        id += 2;
        black_box(record.insert(Instant::ZERO, 3, id));
    });
    let contains = measure(5_000_000, || {
        id += 2;
        black_box(record.contains(3, id & 0xff_ffff));
    });
    let mut random = Prng::new(1);
    let scattered = measure(5_000_000, || {
        let n = random.next_u64();
        black_box(record.insert(Instant::ZERO, n as u32 % 64, n >> 42));
    });
    println!("finished-RPC record: insert {insert:.1} ns, look-up {contains:.1} ns in sequence; insert");
    println!("  {scattered:.1} ns at random places of 64 peers x 4M ids");
}

fn main() {
    let scale = if std::env::args().any(|arg| arg == "--test") { 1000 } else { 1 };
    let head = "cost per packet";
    println!("{head:<44} {:>11} {:>19} {:>19}", "1 open", "1,000 open", "100,000 open");
    print("small request served (in service beside it)", OPEN.map(|n| serve(n, 1_000_000 / scale)));
    print("DATA of a long request (all need grants)", OPEN.map(|n| receive(n, 1_000_000 / scale)));
    print("response received, next request sent", OPEN.map(|n| call(n, 1_000_000 / scale)));
    println!("cost of the parts, per packet");
    print("grant scheduler", OPEN.map(|n| grants(n, 2_000_000 / scale)));
    print("send queue", OPEN.map(|n| send_queue(n, 2_000_000 / scale)));
    record();
}
