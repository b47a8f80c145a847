//! The life of an operation: cancelled early, late and twice; refused; many at once; torn down.

use std::io::{Read, Write};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use peyk_kevent::{
    Accept, Backend, Cancel, Config, Data, Events, Interest, Mode, OpenAt, OpenOptions, Operands, Poll,
    PollMode, Recv, Refusal, Send, SendMode, Timer, Token, Wait, What, When,
};

use crate::common::{
    Bench, PATIENCE, Scratch, alone, in_child, in_child_with, on_both, open_fds, pattern, settled_fds, times,
};

#[test]
fn t12__cancel_before_the_kernel_knows() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let id = bench.recv_stream(1, &ours);
        assert_eq!(bench.q.cancel(id), Cancel::Requested);
        assert!(matches!(bench.next_of(id), What::Cancelled { done: 0, operands: Operands::None }));
        bench.quiet();
        let id = bench.recv_stream(2, &ours);
        theirs.write_all(b"x").unwrap();
        assert!(matches!(bench.next_of(id), What::Data(_)));
    });
}

#[test]
fn t13__cancel_racing_completion_loses_nothing() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let (mut data, mut cancelled) = (0u32, 0u32);
        let mut sent = 0u32;
        let rounds = 1000;
        for round in 0..rounds {
            let id = bench.submit(round, Recv { source: ours.clone(), mode: Mode::Once });
            bench.q.wait(&mut bench.events, Wait::now()).unwrap();
            let race = round % 3;
            if race != 1 {
                theirs.write_all(b"x").unwrap();
                sent += 1;
            }
            if race != 2 {
                bench.q.cancel(id);
            }
            match bench.next_of(id) {
                What::Data(buf) => data += buf.len() as u32,
                What::Cancelled { .. } => cancelled += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(data > 0 && cancelled > 0, "{data} {cancelled}");
        // What was not received before the cancellation is still there.
        while data < sent {
            let id = bench.submit(0, Recv { source: ours.clone(), mode: Mode::Once });
            match bench.next_of(id) {
                What::Data(buf) => data += buf.len() as u32,
                other => panic!("{other:?} after {data} of {sent}"),
            }
        }
        assert_eq!(data, sent);
    });
}

#[test]
fn t14__cancel_twice_and_after_the_end() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, _theirs) = bench.pair();
        let id = bench.recv_stream(1, &ours);
        bench.quiet();
        assert_eq!(bench.q.cancel(id), Cancel::Requested);
        bench.q.cancel(id);
        assert!(matches!(bench.next_of(id), What::Cancelled { .. }));
        assert_eq!(bench.q.cancel(id), Cancel::AlreadyDone);
        bench.quiet();
    });
}

#[test]
fn t15__cancel_of_a_stale_id_hits_nobody() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let old = bench.recv_stream(1, &ours);
        bench.q.cancel(old);
        assert!(matches!(bench.next_of(old), What::Cancelled { .. }));
        let new = bench.recv_stream(2, &ours);
        assert_ne!(old, new);
        assert_eq!(bench.q.cancel(old), Cancel::AlreadyDone);
        theirs.write_all(b"x").unwrap();
        assert!(matches!(bench.next_of(new), What::Data(_)));
    });
}

#[test]
fn t16__cancelled_stream_delivers_what_it_took() {
    on_both(|backend| {
        for round in 0..20 {
            let mut bench = Bench::new(backend);
            let (ours, mut theirs) = bench.pair();
            let first = bench.recv_stream(1, &ours);
            bench.q.wait(&mut bench.events, Wait::now()).unwrap();
            let data = pattern(200_000, round);
            let copy = data.clone();
            let writer = std::thread::spawn(move || theirs.write_all(&copy).map(|()| theirs));
            std::thread::sleep(Duration::from_micros(100 * round));
            bench.q.cancel(first);
            let mut all = Vec::new();
            let mut id = first;
            loop {
                let event = bench.next();
                assert_eq!(event.id, Some(id));
                match event.what {
                    What::Data(buf) => all.extend_from_slice(&buf),
                    What::Cancelled { .. } => id = bench.recv_stream(2, &ours),
                    other => panic!("{other:?}"),
                }
                if all.len() == data.len() {
                    break;
                }
            }
            assert!(all == data);
            drop(writer.join().unwrap().unwrap());
        }
    });
}

