//! Real threads on every shared structure: what loom's small models cannot reach, and what ThreadSanitizer and
//! AddressSanitizer watch (commands in the README). `PEYK_STRESS` multiplies the rounds; the default suits
//! a normal test run.
#![cfg(not(loom))]

mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use peyk_sockbuf::doorbell::Doorbell;
use peyk_sockbuf::oneshot::{self, Cancelled, Completer};
use peyk_sockbuf::ring::Ring;
use peyk_sockbuf::waiters::WaitList;
use peyk_sockbuf::{Message, PAGE, Payload, Pool, spsc};

fn rounds(normal: u64) -> u64 {
    normal * std::env::var("PEYK_STRESS").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// A message whose bytes follow from its first eight, and those from `seed`.
fn write(pool: &mut Pool, seed: u64) -> Option<Message> {
    let len = match seed % 16 {
        0 => PAGE + (seed % 977) as usize,
        1 => PAGE / 2,
        _ => 8 + (seed % 300) as usize,
    };
    let mut buf = pool.alloc(len)?;
    buf.write_at(0, &seed.to_le_bytes());
    buf.write_at(8, &vec![seed as u8; len - 8]);
    Some(buf.freeze())
}

fn verify(message: &Message) -> u64 {
    let mut seed = [0; 8];
    message.copy_to(&mut seed);
    let seed = u64::from_le_bytes(seed);
    assert!(message.chunks().flatten().skip(8).all(|&byte| byte == seed as u8), "torn message {seed}");
    seed
}

/// A waker that unparks a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn messages_through_a_ring_to_two_threads() {
    let count = rounds(30_000);
    let ring = Arc::new(Ring::<Message>::with_capacity(16));
    let sum = Arc::new(AtomicU64::new(0));
    let consumers = [(), ()].map(|()| {
        let (ring, sum) = (ring.clone(), sum.clone());
        thread::spawn(move || {
            let mut kept = Vec::new();
            loop {
                let Some(message) = ring.pop() else {
                    thread::yield_now();
                    continue;
                };
                if message.is_empty() {
                    return;
                }
                sum.fetch_add(verify(&message), Ordering::Relaxed);
                kept.push(message.clone());
                if kept.len() == 5 {
                    kept.iter().for_each(|message| _ = verify(message));
                    kept.clear();
                }
            }
        })
    });
    let send = |mut message| {
        while let Err(back) = ring.push(message) {
            message = back;
            thread::yield_now();
        }
    };
    let mut pool = Pool::new(24);
    for seed in 1..=count {
        let message = loop {
            match write(&mut pool, seed) {
                Some(message) => break message,
                None => thread::yield_now(),
            }
        };
        send(message);
    }
    (0..2).for_each(|_| send(Message::empty()));
    for consumer in consumers {
        consumer.join().expect("consumer");
    }
    assert_eq!(sum.load(Ordering::Relaxed), count * (count + 1) / 2);
    assert_eq!(pool.free_pages(), 24);
}

#[test]
fn pools_that_go_before_their_messages() {
    for round in 0..rounds(300) {
        let mut pool = Pool::new(8);
        let messages: Vec<Message> = (0..6).filter_map(|i| write(&mut pool, round * 6 + i)).collect();
        let copies = messages.clone();
        let payloads: Vec<Payload> = copies.into_iter().map(Payload::from).collect();
        let threads = [
            thread::spawn(move || messages.iter().for_each(|message| _ = verify(message))),
            thread::spawn(move || {
                payloads.iter().for_each(|payload| assert!(payload.slice(4..8).len() == 4))
            }),
        ];
        drop(pool);
        threads.into_iter().for_each(|thread| thread.join().expect("reader"));
    }
}

