//! Every limit of the settings, and what happens at it.

use peyk_homa::{Config, Event, ReplyError, SendError, SocketOptions};
use peyk_sockbuf::Payload;
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

fn send(lab: &mut Lab, len: usize) -> Result<peyk_homa::RpcId, SendError> {
    let message = Payload::from(pattern(len));
    lab.endpoint.send_request(lab.now, lab.client, Lab::to(), message, Default::default())
}

#[test]
fn send_memory_of_a_socket() {
    let mut lab = Lab::with(Config { wmem_max: 100_000, ..Config::default() }, 16);
    let first = send(&mut lab, 90_000).unwrap();
    send(&mut lab, 90_000).expect("the message that crosses the limit is taken");
    assert_eq!(send(&mut lab, 1), Err(SendError::Full));
    lab.drain();
    assert!(lab.events.is_empty());
    lab.endpoint.abort(lab.now, lab.client, first);
    lab.drain();
    match lab.events[..] {
        [Event::Writable { socket }] => assert_eq!(socket, lab.client),
        ref other => panic!("{other:?}"),
    }
    assert!(send(&mut lab, 1).is_ok());
}

#[test]
fn send_memory_of_the_endpoint() {
    let mut lab = Lab::with(Config { max_send_bytes: 50_000, ..Config::default() }, 16);
    let first = send(&mut lab, 60_000).unwrap();
    let other = lab.endpoint.open_socket(None, SocketOptions::default()).unwrap();
    let message = Payload::from(pattern(1));
    let sent = lab.endpoint.send_request(lab.now, other, Lab::to(), message, Default::default());
    assert_eq!(sent, Err(SendError::Full));
    lab.endpoint.abort(lab.now, lab.client, first);
    lab.drain();
    assert!(matches!(lab.events[..], [Event::Writable { socket }] if socket == other));
}

#[test]
fn send_memory_for_a_peer() {
    let mut lab = Lab::with(Config { max_peer_send_bytes: 50_000, ..Config::default() }, 16);
    let first = send(&mut lab, 60_000).unwrap();
    assert_eq!(send(&mut lab, 1), Err(SendError::Full));
    let other = peyk_homa::PeerAddr { path: Lab::path(1), port: PORT };
    let message = Payload::from(pattern(1));
    lab.endpoint.send_request(lab.now, lab.client, other, message, Default::default()).expect("to another");
    lab.endpoint.abort(lab.now, lab.client, first);
    lab.drain();
    assert!(matches!(lab.events[..], [Event::Writable { socket }] if socket == lab.client));
    assert!(send(&mut lab, 1).is_ok());
}

#[test]
fn replies_that_a_peer_does_not_take() {
    let mut lab = Lab::with(Config { max_peer_send_bytes: 50_000, ..Config::default() }, 16);
    let first = lab.in_service(ID, b"one");
    lab.reply(first, pattern(60_000));
    let second = Lab::from_client(ID + 2);
    lab.feed(&second.whole(b"two"));
    assert!(lab.events.is_empty(), "first it shall take what it asked for");
    assert_eq!(lab.endpoint.stats().drop_peer_replies, 1);
    assert_eq!(kinds(&lab.feed(&second.resend_all())), [PacketType::Busy], "it shall wait, not fail");
    lab.feed_from(1, &second.whole(b"others are served"));
    lab.take_request();
    lab.feed(&Lab::from_client(ID).ack(&[]));
    lab.feed(&second.whole(b"two"));
    lab.take_request();
}