#[test]
fn t17__cancelled_accept_leaks_no_connection() {
    let _alone = alone();
    if !in_child("life::t17__cancelled_accept_leaks_no_connection") {
        return;
    }
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (listener, addr) = bench.listener();
        let before = open_fds();
        for round in 0..100 {
            let mode = if round % 2 == 0 { Mode::Once } else { Mode::Stream };
            let id = bench.submit(0, Accept { source: listener.clone(), mode });
            bench.q.wait(&mut bench.events, Wait::now()).unwrap();
            let client = std::net::TcpStream::connect(addr).unwrap();
            bench.q.cancel(id);
            drop(client);
            // Delivered or cancelled; a connection that was delivered is ours to close.
            bench.last_of(id);
        }
        let rest = bench.submit(0, Accept { source: listener.clone(), mode: Mode::Stream });
        while bench.try_next(Duration::from_millis(20)).is_some() {}
        bench.q.cancel(rest);
        bench.last_of(rest);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn t18__cancelled_receive_gives_its_block_back() {
    on_both(|backend| {
        let config = Config { backend, stream_blocks: 4, ..Config::default() };
        let mut bench = Bench::with(config);
        let (ours, mut theirs) = bench.pair();
        // Many more than there are blocks; at every other one, data races with the cancellation.
        let (mut sent, mut got) = (0, 0);
        for round in 0..50 {
            let mode = if round % 4 < 2 { Mode::Once } else { Mode::Stream };
            let id = bench.submit(0, Recv { source: ours.clone(), mode });
            bench.q.wait(&mut bench.events, Wait::now()).unwrap();
            if round % 2 == 0 {
                theirs.write_all(&[1; 100]).unwrap();
                sent += 100;
            }
            bench.q.cancel(id);
            loop {
                let event = bench.next();
                assert_eq!(event.id, Some(id));
                if let What::Data(buf) = &event.what {
                    got += buf.len();
                }
                if event.last {
                    break;
                }
            }
        }
        assert_eq!(bench.q.leased_blocks(), 0);
        let id = bench.recv_stream(0, &ours);
        theirs.write_all(&[1; 100]).unwrap();
        while got < sent + 100 {
            match bench.next_of(id) {
                What::Data(buf) => got += buf.len(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((got, bench.q.leased_blocks()), (sent + 100, 0));
    });
}

#[test]
fn t20__refused_operation_comes_back_as_it_was() {
    on_both(|backend| {
        let mut bench = Bench::with(Config { backend, max_ops: 2, ..Config::default() });
        let (ours, _theirs) = bench.pair();
        bench.submit(0, Timer { at: When::In(PATIENCE), every: None });
        bench.submit(0, Timer { at: When::In(PATIENCE), every: None });
        let data = pattern(1000, 1);
        let address = data.as_ptr();
        let send = Send { source: ours.clone(), data: data.into(), mode: SendMode::Copy };
        let refused = bench.q.submit(Token(1), send).unwrap_err();
        assert_eq!(refused.why, Refusal::Full);
        match refused.op.data {
            Data::Buf(buf) => assert_eq!((buf.as_ptr(), buf.len()), (address, 1000)),
            other => panic!("{other:?}"),
        }
        // A file operation on a socket makes no sense.
        let mut roomy = Bench::new(backend);
        let (ours, _theirs) = roomy.pair();
        let read = peyk_kevent::ReadAt { source: ours, buf: vec![0; 8].into(), offset: 0 };
        let refused = roomy.q.submit(Token(1), read).unwrap_err();
        assert_eq!((refused.why, refused.op.buf.len()), (Refusal::Invalid, 8));
    });
}

#[test]
fn t21__panic_in_a_handler_keeps_the_other_events() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let handle = bench.q.handle();
        for kind in 0..4 {
            handle.post(peyk_kevent::Message { kind, ..Default::default() }).unwrap();
        }
        bench.q.wait(&mut bench.events, Wait::forever()).unwrap();
        let events = &mut bench.events;
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            for (i, _) in events.drain().enumerate() {
                assert!(i < 1, "the handler of the second event fails");
            }
        }));
        assert!(panicked.is_err());
        assert_eq!(bench.events.len(), 2);
        let kinds: Vec<u32> = bench
            .events
            .drain()
            .map(|event| match event.what {
                What::Message(message) => message.kind,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, [2, 3]);
        let (ours, mut theirs) = bench.pair();
        let id = bench.recv_stream(0, &ours);
        theirs.write_all(b"x").unwrap();
        assert!(matches!(bench.next_of(id), What::Data(_)));
    });
}

