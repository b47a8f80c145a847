//! One body of tests, run on both backends: what a queue promises, whatever carries it.

#![allow(non_snake_case)]

use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use peyk_kevent::{
    Backend, BackendKind, Cancel, Config, Events, Operands, Queue, RecvMsg, Refusal, SendMsg, Source, Spin,
    Token, Train, Wait, What, Why, udp,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// Serialises tests that count descriptors or load the machine.
static ALONE: Mutex<()> = Mutex::new(());

/// The order of events that a test runs with, as in `conformance/peer.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// As it comes.
    Inline,
    /// The receive is in the kernel before anything is sent.
    Armed,
    /// Nothing is done at once that can be done elsewhere.
    Async,
    /// What is sent, is sent a while later: the queue sleeps by then.
    Delayed,
}

thread_local! {
    static TIMING: Cell<Timing> = const { Cell::new(Timing::Inline) };
}

/// How late a delayed sender is.
const LATE: Duration = Duration::from_micros(500);

fn queue(backend: Backend) -> Queue {
    let force_async = TIMING.get() == Timing::Async;
    let queue = Queue::new(Config { backend, force_async, ..Config::default() }).unwrap();
    let kind = if backend == Backend::Epoll { BackendKind::Epoll } else { BackendKind::Uring };
    assert_eq!(queue.caps().backend, kind, "{}", queue.caps());
    queue
}

fn on_both(test: impl Fn(Backend)) {
    for backend in [Backend::Uring, Backend::Epoll] {
        eprintln!("on {backend:?}");
        test(backend);
    }
}

/// The same in all four timings.
fn in_all_timings(test: impl Fn(Backend)) {
    for timing in [Timing::Inline, Timing::Armed, Timing::Async, Timing::Delayed] {
        eprintln!("{timing:?}");
        TIMING.set(timing);
        on_both(&test);
    }
    TIMING.set(Timing::Inline);
}

fn open(queue: &mut Queue, bind: &str, token: u64) -> (Source, SocketAddr) {
    let bound = udp::bind(bind.parse().unwrap(), &udp::Options::default()).unwrap();
    let source = queue.adopt(bound.fd).unwrap();
    listen(queue, &source, token);
    (source, bound.local)
}

fn listen(queue: &mut Queue, source: &Source, token: u64) {
    queue.submit(Token(token), RecvMsg { source: source.clone() }).unwrap();
    if TIMING.get() == Timing::Armed {
        assert_eq!(queue.wait(&mut Events::default(), Wait::now()).unwrap(), 0);
    }
}

type Deed = (SocketAddr, u8, Vec<Vec<u8>>);

/// Another queue, that sends: at once, or, if that is the timing, from a thread that takes its time.
enum Sender {
    Here(Box<Queue>, Source),
    Late(std::sync::mpsc::Sender<Deed>),
}

impl Sender {
    fn new(backend: Backend, bind: &'static str) -> (Sender, SocketAddr) {
        if TIMING.get() != Timing::Delayed {
            let mut q = queue(backend);
            let (source, own) = open(&mut q, bind, 0);
            return (Sender::Here(Box::new(q), source), own);
        }
        let (deeds, todo) = std::sync::mpsc::channel::<Deed>();
        let (ready, own) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut q = queue(backend);
            let (source, own) = open(&mut q, bind, 0);
            ready.send(own).unwrap();
            while let Ok((to, class, datagrams)) = todo.recv() {
                std::thread::sleep(LATE);
                let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
                send(&mut q, &source, train(to, class, &slices));
            }
        });
        (Sender::Late(deeds), own.recv().unwrap())
    }

    fn send(&mut self, to: SocketAddr, class: u8, datagrams: &[&[u8]]) {
        match self {
            Sender::Here(q, source) => send(q, source, train(to, class, datagrams)),
            Sender::Late(deeds) => {
                deeds.send((to, class, datagrams.iter().map(|d| d.to_vec()).collect())).unwrap();
            }
        }
    }
}

fn train(to: SocketAddr, class: u8, datagrams: &[&[u8]]) -> Box<Train> {
    let mut train = Train::new();
    train.start(to, class);
    for d in datagrams {
        let cut = d.len().min(20);
        train.push(&d[..cut], d[cut..].to_vec().into()).expect("datagrams of one train fit");
    }
    train
}

