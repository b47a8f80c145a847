//! Sends without a copy: two phases, and what becomes of them where there is no such thing. On
//! loopback the kernel copies, and says so.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use peyk_kevent::{Backend, Close, CloseMode, Data, Operands, Send, SendMode, What, ZeroCopy};

use crate::common::{Bench, PATIENCE, in_child, leave_root, limit, on_both, on_both_once, pattern};

fn drain(mut theirs: impl Read + std::marker::Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = theirs.read_to_end(&mut all);
        all
    })
}

#[test]
fn t45__memory_comes_back_only_when_the_kernel_is_done() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = bench.pair();
        let reader = drain(theirs);
        let mut expected = Vec::new();
        let mut buf = vec![0; 300_000];
        for round in 0..20 {
            // Scribbled over as soon as it is back.
            buf.copy_from_slice(&pattern(300_000, round));
            expected.extend_from_slice(&buf);
            let op = Send { source: ours.clone(), data: buf.into(), mode: SendMode::ZeroCopy };
            let id = bench.submit(round, op);
            let first = bench.next();
            assert_eq!(first.id, Some(id));
            let data = match (backend, first.what) {
                (Backend::Epoll, What::Sent { bytes: 300_000, data: Some(data) }) => data,
                (_, What::Sent { bytes: 300_000, data: None }) => {
                    assert!(!first.last);
                    match bench.next_of(id) {
                        What::Released(data, how) => {
                            assert_eq!(how, ZeroCopy::Copied, "loopback copies");
                            data
                        }
                        other => panic!("{other:?}"),
                    }
                }
                (_, other) => panic!("{other:?}"),
            };
            let Data::Buf(back) = data else { panic!("another buffer") };
            buf = back.into_vec();
            buf.fill(0xee);
        }
        bench.submit(0, Close { source: ours, mode: CloseMode::Graceful });
        assert!(matches!(bench.next().what, What::Closed));
        assert!(bench.join(reader) == expected);
    });
}

/// Unix sockets refuse, and notify all the same: the send is a copy then (this is t46 as well).
#[test]
fn t48__unix_sockets_get_a_copy() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = bench.q.adopt(OwnedFd::from(ours)).unwrap();
        let reader = drain(theirs);
        let data = pattern(500_000, 1);
        for _ in 0..3 {
            let op = Send { source: ours.clone(), data: data.clone().into(), mode: SendMode::ZeroCopy };
            let id = bench.submit(0, op);
            loop {
                let event = bench.next();
                assert_eq!(event.id, Some(id));
                match event.what {
                    What::Sent { bytes, .. } => assert_eq!(bytes, 500_000),
                    What::Released(_, how) => assert_eq!(how, ZeroCopy::Copied),
                    other => panic!("{other:?}"),
                }
                if event.last {
                    break;
                }
            }
        }
        bench.submit(0, Close { source: ours, mode: CloseMode::Graceful });
        assert!(matches!(bench.next().what, What::Closed));
        assert!(bench.join(reader) == data.repeat(3));
    });
}

#[test]
fn t46__failure_waits_for_the_kernel_to_be_done() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = bench.pair();
        socket2::SockRef::from(&theirs).set_recv_buffer_size(65_536).unwrap();
        let op = Send { source: ours, data: pattern(8 << 20, 1).into(), mode: SendMode::ZeroCopy };
        let id = bench.submit(0, op);
        bench.quiet();
        socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        match bench.next_of(id) {
            What::Failed { done, operands: Operands::Data(data), .. } => {
                assert!(done < 8 << 20);
                assert_eq!(data.len(), 8 << 20);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.q.in_flight(), 0);
    });
}

#[test]
fn t47__auto_gives_up_where_the_route_copies() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = bench.pair();
        let reader = drain(theirs);
        let mut asked = 0;
        for round in 0..64 {
            let op =
                Send { source: ours.clone(), data: pattern(100_000, round).into(), mode: SendMode::Auto };
            let id = bench.submit(0, op);
            let event = bench.next();
            assert!(matches!(event.what, What::Sent { bytes: 100_000, .. }));
            if !event.last {
                asked += 1;
                assert!(matches!(bench.next_of(id), What::Released(_, ZeroCopy::Copied)));
            }
        }
        let expected = if backend == Backend::Uring { 16 } else { 0 };
        assert_eq!(asked, expected, "zero copy was asked for that often");
        bench.submit(0, Close { source: ours, mode: CloseMode::Graceful });
        assert!(matches!(bench.next().what, What::Closed));
        assert_eq!(bench.join(reader).len(), 64 * 100_000);
    });
}

