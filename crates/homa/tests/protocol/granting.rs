//! Grants as seen on the wire. The scheduler's own rules are tested beside it.

use peyk_homa::{Config, Share};
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

fn grants(sent: &[Sent]) -> Vec<(u64, u32, u8)> {
    let grants = only(sent, PacketType::Grant);
    grants.iter().map(|s| (s.header().sender_id, s.grant().offset, s.grant().priority)).collect()
}

#[test]
fn vector_2_first_grant_of_a_lone_message() {
    let mut lab = Lab::new();
    let sent = lab.feed(&Lab::from_client(ID).segment(&pattern(100_000), 40_000, 0, 1424));
    assert_eq!(grants(&sent), [(ID | 1, 100_000, 0)]);
}

#[test]
fn unscheduled_message_draws_no_grant() {
    let mut lab = Lab::new();
    let sent = lab.feed(&Lab::from_client(ID).segment(&pattern(40_000), 40_000, 0, 1424));
    assert!(grants(&sent).is_empty());
}

#[test]
fn vector_3_eight_messages() {
    let mut lab = Lab::new();
    let mut all = Vec::new();
    for i in 0..8u64 {
        let message = pattern(100_000 + i as usize);
        let packet = Lab::from_client(ID + 2 * i).segment(&message, 40_000, 0, 1424);
        lab.endpoint.handle_packet(lab.now, &Lab::path(i as u8), &packet);
    }
    all.extend(grants(&lab.drain()));
    all.sort();
    let offsets: Vec<_> = all.iter().map(|g| g.1).collect();
    assert_eq!(offsets, [45_868; 8], "1424 received + 44,444");
    let priorities: Vec<_> = all.iter().map(|g| g.2).collect();
    assert_eq!(priorities, [3, 2, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn ninth_message_waits_for_its_turn() {
    let config = Config { window: 50_000, max_incoming: 4_000_000, ..Config::default() };
    let mut lab = Lab::with(config, 256);
    for i in 0..9u64 {
        let message = pattern(200_000 + 1000 * i as usize);
        let packet = Lab::from_client(ID + 2 * i).segment(&message, 40_000, 0, 1424);
        let sent = lab.feed_from(i as u8, &packet);
        assert_eq!(grants(&sent).is_empty(), i == 8, "message {i}");
    }
    // The first one is aborted: its place goes to the ninth.
    let sent = lab.feed_from(0, &Lab::from_client(ID).rpc_unknown());
    let ids: Vec<_> = grants(&sent).iter().map(|g| g.0).collect();
    assert!(ids.contains(&((ID + 16) | 1)), "{ids:?}");
}

#[test]
fn grants_follow_the_data_and_complete_the_message() {
    let mut lab = Lab::with(Config { window: 10_000, ..Config::default() }, 64);
    let message = pattern(100_000);
    let mut granted = 40_000;
    let mut offset = 0;
    while offset < message.len() {
        assert!(offset < granted, "the sender has something to send");
        let sent = lab.feed(&Lab::from_client(ID).segment(&message, 40_000, offset, 1000));
        offset += 1000;
        for (_, to, _) in grants(&sent) {
            assert!(to as usize >= granted && to as usize <= message.len());
            granted = to as usize;
        }
        assert!(granted <= (offset + 10_000).max(40_000).min(message.len()));
    }
    assert_eq!(lab.take_request().1, message);
    assert_eq!(lab.endpoint.total_incoming(), 0);
}

#[test]
fn silent_sender_keeps_nothing_from_the_others() {
    let mut lab = Lab::with(Config { max_unscheduled: 1_000_000, ..Config::default() }, 256);
    // Claims more unscheduled bytes than may be under way in all, and falls silent.
    let (silent, long) = (Lab::from_client(ID), pattern(900_000));
    lab.feed_from(1, &silent.segment(&long, 700_000, 0, 1424));
    let (other, message) = (Lab::from_client(ID + 2), pattern(200_000));
    for offset in (0..40_000).step_by(1000) {
        let sent = lab.feed_from(2, &other.segment(&message, 40_000, offset, 1000));
        assert!(grants(&sent).is_empty(), "there is no room");
    }
    let ticks = Config::default().resend_ticks;
    let sent = lab.pass(peyk_homa::TICK * (ticks + 1));
    assert_eq!(grants(&sent).iter().map(|g| g.0).collect::<Vec<_>>(), [(ID + 2) | 1]);
    // Its next bytes bring it back.
    let before = lab.endpoint.total_incoming();
    lab.feed_from(1, &silent.segment(&long, 700_000, 1424, 1424));
    assert_eq!(lab.endpoint.total_incoming(), before + 700_000 - 2 * 1424);
}

#[test]
fn claim_of_unscheduled_bytes_is_believed_up_to_a_limit() {
    for incoming in [900_000, 0] {
        let mut lab = Lab::with(Config::default(), 256);
        let (from, message) = (Lab::from_client(ID), pattern(900_000));
        // 0: senders without grants send everything.
        let sent = lab.feed(&from.segment(&message, incoming, 0, 1424));
        assert_eq!(lab.endpoint.stats().unscheduled_capped, 1);
        assert_eq!(grants(&sent).len(), 1, "the rest is managed");
        assert!(lab.endpoint.total_incoming() < 400_000);
        // What comes beyond is taken all the same.
        for offset in (1424..message.len()).step_by(1424) {
            lab.feed(&from.segment(&message, incoming, offset, 1424));
        }
        assert_eq!(lab.take_request().1, message);
        assert_eq!(lab.endpoint.total_incoming(), 0);
    }
}

#[test]
fn packet_from_the_end_of_a_message_authorises_nothing_before_it() {
    let mut lab = Lab::with(Config { grant_fifo_fraction: 0, ..Config::default() }, 256);
    // A late copy, of a message whose other packets are gone.
    let (late, long) = (Lab::from_client(ID), pattern(900_000));
    lab.feed_from(1, &late.segment(&long, 40_000, 800_000, 1424));
    assert!(lab.endpoint.total_incoming() <= 400_000, "{}", lab.endpoint.total_incoming());
    let (other, message) = (Lab::from_client(ID + 2), pattern(200_000));
    let sent = lab.feed_from(2, &other.segment(&message, 40_000, 0, 1424));
    assert_eq!(grants(&sent).len(), 1, "others are granted at once");
    // If it was only early, all the others are taken, and what is missing is asked for.
    let resent = lab.pass(peyk_homa::TICK * (Config::default().resend_ticks + 1));
    let asked = resends(&resent);
    assert!(asked.contains(&(0, 800_000)), "{asked:?}");
    for offset in (0..long.len()).step_by(1424) {
        lab.feed_from(1, &late.segment(&long, 900_000, offset, 1424));
    }
    assert_eq!(lab.take_request().1, long);
}

#[test]
fn grants_keep_to_the_rate_of_their_bucket() {
    let bucket = peyk_homa::GrantBucket { bytes_per_sec: 10_000_000, burst_bytes: 50_000 };
    // FIFO grants are charged, but not refused.
    let config = Config { grant_bucket: Some(bucket), grant_fifo_fraction: 0, ..Config::default() };
    let mut lab = Lab::with(config, 64);
    let (from, message) = (Lab::from_client(ID), pattern(500_000));
    let mut granted = 40_000;
    let (start, mut offset) = (lab.now, 0);
    while lab.events.is_empty() {
        let mut sent = Vec::new();
        if offset < granted as usize {
            let step = (granted as usize - offset).min(1424);
            sent.extend(lab.feed(&from.segment(&message, 40_000, offset, step)));
            offset += step;
        } else {
            sent.extend(lab.pass(peyk_homa::TICK));
        }
        granted = grants(&sent).iter().map(|g| g.1).fold(granted, u32::max);
        let allowed = 40_000 + 50_000 + (lab.now - start).as_nanos() as u64 / 100;
        assert!(u64::from(granted) <= allowed, "{granted} of {allowed} after {:?}", lab.now - start);
        assert!(lab.now - start < ms(60), "a refilled bucket lets grants go");
    }
    assert_eq!(lab.take_request().1, message);
    assert!(lab.now - start >= ms(40), "500 kB at 10 MB/s");
}

#[test]
fn lost_grant_is_repaired_by_resend() {
    let mut world = World::pair();
    let mut lost = 0;
    world.rule = Box::new(move |seen| {
        if seen.is(PacketType::Grant) && lost < 3 {
            lost += 1;
            return Verdict::Drop;
        }
        Verdict::Pass
    });
    let message = pattern(300_000);
    let rpc = world.request(message.clone());
    world.settle();
    assert_eq!(world.response(rpc), message);
}

#[test]
fn batch_of_packets_draws_one_grant() {
    let mut lab = Lab::with(Config { window: 50_000, ..Config::default() }, 64);
    let message = pattern(500_000);
    let packets: Vec<_> =
        (0..10).map(|i| Lab::from_client(ID).segment(&message, 40_000, i * 1424, 1424)).collect();
    let sent = lab.feed_batch(packets.iter().map(|p| &p[..]));
    assert_eq!(grants(&sent), [(ID | 1, 64_240, 0)]);
}

#[test]
fn response_is_granted_by_the_client() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    let sent = lab.feed(&lab.server_of(rpc).segment(&pattern(100_000), 40_000, 0, 1424));
    assert_eq!(grants(&sent), [(rpc.0, 100_000, 0)]);
}

#[test]
fn fifo_grants_reach_the_oldest_at_their_own_level() {
    let config = Config { window: 5_000, fifo_grant_priority: 6, ..Config::default() };
    let mut lab = Lab::with(config, 256);
    let old = pattern(900_000);
    lab.feed(&Lab::from_client(ID).segment(&old, 40_000, 0, 1424));
    let message = pattern(60_000);
    let mut fifo = Vec::new();
    for round in 1..40u64 {
        lab.now += us(100);
        for i in 1..9u64 {
            let from = Lab::from_client(ID + 1000 * round + 2 * i);
            for (offset, len) in [(0, 38_000), (38_000, 22_000)] {
                let sent = lab.feed_from(i as u8, &from.segment(&message, 40_000, offset, len));
                fifo.extend(grants(&sent).into_iter().filter(|g| g.2 == 6));
            }
        }
    }
    assert!(fifo.iter().any(|g| g.0 == ID | 1), "{fifo:?}");
}

#[test]
fn dead_sender_gives_its_share_back() {
    let mut lab = Lab::new();
    lab.feed(&Lab::from_client(ID).segment(&pattern(500_000), 40_000, 0, 1424));
    assert!(lab.endpoint.total_incoming() > 0);
    lab.pass(ms(120));
    assert_eq!((lab.endpoint.total_incoming(), lab.endpoint.rpc_count()), (0, 0));
}

#[test]
fn max_incoming_bounds_what_is_authorised() {
    let config = Config { max_incoming: 100_000, grant_fifo_fraction: 0, ..Config::default() };
    let mut world = World::of(vec![
        (config, true, 256),
        (Config::default(), false, 256),
        (Config::default(), false, 256),
        (Config::default(), false, 256),
    ]);
    for client in 1..4 {
        for _ in 0..3 {
            world.request_with(client, 0, pattern(300_000), Default::default());
        }
    }
    let mut most = 0;
    for _ in 0..100_000 {
        if !world.step() {
            break;
        }
        most = most.max(world.hosts[0].endpoint.total_incoming());
    }
    // Unscheduled bytes come unasked: nine messages of them on top.
    assert!(most <= 100_000 + 9 * 40_000, "{most}");
    for client in 1..4 {
        assert_eq!(world.hosts[client].events.len(), 3);
    }
}

#[test]
fn message_that_finds_no_share_is_granted_as_soon_as_there_is_one() {
    let mut lab = Lab::with(Config { shards: 2, ..Config::default() }, 64);
    let message = pattern(100_000);
    lab.endpoint.set_share(Share { max_incoming: 0, senders: 1 });
    for offset in (0..40_000).step_by(1424) {
        let sent = lab.feed(&Lab::from_client(ID).segment(&message, 40_000, offset, 1424));
        assert!(grants(&sent).is_empty(), "{sent:?}");
    }
    // Nothing is owed, so nothing will come: the next tick must be asked for.
    let at = lab.endpoint.poll_timeout().expect("it waits for a share");
    assert!(at <= lab.now + ms(1), "{at:?}");
    lab.pass(ms(1));
    lab.endpoint.set_share(Share { max_incoming: 400_000, senders: 1 });
    let sent = lab.drain();
    assert_eq!(grants(&sent).len(), 1, "{sent:?}");
}

#[test]
fn of_equal_responses_that_of_the_older_rpc_is_granted_first() {
    let config = Config { max_overcommit: 1, ..Config::default() };
    let mut lab = Lab::with(config, 64);
    let (older, _) = lab.request(&b"first"[..]);
    lab.now += us(1);
    let (younger, _) = lab.request(&b"second"[..]);
    let answer = pattern(400_000);
    for rpc in [younger, older] {
        lab.now += us(1);
        let packet = lab.server_of(rpc).segment(&answer, 1424, 0, 1424);
        lab.endpoint.handle_packet(lab.now, &Lab::path(0), &packet);
    }
    let granted: Vec<u64> = grants(&lab.drain()).iter().map(|g| g.0).collect();
    assert_eq!(granted, [older.0], "one at a time");
}