fn send(queue: &mut Queue, source: &Source, train: Box<Train>) {
    assert_eq!(queue.send_now(source, &mut [train]).unwrap(), 1);
}

/// Waits until `done` says so of the events so far.
fn run(queue: &mut Queue, spin: Spin, mut done: impl FnMut(Token, bool, What) -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    let mut events = Events::with_capacity(64);
    while Instant::now() < until {
        queue.wait(&mut events, Wait::until(until).spin(spin)).unwrap();
        let mut over = false;
        for event in events.drain() {
            over |= done(event.token, event.last, event.what);
        }
        if over {
            return true;
        }
    }
    false
}

fn receive(queue: &mut Queue, spin: Spin, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut got = Vec::new();
    run(queue, spin, |_, _, what| {
        if let What::Dgrams(d) = what {
            got.extend(d.iter().map(|one| (d.from, one.to_vec())));
        }
        got.len() >= count
    });
    got
}

#[test]
fn t41__datagrams_of_all_sizes_arrive_whole() {
    in_all_timings(|backend| {
        for spin in [Spin::Sleep, Spin::Spin, Spin::Adaptive { max: Duration::from_micros(50) }] {
            for bind in ["127.0.0.1:0", "[::1]:0"] {
                let (mut sender, from_addr) = Sender::new(backend, bind);
                let mut b = queue(backend);
                let (_to, to) = open(&mut b, bind, 7);
                for size in [0usize, 1, 28, 100, 511, 512, 513, 1400, 9000, 40_000, 65_507] {
                    let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
                    sender.send(to, 0, &[&data]);
                    let got = receive(&mut b, spin, 1);
                    assert_eq!(got.len(), 1, "{size} on {backend:?} {spin:?}");
                    assert_eq!(got[0].0, from_addr);
                    assert!(got[0].1 == data, "{size} on {backend:?} {spin:?}");
                }
            }
        }
    });
}

#[test]
fn t41__empty_datagram_is_one_datagram() {
    in_all_timings(|backend| {
        let mut q = queue(backend);
        let (_source, to) = open(&mut q, "127.0.0.1:0", 0);
        let late = TIMING.get() == Timing::Delayed;
        let sender = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for bytes in [&b""[..], b"", b"x", b""] {
                std::thread::sleep(if late { LATE } else { Duration::ZERO });
                socket.send_to(bytes, to).unwrap();
            }
        });
        let got: Vec<Vec<u8>> = receive(&mut q, Spin::Sleep, 4).into_iter().map(|(_, d)| d).collect();
        assert_eq!(got, [&b""[..], b"", b"x", b""]);
        sender.join().unwrap();
    });
}

#[test]
fn t41__datagram_longer_than_a_block_is_cut_and_says_so() {
    in_all_timings(|backend| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut q = queue(backend);
        let source = q.adopt(OwnedFd::from(ours)).unwrap();
        listen(&mut q, &source, 0);
        socket2::SockRef::from(&theirs).set_send_buffer_size(1 << 20).unwrap();
        let data: Vec<u8> = (0..100_000).map(|i| i as u8).collect();
        for (sent, cut) in [(1000, false), (100_000, true), (1, false)] {
            let late = TIMING.get() == Timing::Delayed;
            let (theirs, bytes) = (theirs.try_clone().unwrap(), data[..sent].to_vec());
            let sender = std::thread::spawn(move || {
                std::thread::sleep(if late { LATE } else { Duration::ZERO });
                theirs.send(&bytes).unwrap();
            });
            if !late {
                sender.join().unwrap();
            }
            assert!(run(&mut q, Spin::Sleep, |_, _, what| match what {
                What::Dgrams(d) => {
                    assert_eq!(d.is_truncated(), cut);
                    assert!(cut || d.bytes().len() == sent);
                    assert!(d.bytes() == &data[..d.bytes().len()]);
                    true
                }
                _ => false,
            }));
        }
    });
}

