//! Which packets are looked at at all.

use peyk_homa::{Config, Disposition};
use peyk_wire::homa::{PacketType, UnreachableCode};

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn short_packets_are_dropped() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    let table = [0; 8];
    for packet in [
        from.whole(b"x"),
        from.grant(1, 1),
        from.resend_all(),
        from.ack(&[]),
        from.cutoffs(table, 1),
        from.busy(),
        from.need_ack(),
        from.rpc_unknown(),
    ] {
        let min = match packet[11] {
            0x10 => 56,
            0x11 => 33,
            0x12 => 36,
            _ => packet.len(),
        };
        let (disposition, sent) = lab.feed_path(&Lab::path(0), &packet[..min - 1]);
        assert_eq!(disposition, Disposition::Dropped, "type {:#x}", packet[11]);
        assert!(sent.is_empty());
    }
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert_eq!(lab.endpoint.stats().drop_malformed, 8);
}

#[test]
fn unknown_types_are_dropped() {
    let mut lab = Lab::new();
    for code in [0u8, 1, 0x0f, 0x19, 0x1f, 0x21, 0xff] {
        let mut packet = Lab::from_client(ID).whole(b"x");
        packet[11] = code;
        assert!(lab.feed(&packet).is_empty());
    }
    assert_eq!(lab.endpoint.stats().drop_malformed, 7);
}

#[test]
fn random_bytes_do_no_harm() {
    let mut lab = Lab::new();
    let mut random = peyk_sansio::Prng::new(1);
    for _ in 0..20_000 {
        let mut packet = vec![0; random.below(120) as usize];
        packet.iter_mut().for_each(|b| *b = random.next_u32() as u8);
        if packet.len() > 12 {
            packet[11] = 0x10 + random.below(18) as u8;
            packet[2..4].copy_from_slice(&PORT.to_be_bytes());
        }
        lab.feed(&packet);
    }
    lab.pass(ms(1000));
    assert_eq!(lab.endpoint.rpc_count(), 0);
}

#[test]
fn freeze_is_ignored() {
    let mut lab = Lab::new();
    let mut freeze = Lab::from_client(0).freeze();
    freeze[2..4].fill(0);
    assert!(lab.feed(&freeze).is_empty());
    assert_eq!(lab.endpoint.stats().freezes_ignored, 1);
}

#[test]
fn unknown_port_is_answered_unreachable() {
    let mut lab = Lab::new();
    let from = From { sport: CLIENT_PORT, dport: 1234, id: ID };
    let (disposition, sent) = lab.feed_path(&Lab::path(0), &from.whole(b"hello"));
    assert_eq!(disposition, Disposition::NoSocket);
    assert_eq!(kinds(&sent), [PacketType::Unreachable]);
    assert_eq!(sent[0].unreachable().code, UnreachableCode::NoSocket);
    let header = sent[0].header();
    assert_eq!((header.sport, header.dport, header.sender_id), (1234, CLIENT_PORT, ID | 1));
}

#[test]
fn request_to_a_client_socket_is_answered_unreachable() {
    let mut lab = Lab::new();
    let from = From { sport: CLIENT_PORT, dport: lab.client_port(), id: ID };
    let (disposition, sent) = lab.feed_path(&Lab::path(0), &from.whole(b"hello"));
    assert_eq!(disposition, Disposition::NoSocket);
    assert_eq!(sent[0].unreachable().code, UnreachableCode::NotServer);
}

#[test]
fn without_unreachable_packets_the_driver_is_told_only() {
    let config = Config { unreachable_packets: false, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    let from = From { sport: CLIENT_PORT, dport: 1234, id: ID };
    let (disposition, sent) = lab.feed_path(&Lab::path(0), &from.whole(b"hello"));
    assert_eq!(disposition, Disposition::NoSocket);
    assert!(sent.is_empty());
}

#[test]
fn unreachable_is_never_answered_by_unreachable() {
    let mut lab = Lab::new();
    for code in [UnreachableCode::NoSocket, UnreachableCode::Closing] {
        let from = From { sport: CLIENT_PORT, dport: 1234, id: ID };
        assert!(lab.feed(&from.unreachable(code)).is_empty());
        assert!(lab.feed(&Lab::from_client(ID).unreachable(code)).is_empty());
    }
}

#[test]
fn unreachable_packets_are_rate_limited() {
    let config = Config { unreachable_per_sec: 100, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    let from = From { sport: CLIENT_PORT, dport: 1234, id: ID };
    let sent: usize = (0..1000).map(|_| lab.feed(&from.whole(b"x")).len()).sum();
    assert!((1..=100).contains(&sent), "{sent} answers");
}

#[test]
fn unknown_rpc_only_resend_and_need_ack_are_answered() {
    let mut lab = Lab::new();
    let client = Lab::from_client(ID);
    let server = From { sport: PORT, dport: lab.client_port(), id: ID | 1 };
    assert_eq!(kinds(&lab.feed(&client.resend_all())), [PacketType::RpcUnknown]);
    assert_eq!(kinds(&lab.feed(&server.resend_all())), [PacketType::RpcUnknown]);
    assert_eq!(kinds(&lab.feed(&server.need_ack())), [PacketType::Ack]);
    for packet in [
        client.grant(1, 1),
        client.busy(),
        client.rpc_unknown(),
        client.ack(&[]),
        client.ack(&[acked(ID + 2, PORT)]),
        server.whole(b"response"),
        server.grant(1, 1),
        server.busy(),
        server.rpc_unknown(),
        server.unreachable(UnreachableCode::Aborted),
    ] {
        let sent = lab.feed(&packet);
        assert!(sent.is_empty(), "{sent:?}");
    }
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert!(lab.events.is_empty());
}

#[test]
fn answers_to_unknown_rpcs_swap_ports_and_flip_the_id() {
    let mut lab = Lab::new();
    let sent = lab.feed(&Lab::from_client(ID).resend_all());
    let header = sent[0].header();
    assert_eq!((header.sport, header.dport, header.sender_id), (PORT, CLIENT_PORT, ID | 1));
    let server = From { sport: PORT, dport: lab.client_port(), id: ID | 1 };
    let header = lab.feed(&server.need_ack())[0].header();
    assert_eq!((header.sport, header.dport, header.sender_id), (lab.client_port(), PORT, ID));
}

#[test]
fn trailing_bytes_of_control_packets_are_ignored() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(50_000));
    let mut grant = lab.server_of(rpc).grant(41_000, 1);
    grant.extend_from_slice(&[0xaa; 20]);
    assert_eq!(ranges(&lab.feed(&grant)), [(40_000, 41_424)]);
}

