//! Scenarios of cutoffs: tables from the wire, consistency, computation.

use core::time::Duration;

use peyk_sansio::Instant;
use proptest::prelude::*;

use super::compute::{Histogram, cutoffs, drift};
use super::{
    Cutoffs, CutoffsConfig, DEFAULT_CUTOFFS, LEVELS, PeerCutoffs, UNLIMITED, clamp_priority, control_priority,
};

fn ms(n: u64) -> Instant {
    Instant::from_nanos(n * 1_000_000)
}

fn levels(n: u8) -> Cutoffs {
    Cutoffs::new(CutoffsConfig { num_priorities: n, ..CutoffsConfig::default() })
}

#[test]
fn peer_before_cutoffs_everything_goes_one_below_the_top() {
    let peer = PeerCutoffs::initial(8);
    assert_eq!(peer.version(), 0);
    for length in [1, 200, 15_000, 1_000_000] {
        assert_eq!(peer.unscheduled_priority(length, 8), 6);
    }
}

#[test]
fn peer_initial_table_fits_any_number_of_levels() {
    for (n, expected) in [(1, 0), (2, 0), (3, 1), (4, 2), (6, 4), (7, 5), (8, 6)] {
        let peer = PeerCutoffs::initial(n);
        assert_eq!(peer.unscheduled_priority(100, n), expected, "{n} levels");
    }
}

#[test]
fn peer_defaults_of_homamodule() {
    let mut peer = PeerCutoffs::initial(8);
    // As HomaModule sends it: entry 0 is 0 and has to be ignored.
    let mut table = DEFAULT_CUTOFFS;
    table[0] = 0;
    peer.set(&table, 1);
    assert_eq!(peer.version(), 1);
    for (length, expected) in
        [(1, 7), (200, 7), (201, 6), (2800, 6), (2801, 5), (15_000, 5), (15_001, 4), (1_000_000, 4)]
    {
        assert_eq!(peer.unscheduled_priority(length, 8), expected, "{length} bytes");
    }
    assert_eq!(peer.unscheduled_priority(5_000_000, 8), 4, "1,000,000 means every message");
}

#[test]
fn peer_zero_table_means_level_zero() {
    let mut peer = PeerCutoffs::initial(8);
    peer.set(&[0; LEVELS], 9);
    assert_eq!(peer.unscheduled_priority(1, 8), 0);
}

#[test]
fn peer_entries_above_our_levels_are_not_used() {
    let mut peer = PeerCutoffs::initial(2);
    peer.set(&DEFAULT_CUTOFFS, 1);
    assert_eq!(peer.unscheduled_priority(1, 2), 0);
}

#[test]
fn own_defaults() {
    let own = levels(8);
    assert_eq!(own.table(), &DEFAULT_CUTOFFS);
    assert_eq!(own.version(), 1);
    assert_eq!(own.max_sched_prio(), 3);
}

#[test]
fn own_consistency_rule() {
    let mut own = levels(8);
    own.install([5, 0, 1_000_000, 0, 2_000_000, 0, 7, 3]);
    assert_eq!(own.table(), &[UNLIMITED, 0, 1_000_000, 0, 2_000_000, 0, 7, 3]);
    assert_eq!(own.max_sched_prio(), 3, "one below the first unlimited from the top");
    assert_eq!(own.version(), 2);
    own.install([0; LEVELS]);
    assert_eq!(own.max_sched_prio(), 0);
    own.set_num_priorities(5);
    assert_eq!(own.table()[5..], [0, 0, 0]);
}

#[test]
fn own_table_for_more_levels_leaves_some_for_short_messages() {
    for (n, short, long) in
        [(1, 0, 0), (2, 1, 1), (3, 2, 1), (4, 3, 2), (5, 4, 4), (6, 5, 5), (7, 6, 6), (8, 7, 6)]
    {
        let own = levels(n);
        assert_eq!((own.level_of(200), own.level_of(2_800)), (short, long), "{n} levels");
    }
    assert_eq!(levels(2).table(), &[UNLIMITED, 2_800, 0, 0, 0, 0, 0, 0]);
    assert_eq!(levels(3).table(), &[UNLIMITED, 15_000, 200, 0, 0, 0, 0, 0]);
    assert_eq!(levels(4).table(), &[UNLIMITED, 1_000_000, 2_800, 200, 0, 0, 0, 0]);
    assert_eq!([2, 4, 5].map(|n| levels(n).max_sched_prio()), [0, 0, 3]);
    let mut own = levels(4);
    own.install([UNLIMITED, 1_000_000, 1_500, 300, 0, 0, 0, 0]);
    assert_eq!((own.level_of(1_500), own.max_sched_prio()), (2, 0), "one for as many stays");
}

#[test]
fn own_version_skips_zero() {
    let mut own = levels(8);
    for _ in 0..70_000u32 {
        own.install(DEFAULT_CUTOFFS);
        assert_ne!(own.version(), 0);
    }
}

#[test]
fn own_number_of_levels_is_clamped() {
    assert_eq!(levels(0).num_priorities(), 1);
    assert_eq!(levels(200).num_priorities(), 8);
    assert_eq!(control_priority(0), 0);
    assert_eq!(control_priority(200), 7);
    assert_eq!(clamp_priority(255), 7);
}

fn measured(sizes: &[(u32, u32)]) -> Histogram {
    let mut h = Histogram::new();
    for &(length, count) in sizes {
        for _ in 0..count {
            h.record(length);
        }
    }
    h
}

#[test]
fn compute_all_unscheduled_shares_the_levels_evenly() {
    let sizes: Vec<_> = (1..=8).map(|i| (i * 64, 8 * 3 * 5 * 7 / i)).collect();
    let table = cutoffs(&measured(&sizes), 8, 40_000);
    assert!(table[1..].iter().all(|&c| c > 0), "{table:?}");
    assert!(table[1..].windows(2).all(|w| w[0] >= w[1]), "{table:?}");
}