#[test]
fn t41__control_data_comes_with_datagrams() {
    in_all_timings(|backend| {
        let options = udp::Options { class: true, destination: true, time: true, ..Default::default() };
        for spin in [Spin::Sleep, Spin::Spin] {
            for (bind, to) in
                [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.3")]
            {
                let bound = udp::bind(bind.parse().unwrap(), &options).unwrap();
                let to = SocketAddr::new(to.parse().unwrap(), bound.local.port());
                let mut q = queue(backend);
                let source = q.adopt(bound.fd).unwrap();
                listen(&mut q, &source, 0);
                let from = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
                let (mut sender, _) = Sender::new(backend, from);
                // Congestion experienced; a train, and a single one.
                let before = std::time::SystemTime::now() - Duration::from_millis(1);
                for (class, datagrams) in [(0x2b, &[&[1u8; 700][..]; 3][..]), (0x40, &[&[2; 10]])] {
                    sender.send(to, class, datagrams);
                    assert!(run(&mut q, spin, |_, _, what| {
                        let What::Dgrams(d) = what else { return false };
                        assert_eq!(d.class(), Some(class), "{bind} {to}");
                        let (address, interface) = d.destination().unwrap();
                        assert_eq!(address, to.ip());
                        assert!(interface > 0);
                        let arrival = d.arrival().unwrap();
                        assert!(arrival >= before && arrival <= std::time::SystemTime::now());
                        assert_eq!(d.segment(), (datagrams.len() > 1).then_some(700));
                        assert_eq!(d.iter().count(), datagrams.len());
                        true
                    }));
                }
            }
        }
        // Not asked for, not told.
        let mut q = queue(backend);
        let (source, own) = open(&mut q, "127.0.0.1:0", 0);
        send(&mut q, &source, train(own, 0x20, &[b"x"]));
        assert!(run(&mut q, Spin::Sleep, |_, _, what| {
            let What::Dgrams(d) = what else { return false };
            assert_eq!((d.class(), d.destination(), d.arrival()), (None, None, None));
            true
        }));
    });
}

#[test]
fn t42__train_keeps_every_boundary() {
    in_all_timings(|backend| {
        let (mut sender, _) = Sender::new(backend, "127.0.0.1:0");
        let mut b = queue(backend);
        let (_to, to) = open(&mut b, "127.0.0.1:0", 0);
        for (segment, count, last) in
            [(100, 64, 100), (1400, 46, 1), (156, 5, 155), (9000, 7, 3), (600, 2, 600)]
        {
            let sizes = (0..count).map(|i| if i + 1 == count { last } else { segment });
            let datagrams: Vec<Vec<u8>> = sizes.enumerate().map(|(i, n)| vec![i as u8; n]).collect();
            let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
            sender.send(to, 0, &slices);
            let got: Vec<Vec<u8>> = receive(&mut b, Spin::Sleep, count).into_iter().map(|(_, d)| d).collect();
            assert!(got == datagrams, "{segment} x {count} + {last} on {backend:?}");
        }
    });
}

/// A route that refuses trains: its packets are shorter than the train's datagrams, which a single
/// datagram survives in fragments.
#[test]
fn t42__refused_train_is_split_by_hand_into_the_same_datagrams() {
    if !in_child("t42__refused_train_is_split_by_hand_into_the_same_datagrams") {
        return;
    }
    if !narrow_loopback(1500) {
        println!("!!! SKIPPED: a route that refuses trains needs the right to make a network namespace");
        return;
    }
    on_both(|backend| {
        let (mut a, mut b) = (queue(backend), queue(backend));
        let (from, _) = open(&mut a, "127.0.0.1:0", 0);
        let (_to, to) = open(&mut b, "127.0.0.1:0", 0);
        let datagrams = [vec![1u8; 2000], vec![2; 2000], vec![3; 10]];
        let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
        let whole = train(to, 0, &slices);
        let refused = |error: &std::io::Error| {
            assert!(
                matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)),
                "{error}"
            );
        };
        // At once, and as an operation, which gives it back.
        refused(&a.send_now(&from, &mut [whole]).unwrap_err());
        a.submit(Token(9), SendMsg { source: from.clone(), train: train(to, 0, &slices) }).unwrap();
        let mut back = None;
        assert!(run(&mut a, Spin::Sleep, |token, last, what| {
            assert!(token == Token(9) && last, "{what:?}");
            match what {
                What::Failed { error, done: 0, operands: Operands::Train(train) } => {
                    refused(&error);
                    back = Some(train);
                }
                other => panic!("{other:?}"),
            }
            true
        }));
        let mut singles: Vec<Box<Train>> = back.unwrap().split().collect();
        assert_eq!(a.send_now(&from, &mut singles).unwrap(), 3);
        let got: Vec<Vec<u8>> = receive(&mut b, Spin::Sleep, 3).into_iter().map(|(_, d)| d).collect();
        assert_eq!(got, datagrams);
    });
}

