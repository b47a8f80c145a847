//! Every shared structure under the model checker: all interleavings and all results of weak memory that
//! loom knows, for programs small enough. Each model is run a second time with one fence or order weakened,
//! and must then fail: otherwise it would prove nothing.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p peyk-sockbuf --test loom --release`
#![cfg(loom)]

mod shards;
mod stream;

use std::process::Command;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use peyk_sockbuf::doorbell::Doorbell;
use peyk_sockbuf::mutant::{Site, weaken};
use peyk_sockbuf::ring::Ring;
use peyk_sockbuf::waiters::WaitList;
use peyk_sockbuf::{Message, PAGE, Pool, oneshot, spsc};

/// Names the site to weaken in a process that is started to fail.
const WEAKEN: &str = "PEYK_LOOM_WEAKEN";

/// The model holds as it is, and fails with each of the sites weakened. A failing model leaves loom in a
/// state in which destructors panic, so it fails in a process of its own.
fn check(test: &str, sites: &[Site], model: fn()) {
    if let Ok(name) = std::env::var(WEAKEN) {
        let site = *sites.iter().find(|site| format!("{site:?}") == name).expect("a site of this model");
        return weaken(site, || explore(model));
    }
    explore(model);
    for site in sites {
        let run = Command::new(std::env::current_exe().expect("we run from a file"))
            .args([test, "--exact", "--nocapture"])
            .env(WEAKEN, format!("{site:?}"))
            .env("RUST_BACKTRACE", "0")
            .output()
            .expect("we can run again");
        let said = String::from_utf8_lossy(&run.stderr);
        let found = ["deadlock", "Causality violation", "leaked", "assertion"]
            .iter()
            .find(|fault| said.contains(**fault));
        assert!(
            !run.status.success() && found.is_some(),
            "{test} does not notice a missing {site:?}: {said}"
        );
        println!("{test}: without {site:?}: {}", found.expect("just checked"));
    }
}

fn explore(model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("no panic")
}

fn sleep_until(bell: &Doorbell, ready: impl Fn() -> bool) {
    while !ready() {
        bell.prepare_sleep();
        if ready() {
            bell.cancel_sleep();
            return;
        }
        thread::park();
        bell.cancel_sleep();
    }
}

#[test]
fn doorbell_loses_no_wake_up() {
    check("doorbell_loses_no_wake_up", &[Site::DoorbellSleeper, Site::DoorbellWaker], || {
        let shared = Arc::new((AtomicUsize::new(0), Doorbell::new()));
        let sleeper = {
            let shared = shared.clone();
            thread::spawn(move || sleep_until(&shared.1, || shared.0.load(Ordering::Relaxed) == 2))
        };
        for value in 1..=2 {
            shared.0.store(value, Ordering::Relaxed);
            let sleeper = sleeper.thread();
            shared.1.ring_if_asleep(&|| sleeper.unpark());
        }
        join(sleeper);
    });
}

#[test]
fn doorbell_with_two_wakers() {
    check("doorbell_with_two_wakers", &[Site::DoorbellSleeper, Site::DoorbellWaker], || {
        let shared = Arc::new((AtomicUsize::new(0), Doorbell::new()));
        let sleeper = {
            let shared = shared.clone();
            thread::spawn(move || sleep_until(&shared.1, || shared.0.load(Ordering::Relaxed) == 2))
        };
        let ring = |shared: &(AtomicUsize, Doorbell), sleeper: &thread::Thread| {
            shared.0.fetch_add(1, Ordering::Relaxed);
            shared.1.ring_if_asleep(&|| sleeper.unpark());
        };
        let other = {
            let (shared, sleeper) = (shared.clone(), sleeper.thread().clone());
            thread::spawn(move || ring(&shared, &sleeper))
        };
        ring(&shared, sleeper.thread());
        join(other);
        join(sleeper);
    });
}

/// Pops until there is something.
fn pop(ring: &Ring<Box<usize>>) -> usize {
    loop {
        if let Some(value) = ring.pop() {
            return *value;
        }
        thread::yield_now();
    }
}