#[test]
fn ring_many_to_many() {
    let each = rounds(30_000);
    let ring = Ring::with_capacity(8);
    let taken = AtomicU64::new(0);
    let sum = AtomicU64::new(0);
    thread::scope(|scope| {
        for producer in 0..2 {
            let ring = &ring;
            scope.spawn(move || {
                for value in 0..each {
                    let mut value = Box::new(value * 2 + producer);
                    while let Err(back) = ring.push(value) {
                        value = back;
                        thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = [0; 2];
                while taken.load(Ordering::Relaxed) < 2 * each {
                    let Some(value) = ring.pop() else {
                        thread::yield_now();
                        continue;
                    };
                    let previous = &mut last[*value as usize % 2];
                    assert!(*previous <= *value, "one producer's elements came out of order");
                    *previous = *value;
                    sum.fetch_add(*value, Ordering::Relaxed);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), each * (2 * each - 1));
}

#[test]
fn spsc_with_a_doorbell_at_each_end() {
    let count = rounds(100_000);
    let (mut producer, mut consumer) = spsc::ring(8);
    let bells = Arc::new((Doorbell::new(), Doorbell::new()));
    let writer = thread::current();
    let reader = {
        let bells = bells.clone();
        thread::spawn(move || {
            for expected in 0..count {
                let value: Box<u64> = sleep_until(&bells.0, || consumer.pop());
                assert_eq!(*value, expected);
                bells.1.ring_if_asleep(&|| writer.unpark());
            }
        })
    };
    for value in 0..count {
        let mut value = Some(Box::new(value));
        sleep_until(&bells.1, || match producer.push(value.take().expect("not sent yet")) {
            Ok(()) => Some(()),
            Err(back) => {
                value = Some(back);
                None
            }
        });
        bells.0.ring_if_asleep(&|| reader.thread().unpark());
    }
    reader.join().expect("reader");
}

fn sleep_until<T>(bell: &Doorbell, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        bell.prepare_sleep();
        let found = look();
        if let Some(found) = found {
            bell.cancel_sleep();
            return found;
        }
        thread::park();
        bell.cancel_sleep();
    }
}

#[test]
fn oneshot_calls_answered_dropped_and_cancelled() {
    let count = rounds(20_000);
    let (mut producer, mut consumer) = spsc::ring::<(u64, Completer<Box<u64>>)>(64);
    let answering = thread::spawn(move || {
        for _ in 0..count {
            let (number, completer) = loop {
                match consumer.pop() {
                    Some(call) => break call,
                    None => thread::yield_now(),
                }
            };
            if number % 7 == 0 {
                drop(completer);
            } else {
                let _ = completer.complete(Box::new(number * 2));
            }
        }
    });
    for number in 0..count {
        let (completer, mut completion) = oneshot::cell();
        let mut call = (number, completer);
        while let Err(back) = producer.push(call) {
            call = back;
            thread::yield_now();
        }
        match number % 3 {
            0 => drop(completion),
            1 => _ = completion.try_take(),
            _ => {
                let expected = if number % 7 == 0 { Err(Cancelled) } else { Ok(Box::new(number * 2)) };
                assert_eq!(block_on(completion), expected);
            }
        }
    }
    answering.join().expect("answering thread");
}

#[test]
fn waiters_take_everything_that_is_published() {
    let count = rounds(20_000) as usize;
    let shared = Arc::new((AtomicUsize::new(0), WaitList::new(), AtomicUsize::new(0)));
    let waiters = [(), (), ()].map(|()| {
        let shared = shared.clone();
        thread::spawn(move || {
            loop {
                let (things, list, taken) = &*shared;
                let take =
                    || things.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1)).ok();
                block_on(list.until(take));
                if taken.fetch_add(1, Ordering::Relaxed) >= count {
                    return;
                }
            }
        })
    });
    for n in 0..count + waiters.len() {
        shared.0.fetch_add(1, Ordering::AcqRel);
        shared.1.notify_one();
        if n % 64 == 0 {
            thread::yield_now();
        }
    }
    for waiter in waiters {
        waiter.join().expect("waiter");
    }
    assert_eq!(shared.0.load(Ordering::Relaxed), 0);
}