/// Moves this thread to a network namespace of its own, whose loopback carries packets of `mtu` bytes
/// at most; false without the right to.
fn narrow_loopback(mtu: i32) -> bool {
    // SAFETY: plain numbers; the namespace is the thread's own.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    // Any socket will do to speak of interfaces.
    let socket = UnixDatagram::unbound().unwrap();
    let set = |request: libc::Ioctl, value: libc::__c_anonymous_ifr_ifru| {
        let mut name = [0; libc::IFNAMSIZ];
        (name[0], name[1]) = (b'l' as libc::c_char, b'o' as libc::c_char);
        let mut ask = libc::ifreq { ifr_name: name, ifr_ifru: value };
        // SAFETY: a request that reads the record, which lives through the call.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut ask) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    };
    set(libc::SIOCSIFFLAGS, libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_UP as libc::c_short });
    set(libc::SIOCSIFMTU, libc::__c_anonymous_ifr_ifru { ifru_mtu: mtu });
    true
}

/// Runs the test of this name again in a process of its own; true in that process.
fn in_child(name: &str) -> bool {
    if std::env::var_os("PEYK_CHILD").is_some_and(|child| child == name) {
        return true;
    }
    let me = std::env::current_exe().unwrap();
    let status = std::process::Command::new(me)
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env("PEYK_CHILD", name)
        .status()
        .unwrap();
    assert!(status.success(), "{name} in a process of its own: {status}");
    false
}

#[test]
fn dual_stack__maps_ipv4() {
    on_both(|backend| {
        let (mut a, mut b) = (queue(backend), queue(backend));
        let (from, from_addr) = open(&mut a, "[::]:0", 0);
        let (_to, to) = open(&mut b, "127.0.0.1:0", 0);
        let mapped = format!("[::ffff:127.0.0.1]:{}", to.port()).parse().unwrap();
        send(&mut a, &from, train(mapped, 0x20, &[b"mapped"]));
        let got = receive(&mut b, Spin::Sleep, 1);
        assert_eq!(got[0].0, SocketAddr::from(([127, 0, 0, 1], from_addr.port())));
    });
}

/// Traffic class of the next datagram on a plain socket.
fn class_of(socket: &socket2::Socket) -> u32 {
    use std::mem::MaybeUninit;
    let mut data = [MaybeUninit::uninit(); 16];
    let mut control = [MaybeUninit::<u8>::uninit(); 64];
    let mut bufs = [socket2::MaybeUninitSlice::new(&mut data)];
    let mut message = socket2::MsgHdrMut::new().with_buffers(&mut bufs).with_control(&mut control);
    socket.recvmsg(&mut message, 0).unwrap();
    let len = message.control_len();
    // A control message: length (word), level, type, then the value.
    // SAFETY: the kernel has written `len` bytes.
    let byte = |i: usize| unsafe { control[i].assume_init() };
    assert!(len >= 17, "no traffic class was received");
    u32::from(byte(16))
}

#[test]
fn traffic_class__is_visible_to_a_plain_peer() {
    on_both(|backend| {
        for (bind, mapped) in [("127.0.0.1:0", false), ("[::1]:0", false), ("[::]:0", true)] {
            let peer_at: SocketAddr = if mapped { "127.0.0.1:0" } else { bind }.parse().unwrap();
            let domain = socket2::Domain::for_address(peer_at);
            let peer = socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
            peer.bind(&peer_at.into()).unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            if peer_at.is_ipv4() { peer.set_recv_tos_v4(true) } else { peer.set_recv_tclass_v6(true) }
                .unwrap();
            let port = peer.local_addr().unwrap().as_socket().unwrap().port();
            let to: SocketAddr = match mapped {
                true => format!("[::ffff:127.0.0.1]:{port}").parse().unwrap(),
                false => SocketAddr::new(peer_at.ip(), port),
            };
            let mut q = queue(backend);
            let (source, _) = open(&mut q, bind, 0);
            for priority in 0..8u8 {
                send(&mut q, &source, train(to, priority << 5, &[b"prio"]));
                assert_eq!(class_of(&peer), u32::from(priority) << 5, "{bind}");
            }
        }
    });
}