#[test]
fn compute_only_large_messages_leave_one_unscheduled_level() {
    let table = cutoffs(&measured(&[(900_000, 20_000)]), 8, 40_000);
    assert_eq!(table[1..], [1_000_000; 7]);
    let mut own = levels(8);
    own.install(table);
    assert_eq!(own.max_sched_prio(), 6);
}

#[test]
fn compute_equal_unscheduled_bytes_per_level() {
    let table = cutoffs(&measured(&[(1000, 1000), (2000, 500), (4000, 250), (800_000, 4)]), 8, 1);
    assert_eq!(table[7], 1_000_000, "with 1 unscheduled byte per message one level is enough");
    // Half of the bytes unscheduled: four of eight levels.
    let sizes = [(640, 1100), (1280, 550), (2560, 275), (5120, 60), (640_000, 4)];
    let table = cutoffs(&measured(&sizes), 8, 40_000);
    assert_eq!(table[7], 640);
    assert_eq!(table[6], 1280);
    assert_eq!(table[5], 2560);
    assert_eq!(table[4], 1_000_000);
}

#[test]
fn compute_two_levels_and_no_messages_are_fine() {
    let table = cutoffs(&measured(&[(100, 10)]), 2, 40_000);
    assert_eq!(table[0], UNLIMITED);
    let _ = cutoffs(&Histogram::new(), 8, 40_000);
}

#[test]
fn histogram_classes_and_deciles() {
    let h = measured(&[(0, 1), (1, 1), (64, 1), (65, 1), (4096, 1), (4097, 1), (131_072, 1), (131_073, 1)]);
    let sizes: Vec<_> = h.classes().map(|(size, c)| (size, c.messages)).collect();
    assert_eq!(sizes, [(64, 3), (128, 1), (4096, 1), (5120, 1), (131_072, 1)]);
    let h = measured(&[(100, 50), (1000, 50)]);
    assert_eq!(h.deciles(), [128, 128, 128, 128, 128, 1024, 1024, 1024, 1024]);
}

#[test]
fn recompute_needs_interval_messages_and_drift() {
    let mut own = levels(8);
    assert!(!own.maybe_recompute(ms(0)));
    for _ in 0..9_999 {
        own.record(300);
    }
    assert!(!own.maybe_recompute(ms(999)));
    assert!(!own.maybe_recompute(ms(1000)), "one message short");
    own.record(300);
    assert!(!own.maybe_recompute(ms(1001)), "interval not over");
    assert!(own.maybe_recompute(ms(2000)));
    assert_eq!(own.version(), 2);
    for _ in 0..10_000 {
        own.record(300);
    }
    assert!(!own.maybe_recompute(ms(3000)), "same sizes, same table");
    assert_eq!(own.version(), 2);
    for _ in 0..10_000 {
        own.record(30_000);
    }
    assert!(own.maybe_recompute(ms(4000)));
    assert_eq!(own.version(), 3);
}

#[test]
fn recompute_after_a_change_of_levels() {
    let mut own = levels(8);
    own.maybe_recompute(ms(0));
    let fill = |own: &mut Cutoffs| (0..10_000).for_each(|_| own.record(300));
    fill(&mut own);
    assert!(own.maybe_recompute(ms(1000)));
    own.set_num_priorities(4);
    fill(&mut own);
    assert!(own.maybe_recompute(ms(2000)), "the number of levels changed");
    assert_eq!(own.table()[4..], [0; 4]);
}

#[test]
fn recompute_one_level_or_switched_off() {
    let off = CutoffsConfig { adaptive: false, ..CutoffsConfig::default() };
    let quick = Duration::from_millis(1);
    for config in [off, CutoffsConfig { num_priorities: 1, interval: quick, ..CutoffsConfig::default() }] {
        let mut own = Cutoffs::new(config);
        own.maybe_recompute(ms(0));
        (0..20_000).for_each(|_| own.record(300));
        assert!(!own.maybe_recompute(ms(5000)));
        assert_eq!(own.version(), 1);
    }
}

proptest! {
    /// Any mix of sizes gives a table that falls with rising level, covers every
    /// message and leaves no level out of range.
    #[test]
    fn computed_tables_are_sound(
        sizes in prop::collection::vec((1..1_000_000u32, 1..300u32), 1..30),
        n in 2..=8u8,
        unsched in 1..200_000u32,
    ) {
        let table = cutoffs(&measured(&sizes), n, unsched);
        prop_assert_eq!(table[0], UNLIMITED);
        prop_assert!(table[n as usize..].iter().all(|&c| c == 0));
        let used = &table[1..n as usize];
        prop_assert!(used.iter().all(|&c| c > 0 && c <= 1_000_000));
        prop_assert!(used.windows(2).all(|w| w[0] > w[1] || w[0] == 1_000_000));
        let mut peer = PeerCutoffs::initial(n);
        peer.set(&table, 1);
        let mut last = n;
        for length in [1, 100, 1000, 10_000, 100_000, 1_000_000] {
            let level = peer.unscheduled_priority(length, n);
            prop_assert!(level <= last, "a longer message is above a shorter one");
            last = level;
        }
    }

    #[test]
    fn drift_is_a_distance(
        a in prop::array::uniform9(1..100_000u32),
        b in prop::array::uniform9(1..100_000u32),
    ) {
        prop_assert_eq!(drift(&a, &a), 0.0);
        prop_assert_eq!(drift(&a, &b), drift(&b, &a));
        prop_assert!(drift(&a, &b) <= 9.0);
    }
}
