//! Golden vectors: complete packets worked out by hand and checked against HomaModule's own, in
//! both directions.

use etherparse::{Ipv4Header, Ipv4HeaderSlice, Ipv6HeaderSlice};
use peyk_wire::homa::{
    Ack, AckEntry, Cutoffs, DOFF_DATA_SEGMENT, Data, Grant, Header, OFFSET_IN_SEQUENCE, Packet, PacketType,
    RESEND_ALL, Resend, checksum_is_valid, fill_checksum, has_tcp_signature,
};
use std::net::IpAddr;

const CLIENT_PORT: u16 = 32768;
const SERVER_PORT: u16 = 99;

/// The side that sends the packet.
#[derive(Copy, Clone, PartialEq)]
enum From {
    Client,
    Server,
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    assert_eq!(digits.len() % 2, 0);
    let byte = |i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn header(from: From, kind: PacketType, id: u64) -> Header {
    match from {
        From::Client => Header::new(kind, CLIENT_PORT, SERVER_PORT, id),
        From::Server => Header::new(kind, SERVER_PORT, CLIENT_PORT, id),
    }
}

fn addresses(from: From) -> (IpAddr, IpAddr) {
    let (client, server) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    if from == From::Client { (client, server) } else { (server, client) }
}

/// Decodes `hex` to `expected` (whose checksum is taken from the packet), encodes `expected` to
/// `hex` with a checksum worked out anew, and verifies the checksum.
#[track_caller]
fn check(from: From, length: usize, hex: &str, expected: Packet<'_>) {
    let golden = bytes(hex);
    assert_eq!(golden.len(), length);
    let (source, destination) = addresses(from);
    assert!(checksum_is_valid(&golden, source, destination), "checksum of the vector");

    let mut encoded = vec![0; expected.emit_len()];
    assert_eq!(expected.emit(&mut encoded), length);
    fill_checksum(&mut encoded, source, destination);
    assert_eq!(encoded, golden, "encoded");

    let parsed = Packet::parse(&golden).unwrap();
    assert_eq!(with_checksum(parsed, 0), expected, "decoded");
    let mut again = vec![0; parsed.emit_len()];
    parsed.emit(&mut again);
    assert_eq!(again, golden, "decoded and encoded again");
}

fn with_checksum(mut packet: Packet<'_>, checksum: u16) -> Packet<'_> {
    let header = match &mut packet {
        Packet::Data(data) => &mut data.header,
        Packet::Grant(grant) => &mut grant.header,
        Packet::Resend(resend) => &mut resend.header,
        Packet::Cutoffs(cutoffs) => &mut cutoffs.header,
        Packet::Ack(ack) => &mut ack.header,
        Packet::Unreachable(unreachable) => &mut unreachable.header,
        Packet::RpcUnknown(header)
        | Packet::Busy(header)
        | Packet::Freeze(header)
        | Packet::NeedAck(header) => header,
    };
    header.checksum = checksum;
    packet
}

fn hello() -> Data<'static> {
    let mut data = Data::new(header(From::Client, PacketType::Data, 1234), 5, 5, 0, b"hello");
    data.ack = AckEntry { client_id: 1232, server_port: SERVER_PORT };
    data.cutoff_version = 1;
    data
}

#[test]
fn data_1_whole_request_with_an_ack() {
    let data = Data { seg_offset: OFFSET_IN_SEQUENCE, ..hello() };
    assert_eq!(data.offset(), 0);
    let hex = "80000063 00000000 00000010 e0060000 83dfb97d 00000000 000004d2 00000005 00000005
        00000000 000004d0 00630001 00000000 ffffffff 68656c6c 6f";
    check(From::Client, 61, hex, Packet::Data(data));
}

#[test]
fn data_2_explicit_offset() {
    let hex = "80000063 00000000 00000010 e0060000 83dfb97d 00000000 000004d2 00000005 00000005
        00000000 000004d0 00630001 00000000 00000000 68656c6c 6f";
    check(From::Client, 61, hex, Packet::Data(hello()));
}

#[test]
fn data_3_retransmission() {
    let payload = [0xa0, 0xa1, 0xa2, 0xa3];
    let header = header(From::Client, PacketType::Data, 1236);
    let mut data = Data::new(header, 100_000, 2848, 1424, &payload);
    data.cutoff_version = 1;
    data.retransmit = 1;
    assert!(data.is_retransmission() && data.ack.is_none());
    let hex = "80000063 00000590 00000010 e0060000 ebc6b97d 00000000 000004d4 000186a0 00000b20
        00000000 00000000 00000001 01000000 00000590 a0a1a2a3";
    check(From::Client, 60, hex, Packet::Data(data));
}

#[test]
fn data_4_stale_sequence_of_a_segmented_frame() {
    let payload = [0xb0, 0xb1, 0xb2, 0xb3];
    let mut header = header(From::Client, PacketType::Data, 1236);
    header.doff = DOFF_DATA_SEGMENT;
    let mut data = Data::new(header, 100_000, 40_000, 1424, &payload);
    data.header.sequence = 0;
    data.cutoff_version = 1;
    assert_eq!(data.offset(), 1424);
    let hex = "80000063 00000000 00000010 d0060000 5116b97d 00000000 000004d4 000186a0 00009c40
        00000000 00000000 00000001 00000000 00000590 b0b1b2b3";
    check(From::Client, 60, hex, Packet::Data(data));
}

#[test]
fn data_5_offset_advanced_by_the_card() {
    let payload = [0xb0, 0xb1, 0xb2, 0xb3];
    let header = header(From::Client, PacketType::Data, 1236);
    let mut data = Data::new(header, 100_000, 40_000, 1424, &payload);
    data.seg_offset = OFFSET_IN_SEQUENCE;
    data.cutoff_version = 1;
    assert_eq!(data.offset(), 1424);
    let hex = "80000063 00000590 00000010 e0060000 4116b97d 00000000 000004d4 000186a0 00009c40
        00000000 00000000 00000001 00000000 ffffffff b0b1b2b3";
    check(From::Client, 60, hex, Packet::Data(data));
}

#[test]
fn data_6_response() {
    let mut data = Data::new(header(From::Server, PacketType::Data, 1235), 3, 3, 0, b"abc");
    data.seg_offset = OFFSET_IN_SEQUENCE;
    assert!(!data.header.is_from_client());
    assert_eq!(data.header.local_id(), 1234);
    let hex = "00638000 00000000 00000010 e0060000 0888b97d 00000000 000004d3 00000003 00000003
        00000000 00000000 00000000 00000000 ffffffff 616263";
    check(From::Server, 59, hex, Packet::Data(data));
}

#[test]
fn grant_of_both_generations() {
    let grant = Grant::new(header(From::Server, PacketType::Grant, 1237), 80_000, 3);
    let hex = "00638000 00000000 00000011 50060000 2186b97d 00000000 000004d5 00013880 0300";
    check(From::Server, 34, hex, Packet::Grant(grant));
    let hex = "00638000 00000000 00000011 50060000 2187b97d 00000000 000004d5 00013880 03";
    check(From::Server, 33, hex, Packet::Grant(Grant { extra: None, ..grant }));
}

#[test]
fn resend_1_a_range() {
    let resend = Resend::new(header(From::Server, PacketType::Resend, 1237), 1424, 1424, 7);
    assert!(!resend.is_all());
    let hex = "00638000 00000000 00000012 50060000 4ae3b97d 00000000 000004d5 00000590 00000590 07";
    check(From::Server, 37, hex, Packet::Resend(resend));
}

#[test]
fn resend_2_everything() {
    let resend = Resend::new(header(From::Client, PacketType::Resend, 1236), 0, RESEND_ALL, 7);
    assert!(resend.is_all());
    let hex = "80000063 00000000 00000012 50060000 5604b97d 00000000 000004d4 00000000 ffffffff 07";
    check(From::Client, 37, hex, Packet::Resend(resend));
}

#[test]
fn packets_of_the_header_alone() {
    let resend = header(From::Client, PacketType::Resend, 1236);
    let hex = "00638000 00000000 00000013 50060000 5d0bb97d 00000000 000004d5";
    check(From::Server, 28, hex, Packet::rpc_unknown(&resend));
    let hex = "00638000 00000000 00000014 50060000 5d0ab97d 00000000 000004d5";
    check(From::Server, 28, hex, Packet::busy(&resend));
    let hex = "80000000 00000000 00000016 50060000 6240b97d 00000000 00000000";
    let freeze = Header::new(PacketType::Freeze, CLIENT_PORT, 0, 0);
    check(From::Client, 28, hex, Packet::Freeze(freeze));
    let hex = "00638000 00000000 00000017 50060000 5d07b97d 00000000 000004d5";
    check(From::Server, 28, hex, Packet::need_ack(SERVER_PORT, CLIENT_PORT, 1237));
}

#[test]
fn cutoffs_written_and_untouched() {
    let header = header(From::Server, PacketType::Cutoffs, 1237);
    let written = [0x7fff_ffff, 0, 0, 0, 1_000_000, 15_000, 2800, 200];
    let cutoffs = Cutoffs::new(header, written, 1);
    let hex = "00638000 00000000 00000015 50060000 5447b97d 00000000 000004d5 7fffffff 00000000
        00000000 00000000 000f4240 00003a98 00000af0 000000c8 0001";
    check(From::Server, 62, hex, Packet::Cutoffs(cutoffs));

    let untouched = Cutoffs::new(header, [0, 0, 0, 0, 1_000_000, 15_000, 2800, 200], 1);
    assert_eq!(untouched.lowest_unlimited(), written);
    let hex = "00638000 00000000 00000015 50060000 d446b97d 00000000 000004d5 00000000 00000000
        00000000 00000000 000f4240 00003a98 00000af0 000000c8 0001";
    check(From::Server, 62, hex, Packet::Cutoffs(untouched));
}

#[test]
fn ack_of_three_rpcs() {
    let entries = [1238, 1240].map(|client_id| AckEntry { client_id, server_port: SERVER_PORT });
    let ack = Ack::new(header(From::Client, PacketType::Ack, 1236), &entries);
    assert_eq!(ack.entries(), entries);
    let hex = "80000063 00000000 00000018 50060000 525db97d 00000000 000004d4 00020000 00000000
        04d60063 00000000 000004d8 00630000 00000000 00000000 00000000 00000000 00000000 00000000
        00000000";
    check(From::Client, 80, hex, Packet::Ack(ack));
}

#[test]
fn ipv4_packets_native_and_disguised_as_tcp() {
    for (protocol, hex) in [
        (
            146,
            "45e00051 00004000 40922539 0a000001 0a000002 80000063 00000000 00000010 e0060000
             83dfb97d 00000000 000004d2 00000005 00000005 00000000 000004d0 00630001 00000000
             ffffffff 68656c6c 6f",
        ),
        (
            6,
            "45e00051 00004000 400625c5 0a000001 0a000002 80000063 00000000 00000010 e0060000
             83dfb97d 00000000 000004d2 00000005 00000005 00000000 000004d0 00630001 00000000
             ffffffff 68656c6c 6f",
        ),
    ] {
        let golden = bytes(hex);
        assert_eq!(golden.len(), 81);
        let ip = Ipv4HeaderSlice::from_slice(&golden).unwrap();
        assert_eq!((ip.protocol().0, ip.total_len(), ip.ttl()), (protocol, 81, 64));
        assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
        assert_eq!(ip.dcp().value() >> 3, 7, "priority");
        let packet = &golden[Ipv4Header::MIN_LEN..];
        assert!(has_tcp_signature(packet));
        let (source, destination) = (ip.source_addr().into(), ip.destination_addr().into());
        assert!(checksum_is_valid(packet, source, destination));
        let expected = Data { seg_offset: OFFSET_IN_SEQUENCE, ..hello() };
        let parsed = Packet::parse(packet).unwrap();
        assert_eq!(with_checksum(parsed, 0), Packet::Data(expected));

        let mut made = golden.clone();
        made[Ipv4Header::MIN_LEN..].fill(0);
        expected.emit(&mut made[Ipv4Header::MIN_LEN..]);
        fill_checksum(&mut made[Ipv4Header::MIN_LEN..], source, destination);
        assert_eq!(made, golden);
    }
}

#[test]
fn ipv6_packet() {
    let golden = bytes(
        "6e000000 001c9240 fd000000 00000000 00000000 00000002 fd000000 00000000 00000000 00000001
         00638000 00000000 00000014 50060000 7708b97d 00000000 000004d5",
    );
    assert_eq!(golden.len(), 68);
    let ip = Ipv6HeaderSlice::from_slice(&golden).unwrap();
    assert_eq!((ip.next_header().0, ip.payload_length()), (146, 28));
    assert_eq!(ip.traffic_class(), 0xe0);
    let (source, destination) = (ip.source_addr().into(), ip.destination_addr().into());
    assert!(checksum_is_valid(&golden[40..], source, destination));
    let busy = Packet::busy(&header(From::Client, PacketType::Resend, 1236));
    let parsed = Packet::parse(&golden[40..]).unwrap();
    assert_eq!(with_checksum(parsed, 0), busy);
    let mut made = [0; 28];
    busy.emit(&mut made);
    fill_checksum(&mut made, source, destination);
    assert_eq!(made[..], golden[40..]);
}

#[test]
fn a_wrong_bit_shows_in_the_checksum() {
    let mut packet = vec![0; 61];
    hello().emit(&mut packet);
    let (source, destination) = addresses(From::Client);
    fill_checksum(&mut packet, source, destination);
    assert!(checksum_is_valid(&packet, source, destination));
    for bit in 0..packet.len() * 8 {
        packet[bit / 8] ^= 1 << (bit % 8);
        assert!(!checksum_is_valid(&packet, source, destination), "bit {bit}");
        packet[bit / 8] ^= 1 << (bit % 8);
    }
}
