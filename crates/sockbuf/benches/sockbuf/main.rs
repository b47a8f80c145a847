//! What the structures of this crate cost, beside what one would otherwise take. A plain harness: medians of
//! interleaved runs, and a probe of the line between the two CPUs, without which figures for two threads
//! mean little.
//!
//! `cargo bench -p peyk-sockbuf`

use std::collections::VecDeque;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

mod stream;

use peyk_sockbuf::doorbell::Doorbell;
use peyk_sockbuf::ring::Ring;
use peyk_sockbuf::waiters::WaitList;
use peyk_sockbuf::{Bytes, Payload, Pool, oneshot, spsc};

const RUNS: usize = 9;

type Case = (&'static str, Box<dyn FnMut() -> f64>);

fn main() {
    let mut cases: Vec<Case> = Vec::new();
    memory(&mut cases);
    payloads(&mut cases);
    queues(&mut cases);
    let alone = cases.len();
    two_threads(&mut cases);
    let streams = cases.len();
    stream::cases(&mut cases);
    let mut results = vec![Vec::new(); cases.len()];
    for _ in 0..RUNS {
        for (case, results) in cases.iter_mut().zip(&mut results) {
            results.push((case.1)());
        }
    }
    for (index, (case, results)) in cases.iter().zip(&mut results).enumerate() {
        let title = [
            (0, "one thread, ns each"),
            (alone, "two threads, ns each"),
            (streams, "bytes between two threads, ns a write"),
        ];
        if let Some((_, title)) = title.iter().find(|(at, _)| *at == index) {
            println!("\n{title:<58}{:>9}  [min .. max]", "median");
        }
        results.sort_by(f64::total_cmp);
        println!("{:<58}{:>9.1}  [{:.1} .. {:.1}]", case.0, results[RUNS / 2], results[0], results[RUNS - 1]);
    }
}

/// Nanoseconds per round of `work`.
fn time(rounds: u64, mut work: impl FnMut()) -> f64 {
    (0..rounds / 10).for_each(|_| work());
    let start = Instant::now();
    (0..rounds).for_each(|_| work());
    start.elapsed().as_nanos() as f64 / rounds as f64
}

fn memory(cases: &mut Vec<Case>) {
    let bytes = [7u8; 100];
    let mut pool = Pool::new(64);
    cases.push((
        "message 100 B: alloc, write, freeze, drop",
        Box::new(move || {
            time(1_000_000, || {
                let mut buf = pool.alloc(100).expect("space");
                buf.write_at(0, black_box(&bytes));
                black_box(buf.freeze());
            })
        }),
    ));
    let mut pool = Pool::new(64);
    cases.push((
        "the same, 64 of them alive",
        Box::new(move || {
            let mut alive: VecDeque<_> = (0..64).filter_map(|_| pool.copy_in(&bytes)).collect();
            time(1_000_000, || {
                alive.pop_front();
                let mut buf = pool.alloc(100).expect("space");
                buf.write_at(0, black_box(&bytes));
                alive.push_back(buf.freeze());
            })
        }),
    ));
    cases.push((
        "Vec 100 B: to_vec, drop",
        Box::new(move || time(1_000_000, || drop(black_box(black_box(&bytes).to_vec())))),
    ));
    cases.push((
        "Bytes 100 B: copy_from_slice, clone, drop both",
        Box::new(move || {
            time(1_000_000, || {
                let first = Bytes::copy_from_slice(black_box(&bytes));
                black_box(first.clone());
            })
        }),
    ));
}

fn payloads(cases: &mut Vec<Case>) {
    let bytes = [7u8; 100];
    cases.push((
        "payload 100 B: copy_from, slice, drop both",
        Box::new(move || {
            time(1_000_000, || {
                let first = Payload::copy_from(black_box(&bytes));
                black_box(first.slice(0..100));
            })
        }),
    ));
    let mut pool = Pool::new(64);
    cases.push((
        "payload 100 B from a message",
        Box::new(move || {
            time(1_000_000, || {
                black_box(Payload::from(pool.copy_in(black_box(&bytes)).expect("space")));
            })
        }),
    ));
    let mut pool = Pool::new(64);
    let kilobyte = [7u8; 1000];
    cases.push((
        "payload 1000 B from a message, slice, drop",
        Box::new(move || {
            time(1_000_000, || {
                let payload = Payload::from(pool.copy_in(black_box(&kilobyte)).expect("space"));
                black_box(payload.slice(0..1000));
            })
        }),
    ));
    let long = Payload::from(vec![0u8; 1_000_000]);
    cases.push((
        "payload 1 MB: slice of 1400 B, drop",
        Box::new(move || {
            let mut at = 0;
            time(1_000_000, || {
                at = (at + 1400) % 900_000;
                black_box(long.slice(at..at + 1400));
            })
        }),
    ));
    let mut pool = Pool::new(64);
    cases.push((
        "message 1 MB: alloc, drop (no write)",
        Box::new(move || time(100_000, || drop(black_box(pool.alloc(1_000_000))))),
    ));
}

fn queues(cases: &mut Vec<Case>) {
    let ring = Ring::with_capacity(64);
    cases.push((
        "ring: push, pop",
        Box::new(move || {
            time(1_000_000, || {
                let _ = ring.push(black_box(7u64));
                black_box(ring.pop());
            })
        }),
    ));
    let (mut producer, mut consumer) = spsc::ring(64);
    cases.push((
        "spsc: push, pop",
        Box::new(move || {
            time(1_000_000, || {
                let _ = producer.push(black_box(7u64));
                black_box(consumer.pop());
            })
        }),
    ));
    let bell = Doorbell::new();
    cases.push((
        "doorbell: nobody asleep",
        Box::new(move || time(1_000_000, || _ = black_box(bell.ring_if_asleep(&|| ())))),
    ));
    let list = WaitList::new();
    cases.push((
        "waiters: nobody waits",
        Box::new(move || time(1_000_000, || _ = black_box(list.notify_one()))),
    ));
    cases.push((
        "oneshot: make, complete, take",
        Box::new(move || {
            time(1_000_000, || {
                let (completer, mut completion) = oneshot::cell();
                let _ = completer.complete(black_box(7u64));
                let _ = black_box(completion.try_take());
            })
        }),
    ));
}

/// A 64-byte element.
type Element = [u64; 8];
const COUNT: u64 = 400_000;

/// Nanoseconds per element through a queue, both threads spinning when they must wait.
fn transfer(send: impl Fn(Element) -> bool + Send + 'static, receive: impl Fn() -> Option<Element>) -> f64 {
    transfer_mut(send, receive)
}

fn transfer_mut(
    mut send: impl FnMut(Element) -> bool + Send + 'static,
    mut receive: impl FnMut() -> Option<Element>,
) -> f64 {
    let start = Instant::now();
    let sender = thread::spawn(move || {
        for value in 0..COUNT {
            while !send([value; 8]) {
                spin_loop();
            }
        }
    });
    for expected in 0..COUNT {
        let value = loop {
            match receive() {
                Some(value) => break value,
                None => spin_loop(),
            }
        };
        assert_eq!(value[7], expected);
    }
    sender.join().expect("sender");
    start.elapsed().as_nanos() as f64 / COUNT as f64
}

fn two_threads(cases: &mut Vec<Case>) {
    cases.push(("probe: one line there and back", Box::new(ping_pong)));
    cases.push((
        "spsc (64 B elements)",
        Box::new(|| {
            let (mut producer, mut consumer) = spsc::ring(256);
            transfer_mut(move |value| producer.push(value).is_ok(), move || consumer.pop())
        }),
    ));
    cases.push((
        "rtrb",
        Box::new(|| {
            let (mut producer, mut consumer) = rtrb::RingBuffer::new(256);
            transfer_mut(move |value| producer.push(value).is_ok(), move || consumer.pop().ok())
        }),
    ));
    cases.push((
        "ring",
        Box::new(|| {
            let ring = Arc::new(Ring::with_capacity(256));
            let sender = ring.clone();
            transfer(move |value| sender.push(value).is_ok(), move || ring.pop())
        }),
    ));
    cases.push((
        "crossbeam ArrayQueue",
        Box::new(|| {
            let queue = Arc::new(crossbeam_queue::ArrayQueue::new(256));
            let sender = queue.clone();
            transfer(move |value| sender.push(value).is_ok(), move || queue.pop())
        }),
    ));
    cases.push(("mutex and condition variable", Box::new(condvar)));
    cases.push(("message 100 B made here, read and dropped there", Box::new(messages)));
    cases.push(("Vec 100 B made here, read and dropped there", Box::new(vectors)));
}

fn ping_pong() -> f64 {
    const ROUNDS: u64 = 100_000;
    let lines = Arc::new((AtomicU64::new(0), [0u64; 16], AtomicU64::new(0)));
    let other = {
        let lines = lines.clone();
        thread::spawn(move || {
            for round in 1..=ROUNDS {
                while lines.0.load(Ordering::Acquire) != round {
                    spin_loop();
                }
                lines.2.store(round, Ordering::Release);
            }
        })
    };
    let start = Instant::now();
    for round in 1..=ROUNDS {
        lines.0.store(round, Ordering::Release);
        while lines.2.load(Ordering::Acquire) != round {
            spin_loop();
        }
    }
    other.join().expect("other");
    start.elapsed().as_nanos() as f64 / ROUNDS as f64
}

fn condvar() -> f64 {
    let shared = Arc::new((Mutex::new(VecDeque::<Element>::new()), Condvar::new()));
    let sender = shared.clone();
    transfer_mut(
        move |value| {
            let mut queue = sender.0.lock().expect("lock");
            if queue.len() >= 256 {
                return false;
            }
            queue.push_back(value);
            drop(queue);
            sender.1.notify_one();
            true
        },
        move || {
            let mut queue = shared.0.lock().expect("lock");
            loop {
                if let Some(value) = queue.pop_front() {
                    return Some(value);
                }
                queue = shared.1.wait(queue).expect("lock");
            }
        },
    )
}

fn messages() -> f64 {
    let mut pool = Pool::new(64);
    through_spsc(
        move || pool.copy_in(black_box(&[7; 100])),
        |message| u64::from(message.as_slice().expect("short")[99]),
    )
}

fn vectors() -> f64 {
    through_spsc(|| Some(black_box(&[7u8; 100]).to_vec()), |bytes| u64::from(bytes[99]))
}

fn through_spsc<T: Send + 'static>(
    mut make: impl FnMut() -> Option<T> + Send + 'static,
    read: impl Fn(&T) -> u64,
) -> f64 {
    let (mut producer, mut consumer) = spsc::ring::<T>(64);
    let start = Instant::now();
    let sender = thread::spawn(move || {
        for _ in 0..COUNT {
            let mut value = loop {
                match make() {
                    Some(value) => break value,
                    None => spin_loop(),
                }
            };
            while let Err(back) = producer.push(value) {
                value = back;
                spin_loop();
            }
        }
    });
    let mut sum = 0;
    for _ in 0..COUNT {
        let value = loop {
            match consumer.pop() {
                Some(value) => break value,
                None => spin_loop(),
            }
        };
        sum += read(&value);
    }
    sender.join().expect("sender");
    assert_eq!(sum, 7 * COUNT);
    start.elapsed().as_nanos() as f64 / COUNT as f64
}
