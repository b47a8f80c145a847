//! Stream sockets.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use peyk_kevent::{
    Accept, Backend, Close, CloseMode, Config, Connect, IoBuf, Mode, Operands, Recv, RecvInto, Refusal, Send,
    SendMode, Shutdown, Source, Token, What,
};

use crate::common::{Bench, PATIENCE, alone, in_child, on_both, open_fds, pattern, settled_fds, times};
use crate::shared::Timing;

fn send(
    bench: &mut Bench,
    token: u64,
    source: &Source,
    data: impl Into<peyk_kevent::Data>,
) -> peyk_kevent::OpId {
    bench.submit(token, Send { source: source.clone(), data: data.into(), mode: SendMode::Copy })
}

/// Makes the reader slow to take: not too small, or each window waits for a delayed acknowledgement.
fn narrow(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_recv_buffer_size(65_536).unwrap();
}

#[test]
fn t27__accept_stream_loses_no_connection() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (listener, addr) = bench.listener();
        let accept = bench.submit(7, Accept { source: listener, mode: Mode::Stream });
        let count = times(400, 10_000) as usize;
        let client = std::thread::spawn(move || {
            (0..count)
                .map(|_| TcpStream::connect(addr).unwrap().local_addr().unwrap())
                .collect::<HashSet<_>>()
        });
        let mut peers = HashSet::new();
        for _ in 0..count {
            match bench.next_of(accept) {
                What::Accepted(source) => drop(peers.insert(source.peer_addr().unwrap_or(addr))),
                other => panic!("{other:?}"),
            }
        }
        let clients = client.join().unwrap();
        // Those whose client was gone already have no address left to tell.
        assert!(peers.iter().all(|p| clients.contains(p) || *p == addr));
        bench.q.cancel(accept);
        assert!(matches!(bench.next_of(accept), What::Cancelled { .. }));
    });
}

#[test]
fn t28__accept_pauses_without_descriptors_and_resumes() {
    if !in_child("sockets::t28__accept_pauses_without_descriptors_and_resumes") {
        return;
    }
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (listener, addr) = bench.listener();
        let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is writable for the call.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
        let tight = libc::rlimit { rlim_cur: 64, ..limit };
        // SAFETY: `tight` is readable for the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const tight) }, 0);
        let mut hogs: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        let accept = bench.submit(0, Accept { source: listener, mode: Mode::Stream });
        assert!(bench.try_next(Duration::from_millis(100)).is_none());
        let paused = bench.q.stats().paused;
        assert!(paused > 0 && paused < 20, "{:?}", bench.q.stats());
        hogs.truncate(hogs.len() - 3);
        for _ in 0..3 {
            assert!(matches!(bench.next_of(accept), What::Accepted(_)));
        }
        // SAFETY: `limit` is readable for the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        drop((clients, hogs));
    });
}

/// A network namespace of this thread's own knows no way to anywhere. And a peer that does not answer:
/// a full backlog drops what comes, and the kernel gives up when it is told to.
#[test]
fn t29__connect_finds_no_way_and_no_answer() {
    if !in_child("sockets::t29__connect_finds_no_way_and_no_answer") {
        return;
    }
    let fails = |bench: &mut Bench, source: Source, to, errno| {
        let id = bench.submit(0, Connect { source: source.clone(), to });
        match bench.next_of(id) {
            What::Failed { error, done: 0, .. } => assert_eq!(error.raw_os_error(), Some(errno), "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.q.in_flight(), 0);
        let close = bench.submit(0, Close { source, mode: CloseMode::Abort });
        assert!(matches!(bench.last_of(close), What::Closed));
    };
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let to = full.local_addr().unwrap().as_socket().unwrap();
        let _first = TcpStream::connect(to).unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_tcp_user_timeout(Some(Duration::from_millis(100))).unwrap();
        let source = bench.q.adopt(OwnedFd::from(socket)).unwrap();
        fails(&mut bench, source, to, libc::ETIMEDOUT);
    });
    // SAFETY: plain numbers; the namespace of this thread of a process of its own.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("!!! SKIPPED: an unreachable network needs the right to make a namespace");
        return;
    }
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let source = stream_socket(&mut bench);
        fails(&mut bench, source, SocketAddr::from(([192, 0, 2, 1], 9)), libc::ENETUNREACH);
    });
}

