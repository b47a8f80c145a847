//! What is measured beside many open RPCs: the same for the clock (`open_rpcs`) and for the count of
//! instructions (`instructions`).
//!
//! The packets of the other host are made by hand, one endpoint is measured, and the cost of making
//! a packet is included.

use core::hint::black_box;
use core::time::Duration;
use std::net::SocketAddr;

use peyk_homa::{
    Config, Endpoint, Event, Path, PeerAddr, RequestOptions, ServerRpc, SocketId, SocketOptions,
};
use peyk_sansio::{Instant, Prng};
use peyk_sockbuf::{Payload, Pool};
use peyk_wire::homa::{Ack, Data, Header, Packet, PacketType};

/// Runs a round so many times as it likes; returns the cost of one.
pub type Run<'a> = &'a mut dyn FnMut(&mut dyn FnMut()) -> f64;

/// Numbers of open RPCs compared.
pub const OPEN: [usize; 3] = [1, 1_000, 100_000];
const SERVER_PORT: u16 = 99;
const CLIENT_PORT: u16 = 0x8001;
pub const HOSTS: usize = 64;

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

/// A small request is taken, answered and acknowledged, beside `open` in service.
pub fn serve(open: usize, run: Run<'_>) -> f64 {
    let mut b = Bench::new(1024);
    let payload = [7u8; 100];
    for _ in 0..open {
        let (id, host) = (b.make_id(), b.random.below(HOSTS as u64) as usize);
        b.data(host, Bench::request_header(id), 100, 100, 0, &payload);
        b.drain();
        drop(b.endpoint.poll_event());
    }
    let answer = Payload::from(vec![1; 100]);
    let rpc = run(&mut || {
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
pub fn receive(open: usize, run: Run<'_>) -> f64 {
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
    let packet = run(&mut || {
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
pub fn call(open: usize, run: Run<'_>) -> f64 {
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
    let rpc = run(&mut || {
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
