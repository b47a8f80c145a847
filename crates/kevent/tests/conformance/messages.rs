//! Messages, wake-ups, futures, and sources handed from queue to queue.

use std::future::poll_fn;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use peyk_kevent::{
    Backend, Config, Deliver, Events, Message, Mode, PostError, ReadAt, Recv, Send, SendMode, Spin, Token,
    Wait, What,
};

use crate::common::{Bench, PATIENCE, Scratch, alone, on_both, on_both_once, times};
use crate::shared::Stop;

fn message(producer: u64, number: u64) -> Message {
    Message { token: Token(producer), kind: 1, arg: number, body: None }
}

fn post(handle: &peyk_kevent::Handle, mut message: Message) {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match handle.post(message) {
            Ok(()) => return,
            Err(PostError::Full(back)) => message = back,
            Err(other) => panic!("{other}"),
        }
        std::thread::yield_now();
    }
    panic!("nobody takes messages");
}

#[test]
fn t63__messages_of_each_producer_arrive_in_order() {
    let _alone = alone();
    on_both_once(|backend| {
        let count = times(30_000, 1_000_000);
        let mut bench = Bench::new(backend);
        std::thread::scope(|scope| {
            for producer in 0..8 {
                let handle = bench.q.handle();
                scope.spawn(move || (0..count).for_each(|number| post(&handle, message(producer, number))));
            }
            let mut next = [0u64; 8];
            let mut events = Events::default();
            while next.iter().any(|n| *n < count) {
                assert!(bench.q.wait(&mut events, Wait::until(Instant::now() + PATIENCE)).unwrap() > 0);
                for event in events.drain() {
                    let What::Message(m) = event.what else { panic!("{event:?}") };
                    assert_eq!(m.arg, next[event.token.0 as usize]);
                    next[event.token.0 as usize] += 1;
                }
            }
        });
    });
}

#[test]
fn t64__no_wake_up_is_lost_at_the_brink_of_sleep() {
    let _alone = alone();
    on_both_once(|backend| {
        let rounds = times(20_000, 10_000_000);
        let mut a = Bench::new(backend);
        let to_a = a.q.handle();
        // Strictly in turns: one message lost, and both sleep for ever.
        let (ready, wait_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut bench = Bench::new(backend);
            ready.send(bench.q.handle()).unwrap();
            for number in 0..rounds {
                let What::Message(m) = bench.next().what else { panic!("no message") };
                assert_eq!(m.arg, number);
                to_a.post(message(1, number)).unwrap();
            }
        });
        let to_b = wait_ready.recv().unwrap();
        for number in 0..rounds {
            to_b.post(message(0, number)).unwrap();
            let What::Message(m) = a.next().what else { panic!("no message") };
            assert_eq!(m.arg, number);
        }
        thread.join().unwrap();
    });
}

#[test]
fn t65__full_inlet_refuses_and_drains() {
    on_both(|backend| {
        let mut bench = Bench::with(Config { backend, inlet: 8, ..Config::default() });
        let handle = bench.q.handle();
        for round in 0..3 {
            let mut posted = 0;
            let refused = loop {
                match handle.post(Message { body: Some(Box::new(posted)), ..message(round, posted) }) {
                    Ok(()) => posted += 1,
                    Err(refused) => break refused,
                }
            };
            let PostError::Full(back) = refused else { panic!("{refused}") };
            assert_eq!((posted, back.arg), (8, 8));
            for number in 0..8 {
                let What::Message(m) = bench.next().what else { panic!("no message") };
                assert_eq!(m.body.unwrap().downcast_ref::<u64>(), Some(&number));
            }
        }
    });
}

#[test]
fn t66__wakes_coalesce() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let handle = bench.q.handle();
        for _ in 0..5 {
            handle.wake();
        }
        assert!(matches!(bench.next().what, What::Woken));
        bench.quiet();
    });
}

#[test]
fn t67__queue_that_is_gone_takes_no_messages() {
    on_both(|backend| {
        let bench = Bench::new(backend);
        let handle = bench.q.handle();
        handle.post(message(0, 0)).unwrap();
        drop(bench);
        assert!(matches!(handle.post(message(0, 7)), Err(PostError::Closed(Message { arg: 7, .. }))));
        handle.wake();
    });
}

#[test]
fn t68__flood_of_messages_does_not_starve_sockets() {
    let _alone = alone();
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (handle, over) = (bench.q.handle(), &over);
            let _stop = Stop(over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = handle.post(message(9, 0));
                }
            });
            let (mut got, mut flood) = (0, 0u64);
            while got < 200 {
                theirs.write_all(b"x").unwrap();
                let before = flood;
                loop {
                    let event = bench.next();
                    match event.what {
                        What::Data(_) => break assert_eq!(event.id, Some(recv)),
                        What::Message(_) => flood += 1,
                        other => panic!("{other:?}"),
                    }
                    assert!(flood - before < 1_000_000, "starved");
                }
                got += 1;
            }
        });
    });
}

