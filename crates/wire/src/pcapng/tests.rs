//! Captures of all kinds, made by hand or by the writer, and read back.

use super::*;
use crate::checksum::{self, PROTOCOL_UDP};
use crate::homa::{Header, Packet, PacketType, UNREACHABLE_LEN, Unreachable, UnreachableCode};
use std::io::ErrorKind;

const IPV4: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
const IPV6: [&str; 2] = ["fd00::1", "fd00::2"];

fn envelope(hosts: [&str; 2], ports: (u16, u16), carriage: Carriage) -> Envelope {
    Envelope {
        time_ns: 1_700_000_000_123_456_789,
        source: SocketAddr::new(hosts[0].parse().unwrap(), ports.0),
        destination: SocketAddr::new(hosts[1].parse().unwrap(), ports.1),
        carriage,
        traffic_class: 0xe0,
    }
}

fn busy() -> Vec<u8> {
    Header::new(PacketType::Busy, 99, 0x8000, 1237).to_bytes().to_vec()
}

fn unreachable() -> Vec<u8> {
    let header = Header::new(PacketType::Unreachable, 99, 0x8000, 1237);
    let mut bytes = vec![0; UNREACHABLE_LEN];
    Packet::Unreachable(Unreachable::new(header, UnreachableCode::NoSocket)).emit(&mut bytes);
    bytes
}

/// One IP packet as the writer makes it, without the file around it.
fn ip_packet(envelope: &Envelope, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let start = writer.writer_mut().len();
    writer.write(envelope, &[payload]).unwrap();
    let file = writer.into_inner();
    let block = &file[start..];
    let length = u32::from_ne_bytes(block[20..24].try_into().unwrap()) as usize;
    block[28..28 + length].to_vec()
}

fn number(value: u32, big: bool) -> [u8; 4] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

/// A classic pcap file; the time of packet `i` is `i` seconds and 7 ticks.
fn pcap(magic: u32, big: bool, link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [magic, if big { 0x0002_0004 } else { 0x0004_0002 }, 0, 0, 40, link] {
        file.extend(number(word, big));
    }
    for (i, frame) in frames.iter().enumerate() {
        let length = frame.len() as u32;
        for word in [i as u32, 7, length, length + 100] {
            file.extend(number(word, big));
        }
        file.extend_from_slice(frame);
    }
    file
}

/// A pcapng block around `body`.
fn block(kind: u32, big: bool, body: &[u8]) -> Vec<u8> {
    let padding = body.len().next_multiple_of(4) - body.len();
    let length = number((body.len() + padding + 12) as u32, big);
    [&number(kind, big)[..], &length, body, &[0; 3][..padding], &length].concat()
}

fn section(big: bool) -> Vec<u8> {
    let version = number(if big { 0x0001_0000 } else { 0x0000_0001 }, big);
    let body = [&number(0x1a2b_3c4d, big)[..], &version, &[0xff; 8]].concat();
    block(0x0a0d_0d0a, big, &body)
}

/// An interface with a time resolution.
fn interface(big: bool, link: u16, resolution: u8) -> Vec<u8> {
    let half = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut body = [half(link), half(0)].concat();
    body.extend(number(0, big));
    body.extend([half(9), half(1)].concat());
    body.extend([resolution, 0, 0, 0, 0, 0, 0, 0]);
    block(1, big, &body)
}

/// An enhanced packet (6) or an old packet block (2) of interface 0.
fn packet(kind: u32, big: bool, ticks: u64, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u32;
    let words = [0, (ticks >> 32) as u32, ticks as u32, length, length];
    let mut body: Vec<u8> = words.iter().flat_map(|word| number(*word, big)).collect();
    body.extend_from_slice(data);
    block(kind, big, &body)
}

fn read(file: &[u8]) -> Vec<Record> {
    Reader::new(file).unwrap().map(Result::unwrap).collect()
}

