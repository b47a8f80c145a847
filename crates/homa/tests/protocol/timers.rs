//! Silence: when a side asks again, and when it gives up.

use peyk_homa::{Config, RpcError};
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn vector_4_dead_server() {
    let mut lab = Lab::new();
    lab.request(pattern(10));
    let mut times = Vec::new();
    for (after, packet) in lab.pass_timed(ms(99)) {
        assert_eq!((packet.resend().offset, packet.resend().length), (0, u32::MAX));
        assert_eq!(packet.priority, 7);
        assert_eq!(packet.resend().priority, Some(7));
        times.push(after);
    }
    assert_eq!(times, (1..20).map(|i| ms(5 * i)).collect::<Vec<_>>());
    assert!(lab.events.is_empty());
    lab.pass(ms(1));
    assert_eq!(lab.take_failure(), RpcError::Timeout);
    assert!(lab.endpoint.poll_timeout().is_none());
}

#[test]
fn vector_7_one_resend_per_gap_and_one_for_the_tail() {
    let mut lab = Lab::new();
    let message = pattern(100_000);
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&message, 40_000, 0, 1424));
    lab.feed(&from.segment(&message, 40_000, 2848, 1424));
    let sent = lab.pass(ms(5));
    assert_eq!(resends(&sent), [(1424, 1424), (4272, 100_000 - 4272)]);
    assert!(sent.iter().all(|s| s.resend().priority == Some(7)));
}

#[test]
fn a_message_that_lacks_much_is_asked_for_later() {
    let config = Config { resend_bytes_per_tick: 1000, ..Config::default() };
    let mut lab = Lab::with(config, 64);
    lab.feed(&Lab::from_client(ID).segment(&pattern(11_424), 11_424, 0, 1424));
    lab.feed(&Lab::from_client(ID + 2).segment(&pattern(2000), 2000, 0, 1424));
    let all = lab.pass_timed(ms(16));
    let of = |id: u64| {
        all.iter().filter(|(_, s)| s.header().sender_id == id | 1).map(|(at, _)| *at).collect::<Vec<_>>()
    };
    assert_eq!(of(ID), [ms(15)], "10,000 bytes are missing");
    assert_eq!(of(ID + 2), [ms(5), ms(10), ms(15)], "less than a tick's worth");
}

#[test]
fn nothing_is_asked_for_beyond_what_was_granted() {
    let config = Config { max_incoming: 1, grant_fifo_fraction: 0, ..Config::default() };
    let mut lab = Lab::with(config, 64);
    lab.feed(&Lab::from_client(ID).segment(&pattern(100_000), 40_000, 0, 1424));
    assert_eq!(resends(&lab.pass(ms(5))), [(1424, 38_576)]);
}

#[test]
fn all_that_was_granted_is_here_so_nothing_is_owed() {
    let config = Config { max_incoming: 1, grant_fifo_fraction: 0, ..Config::default() };
    let mut lab = Lab::with(config, 64);
    // Another message takes up what may be authorised.
    lab.feed(&Lab::from_client(ID).segment(&pattern(90_000), 40_000, 0, 1424));
    let message = pattern(100_000);
    let from = Lab::from_client(ID + 2);
    for offset in (0..40_000).step_by(8000) {
        lab.feed_from(1, &from.segment(&message, 40_000, offset, 8000));
    }
    let sent = lab.pass(ms(60));
    assert!(sent.iter().all(|s| s.header().sender_id != (ID + 2) | 1), "{sent:?}");
}

#[test]
fn ball_in_our_court_is_no_silence() {
    // The request is not granted: for the server to act, so it is asked. But a client
    // that has not sent what it may cannot complain; see pacing.rs.
    let mut lab = Lab::new();
    lab.request(pattern(100_000));
    assert_eq!(resends(&lab.pass(ms(5))), [(0, u32::MAX)]);
}

#[test]
fn server_side_resends_until_it_gives_up_silently() {
    let mut lab = Lab::new();
    lab.feed(&Lab::from_client(ID).segment(&pattern(3000), 3000, 0, 1424));
    let sent = lab.pass(ms(200));
    assert_eq!(resends(&sent).len(), 19);
    assert!(sent.iter().all(|s| s.kind() == PacketType::Resend));
    assert!(lab.endpoint.poll_timeout().is_none());
}

#[test]
fn progress_starts_the_silence_anew() {
    let mut lab = Lab::new();
    let message = pattern(30_000);
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&message, 30_000, 0, 1000));
    lab.pass(ms(4));
    lab.feed(&from.segment(&message, 30_000, 1000, 1000));
    assert!(lab.pass(ms(4)).is_empty());
    assert_eq!(resends(&lab.pass(ms(1))), [(2000, 28_000)]);
}

