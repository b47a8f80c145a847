//! How a message is cut into packets and in which order packets leave.

use peyk_homa::{Config, SendError};
use peyk_sockbuf::Payload;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn vector_1_boundaries_of_a_long_request() {
    let mut lab = Lab::new();
    let message = pattern(100_000);
    let (rpc, sent) = lab.request(message.clone());
    let mut expected: Vec<_> = (0..28).map(|i| (i * 1424, (i + 1) * 1424)).collect();
    expected.push((39_872, 40_000));
    assert_eq!(ranges(&sent), expected);
    assert_eq!(expected[27].0, 38_448);
    for packet in &sent {
        let data = packet.data();
        assert_eq!((data.message_length, data.incoming, data.retransmit), (100_000, 40_000, 0));
        let at = data.offset() as usize;
        assert_eq!(data.payload, &message[at..at + data.payload.len()]);
    }
    let sent = lab.feed(&lab.server_of(rpc).grant(100_000, 0));
    assert_eq!(ranges(&sent)[0], (40_000, 41_424));
    assert_eq!(ranges(&sent).last(), Some(&(99_808, 100_000)));
}

#[test]
fn offset_stands_in_both_places() {
    let mut lab = Lab::new();
    let (_, sent) = lab.request(pattern(5000));
    for packet in sent {
        let data = packet.data();
        assert_eq!(data.header.sequence, data.seg_offset);
        assert_ne!(data.seg_offset, u32::MAX);
    }
}

#[test]
fn header_bytes_are_those_of_homamodule() {
    let mut lab = Lab::new();
    let (_, sent) = lab.request(pattern(5));
    let bytes = &sent[0].bytes;
    assert_eq!(bytes.len(), 61);
    assert_eq!(&bytes[8..14], &[0, 0, 0, 0x10, 0xe0, 0x06]);
    assert_eq!(&bytes[18..20], &[0xb9, 0x7d]);
    assert_eq!(&bytes[49..52], &[0, 0, 0]);
}

#[test]
fn grant_has_the_34th_byte_that_older_receivers_want() {
    let mut lab = Lab::new();
    let sent = lab.feed(&Lab::from_client(ID).segment(&pattern(100_000), 40_000, 0, 1424));
    let grant = sent.iter().find(|s| s.kind() == peyk_wire::homa::PacketType::Grant).unwrap();
    assert_eq!(grant.bytes.len(), 34);
    assert_eq!(grant.bytes[33], 0);
}

#[test]
fn segment_size_follows_carriage_address_and_mtu() {
    let cases = [
        ("10.0.0.9:0", 1500, 1424),
        ("10.0.0.9:14600", 1500, 1416),
        ("[fd00::9]:0", 1500, 1404),
        ("[fd00::9]:14600", 1500, 1396),
        ("[::ffff:10.0.0.9]:0", 1500, 1424),
        ("10.0.0.9:0", 3000, 2924),
        ("10.0.0.9:0", 9000, 8924),
        ("[fd00::9]:0", 9000, 8904),
    ];
    for (remote, mtu, expected) in cases {
        let mut lab = Lab::with(Config { mtu, ..Config::default() }, 4);
        let path = peyk_homa::Path { remote: remote.parse().unwrap(), local: 0 };
        let to = peyk_homa::PeerAddr { path, port: PORT };
        let message = Payload::from(pattern(30_000));
        lab.endpoint.send_request(lab.now, lab.client, to, message, Default::default()).unwrap();
        assert_eq!(ranges(&lab.drain())[0], (0, expected), "{remote} at MTU {mtu}");
    }
}