fn stream_socket(bench: &mut Bench) -> Source {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bench.q.adopt(OwnedFd::from(socket)).unwrap()
}

#[test]
fn t29__connect_succeeds_is_refused_and_is_cancelled() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (_listener, addr) = bench.listener();
        let source = stream_socket(&mut bench);
        let id = bench.submit(0, Connect { source: source.clone(), to: addr });
        assert!(matches!(bench.next_of(id), What::Connected));
        assert_eq!(source.peer_addr().unwrap(), addr);

        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let source = stream_socket(&mut bench);
        let id = bench.submit(0, Connect { source, to: gone });
        match bench.next_of(id) {
            What::Failed { error, .. } => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
            other => panic!("{other:?}"),
        }

        // A full backlog leaves a connection waiting.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let to = full.local_addr().unwrap().as_socket().unwrap();
        let _first = TcpStream::connect(to).unwrap();
        let source = stream_socket(&mut bench);
        let id = bench.submit(0, Connect { source, to });
        bench.quiet();
        bench.q.cancel(id);
        assert!(matches!(bench.next_of(id), What::Cancelled { .. }));
    });
}

#[test]
fn t30__echo_of_all_sizes() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        let mut reader = theirs.try_clone().unwrap();
        let sizes = [1usize, 2, 100, 4096, 65_536, 100_000, 1 << 20, 8 << 20];
        let total: usize = sizes.iter().sum();
        let writer = std::thread::spawn(move || {
            sizes.iter().for_each(|size| theirs.write_all(&pattern(*size, *size as u64)).unwrap());
            theirs
        });
        let checker = std::thread::spawn(move || {
            for size in sizes {
                let mut back = vec![0; size];
                reader.read_exact(&mut back).unwrap();
                assert!(back == pattern(size, size as u64), "{size}");
            }
        });
        let (mut received, mut sent) = (0, 0);
        while sent < total as u64 {
            let event = bench.next();
            match event.what {
                What::Data(buf) => {
                    assert_eq!(event.id, Some(recv));
                    received += buf.len();
                    send(&mut bench, 2, &ours, buf);
                }
                What::Sent { bytes, .. } => sent += bytes,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(received, total);
        checker.join().unwrap();
        drop(writer.join().unwrap());
        assert!(matches!(bench.last_of(recv), What::Eof));
        assert_eq!((bench.q.in_flight(), bench.q.leased_blocks()), (0, 0));
    });
}

#[test]
fn t31__long_send_to_a_slow_reader_is_one_event_in_order() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        narrow(&theirs);
        let (long, short) = (pattern(4 << 20, 1), pattern(100, 2));
        let first = send(&mut bench, 1, &ours, long.clone());
        let second = send(&mut bench, 2, &ours, short.clone());
        let third = bench.submit(3, Shutdown { source: ours, how: std::net::Shutdown::Write });
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut piece = [0; 30_000];
            while let Ok(n @ 1..) = theirs.read(&mut piece) {
                all.extend_from_slice(&piece[..n]);
                if all.len() % 16 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            all
        });
        assert!(matches!(bench.next_of(first), What::Sent { bytes, data: Some(_) } if bytes == 4 << 20));
        assert!(matches!(bench.next_of(second), What::Sent { bytes: 100, .. }));
        assert!(matches!(bench.next_of(third), What::Done));
        assert!(bench.join(reader) == [long, short].concat());
    });
}

#[test]
fn t32__peer_reset_in_mid_send_says_how_much_left() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = bench.pair();
        narrow(&theirs);
        let data = pattern(16 << 20, 1);
        let address = data.as_ptr();
        let id = send(&mut bench, 1, &ours, data);
        let behind = send(&mut bench, 2, &ours, "behind");
        bench.quiet();
        // What the peer took has left for sure.
        let mut taken = vec![0; 3 << 20];
        (&*theirs).read_exact(&mut taken).unwrap();
        assert!(taken == pattern(16 << 20, 1)[..3 << 20]);
        bench.quiet();
        socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        match bench.next_of(id) {
            What::Failed { error, done, operands: Operands::Data(data) } => {
                let kind = error.kind();
                assert!(
                    matches!(kind, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
                    "{error}"
                );
                assert!((3 << 20..16 << 20).contains(&done), "{done}");
                let peyk_kevent::Data::Buf(buf) = data else { panic!("another buffer") };
                assert_eq!(buf.as_ptr(), address);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(bench.next_of(behind), What::Failed { done: 0, .. }));
    });
}

