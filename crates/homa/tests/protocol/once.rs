//! At most once: whatever the network repeats, a request is executed once.

use peyk_homa::{Config, Event, RpcError};
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn late_duplicate_after_the_ack_is_not_executed() {
    let mut lab = Lab::new();
    let packet = Lab::from_client(ID).whole(b"work");
    lab.feed(&packet);
    let (rpc, _) = lab.take_request();
    lab.reply(rpc, &b"done"[..]);
    lab.feed(&Lab::from_client(ID).ack(&[]));
    assert_eq!(lab.endpoint.rpc_count(), 0);
    for _ in 0..50 {
        lab.pass(ms(5));
        lab.feed(&packet);
    }
    assert!(lab.events.is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert_eq!(lab.endpoint.stats().drop_completed, 50);
}

#[test]
fn late_duplicate_after_silence_is_not_executed() {
    let mut lab = Lab::new();
    let packet = Lab::from_client(ID).whole(b"work");
    lab.feed(&packet);
    let (rpc, _) = lab.take_request();
    lab.reply(rpc, &b"done"[..]);
    lab.pass(ms(210));
    assert_eq!(lab.endpoint.rpc_count(), 0, "nobody answered NEED_ACK");
    lab.feed(&packet);
    assert!(lab.events.is_empty());
}

#[test]
fn late_segments_of_a_long_request_are_not_executed() {
    let mut lab = Lab::new();
    let message = pattern(20_000);
    let from = Lab::from_client(ID);
    let packets: Vec<_> =
        (0..20_000).step_by(1424).map(|o| from.segment(&message, 20_000, o, 1424)).collect();
    packets.iter().for_each(|p| drop(lab.feed(p)));
    let (rpc, _) = lab.take_request();
    lab.reply(rpc, &b"done"[..]);
    lab.feed(&from.ack(&[]));
    packets.iter().rev().for_each(|p| drop(lab.feed(p)));
    assert!(lab.events.is_empty());
    assert_eq!(lab.endpoint.pool().free_pages(), 64);
}

#[test]
fn cancelled_request_is_not_executed_again() {
    let mut lab = Lab::new();
    let packet = Lab::from_client(ID).whole(b"work");
    lab.feed(&packet);
    lab.take_request();
    lab.feed(&Lab::from_client(ID).rpc_unknown());
    assert!(matches!(lab.events.pop(), Some(Event::Cancelled { .. })));
    lab.feed(&packet);
    assert!(lab.events.is_empty());
}

#[test]
fn request_that_was_never_complete_may_come_again() {
    let mut lab = Lab::new();
    let message = pattern(3000);
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&message, 3000, 0, 1424));
    lab.pass(ms(110));
    assert_eq!(lab.endpoint.rpc_count(), 0);
    lab.feed(&from.segment(&message, 3000, 0, 3000));
    assert_eq!(lab.take_request().1, message);
}

#[test]
fn client_of_a_forgotten_rpc_learns_that_it_will_get_nothing() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    lab.pass(ms(210));
    let sent = lab.feed(&Lab::from_client(ID).resend_all());
    assert_eq!(kinds(&sent), [PacketType::Unreachable], "RPC_UNKNOWN would ask for the request again");
}

#[test]
fn client_of_a_forgotten_rpc_learns_it_from_an_overloaded_server_too() {
    let mut lab = Lab::with(Config { max_unanswered: 1, ..Config::default() }, 64);
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    lab.pass(ms(210));
    let _held = lab.in_service(ID + 2, b"no more than this");
    let sent = lab.feed(&Lab::from_client(ID).resend_all());
    assert_eq!(kinds(&sent), [PacketType::Unreachable], "BUSY would have it wait for nothing");
    let sent = lab.feed(&Lab::from_client(ID + 4).resend_all());
    assert_eq!(kinds(&sent), [PacketType::Busy], "a request that was turned away comes again");
}

#[test]
fn call_ends_though_the_server_forgets_it_and_asks_for_it_again_and_again() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(3000));
    let server = lab.server_of(rpc);
    let mut asked = 0;
    for _ in 0..1000 {
        if !lab.events.is_empty() {
            break;
        }
        let sent = lab.pass(ms(1));
        for _ in only(&sent, PacketType::Resend) {
            asked += 1;
            // As from one that drops every copy of the request.
            lab.feed(&server.rpc_unknown());
        }
    }
    assert!(asked > 0);
    assert_eq!(lab.take_failure(), RpcError::Timeout);
}

#[test]
fn record_is_kept_for_twice_the_timeout_and_then_freed() {
    let mut lab = Lab::new();
    let packet = Lab::from_client(ID).whole(b"work");
    lab.feed(&packet);
    let (rpc, _) = lab.take_request();
    lab.reply(rpc, &b"done"[..]);
    lab.feed(&Lab::from_client(ID).ack(&[]));
    lab.now += ms(200);
    lab.feed(&packet);
    assert!(lab.events.is_empty());
}

#[test]
fn restarted_client_uses_other_ids() {
    let mut world = World::pair();
    let first = world.request(pattern(10));
    world.settle();
    world.response(first);
    world.restart(CLIENT, 4711, 256);
    let second = world.request(pattern(20));
    world.settle();
    assert_ne!(first, second);
    assert_eq!(world.response(second), pattern(20));
}

#[test]
fn left_over_server_rpc_of_a_dead_client_is_not_mistaken() {
    let mut world = World::pair();
    world.is_echo = false;
    world.request(pattern(10));
    world.run(ms(1));
    world.restart(CLIENT, 4712, 256);
    let rpc = world.request(pattern(20));
    world.run(ms(1));
    let (old, _) = world.incoming_request();
    let (new, message) = world.incoming_request();
    world.reply(SERVER, old, pattern(77));
    world.reply(SERVER, new, message);
    world.settle();
    assert_eq!(world.response(rpc), pattern(20));
    world.assert_clean();
}

#[test]
fn response_in_flight_to_a_restarted_client_is_forgotten() {
    let mut world = World::pair();
    world.is_echo = false;
    world.request(pattern(10));
    world.run(ms(1));
    let (rpc, _) = world.incoming_request();
    world.restart(CLIENT, 4713, 256);
    world.reply(SERVER, rpc, pattern(500_000));
    world.settle();
    world.assert_clean();
}

#[test]
fn restarted_server_gets_the_request_again() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    world.restart(SERVER, 99, 256);
    world.hosts[SERVER].events.clear();
    world.is_echo = true;
    world.settle();
    assert_eq!(world.response(rpc), pattern(10));
    world.assert_clean();
}

#[test]
fn record_is_bounded() {
    let config = Config { max_completed_chunks: 4, ..Config::default() };
    let mut lab = Lab::with(config, 64);
    for i in 0..100u64 {
        let id = ID + (i << 20);
        let rpc = lab.in_service(id, b"work");
        lab.reply(rpc, &b"done"[..]);
        lab.feed(&Lab::from_client(id).ack(&[]));
    }
    lab.feed(&Lab::from_client(ID + (99 << 20)).whole(b"work"));
    assert!(lab.events.is_empty(), "the latest are remembered");
}

#[test]
fn response_arrives_once_however_often_it_is_sent() {
    let mut world = World::pair();
    world.rule = Box::new(|_| Verdict::Duplicate(ms(3)));
    let rpcs: Vec<_> = (0..50).map(|_| world.request(pattern(3000))).collect();
    world.settle();
    for rpc in rpcs {
        assert_eq!(world.response(rpc), pattern(3000));
    }
    world.assert_clean();
    assert_eq!(world.hosts[SERVER].endpoint.stats().requests_received, 50);
}
