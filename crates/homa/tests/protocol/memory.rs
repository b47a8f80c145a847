//! Messages and the pool they are kept in.

use peyk_homa::{Config, Event, RpcError};
use peyk_sockbuf::MessageBuf;
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

/// Takes the pool's pages away until `left` are free; dropping the result gives them back.
fn hog(lab: &mut Lab, left: u32) -> Vec<MessageBuf> {
    let pool = lab.endpoint.pool();
    let mut held = Vec::new();
    while pool.free_pages() > left {
        held.push(pool.alloc(65_536).expect("a page is free"));
    }
    held
}

#[test]
fn request_without_memory_waits_and_is_asked_for_later() {
    let mut lab = Lab::with(Config::default(), 4);
    let held = hog(&mut lab, 0);
    let from = Lab::from_client(ID);
    let message = pattern(3000);
    let sent = lab.feed(&from.segment(&message, 3000, 0, 1424));
    assert!(sent.iter().all(|s| s.kind() == PacketType::Cutoffs));
    assert_eq!(lab.endpoint.waiting_for_memory(), 1);
    // No grants, no RESENDs, no time-out, as long as the client may be alive.
    assert!(lab.pass(ms(150)).is_empty());
    assert_eq!(lab.endpoint.rpc_count(), 1);
    drop(held);
    let sent = lab.pass(ms(2));
    assert_eq!(resends(&sent), [(0, u32::MAX)]);
    assert_eq!(sent[0].resend().priority, Some(6));
    lab.feed(&from.segment(&message, 3000, 0, 3000));
    assert_eq!(lab.take_request().1, message);
}

#[test]
fn client_of_a_stalled_server_is_kept_waiting_by_busy() {
    let mut lab = Lab::with(Config::default(), 4);
    let _held = hog(&mut lab, 0);
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&pattern(3000), 3000, 0, 1424));
    assert_eq!(kinds(&lab.feed(&from.resend_all())), [PacketType::Busy]);
}

#[test]
fn responses_fail_when_no_memory_becomes_free_for_long() {
    let mut lab = Lab::with(Config { memory_timeout_ticks: 300, ..Config::default() }, 4);
    let mut held = hog(&mut lab, 0);
    let (short, long) = (pattern(3000), pattern(100_000));
    let first = lab.request(pattern(10)).0;
    lab.feed(&lab.server_of(first).segment(&short, 3000, 0, 1424));
    for _ in 0..2 {
        let rpc = lab.request(pattern(10)).0;
        lab.feed(&lab.server_of(rpc).segment(&long, 100_000, 0, 1424));
    }
    let request = Lab::from_client(ID);
    lab.feed_from(1, &request.segment(&long, 100_000, 0, 1424));
    lab.pass(ms(290));
    assert_eq!((lab.events.len(), lab.endpoint.waiting_for_memory()), (0, 4));
    // One of them gets some: then the others may hope.
    held.pop();
    lab.pass(ms(2));
    assert_eq!(lab.endpoint.waiting_for_memory(), 3);
    lab.feed(&lab.server_of(first).segment(&short, 3000, 0, 3000));
    assert_eq!(lab.events.len(), 1);
    let response = lab.events.pop();
    lab.feed_from(1, &request.resend_all());
    lab.pass(ms(290));
    lab.feed_from(1, &request.resend_all());
    assert_eq!((lab.events.len(), lab.endpoint.waiting_for_memory()), (0, 3));
    let sent = lab.pass(ms(10));
    assert_eq!(only(&sent, PacketType::RpcUnknown).len(), 2, "the servers are told");
    let is_no_memory = |e: &Event| matches!(e, Event::Failed { error: RpcError::NoMemory, .. });
    assert_eq!(lab.events.drain(..).filter(is_no_memory).count(), 2);
    assert_eq!(lab.endpoint.waiting_for_memory(), 1, "the request waits on");
    drop(response);
}