#[test]
fn t33__half_close_both_ways() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        theirs.write_all(b"last words").unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(bench.next_of(recv), What::Data(buf) if &*buf == b"last words"));
        assert!(matches!(bench.next_of(recv), What::Eof));
        let id = send(&mut bench, 2, &ours, "answer");
        assert!(matches!(bench.next_of(id), What::Sent { bytes: 6, .. }));
        let id = bench.submit(3, Shutdown { source: ours, how: std::net::Shutdown::Write });
        assert!(matches!(bench.next_of(id), What::Done));
        let all = bench.read_to_end(theirs);
        assert_eq!(all, b"answer");
    });
}

#[test]
fn t34__broken_pipe_raises_no_signal() {
    if !in_child("sockets::t34__broken_pipe_raises_no_signal") {
        return;
    }
    // SAFETY: the default action, death, is what the test would show.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = bench.pair();
        drop(theirs);
        let mut failed = false;
        for _ in 0..50 {
            let id = send(&mut bench, 1, &ours, "anyone?");
            failed |= matches!(bench.next_of(id), What::Failed { .. });
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(failed);
    });
}

#[test]
fn t35__reused_descriptor_gets_its_own_data_only() {
    let _alone = alone();
    if !in_child("sockets::t35__reused_descriptor_gets_its_own_data_only") {
        return;
    }
    on_both(|backend| {
        for mode in [CloseMode::Abort, CloseMode::Graceful] {
            let mut bench = Bench::new(backend);
            let (a, mut a_peer) = bench.pair();
            let fd = a.local_addr().map(|_| raw_of(&a)).unwrap();
            let recv = bench.recv_stream(1, &a);
            bench.quiet();
            let close = bench.submit(2, Close { source: a.clone(), mode });
            let mut seen = Vec::new();
            while seen.len() < 2 {
                let event = bench.next();
                assert!(event.last);
                seen.push((event.id, format!("{:?}", event.what)));
            }
            assert_eq!(seen[0].0, Some(recv), "{seen:?}");
            assert!(seen[0].1.starts_with("Cancelled"), "{seen:?}");
            assert_eq!(seen[1], (Some(close), "Closed".to_owned()));
            assert!(a.is_closed());
            let refused = bench.q.submit(Token(0), Recv { source: a.clone(), mode: Mode::Once }).unwrap_err();
            assert_eq!(refused.why, Refusal::Closed);
            // The number is free for the next one.
            let (b, mut b_peer) = bench.pair();
            let numbers = [raw_of(&b), b_peer.as_raw_fd()];
            let free = Timing::now() == Timing::Delayed || numbers.contains(&fd);
            assert!(free || numbers.iter().any(|n| *n > fd), "{fd} {numbers:?}");
            let recv = bench.recv_stream(3, &b);
            let _ = a_peer.write_all(b"stale");
            b_peer.write_all(b"fresh").unwrap();
            assert!(matches!(bench.next_of(recv), What::Data(buf) if &*buf == b"fresh"));
        }
    });
}

/// The number behind a source: found by the address of its socket.
fn raw_of(source: &Source) -> i32 {
    let addr = source.local_addr().unwrap();
    let peer = source.peer_addr().unwrap();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let Ok(fd) = entry.unwrap().file_name().to_str().unwrap().parse::<i32>() else { continue };
        // SAFETY: the number is only asked for its addresses, within this call.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let socket = socket2::SockRef::from(&socket);
        let own = socket.local_addr().ok().and_then(|a| a.as_socket());
        if own == Some(addr) && socket.peer_addr().ok().and_then(|a| a.as_socket()) == Some(peer) {
            return fd;
        }
    }
    panic!("no descriptor with address {addr}");
}

