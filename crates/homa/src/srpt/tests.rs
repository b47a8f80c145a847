//! Scenarios of the send queue, and random operations against a plain list.

use peyk_sansio::Instant;
use proptest::prelude::*;

use super::SendQueue;

fn at(n: u64) -> Instant {
    Instant::from_nanos(n)
}

#[test]
fn best_fewest_left_then_older_then_slot() {
    let mut q = SendQueue::new();
    assert!(q.insert(1, 9000, at(1)));
    assert!(q.insert(2, 5000, at(3)));
    assert!(q.insert(3, 5000, at(2)));
    assert!(q.insert(4, 5000, at(2)));
    assert_eq!(q.pop_best(), Some(3));
    assert_eq!(q.pop_best(), Some(4));
    assert_eq!(q.pop_best(), Some(2));
    assert_eq!(q.pop_best(), Some(1));
    assert_eq!(q.pop_best(), None);
}

#[test]
fn update_shrinking_best_stays_best_growing_one_falls_back() {
    let mut q = SendQueue::new();
    q.insert(1, 5000, at(1));
    q.insert(2, 6000, at(2));
    q.update(1, 3000);
    assert_eq!(q.best(), Some(1));
    q.update(1, 7000);
    assert_eq!(q.best(), Some(2));
    q.update(1, 100);
    assert_eq!(q.best(), Some(1));
}

#[test]
fn singles_go_first_by_class_then_in_arrival_order() {
    let mut q = SendQueue::new();
    q.insert(1, 10, at(0));
    assert!(q.insert_single(2, 1400, at(5)));
    assert!(q.insert_single(3, 100, at(6)));
    assert!(q.insert_single(4, 97, at(7)));
    assert_eq!(q.pop_best(), Some(3));
    assert_eq!(q.pop_single(), Some(4));
    assert!(!q.contains(4) && q.contains(2));
    assert_eq!(q.pop_single(), Some(2));
    assert_eq!(q.pop_single(), None);
    assert_eq!(q.pop_best(), Some(1));
}

#[test]
fn singles_reused_slot_takes_its_new_place() {
    let mut q = SendQueue::new();
    q.insert_single(1, 100, at(0));
    q.insert_single(2, 100, at(0));
    q.remove(1);
    q.insert_single(1, 100, at(1));
    assert_eq!(q.len(), 2);
    assert_eq!(q.pop_best(), Some(2));
    assert_eq!(q.pop_best(), Some(1));
    assert!(q.is_empty());
}

#[test]
fn singles_removals_do_not_grow_the_deque() {
    let mut q = SendQueue::new();
    q.insert_single(0, 1, at(0));
    for _ in 0..10_000 {
        q.insert_single(1, 1, at(0));
        q.remove(1);
    }
    let entries: usize = q.singles.iter().map(|class| class.len()).sum();
    assert!(entries < 200, "{entries} entries for one message");
    assert_eq!(q.pop_best(), Some(0));
}

#[test]
fn oldest_ignores_rank_and_single_packets() {
    let mut q = SendQueue::new();
    q.insert(1, 10, at(5));
    q.insert(2, 900_000, at(2));
    q.insert_single(3, 1, at(0));
    assert_eq!(q.oldest(), Some(2));
    q.remove(2);
    assert_eq!(q.oldest(), Some(1));
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32, u32, u64),
    Single(u32, u32),
    Update(u32, u32),
    Remove(u32),
    Pop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..20u32, 0..50u32, 0..10u64).prop_map(|(s, l, t)| Op::Insert(s, l, t)),
        (0..20u32, 1..3000u32).prop_map(|(s, l)| Op::Single(s, l)),
        (0..20u32, 0..50u32).prop_map(|(s, l)| Op::Update(s, l)),
        (0..20u32).prop_map(Op::Remove),
        Just(Op::Pop),
    ]
}

/// (is longer, left, init time, slot) and, for singles, order of arrival.
type Naive = Vec<(bool, u32, u64, u32)>;

fn naive_best(list: &Naive) -> Option<u32> {
    // `min_by_key` gives the first of equals: the order of arrival.
    let single = list.iter().filter(|e| !e.0).min_by_key(|e| super::class_of(e.1));
    let best = single.or_else(|| list.iter().min_by_key(|e| (e.1, e.2, e.3)));
    best.map(|e| e.3)
}

proptest! {
    #[test]
    fn queue_equals_a_plain_list(ops in prop::collection::vec(op(), 0..300)) {
        let mut q = SendQueue::new();
        let mut list: Naive = Vec::new();
        for op in ops {
            let has = |list: &Naive, s: u32| list.iter().any(|e| e.3 == s);
            match op {
                Op::Insert(s, left, t) => {
                    if has(&list, s) {
                        list.iter_mut().filter(|e| e.0 && e.3 == s).for_each(|e| e.1 = left);
                    } else {
                        list.push((true, left, t, s));
                    }
                    q.insert(s, left, at(t));
                }
                Op::Single(s, left) => {
                    if !has(&list, s) {
                        list.push((false, left, 0, s));
                    }
                    q.insert_single(s, left, at(0));
                }
                Op::Update(s, left) => {
                    list.iter_mut().filter(|e| e.0 && e.3 == s).for_each(|e| e.1 = left);
                    q.update(s, left);
                }
                Op::Remove(s) => {
                    prop_assert_eq!(q.remove(s), has(&list, s));
                    list.retain(|e| e.3 != s);
                }
                Op::Pop => {
                    let best = naive_best(&list);
                    prop_assert_eq!(q.pop_best(), best);
                    list.retain(|e| Some(e.3) != best);
                }
            }
            prop_assert_eq!(q.len(), list.len());
            prop_assert_eq!(q.best(), naive_best(&list));
            let oldest = list.iter().filter(|e| e.0).min_by_key(|e| (e.2, e.3)).map(|e| e.3);
            prop_assert_eq!(q.oldest(), oldest);
        }
    }
}

#[test]
fn class_of_grows_with_the_size_in_half_octaves() {
    assert_eq!([1, 2, 3, 4, 5, 6, 7, 8, 12, 16].map(super::class_of), [0, 0, 1, 2, 2, 3, 3, 4, 5, 6]);
    assert!((1..100_000).map(super::class_of).is_sorted());
    assert_eq!(super::class_of(u32::MAX), super::CLASSES - 1);
}
