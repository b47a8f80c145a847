//! Readiness, signals, processes, and the queue as a guest of another loop.

use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use peyk_kevent::{
    ChildExit, Events, Interest, Message, Poll, PollMode, Refusal, Signal, Timer, Token, Wait, What, When,
};

use crate::common::{Bench, Scratch, in_child, on_both};

#[test]
fn t76__signals_are_events_instead_of_their_action() {
    if !in_child("watch::t76__signals_are_events_instead_of_their_action") {
        return;
    }
    // Sent from a thread of its own, to this very thread: the harness's main thread blocks nothing.
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let id = bench.submit(1, Signal { signals: vec![libc::SIGUSR1, libc::SIGTERM] });
        bench.quiet();
        for number in [libc::SIGUSR1, libc::SIGTERM, libc::SIGUSR1] {
            // SAFETY: plain numbers; this thread blocks the signal, so it is kept for the queue.
            unsafe { libc::pthread_kill(libc::pthread_self(), number) };
            match bench.next_of(id) {
                What::Signal { number: got, from } => assert_eq!((got, from), (number, std::process::id())),
                other => panic!("{other:?}"),
            }
        }
        bench.q.cancel(id);
        assert!(matches!(bench.next_of(id), What::Cancelled { .. }));
        assert_eq!(
            bench.q.submit(Token(0), Signal { signals: vec![9999] }).unwrap_err().why,
            Refusal::System
        );
    });
}

#[test]
fn child__exit_is_an_event() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        for (script, code, signal) in [("exit 7", Some(7), None), ("kill -9 $$", None, Some(9))] {
            let child =
                std::process::Command::new("sh").args(["-c", &format!("sleep 0.05; {script}")]).spawn();
            let id = bench.submit(1, ChildExit { pid: child.unwrap().id() });
            match bench.next_of(id) {
                What::Exited(status) => {
                    assert_eq!(status.code(), code);
                    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), signal);
                }
                other => panic!("{other:?}"),
            }
        }
        let nobody = ChildExit { pid: 0x7fff_0000 };
        assert_eq!(bench.q.submit(Token(0), nobody).unwrap_err().why, Refusal::System);
    });
}

#[test]
fn poll__once_by_edges_and_by_level() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let poll = |mode| Poll { source: ours.clone(), interest: Interest::READ, mode };
        let once = bench.submit(1, poll(PollMode::Once));
        bench.quiet();
        theirs.write_all(b"x").unwrap();
        assert!(matches!(bench.next_of(once), What::Ready(found) if found.has(Interest::READ)));
        bench.quiet();
        let level = bench.submit(2, poll(PollMode::Level));
        for _ in 0..3 {
            assert!(matches!(bench.next_of(level), What::Ready(_)));
        }
        bench.q.cancel(level);
        assert!(matches!(bench.last_of(level), What::Cancelled { .. }));
        let edge = bench.submit(3, poll(PollMode::Edge));
        assert!(matches!(bench.next_of(edge), What::Ready(_)));
        bench.quiet();
        theirs.write_all(b"y").unwrap();
        assert!(matches!(bench.next_of(edge), What::Ready(_)));
        bench.quiet();
        bench.q.cancel(edge);
        assert!(matches!(bench.next_of(edge), What::Cancelled { .. }));
        let write = bench.submit(4, Poll { source: ours, interest: Interest::WRITE, mode: PollMode::Once });
        assert!(matches!(bench.next_of(write), What::Ready(found) if found.has(Interest::WRITE)));
    });
}

#[test]
fn t79__files_are_always_ready() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t79-{backend:?}"));
        let mut bench = Bench::new(backend);
        let file = bench.file(&scratch.file("data", b"x"));
        for mode in [PollMode::Once, PollMode::Edge, PollMode::Level] {
            let id = bench.submit(0, Poll { source: file.clone(), interest: Interest::READ, mode });
            assert!(matches!(bench.next_of(id), What::Ready(found) if found.has(Interest::READ)), "{mode:?}");
            if mode != PollMode::Once {
                bench.q.cancel(id);
                assert!(matches!(bench.last_of(id), What::Cancelled { .. }));
            }
        }
    });
}

fn readable(fd: i32, ms: i32) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, writable for the call.
    unsafe { libc::poll(&raw mut entry, 1, ms) == 1 }
}

#[test]
fn t77__queue_is_a_guest_of_another_loop() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        let mut events = Events::default();
        let fd = bench.q.guest_fd().unwrap().as_raw_fd();
        assert_eq!(bench.q.wait(&mut events, Wait::now()).unwrap(), 0);
        assert!(!readable(fd, 20));
        for _ in 0..3 {
            theirs.write_all(b"x").unwrap();
            assert!(readable(fd, 2000), "{backend:?}");
            assert!(matches!(bench.next_of(recv), What::Data(_)));
            while bench.q.wait(&mut events, Wait::now()).unwrap() > 0 {}
        }
        // And of an epoll, by edges.
        // SAFETY: no pointers are passed; the descriptor is new and nobody else's.
        let host = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        let mut interest = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 1 };
        // SAFETY: `interest` is readable for the call.
        let added = unsafe { libc::epoll_ctl(host.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut interest) };
        assert_eq!(added, 0);
        for _ in 0..3 {
            theirs.write_all(b"x").unwrap();
            let mut report = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: room for one report.
            let count = unsafe { libc::epoll_wait(host.as_raw_fd(), &raw mut report, 1, 2000) };
            assert_eq!(count, 1, "{backend:?}");
            assert!(matches!(bench.next_of(recv), What::Data(_)));
            while bench.q.wait(&mut events, Wait::now()).unwrap() > 0 {}
        }
        // Messages and wake-ups of other threads are seen, too.
        let handle = bench.q.handle();
        std::thread::spawn(move || handle.post(Message::default()).unwrap()).join().unwrap();
        assert!(readable(fd, 2000), "{backend:?}");
        assert!(matches!(bench.next().what, What::Message(_)));
        let id = bench.submit(0, Timer { at: When::In(std::time::Duration::from_millis(5)), every: None });
        let at = bench.q.next_deadline().unwrap();
        std::thread::sleep(at.saturating_duration_since(std::time::Instant::now()));
        assert!(matches!(bench.next_of(id), What::Tick { .. }));
    });
}
