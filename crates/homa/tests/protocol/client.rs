//! State of a client RPC x what happens to it.

use peyk_homa::{Event, RequestOptions, RpcError};
use peyk_wire::homa::PacketType;

use crate::common::*;

#[test]
fn send_request_makes_an_even_id_and_sends_the_unscheduled_part() {
    let mut lab = Lab::new();
    let (rpc, sent) = lab.request(pattern(5000));
    assert_eq!(rpc.0 % 2, 0);
    assert_ne!(rpc.0, 0);
    assert_eq!(ranges(&sent), [(0, 1424), (1424, 2848), (2848, 4272), (4272, 5000)]);
    for packet in &sent {
        let header = packet.header();
        assert_eq!((header.sport, header.dport), (lab.client_port(), PORT));
        assert_eq!(header.sender_id, rpc.0);
    }
    assert_eq!(lab.endpoint.rpc_count(), 1);
}

#[test]
fn outgoing_first_data_of_the_response_makes_it_incoming() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    let response = pattern(3000);
    let from = lab.server_of(rpc);
    lab.feed(&from.segment(&response, 3000, 1424, 1424));
    assert!(lab.events.is_empty());
    // Incoming: a RESEND names what is missing instead of asking for everything.
    let sent = lab.pass(ms(5));
    assert_eq!(resends(&sent), [(0, 1424), (2848, 152)]);
}

#[test]
fn outgoing_rpc_unknown_retransmits_all_that_was_sent() {
    let mut lab = Lab::new();
    let (rpc, sent) = lab.request(pattern(3000));
    let again = lab.feed(&lab.server_of(rpc).rpc_unknown());
    assert_eq!(ranges(&again), ranges(&sent));
    for packet in &again {
        assert!(packet.data().is_retransmission());
        assert_eq!(packet.data().incoming, 3000);
    }
    // At the unscheduled priority of that length, not at the control priority.
    assert_eq!(again[0].priority, sent[0].priority);
}

#[test]
fn outgoing_silence_ends_in_a_timeout() {
    let mut lab = Lab::new();
    lab.request(pattern(10));
    lab.pass(ms(101));
    assert_eq!(lab.take_failure(), RpcError::Timeout);
    assert_eq!(lab.endpoint.rpc_count(), 0);
}

#[test]
fn incoming_silence_ends_in_a_timeout() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    lab.feed(&lab.server_of(rpc).segment(&pattern(3000), 3000, 0, 1424));
    lab.pass(ms(101));
    assert_eq!(lab.take_failure(), RpcError::Timeout);
    assert_eq!(lab.endpoint.pool().free_pages(), 64);
}

#[test]
fn incoming_all_bytes_received_delivers_once_and_ends() {
    let mut lab = Lab::new();
    let options = RequestOptions { cookie: 0xfeed, ..RequestOptions::default() };
    let (rpc, _) = lab.request_with(pattern(10), options);
    let response = pattern(3000);
    let from = lab.server_of(rpc);
    lab.feed(&from.segment(&response, 3000, 0, 1424));
    lab.feed(&from.segment(&response, 3000, 1424, 1424));
    lab.feed(&from.segment(&response, 3000, 2848, 1424));
    assert_eq!(lab.events.len(), 1);
    match &lab.events[0] {
        Event::Response { socket, rpc: id, cookie, from, message } => {
            assert_eq!((*socket, *id, *cookie), (lab.client, rpc, 0xfeed));
            assert_eq!(*from, Lab::to());
            assert_eq!(message.to_vec(), response);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(lab.endpoint.rpc_count(), 0);
}

#[test]
fn incoming_rpc_unknown_is_ignored() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    let from = lab.server_of(rpc);
    lab.feed(&from.segment(&pattern(3000), 3000, 0, 1424));
    assert!(lab.feed(&from.rpc_unknown()).is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 1);
}

#[test]
fn abort_ends_without_event_and_tells_the_server() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    assert!(lab.endpoint.abort(lab.now, lab.client, rpc));
    let sent = lab.drain();
    assert_eq!(kinds(&sent), [PacketType::RpcUnknown]);
    assert_eq!(sent[0].header().sender_id, rpc.0);
    assert_eq!(sent[0].priority, 7);
    assert!(lab.events.is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert!(!lab.endpoint.abort(lab.now, lab.client, rpc), "once only");
}

#[test]
fn abort_of_another_sockets_rpc_is_refused() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    assert!(!lab.endpoint.abort(lab.now, lab.server, rpc));
    assert_eq!(lab.endpoint.rpc_count(), 1);
}

#[test]
fn aborted_rpc_answers_late_packets_of_its_server() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    lab.endpoint.abort(lab.now, lab.client, rpc);
    lab.drain();
    let from = lab.server_of(rpc);
    assert!(lab.feed(&from.whole(b"late")).is_empty());
    assert_eq!(kinds(&lab.feed(&from.resend_all())), [PacketType::RpcUnknown]);
    assert_eq!(kinds(&lab.feed(&from.need_ack())), [PacketType::Ack]);
    assert!(lab.events.is_empty());
}

#[test]
fn deadline_fails_the_rpc_and_tells_the_server() {
    let mut lab = Lab::new();
    let deadline = Some(lab.now + ms(3));
    let options = RequestOptions { deadline, ..RequestOptions::default() };
    lab.request_with(pattern(10), options);
    assert!(lab.pass(us(2999)).is_empty());
    let sent = lab.pass(ms(2));
    assert_eq!(kinds(&sent), [PacketType::RpcUnknown]);
    assert_eq!(lab.take_failure(), RpcError::Deadline);
}

#[test]
fn deadline_holds_although_the_server_is_busy() {
    let mut lab = Lab::new();
    let deadline = Some(lab.now + ms(300));
    let options = RequestOptions { deadline, ..RequestOptions::default() };
    let (rpc, _) = lab.request_with(pattern(10), options);
    let busy = lab.server_of(rpc).busy();
    for _ in 0..6 {
        assert!(lab.events.is_empty());
        lab.pass(ms(50));
        lab.feed(&busy);
    }
    lab.pass(ms(1));
    assert_eq!(lab.take_failure(), RpcError::Deadline);
}

#[test]
fn deadline_in_the_past_fails_at_once() {
    let mut lab = Lab::new();
    let deadline = Some(peyk_sansio::Instant::ZERO);
    let options = RequestOptions { deadline, ..RequestOptions::default() };
    lab.request_with(pattern(10), options);
    lab.pass(ms(1));
    assert_eq!(lab.take_failure(), RpcError::Deadline);
}

#[test]
fn close_of_the_socket_fails_its_rpcs() {
    let mut lab = Lab::new();
    lab.request(pattern(10));
    lab.endpoint.close_socket(lab.now, lab.client);
    let sent = lab.drain();
    assert_eq!(kinds(&sent), [PacketType::RpcUnknown]);
    assert_eq!(lab.take_failure(), RpcError::Closed);
}

#[test]
fn response_may_be_shorter_or_longer_than_the_request() {
    for len in [1usize, 1424, 1425, 40_000] {
        let mut lab = Lab::new();
        let (rpc, _) = lab.request(pattern(2000));
        let response = pattern(len);
        let from = lab.server_of(rpc);
        for offset in (0..len).step_by(1424) {
            lab.feed(&from.segment(&response, len as u32, offset, 1424));
        }
        assert_eq!(lab.take_response(), response);
    }
}
