//! The pool against a plain list of byte vectors, and its limits.

use proptest::prelude::*;

use super::*;
use crate::Message;

/// Bytes that differ from message to message and from place to place.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed.wrapping_mul(97)) as u8).collect()
}

#[derive(Clone, Debug)]
enum Operation {
    Alloc(usize),
    AllocAndForsake(usize),
    Clone(prop::sample::Index),
    Drop(prop::sample::Index),
    DropPool,
}

fn operation() -> impl Strategy<Value = Operation> {
    let len = prop_oneof![
        4 => 1usize..300,
        2 => 1usize..PAGE,
        1 => 1usize..5 * PAGE,
        1 => (1usize..5, 0usize..3).prop_map(|(pages, off)| pages * PAGE + off - 1),
    ];
    prop_oneof![
        30 => len.clone().prop_map(Operation::Alloc),
        5 => len.prop_map(Operation::AllocAndForsake),
        10 => any::<prop::sample::Index>().prop_map(Operation::Clone),
        30 => any::<prop::sample::Index>().prop_map(Operation::Drop),
        1 => Just(Operation::DropPool),
    ]
}

fn run(program: &[Operation]) {
    const PAGES: u32 = 8;
    let mut pool = Some(Pool::new(PAGES));
    let mut live: Vec<(Message, Vec<u8>)> = Vec::new();
    for (seed, step) in program.iter().enumerate() {
        match step {
            Operation::Alloc(len) | Operation::AllocAndForsake(len) => {
                let Some(pool) = &mut pool else { continue };
                let free = pool.free_pages();
                let Some(mut buf) = pool.alloc(*len) else {
                    assert!(free < Pool::pages_for(*len), "refused {len} with {free} pages free");
                    assert_eq!(pool.free_pages(), free, "all or nothing");
                    continue;
                };
                if let Operation::AllocAndForsake(_) = step {
                    continue;
                }
                let bytes = pattern(seed, *len);
                for (index, part) in bytes.chunks(1000).enumerate().rev() {
                    buf.write_at(index * 1000, part);
                }
                live.push((buf.freeze(), bytes));
            }
            Operation::Clone(index) if !live.is_empty() => live.push(index.get(&live).clone()),
            Operation::Drop(index) if !live.is_empty() => drop(live.swap_remove(index.index(live.len()))),
            Operation::Clone(_) | Operation::Drop(_) => {}
            Operation::DropPool => pool = None,
        }
        for (message, bytes) in &live {
            assert!(message == bytes, "{message:?}");
        }
    }
    live.clear();
    if let Some(pool) = &mut pool {
        assert_eq!(pool.free_pages(), PAGES);
        assert!(pool.alloc(PAGES as usize * PAGE).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pool_agrees_with_a_list_of_vectors(program in prop::collection::vec(operation(), 1..120)) {
        run(&program);
    }
}

#[test]
fn alloc_refuses_empty_and_oversized() {
    let mut pool = Pool::new(2);
    assert!(pool.alloc(0).is_none());
    assert!(pool.alloc(2 * PAGE + 1).is_none());
    assert!(pool.alloc(usize::MAX).is_none());
    assert_eq!(pool.free_pages(), 2);
    assert!(pool.alloc(2 * PAGE).is_some());
    assert!(Pool::new(0).alloc(1).is_none());
}

#[test]
fn alloc_packs_small_messages_into_one_page() {
    let mut pool = Pool::new(2);
    let messages: Vec<_> = (0..PAGE / 128).map(|_| pool.copy_in(&[7; 100]).expect("space")).collect();
    assert_eq!(pool.free_pages(), 1);
    let one_more = pool.copy_in(&[8; 100]).expect("space");
    assert_eq!(pool.free_pages(), 0);
    drop(messages);
    assert_eq!(pool.free_pages(), 1);
    drop(one_more);
    assert_eq!(pool.free_pages(), 2);
}

#[test]
fn alloc_stays_on_few_pages() {
    let mut pool = Pool::new(1000);
    for _ in 0..10_000 {
        let _small = pool.copy_in(&[1; 100]);
        let _large = pool.alloc(3 * PAGE);
    }
    assert!(pool.fresh <= 4, "{} pages were touched", pool.fresh);
}

#[test]
fn alloc_rewinds_a_page_that_became_free() {
    let mut pool = Pool::new(1);
    for round in 0..10_000usize {
        let message = pool.copy_in(&pattern(round, 900)).expect("the one page is enough");
        assert!(message == pattern(round, 900));
    }
    assert!(pool.current.expect("one").offset <= 2 * LOOK_EVERY);
}

#[test]
fn message_outlives_its_pool() {
    let mut pool = Pool::new(4);
    let small = pool.copy_in(b"small").expect("space");
    let large = pool.copy_in(&pattern(1, 2 * PAGE + 5)).expect("space");
    drop(pool);
    let copy = large.clone();
    drop(large);
    std::thread::spawn(move || assert!(copy == pattern(1, 2 * PAGE + 5))).join().expect("it is equal");
    assert!(small == b"small");
}

#[test]
fn send_home_from_other_threads() {
    let mut pool = Pool::new(64);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let message = pool.copy_in(&pattern(seed, 5 * PAGE + 99)).expect("space");
            scope.spawn(move || assert!(message == pattern(seed, 5 * PAGE + 99)));
        }
    });
    assert_eq!(pool.free_pages(), 64);
}

#[test]
fn pages_for_rounds_up() {
    assert_eq!(Pool::pages_for(0), 0);
    assert_eq!(Pool::pages_for(1), 1);
    assert_eq!(Pool::pages_for(PAGE), 1);
    assert_eq!(Pool::pages_for(PAGE + 1), 2);
}

#[test]
fn new_touches_no_memory() {
    // 16 GiB of pages: would not fit if they were cleared.
    let mut pool = Pool::try_new(262_144).expect("address space is plenty");
    assert_eq!(pool.free_pages(), 262_144);
    assert!(pool.copy_in(b"x").is_some());
}

#[test]
fn hollow_has_lengths_but_no_contents() {
    let mut pool = Pool::hollow(1000).expect("memory for the accounts");
    let long = 900 * PAGE + 17;
    let mut buf = pool.alloc(long).expect("space");
    buf.write_at(0, &[7; 100]);
    buf.write_at(PAGE - 50, &vec![7; long - (PAGE - 50)]);
    buf.write_at(100, &vec![7; PAGE - 150]);
    let message = buf.freeze();
    assert_eq!((message.len(), pool.free_pages()), (long, 99));
    assert!(message.chunks().all(|chunk| chunk.iter().all(|&byte| byte == 0)));
    assert!(pool.alloc(100 * PAGE).is_none(), "limits are those of a real pool");
    drop(message);
    assert_eq!(pool.free_pages(), 1000);
}