#[test]
fn t36__graceful_close_flushes_and_abort_gives_back() {
    on_both(|backend| {
        for mode in [CloseMode::Graceful, CloseMode::Abort] {
            let mut bench = Bench::new(backend);
            let (ours, mut theirs) = bench.pair();
            narrow(&theirs);
            let recv = bench.recv_stream(0, &ours);
            let data = pattern(8 << 20, 1);
            let ids = [send(&mut bench, 1, &ours, data.clone()), send(&mut bench, 2, &ours, "tail")];
            bench.quiet();
            let close = bench.submit(3, Close { source: ours, mode });
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                let _ = theirs.read_to_end(&mut all);
                all
            });
            let (mut sent, mut back) = (0, 0);
            loop {
                let event = bench.next();
                match event.what {
                    What::Sent { .. } => sent += 1,
                    What::Cancelled { .. } if event.id == Some(recv) => {}
                    What::Cancelled { operands: Operands::Data(_), .. } => back += 1,
                    What::Closed => break assert_eq!(event.id, Some(close)),
                    other => panic!("{other:?} of {ids:?}"),
                }
            }
            let all = bench.join(reader);
            if mode == CloseMode::Graceful {
                assert_eq!((sent, back), (2, 0));
                assert!(all == [data, b"tail".to_vec()].concat());
            } else {
                assert_eq!((sent, back), (0, 2));
                assert!(all.len() < 8 << 20 && all == data[..all.len()]);
            }
        }
    });
}

/// Misuse: somebody puts another socket in the place of one that is in use. Neither backend is told.
/// The ring goes on with the old socket, which it holds; epoll forgets it. There is no error event, but
/// nothing of the other socket reaches the operation, and it ends when cancelled.
#[test]
fn t37__number_taken_behind_the_queues_back_is_not_cross_talk() {
    let _alone = alone();
    if !in_child("sockets::t37__number_taken_behind_the_queues_back_is_not_cross_talk") {
        return;
    }
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (a, _a_peer) = bench.pair();
        let recv = bench.recv_stream(1, &a);
        bench.quiet();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut b_peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let b = listener.accept().unwrap().0;
        // SAFETY: plain numbers; both are open, and who owns them is what the test is about.
        assert!(unsafe { libc::dup2(b.as_raw_fd(), raw_of(&a)) } >= 0);
        b_peer.write_all(b"not for a").unwrap();
        bench.quiet();
        bench.q.cancel(recv);
        assert!(matches!(bench.next_of(recv), What::Cancelled { .. }));
        bench.quiet();
        // Who asks for the number's data from now on gets those of the socket that is there.
        let recv = bench.recv_stream(2, &a);
        assert!(matches!(bench.next_of(recv), What::Data(buf) if &*buf == b"not for a"));
    });
}