#[test]
fn t22__submit_while_taking_events() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        bench.recv_stream(0, &ours);
        theirs.write_all(b"ping").unwrap();
        let mut sent = 0;
        let mut events = Events::default();
        while sent < 10 {
            bench.q.wait(&mut events, Wait::forever()).unwrap();
            for event in events.drain() {
                match event.what {
                    What::Data(buf) => {
                        let send = Send { source: ours.clone(), data: buf.into(), mode: SendMode::Copy };
                        bench.q.submit(Token(1), send).unwrap();
                    }
                    What::Sent { .. } => {
                        sent += 1;
                        let mut back = [0; 4];
                        theirs.read_exact(&mut back).unwrap();
                        theirs.write_all(&back).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}

#[test]
fn t23__wait_for_a_batch_or_a_window_or_a_deadline() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let start = Instant::now();
        for after in [5, 10, 15, 400] {
            bench.submit(after, Timer { at: When::In(Duration::from_millis(after)), every: None });
        }
        let mut events = Events::default();
        // Three come within the window.
        let wait = Wait::until(start + PATIENCE).batch(3, Duration::from_millis(100));
        assert_eq!(bench.q.wait(&mut events, wait).unwrap(), 3);
        assert!(start.elapsed() < Duration::from_millis(400));
        // The window closes before there are two.
        let wait = Wait::until(start + PATIENCE).batch(2, Duration::from_millis(1));
        assert_eq!(bench.q.wait(&mut events, wait).unwrap(), 1);
        assert!(start.elapsed() >= Duration::from_millis(400));
        // Nothing comes before the deadline, be it now, past, or near.
        for wait in [Wait::now(), Wait::until(start), Wait::until(Instant::now() + Duration::from_millis(3))]
        {
            assert_eq!(bench.q.wait(&mut events, wait.batch(5, PATIENCE)).unwrap(), 0);
        }
        assert_eq!(events.len(), 4);
    });
    // No more at a time than the queue is told; the rest is there for the next wait.
    on_both(|backend| {
        let mut bench = Bench::with(Config { backend, max_events: 3, ..Config::default() });
        for token in 0..8 {
            bench.q.submit(Token(token), Timer { at: When::In(Duration::ZERO), every: None }).unwrap();
        }
        let (mut events, mut seen) = (Events::default(), 0);
        while seen < 8 {
            let wait = Wait::until(Instant::now() + PATIENCE).batch(8, Duration::from_millis(50));
            let count = bench.q.wait(&mut events, wait).unwrap();
            assert!((1..=3).contains(&count), "{count}");
            seen += events.drain().count();
        }
        assert_eq!((seen, bench.q.in_flight()), (8, 0));
        // The last wait found two and waited for a third in vain: asleep.
        assert!(bench.q.stats().sleeps < 20, "{:?}", bench.q.stats());
    });
}

#[test]
fn t24__shutdown_with_a_thousand_operations() {
    let _alone = alone();
    if !in_child("life::t24__shutdown_with_a_thousand_operations") {
        return;
    }
    on_both(|backend| {
        let before = open_fds();
        let mut bench = Bench::with(Config { backend, max_ops: 2000, ..Config::default() });
        let pairs: Vec<_> = (0..100).map(|_| bench.pair()).collect();
        for (i, (ours, _)) in pairs.iter().enumerate() {
            bench.recv_stream(i as u64, ours);
            for _ in 0..8 {
                let poll = Poll { source: ours.clone(), interest: Interest::READ, mode: PollMode::Once };
                bench.submit(i as u64, poll);
            }
            bench.submit(i as u64, Timer { at: When::In(PATIENCE), every: None });
        }
        bench.quiet();
        assert_eq!(bench.q.in_flight(), 1000);
        let Bench { q, .. } = bench;
        q.shutdown(PATIENCE).unwrap();
        drop(pairs);
        settled_fds(before);
    });
}

/// On epoll a worker that hangs in the kernel cannot be recalled: its memory is leaked, and said to
/// be. The ring can recall its workers.
#[test]
fn t25__shutdown_past_its_deadline_leaks_and_says_so() {
    // The leak is what is tested: a sanitizer need not tell.
    let name = "life::t25__shutdown_past_its_deadline_leaks_and_says_so";
    if !in_child_with(name, &[("ASAN_OPTIONS", "detect_leaks=0")]) {
        return;
    }
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t25-{backend:?}"));
        let lease = scratch.leased("held");
        let mut bench = Bench::new(backend);
        bench.submit(0, OpenAt { path: lease.path.clone(), options: OpenOptions::default() });
        bench.quiet();
        let Bench { q, .. } = bench;
        let result = q.shutdown(Duration::from_millis(200));
        match backend {
            Backend::Epoll => assert_eq!(result.unwrap_err().operations, 1),
            _ => result.unwrap(),
        }
        // Lets the worker go.
        drop(lease);
    });
}

#[test]
fn t26__drop_under_traffic_touches_no_freed_memory() {
    let _alone = alone();
    on_both(|backend| {
        let rounds = times(16, 500);
        for round in 0..rounds {
            let mut bench = Bench::new(backend);
            let (ours, mut theirs) = bench.pair();
            bench.recv_stream(0, &ours);
            bench.q.wait(&mut bench.events, Wait::now()).unwrap();
            let writer = std::thread::spawn(move || while theirs.write_all(&[7; 10_000]).is_ok() {});
            let data = pattern(1 << 20, 1);
            bench.submit(1, Send { source: ours, data: data.into(), mode: SendMode::Auto });
            for _ in 0..round % 4 {
                bench
                    .q
                    .wait(&mut bench.events, Wait::until(Instant::now() + Duration::from_millis(1)))
                    .unwrap();
            }
            let held: Vec<_> = bench.events.drain().collect();
            drop(bench);
            // Memory that was the queue's; late writes would show, or trip the sanitizer.
            let canary = vec![0xa5u8; 4 << 20];
            writer.join().unwrap();
            assert!(canary.iter().all(|b| *b == 0xa5));
            for event in held {
                if let What::Data(buf) = event.what {
                    assert!(buf.iter().all(|b| *b == 7));
                }
            }
        }
    });
}