fn error_of(file: &[u8]) -> String {
    match Reader::new(file) {
        Err(error) => error.to_string(),
        Ok(reader) => reader.filter_map(Result::err).map(|e| e.to_string()).collect(),
    }
}

#[test]
fn writer_and_reader_agree_for_every_carriage() {
    for hosts in [IPV4, IPV6] {
        for carriage in [Carriage::Ip, Carriage::Tcp, Carriage::Udp] {
            let ports = if carriage == Carriage::Udp { (14600, 5000) } else { (0, 0) };
            let envelope = envelope(hosts, ports, carriage);
            let mut writer = Writer::new(Vec::new()).unwrap();
            let payload = unreachable();
            writer.write(&envelope, &[&payload[..28], &[], &payload[28..]]).unwrap();
            writer.write(&envelope, &[&busy()]).unwrap();
            let records = read(&writer.into_inner());
            let expect = |number, payload| Record { number, envelope, payload, truncated: false };
            assert_eq!(records, [expect(1, payload), expect(2, busy())]);
            assert_eq!(records[0].envelope.priority(), 7);
        }
    }
}

#[test]
fn writer_lengths_and_checksums_are_right() {
    let v4 = envelope(IPV4, (14600, 5000), Carriage::Udp);
    let packet = ip_packet(&v4, &busy());
    assert_eq!(packet.len(), 20 + 8 + 28);
    assert_eq!((packet[0], packet[1]), (0x45, 0xe0));
    assert_eq!(packet[2..4], 56u16.to_be_bytes());
    let mut sum = checksum::Sum::new();
    sum.add(&packet[..20]);
    assert_eq!(sum.finish(), 0, "IPv4 header checksum");
    let addresses = |e: &Envelope| (e.source.ip(), e.destination.ip());
    let (source, destination) = addresses(&v4);
    assert_eq!(packet[24..26], 36u16.to_be_bytes(), "UDP length");
    assert_ne!(packet[26..28], [0, 0]);
    assert_eq!(checksum::of_packet(source, destination, PROTOCOL_UDP, &packet[20..]), 0);

    let v6 = envelope(IPV6, (14600, 5000), Carriage::Udp);
    let packet = ip_packet(&v6, b"odd");
    assert_eq!(packet.len(), 40 + 8 + 3);
    assert_eq!((packet[0], packet[1]), (0x6e, 0x00));
    assert_eq!(packet[4..6], 11u16.to_be_bytes());
    let (source, destination) = addresses(&v6);
    assert_eq!(checksum::of_packet(source, destination, PROTOCOL_UDP, &packet[40..]), 0);
}

