//! How a client acknowledges responses, and how a server asks for it.

use peyk_homa::RpcId;
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

/// A finished RPC whose ack is still owed.
fn finished(lab: &mut Lab) -> RpcId {
    let (rpc, _) = lab.request(pattern(10));
    lab.feed(&lab.server_of(rpc).whole(b"response"));
    lab.take_response();
    rpc
}

#[test]
fn next_data_to_that_host_carries_one_ack() {
    let mut lab = Lab::new();
    let first = finished(&mut lab);
    let (_, sent) = lab.request(pattern(3000));
    assert_eq!(sent[0].data().ack, acked(first.0, PORT));
    assert!(sent[1].data().ack.is_none() && sent[2].data().ack.is_none());
}

#[test]
fn other_hosts_do_not_get_it() {
    let mut lab = Lab::new();
    finished(&mut lab);
    let to = peyk_homa::PeerAddr { path: Lab::path(3), port: PORT };
    let message = (&b"x"[..]).into();
    lab.endpoint.send_request(lab.now, lab.client, to, message, Default::default()).unwrap();
    assert!(lab.drain()[0].data().ack.is_none());
}

#[test]
fn responses_carry_acks_too() {
    let mut lab = Lab::new();
    let first = finished(&mut lab);
    let rpc = lab.in_service(ID, b"work");
    let sent = lab.reply(rpc, &b"done"[..]);
    assert_eq!(sent[0].data().ack, acked(first.0, PORT));
}

#[test]
fn sixth_waiting_ack_sends_them_all() {
    let mut lab = Lab::new();
    // All requests first, so that no DATA takes an ack along.
    let rpcs: Vec<RpcId> = (0..6).map(|_| lab.request(pattern(10)).0).collect();
    for &rpc in &rpcs[..5] {
        let sent = lab.feed(&lab.server_of(rpc).whole(b"r"));
        assert!(only(&sent, PacketType::Ack).is_empty());
    }
    let sent = lab.feed(&lab.server_of(rpcs[5]).whole(b"r"));
    let acks = only(&sent, PacketType::Ack);
    assert_eq!(acks.len(), 1);
    let ack = acks[0].ack();
    let mut named: Vec<u64> = ack.entries().iter().map(|e| e.client_id).collect();
    named.push(ack.header.sender_id);
    named.sort();
    assert_eq!(named, rpcs.iter().map(|r| r.0).collect::<Vec<_>>());
    assert_eq!(acks[0].bytes.len(), 80);
    assert_eq!(ack.header.dport, PORT);
}

#[test]
fn requests_made_in_answer_take_the_acks_along() {
    let mut lab = Lab::new();
    let rpcs: Vec<RpcId> = (0..20).map(|_| lab.request(pattern(10)).0).collect();
    let packets: Vec<_> = rpcs.iter().map(|&r| lab.server_of(r).whole(b"r")).collect();
    let path = Lab::path(0);
    for packet in &packets {
        lab.endpoint.handle_packet(lab.now, &path, packet);
    }
    for _ in &rpcs {
        let message = (&b"next"[..]).into();
        lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default()).unwrap();
    }
    let sent = lab.drain();
    assert!(only(&sent, PacketType::Ack).is_empty());
    let sent = only(&sent, PacketType::Data);
    let mut named: Vec<u64> = sent.iter().map(|s| s.data().ack.client_id).collect();
    named.sort();
    assert_eq!(named, rpcs.iter().map(|r| r.0).collect::<Vec<_>>());
}

#[test]
fn retransmissions_do_not_take_acks() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    finished_before(&mut lab, rpc);
    lab.pass(ms(2));
    let sent = lab.feed(&lab.server_of(rpc).resend_all());
    assert!(sent[0].data().ack.is_none(), "the copy of an old ack would be harmless, but why");
}

fn finished_before(lab: &mut Lab, other: RpcId) -> RpcId {
    let rpc = finished(lab);
    assert_ne!(rpc, other);
    rpc
}

#[test]
fn need_ack_for_an_unknown_rpc_is_acked_with_those_that_wait() {
    let mut lab = Lab::new();
    let rpcs: Vec<RpcId> = (0..3).map(|_| lab.request(pattern(10)).0).collect();
    for &rpc in &rpcs {
        lab.feed(&lab.server_of(rpc).whole(b"r"));
    }
    let sent = lab.feed(&lab.server_of(rpcs[0]).need_ack());
    assert_eq!(kinds(&sent), [PacketType::Ack]);
    let ack = sent[0].ack();
    assert_eq!(ack.header.sender_id, rpcs[0].0);
    let named: Vec<u64> = ack.entries().iter().map(|e| e.client_id).collect();
    assert!(named.contains(&rpcs[1].0) && named.contains(&rpcs[2].0));
    assert!(ack.num_acks as usize <= 5);
}

#[test]
fn need_ack_while_bytes_are_missing_draws_resends() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    let from = lab.server_of(rpc);
    assert_eq!(resends(&lab.feed(&from.need_ack())), [(0, u32::MAX)], "nothing has come");
    lab.feed(&from.segment(&pattern(3000), 3000, 1424, 1424));
    let sent = lab.feed(&from.need_ack());
    assert_eq!(resends(&sent), [(0, 1424), (2848, 152)]);
    assert!(only(&sent, PacketType::Ack).is_empty());
}

