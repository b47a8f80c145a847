//! The defects found in HomaModule while its rules were read, one test each:
//! they fail if the old behaviour returns.
//!
//! Three of the fourteen do not concern a protocol without I/O: 8 (a flag of an
//! ioctl), 12 (hijacking without GRO: carriage), and 13 as far as it speaks of
//! other programs' traffic; its part in the pacer's own account is tested.

use peyk_homa::{Config, Event, RpcError};
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn defect_01_grants_rank_by_live_values() {
    // Two active places. Message B overtakes A by what it receives, so the
    // newcomer C must displace A, not B.
    let config = Config { max_overcommit: 2, window: 1_000, ..Config::default() };
    let mut lab = Lab::with(config, 256);
    let [a, b, c] = [ID, ID + 2, ID + 4].map(Lab::from_client);
    let (ma, mb, mc) = (pattern(300_000), pattern(310_000), pattern(280_000));
    lab.feed_from(0, &a.segment(&ma, 40_000, 0, 1000));
    lab.feed_from(1, &b.segment(&mb, 40_000, 0, 38_000));
    lab.feed_from(2, &c.segment(&mc, 40_000, 0, 1000));
    let sent = lab.feed_from(0, &a.segment(&ma, 40_000, 1000, 39_000));
    let sent_b = lab.feed_from(1, &b.segment(&mb, 40_000, 38_000, 2_000));
    let grants_b = only(&sent_b, PacketType::Grant);
    assert!(grants_b.iter().any(|g| g.header().sender_id == b.id | 1), "B is active: {sent:?}");
}

#[test]
fn defect_02_priority_byte_is_clamped() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    for priority in [8, 100, 255] {
        for packet in [from.grant(41_000, priority), from.resend(0, 1424, priority)] {
            for sent in lab.feed(&packet) {
                assert!(sent.priority <= 7);
            }
        }
    }
}

#[test]
fn defect_03_initial_cutoffs_fit_the_number_of_levels() {
    for levels in 1..=8u8 {
        let mut lab = Lab::with(Config { num_priorities: levels, ..Config::default() }, 16);
        let (_, sent) = lab.request(pattern(100));
        assert_eq!(sent[0].priority, levels.saturating_sub(2));
    }
}

#[test]
fn defect_04_client_rpcs_check_who_speaks() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    let table = [0, 1_000_000, 0, 0, 0, 0, 0, 0];
    let packets = |from: From| {
        [
            from.whole(b"forged"),
            from.grant(100_000, 0),
            from.resend_all(),
            from.rpc_unknown(),
            from.busy(),
            from.unreachable(peyk_wire::homa::UnreachableCode::NoSocket),
            from.cutoffs(table, 3),
        ]
    };
    for packet in packets(from) {
        let sent = lab.feed_from(1, &packet);
        assert!(ranges(&sent).is_empty(), "{sent:?}");
    }
    for packet in &packets(From { sport: PORT + 1, ..from })[..6] {
        let sent = lab.feed(packet);
        assert!(ranges(&sent).is_empty(), "{sent:?}");
    }
    // An ACK cannot kill a client RPC.
    lab.feed(&From { id: rpc.0 | 1, ..from }.ack(&[]));
    lab.feed(&From { id: rpc.0, ..from }.ack(&[acked(rpc.0, PORT)]));
    assert!(lab.events.is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 1);
    lab.feed(&from.whole(b"real"));
    assert_eq!(lab.take_response(), b"real");
}

#[test]
fn defect_05_server_rpcs_do_not_live_for_ever() {
    let mut world = World::pair();
    world.is_echo = false;
    for len in [10, 500_000] {
        world.request(pattern(10));
        world.run(ms(1));
        let (rpc, _) = world.incoming_request();
        world.hosts[CLIENT].is_down = true;
        world.reply(SERVER, rpc, pattern(len));
        world.run(ms(300));
        assert_eq!(world.hosts[SERVER].endpoint.rpc_count(), 0, "response of {len} bytes");
        world.restart(CLIENT, 1000 + len as u64, 256);
    }
    let asked = only(&world.hosts[SERVER].sent, PacketType::NeedAck).len();
    assert!(asked < 20, "{asked} NEED_ACKs");
}

#[test]
fn defect_06_ids_start_at_random() {
    let first = |seed| {
        let mut world = World::pair();
        world.restart(CLIENT, seed, 16);
        world.request(pattern(10)).0
    };
    let ids: std::collections::BTreeSet<u64> = (0..100).map(first).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.iter().all(|id| id % 2 == 0 && *id > 1 << 24));
}