#[test]
fn writer_refuses_what_is_no_ip_packet() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let start = writer.writer_mut().len();
    let mixed = envelope([IPV4[0], IPV6[1]], (1, 2), Carriage::Udp);
    let error = writer.write(&mixed, &[b"x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let good = envelope(IPV4, (1, 2), Carriage::Udp);
    let error = writer.write(&good, &[&[0; 65_535 - 28], b"x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(writer.writer_mut().len(), start);
    writer.write(&good, &[&[0; 65_535 - 28]]).unwrap();
}

#[test]
fn reader_takes_every_kind_of_classic_pcap() {
    let frame = ip_packet(&envelope(IPV4, (0, 0), Carriage::Ip), &busy());
    let frames = [frame.clone(), frame];
    for big in [false, true] {
        for (magic, nanoseconds) in [(0xa1b2_c3d4, 7000), (0xa1b2_3c4d, 7)] {
            let records = read(&pcap(magic, big, 101, &frames));
            let times: Vec<_> = records.iter().map(|record| record.envelope.time_ns).collect();
            assert_eq!(times, [nanoseconds, 1_000_000_000 + nanoseconds]);
            assert_eq!(records[1].payload, busy());
        }
    }
}

#[test]
fn reader_takes_every_kind_of_pcapng() {
    let frame = ip_packet(&envelope(IPV4, (0, 0), Carriage::Ip), &busy());
    let mut file = Vec::new();
    // Two sections of different byte order; the interfaces of the first do not reach the second.
    for big in [false, true] {
        file.extend(section(big));
        file.extend(interface(big, 101, 9));
        file.extend(packet(6, big, 5_000_000_007, &frame));
        file.extend(packet(2, big, 5_000_000_008, &frame));
        let simple = [&number(frame.len() as u32, big)[..], &frame].concat();
        file.extend(block(3, big, &simple));
        file.extend(block(0x0bad_cafe, big, b"unknown"));
    }
    let records = read(&file);
    let times: Vec<_> = records.iter().map(|record| record.envelope.time_ns).collect();
    assert_eq!(times, [5_000_000_007, 5_000_000_008, 0, 5_000_000_007, 5_000_000_008, 0]);
    assert!(records.iter().all(|record| record.payload == busy()));
}

#[test]
fn reader_understands_time_resolutions() {
    let frame = ip_packet(&envelope(IPV4, (0, 0), Carriage::Ip), &busy());
    for (resolution, ticks, expected) in [
        (0, 3, 3_000_000_000),
        (6, 1_000_001, 1_000_001_000),
        (12, 1_999, 1),
        (127, u64::MAX, 0),
        (0x80 | 10, 1536, 1_500_000_000),
        (0xff, u64::MAX, 0),
        (0, u64::MAX, u64::MAX),
    ] {
        let file = [section(true), interface(true, 101, resolution), packet(6, true, ticks, &frame)];
        let records = read(&file.concat());
        assert_eq!(records[0].envelope.time_ns, expected, "resolution {resolution}");
    }
}

#[test]
fn reader_understands_links_and_strips_their_padding() {
    let expected = envelope(IPV4, (0, 0), Carriage::Ip);
    let ip = ip_packet(&expected, &busy());
    let padded = [&ip[..], &[0; 18]].concat();
    let ethernet = [&[2; 12][..], &[0x08, 0x00]].concat();
    let vlan = [&[2; 12][..], &[0x81, 0x00, 0xe0, 0x05, 0x08, 0x00]].concat();
    let cooked = [&[0; 14][..], &[0x08, 0x00]].concat();
    let cooked2 = [&[0x08, 0x00][..], &[0; 18]].concat();
    for (link, head) in [
        (0, vec![2, 0, 0, 0]),
        (1, ethernet),
        (1, vlan),
        (12, Vec::new()),
        (101, Vec::new()),
        (228, Vec::new()),
        (113, cooked),
        (276, cooked2),
    ] {
        let frame = [&head[..], &padded].concat();
        let records = read(&pcap(0xa1b2_c3d4, false, link, &[frame]));
        assert_eq!(records.len(), 1, "link {link}");
        assert_eq!(records[0].payload, busy(), "link {link}");
        assert_eq!(records[0].envelope.destination, expected.destination);
        assert!(!records[0].truncated);
    }
}

#[test]
fn reader_counts_what_it_does_not_take() {
    let homa = ip_packet(&envelope(IPV4, (0, 0), Carriage::Ip), &busy());
    let mut fragment = homa.clone();
    fragment[6] = 0x20; // more fragments
    let mut tcp = ip_packet(&envelope(IPV4, (0, 0), Carriage::Tcp), &busy());
    tcp[20 + 13] = 0x02; // a SYN without RST is TCP's own
    let other_udp = ip_packet(&envelope(IPV4, (53, 53), Carriage::Udp), b"not Homa");
    let cut = homa[..40].to_vec();
    let frames = [homa, fragment, tcp, other_udp, cut, vec![0xff; 3], Vec::new()];
    let file = pcap(0xa1b2_c3d4, false, 101, &frames);
    let mut reader = Reader::new(&file[..]).unwrap();
    let records: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
    let numbers: Vec<_> = records.iter().map(|r| (r.number, r.truncated)).collect();
    assert_eq!(numbers, [(1, false), (5, true)]);
    let counts = reader.counts();
    assert_eq!((counts.packets, counts.homa, counts.fragments), (7, 2, 1));

    let file = [section(false), interface(false, 127, 6), packet(6, false, 0, b"radio")].concat();
    let mut reader = Reader::new(&file[..]).unwrap();
    assert!(reader.next().is_none());
    assert_eq!(reader.counts().unsupported_link, 1);
}

#[test]
fn reader_finds_udp_by_port_and_by_its_looks() {
    let by_looks = ip_packet(&envelope(IPV4, (1000, 2000), Carriage::Udp), &busy());
    let by_port = ip_packet(&envelope(IPV4, (1000, 14600), Carriage::Udp), b"broken");
    let by_list = ip_packet(&envelope(IPV4, (777, 2000), Carriage::Udp), b"broken");
    let file = pcap(0xa1b2_c3d4, false, 101, &[by_looks, by_port, by_list]);
    assert_eq!(read(&file).len(), 2);
    let finder = Finder::with_udp_ports([777]);
    assert_eq!(Reader::with_finder(&file[..], finder).unwrap().count(), 3);
}

#[test]
fn errors_say_where_and_end_the_reading() {
    let frame = ip_packet(&envelope(IPV4, (0, 0), Carriage::Ip), &busy());
    assert_eq!(error_of(b""), "neither a pcap nor a pcapng file");
    assert_eq!(error_of(b"GIF89a"), "neither a pcap nor a pcapng file");
    let file = pcap(0xa1b2_c3d4, false, 127, &[]);
    assert!(error_of(&file).starts_with("link type 127 is not understood"));
    let file = pcap(0xa1b2_c3d4, false, 101, &[frame.clone(), frame.clone()]);
    for end in 1..file.len() {
        let error = error_of(&file[..end]);
        let expected = match end {
            0..4 => "neither a pcap nor a pcapng file",
            4..24 => "cannot read at byte 0, after packet 0: the file ends too early",
            24 | 88 => "", // between two packets nothing seems to be missing
            25..88 => "cannot read at byte 24, after packet 0: the file ends too early",
            _ => "cannot read at byte 88, after packet 1: the file ends too early",
        };
        assert_eq!(error, expected, "cut at {end} of {}", file.len());
    }
    let lost = [section(false), packet(6, false, 0, &frame)].concat();
    assert_eq!(error_of(&lost), "malformed at byte 28, after packet 0: No corresponding interface id: 0");
    let huge = [section(false), vec![6, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff], vec![0; 20 << 20]].concat();
    assert!(error_of(&huge).ends_with("a block of more than 16 MB"), "{}", error_of(&huge));
}

#[test]
fn decode_gives_one_line_per_packet() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let mut envelope = envelope(IPV4, (14600, 5000), Carriage::Udp);
    writer.write(&envelope, &[&busy()]).unwrap();
    envelope.time_ns += 1_500_000_001;
    writer.write(&envelope, &[b"broken"]).unwrap();
    envelope.time_ns -= 2_500_000_001;
    envelope.carriage = Carriage::Ip;
    writer.write(&envelope, &[&unreachable()]).unwrap();
    let file = writer.into_inner();
    let mut decode = decode(&file[..], Finder::default()).unwrap();
    let lines: Vec<_> = decode.by_ref().map(Result::unwrap).collect();
    assert_eq!(
        lines,
        [
            "    1   0.000000000 10.0.0.1:14600 > 10.0.0.2:5000 udp p7 BUSY 99->32768 id 1237 server",
            "    2   1.500000001 10.0.0.1:14600 > 10.0.0.2:5000 udp p7 not a Homa packet: 6 bytes \
             are too short for the common header of 28",
            "    3  -1.000000000 10.0.0.1 > 10.0.0.2 ip p7 UNREACHABLE 99->32768 id 1237 server, \
             no socket",
        ]
    );
    assert_eq!(decode.counts().homa, 3);
}
