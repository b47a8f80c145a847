//! What a request can fail of, beside silence.

use peyk_homa::{Event, RpcError, Unreachable};
use peyk_wire::homa::UnreachableCode;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn unreachable_packets_name_the_cause() {
    for (code, error) in [
        (UnreachableCode::NoSocket, RpcError::NoSocket),
        (UnreachableCode::NotServer, RpcError::NotServer),
        (UnreachableCode::Aborted, RpcError::Aborted),
        (UnreachableCode::TooLarge, RpcError::TooLarge),
        (UnreachableCode::Closing, RpcError::PeerClosed),
        (UnreachableCode::Overloaded, RpcError::Overloaded),
        (UnreachableCode::Other(77), RpcError::Aborted),
    ] {
        let mut lab = Lab::new();
        let (rpc, _) = lab.request(pattern(10));
        assert!(lab.feed(&lab.server_of(rpc).unreachable(code)).is_empty());
        assert_eq!(lab.take_failure(), error, "{code:?}");
        assert_eq!(lab.endpoint.rpc_count(), 0);
    }
}

#[test]
fn forged_unreachable_packets_are_ignored() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    let from = lab.server_of(rpc);
    lab.feed_from(1, &from.unreachable(UnreachableCode::NoSocket));
    lab.feed(&From { sport: 98, ..from }.unreachable(UnreachableCode::NoSocket));
    lab.feed(&From { id: from.id + 2, ..from }.unreachable(UnreachableCode::NoSocket));
    assert!(lab.events.is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 1);
}

#[test]
fn port_unreachable_ends_rpcs_with_that_port() {
    let mut lab = Lab::new();
    let remote = Lab::path(0).remote;
    lab.request(pattern(10));
    let why = |homa_port| Unreachable::Port { homa_port };
    lab.endpoint.handle_unreachable(lab.now, remote, why(Some(98)), None);
    lab.drain();
    assert!(lab.events.is_empty(), "another port");
    lab.endpoint.handle_unreachable(lab.now, remote, why(Some(PORT)), None);
    lab.drain();
    assert_eq!(lab.take_failure(), RpcError::NoSocket);
    lab.request(pattern(10));
    lab.endpoint.handle_unreachable(lab.now, remote, why(None), None);
    lab.drain();
    assert_eq!(lab.take_failure(), RpcError::NoSocket, "all ports");
}

#[test]
fn report_about_an_earlier_request_does_not_end_a_later_one() {
    let mut lab = Lab::new();
    let remote = Lab::path(0).remote;
    let (early, _) = lab.request(pattern(10));
    let (late, _) = lab.request(pattern(10));
    let report = |lab: &mut Lab, id| {
        let why = Unreachable::Port { homa_port: None };
        lab.endpoint.handle_unreachable(lab.now, remote, why, Some(id));
        lab.drain();
    };
    report(&mut lab, early.0);
    assert_eq!(lab.take_failure(), RpcError::NoSocket);
    assert_eq!(lab.endpoint.rpc_count(), 1);
    report(&mut lab, early.0);
    assert_eq!(lab.endpoint.rpc_count(), 1, "it is not concerned, however often");
    // A packet of a reply of ours, or of another endpoint of this host, says nothing about when.
    report(&mut lab, late.0 & !0xffff | 1);
    assert_eq!(lab.take_failure(), RpcError::NoSocket);
}

#[test]
fn host_and_protocol_unreachable_end_all_rpcs_with_the_host() {
    for (why, error) in [
        (Unreachable::Host, RpcError::HostUnreachable),
        (Unreachable::Protocol, RpcError::ProtocolUnreachable),
    ] {
        let mut lab = Lab::new();
        lab.request(pattern(10));
        lab.request(pattern(100_000));
        let other = peyk_homa::PeerAddr { path: Lab::path(1), port: PORT };
        let message = (&b"x"[..]).into();
        lab.endpoint.send_request(lab.now, lab.client, other, message, Default::default()).unwrap();
        lab.endpoint.handle_unreachable(lab.now, Lab::path(0).remote, why, None);
        lab.drain();
        assert_eq!(lab.events.len(), 2);
        for event in lab.events.drain(..) {
            assert!(matches!(event, Event::Failed { error: e, .. } if e == error));
        }
        assert_eq!(lab.endpoint.rpc_count(), 1, "the other host is not concerned");
    }
}

