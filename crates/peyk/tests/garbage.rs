//! Strangers send whatever they like, at a server and at a client with live RPCs: nothing changes
//! but counters. `PEYK_GARBAGE_SECONDS` says for how long, 3 by default.

#![allow(non_snake_case)] // tests are named function__case

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{World, contents, until_idle, wait};
use peyk::homa::{Addr, Reason, Socket};
use peyk_sansio::Prng;
use peyk_wire::homa::{
    Ack, AckEntry, Cutoffs, Data, Grant, Header, Packet, PacketType, Resend, Unreachable, UnreachableCode,
};

in_every_world!(garbage__changes_nothing_but_counters);

/// A datagram that really travelled between client and server, and where it went.
type Seen = (SocketAddr, Vec<u8>);

/// Stands between client and server, passes everything on, and so learns the ids of live RPCs.
struct Tap {
    seen: Arc<Mutex<Vec<Seen>>>,
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Datagrams remembered.
const SEEN_MAX: usize = 64;

impl Tap {
    fn start(server: SocketAddr) -> Tap {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let addr = socket.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (remember, until) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut client = None;
            let mut bytes = vec![0; 1 << 16];
            let mut turn = 0;
            while !until.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut bytes) else { continue };
                if from != server {
                    client = Some(from);
                }
                let Some(to) = (if from == server { client } else { Some(server) }) else { continue };
                // Refused now and then when a queue is full: then it is lost, as elsewhere.
                let _ = socket.send_to(&bytes[..len], to);
                let mut seen = remember.lock().unwrap();
                let datagram = (to, bytes[..len].to_vec());
                turn = (turn + 1) % SEEN_MAX;
                match seen.get_mut(turn) {
                    Some(place) => *place = datagram,
                    None => seen.push(datagram),
                }
            }
        });
        Tap { seen, addr, stop, thread: Some(thread) }
    }

    fn any(&self, random: &mut Prng) -> Option<Seen> {
        let seen = self.seen.lock().unwrap();
        (!seen.is_empty()).then(|| seen[random.below(seen.len() as u64) as usize].clone())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// What a stranger makes of a datagram that was really sent.
fn spoil(mut datagram: Vec<u8>, random: &mut Prng) -> Vec<u8> {
    match random.below(8) {
        0 => contents(random.next_u64(), random.below(1500) as usize),
        1 => {
            datagram.truncate(random.below(datagram.len() as u64 + 1) as usize);
            datagram
        }
        2 | 3 => {
            for _ in 0..=random.below(4) {
                let bit = random.below(datagram.len() as u64 * 8) as usize;
                // Most flips where it hurts: in the headers.
                let bit = if random.chance(0.8) { bit % (56 * 8).min(datagram.len() * 8) } else { bit };
                datagram[bit / 8] ^= 1 << (bit % 8);
            }
            datagram
        }
        // As it is, but from somebody else.
        4 => datagram,
        _ => match Header::parse(&datagram) {
            Ok(header) => forge(header, random),
            Err(_) => datagram,
        },
    }
}

/// A well-formed packet about the RPC of `header`, or about one with a similar id.
fn forge(mut header: Header, random: &mut Prng) -> Vec<u8> {
    if random.chance(0.5) {
        header.sender_id = header.sender_id.wrapping_add_signed((random.below(200) as i64 - 100) * 2);
    }
    let with = |kind| Header::new(kind, header.sport, header.dport, header.sender_id);
    let number = random.next_u32() % 1_200_000;
    let entry = AckEntry { client_id: header.sender_id & !1, server_port: header.dport };
    let payload = contents(random.next_u64(), 1 + random.below(1400) as usize);
    let packet = match random.below(10) {
        0 => Packet::Grant(Grant::new(with(PacketType::Grant), number, random.next_u32() as u8)),
        1 => Packet::Resend(Resend::new(with(PacketType::Resend), number, random.next_u32(), 7)),
        2 => Packet::RpcUnknown(with(PacketType::RpcUnknown)),
        3 => Packet::Busy(with(PacketType::Busy)),
        4 => Packet::Cutoffs(Cutoffs::new(with(PacketType::Cutoffs), [number; 8], number as u16)),
        5 => Packet::Freeze(with(PacketType::Freeze)),
        6 => Packet::NeedAck(with(PacketType::NeedAck)),
        7 => Packet::Ack(Ack::new(with(PacketType::Ack), &[entry; 5])),
        8 => {
            let code = UnreachableCode::from_code(random.below(8) as u8);
            Packet::Unreachable(Unreachable::new(with(PacketType::Unreachable), code))
        }
        _ => {
            // Rarely a long message: it may take memory, but not all of it.
            let length = if random.chance(0.01) { number } else { random.next_u32() % 3_000 };
            let length = length.max(1);
            let offset = random.next_u32() % length;
            let payload = &payload[..payload.len().min((length - offset) as usize)];
            let mut data = Data::new(with(PacketType::Data), length, number, offset, payload);
            data.ack = entry;
            Packet::Data(data)
        }
    };
    let mut bytes = vec![0; packet.emit_len()];
    let len = packet.emit(&mut bytes);
    bytes.truncate(len);
    bytes
}

fn garbage__changes_nothing_but_counters(world: World) {
    let seconds = std::env::var("PEYK_GARBAGE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let until = Instant::now() + Duration::from_secs(seconds);
    let stack = || world.stack_with(|c| c.homa.timeout_ticks = common::DEFAULT_TIMEOUT);
    let (a, b) = (stack(), stack());
    let (server, addr) = world.bind(&a, 4000);
    let tap = Tap::start(addr.carriage());
    let through = addr.with_udp_port(tap.addr.port());
    let serving = serve_known(server.clone(), through);
    let client = Socket::open(&b).unwrap();
    let callers: Vec<_> = (0..4).map(|t| call_until(client.clone(), through, t, until)).collect();

    let stranger = UdpSocket::bind((world.ip, 0)).unwrap();
    stranger.set_nonblocking(true).unwrap();
    let mut random = Prng::new(1);
    let (mut sent, mut answers, mut bytes) = (0u64, 0u64, vec![0; 1 << 16]);
    while Instant::now() < until {
        for _ in 0..30 {
            let Some((to, datagram)) = tap.any(&mut random) else { continue };
            sent += u64::from(stranger.send_to(&spoil(datagram, &mut random), to).is_ok());
            // To whom it was not meant, too.
            let other = spoil(contents(sent, 100), &mut random);
            let _ = stranger.send_to(&other, addr.carriage());
        }
        while stranger.recv_from(&mut bytes).is_ok() {
            answers += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let calls: u64 = callers.into_iter().map(|c| c.join().unwrap()).sum();
    println!("{sent} packets of a stranger, {answers} answers to it, {calls} calls");
    assert!(sent > 0 && calls > 0);

    // What a stranger began is forgotten in time, and all memory comes home.
    until_idle(&b);
    until_idle(&a);
    for (stack, sockets) in [(&a, common::shards()), (&b, 1)] {
        let stats = stack.stats().unwrap();
        assert_eq!(stats.usage.sockets, sockets);
        assert!(
            stats.homa.drop_malformed > 0 && stats.homa.drop_wrong_peer + stats.homa.drop_unknown_rpc > 0
        );
    }
    let stats = b.stats().unwrap().homa;
    assert_eq!((stats.rpc_failures, stats.responses_received), (0, calls), "{stats:?}");
    assert!(wait(client.call(through, "well?")).unwrap().message == b"well?");
    server.close();
    serving.join().unwrap();
}

/// Answers those who come through the tap; strangers, who may ask like everybody, are refused.
fn serve_known(server: Socket, through: Addr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while let Ok(request) = peyk::block_on(server.recv()) {
            if request.from().udp_port == through.udp_port {
                let message = request.message().clone();
                wait(request.reply(message)).unwrap();
            } else {
                request.reject(Reason::Overloaded);
            }
        }
    })
}

/// Calls in a row; each must come back as it was sent.
fn call_until(client: Socket, to: Addr, thread: u64, until: Instant) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut calls = 0;
        while Instant::now() < until {
            let seed = thread << 32 | calls;
            let size = [1, 100, 3_000, 60_000, 400_000][(seed % 5) as usize];
            let message = contents(seed, size);
            let response = wait(client.call(to, message.clone())).unwrap();
            assert!(response.message == message, "{size} bytes came back changed");
            calls += 1;
        }
        calls
    })
}