#[test]
fn response_without_memory_waits_too() {
    let mut lab = Lab::with(Config::default(), 4);
    let held = hog(&mut lab, 0);
    let (rpc, _) = lab.request(pattern(10));
    let response = pattern(3000);
    let from = lab.server_of(rpc);
    lab.feed(&from.segment(&response, 3000, 0, 1424));
    lab.pass(ms(500));
    assert!(lab.events.is_empty(), "no time-out while it is our own fault");
    drop(held);
    assert_eq!(resends(&lab.pass(ms(2))), [(0, u32::MAX)]);
    lab.feed(&from.segment(&response, 3000, 0, 3000));
    assert_eq!(lab.take_response(), response);
}

#[test]
fn shortest_waiting_message_is_served_first() {
    let mut lab = Lab::with(Config::default(), 4);
    let mut held = hog(&mut lab, 0);
    lab.feed(&Lab::from_client(ID).segment(&pattern(200_000), 40_000, 0, 1424));
    lab.feed(&Lab::from_client(ID + 2).segment(&pattern(60_000), 40_000, 0, 1424));
    assert_eq!(lab.endpoint.waiting_for_memory(), 2);
    held.pop();
    let sent = lab.pass(ms(2));
    let resends = only(&sent, PacketType::Resend);
    assert_eq!(resends.len(), 1);
    assert_eq!(resends[0].header().sender_id, (ID + 2) | 1);
    assert_eq!(lab.endpoint.waiting_for_memory(), 1);
}

/// In each round, of 50 ms, a request comes that needs a page, and one of those in `held` becomes free. Whoever gets it: if
/// it is the request, that is received, and the page taken away again; else its client gives up. Ends when `see`, which is
/// shown what was sent, says so; returns for each round whether the request was received.
fn rounds_of_short_requests(
    lab: &mut Lab,
    held: &mut Vec<MessageBuf>,
    mut see: impl FnMut(&[Sent]) -> bool,
) -> Vec<bool> {
    let (short, mut received) = (pattern(60_000), Vec::new());
    while received.len() < 200 {
        let from = Lab::from_client(ID + 100 + 2 * received.len() as u64);
        // Both clients stay alive.
        let client = (received.len() % 2) as u8;
        lab.feed_from(client, &from.segment(&short, 60_000, 0, 1424));
        let free = lab.endpoint.pool().free_pages();
        held.pop();
        let sent = lab.pass(ms(50));
        lab.feed_from(client, &from.segment(&short, 60_000, 0, 60_000));
        let is_request = |event: &Event| matches!(event, Event::Request { .. });
        received.push(lab.events.iter().any(is_request));
        if lab.events.iter().any(is_request) {
            lab.events.retain(|event| !is_request(event));
            held.append(&mut hog(lab, free));
        } else {
            lab.feed_from(client, &from.rpc_unknown());
        }
        if see(&sent) {
            return received;
        }
    }
    panic!("nothing of what was expected: {received:?}");
}

#[test]
fn long_message_gets_memory_although_shorter_ones_keep_coming() {
    let mut lab = Lab::with(Config::default(), 4);
    let mut held = hog(&mut lab, 0);
    lab.feed(&Lab::from_client(ID).segment(&pattern(200_000), 40_000, 0, 1424));
    let received = rounds_of_short_requests(&mut lab, &mut held, |sent| {
        sent.iter().any(|s| s.kind() == PacketType::Resend && s.header().sender_id == ID | 1)
    });
    // For a second the shortest comes first; then four pages are kept for it.
    let shorts = received.iter().filter(|short| **short).count();
    assert!((18..=22).contains(&shorts) && received.len() <= shorts + 5, "{received:?}");
    assert_eq!(lab.endpoint.waiting_for_memory(), 0);
}

