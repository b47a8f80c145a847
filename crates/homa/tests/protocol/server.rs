//! State of a server RPC x what happens to it.

use peyk_homa::{Event, Reason, ReplyError};
use peyk_wire::homa::{PacketType, UnreachableCode};

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn data_with_an_unknown_key_makes_an_rpc() {
    let mut lab = Lab::new();
    lab.feed(&Lab::from_client(ID).segment(&pattern(3000), 3000, 0, 1424));
    assert_eq!(lab.endpoint.rpc_count(), 1);
    assert!(lab.events.is_empty());
}

#[test]
fn whole_request_is_handed_over_once() {
    let mut lab = Lab::new();
    let packet = Lab::from_client(ID).whole(b"hello");
    lab.feed(&packet);
    match &lab.events[..] {
        [Event::Request { socket, rpc, from, message }] => {
            assert_eq!(*socket, lab.server);
            assert_eq!(rpc.id(), ID | 1);
            assert_eq!((from.path, from.port), (Lab::path(0), CLIENT_PORT));
            assert_eq!(message.to_vec(), b"hello");
        }
        other => panic!("{other:?}"),
    }
    lab.feed(&packet);
    assert_eq!(lab.events.len(), 1);
}

#[test]
fn incoming_silence_drops_it_without_a_word() {
    let mut lab = Lab::new();
    lab.feed(&Lab::from_client(ID).segment(&pattern(3000), 3000, 0, 1424));
    let sent = lab.pass(ms(110));
    assert!(sent.iter().all(|s| s.kind() == PacketType::Resend), "{sent:?}");
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert!(lab.events.is_empty());
    assert_eq!(lab.endpoint.pool().free_pages(), 64);
}

#[test]
fn in_service_lasts_as_long_as_the_application_likes() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    let sent = lab.pass(ms(10_000));
    assert!(sent.is_empty(), "{sent:?}");
    let sent = lab.reply(rpc, &b"done"[..]);
    assert_eq!(ranges(&sent), [(0, 4)]);
    assert_eq!(sent[0].header().sender_id, ID | 1);
    assert_eq!((sent[0].header().sport, sent[0].header().dport), (PORT, CLIENT_PORT));
}

#[test]
fn reply_makes_it_outgoing() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    let sent = lab.reply(rpc, pattern(100_000));
    assert_eq!(ranges(&sent).last(), Some(&(39_872, 40_000)));
    let more = lab.feed(&Lab::from_client(ID).grant(41_000, 2));
    assert_eq!(ranges(&more), [(40_000, 41_424)]);
}

#[test]
fn second_reply_is_refused() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"one"[..]);
    let again = lab.endpoint.reply(lab.now, rpc, (&b"two"[..]).into());
    assert_eq!(again, Err(ReplyError::Gone));
}

#[test]
fn handle_of_an_ended_rpc_does_not_reach_its_successor() {
    let mut lab = Lab::new();
    let old = lab.in_service(ID, b"one");
    lab.reply(old, &b"one"[..]);
    lab.feed(&Lab::from_client(ID).ack(&[]));
    let new = lab.in_service(ID + 2, b"two");
    let reply = lab.endpoint.reply(lab.now, old, (&b"stale"[..]).into());
    assert_eq!(reply, Err(ReplyError::Gone));
    assert!(lab.endpoint.is_waiting(new));
}

#[test]
fn outgoing_ack_ends_it() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    assert!(lab.feed(&Lab::from_client(ID).ack(&[])).is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert!(lab.pass(ms(1000)).is_empty());
}

#[test]
fn outgoing_piggybacked_ack_ends_it() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, &b"done"[..]);
    let next = Lab::from_client(ID + 2).data_with(4, 4, 0, b"next", |d| d.ack = acked(ID, PORT));
    lab.feed(&next);
    assert_eq!(lab.endpoint.rpc_count(), 1, "only the new one is left");
}

#[test]
fn outgoing_rpc_unknown_ends_it() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, pattern(100_000));
    assert!(lab.feed(&Lab::from_client(ID).rpc_unknown()).is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert!(lab.events.is_empty(), "the application has answered and need not know");
}

#[test]
fn incoming_rpc_unknown_ends_it() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&pattern(3000), 3000, 0, 1424));
    lab.feed(&from.rpc_unknown());
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert!(lab.events.is_empty());
}

#[test]
fn in_service_rpc_unknown_cancels_it() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.feed(&Lab::from_client(ID).rpc_unknown());
    match &lab.events[..] {
        [Event::Cancelled { socket, rpc: cancelled }] => {
            assert_eq!((*socket, *cancelled), (lab.server, rpc));
        }
        other => panic!("{other:?}"),
    }
    let reply = lab.endpoint.reply(lab.now, rpc, (&b"late"[..]).into());
    assert_eq!(reply, Err(ReplyError::Gone));
}

#[test]
fn ack_before_the_response_is_ignored() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&pattern(3000), 3000, 0, 1424));
    lab.feed(&from.ack(&[]));
    assert_eq!(lab.endpoint.rpc_count(), 1, "incoming");
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.feed(&from.ack(&[]));
    lab.feed(&Lab::from_client(ID + 2).ack(&[acked(ID, PORT)]));
    assert!(lab.endpoint.is_waiting(rpc), "in service");
}

#[test]
fn reject_tells_the_client_why() {
    for (reason, code) in [
        (Reason::Aborted, UnreachableCode::Aborted),
        (Reason::Overloaded, UnreachableCode::Overloaded),
        (Reason::TooLarge, UnreachableCode::TooLarge),
        (Reason::Closing, UnreachableCode::Closing),
    ] {
        let mut lab = Lab::new();
        let rpc = lab.in_service(ID, b"work");
        lab.endpoint.reject(lab.now, rpc, reason);
        let sent = lab.drain();
        assert_eq!(kinds(&sent), [PacketType::Unreachable]);
        assert_eq!(sent[0].unreachable().code, code);
        assert_eq!(sent[0].header().sender_id, ID | 1);
        assert_eq!(lab.endpoint.rpc_count(), 0);
        assert!(!lab.endpoint.is_waiting(rpc));
    }
}

#[test]
fn rejected_request_is_not_executed_again() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.endpoint.reject(lab.now, rpc, Reason::Overloaded);
    lab.drain();
    lab.feed(&Lab::from_client(ID).whole(b"work"));
    assert!(lab.events.is_empty());
}

#[test]
fn close_of_the_socket_ends_it_and_tells_the_client() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.endpoint.close_socket(lab.now, lab.server);
    let sent = lab.drain();
    assert_eq!(kinds(&sent), [PacketType::Unreachable]);
    assert_eq!(sent[0].unreachable().code, UnreachableCode::Closing);
    let reply = lab.endpoint.reply(lab.now, rpc, (&b"late"[..]).into());
    assert_eq!(reply, Err(ReplyError::Gone));
    assert_eq!(lab.endpoint.rpc_count(), 0);
}

#[test]
fn unreachable_client_ends_it() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    let remote = Lab::path(0).remote;
    lab.endpoint.handle_unreachable(lab.now, remote, peyk_homa::Unreachable::Host, None);
    lab.drain();
    assert!(matches!(lab.events[..], [Event::Cancelled { .. }]));
    assert!(!lab.endpoint.is_waiting(rpc));
}
