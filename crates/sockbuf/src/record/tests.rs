//! Records against a deque with a budget. (Threads: `tests/stress/` and `tests/loom/`.)

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push(u32),
    Pop,
    Tell,
    Limit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u32..300).prop_map(Step::Push),
        3 => Just(Step::Pop),
        1 => Just(Step::Tell),
        1 => (1usize..1000).prop_map(Step::Limit),
    ]
}

proptest! {
    /// What is refused was too much; what is taken comes out in order; after telling, the budget is exact.
    #[test]
    fn records_agree_with_a_deque(program in prop::collection::vec(step(), 0..300)) {
        let (mut sender, mut receiver) = records(8, 500);
        let (mut oracle, mut queued, mut limit) = (VecDeque::new(), 0u64, 500u64);
        for (number, step) in program.into_iter().enumerate() {
            match step {
                Step::Push(bytes) => {
                    let fits = u64::from(bytes) <= limit.saturating_sub(queued) && oracle.len() < 8;
                    match sender.push(number, bytes) {
                        Ok(()) => {
                            prop_assert!(fits || (oracle.len() < 8 && queued == 0));
                            oracle.push_back((number, bytes));
                            queued += u64::from(bytes);
                        }
                        Err(back) => prop_assert_eq!(back, number),
                    }
                }
                Step::Pop => {
                    let expected = oracle.pop_front();
                    queued -= u64::from(expected.map_or(0, |(_, bytes)| bytes));
                    prop_assert_eq!(receiver.pop(), expected.map(|(number, _)| number));
                }
                Step::Tell => {
                    receiver.wake_sender(&|| ());
                    let fits = limit.saturating_sub(queued) as u32;
                    if oracle.len() < 8 && fits > 0 {
                        prop_assert!(sender.push(number, fits).is_ok(), "exact after telling");
                        oracle.push_back((number, fits));
                        queued += u64::from(fits);
                    }
                }
                Step::Limit(bytes) => {
                    limit = bytes as u64;
                    sender.set_limit(bytes);
                }
            }
            prop_assert!(sender.writable() as u64 <= limit.saturating_sub(queued));
        }
    }
}

#[test]
fn end_comes_after_the_last_record() {
    let (mut sender, mut receiver) = records(4, 100);
    sender.push('a', 1).expect("space");
    sender.finish(End::Error(104), &|| ());
    drop(sender);
    assert_eq!(receiver.end(), None);
    assert_eq!(receiver.pop(), Some('a'));
    assert_eq!(receiver.end(), Some(End::Error(104)), "the first end counts");
}

#[test]
fn larger_than_the_budget_goes_alone() {
    let (mut sender, mut receiver) = records(4, 100);
    assert_eq!(sender.push('a', 1000), Ok(()));
    assert_eq!(sender.push('b', 1), Err('b'));
    assert!(sender.prepare_sleep(1));
    assert_eq!(receiver.pop(), Some('a'));
    let woken = core::cell::Cell::new(0);
    assert!(receiver.wake_sender(&|| woken.set(woken.get() + 1)));
    assert_eq!(sender.push('b', 1), Ok(()));
    assert!(!receiver.wake_sender(&|| woken.set(9)));
    assert_eq!(woken.get(), 1);
}

#[test]
fn no_wake_while_nobody_sleeps() {
    let (mut sender, mut receiver) = records(4, 100);
    for round in 0..100 {
        sender.push(round, 1).expect("space");
        assert!(!sender.wake_receiver(&|| panic!("nobody sleeps")));
        receiver.pop();
        assert!(!receiver.wake_sender(&|| panic!("nobody sleeps")));
    }
    assert!(receiver.prepare_sleep());
    sender.push(0, 1).expect("space");
    assert!(sender.wake_receiver(&|| ()));
    receiver.close(&|| ());
    assert!(sender.is_abandoned());
}
