//! Closing a socket: nobody is left waiting for it.

use peyk_homa::{Event, OpenError, RpcError, SendError, SocketOptions};
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn client_of_an_unanswered_request_is_told() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    world.incoming_request();
    let (now, socket) = (world.now, world.hosts[SERVER].socket);
    world.hosts[SERVER].endpoint.close_socket(now, socket);
    world.drain(SERVER);
    world.run(ms(1));
    assert_eq!(world.failure(rpc), RpcError::PeerClosed);
    world.assert_clean();
}

#[test]
fn client_of_a_half_sent_response_is_told() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    let (request, _) = world.incoming_request();
    world.reply(SERVER, request, pattern(900_000));
    let (now, socket) = (world.now, world.hosts[SERVER].socket);
    world.hosts[SERVER].endpoint.close_socket(now, socket);
    world.drain(SERVER);
    world.run(ms(1));
    assert_eq!(world.failure(rpc), RpcError::PeerClosed);
}

#[test]
fn response_that_was_all_sent_still_arrives() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    let (request, _) = world.incoming_request();
    world.reply(SERVER, request, pattern(3000));
    let (now, socket) = (world.now, world.hosts[SERVER].socket);
    world.hosts[SERVER].endpoint.close_socket(now, socket);
    world.drain(SERVER);
    world.settle();
    assert_eq!(world.response(rpc), pattern(3000));
    world.assert_clean();
}

#[test]
fn server_of_a_closing_client_is_told() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(10));
    world.run(ms(1));
    world.incoming_request();
    let (now, socket) = (world.now, world.hosts[CLIENT].socket);
    world.hosts[CLIENT].endpoint.close_socket(now, socket);
    world.drain(CLIENT);
    assert_eq!(world.failure(rpc), RpcError::Closed);
    world.run(ms(1));
    assert!(matches!(world.event(SERVER), Event::Cancelled { .. }));
    world.assert_clean();
}

#[test]
fn acks_that_are_owed_leave_before_the_socket_does() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    lab.feed(&lab.server_of(rpc).whole(b"r"));
    lab.take_response();
    lab.endpoint.close_socket(lab.now, lab.client);
    let sent = lab.drain();
    assert_eq!(kinds(&sent), [PacketType::Ack]);
    assert_eq!(sent[0].header().sender_id, rpc.0);
}

#[test]
fn handles_are_void_and_the_port_is_free() {
    let mut lab = Lab::new();
    lab.endpoint.close_socket(lab.now, lab.client);
    let message = (&b"x"[..]).into();
    let sent = lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default());
    assert_eq!(sent, Err(SendError::Closed));
    assert_eq!(lab.endpoint.open_socket(Some(PORT), SocketOptions::default()), Err(OpenError::InUse));
    lab.endpoint.close_socket(lab.now, lab.server);
    lab.endpoint.close_socket(lab.now, lab.server);
    assert_eq!(lab.endpoint.socket_count(), 0);
    assert!(lab.endpoint.open_socket(Some(PORT), SocketOptions::default()).is_ok());
}

#[test]
fn new_socket_at_the_port_does_not_inherit_rpcs() {
    let mut lab = Lab::new();
    let message = pattern(3000);
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&message, 3000, 0, 1424));
    lab.endpoint.close_socket(lab.now, lab.server);
    lab.drain();
    lab.endpoint.open_socket(Some(PORT), SocketOptions::default()).unwrap();
    lab.feed(&from.segment(&message, 3000, 1424, 1576));
    assert!(lab.events.is_empty());
    assert_eq!(resends(&lab.pass(ms(5))), [(0, 1424)], "a new RPC that lacks its first part");
}

#[test]
fn other_sockets_are_not_concerned() {
    let mut lab = Lab::new();
    let second = lab.endpoint.open_socket(None, SocketOptions::default()).unwrap();
    let message = (&b"x"[..]).into();
    lab.endpoint.send_request(lab.now, second, Lab::to(), message, Default::default()).unwrap();
    lab.request(pattern(10));
    lab.endpoint.close_socket(lab.now, lab.client);
    lab.drain();
    assert_eq!(lab.endpoint.rpc_count(), 1);
    assert_eq!(lab.events.len(), 1);
}

#[test]
fn server_by_option_at_an_automatic_port() {
    let mut lab = Lab::new();
    let options = SocketOptions { server: true, ..SocketOptions::default() };
    let socket = lab.endpoint.open_socket(None, options).unwrap();
    let dport = lab.endpoint.port(socket).unwrap();
    assert!(dport >= 0x8000);
    lab.feed(&From { sport: CLIENT_PORT, dport, id: ID }.whole(b"hello"));
    assert_eq!(lab.take_request().1, b"hello");
}