#[test]
fn response_whose_turn_is_in_vain_fails_although_others_are_served() {
    let mut lab = Lab::with(Config { memory_timeout_ticks: 3_000, ..Config::default() }, 4);
    let mut held = hog(&mut lab, 1);
    let rpc = lab.request(pattern(10)).0;
    lab.feed(&lab.server_of(rpc).segment(&pattern(200_000), 40_000, 0, 1424));
    // The application keeps three of four pages for good: shorter messages can be served, and this one never.
    let kept = std::mem::take(&mut held);
    let received =
        rounds_of_short_requests(&mut lab, &mut held, |sent| !only(sent, PacketType::RpcUnknown).is_empty());
    assert!((60..=104).contains(&received.len()), "three to five seconds: {}", received.len());
    let shorts = received.iter().filter(|short| **short).count();
    assert!(shorts >= received.len() / 3, "half of the time is theirs: {received:?}");
    assert!(matches!(lab.events.pop(), Some(Event::Failed { error: RpcError::NoMemory, .. })));
    assert_eq!(kept.len(), 3);
}

#[test]
fn responses_do_not_fail_while_memory_is_kept_for_another() {
    // Shorter than a turn.
    let mut lab = Lab::with(Config { memory_timeout_ticks: 600, ..Config::default() }, 4);
    let _kept = hog(&mut lab, 1);
    let request = Lab::from_client(ID);
    lab.feed_from(1, &request.segment(&pattern(200_000), 40_000, 0, 1424));
    let round = |lab: &mut Lab| {
        // Its client stays alive.
        lab.feed_from(1, &request.resend_all());
        lab.pass(ms(50))
    };
    (0..21).for_each(|_| drop(round(&mut lab)));
    let (rpc, _) = lab.request(pattern(10));
    let (from, response) = (lab.server_of(rpc), pattern(60_000));
    lab.feed(&from.segment(&response, 60_000, 0, 1424));
    assert_eq!(lab.endpoint.waiting_for_memory(), 2, "the turn of the long request");
    let is_asked_for = |_: &i32| !only(&round(&mut lab), PacketType::Resend).is_empty();
    let rounds = (1..30).find(is_asked_for);
    assert!(lab.events.is_empty(), "{:?}", lab.events);
    assert!(rounds.is_some_and(|rounds| rounds > 15), "the page, after the turn: {rounds:?}");
    lab.feed(&from.segment(&response, 60_000, 0, 60_000));
    assert_eq!(lab.take_response(), response);
}

#[test]
fn end_of_a_waiting_rpc_leaves_the_queue() {
    let mut lab = Lab::with(Config::default(), 4);
    let _held = hog(&mut lab, 0);
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&pattern(3000), 3000, 0, 1424));
    lab.feed(&from.rpc_unknown());
    assert_eq!((lab.endpoint.waiting_for_memory(), lab.endpoint.rpc_count()), (0, 0));
}

#[test]
fn number_of_waiting_messages_is_bounded() {
    let config = Config { max_memory_waiters: 10, ..Config::default() };
    let mut lab = Lab::with(config, 4);
    let _held = hog(&mut lab, 0);
    for i in 0..100 {
        lab.feed(&Lab::from_client(ID + 2 * i).segment(&pattern(3000), 3000, 0, 1424));
    }
    assert_eq!(lab.endpoint.waiting_for_memory(), 10);
    assert_eq!(lab.endpoint.rpc_count(), 10);
}

#[test]
fn refused_request_is_busy_not_unknown() {
    let config = Config { max_memory_waiters: 1, ..Config::default() };
    let mut lab = Lab::with(config, 4);
    let _held = hog(&mut lab, 0);
    lab.feed(&Lab::from_client(ID).segment(&pattern(3000), 3000, 0, 1424));
    let refused = Lab::from_client(ID + 2);
    lab.feed(&refused.segment(&pattern(3000), 3000, 0, 1424));
    assert_eq!(kinds(&lab.feed(&refused.resend_all())), [PacketType::Busy]);
}