#[test]
fn answers_to_packets_of_no_rpc() {
    let config = Config { stranger_answers_per_sec: 100, stray_answers_per_sec: 200, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    lab.in_service(ID, b"a client we know");
    let stray = Lab::from_client(ID + 2).resend_all();
    let strange: Vec<_> = (0..50).flat_map(|_| lab.feed_from(1, &stray)).collect();
    assert_eq!(kinds(&strange), [PacketType::RpcUnknown; 10], "a tenth of a second's worth");
    assert_eq!(lab.endpoint.stats().drop_answer_limit, 40);
    // Neither NEED_ACK nor a port that is not there is a way round.
    let need_ack = From { sport: PORT, dport: lab.client_port(), id: ID | 1 }.need_ack();
    let nowhere = From { sport: PORT, dport: 0x7777, id: ID | 1 };
    assert!(lab.feed_from(1, &need_ack).is_empty());
    assert!(lab.feed_from(1, &nowhere.need_ack()).is_empty());
    assert!(lab.feed_from(1, &nowhere.resend_all()).is_empty());
    assert_eq!(lab.endpoint.stats().drop_answer_limit, 43);
    // Those we have to do with are answered still, up to their own limit.
    let known: Vec<_> = (0..50).flat_map(|_| lab.feed(&stray)).collect();
    assert_eq!(kinds(&known), [PacketType::RpcUnknown; 20]);
    lab.pass(ms(10));
    assert_eq!(kinds(&lab.feed_from(1, &need_ack)), [PacketType::Ack], "one more after its time");
    assert!(lab.feed_from(1, &need_ack).is_empty());
}

#[test]
fn busy_to_strangers() {
    let config = Config { stranger_answers_per_sec: 10, max_unanswered: 1, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    lab.in_service(ID, b"enough");
    let stray = Lab::from_client(ID + 2).resend_all();
    let answers: Vec<_> = (0..5).flat_map(|_| lab.feed_from(1, &stray)).collect();
    assert_eq!(kinds(&answers), [PacketType::Busy]);
    assert_eq!(lab.endpoint.stats().drop_answer_limit, 4);
}

#[test]
fn rpcs_of_a_socket_a_peer_and_the_endpoint() {
    for config in [
        Config { max_socket_rpcs: 3, ..Config::default() },
        Config { max_peer_rpcs: 3, ..Config::default() },
        Config { max_rpcs: 3, ..Config::default() },
    ] {
        let mut lab = Lab::with(config, 16);
        let first = send(&mut lab, 10).unwrap();
        send(&mut lab, 10).unwrap();
        send(&mut lab, 10).unwrap();
        assert_eq!(send(&mut lab, 10), Err(SendError::Full));
        lab.drain();
        lab.feed(&lab.server_of(first).whole(b"r"));
        assert!(lab.events.iter().any(|e| matches!(e, Event::Writable { .. })), "{:?}", lab.events);
        assert!(send(&mut lab, 10).is_ok());
    }
}

#[test]
fn unanswered_requests_of_a_socket() {
    let mut lab = Lab::with(Config { max_unanswered: 2, ..Config::default() }, 16);
    let first = lab.in_service(ID, b"one");
    lab.in_service(ID + 2, b"two");
    let third = Lab::from_client(ID + 4);
    lab.feed(&third.whole(b"three"));
    assert!(lab.events.is_empty());
    assert_eq!(lab.endpoint.stats().drop_unanswered, 1);
    assert_eq!(kinds(&lab.feed(&third.resend_all())), [PacketType::Busy], "it shall wait, not fail");
    lab.reply(first, &b"done"[..]);
    assert_eq!(kinds(&lab.feed(&third.resend_all())), [PacketType::RpcUnknown], "now send it again");
    lab.feed(&third.whole(b"three"));
    lab.take_request();
}

#[test]
fn overloaded_server_serves_everybody_in_the_end() {
    let config = Config { max_unanswered: 4, ..Config::default() };
    let mut world = World::with(Config::default(), config);
    world.is_echo = false;
    let rpcs: Vec<_> = (0..60).map(|_| world.request(pattern(100))).collect();
    for _ in 0..500 {
        world.run(ms(3));
        while let Some(Event::Request { rpc, .. }) = world.hosts[SERVER].events.pop_front() {
            world.reply(SERVER, rpc, pattern(10));
        }
    }
    let events = std::mem::take(&mut world.hosts[CLIENT].events);
    let answered = events.iter().filter(|e| matches!(e, Event::Response { .. })).count();
    assert_eq!(answered, rpcs.len());
    drop(events);
    world.settle();
    world.assert_clean();
}

#[test]
fn peers() {
    let config = Config { max_peers: 5, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    for n in 0..5 {
        lab.feed_from(n, &Lab::from_client(ID).whole(b"x"));
    }
    lab.feed_from(6, &Lab::from_client(ID).whole(b"x"));
    assert_eq!(lab.endpoint.peer_count(), 5);
    assert_eq!(lab.endpoint.stats().drop_peer_limit, 1);
    let to = peyk_homa::PeerAddr { path: Lab::path(7), port: PORT };
    let message = Payload::from(pattern(1));
    let sent = lab.endpoint.send_request(lab.now, lab.client, to, message, Default::default());
    assert_eq!(sent, Err(SendError::TooManyPeers));
}

#[test]
fn idle_peers_give_way_to_new_ones() {
    let config = Config { max_peers: 5, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    for n in 0..5 {
        lab.feed_from(n, &Lab::from_client(ID).whole(b"x"));
        let Some(Event::Request { rpc, .. }) = lab.events.pop() else { panic!("request") };
        lab.reply(rpc, &b"r"[..]);
        lab.feed_from(n, &Lab::from_client(ID).ack(&[]));
    }
    lab.pass(ms(11_000));
    lab.feed_from(6, &Lab::from_client(ID).whole(b"x"));
    assert_eq!(lab.endpoint.peer_count(), 5);
    assert_eq!(lab.endpoint.stats().peers_evicted, 1);
    assert_eq!(lab.events.len(), 1);
}

#[test]
fn packets_for_no_socket_make_no_peer() {
    let mut lab = Lab::new();
    for n in 0..50 {
        lab.feed_from(n, &From { sport: 1, dport: 1234, id: ID }.whole(b"x"));
        lab.feed_from(n, &Lab::from_client(ID).resend_all());
        lab.feed_from(n, &Lab::from_client(ID).ack(&[acked(ID, PORT)]));
    }
    assert_eq!(lab.endpoint.peer_count(), 0);
}

#[test]
fn sockets() {
    let mut lab = Lab::with(Config { max_sockets: 3, ..Config::default() }, 16);
    assert!(lab.endpoint.open_socket(None, SocketOptions::default()).is_ok());
    let refused = lab.endpoint.open_socket(None, SocketOptions::default());
    assert_eq!(refused, Err(peyk_homa::OpenError::Exhausted));
}

#[test]
fn reply_when_full_can_be_tried_again() {
    let mut lab = Lab::with(Config { wmem_max: 1000, ..Config::default() }, 16);
    let one = lab.in_service(ID, b"one");
    let two = lab.in_service(ID + 2, b"two");
    lab.reply(one, pattern(2000));
    let refused = lab.endpoint.reply(lab.now, two, Payload::from(pattern(10)));
    assert_eq!(refused, Err(ReplyError::Full));
    lab.feed(&Lab::from_client(ID).ack(&[]));
    assert!(matches!(lab.events[..], [Event::Writable { .. }]));
    lab.reply(two, pattern(10));
}

#[test]
fn reply_of_bad_length_can_be_tried_again() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"one");
    let now = lab.now;
    assert_eq!(lab.endpoint.reply(now, rpc, Payload::new()), Err(ReplyError::Empty));
    let long = Payload::from(vec![0; 1_000_001]);
    assert_eq!(lab.endpoint.reply(now, rpc, long), Err(ReplyError::TooLong));
    lab.reply(rpc, &b"fine"[..]);
}

#[test]
fn control_queue_is_bounded() {
    let mut lab = Lab::with(Config { max_control: 100, ..Config::default() }, 16);
    let packets: Vec<_> = (0..1000).map(|i| Lab::from_client(ID + 2 * i).resend_all()).collect();
    let sent = lab.feed_batch(packets.iter().map(|p| &p[..]));
    assert_eq!(sent.len(), 100);
    assert_eq!(lab.endpoint.stats().drop_control_queue, 900);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    use peyk_homa::{ConfigError, Endpoint};
    let pool = || peyk_sockbuf::Pool::new(1);
    for (config, error) in [
        (Config { num_priorities: 0, ..Config::default() }, ConfigError::NumPriorities),
        (Config { num_priorities: 9, ..Config::default() }, ConfigError::NumPriorities),
        (Config { mtu: 100, ..Config::default() }, ConfigError::Mtu),
        (Config { unsched_bytes: 0, ..Config::default() }, ConfigError::Zero("unsched_bytes")),
        (Config { timeout_ticks: 5, ..Config::default() }, ConfigError::Ticks),
        (Config { shard: 2, shards: 2, ..Config::default() }, ConfigError::Shard),
    ] {
        let made = Endpoint::new(config, 1, pool(), peyk_sansio::Instant::ZERO);
        assert_eq!(made.err(), Some(error));
    }
}

#[test]
fn larger_messages_between_hosts_that_agree() {
    let config = Config { max_message: 10_000_000, ..Config::default() };
    let mut world = World::of(vec![(config.clone(), false, 512), (config, true, 512)]);
    let message = pattern(5_000_000);
    let rpc = world.request(message.clone());
    world.run(ms(5000));
    assert_eq!(world.response(rpc), message);
    world.assert_clean();
}

#[test]
fn replies_do_not_wait_for_requests() {
    // Each host's send memory is full of requests to the other: were replies
    // counted among them, neither could ever answer.
    let config = Config { wmem_max: 1000, max_socket_rpcs: 1, ..Config::default() };
    let mut world = World::of(vec![(config.clone(), true, 64), (config, true, 64)]);
    world.request_with(0, 1, pattern(2000), Default::default());
    world.request_with(1, 0, pattern(2000), Default::default());
    world.settle();
    for host in 0..2 {
        assert!(matches!(world.event(host), Event::Response { .. }));
    }
    world.assert_clean();
}

#[test]
fn socket_hears_of_room_for_replies_apart_from_room_for_requests() {
    let config = Config { wmem_max: 1000, ..Config::default() };
    let mut lab = Lab::with(config, 64);
    let to = Lab::to();
    let message = Payload::from(pattern(2000));
    lab.endpoint.send_request(lab.now, lab.server, to, message.clone(), Default::default()).unwrap();
    let full = lab.endpoint.send_request(lab.now, lab.server, to, message, Default::default());
    assert_eq!(full, Err(SendError::Full));
    lab.drain();
    let (one, two) = (lab.in_service(ID, b"one"), lab.in_service(ID + 2, b"two"));
    lab.reply(one, pattern(2000));
    assert_eq!(lab.endpoint.reply(lab.now, two, Payload::from(pattern(10))), Err(ReplyError::Full));
    lab.feed(&Lab::from_client(ID).ack(&[]));
    assert!(matches!(lab.events[..], [Event::Writable { .. }]), "the request still waits, not the reply");
    lab.events.clear();
    lab.reply(two, pattern(10));
    lab.feed(&Lab::from_client(ID + 2).ack(&[]));
    assert!(lab.events.is_empty(), "there is no more room for requests than before");
}
