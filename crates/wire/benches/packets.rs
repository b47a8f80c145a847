//! What parsing and emitting cost on the hot path, in nanoseconds a packet.
//!
//! Run with `cargo bench -p peyk-wire`. The packets vary and go through `black_box`, so that
//! nothing is worked out at compile time.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a bench measures real time")]

use peyk_wire::homa::{Ack, AckEntry, Data, Grant, Header, Packet, PacketType, fill_checksum};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

const ROUNDS: u32 = 200_000;
const PACKETS: usize = 64;

fn main() {
    let payload = [7; 1424];
    let packets = |make: &dyn Fn(u64) -> Vec<u8>| (0..PACKETS as u64).map(make).collect::<Vec<_>>();
    let data = packets(&|i| emit(Packet::Data(data(i, &payload))));
    let grants = packets(&|i| {
        let header = Header::new(PacketType::Grant, 99, 0x8000, 2 * i + 1);
        emit(Packet::Grant(Grant::new(header, 80_000, 3)))
    });
    let acks = packets(&|i| {
        let header = Header::new(PacketType::Ack, 0x8000, 99, 2 * i);
        let entry = AckEntry { client_id: 2 * i, server_port: 99 };
        emit(Packet::Ack(Ack::new(header, &[entry; 5])))
    });
    time("parse DATA (Packet::parse)", || parse_all(&data));
    time("parse GRANT", || parse_all(&grants));
    time("parse ACK", || parse_all(&acks));
    let mut out = [0; 56];
    time("emit_header of DATA", || {
        for i in 0..PACKETS as u64 {
            data_of(i, &payload).emit_header(black_box(&mut out));
        }
    });
    time("Data::parse and emit_header", || {
        for packet in &data {
            if let Ok(data) = Data::parse(black_box(packet)) {
                data.emit_header(black_box(&mut out));
            }
        }
    });
    time("Packet::parse and emit_header", || {
        for packet in &data {
            if let Ok(Packet::Data(data)) = Packet::parse(black_box(packet)) {
                data.emit_header(black_box(&mut out));
            }
        }
    });
    let (source, destination) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let mut packet = data[0].clone();
    time("checksum of 1480 bytes", || {
        for _ in 0..PACKETS {
            fill_checksum(black_box(&mut packet), IpAddr::V4(source), IpAddr::V4(destination));
        }
    });
}

fn data(i: u64, payload: &[u8]) -> Data<'_> {
    let header = Header::new(PacketType::Data, 0x8000, 99, 2 * i);
    Data::new(header, 500_000, 40_000, 1424 * i as u32, payload)
}

fn data_of(i: u64, payload: &[u8]) -> Data<'_> {
    data(black_box(i), black_box(payload))
}

fn emit(packet: Packet<'_>) -> Vec<u8> {
    let mut bytes = vec![0; packet.emit_len()];
    packet.emit(&mut bytes);
    bytes
}

fn parse_all(packets: &[Vec<u8>]) {
    for packet in packets {
        let parsed = Packet::parse(black_box(packet));
        let _ = black_box(&parsed);
    }
}

fn time(name: &str, mut round: impl FnMut()) {
    let rounds = if name.starts_with("checksum") { ROUNDS / 50 } else { ROUNDS };
    for _ in 0..rounds / 10 {
        round();
    }
    let start = Instant::now();
    for _ in 0..rounds {
        round();
    }
    let nanoseconds = start.elapsed().as_nanos() as f64;
    println!("{name:32} {:7.2} ns", nanoseconds / f64::from(rounds) / PACKETS as f64);
}