#[test]
fn defect_07_offset_is_resolved_without_gro() {
    let mut lab = Lab::new();
    let message = pattern(2848);
    for offset in [1424u32, 0] {
        let bytes = &message[offset as usize..][..1424];
        let packet = Lab::from_client(ID).data_with(2848, 2848, offset, bytes, |data| {
            data.seg_offset = u32::MAX;
        });
        lab.feed(&packet);
    }
    assert_eq!(lab.take_request().1, message);
}

#[test]
fn defect_09_unsigned_fields_are_checked() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.data(3000, 0xffff_fff0, 0, &pattern(1000)));
    assert_eq!(lab.endpoint.rpc_count(), 1);
    assert_eq!(resends(&lab.pass(ms(5))), [(1000, 2000)]);
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    for (offset, length) in [(0x8000_0000, 1), (0xffff_fffe, 0xffff_fffe), (39_000, 0x7fff_ffff)] {
        lab.feed(&from.resend(offset, length, 7));
    }
    assert_eq!(lab.endpoint.rpc_count(), 2);
}

#[test]
fn defect_10_peers_of_both_families_are_named_in_full() {
    for remote in ["10.1.2.3:0", "[fd00:1:2:3:4:5:6:7]:0"] {
        let mut lab = Lab::new();
        let path = peyk_homa::Path { remote: remote.parse().unwrap(), local: 0 };
        lab.feed_path(&path, &Lab::from_client(ID).whole(b"x"));
        match &lab.events[..] {
            [Event::Request { from, .. }] => assert_eq!(from.path, path),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn defect_11_retransmissions_repeat_no_ack() {
    let mut lab = Lab::new();
    let (first, _) = lab.request(pattern(10));
    lab.feed(&lab.server_of(first).whole(b"r"));
    lab.take_response();
    let (second, sent) = lab.request(pattern(10));
    assert_eq!(sent[0].data().ack.client_id, first.0);
    lab.pass(ms(2));
    let again = lab.feed(&lab.server_of(second).resend_all());
    assert!(again[0].data().ack.is_none());
}

#[test]
fn defect_13_all_of_our_own_traffic_is_in_the_estimate() {
    let config = Config { pacing: peyk_homa::Pacing::NicEstimate, link_mbps: 100, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    // Control packets and short messages alone fill the link for a while.
    let packets: Vec<_> = (0..50).map(|i| Lab::from_client(ID + 2 * i).resend_all()).collect();
    lab.feed_batch(packets.iter().map(|p| &p[..]));
    let (_, sent) = lab.request(pattern(5000));
    assert!(sent.is_empty(), "{sent:?}");
}

#[test]
fn defect_14_every_socket_can_receive() {
    // A response always has a place to go: the pool is the endpoint's, not a
    // region that a socket may lack.
    let mut lab = Lab::new();
    let socket = lab.endpoint.open_socket(None, Default::default()).unwrap();
    let message = (&b"x"[..]).into();
    let rpc = lab.endpoint.send_request(lab.now, socket, Lab::to(), message, Default::default()).unwrap();
    lab.drain();
    let from = From { sport: PORT, dport: lab.endpoint.port(socket).unwrap(), id: rpc.0 | 1 };
    lab.feed(&from.whole(b"r"));
    assert_eq!(lab.take_response(), b"r");
}

#[test]
fn need_acks_end_and_late_requests_do_not_run_twice() {
    // The at-most-once hole: RPC acknowledged, then a late copy of the request.
    let mut world = World::pair();
    let mut held: Option<Vec<u8>> = None;
    let stash = std::rc::Rc::new(std::cell::RefCell::new(None::<Vec<u8>>));
    let copy = stash.clone();
    world.rule = Box::new(move |seen| {
        if seen.from == CLIENT && seen.is(PacketType::Data) && held.is_none() {
            held = Some(seen.bytes.to_vec());
            *copy.borrow_mut() = held.clone();
        }
        Verdict::Pass
    });
    let rpc = world.request(pattern(10));
    world.settle();
    world.response(rpc);
    let late = stash.borrow().clone().unwrap();
    world.inject(CLIENT, SERVER, &late);
    world.settle();
    assert_eq!(world.hosts[SERVER].endpoint.stats().requests_received, 1);
}

#[test]
fn unsupported_protocol_at_the_peer_is_its_own_error() {
    let mut lab = Lab::new();
    lab.request(pattern(10));
    let remote = Lab::path(0).remote;
    lab.endpoint.handle_unreachable(lab.now, remote, peyk_homa::Unreachable::Protocol, None);
    lab.drain();
    assert_eq!(lab.take_failure(), RpcError::ProtocolUnreachable);
}