#[test]
fn t43__port_unreachable_is_an_event_and_the_stream_lives() {
    in_all_timings(|backend| {
        for spin in [Spin::Sleep, Spin::Spin] {
            for bind in ["127.0.0.1:0", "[::1]:0"] {
                let mut q = queue(backend);
                let (source, own) = open(&mut q, bind, 5);
                let gone = UdpSocket::bind(bind).unwrap().local_addr().unwrap();
                for _ in 0..3 {
                    send(&mut q, &source, train(gone, 0, &[b"anyone?"]));
                    let reported = run(&mut q, spin, |token, last, what| match what {
                        What::Error(e) => {
                            assert_eq!((token, last), (Token(5), false));
                            assert_eq!((e.remote, e.why), (Some(gone), Why::Port));
                            true
                        }
                        _ => false,
                    });
                    assert!(reported, "{backend:?} {spin:?} {bind}");
                }
                send(&mut q, &source, train(own, 0, &[b"still here"]));
                assert_eq!(receive(&mut q, spin, 1).len(), 1);
            }
        }
    });
}

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
fn flood__exhausts_blocks_and_recovers() {
    let _alone = ALONE.lock().unwrap();
    on_both(|backend| {
        let config = Config { backend, blocks: 4, direct_blocks: 2, ..Config::default() };
        let (mut a, mut b) = (queue(backend), Queue::new(config).unwrap());
        let (from, _) = open(&mut a, "127.0.0.1:0", 0);
        let (_to, to) = open(&mut b, "127.0.0.1:0", 0);
        // Arms the stream.
        let mut events = Events::default();
        b.wait(&mut events, Wait::now()).unwrap();
        let mut held = Vec::new();
        for _ in 0..50 {
            send(&mut a, &from, train(to, 0, &[&[1; 1000]]));
        }
        // Holding every lease starves the queue; it must say so rather than spin or fail.
        for _ in 0..20 {
            b.wait(&mut events, Wait::until(Instant::now() + Duration::from_millis(2))).unwrap();
            held.extend(events.drain());
        }
        assert!(b.stats().no_buffers > 0, "{:?}", b.stats());
        assert!(b.stats().no_buffers < 200, "{:?}", b.stats());
        let before: usize = held.drain(..).map(|e| matches!(e.what, What::Dgrams(_)) as usize).sum();
        assert!(before > 0);
        let after = receive(&mut b, Spin::Sleep, 50 - before).len();
        assert_eq!(before + after, 50, "{:?}", b.stats());
    });
}

#[test]
fn full_socket__queues_sends_in_order() {
    on_both(|backend| {
        // Datagrams between Unix sockets wait for the receiver, as UDP does for a slow device.
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut q = queue(backend);
        let source = q.adopt(OwnedFd::from(ours)).unwrap();
        let nowhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let mut trains: Vec<Box<Train>> =
            (0..400u32).map(|i| train(nowhere, 0, &[&i.to_be_bytes()])).collect();
        let sent = q.send_now(&source, &mut trains).unwrap();
        assert!(sent > 0 && sent < 400, "the pair takes {sent}");
        let waiting = trains.split_off(sent);
        let mut ids = Vec::new();
        for (i, train) in waiting.into_iter().enumerate() {
            ids.push(q.submit(Token(i as u64), SendMsg { source: source.clone(), train }).unwrap());
        }
        assert_eq!(q.send_now(&source, &mut [train(nowhere, 0, &[b"not before the others"])]).unwrap(), 0);
        let last = ids.pop().unwrap();
        assert_eq!(q.cancel(last), Cancel::Requested);
        let reader = std::thread::spawn(move || {
            let mut buf = [0; 64];
            (0..399u32).map(|_| theirs.recv(&mut buf).map(|n| buf[..n].to_vec()).unwrap()).collect::<Vec<_>>()
        });
        let (mut done, mut cancelled) = (0, 0);
        assert!(run(&mut q, Spin::Sleep, |_, last, what| {
            assert!(last);
            match what {
                What::TrainSent(_) => done += 1,
                What::Cancelled { .. } => cancelled += 1,
                other => panic!("{other:?}"),
            }
            done + cancelled == 400 - sent
        }));
        assert_eq!(cancelled, 1);
        let got = reader.join().unwrap();
        let expected: Vec<Vec<u8>> = (0..399u32).map(|i| i.to_be_bytes().to_vec()).collect();
        assert_eq!(got, expected);
        assert_eq!(q.cancel(last), Cancel::AlreadyDone);
        assert_eq!(q.in_flight(), 0);
    });
}

