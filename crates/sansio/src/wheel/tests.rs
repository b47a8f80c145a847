//! The wheel against an ordered map, over random programs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Operation {
    /// Insert at now plus this many nanoseconds.
    Insert(u64),
    /// Insert at this absolute time, often long past.
    InsertAt(u64),
    /// Let this much time pass, then expire.
    Advance(u64),
    /// Go exactly to the nearest deadline, then expire.
    Jump,
}

fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..3_000_000,
        0u64..1_000_000_000,
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64, any::<u64>()).prop_map(|(bits, any)| any >> bits),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => span().prop_map(Operation::Insert),
        1 => span().prop_map(Operation::InsertAt),
        2 => span().prop_map(Operation::Advance),
        3 => Just(Operation::Jump),
    ]
}

fn run(tick_ns: u64, start: u64, program: &[Operation]) {
    let mut now = Instant::from_nanos(start);
    let mut wheel = Wheel::new(Duration::from_nanos(tick_ns), now);
    let mut oracle: BTreeMap<(Instant, usize), ()> = BTreeMap::new();
    let mut out = Vec::new();
    for (id, step) in program.iter().enumerate() {
        match *step {
            Operation::Insert(after) => {
                wheel.insert(now.plus_nanos(after), id);
                oracle.insert((now.plus_nanos(after), id), ());
            }
            Operation::InsertAt(at) => {
                wheel.insert(Instant::from_nanos(at), id);
                oracle.insert((Instant::from_nanos(at), id), ());
            }
            Operation::Advance(_) | Operation::Jump => {
                now = match *step {
                    Operation::Advance(by) => now.plus_nanos(by),
                    _ => oracle.keys().next().map_or(now, |key| now.max(key.0)),
                };
                out.clear();
                wheel.expire(now, &mut out);
                let later = oracle.split_off(&(now, usize::MAX));
                let mut due: Vec<usize> = oracle.keys().map(|key| key.1).collect();
                oracle = later;
                due.sort_unstable();
                out.sort_unstable();
                assert_eq!(out, due);
                assert!(wheel.next_deadline().is_none_or(|at| at > now || now == Instant::MAX));
            }
        }
        assert_eq!(wheel.len(), oracle.len());
        assert_eq!(wheel.is_empty(), oracle.is_empty());
        assert_eq!(wheel.next_deadline(), oracle.keys().next().map(|key| key.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn wheel_agrees_with_an_ordered_map(
        tick in prop_oneof![Just(1u64), Just(1_000_000), 1u64..1_000_000_000],
        start in prop_oneof![Just(0u64), any::<u64>()],
        program in prop::collection::vec(operation(), 1..80),
    ) {
        run(tick, start, &program);
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn expire_within_one_tick_keeps_deadlines_exact() {
    let mut wheel = Wheel::new(MS, Instant::ZERO);
    wheel.insert(Instant::from_micros(300), 'a');
    wheel.insert(Instant::from_micros(700), 'b');
    let mut out = Vec::new();
    wheel.expire(Instant::from_micros(299), &mut out);
    assert!(out.is_empty());
    wheel.expire(Instant::from_micros(300), &mut out);
    assert_eq!(out, ['a']);
    assert_eq!(wheel.next_deadline(), Some(Instant::from_micros(700)));
}

#[test]
fn expire_survives_a_clock_that_goes_back() {
    let mut wheel = Wheel::new(MS, Instant::ZERO);
    let mut out = Vec::new();
    wheel.expire(Instant::from_millis(100), &mut out);
    wheel.insert(Instant::from_millis(50), 1);
    wheel.expire(Instant::from_millis(40), &mut out);
    assert!(out.is_empty());
    assert_eq!(wheel.next_deadline(), Some(Instant::from_millis(50)));
    wheel.expire(Instant::from_millis(50), &mut out);
    assert_eq!(out, [1]);
}

#[test]
fn insert_reuses_memory_of_expired_items() {
    let mut wheel = Wheel::new(MS, Instant::ZERO);
    let mut out = Vec::new();
    for round in 0..1_000u64 {
        let now = Instant::from_millis(round * 17);
        for i in 0..100 {
            wheel.insert(now + Duration::from_millis(i % 13), i);
        }
        wheel.expire(now + Duration::from_millis(16), &mut out);
    }
    assert_eq!(out.len(), 100_000);
    assert!(wheel.is_empty());
    assert_eq!(wheel.nodes.len(), 100);
}