#[test]
fn change_of_mtu_does_not_move_boundaries_of_messages_under_way() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    assert!(lab.endpoint.set_mtu(Lab::path(0).remote.ip(), 9000));
    let from = lab.server_of(rpc);
    lab.pass(ms(2));
    assert_eq!(ranges(&lab.feed(&from.resend(1424, 1, 7))), [(1424, 2848)]);
    assert_eq!(ranges(&lab.feed(&from.grant(41_000, 0))), [(40_000, 41_424)]);
    let (_, sent) = lab.request(pattern(30_000));
    assert_eq!(ranges(&sent)[0], (0, 8924), "but those of new ones");
}

#[test]
fn message_of_exactly_the_unscheduled_limit_needs_no_grant() {
    let mut lab = Lab::new();
    let (_, sent) = lab.request(pattern(40_000));
    assert_eq!(ranges(&sent).last(), Some(&(39_872, 40_000)));
    assert_eq!(sent[0].data().incoming, 40_000);
}

#[test]
fn lengths_of_zero_and_above_the_maximum_are_refused() {
    let mut lab = Lab::new();
    let mut send = |len: usize| {
        let message = Payload::from(vec![0; len]);
        lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default())
    };
    assert_eq!(send(0), Err(SendError::Empty));
    assert_eq!(send(1_000_001), Err(SendError::TooLong));
    assert!(send(1_000_000).is_ok());
}

#[test]
fn port_0_is_refused() {
    let mut lab = Lab::new();
    let to = peyk_homa::PeerAddr { path: Lab::path(0), port: 0 };
    let message = (&b"x"[..]).into();
    let sent = lab.endpoint.send_request(lab.now, lab.client, to, message, Default::default());
    assert_eq!(sent, Err(SendError::InvalidPort));
}

#[test]
fn shortest_remaining_goes_first() {
    let mut lab = Lab::new();
    let mut rpcs = Vec::new();
    for len in [30_000, 5_000, 20_000, 100] {
        let message = Payload::from(pattern(len));
        let rpc = lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default());
        rpcs.push(rpc.unwrap().0);
    }
    let mut order: Vec<u64> = lab.drain().iter().map(|s| s.header().sender_id).collect();
    order.dedup();
    assert_eq!(order, [rpcs[3], rpcs[1], rpcs[2], rpcs[0]]);
}

#[test]
fn above_the_limit_the_oldest_goes_first() {
    let mut lab = Lab::with(Config { srpt_limit: 10_000, ..Config::default() }, 16);
    let mut rpcs = Vec::new();
    for len in [30_000, 20_000, 5_000] {
        let message = Payload::from(pattern(len));
        let rpc = lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default());
        rpcs.push(rpc.unwrap().0);
        lab.now += us(1);
    }
    let mut order: Vec<u64> = lab.drain().iter().map(|s| s.header().sender_id).collect();
    order.dedup();
    assert_eq!(order, [rpcs[2], rpcs[0], rpcs[1]]);
}

#[test]
fn equal_messages_go_oldest_first() {
    let mut lab = Lab::new();
    let mut rpcs = Vec::new();
    for _ in 0..3 {
        let message = Payload::from(pattern(3000));
        let rpc = lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default());
        rpcs.push(rpc.unwrap().0);
        lab.now += us(1);
    }
    let mut order: Vec<u64> = lab.drain().iter().map(|s| s.header().sender_id).collect();
    order.dedup();
    assert_eq!(order, rpcs);
}

#[test]
fn first_packet_of_a_message_that_needs_grants_goes_ahead() {
    let mut lab = Lab::new();
    let mut rpcs = Vec::new();
    for len in [30_000, 100_000, 100] {
        let message = Payload::from(pattern(len));
        let rpc = lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default());
        rpcs.push(rpc.unwrap().0);
    }
    let sent: Vec<_> = lab.drain().iter().map(|s| (s.header().sender_id, s.data().offset())).collect();
    assert_eq!(sent[0], (rpcs[2], 0), "a short message is shorter still");
    assert_eq!(sent[1], (rpcs[1], 0), "its receiver learns of the long one");
    assert_eq!(sent[2], (rpcs[0], 0), "and now it is shortest first");
    let rest: Vec<u64> = sent[2..].iter().map(|s| s.0).collect();
    assert!(rest.is_sorted_by_key(|id| *id == rpcs[1]), "{rest:?}");
}