/// The same, but the inlet is full at every wait: a handful of waits finds everything else.
#[test]
fn t68__inlet_that_is_never_empty_starves_nothing() {
    on_both_once(|backend| {
        for spin in [Spin::Sleep, Spin::Spin, Spin::Adaptive { max: Duration::from_micros(50) }] {
            let mut bench = Bench::new(backend);
            let scratch = Scratch::new("flood");
            let file = bench.file_to_read(&scratch.file("read", b"content"));
            let (ours, mut theirs) = bench.pair();
            let handle = bench.q.handle();
            let recv = bench.recv_stream(1, &ours);
            for _ in 0..10 {
                let read =
                    bench.submit(2, ReadAt { source: file.clone(), buf: vec![0; 7].into(), offset: 0 });
                let sent = bench
                    .submit(3, Send { source: ours.clone(), data: "there".into(), mode: SendMode::Copy });
                theirs.write_all(b"here").unwrap();
                let mut missing = vec![recv, read, sent];
                let until = Instant::now() + PATIENCE;
                while !missing.is_empty() {
                    while handle.post(message(9, 0)).is_ok() {}
                    let found = bench.q.wait(&mut bench.events, Wait::until(until).spin(spin)).unwrap();
                    assert!(found > 0 && Instant::now() < until, "{spin:?} starved {missing:?}");
                    for event in bench.events.drain() {
                        missing.retain(|id| event.id != Some(*id));
                    }
                }
            }
        }
    });
}

#[test]
fn t69__socket_moves_to_another_queue_with_what_it_holds() {
    for (from, to) in [(Backend::Uring, Backend::Epoll), (Backend::Epoll, Backend::Uring)] {
        let (mut a, mut b) = (Bench::new(from), Bench::new(to));
        let (ours, mut theirs) = a.pair();
        theirs.write_all(b"first").unwrap();
        let id = a.submit(0, Recv { source: ours.clone(), mode: Mode::Once });
        assert!(matches!(a.next_of(id), What::Data(buf) if &*buf == b"first"));
        let busy = a.recv_stream(0, &ours);
        let ours = ours.into_fd().unwrap_err();
        a.q.cancel(busy);
        assert!(matches!(a.next_of(busy), What::Cancelled { .. }));
        theirs.write_all(b"second").unwrap();
        let fd = ours.into_fd().unwrap();
        b.q.handle().post(Message { body: Some(Box::new(fd)), ..message(5, 0) }).unwrap();
        let What::Message(m) = b.next().what else { panic!("no message") };
        let source = b.q.adopt(*m.body.unwrap().downcast::<OwnedFd>().unwrap()).unwrap();
        let id = b.recv_stream(0, &source);
        assert!(matches!(b.next_of(id), What::Data(buf) if &*buf == b"second"));
    }
}

/// Completes when told, by any thread.
fn told(by: Arc<Mutex<(Option<Waker>, Option<u32>)>>) -> impl Future<Output = u32> {
    poll_fn(move |cx| {
        let mut state = by.lock().unwrap();
        state.0 = Some(cx.waker().clone());
        state.1.map_or(Poll::Pending, Poll::Ready)
    })
}

#[test]
fn future__completes_beside_a_socket() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let state = Arc::new(Mutex::new((None, None)));
        let id = bench.q.submit(Token(3), Deliver(told(state.clone()))).map_err(|r| r.why).unwrap();
        let (ours, mut theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        theirs.write_all(b"x").unwrap();
        assert!(matches!(bench.next_of(recv), What::Data(_)));
        bench.quiet();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            let mut state = state.lock().unwrap();
            state.1 = Some(42);
            state.0.take().unwrap().wake();
        });
        match bench.next_of(id) {
            What::Output(output) => assert_eq!(output.downcast_ref(), Some(&42u32)),
            other => panic!("{other:?}"),
        }
        thread.join().unwrap();
        let never =
            bench.q.submit(Token(4), Deliver(std::future::pending::<()>())).map_err(|r| r.why).unwrap();
        bench.quiet();
        bench.q.cancel(never);
        assert!(matches!(bench.next_of(never), What::Cancelled { .. }));
        let spin = Wait::until(Instant::now() + Duration::from_millis(5)).spin(Spin::Spin);
        assert_eq!(bench.q.wait(&mut bench.events, spin).unwrap(), 0);
    });
}