#[test]
fn message_that_never_fits_is_refused_at_once() {
    let mut lab = Lab::with(Config::default(), 4);
    let sent = lab.feed(&Lab::from_client(ID).segment(&pattern(900_000), 40_000, 0, 1424));
    let refusal = only(&sent, PacketType::Unreachable);
    assert_eq!(refusal[0].unreachable().code, peyk_wire::homa::UnreachableCode::TooLarge);
    assert_eq!((lab.endpoint.waiting_for_memory(), lab.endpoint.rpc_count()), (0, 0));
}

#[test]
fn held_messages_are_back_pressure_not_loss() {
    let mut world = World::of(vec![(Config::default(), false, 256), (Config::default(), true, 8)]);
    world.is_echo = false;
    let rpcs: Vec<_> = (0..40).map(|_| world.request(pattern(100_000))).collect();
    // The application answers slowly and keeps each request meanwhile.
    for _ in 0..2000 {
        world.run(ms(2));
        while let Some(Event::Request { rpc, message, .. }) = world.hosts[SERVER].events.pop_front() {
            let reply = message.to_vec();
            drop(message);
            world.reply(SERVER, rpc, reply);
        }
        if world.hosts[CLIENT].events.len() == rpcs.len() {
            break;
        }
    }
    let events = std::mem::take(&mut world.hosts[CLIENT].events);
    assert_eq!(events.len(), 40);
    assert!(events.iter().all(|e| matches!(e, Event::Response { .. })));
    drop(events);
    world.settle();
    world.assert_clean();
    assert!(world.hosts[SERVER].endpoint.stats().memory_waits > 0, "the pool was short");
}

#[test]
fn pages_return_in_every_ending() {
    let mut lab = Lab::new();
    // Complete, aborted, timed out, closed.
    let message = pattern(100_000);
    let from = Lab::from_client(ID);
    for offset in (0..100_000).step_by(10_000) {
        lab.feed(&from.segment(&message, 100_000, offset, 10_000));
    }
    lab.take_request();
    lab.feed(&Lab::from_client(ID + 2).segment(&message, 100_000, 0, 1424));
    lab.feed(&Lab::from_client(ID + 2).rpc_unknown());
    lab.feed(&Lab::from_client(ID + 4).segment(&message, 100_000, 0, 1424));
    lab.pass(ms(150));
    lab.feed(&Lab::from_client(ID + 6).segment(&message, 100_000, 0, 1424));
    lab.endpoint.close_socket(lab.now, lab.server);
    lab.drain();
    let pool = lab.endpoint.pool();
    assert!(pool.free_pages() + 1 >= pool.total_pages(), "{} free", pool.free_pages());
}

#[test]
fn clients_that_are_gone_do_not_wait_for_memory() {
    let mut lab = Lab::with(Config::default(), 4);
    let held = hog(&mut lab, 0);
    let message = pattern(100_000);
    for i in 0..50 {
        lab.feed_from(1, &Lab::from_client(ID + 2 * i).segment(&message, 40_000, 0, 1424));
    }
    // One asks for its response now and then: it is alive.
    let alive = Lab::from_client(ID + 1000);
    lab.feed_from(2, &alive.segment(&message, 40_000, 0, 1424));
    assert_eq!(lab.endpoint.waiting_for_memory(), 51);
    let ticks = u64::from(Config::default().timeout_ticks);
    for _ in 0..5 {
        lab.pass(ms(ticks / 2));
        lab.feed_from(2, &alive.resend_all());
    }
    assert_eq!((lab.endpoint.waiting_for_memory(), lab.endpoint.rpc_count()), (1, 1));
    drop(held);
    let sent = lab.pass(ms(2));
    assert_eq!(only(&sent, PacketType::Resend).len(), 1, "the one that is left gets its memory");
    assert_eq!(lab.endpoint.waiting_for_memory(), 0);
}
