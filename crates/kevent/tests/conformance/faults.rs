//! The queue itself in trouble: rings too small, signals, waits too short, chains that break.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use peyk_kevent::{
    Backend, Chain, Config, Fsync, IoBuf, Mode, Operands, ReadAt, Recv, Refusal, Send, SendMode, Timer,
    Token, Wait, What, When, WriteAt,
};

use crate::common::{Bench, Scratch, in_child, on_both, pattern};

#[test]
fn t70__overflowing_completions_are_not_lost() {
    on_both(|backend| {
        let config = Config { backend, entries: 8, completions: 8, max_events: 1024, ..Config::default() };
        let mut bench = Bench::with(config);
        let mut pairs: Vec<_> = (0..40).map(|_| bench.pair()).collect();
        let ids: Vec<_> =
            pairs.iter().enumerate().map(|(i, (ours, _))| bench.recv_stream(i as u64, ours)).collect();
        bench.quiet();
        for round in 0..5u8 {
            pairs.iter_mut().for_each(|(_, theirs)| theirs.write_all(&[round]).unwrap());
            std::thread::sleep(Duration::from_millis(5));
            let mut seen = vec![0; ids.len()];
            while seen.iter().any(|n| *n < 1) {
                let event = bench.next();
                assert_eq!(event.id, Some(ids[event.token.0 as usize]));
                let What::Data(buf) = event.what else { panic!("{:?}", event.what) };
                assert!(buf.iter().all(|b| *b == round));
                seen[event.token.0 as usize] += buf.len();
            }
            assert!(seen.iter().all(|n| *n == 1));
        }
        if backend == Backend::Uring {
            assert!(bench.q.stats().overflows + bench.q.stats().rearmed > 0, "{:?}", bench.q.stats());
        }
    });
}

#[test]
fn t71__full_submission_ring_is_flushed() {
    on_both(|backend| {
        let mut bench = Bench::with(Config { backend, entries: 8, ..Config::default() });
        let mut pairs: Vec<_> = (0..200).map(|_| bench.pair()).collect();
        for (i, (ours, _)) in pairs.iter().enumerate() {
            bench.submit(i as u64, Recv { source: ours.clone(), mode: Mode::Once });
        }
        pairs.iter_mut().for_each(|(_, theirs)| theirs.write_all(b"x").unwrap());
        let mut seen = vec![false; pairs.len()];
        for _ in 0..pairs.len() {
            let event = bench.next();
            assert!(matches!(event.what, What::Data(_)));
            assert!(!std::mem::replace(&mut seen[event.token.0 as usize], true));
        }
    });
}

extern "C" fn nothing(_: i32) {}

#[test]
fn t72__storm_of_signals_disturbs_nothing() {
    if !in_child("faults::t72__storm_of_signals_disturbs_nothing") {
        return;
    }
    // SAFETY: zero is a value for the record; the handler does nothing; calls are interrupted, not
    // restarted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
        let tick = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let every = libc::itimerval { it_interval: tick, it_value: tick };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const every, std::ptr::null_mut()), 0);
    }
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t72-{backend:?}"));
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        let file = bench.file(&scratch.file("data", &pattern(1 << 20, 1)));
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            retry(|| theirs.write(b"ping"));
            assert!(matches!(bench.next_of(recv), What::Data(buf) if buf.len() == 4));
            let send = Send { source: ours.clone(), data: "pong".into(), mode: SendMode::Copy };
            let id = bench.submit(2, send);
            assert!(matches!(bench.next_of(id), What::Sent { bytes: 4, .. }));
            let mut back = [0; 4];
            let mut got = 0;
            while got < 4 {
                got += retry(|| theirs.read(&mut back[got..]));
            }
            let read = ReadAt { source: file.clone(), buf: vec![0; 1 << 20].into(), offset: 0 };
            let id = bench.submit(3, read);
            assert!(matches!(bench.next_of(id), What::Read { bytes: 1_048_576, .. }));
            let start = Instant::now();
            let wait = Wait::until(start + Duration::from_millis(5));
            assert_eq!(bench.q.wait(&mut bench.events, wait).unwrap(), 0);
            assert!(start.elapsed() >= Duration::from_millis(5), "came back early");
        }
    });
}