#[test]
fn t38__exhausted_blocks_stall_the_stream_without_loss() {
    on_both(|backend| {
        let config = Config { backend, stream_blocks: 4, stream_block: 4096, ..Config::default() };
        let mut bench = Bench::with(config);
        let (ours, mut theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        let data = pattern(100_000, 3);
        let expected = data.clone();
        let writer = std::thread::spawn(move || theirs.write_all(&data).map(|()| theirs).unwrap());
        // Holding every lease starves the stream; it must neither spin nor fail.
        let mut held = Vec::new();
        while let Some(event) = bench.try_next(Duration::from_millis(50)) {
            held.push(event);
        }
        assert_eq!(held.len(), 4);
        assert_eq!(bench.q.leased_blocks(), 4);
        let stats = bench.q.stats();
        assert!(stats.starved > 0 && stats.starved < 10, "{stats:?}");
        let mut all = Vec::new();
        for event in held {
            let What::Data(buf) = event.what else { panic!("{event:?}") };
            all.extend_from_slice(&buf);
        }
        while all.len() < expected.len() {
            match bench.next_of(recv) {
                What::Data(buf) => all.extend_from_slice(&buf),
                other => panic!("{other:?}"),
            }
        }
        assert!(all == expected);
        drop(writer.join().unwrap());
        assert!(matches!(bench.next_of(recv), What::Eof));
        assert_eq!(bench.q.leased_blocks(), 0);
    });
}

#[test]
fn t39__greedy_stream_leaves_turns_to_the_others() {
    on_both(|backend| {
        let mut bench = Bench::with(Config { backend, max_events: 16, ..Config::default() });
        let (greedy, mut source) = bench.pair();
        let hose = std::thread::spawn(move || while source.write_all(&[0; 65_536]).is_ok() {});
        bench.recv_stream(0, &greedy);
        let mut quiet: Vec<_> = (0..100).map(|_| bench.pair()).collect();
        for (i, (ours, _)) in quiet.iter().enumerate() {
            bench.recv_stream(1 + i as u64, ours);
        }
        let mut between = Vec::new();
        for round in 0..300 {
            quiet[round % 100].1.write_all(b"x").unwrap();
            let mut greedy_events = 0u32;
            loop {
                let event = bench.next();
                assert!(matches!(event.what, What::Data(_)), "{event:?}");
                if event.token.0 > 0 {
                    assert_eq!(event.token.0, 1 + round as u64 % 100);
                    break;
                }
                greedy_events += 1;
            }
            between.push(greedy_events);
        }
        // Not the worst: on a busy machine a byte may be late in the kernel itself.
        between.sort_unstable();
        let usual = between[between.len() / 2];
        println!("greedy events before a quiet one: usually {usual}, at most {:?}", between.last());
        assert!(usual < 100, "usually {usual} events of the greedy one in a row");
        bench.submit(0, Close { source: greedy, mode: CloseMode::Abort });
        while !matches!(bench.next().what, What::Closed) {}
        hose.join().unwrap();
    });
}

#[test]
fn t44__churn_of_short_connections_leaves_nothing_behind() {
    let _alone = alone();
    if !in_child("sockets::t44__churn_of_short_connections_leaves_nothing_behind") {
        return;
    }
    let count = times(1500, 30_000) as usize;
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (listener, addr) = bench.listener();
        let accept = bench.submit(0, Accept { source: listener, mode: Mode::Stream });
        bench.quiet();
        let before = open_fds();
        let client = std::thread::spawn(move || {
            for i in 0..count {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(b"request").unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                assert_eq!(answer, b"response", "connection {i}");
            }
        });
        let mut sources: std::collections::HashMap<u64, Source> = Default::default();
        let (mut next, mut closed) = (1, 0);
        while closed < count {
            let event = bench.next();
            match event.what {
                What::Accepted(source) => {
                    bench.submit(next, Recv { source: source.clone(), mode: Mode::Once });
                    sources.insert(next, source);
                    next += 1;
                }
                What::Data(_) => {
                    let source = sources.remove(&event.token.0).unwrap();
                    send(&mut bench, event.token.0, &source, "response");
                    bench.submit(0, Close { source, mode: CloseMode::Graceful });
                }
                What::Sent { bytes, .. } => assert_eq!(bytes, 8),
                What::Closed => closed += 1,
                other => panic!("{other:?}"),
            }
        }
        bench.join(client);
        assert_eq!((bench.q.in_flight(), bench.q.leased_blocks(), open_fds()), (1, 0, before));
        bench.q.cancel(accept);
        assert!(matches!(bench.next_of(accept), What::Cancelled { .. }));
    });
}

#[test]
fn recv_into__fills_the_callers_buffer() {
    on_both(|backend: Backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let buf = IoBuf::from(vec![0; 10]);
        let address = buf.as_ptr();
        let id = bench.submit(1, RecvInto { source: ours.clone(), buf, fill: true });
        for piece in [&b"0123"[..], b"4567", b"89ab"] {
            theirs.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            if piece != b"89ab" {
                bench.quiet();
            }
        }
        let What::Read { bytes: 10, buf } = bench.next_of(id) else { panic!("short") };
        assert_eq!((&*buf, buf.as_ptr()), (&b"0123456789"[..], address));
        let id = bench.submit(2, RecvInto { source: ours.clone(), buf, fill: false });
        let What::Read { bytes: 2, buf } = bench.next_of(id) else { panic!("not what was left") };
        drop(theirs);
        let id = bench.submit(3, RecvInto { source: ours, buf, fill: true });
        assert!(matches!(bench.next_of(id), What::Read { bytes: 0, .. }));
    });
}

#[test]
fn gathered_send__is_one_stream() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, mut theirs) = bench.pair();
        let parts: Vec<peyk_sockbuf::Bytes> = (0..300).map(|i| pattern(i * 7, i as u64).into()).collect();
        let expected: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        let len = expected.len();
        let id = send(&mut bench, 1, &ours, parts);
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; len];
            theirs.read_exact(&mut all).map(|()| all).unwrap()
        });
        assert!(matches!(bench.next_of(id), What::Sent { bytes, .. } if bytes == len as u64));
        assert!(bench.join(reader) == expected);
        let empty = send(&mut bench, 2, &ours, "");
        assert!(matches!(bench.next_of(empty), What::Sent { bytes: 0, .. }));
    });
}