#[test]
fn short_grant_and_resend_of_other_generations_are_understood() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(50_000));
    let from = lab.server_of(rpc);
    assert_eq!(ranges(&lab.feed(&from.grant(41_000, 1)[..33])), [(40_000, 41_424)]);
    lab.pass(ms(2));
    let sent = lab.feed(&from.resend(0, 1424, 3)[..36]);
    assert_eq!(ranges(&sent), [(0, 1424)]);
    assert_eq!(sent[0].priority, 7, "without a priority byte: the highest");
}

#[test]
fn source_address_and_port_must_be_the_rpcs_peer() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    let from = lab.server_of(rpc);
    lab.feed_from(1, &from.whole(b"forged"));
    let wrong_port = From { sport: 98, ..from };
    lab.feed(&wrong_port.whole(b"forged"));
    assert!(lab.events.is_empty());
    assert_eq!(lab.endpoint.stats().drop_wrong_peer, 2);
    lab.feed(&from.whole(b"real"));
    assert_eq!(lab.take_response(), b"real");
}

#[test]
fn requests_of_different_hosts_with_one_id_are_different() {
    let mut lab = Lab::new();
    lab.feed_from(0, &Lab::from_client(ID).whole(b"zero"));
    lab.feed_from(1, &Lab::from_client(ID).whole(b"one"));
    assert_eq!(lab.events.len(), 2);
}

#[test]
fn v4_mapped_address_is_the_same_host() {
    let mut lab = Lab::new();
    let message = pattern(2000);
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&message, 2000, 0, 1424));
    let path = Lab::path(0);
    let core::net::IpAddr::V4(v4) = path.remote.ip() else { panic!("IPv4") };
    let mapped = core::net::SocketAddr::new(v4.to_ipv6_mapped().into(), 0);
    let path = peyk_homa::Path { remote: mapped, ..path };
    lab.feed_path(&path, &from.segment(&message, 2000, 1424, 1424));
    assert_eq!(lab.take_request().1, message);
}

#[test]
fn offset_in_the_sequence_or_in_the_segment_field() {
    let message = pattern(2848);
    for use_sequence in [true, false] {
        let mut lab = Lab::new();
        let from = Lab::from_client(ID);
        for offset in [0u32, 1424] {
            let bytes = &message[offset as usize..offset as usize + 1424];
            let packet = from.data_with(2848, 2848, offset, bytes, |data| {
                if use_sequence {
                    data.seg_offset = u32::MAX;
                } else {
                    data.header.sequence = 0;
                }
            });
            lab.feed(&packet);
        }
        assert_eq!(lab.take_request().1, message);
    }
}

#[test]
fn checksum_flags_and_urgent_are_not_looked_at() {
    let mut lab = Lab::new();
    let mut packet = Lab::from_client(ID).whole(b"hello");
    packet[12..20].fill(0xff);
    lab.feed(&packet);
    assert_eq!(lab.take_request().1, b"hello");
}

#[test]
fn id_0_is_no_rpc() {
    let mut lab = Lab::new();
    // As a client and as a server would write it, also to where nobody listens: no UNREACHABLE.
    for (id, sport, dport) in
        [(0, CLIENT_PORT, PORT), (1, PORT, lab.client_port()), (0, CLIENT_PORT, 77), (1, PORT, 0x9999)]
    {
        let from = From { sport, dport, id };
        for packet in [from.whole(b"x"), from.resend_all(), from.need_ack(), from.rpc_unknown()] {
            assert!(lab.feed(&packet).is_empty());
        }
    }
    assert_eq!(lab.endpoint.stats().drop_malformed, 16);
    assert_eq!((lab.endpoint.rpc_count(), lab.events.len()), (0, 0));
}
