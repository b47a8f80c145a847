//! How a wait ends: by a wake-up, by its deadline, and after it has been looking for long.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use peyk_kevent::{Events, Message, SendMsg, Spin, Token, Wait, What};

use crate::common::*;

#[test]
fn wake__ends_a_wait_and_coalesces() {
    on_both(|backend| {
        for spin in [Spin::Sleep, Spin::Spin, Spin::Adaptive { max: Duration::from_micros(20) }] {
            let mut q = queue(backend);
            let handle = q.handle();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                handle.wake();
                handle.wake();
            });
            assert!(run(&mut q, spin, |_, _, what| matches!(what, What::Woken)));
            thread.join().unwrap();
            let mut events = Events::default();
            q.wait(&mut events, Wait::now()).unwrap();
            assert!(events.len() <= 1);
            // A wake-up before the wait counts too, and costs no system call.
            let rings = q.handle().rings();
            q.handle().wake();
            assert!(run(&mut q, Spin::Sleep, |_, _, what| matches!(what, What::Woken)));
            assert_eq!(q.handle().rings(), rings);
        }
    });
}

#[test]
fn wake__is_never_lost() {
    on_both(|backend| {
        let mut q = queue(backend);
        let (handle, count) = (q.handle(), std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)));
        let shared = count.clone();
        const ROUNDS: u64 = 20_000;
        let thread = std::thread::spawn(move || {
            for i in 0..ROUNDS {
                shared.fetch_add(1, std::sync::atomic::Ordering::Release);
                handle.wake();
                if i % 64 == 0 {
                    std::thread::sleep(Duration::from_micros(30));
                }
            }
        });
        let seen =
            run(&mut q, Spin::Sleep, |_, _, _| count.load(std::sync::atomic::Ordering::Acquire) == ROUNDS);
        assert!(seen, "the last wake-up was lost on {backend:?}");
        thread.join().unwrap();
    });
}

#[test]
fn deadline__passes_without_an_event() {
    on_both(|backend| {
        let mut q = queue(backend);
        let _open = open(&mut q, "127.0.0.1:0", 0);
        let mut events = Events::default();
        for spin in [Spin::Sleep, Spin::Spin, Spin::Adaptive { max: Duration::from_micros(50) }] {
            for wait in [Duration::ZERO, Duration::from_nanos(300), Duration::from_millis(3)] {
                let until = Instant::now() + wait;
                assert_eq!(q.wait(&mut events, Wait::until(until).spin(spin)).unwrap(), 0);
                assert!(Instant::now() >= until, "returned before the deadline");
            }
            let past = Instant::now() - Duration::from_secs(1);
            assert_eq!(q.wait(&mut events, Wait::until(past).spin(spin)).unwrap(), 0);
        }
    });
}

#[test]
fn hot_queue__goes_back_to_sleep_and_still_receives() {
    on_both(|backend| {
        let mut q = queue(backend);
        let (source, own) = open(&mut q, "127.0.0.1:0", 1);
        let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buf = [0; 64];
            while let Ok((n, from)) = echo.recv_from(&mut buf) {
                if n == 0 {
                    return;
                }
                // Long enough for the queue to begin looking.
                std::thread::sleep(Duration::from_micros(20));
                echo.send_to(&buf[..n], from).unwrap();
            }
        });
        // Armed first, so that there is something to take out of the kernel.
        q.wait(&mut Events::default(), Wait::now()).unwrap();
        for round in 0..3 {
            for i in 0..100u32 {
                send(&mut q, &source, train(to, 0, &[&i.to_be_bytes()]));
                assert_eq!(receive(&mut q, Spin::Spin, 1)[0].1, i.to_be_bytes());
            }
            assert!(q.stats().spins_paid > 64, "{:?}", q.stats());
            q.wait(&mut Events::default(), Wait::now()).unwrap();
            let other = UdpSocket::bind("127.0.0.1:0").unwrap();
            let late = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                other.send_to(b"late", own).unwrap();
            });
            let spin =
                if round == 1 { Spin::Adaptive { max: Duration::from_micros(50) } } else { Spin::Sleep };
            assert_eq!(receive(&mut q, spin, 1)[0].1, b"late");
            late.join().unwrap();
        }
        for i in 0..100u32 {
            send(&mut q, &source, train(to, 0, &[&i.to_be_bytes()]));
            receive(&mut q, Spin::Spin, 1);
        }
        q.close(source.clone());
        assert!(run(&mut q, Spin::Spin, |_, last, what| last && matches!(what, What::Cancelled { .. })));
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], to).unwrap();
        thread.join().unwrap();
    });
}

/// Messages that never end keep neither what arrives nor what waits for room from its turn.
#[test]
fn flood__of_messages_starves_neither_receives_nor_sends() {
    on_both(|backend| {
        for spin in [Spin::Sleep, Spin::Spin, Spin::Adaptive { max: Duration::from_micros(50) }] {
            let mut q = queue(backend);
            let (source, own) = open(&mut q, "127.0.0.1:0", 1);
            let handle = q.handle();
            let mut events = Events::default();
            for _ in 0..100 {
                q.submit(Token(2), SendMsg { source: source.clone(), train: train(own, 0, &[b"x"]) })
                    .unwrap();
                let (mut sent, mut arrived) = (false, false);
                let until = Instant::now() + PATIENCE;
                while !(sent && arrived) {
                    while handle.post(Message::default()).is_ok() {}
                    q.wait(&mut events, Wait::until(until).spin(spin)).unwrap();
                    assert!(Instant::now() < until, "{spin:?} starved: sent {sent}, arrived {arrived}");
                    for event in events.drain() {
                        sent |= matches!(event.what, What::TrainSent(_));
                        arrived |= matches!(event.what, What::Dgrams(_));
                    }
                }
            }
        }
    });
}

/// A send that waits for room goes on although its queue never sleeps.
#[test]
fn spin__sends_what_waited_for_room() {
    on_both(|backend| {
        let mut q = queue(backend);
        let (source, own) = open(&mut q, "127.0.0.1:0", 1);
        for round in 0..200 {
            q.submit(Token(2), SendMsg { source: source.clone(), train: train(own, 0, &[b"x"]) }).unwrap();
            let (mut sent, mut arrived) = (false, false);
            let done = run(&mut q, Spin::Spin, |_, _, what| {
                sent |= matches!(what, What::TrainSent(_));
                arrived |= matches!(what, What::Dgrams(_));
                sent && arrived
            });
            assert!(done, "round {round} on {backend:?}: sent {sent}, arrived {arrived}");
        }
    });
}
