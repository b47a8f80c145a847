//! Any bytes as one Homa packet: parse, emit, parse again.

use peyk_wire::homa::{Data, Packet, ParseError, checksum_is_valid, fill_checksum};
use std::net::{IpAddr, Ipv6Addr};

/// Does what the target claims with one input; panics where the claim fails.
pub fn run(bytes: &[u8]) {
    let parsed = Packet::parse(bytes);
    match (&parsed, Data::parse(bytes)) {
        (Ok(Packet::Data(data)), again) => assert_eq!(again.as_ref(), Ok(data)),
        (Err(error), Err(again)) => {
            let is_other_type = matches!(again, ParseError::UnknownType { .. });
            assert!(*error == again || is_other_type, "{error} or {again}");
        }
        (Ok(_), again) => assert!(again.is_err()),
        (Err(error), Ok(_)) => panic!("{error}, but DATA parses"),
    }
    let packet = match parsed {
        Ok(packet) => packet,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let length = packet.emit_len();
    assert!(length <= bytes.len());
    let mut emitted = vec![0x5a; length + 8];
    assert_eq!(packet.emit(&mut emitted), length);
    assert_eq!(emitted[..length], bytes[..length], "{packet}");
    assert_eq!(emitted[length..], [0x5a; 8], "wrote beyond its length");
    assert_eq!(Packet::parse(&emitted[..length]), Ok(packet));
    assert_eq!(packet.header().kind, packet.kind());
    assert!(!packet.to_string().contains('\n'));
    if let Packet::Data(data) = &packet {
        assert!(data.end() <= data.message_length);
        assert_eq!((data.end() - data.offset()) as usize, data.payload.len());
    }

    let hosts = (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    fill_checksum(&mut emitted[..length], hosts.0, hosts.1);
    assert!(checksum_is_valid(&emitted[..length], hosts.0, hosts.1));
}