fn retry(mut call: impl FnMut() -> std::io::Result<usize>) -> usize {
    loop {
        match call() {
            Ok(n) => return n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn t75__waits_shorter_than_a_microsecond() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, _theirs) = bench.pair();
        bench.recv_stream(1, &ours);
        for nanos in [0, 1, 10, 100, 999] {
            let until = Instant::now() + Duration::from_nanos(nanos);
            assert_eq!(bench.q.wait(&mut bench.events, Wait::until(until)).unwrap(), 0);
            assert!(Instant::now() >= until);
        }
    });
}

#[test]
fn t80__chain_runs_in_order_and_breaks_at_the_first_failure() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t80-{backend:?}"));
        let mut bench = Bench::new(backend);
        let file = bench.file(&scratch.file("data", b""));
        let write = |text: &'static str, offset| WriteAt { source: file.clone(), data: text.into(), offset };
        let mut chain = Chain::new();
        chain.push(Token(1), write("hello ", 0)).unwrap();
        chain.push(Token(2), write("world", 6)).unwrap();
        chain.push(Token(3), Fsync { source: file.clone(), data_only: true }).unwrap();
        chain.push(Token(4), ReadAt { source: file.clone(), buf: vec![0; 11].into(), offset: 0 }).unwrap();
        let ids = bench.q.submit_chain(chain).unwrap();
        for (at, id) in ids.iter().enumerate() {
            let event = bench.next();
            assert_eq!((event.id, event.token.0, event.last), (Some(*id), at as u64 + 1, true));
            if let What::Read { bytes, buf } = event.what {
                assert_eq!(&buf[..bytes], b"hello world");
            }
        }

        // The read is short, which breaks the chain; what was behind comes back, in order.
        let mut chain = Chain::new();
        chain.push(Token(1), ReadAt { source: file.clone(), buf: vec![0; 100].into(), offset: 0 }).unwrap();
        chain.push(Token(2), write("not", 0)).unwrap();
        chain
            .push(Token(3), ReadAt { source: file.clone(), buf: IoBuf::from(vec![7; 5]), offset: 0 })
            .unwrap();
        let ids = bench.q.submit_chain(chain).unwrap();
        assert!(matches!(bench.next_of(ids[0]), What::Read { bytes: 11, .. }));
        let What::Cancelled { done: 0, operands: Operands::Data(data) } = bench.next_of(ids[1]) else {
            panic!()
        };
        assert_eq!(data.to_vec(), b"not");
        let What::Cancelled { done: 0, operands: Operands::Buf(buf) } = bench.next_of(ids[2]) else {
            panic!()
        };
        assert_eq!(&*buf, &[7; 5]);
        assert_eq!(std::fs::read(scratch.0.join("data")).unwrap(), b"hello world");

        // Cancelling one cancels those behind it, and a stream has no place in a chain.
        let (ours, _theirs) = bench.pair();
        let mut chain = Chain::new();
        chain.push(Token(1), Recv { source: ours.clone(), mode: Mode::Once }).unwrap();
        chain.push(Token(2), write("not", 0)).unwrap();
        let ids = bench.q.submit_chain(chain).unwrap();
        bench.quiet();
        bench.q.cancel(ids[0]);
        assert!(matches!(bench.next_of(ids[0]), What::Cancelled { .. }));
        assert!(matches!(bench.next_of(ids[1]), What::Cancelled { .. }));
        let mut chain = Chain::new();
        chain.push(Token(1), Recv { source: ours, mode: Mode::Stream }).unwrap();
        assert_eq!(bench.q.submit_chain(chain).unwrap_err().why, Refusal::Invalid);
        assert_eq!(bench.q.in_flight(), 0);
        let id = bench.submit(0, Timer { at: When::In(Duration::ZERO), every: None });
        assert!(matches!(bench.next_of(id), What::Tick { .. }));
    });
}
