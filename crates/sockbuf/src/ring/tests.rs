//! The ring against a deque. (Threads: `tests/stress/` and `tests/loom/`.)

use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn ring_agrees_with_a_deque(capacity in 0usize..20, program in prop::collection::vec(any::<bool>(), 0..300)) {
        let ring = Ring::with_capacity(capacity);
        let mut oracle = VecDeque::new();
        for (value, push) in program.into_iter().enumerate() {
            if push {
                let full = oracle.len() == ring.capacity();
                prop_assert_eq!(ring.push(value), if full { Err(value) } else { Ok(()) });
                if !full {
                    oracle.push_back(value);
                }
            } else {
                prop_assert_eq!(ring.pop(), oracle.pop_front());
            }
            prop_assert_eq!(ring.len(), oracle.len());
            prop_assert_eq!(ring.is_empty(), oracle.is_empty());
        }
    }
}

#[test]
fn with_capacity_rounds_up() {
    let capacities = [0, 1, 2, 3, 64, 65].map(|capacity| Ring::<u8>::with_capacity(capacity).capacity());
    assert_eq!(capacities, [2, 2, 2, 4, 64, 128]);
}

#[test]
fn drop_drops_what_is_left() {
    let counted = Rc::new(());
    for taken in 0..4 {
        let ring = Ring::with_capacity(4);
        for _ in 0..6 {
            if ring.push(counted.clone()).is_err() {
                drop(ring.pop());
                assert!(ring.push(counted.clone()).is_ok());
            }
        }
        (0..taken).for_each(|_| drop(ring.pop()));
        assert_eq!(Rc::strong_count(&counted), 5 - taken);
        drop(ring);
        assert_eq!(Rc::strong_count(&counted), 1);
    }
}

#[test]
fn push_works_across_the_end_of_the_tickets() {
    let ring = Ring::with_capacity(4);
    let start = usize::MAX - 5; // A multiple of the capacity is not needed: sequences are set to match.
    ring.tail.store(start, Ordering::Relaxed);
    ring.head.store(start, Ordering::Relaxed);
    for ticket in (0..4).map(|i| start.wrapping_add(i)) {
        ring.slots[ticket & 3].sequence.store(ticket, Ordering::Relaxed);
    }
    for value in 0..20 {
        assert_eq!(ring.push(value), Ok(()));
        assert_eq!(ring.push(value), Ok(()));
        assert_eq!(ring.len(), 2);
        assert_eq!((ring.pop(), ring.pop(), ring.pop()), (Some(value), Some(value), None));
    }
}