fn push(ring: &Ring<Box<usize>>, value: usize) {
    let mut value = Box::new(value);
    while let Err(back) = ring.push(value) {
        value = back;
        thread::yield_now();
    }
}

#[test]
fn ring_with_one_producer_going_round() {
    check("ring_with_one_producer_going_round", &[Site::RingPublish, Site::RingRelease], || {
        let ring = Arc::new(Ring::with_capacity(2));
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || (1..=3).for_each(|value| push(&ring, value)))
        };
        assert_eq!([pop(&ring), pop(&ring), pop(&ring)], [1, 2, 3]);
        join(producer);
        assert!(ring.pop().is_none());
    });
}

#[test]
fn ring_with_two_producers() {
    check("ring_with_two_producers", &[Site::RingPublish], || {
        let ring = Arc::new(Ring::with_capacity(2));
        let producers = [1, 2].map(|value| {
            let ring = ring.clone();
            thread::spawn(move || push(&ring, value))
        });
        assert_eq!(pop(&ring) + pop(&ring), 3);
        producers.into_iter().for_each(join);
    });
}

#[test]
fn ring_with_two_consumers() {
    check("ring_with_two_consumers", &[Site::RingPublish], || {
        let ring = Arc::new(Ring::with_capacity(2));
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || pop(&ring))
        };
        push(&ring, 1);
        push(&ring, 2);
        let mine = ring.pop().map(|value| *value);
        let theirs = join(consumer);
        let left = ring.pop().map_or(0, |value| *value);
        assert_eq!(mine.unwrap_or(0) + theirs + left, 3);
    });
}

#[test]
fn spsc_going_round() {
    check("spsc_going_round", &[Site::SpscPublish, Site::SpscRelease], || {
        let (mut producer, mut consumer) = spsc::ring(2);
        let thread = thread::spawn(move || {
            for value in 1..=3 {
                let mut value = Box::new(value);
                while let Err(back) = producer.push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 1..=3 {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        join(thread);
        assert!(consumer.is_abandoned() && consumer.is_empty());
    });
}

#[test]
fn spsc_dropped_half_full() {
    check("spsc_dropped_half_full", &[], || {
        let (mut producer, mut consumer) = spsc::ring(2);
        let counted = Arc::new(());
        let item = counted.clone();
        let thread = thread::spawn(move || drop(producer.push(item)));
        drop(consumer.pop());
        drop(consumer);
        join(thread);
        assert_eq!(Arc::strong_count(&counted), 1);
    });
}

#[test]
fn oneshot_complete_against_await() {
    check("oneshot_complete_against_await", &[Site::OneshotValue, Site::OneshotWaker], || {
        let (completer, completion) = oneshot::cell();
        let thread = thread::spawn(move || completer.complete(Box::new(5)).expect("somebody waits"));
        assert_eq!(loom::future::block_on(completion), Ok(Box::new(5)));
        join(thread);
    });
}

#[test]
fn oneshot_complete_against_two_polls_and_drop() {
    check("oneshot_complete_against_two_polls_and_drop", &[Site::OneshotValue, Site::OneshotWaker], || {
        let (completer, mut completion) = oneshot::cell();
        let counted = Arc::new(());
        let value = counted.clone();
        let thread = thread::spawn(move || completer.complete(value).is_ok());
        for _ in 0..2 {
            let waker = idle_waker();
            let mut cx = std::task::Context::from_waker(&waker);
            let _ = std::future::Future::poll(std::pin::Pin::new(&mut completion), &mut cx);
        }
        drop(completion);
        join(thread);
        assert_eq!(Arc::strong_count(&counted), 1);
    });
}

/// A waker that differs from every other, so that it is stored anew, and does nothing.
fn idle_waker() -> std::task::Waker {
    struct Nothing;
    impl std::task::Wake for Nothing {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    std::task::Waker::from(std::sync::Arc::new(Nothing))
}

#[test]
fn oneshot_complete_against_drop() {
    check("oneshot_complete_against_drop", &[Site::OneshotValue], || {
        let (completer, completion) = oneshot::cell();
        let counted = Arc::new(());
        let value = counted.clone();
        let thread = thread::spawn(move || drop(completer.complete(value)));
        drop(completion);
        join(thread);
        assert_eq!(Arc::strong_count(&counted), 1);
    });
}

#[test]
fn oneshot_gone_against_await() {
    check("oneshot_gone_against_await", &[Site::OneshotWaker], || {
        let (completer, completion) = oneshot::cell::<Box<u8>>();
        let thread = thread::spawn(move || drop(completer));
        assert_eq!(loom::future::block_on(completion), Err(oneshot::Cancelled));
        join(thread);
    });
}

/// Takes one from a counter of things.
fn take(things: &AtomicUsize) -> Option<()> {
    things.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).ok().map(|_| ())
}

#[test]
fn waiters_one_waiter() {
    check("waiters_one_waiter", &[Site::WaitersJoin, Site::WaitersNotify], || {
        let shared = Arc::new((AtomicUsize::new(0), WaitList::new()));
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || loom::future::block_on(shared.1.until(|| take(&shared.0))))
        };
        shared.0.fetch_add(1, Ordering::Relaxed);
        shared.1.notify_one();
        join(waiter);
    });
}

#[test]
fn waiters_two_waiters_two_things() {
    check("waiters_two_waiters_two_things", &[Site::WaitersJoin, Site::WaitersNotify], || {
        let shared = Arc::new((AtomicUsize::new(0), WaitList::new()));
        let waiters = [(), ()].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || loom::future::block_on(shared.1.until(|| take(&shared.0))))
        });
        for _ in 0..2 {
            shared.0.fetch_add(1, Ordering::Relaxed);
            shared.1.notify_one();
        }
        waiters.into_iter().for_each(join);
    });
}

