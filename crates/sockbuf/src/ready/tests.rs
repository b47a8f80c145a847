//! Marks against a set, and fairness of turns. (Threads: `tests/stress/` and `tests/loom/`.)

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn marks_agree_with_a_set(
        queues in 1usize..200,
        program in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..100),
        from in 0usize..400,
    ) {
        let ready = ReadySet::new(queues);
        let mut oracle = BTreeSet::new();
        for (mark, queue) in program {
            let queue = queue.index(queues);
            if mark {
                prop_assert_eq!(ready.mark(queue), oracle.insert(queue));
            } else {
                prop_assert!(!ready.found_empty(queue, || false));
                oracle.remove(&queue);
            }
            let from = from % queues;
            let expected = oracle.range(from..).next().or(oracle.iter().next()).copied();
            prop_assert_eq!(ready.next(from), expected);
        }
    }
}

#[test]
fn found_empty_keeps_the_mark_if_something_came() {
    let ready = ReadySet::new(2);
    ready.mark(1);
    assert!(ready.found_empty(1, || true));
    assert_eq!(ready.next(0), Some(1));
    assert!(!ready.found_empty(1, || false));
    assert_eq!(ready.next(0), None);
}

/// S15: a queue that is loaded ten times as much as another delays the other by a quantum at most.
#[test]
fn s15_quantum_bounds_the_wait_of_the_slow_queue() {
    const QUANTUM: u32 = 32;
    let ready = ReadySet::new(2);
    let mut queues = [VecDeque::new(), VecDeque::new()];
    let mut turn = Turn::new(QUANTUM);
    let mut served = 0u32;
    let mut worst = 0;
    for round in 0..1000 {
        for _ in 0..10 {
            queues[0].push_back(served);
        }
        ready.mark(0);
        if round % 10 == 0 {
            queues[1].push_back(served);
            ready.mark(1);
        }
        // Slower than the arrivals: the first queue grows without end.
        for _ in 0..5 {
            let Some(queue) = turn.next(&ready) else { break };
            let came = queues[queue].pop_front().expect("marked, so not empty");
            turn.took();
            served += 1;
            if queue == 1 {
                worst = worst.max(served - came);
            }
            if queues[queue].is_empty() {
                ready.found_empty(queue, || false);
            }
        }
    }
    assert!(queues[0].len() > 4000 && queues[1].len() <= 1, "{} and {}", queues[0].len(), queues[1].len());
    assert!(worst <= QUANTUM + 5, "waited for {worst} others");
}
