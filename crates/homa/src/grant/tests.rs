//! Scenarios of the grant scheduler on hand-made messages. The comparison with
//! a scheduler that keeps plain lists is in `oracle.rs`.

use peyk_sansio::Instant;

use super::{GrantBucket, GrantConfig, GrantOut, Grants};

mod oracle;

fn us(n: u64) -> Instant {
    Instant::from_nanos(n * 1000)
}

/// Without FIFO grants, so that only the rule under test is seen.
fn plain() -> GrantConfig {
    GrantConfig { grant_fifo_fraction: 0, ..GrantConfig::default() }
}

fn poll(g: &mut Grants, now: Instant) -> Vec<GrantOut> {
    let mut out = Vec::new();
    g.poll(now, &mut out);
    out
}

/// Manages message `slot` of peer `slot`, born at `slot`, with 40,000 bytes
/// unscheduled and nothing received.
fn add(g: &mut Grants, slot: u32, length: u32) {
    assert!(g.manage(slot, slot, length, 40_000, 0, us(u64::from(slot))));
}

#[test]
fn vector_2_lone_message_is_granted_whole_at_priority_0() {
    let mut g = Grants::new(plain());
    assert!(g.manage(0, 0, 100_000, 40_000, 1424, us(0)));
    assert_eq!(g.total_incoming(), 38_576);
    let out = poll(&mut g, us(0));
    assert_eq!(out, [GrantOut { slot: 0, offset: 100_000, priority: 0 }]);
    assert_eq!(g.n_active(), 1);
    assert_eq!(g.total_incoming(), 98_576);
}

#[test]
fn vector_3_eight_active_messages_share_four_levels() {
    // Room for all of them, so that the window alone decides.
    let mut g = Grants::new(GrantConfig { window: 50_000, max_incoming: 10_000_000, ..plain() });
    for slot in 0..8 {
        add(&mut g, slot, 100_000 + slot);
    }
    let mut out = poll(&mut g, us(0));
    out.sort_by_key(|o| o.slot);
    let priorities: Vec<_> = out.iter().map(|o| o.priority).collect();
    assert_eq!(priorities, [3, 2, 1, 0, 0, 0, 0, 0]);
    assert!(out.iter().all(|o| o.offset == 50_000));
}

#[test]
fn vector_3_dynamic_window_is_divided() {
    let mut g = Grants::new(plain());
    for slot in 0..8 {
        add(&mut g, slot, 100_000 + slot);
    }
    assert_eq!(g.window(), 44_444);
    let out = poll(&mut g, us(0));
    assert!(out.iter().all(|o| o.offset == 44_444));
    assert_eq!(g.total_incoming(), 8 * 44_444);
}

#[test]
fn small_grants_wait_for_more_unless_nothing_is_under_way() {
    let mut g =
        Grants::new(GrantConfig { window: 5_000, min_grant: 3_000, max_incoming: 1 << 20, ..plain() });
    assert!(g.manage(0, 0, 20_000, 5_000, 0, us(0)));
    let granted = |g: &mut Grants, received: u32| {
        g.on_received(0, received);
        poll(g, us(1)).last().map(|grant| grant.offset)
    };
    assert_eq!(granted(&mut g, 1_500), None);
    assert_eq!(granted(&mut g, 3_000), Some(8_000));
    assert_eq!(granted(&mut g, 4_500), None);
    // The sender went beyond what was granted: nothing is under way.
    assert_eq!(granted(&mut g, 8_000), Some(13_000));
    assert_eq!(granted(&mut g, 13_000), Some(18_000));
    // The last of the message, however short.
    assert_eq!(granted(&mut g, 15_000), Some(20_000));
}

