//! Scenarios of the record of finished RPCs, and random use against a plain set.

use core::time::Duration;
use std::collections::BTreeSet;

use peyk_sansio::Instant;
use proptest::prelude::*;

use super::{CHUNK_IDS, Completed, CompletedConfig};

fn ms(n: u64) -> Instant {
    Instant::from_nanos(n * 1_000_000)
}

fn record(max_chunks: usize) -> Completed {
    let retention = Duration::from_millis(200);
    Completed::new(CompletedConfig { retention, max_chunks }, 7)
}

#[test]
fn insert_remembers_per_peer_and_id() {
    let mut c = record(100);
    assert!(!c.contains(0, 1234));
    assert!(c.insert(ms(0), 0, 1234));
    assert!(!c.insert(ms(0), 0, 1234));
    assert!(c.contains(0, 1234));
    assert!(c.contains(0, 1235), "both forms of an id are the same RPC");
    assert!(!c.contains(0, 1236));
    assert!(!c.contains(1, 1234));
}

#[test]
fn insert_sequential_ids_share_chunks() {
    let mut c = record(100);
    for i in 0..10 * CHUNK_IDS as u64 {
        c.insert(ms(0), 3, 2 * i);
    }
    assert_eq!(c.chunks(), 10);
    assert!((0..10 * CHUNK_IDS as u64).all(|i| c.contains(3, 2 * i)));
}

#[test]
fn expire_after_retention_not_before() {
    let mut c = record(100);
    c.insert(ms(0), 0, 2);
    c.insert(ms(50), 0, 1 << 40);
    assert_eq!(c.next_expiry(), Some(ms(200)));
    assert_eq!(c.expire(ms(199), 10), 0);
    assert!(c.contains(0, 2));
    assert_eq!(c.expire(ms(200), 10), 1);
    assert!(!c.contains(0, 2));
    assert!(c.contains(0, 1 << 40));
    assert_eq!(c.expire(ms(250), 10), 1);
    assert_eq!(c.next_expiry(), None);
}

#[test]
fn expire_last_insert_counts() {
    let mut c = record(100);
    c.insert(ms(0), 0, 2);
    c.insert(ms(1), 0, 1 << 40);
    c.insert(ms(150), 0, 4);
    assert_eq!(c.expire(ms(250), 10), 1);
    assert!(c.contains(0, 2));
    assert!(!c.contains(0, 1 << 40));
}

#[test]
fn expire_obeys_its_limit() {
    let mut c = record(100);
    for i in 0..20 {
        c.insert(ms(0), 0, i << 20);
    }
    assert_eq!(c.expire(ms(1000), 8), 8);
    assert_eq!(c.chunks(), 12);
}

#[test]
fn limit_evicts_the_least_recent_and_counts() {
    let mut c = record(2);
    c.insert(ms(0), 0, 0);
    c.insert(ms(1), 0, 1 << 20);
    c.insert(ms(2), 0, 2);
    c.insert(ms(3), 0, 2 << 20);
    assert_eq!(c.evicted(), 1);
    assert_eq!(c.chunks(), 2);
    assert!(c.contains(0, 0) && c.contains(0, 2) && c.contains(0, 2 << 20));
    assert!(!c.contains(0, 1 << 20));
}

#[test]
fn limit_memory_stays_bounded() {
    let mut c = record(64);
    for i in 0..100_000 {
        c.insert(ms(i), i as u32 % 50, i << 12);
    }
    assert_eq!(c.chunks(), 64);
    assert_eq!(c.chunks.len(), 64);
}

#[test]
fn remove_peer_forgets_only_that_peer() {
    let mut c = record(100);
    c.insert(ms(0), 0, 2);
    c.insert(ms(0), 1, 2);
    c.remove_peer(0);
    assert!(!c.contains(0, 2));
    assert!(c.contains(1, 2));
    assert!(c.insert(ms(1), 0, 2), "a new host at the same index starts afresh");
    c.remove_peer(1000);
}

proptest! {
    #[test]
    fn record_equals_a_plain_set(
        ops in prop::collection::vec((0..4u32, 0..3u64, 0..1500u64, any::<bool>()), 1..500),
    ) {
        let mut c = record(1000);
        let mut set = BTreeSet::new();
        for (peer, high, low, is_insert) in ops {
            let id = (high << 33) + 2 * low;
            if is_insert {
                prop_assert_eq!(c.insert(ms(0), peer, id), set.insert((peer, id)));
            } else {
                prop_assert_eq!(c.contains(peer, id), set.contains(&(peer, id)));
            }
        }
    }

    /// Nothing is forgotten before the retention time, and everything is after it.
    #[test]
    fn retention_holds(ops in prop::collection::vec((0..20u64, 0..30u64), 1..300)) {
        let mut c = record(1000);
        let mut last = std::collections::BTreeMap::new();
        let mut now = 0;
        for (chunk, pause) in ops {
            now += pause;
            c.expire(ms(now), usize::MAX);
            for (&chunk, &then) in &last {
                prop_assert_eq!(c.contains(0, chunk << 10), now - then < 200);
            }
            last.retain(|_, then| now - *then < 200);
            c.insert(ms(now), 0, chunk << 10);
            last.insert(chunk, now);
        }
        c.expire(ms(now + 200), usize::MAX);
        prop_assert_eq!(c.chunks(), 0);
    }
}