#[test]
fn cancel__ends_a_stream_with_one_last_event() {
    on_both(|backend| {
        for spin in [Spin::Sleep, Spin::Spin] {
            for armed in [false, true] {
                let mut q = queue(backend);
                let (source, _) = open(&mut q, "127.0.0.1:0", 3);
                if armed {
                    let mut events = Events::default();
                    q.wait(&mut events, Wait::now()).unwrap();
                }
                q.close(source.clone());
                q.close(source);
                let mut ends = 0;
                assert!(run(&mut q, spin, |token, last, what| {
                    assert!(token == Token(3) && last && matches!(what, What::Cancelled { .. }));
                    ends += 1;
                    true
                }));
                let mut events = Events::default();
                q.wait(&mut events, Wait::until(Instant::now() + Duration::from_millis(5))).unwrap();
                assert!(events.is_empty());
                assert_eq!((ends, q.in_flight()), (1, 0), "{backend:?} {spin:?} {armed}");
            }
        }
    });
}

#[test]
fn submit__refuses_and_gives_back() {
    on_both(|backend| {
        let mut q = Queue::new(Config { backend, max_ops: 2, ..Config::default() }).unwrap();
        let (source, addr) = open(&mut q, "127.0.0.1:0", 0);
        let second = q.submit(Token(0), RecvMsg { source: source.clone() }).unwrap_err();
        assert_eq!(second.why, Refusal::Invalid);
        let empty = q.submit(Token(0), SendMsg { source: source.clone(), train: Train::new() }).unwrap_err();
        assert_eq!(empty.why, Refusal::Invalid);
        let _other = open(&mut q, "127.0.0.1:0", 0);
        let full = q.submit(Token(0), SendMsg { source, train: train(addr, 0, &[b"x"]) }).unwrap_err();
        assert_eq!(full.why, Refusal::Full);
        assert_eq!(full.op.train.packets(), 1);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = q.adopt(OwnedFd::from(listener)).unwrap();
        let wrong = q.submit(Token(0), RecvMsg { source: listener }).unwrap_err();
        assert!(matches!(wrong.why, Refusal::Invalid | Refusal::Full));
    });
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn teardown__with_traffic_in_flight_leaks_nothing() {
    let _alone = ALONE.lock().unwrap();
    on_both(|backend| {
        let stop = std::sync::atomic::AtomicBool::new(false);
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = target.local_addr().unwrap().port();
        drop(target);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = socket.send_to(&[7; 1200], ("127.0.0.1", port));
                }
            });
            let mut leases = Vec::new();
            for round in 0..50 {
                let mut q = queue(backend);
                let (_source, _) = open(&mut q, &format!("127.0.0.1:{port}"), 0);
                let mut events = Events::default();
                for _ in 0..5 {
                    let spin = if round % 2 == 0 { Spin::Sleep } else { Spin::Spin };
                    q.wait(&mut events, Wait::until(Instant::now() + Duration::from_millis(1)).spin(spin))
                        .unwrap();
                }
                // A lease that outlives its queue stays readable.
                let lease = events.drain().find_map(|e| match e.what {
                    What::Dgrams(d) => Some(d.into_buf()),
                    _ => None,
                });
                leases.extend(lease);
                if round % 3 == 0 {
                    q.shutdown(PATIENCE).unwrap();
                }
            }
            assert!(!leases.is_empty());
            assert!(leases.iter().all(|l| l.iter().all(|b| *b == 7)));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn descriptors__are_all_closed() {
    let _alone = ALONE.lock().unwrap();
    // Other tests open descriptors meanwhile, so count in a process of its own.
    if std::env::var_os("PEYK_COUNT_FDS").is_none() {
        let me = std::env::current_exe().unwrap();
        let args = ["--exact", "descriptors__are_all_closed", "--test-threads=1"];
        let status = std::process::Command::new(me).args(args).env("PEYK_COUNT_FDS", "1").status().unwrap();
        assert!(status.success());
        return;
    }
    on_both(|backend| {
        let before = open_fds();
        for _ in 0..20 {
            let mut q = queue(backend);
            let (source, addr) = open(&mut q, "127.0.0.1:0", 0);
            send(&mut q, &source, train(addr, 0, &[b"x"]));
            assert_eq!(receive(&mut q, Spin::Sleep, 1).len(), 1);
            let (ours, _theirs) = UnixDatagram::pair().unwrap();
            let fd = ours.as_raw_fd();
            let other = q.adopt(OwnedFd::from(ours)).unwrap();
            q.submit(Token(0), RecvMsg { source: other.clone() }).unwrap();
            q.close(other);
            assert!(run(&mut q, Spin::Sleep, |_, last, _| last));
            let still = std::fs::read_link(format!("/proc/self/fd/{fd}"));
            assert!(still.is_err(), "{still:?}");
        }
        assert_eq!(open_fds(), before, "{backend:?}");
    });
}

#[test]
fn environment__forces_a_backend() {
    if std::env::var_os("PEYK_BACKEND").is_none() {
        let me = std::env::current_exe().unwrap();
        let args = ["--exact", "environment__forces_a_backend"];
        let status = std::process::Command::new(me).args(args).env("PEYK_BACKEND", "epoll").status().unwrap();
        assert!(status.success());
        return;
    }
    let q = Queue::new(Config { backend: Backend::Uring, ..Config::default() }).unwrap();
    assert_eq!(q.caps().backend, BackendKind::Epoll);
    assert!(q.caps().to_string().contains("epoll was asked for"), "{}", q.caps());
}

#[test]
fn ring_refused__falls_back_and_says_why() {
    // With no descriptors to be had for the ring, setting it up fails like a forbidden call.
    if std::env::var_os("PEYK_NO_RING").is_none() {
        let me = std::env::current_exe().unwrap();
        let args = ["--exact", "ring_refused__falls_back_and_says_why", "--test-threads=1"];
        let status = std::process::Command::new(me).args(args).env("PEYK_NO_RING", "1").status().unwrap();
        assert!(status.success());
        return;
    }
    forbid_io_uring();
    let q = Queue::new(Config::default()).unwrap();
    assert_eq!(q.caps().backend, BackendKind::Epoll);
    assert!(q.caps().attempts[0].reason.contains("io_uring_setup"), "{}", q.caps());
    let e = Queue::new(Config { backend: Backend::Uring, ..Config::default() }).unwrap_err();
    assert!(e.to_string().contains("io_uring"), "{e}");
}

/// Makes io_uring_setup fail with EPERM for this process, as containers do.
fn forbid_io_uring() {
    let load = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let setup = libc::SYS_io_uring_setup as u32;
    let mut program = [
        load(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: setup,
        },
        load(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        load(libc::BPF_RET, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is readable for the call, which copies it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn forked_child__is_refused() {
    on_both(|backend| {
        let mut q = queue(backend);
        let (source, _) = open(&mut q, "127.0.0.1:0", 0);
        // SAFETY: the child only calls functions that allocate little and then leaves at once.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let mut events = Events::default();
            let refused = q.wait(&mut events, Wait::now()).is_err()
                && q.submit(Token(0), RecvMsg { source }).is_err_and(|r| r.why == Refusal::Forked);
            drop(q);
            // SAFETY: leaves without running the test harness's exit code.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "{backend:?}");
        assert_eq!(q.wait(&mut Events::default(), Wait::now()).unwrap(), 0);
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