#[test]
fn settings_are_obeyed() {
    let config = Config { resend_ticks: 3, resend_interval: 7, timeout_ticks: 20, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    lab.request(pattern(10));
    let times: Vec<_> = lab.pass_timed(ms(19)).into_iter().map(|(t, _)| t).collect();
    assert_eq!(times, [ms(3), ms(10), ms(17)]);
    lab.pass(ms(1));
    assert_eq!(lab.take_failure(), RpcError::Timeout);
}

#[test]
fn late_timers_do_not_count_as_the_peers_silence() {
    let mut lab = Lab::new();
    lab.request(pattern(10));
    // We did not run for a second.
    lab.now += ms(1000);
    lab.endpoint.handle_timeout(lab.now);
    let sent = lab.drain();
    assert!(lab.events.is_empty(), "the server has had no chance to answer");
    assert_eq!(resends(&sent).len(), 1);
}

#[test]
fn idle_endpoint_has_no_timer() {
    let mut world = World::pair();
    let rpc = world.request(pattern(100_000));
    world.settle();
    world.response(rpc);
    world.run(ms(5000));
    for host in &world.hosts {
        assert_eq!(host.endpoint.poll_timeout(), None);
        assert!(host.endpoint.is_idle());
    }
}

#[test]
fn many_gaps_are_asked_for_in_bounded_batches() {
    let mut lab = Lab::new();
    let message = pattern(200_000);
    let from = Lab::from_client(ID);
    for offset in (1000..200_000).step_by(2000) {
        lab.feed(&from.segment(&message, 200_000, offset, 1000));
    }
    let sent = lab.pass(ms(5));
    assert!((50..=101).contains(&resends(&sent).len()), "{}", resends(&sent).len());
}

#[test]
fn slow_server_keeps_its_client_waiting_by_busy() {
    let mut world = World::pair();
    world.is_echo = false;
    let rpc = world.request(pattern(100));
    world.run(ms(450));
    let (request, message) = world.incoming_request();
    world.reply(SERVER, request, message);
    world.settle();
    assert_eq!(world.response(rpc), pattern(100));
    let busy = only(&world.hosts[SERVER].sent, PacketType::Busy).len();
    assert!((10..=14).contains(&busy), "{busy} BUSY packets: HomaModule would draw 90");
    world.assert_clean();
}

/// Silence of one peer towards many RPCs.
fn many(count: usize) -> (Lab, Vec<peyk_homa::RpcId>) {
    let mut lab = Lab::new();
    let rpcs = (0..count).map(|_| lab.request(pattern(10)).0).collect();
    (lab, rpcs)
}

#[test]
fn dead_peer_is_not_asked_for_every_rpc_and_all_fail_in_time() {
    let (mut lab, rpcs) = many(1000);
    let sent = lab.pass(ms(99));
    assert!(lab.events.is_empty());
    assert!((64..=64 + 99 * 4).contains(&sent.len()), "{} RESENDs", sent.len());
    lab.pass(ms(1));
    assert_eq!(lab.events.len(), rpcs.len());
    assert!(lab.endpoint.poll_timeout().is_none());
}

#[test]
fn rationed_rpcs_ask_oldest_first_and_do_not_time_out() {
    let (mut lab, rpcs) = many(1000);
    let (alive, _) = lab.request(pattern(10));
    let mut asked: Vec<u64> = Vec::new();
    for _ in 0..240 {
        // The peer is there, but does no more than that.
        lab.feed(&lab.server_of(alive).busy());
        let sent = lab.pass(ms(1));
        asked.extend(only(&sent, PacketType::Resend).iter().map(|s| s.header().sender_id));
    }
    assert!(lab.events.is_empty(), "{:?}", lab.events);
    assert_eq!(asked[..rpcs.len()], rpcs.iter().map(|rpc| rpc.0).collect::<Vec<_>>());
    assert!(lab.endpoint.stats().resends_rationed > 900);
}

#[test]
fn what_is_useful_may_be_asked_for_at_once() {
    let (mut lab, rpcs) = many(4000);
    let mut ticks = 0;
    let mut left = rpcs.len();
    while left > 0 {
        ticks += 1;
        // Everything was lost, but the peer sends again what it is asked for.
        for resend in lab.pass(ms(1)) {
            let from = From { id: resend.header().sender_id | 1, sport: PORT, dport: lab.client_port() };
            lab.feed(&from.data_with(1, 1, 0, b"r", |data| data.retransmit = 1));
            left -= 1;
        }
        assert!(ticks < 100, "{left} left");
    }
    assert_eq!(lab.events.len(), rpcs.len());
    assert_eq!(lab.endpoint.stats().timer_resends, rpcs.len() as u64);
}

/// Feeds the packet in every tick until no RPC is left; the number of ticks.
fn replay(lab: &mut Lab, packet: &[u8], max: u32) -> u32 {
    for tick in 0..max {
        lab.feed(packet);
        lab.pass(peyk_homa::TICK);
        if lab.endpoint.rpc_count() == 0 {
            return tick;
        }
    }
    panic!("still there after {max} ticks");
}

#[test]
fn replayed_data_does_not_keep_a_request_alive_for_ever() {
    let mut lab = Lab::new();
    let first = Lab::from_client(ID).segment(&pattern(30_000), 30_000, 0, 1424);
    let ticks = replay(&mut lab, &first, 1000);
    let timeout = Config::default().timeout_ticks;
    assert!((timeout..timeout + 40).contains(&ticks), "{ticks}: so long that a late peer is not given up");
    assert_eq!(lab.endpoint.stats().server_timeouts, 1);
}

#[test]
fn replayed_data_does_not_keep_a_call_alive_for_ever() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100));
    let first = lab.server_of(rpc).segment(&pattern(30_000), 30_000, 0, 1424);
    replay(&mut lab, &first, 1000);
    assert_eq!(lab.take_failure(), RpcError::Timeout);
}

#[test]
fn replayed_grants_do_not_keep_a_call_alive_for_ever() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100));
    let grant = lab.server_of(rpc).grant(100, 1);
    replay(&mut lab, &grant, 1000);
    assert_eq!(lab.take_failure(), RpcError::Timeout);
}

#[test]
fn replayed_requests_do_not_keep_a_response_for_ever() {
    let mut lab = Lab::new();
    let request = Lab::from_client(ID).whole(b"again");
    lab.feed(&request);
    let (rpc, _) = lab.take_request();
    lab.reply(rpc, &b"response"[..]);
    let ticks = replay(&mut lab, &request, 10_000);
    assert!(ticks > 10 * Config::default().timeout_ticks, "{ticks}: a client that is heard may want it yet");
    assert_eq!(lab.endpoint.stats().server_silences, 1);
    lab.feed(&request);
    assert!(lab.events.is_empty(), "it is not executed again");
}