#[test]
fn need_ack_while_the_response_waits_for_grants_draws_busy() {
    let config = peyk_homa::Config { max_incoming: 1, grant_fifo_fraction: 0, ..Default::default() };
    let mut lab = Lab::with(config, 16);
    let (first, second) = (lab.request(pattern(10)).0, lab.request(pattern(10)).0);
    // The first has all of the budget; of the second everything granted has come.
    lab.feed(&lab.server_of(first).segment(&pattern(10_000), 2848, 0, 1424));
    let from = lab.server_of(second);
    let sent = lab.feed(&from.segment(&pattern(20_000), 1424, 0, 1424));
    assert!(only(&sent, PacketType::Grant).is_empty());
    let sent = lab.feed(&from.need_ack());
    assert_eq!(kinds(&sent), [PacketType::Busy], "else the server would take us for dead");
}

#[test]
fn need_ack_while_the_response_waits_for_memory_draws_busy() {
    let mut lab = Lab::with(peyk_homa::Config::default(), 4);
    let _held: Vec<_> = std::iter::from_fn(|| lab.endpoint.pool().alloc(65_536)).collect();
    let (rpc, _) = lab.request(pattern(10));
    let from = lab.server_of(rpc);
    lab.feed(&from.segment(&pattern(3000), 3000, 0, 1424));
    assert_eq!(lab.endpoint.waiting_for_memory(), 1);
    assert_eq!(kinds(&lab.feed(&from.need_ack())), [PacketType::Busy]);
}

#[test]
fn busy_from_a_client_keeps_its_response_alive() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, pattern(100_000));
    for _ in 0..20 {
        lab.pass(ms(50));
        lab.feed(&Lab::from_client(ID).busy());
    }
    assert_eq!(lab.endpoint.rpc_count(), 1);
    let sent = lab.feed(&Lab::from_client(ID).grant(50_000, 0));
    assert!(!only(&sent, PacketType::Data).is_empty(), "it goes on when it is granted");
}

#[test]
fn need_ack_to_a_port_that_is_gone_is_still_acked() {
    let mut lab = Lab::new();
    let from = From { sport: PORT, dport: 0x9999, id: ID | 1 };
    let sent = lab.feed(&from.need_ack());
    assert_eq!(kinds(&sent), [PacketType::Ack], "else the server would ask in vain");
}

#[test]
fn ack_packet_ends_the_named_and_the_listed() {
    let mut lab = Lab::new();
    for i in 0..6 {
        let rpc = lab.in_service(ID + 2 * i, b"work");
        lab.reply(rpc, &b"done"[..]);
    }
    assert_eq!(lab.endpoint.rpc_count(), 6);
    let entries: Vec<_> = (1..6).map(|i| acked(ID + 2 * i, PORT)).collect();
    assert!(lab.feed(&Lab::from_client(ID).ack(&entries)).is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 0);
}

#[test]
fn ack_for_an_unknown_rpc_still_processes_the_rest() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    lab.feed(&Lab::from_client(ID + 100).ack(&[acked(ID + 200, PORT), acked(ID, PORT)]));
    assert_eq!(lab.endpoint.rpc_count(), 0);
}

#[test]
fn acks_belong_to_the_host_and_may_come_from_another_port() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    let other = From { sport: CLIENT_PORT + 7, dport: PORT, id: ID };
    lab.feed(&other.ack(&[]));
    assert_eq!(lab.endpoint.rpc_count(), 0);
}

#[test]
fn ack_from_another_host_is_ignored() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    lab.feed_from(1, &Lab::from_client(ID).ack(&[acked(ID, PORT)]));
    lab.feed_from(1, &Lab::from_client(ID + 2).whole(b"x"));
    lab.feed_from(1, &Lab::from_client(ID).ack(&[acked(ID, PORT)]));
    assert_eq!(lab.endpoint.stats().server_acked, 0);
}

#[test]
fn ack_with_a_server_id_or_more_than_five_is_harmless() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    let mut packet = Lab::from_client(ID + 2).ack(&[acked(ID | 1, PORT), acked(0, 0)]);
    packet[28..30].copy_from_slice(&u16::MAX.to_be_bytes());
    lab.feed(&packet);
    assert_eq!(lab.endpoint.rpc_count(), 1);
}

#[test]
fn vector_5_need_ack_from_the_second_tick_on_backing_off() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    let mut times = Vec::new();
    for tick in 1..=190u64 {
        let sent = lab.pass(ms(1));
        assert!(sent.iter().all(|s| s.kind() == PacketType::NeedAck));
        times.extend(sent.iter().map(|_| tick));
        if let Some(packet) = sent.first() {
            assert_eq!(packet.header().sender_id, ID | 1);
            assert_eq!(packet.priority, 7);
        }
    }
    assert_eq!(times[0], 2, "done_tick + 2");
    let gaps: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps[..5], [4, 8, 16, 32, 64]);
}

#[test]
fn need_ack_is_given_up_when_the_host_stays_silent() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    lab.pass(ms(190));
    assert_eq!(lab.endpoint.rpc_count(), 1, "not before twice the client's time-out");
    lab.pass(ms(20));
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert!(lab.pass(ms(1000)).is_empty());
    assert!(lab.endpoint.poll_timeout().is_none(), "an idle endpoint sleeps");
}

#[test]
fn need_ack_goes_on_while_the_host_is_heard() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    for _ in 0..20 {
        lab.pass(ms(50));
        lab.feed(&Lab::from_client(ID + 2).busy());
    }
    assert_eq!(lab.endpoint.rpc_count(), 1);
    assert!(lab.endpoint.stats().sent[peyk_homa::type_index(PacketType::NeedAck)] >= 15);
}