#[test]
fn queued_sends__leave_together_and_end_one_by_one() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, theirs) = bench.pair();
        narrow(&theirs);
        let mut reader = theirs.try_clone().unwrap();
        let sizes = [3 << 20, 1, 0, 70_000, 5, 2 << 20, 9, 400_000];
        let (mut expected, mut ids) = (Vec::new(), Vec::new());
        for (i, size) in sizes.into_iter().enumerate() {
            let data = pattern(size, i as u64);
            expected.extend_from_slice(&data);
            // Some in one piece, some in many.
            let data: peyk_kevent::Data = match i % 3 {
                0 => data.into(),
                1 => vec![peyk_sockbuf::Bytes::from(data)].into(),
                _ => data.chunks(997).map(peyk_sockbuf::Bytes::copy_from_slice).collect::<Vec<_>>().into(),
            };
            ids.push(send(&mut bench, i as u64, &ours, data));
        }
        let len = expected.len();
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; len];
            reader.read_exact(&mut all).map(|()| all).unwrap()
        });
        for (id, size) in ids.into_iter().zip(sizes) {
            assert!(matches!(bench.next_of(id), What::Sent { bytes, data: Some(_) } if bytes == size as u64));
        }
        assert!(bench.join(reader) == expected);
    });
}

#[test]
fn queued_sends__are_cancelled_one_by_one() {
    on_both(|backend| {
        for victim in 0..4 {
            let mut bench = Bench::new(backend);
            let (ours, theirs) = bench.pair();
            narrow(&theirs);
            let mut reader = theirs.try_clone().unwrap();
            // The first fills the socket; the others queue up, and leave together when it has left.
            let first = send(&mut bench, 0, &ours, pattern(8 << 20, 0));
            let ids: Vec<_> = (1..5).map(|i| send(&mut bench, i, &ours, pattern(100_000, i))).collect();
            bench.quiet();
            let (go, wait) = std::sync::mpsc::channel();
            let reader = std::thread::spawn(move || {
                let mut all = vec![0; 8 << 20];
                reader.read_exact(&mut all).unwrap();
                // Those behind are under way by now, and do not fit.
                wait.recv().unwrap();
                reader.read_to_end(&mut all).map(|_| all).unwrap()
            });
            assert!(matches!(bench.next_of(first), What::Sent { .. }));
            bench.q.wait(&mut bench.events, peyk_kevent::Wait::now()).unwrap();
            bench.q.cancel(ids[victim]);
            go.send(()).unwrap();
            let mut moved = [0u64; 4];
            for _ in 0..4 {
                let event = bench.next();
                let at = ids.iter().position(|id| event.id == Some(*id)).unwrap();
                moved[at] = match event.what {
                    What::Sent { bytes, .. } => bytes,
                    What::Cancelled { done, operands: Operands::Data(data) } => {
                        assert!(at == victim && data.len() == 100_000, "{at}");
                        done
                    }
                    other => panic!("{other:?}"),
                };
            }
            let close = bench.submit(9, Close { source: ours, mode: CloseMode::Graceful });
            bench.last_of(close);
            drop(theirs);
            let all = bench.join(reader);
            let mut at = 8 << 20;
            for (i, moved) in moved.iter().enumerate() {
                assert!(i == victim || *moved == 100_000, "{i}: {moved}");
                let moved = *moved as usize;
                assert!(all[at..at + moved] == pattern(100_000, 1 + i as u64)[..moved], "{i}");
                at += moved;
            }
            assert_eq!(all.len(), at);
        }
    });
}

#[test]
fn registered_source__works_and_is_closed() {
    let _alone = alone();
    if !in_child("sockets::registered_source__works_and_is_closed") {
        return;
    }
    on_both(|backend| {
        let mut bench = Bench::with(Config { backend, registered: 2, ..Config::default() });
        let before = open_fds();
        for _ in 0..10 {
            let (ours, mut theirs) = bench.pair();
            assert_eq!(bench.q.register(&ours), backend == Backend::Uring);
            let recv = bench.recv_stream(1, &ours);
            theirs.write_all(b"x").unwrap();
            assert!(matches!(bench.next_of(recv), What::Data(_)));
            let id = send(&mut bench, 2, &ours, "y");
            assert!(matches!(bench.next_of(id), What::Sent { .. }));
            let close = bench.submit(3, Close { source: ours, mode: CloseMode::Graceful });
            assert!(matches!(bench.last_of(close), What::Closed));
            // The end arrives, so the ring does not keep the socket open.
            assert!(bench.read_to_end(theirs) == b"y");
        }
        settled_fds(before);
    });
}
