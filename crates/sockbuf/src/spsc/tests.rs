//! The one-to-one ring against a deque. (Threads: `tests/stress/` and `tests/loom/`.)

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn ring_agrees_with_a_deque(capacity in 0usize..20, program in prop::collection::vec(any::<bool>(), 0..300)) {
        let (mut producer, mut consumer) = ring(capacity);
        let mut oracle = VecDeque::new();
        prop_assert_eq!(producer.capacity(), consumer.capacity());
        for (value, push) in program.into_iter().enumerate() {
            if push {
                let full = oracle.len() == producer.capacity();
                prop_assert_eq!(producer.is_full(), full);
                prop_assert_eq!(producer.push(value), if full { Err(value) } else { Ok(()) });
                if !full {
                    oracle.push_back(value);
                }
            } else {
                prop_assert_eq!(consumer.is_empty(), oracle.is_empty());
                prop_assert_eq!(consumer.pop(), oracle.pop_front());
            }
        }
    }
}

#[test]
fn is_abandoned_when_the_other_end_goes() {
    let (producer, consumer) = ring::<u8>(2);
    assert!(!producer.is_abandoned());
    drop(consumer);
    assert!(producer.is_abandoned());
    let (mut producer, mut consumer) = ring(2);
    assert!(producer.push(String::from("left behind")).is_ok());
    drop(producer);
    assert!(consumer.is_abandoned());
    assert_eq!(consumer.pop().as_deref(), Some("left behind"));
}