#[test]
fn unreachability_of_strangers_is_ignored() {
    let mut lab = Lab::new();
    lab.request(pattern(10));
    lab.endpoint.handle_unreachable(lab.now, Lab::path(9).remote, Unreachable::Host, None);
    lab.drain();
    assert!(lab.events.is_empty());
}

#[test]
fn server_that_rejects_is_heard_by_the_client() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(50_000));
    world.run(ms(5));
    let (request, _) = world.incoming_request();
    let now = world.now;
    world.hosts[SERVER].endpoint.reject(now, request, peyk_homa::Reason::Overloaded);
    world.drain(SERVER);
    world.settle();
    assert_eq!(world.failure(rpc), RpcError::Overloaded);
    world.assert_clean();
}

#[test]
fn lost_rejection_is_repeated_on_request() {
    let mut world = World::pair();
    world.is_echo = false;
    let mut lost = 0;
    world.rule = Box::new(move |seen| {
        let is_first = seen.is(peyk_wire::homa::PacketType::Unreachable) && lost == 0;
        lost += usize::from(is_first);
        if is_first { Verdict::Drop } else { Verdict::Pass }
    });
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    let (request, _) = world.incoming_request();
    let now = world.now;
    world.hosts[SERVER].endpoint.reject(now, request, peyk_homa::Reason::Aborted);
    world.drain(SERVER);
    world.run(ms(20));
    assert_eq!(world.failure(rpc), RpcError::Aborted);
    assert!(world.hosts[SERVER].events.is_empty(), "not executed a second time");
}

#[test]
fn no_listener_fails_fast() {
    let mut world = World::of(vec![(Default::default(), false, 16), (Default::default(), false, 16)]);
    let start = world.now;
    let rpc = world.request(pattern(10));
    world.settle();
    assert_eq!(world.failure(rpc), RpcError::NoSocket);
    assert!(start + ms(2000) > world.now);
}

#[test]
fn dead_host_fails_after_the_timeout() {
    let mut world = World::pair();
    world.hosts[SERVER].is_down = true;
    let rpc = world.request(pattern(100_000));
    world.run(ms(99));
    assert!(world.hosts[CLIENT].events.is_empty());
    world.run(ms(2));
    assert_eq!(world.failure(rpc), RpcError::Timeout);
}

#[test]
fn abort_of_a_long_request_frees_the_server() {
    let mut world = World::pair();
    let rpc = world.request(pattern(900_000));
    world.run(us(50));
    assert!(world.abort(rpc));
    world.settle();
    world.assert_clean();
}

#[test]
fn abort_of_a_request_in_service_cancels_it() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    let (request, _) = world.incoming_request();
    world.abort(rpc);
    world.run(ms(1));
    assert!(matches!(world.event(SERVER), Event::Cancelled { rpc, .. } if rpc == request));
    world.settle();
    world.assert_clean();
}

#[test]
fn abort_during_a_long_response_frees_the_server() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    let (request, _) = world.incoming_request();
    world.reply(SERVER, request, pattern(900_000));
    world.run(us(60));
    world.abort(rpc);
    world.settle();
    world.assert_clean();
}

#[test]
fn lost_abort_leaves_nothing_behind_though_the_host_stays_busy() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    let (request, _) = world.incoming_request();
    world.reply(SERVER, request, pattern(900_000));
    world.run(us(15));
    world.rule = Box::new(|seen| {
        let is_lost = seen.is(peyk_wire::homa::PacketType::RpcUnknown);
        if is_lost { Verdict::Drop } else { Verdict::Pass }
    });
    world.abort(rpc);
    world.is_echo = true;
    for _ in 0..100 {
        let rpc = world.request(pattern(10));
        world.run(ms(10));
        world.response(rpc);
    }
    let left = world.hosts[SERVER].endpoint.rpc_count();
    assert!(left <= 1, "{left} RPCs: other traffic of the host must not keep the aborted one");
    let bytes = world.hosts[SERVER].endpoint.send_bytes();
    assert!(bytes < 900_000, "the response nobody wants is still held");
}

#[test]
fn unknown_client_id_in_unreachable_is_dropped() {
    let mut lab = Lab::new();
    let from = From { sport: PORT, dport: lab.client_port(), id: ID | 1 };
    assert!(lab.feed(&from.unreachable(UnreachableCode::Aborted)).is_empty());
    assert_eq!(lab.endpoint.stats().drop_unreachable, 1);
}