fn write(pool: &mut Pool, len: usize) -> Option<Message> {
    let mut buf = pool.alloc(len)?;
    buf.write_at(0, &vec![7; len]);
    Some(buf.freeze())
}

#[test]
fn pool_rewrites_a_shared_page_in_place() {
    check("pool_rewrites_a_shared_page_in_place", &[Site::PageRelease], || {
        let mut pool = Pool::new(1);
        let message = write(&mut pool, PAGE / 2).expect("space");
        let copy = message.clone();
        let reader = thread::spawn(move || assert_eq!(copy.as_slice().map(<[u8]>::len), Some(PAGE / 2)));
        drop(message);
        // Fits beside the first; the one after only once the first is gone.
        let _second = write(&mut pool, PAGE / 4);
        drop(_second);
        let _third = write(&mut pool, PAGE / 2);
        join(reader);
    });
}

#[test]
fn pool_takes_back_pages_from_two_threads() {
    check("pool_takes_back_pages_from_two_threads", &[Site::PageReturn], || {
        let mut pool = Pool::new(2);
        let readers = [(), ()].map(|()| {
            let message = write(&mut pool, PAGE).expect("space");
            thread::spawn(move || assert_eq!(message.as_slice().map(<[u8]>::len), Some(PAGE)))
        });
        drop(write(&mut pool, PAGE));
        readers.into_iter().for_each(join);
        assert_eq!(pool.free_pages(), 2);
    });
}

#[test]
fn pool_goes_while_messages_are_out() {
    check("pool_goes_while_messages_are_out", &[], || {
        let mut pool = Pool::new(2);
        let readers = [PAGE, PAGE / 4].map(|len| {
            let message = write(&mut pool, len).expect("space");
            thread::spawn(move || assert_eq!(message.as_slice().map(<[u8]>::len), Some(len)))
        });
        drop(pool);
        readers.into_iter().for_each(join);
        // Loom reports the region as leaked if nobody freed it, and a race if somebody did too early.
    });
}