#[test]
fn t49__cancel_and_close_with_notices_outstanding() {
    on_both(|backend| {
        for mode in [CloseMode::Abort, CloseMode::Graceful] {
            let mut bench = Bench::new(backend);
            let (ours, theirs) = bench.pair();
            let ids: Vec<_> = (0..4)
                .map(|i| {
                    let data = pattern(200_000, i).into();
                    bench.submit(i, Send { source: ours.clone(), data, mode: SendMode::ZeroCopy })
                })
                .collect();
            bench.q.flush().unwrap();
            let close = bench.submit(9, Close { source: ours, mode });
            let reader = drain(theirs);
            let mut ends = Vec::new();
            loop {
                let event = bench.next();
                if event.last {
                    ends.push(event.id.unwrap());
                }
                if event.id == Some(close) {
                    break;
                }
            }
            // Each ended once, and the close came last.
            assert_eq!(ends.len(), 5);
            assert!(ids.iter().all(|id| ends.contains(id)));
            assert_eq!(bench.q.in_flight(), 0);
            let len = bench.join(reader).len();
            assert!(mode == CloseMode::Abort || len == 800_000, "{len}");
        }
    });
}

/// The peer takes nothing, so the kernel would read the memory for ever.
#[test]
fn t49__queue_dropped_with_notices_outstanding() {
    on_both(|backend| {
        for abort in [true, false] {
            let mut bench = Bench::new(backend);
            let (ours, theirs) = bench.pair();
            let op =
                Send { source: ours.clone(), data: pattern(200_000, 1).into(), mode: SendMode::ZeroCopy };
            bench.submit(0, op);
            assert!(matches!(bench.next().what, What::Sent { bytes: 200_000, .. }));
            if abort {
                bench.submit(0, Close { source: ours, mode: CloseMode::Abort });
                while !matches!(bench.next().what, What::Closed) {}
                assert_eq!(bench.q.in_flight(), 0);
            } else {
                let Bench { q, .. } = bench;
                q.shutdown(PATIENCE).unwrap();
            }
            drop(theirs);
        }
    });
}

#[test]
fn t50__little_lockable_memory_means_a_copy() {
    if !in_child("zero_copy::t50__little_lockable_memory_means_a_copy") {
        return;
    }
    limit(libc::RLIMIT_MEMLOCK, 64 << 10);
    leave_root();
    on_both_once(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = bench.pair();
        let reader = drain(theirs);
        let data = pattern(1 << 20, 1);
        let op = Send { source: ours.clone(), data: data.clone().into(), mode: SendMode::ZeroCopy };
        let id = bench.submit(0, op);
        loop {
            let event = bench.next();
            assert_eq!(event.id, Some(id));
            assert!(matches!(event.what, What::Sent { .. } | What::Released(..)), "{event:?}");
            if event.last {
                break;
            }
        }
        bench.submit(0, Close { source: ours, mode: CloseMode::Graceful });
        assert!(matches!(bench.next().what, What::Closed));
        assert!(bench.join(reader) == data);
    });
}

#[test]
fn t50b__short_sends_are_copied_and_do_not_wait_for_acknowledgements() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = bench.pair();
        let reader = drain(theirs);
        for i in 0..200 {
            let op = Send { source: ours.clone(), data: pattern(4096, i).into(), mode: SendMode::Auto };
            let id = bench.submit(i, op);
            assert!(matches!(bench.next_of(id), What::Sent { bytes: 4096, data: Some(_) }));
        }
        bench.submit(0, Close { source: ours, mode: CloseMode::Graceful });
        assert!(matches!(bench.next().what, What::Closed));
        assert_eq!(bench.join(reader).len(), 200 * 4096);
    });
}
