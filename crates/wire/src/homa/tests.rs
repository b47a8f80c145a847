//! Single packet types, odd cases; the golden vectors and round trips live in `tests/`.

use super::*;

fn bytes_of(packet: Packet<'_>) -> Vec<u8> {
    let mut out = vec![0xee; packet.emit_len()];
    assert_eq!(packet.emit(&mut out), out.len());
    out
}

fn data_header() -> Header {
    Header::new(PacketType::Data, 0x8000, 99, 1234)
}

#[test]
fn parse_every_length_below_the_minimum_is_short() {
    for kind in PacketType::ALL {
        let mut bytes = [0; 100];
        bytes[11] = kind.code();
        let minimum = match kind {
            PacketType::Data => DATA_HEADER_LEN,
            PacketType::Grant => GRANT_LEN_MIN,
            PacketType::Resend => RESEND_LEN_MIN,
            PacketType::Cutoffs => CUTOFFS_LEN,
            PacketType::Ack => ACK_LEN,
            PacketType::Unreachable => UNREACHABLE_LEN,
            _ => HEADER_LEN,
        };
        bytes[31] = 1; // a message of one byte, for DATA
        for length in 0..minimum {
            let error = Packet::parse(&bytes[..length]).unwrap_err();
            assert!(error.is_short(), "{kind} of {length} bytes: {error}");
        }
        let packet = Packet::parse(&bytes[..minimum]).unwrap();
        assert_eq!(packet.kind(), kind);
        assert_eq!(bytes_of(packet), bytes[..minimum]);
    }
}

#[test]
fn parse_all_other_type_codes_are_unknown() {
    for code in 0..=u8::MAX {
        let mut bytes = [0; 100];
        bytes[11] = code;
        bytes[31] = 1;
        let known = PacketType::ALL.iter().any(|kind| kind.code() == code);
        match Packet::parse(&bytes[..80]) {
            Err(ParseError::UnknownType { code: told }) => assert!(!known && told == code),
            Err(ParseError::OutsideMessage { .. }) => assert_eq!(code, 0x10),
            other => assert!(known && other.is_ok(), "{code:#x}: {other:?}"),
        }
    }
}

#[test]
fn data_must_lie_in_a_message_of_possible_length() {
    let check = |length: u32, offset: u32, payload: &[u8]| {
        let data = Data::new(data_header(), length, length, offset, payload);
        Packet::parse(&bytes_of(Packet::Data(data))).err()
    };
    assert_eq!(check(0, 0, b""), Some(ParseError::EmptyMessage));
    assert_eq!(check(1_000_000, 999_999, b"x"), None);
    assert_eq!(check(1_000_001, 999_999, b"x"), None);
    let length = (1 << 30) + 1;
    assert_eq!(check(length, 0, b"x"), Some(ParseError::MessageTooLong { length }));
    assert_eq!(check(5, 0, b"hello"), None);
    assert_eq!(check(5, 5, b""), None);
    let outside = ParseError::OutsideMessage { offset: 1, payload: 5, length: 5 };
    assert_eq!(check(5, 1, b"hello"), Some(outside));
    assert!(check(5, u32::MAX - 1, b"hello").is_some());
}

#[test]
fn data_offset_of_all_ones_sends_to_the_sequence() {
    let mut data = Data::new(data_header(), 100, 100, 7, b"abc");
    assert_eq!((data.header.sequence, data.seg_offset), (7, 7));
    data.header.sequence = 40;
    assert_eq!((data.offset(), data.end()), (7, 10));
    data.seg_offset = OFFSET_IN_SEQUENCE;
    assert_eq!((data.offset(), data.end()), (40, 43));
}

#[test]
fn grant_and_resend_keep_their_generation() {
    let grant = Grant::new(Header::new(PacketType::Grant, 1, 2, 3), 80_000, 9);
    let bytes = bytes_of(Packet::Grant(grant));
    assert_eq!(bytes.len(), 34);
    for (length, extra) in [(33, None), (34, Some(0))] {
        let Ok(Packet::Grant(parsed)) = Packet::parse(&bytes[..length]) else { panic!() };
        assert_eq!((parsed.extra, parsed.level()), (extra, 7));
        assert_eq!(bytes_of(Packet::Grant(parsed)), bytes[..length]);
    }
    let resend = Resend::new(Header::new(PacketType::Resend, 1, 2, 3), 5, 10, 3);
    let bytes = bytes_of(Packet::Resend(resend));
    assert_eq!(bytes.len(), 37);
    for (length, level) in [(36, 7), (37, 3)] {
        let Ok(Packet::Resend(parsed)) = Packet::parse(&bytes[..length]) else { panic!() };
        assert_eq!((parsed.level(), parsed.end()), (level, 15));
        assert_eq!(bytes_of(Packet::Resend(parsed)), bytes[..length]);
    }
}

#[test]
fn ack_count_from_the_wire_is_kept_but_never_believed() {
    let entry = AckEntry { client_id: 8, server_port: 99 };
    let header = Header::new(PacketType::Ack, 0x8000, 99, 2);
    let mut ack = Ack::new(header, &[entry; 7]);
    assert_eq!((ack.num_acks, ack.entries().len()), (5, 5));
    ack.num_acks = 40_000;
    let bytes = bytes_of(Packet::Ack(ack));
    let Ok(Packet::Ack(parsed)) = Packet::parse(&bytes) else { panic!() };
    assert_eq!((parsed.num_acks, parsed.entries().len()), (40_000, 5));
    assert_eq!(bytes_of(Packet::Ack(parsed)), bytes);
}

#[test]
fn unreachable_codes_survive() {
    for code in 0..=u8::MAX {
        assert_eq!(UnreachableCode::from_code(code).code(), code);
    }
}

#[test]
fn reply_swaps_ports_and_the_side_of_the_id() {
    let resend = Header::new(PacketType::Resend, 0x8000, 99, 1234);
    let Packet::RpcUnknown(reply) = Packet::rpc_unknown(&resend) else { panic!() };
    assert_eq!((reply.sport, reply.dport, reply.sender_id), (99, 0x8000, 1235));
    assert!(resend.is_from_client() && !reply.is_from_client());
}

#[test]
fn display_is_one_line() {
    let mut data = Data::new(data_header(), 5, 5, 0, b"hello");
    data.cutoff_version = 1;
    data.ack = AckEntry { client_id: 1232, server_port: 99 };
    assert_eq!(
        Packet::Data(data).to_string(),
        "DATA 32768->99 id 1234 client, bytes 0..5 of 5, incoming 5, cutoffs v1, ack 1232 port 99"
    );
    let resend = Resend::new(Header::new(PacketType::Resend, 99, 32768, 1237), 0, RESEND_ALL, 7);
    assert_eq!(Packet::Resend(resend).to_string(), "RESEND 99->32768 id 1237 server, all, priority 7");
    let ack = Ack::new(Header::new(PacketType::Ack, 32768, 99, 2), &[data.ack]);
    assert_eq!(Packet::Ack(ack).to_string(), "ACK 32768->99 id 2 client, 1 more: 1232 port 99");
}