#[test]
fn of_equal_responses_that_of_the_older_rpc_goes_first() {
    let mut lab = Lab::new();
    let older = lab.in_service(ID, b"first");
    lab.now += us(1);
    let younger = lab.in_service(ID + 2, b"second");
    for rpc in [younger, older] {
        lab.now += us(1);
        lab.endpoint.reply(lab.now, rpc, Payload::from(pattern(20_000))).unwrap();
    }
    let mut order: Vec<u64> = lab.drain().iter().map(|s| s.header().sender_id).collect();
    order.dedup();
    assert_eq!(order, [ID | 1, (ID + 2) | 1]);
}

#[test]
fn control_goes_before_data() {
    use peyk_wire::homa::PacketType;
    let mut lab = Lab::new();
    let message = Payload::from(pattern(3000));
    lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default()).unwrap();
    let packet = Lab::from_client(ID).resend_all();
    lab.endpoint.handle_packet(lab.now, &Lab::path(0), &packet);
    assert_eq!(kinds(&lab.drain())[0], PacketType::RpcUnknown);
}

#[test]
fn scattered_payload_is_sent_in_order() {
    let mut lab = Lab::new();
    let message = pattern(5000);
    let payload: Payload = message.chunks(777).map(bytes::Bytes::copy_from_slice).collect();
    let (_, sent) = lab.request(payload);
    let got: Vec<u8> = sent.iter().flat_map(|s| s.data().payload.to_vec()).collect();
    assert_eq!(got, message);
}

#[test]
fn whole_exchange_of_every_size() {
    for len in
        [1, 100, 1400, 1401, 1424, 1425, 5000, 20_000, 39_999, 40_000, 40_001, 100_000, 500_000, 1_000_000]
    {
        let mut world = World::pair();
        let message = pattern(len);
        let rpc = world.request(message.clone());
        world.settle();
        assert_eq!(world.response(rpc), message, "{len} bytes");
        world.assert_clean();
        let resent: u64 = world.hosts.iter().map(|h| h.endpoint.stats().data_retransmitted).sum();
        assert_eq!(resent, 0, "{len} bytes: nothing was lost");
    }
}

#[test]
fn unscheduled_priority_by_remaining_rises_towards_the_end() {
    let config = Config { unsched_by_remaining: true, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    let table = [0, 0, 0, 0, 1_000_000, 15_000, 2_800, 1_424];
    let cutoffs = |lab: &mut Lab, rpc| {
        let packet = lab.server_of(rpc).cutoffs(table, 7);
        lab.feed(&packet);
    };
    let (rpc, _) = lab.request(pattern(100));
    cutoffs(&mut lab, rpc);
    let (_, sent) = lab.request(pattern(5 * 1424));
    let priorities: Vec<u8> = sent.iter().map(|s| s.priority).collect();
    assert_eq!(priorities, [5, 5, 5, 5, 7], "by 7120, 5696, 4272, 2848 and 1424 bytes left");
}

#[test]
fn forgotten_calls_and_requests_tell_nobody() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100));
    assert!(lab.endpoint.forget_call(rpc));
    assert!(!lab.endpoint.forget_call(rpc));
    for (id, leaves_record) in [(ID, false), (ID + 2, true)] {
        let request = lab.in_service(id, &pattern(10));
        assert!(lab.endpoint.forget_request(lab.now, request, leaves_record));
        assert!(!lab.endpoint.forget_request(lab.now, request, leaves_record));
        assert!(lab.drain().is_empty());
    }
    lab.feed(&Lab::from_client(ID + 2).whole(&pattern(10)));
    assert!(lab.events.is_empty(), "the record is heeded");
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert!(lab.endpoint.is_idle());
}