#[test]
fn few_active_messages_use_the_lowest_levels() {
    for (n, expected) in [(1, vec![0]), (2, vec![1, 0]), (3, vec![2, 1, 0]), (4, vec![3, 2, 1, 0])] {
        let mut g = Grants::new(plain());
        (0..n).for_each(|slot| add(&mut g, slot, 100_000 + slot));
        let mut out = poll(&mut g, us(0));
        out.sort_by_key(|o| o.slot);
        assert_eq!(out.iter().map(|o| o.priority).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn manage_refuses_what_needs_no_grant() {
    let mut g = Grants::new(plain());
    assert!(!g.manage(0, 0, 40_000, 40_000, 0, us(0)), "all unscheduled");
    assert!(!g.manage(0, 0, 50_000, 40_000, 50_000, us(0)), "complete");
    add(&mut g, 0, 100_000);
    assert!(!g.manage(0, 0, 100_000, 40_000, 0, us(0)), "twice");
    assert_eq!(g.n_managed(), 1);
}

#[test]
fn completion_and_removal_settle_the_accounts() {
    let mut g = Grants::new(plain());
    add(&mut g, 0, 100_000);
    add(&mut g, 1, 200_000);
    poll(&mut g, us(0));
    g.on_received(0, 100_000);
    assert!(!g.is_managed(0));
    g.remove(1);
    g.remove(1);
    g.on_received(1, 5);
    assert_eq!((g.total_incoming(), g.n_active(), g.n_managed()), (0, 0, 0));
    assert!(poll(&mut g, us(1)).is_empty());
}

#[test]
fn data_beyond_the_grant_is_clamped_and_may_complete_the_message() {
    let mut g = Grants::new(plain());
    assert!(g.manage(0, 0, 1_000_000, 40_000, 0, us(0)));
    g.on_received(0, 700_000);
    assert_eq!(g.total_incoming(), 0);
    let out = poll(&mut g, us(0));
    assert_eq!(out[0].offset, 900_000);
    assert_eq!(g.total_incoming(), 200_000);
    g.on_received(0, 1_000_000);
    assert_eq!(g.total_incoming(), 0);
}

#[test]
fn received_never_goes_back() {
    let mut g = Grants::new(plain());
    add(&mut g, 0, 500_000);
    g.on_received(0, 30_000);
    g.on_received(0, 10_000);
    assert_eq!(g.total_incoming(), 10_000);
}

#[test]
fn total_never_exceeds_max_incoming_and_the_rest_waits() {
    let mut g = Grants::new(GrantConfig { window: 100_000, max_incoming: 250_000, ..plain() });
    (0..4).for_each(|slot| add(&mut g, slot, 900_000 + 50_000 * slot));
    let out = poll(&mut g, us(0));
    assert_eq!(g.total_incoming(), 250_000);
    assert_eq!(out[0], GrantOut { slot: 0, offset: 100_000, priority: 3 });
    // The second found 30,000 bytes of room and stays needy, the others too.
    assert_eq!(out[1].slot, 1);
    assert_eq!(out[1].offset, 70_000);
    assert_eq!(out.len(), 2);
    // Room that the last one makes goes to the best needy one first.
    g.on_received(3, 20_000);
    let out = poll(&mut g, us(1));
    assert_eq!(out, [GrantOut { slot: 1, offset: 90_000, priority: 2 }]);
}

#[test]
fn ninth_message_waits_or_replaces_the_worst() {
    let mut g = Grants::new(plain());
    (0..8).for_each(|slot| add(&mut g, slot, 200_000 + slot));
    add(&mut g, 8, 300_000);
    assert!(!g.is_active(8), "longer than all: it waits");
    add(&mut g, 9, 100_000);
    assert!(g.is_active(9), "shorter than the worst: it takes its place");
    assert!(!g.is_active(7));
    assert_eq!(g.n_active(), 8);
}

#[test]
fn displaced_message_keeps_its_grant_and_returns_first() {
    let mut g = Grants::new(plain());
    (0..8).for_each(|slot| add(&mut g, slot, 200_000 + slot));
    poll(&mut g, us(0));
    let granted = g.granted(7);
    add(&mut g, 9, 100_000);
    assert_eq!(g.granted(7), granted);
    g.remove(0);
    assert!(g.is_active(7), "a freed place goes to the head of the queue");
    assert!(g.wants_poll());
}

#[test]
fn ranks_are_live_not_those_of_activation() {
    let mut g = Grants::new(GrantConfig { max_overcommit: 2, ..plain() });
    add(&mut g, 0, 300_000);
    add(&mut g, 1, 310_000);
    poll(&mut g, us(0));
    // Message 1 overtakes message 0; the victim of the next one must be 0.
    g.on_received(1, 40_000);
    add(&mut g, 2, 280_000);
    assert!(g.is_active(1) && g.is_active(2) && !g.is_active(0));
}

#[test]
fn ties_go_to_the_older_with_full_precision() {
    let mut g = Grants::new(GrantConfig { max_overcommit: 1, ..plain() });
    // Births that agree in their low 32 bits, the older one added last.
    let old = Instant::from_nanos(7);
    let new = Instant::from_nanos((1 << 32) + 7);
    assert!(g.manage(0, 0, 100_000, 40_000, 0, new));
    assert!(g.manage(1, 1, 100_000, 40_000, 0, old));
    assert!(g.is_active(1) && !g.is_active(0));
}

#[test]
fn above_the_limit_the_oldest_goes_first() {
    let config = GrantConfig { max_overcommit: 1, srpt_limit: 200_000, ..plain() };
    let mut g = Grants::new(config);
    add(&mut g, 0, 500_000);
    add(&mut g, 1, 300_000);
    assert!(g.is_active(0), "both are long, and it is older");
    add(&mut g, 2, 190_000);
    assert!(g.is_active(2), "the short one goes before them");
    g.on_received(1, 150_000);
    g.remove(2);
    assert!(g.is_active(1), "what is left of it is short now");
    let mut shortest_first = Grants::new(GrantConfig { srpt_limit: u32::MAX, ..config });
    add(&mut shortest_first, 0, 500_000);
    add(&mut shortest_first, 1, 300_000);
    assert!(shortest_first.is_active(1));
}

#[test]
fn rank_counts_unreceived_not_ungranted_bytes() {
    let mut g =
        Grants::new(GrantConfig { max_overcommit: 1, window: 900_000, max_incoming: 1 << 20, ..plain() });
    assert!(g.manage(0, 0, 500_000, 40_000, 0, us(0)));
    poll(&mut g, us(0));
    assert_eq!(g.granted(0), Some(500_000), "granted whole, not received");
    assert!(g.manage(1, 0, 90_000, 40_000, 0, us(1)));
    assert!(g.is_active(1), "a short message of the same host is not blocked by it");
}

#[test]
fn one_peer_does_not_keep_others_out() {
    let mut g = Grants::new(plain());
    for slot in 0..8 {
        assert!(g.manage(slot, 0, 100_000 + slot, 40_000, 0, us(0)));
    }
    // Longer than all, but of a peer without active messages.
    assert!(g.manage(8, 1, 900_000, 40_000, 0, us(0)));
    assert!(g.is_active(8));
    assert!(!g.is_active(7), "the victim is the worst of the peer with most");
    // Of the crowded peer again: only by rank.
    assert!(g.manage(9, 0, 800_000, 40_000, 0, us(0)));
    assert!(!g.is_active(9));
}

#[test]
fn only_the_head_of_a_peer_competes() {
    let mut g = Grants::new(GrantConfig { max_overcommit: 1, ..plain() });
    assert!(g.manage(0, 0, 100_000, 40_000, 0, us(0)));
    assert!(g.manage(1, 1, 300_000, 40_000, 0, us(0)));
    assert!(g.manage(2, 1, 400_000, 40_000, 0, us(0)));
    g.remove(0);
    assert!(g.is_active(1));
    g.remove(1);
    assert!(g.is_active(2));
}

#[test]
fn promotion_prefers_peers_without_active_messages() {
    let mut g = Grants::new(GrantConfig { max_overcommit: 2, ..plain() });
    assert!(g.manage(0, 0, 100_000, 40_000, 0, us(0)));
    assert!(g.manage(1, 1, 100_001, 40_000, 0, us(0)));
    assert!(g.manage(2, 0, 150_000, 40_000, 0, us(0)), "shorter, but its peer is served");
    assert!(g.manage(3, 2, 700_000, 40_000, 0, us(0)));
    g.remove(1);
    assert!(g.is_active(3) && !g.is_active(2));
}

#[test]
fn queued_message_that_received_enough_becomes_active() {
    let mut g = Grants::new(GrantConfig { max_overcommit: 1, ..plain() });
    add(&mut g, 0, 100_000);
    add(&mut g, 1, 120_000);
    assert!(!g.is_active(1));
    g.on_received(1, 30_000);
    assert!(g.is_active(1));
}

#[test]
fn batches_are_granted_once() {
    let mut g = Grants::new(GrantConfig { window: 50_000, ..plain() });
    add(&mut g, 0, 500_000);
    poll(&mut g, us(0));
    (1..=5).for_each(|i| g.on_received(0, i * 1424));
    let out = poll(&mut g, us(1));
    assert_eq!(out, [GrantOut { slot: 0, offset: 57_120, priority: 0 }]);
    assert!(!g.wants_poll());
}

#[test]
fn removal_between_packets_and_poll_is_harmless() {
    let mut g = Grants::new(plain());
    add(&mut g, 0, 100_000);
    g.remove(0);
    add(&mut g, 1, 100_000);
    let out = poll(&mut g, us(0));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].slot, 1);
}

#[test]
fn vector_6_fifo_interval() {
    let at = |link_mbps| super::fifo_interval(&GrantConfig { link_mbps, ..GrantConfig::default() });
    assert_eq!(at(25_000).unwrap().as_micros(), 320);
    assert_eq!(at(100_000).unwrap().as_micros(), 80);
    let off = GrantConfig { grant_fifo_fraction: 0, ..GrantConfig::default() };
    assert_eq!(super::fifo_interval(&off), None);
    let clamped = GrantConfig { grant_fifo_fraction: 5000, ..GrantConfig::default() };
    assert_eq!(super::fifo_interval(&clamped).unwrap().as_micros(), 32);
}

/// FIFO grants next to the highest level, where they can be told from others.
fn as_homa_module() -> GrantConfig {
    GrantConfig { fifo_grant_priority: 6, ..GrantConfig::default() }
}

/// Eight short messages keep the active set; message 100 is old and long.
fn crowded() -> Grants {
    let config = GrantConfig { window: 10_000, max_incoming: 4_000_000, ..as_homa_module() };
    let mut g = Grants::new(config);
    assert!(g.manage(100, 100, 900_000, 40_000, 40_000, us(0)));
    (1..=8).for_each(|slot| add(&mut g, slot, 200_000 + slot));
    poll(&mut g, us(0));
    assert!(!g.is_active(100));
    g
}

#[test]
fn fifo_gives_the_oldest_its_share_in_spite_of_rank() {
    let mut g = crowded();
    g.on_received(1, 35_000);
    let first = poll(&mut g, us(100));
    assert_eq!(first.iter().map(|o| o.slot).collect::<Vec<_>>(), [1], "clock starts with a grant");
    g.on_received(1, 36_000);
    assert_eq!(poll(&mut g, us(419)).len(), 1, "interval not over");
    g.on_received(1, 37_000);
    let out = poll(&mut g, us(420));
    assert_eq!(out.len(), 2);
    assert_eq!(out[1], GrantOut { slot: 100, offset: 90_000, priority: 6 });
    assert_eq!(g.total_fifo_credit(), 50_000);
    g.on_received(1, 38_000);
    assert_eq!(poll(&mut g, us(500)).len(), 1, "once per interval");
}

#[test]
fn fifo_credit_is_exact() {
    let mut g = crowded();
    g.on_received(1, 35_000);
    poll(&mut g, us(0));
    g.on_received(1, 36_000);
    poll(&mut g, us(320));
    assert_eq!(g.total_fifo_credit(), 50_000);
    g.on_received(100, 60_000);
    assert_eq!(g.total_fifo_credit(), 30_000);
    g.on_received(100, 90_000);
    assert_eq!(g.total_fifo_credit(), 0);
    g.remove(100);
    assert_eq!(g.total_fifo_credit(), 0);
}

#[test]
fn fifo_skips_the_unresponsive_until_it_sends_again() {
    let mut g = crowded();
    let mut received = 31_000;
    let mut targets = Vec::new();
    for i in 0..5 {
        received += 1000;
        g.on_received(1, received);
        let out = poll(&mut g, us(320 * i));
        targets.extend(out.iter().filter(|o| o.priority == 6).map(|o| o.slot));
    }
    // Window 10,000 + 2 * 50,000: after three grants without data it is passed over.
    assert_eq!(targets, [100, 100, 100, 1]);
    g.on_received(100, 150_000);
    g.on_received(2, 35_000);
    let out = poll(&mut g, us(10_000));
    assert!(out.iter().any(|o| o.slot == 100 && o.priority == 6), "{out:?}");
}

#[test]
fn fifo_ignores_max_incoming() {
    let mut g = Grants::new(GrantConfig { max_incoming: 60_000, window: 45_000, ..as_homa_module() });
    add(&mut g, 0, 900_000);
    poll(&mut g, us(0));
    add(&mut g, 1, 100_000);
    g.on_received(0, 39_000);
    let out = poll(&mut g, us(1000));
    assert!(out.iter().any(|o| o.priority == 6));
    assert!(g.total_incoming() > 60_000);
    assert!(g.total_incoming() - g.total_fifo_credit() <= 60_000);
}

#[test]
fn fifo_level_with_few_priorities() {
    for (levels, expected) in [(1, 0), (2, 1), (3, 2), (8, 6)] {
        let config =
            GrantConfig { num_priorities: levels, max_sched_prio: 7, window: 10_000, ..as_homa_module() };
        let mut g = Grants::new(config);
        add(&mut g, 0, 900_000);
        g.on_received(0, 35_000);
        poll(&mut g, us(0));
        g.on_received(0, 36_000);
        let out = poll(&mut g, us(1000));
        assert_eq!(out[1].priority, expected, "{levels} levels");
        assert!(out[0].priority < levels);
    }
}

#[test]
fn bucket_spreads_grants_over_time() {
    let bucket = GrantBucket { bytes_per_sec: 1_000_000_000, burst_bytes: 20_000 };
    let mut g = Grants::new(GrantConfig { bucket: Some(bucket), ..plain() });
    add(&mut g, 0, 100_000);
    assert_eq!(poll(&mut g, us(0))[0].offset, 60_000);
    let mut now = us(0);
    let mut offset = 60_000;
    while offset < 100_000 {
        let at = g.next_time().expect("a needy message waits for tokens");
        assert!(at > now);
        assert!(poll(&mut g, Instant::from_nanos(at.as_nanos() - 1)).is_empty());
        let out = poll(&mut g, at);
        assert!(out[0].offset > offset);
        (now, offset) = (at, out[0].offset);
    }
    assert_eq!(now.as_nanos(), 40_000, "40,000 bytes at 1 byte a nanosecond");
    assert_eq!(g.next_time(), None);
}

#[test]
fn larger_limit_takes_effect_at_the_next_poll() {
    let mut g = Grants::new(GrantConfig { max_incoming: 200_000, window: 60_000, ..plain() });
    g.set_share(50_000);
    add(&mut g, 0, 100_000);
    assert_eq!(poll(&mut g, us(0))[0].offset, 50_000);
    assert!(!g.wants_poll());
    g.set_share(200_000);
    assert!(g.wants_poll());
    assert_eq!(poll(&mut g, us(1))[0].offset, 60_000);
}

#[test]
fn message_without_a_share_is_needy_and_granted_when_there_is_one() {
    let mut g = Grants::new(plain());
    g.set_share(0);
    assert!(g.manage(0, 0, 100_000, 40_000, 0, us(0)));
    // All that may come has come: no further packet will draw attention to the message.
    g.on_received(0, 40_000);
    assert!(poll(&mut g, us(0)).is_empty());
    assert_eq!(g.shortest_needy(), Some(60_000));
    g.set_share(400_000);
    assert!(g.wants_poll());
    assert_eq!(poll(&mut g, us(1))[0].offset, 100_000);
}

#[test]
fn tail_boost_raises_the_last_grants_of_a_message() {
    let config = GrantConfig { tail_boost_bytes: 10_000, window: 10_000, ..plain() };
    let mut g = Grants::new(config);
    assert!(g.manage(0, 0, 100_000, 40_000, 31_000, us(0)));
    assert_eq!(poll(&mut g, us(0)), [GrantOut { slot: 0, offset: 41_000, priority: 0 }]);
    g.on_received(0, 88_000);
    assert_eq!(poll(&mut g, us(1)), [GrantOut { slot: 0, offset: 98_000, priority: 0 }]);
    // 2,000 bytes are left: messages up to 2,800 have level 6.
    g.on_received(0, 90_100);
    assert_eq!(poll(&mut g, us(2)), [GrantOut { slot: 0, offset: 100_000, priority: 6 }]);
}
