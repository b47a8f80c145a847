//! What only the inside of the ring can show.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::setup::{LEVELS, build};
use super::{IO, Uring, user_data};
use io_uring::register::Restriction;

use crate::backend::Engine;
use crate::{Backend, Config, Events, Mode, OpId, Queue, Recv, Send, SendMode, Source, Token, Wait, What};

impl Uring {
    /// The error number of this call into the ring, if it is to fail.
    pub(super) fn fault(&mut self) -> Option<i32> {
        self.calls = self.calls.wrapping_add(1);
        self.faults.filter(|(every, _)| self.calls.is_multiple_of(*every)).map(|(_, errno)| errno)
    }
}

fn queue() -> Queue {
    Queue::new(Config { backend: Backend::Uring, ..Config::default() }).unwrap()
}

fn uring(queue: &mut Queue) -> &mut Uring {
    match &mut queue.backend {
        Engine::Uring(uring) => uring,
        Engine::Epoll(_) => panic!("not a ring"),
    }
}

fn pair(queue: &mut Queue) -> (Source, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (queue.adopt(OwnedFd::from(listener.accept().unwrap().0)).unwrap(), theirs)
}

/// Echoes through the queue; errors of waits are tolerated and counted.
fn echo(queue: &mut Queue, rounds: u32) -> u32 {
    let (ours, mut theirs) = pair(queue);
    let until = Instant::now() + Duration::from_secs(20);
    let mut errors = 0;
    let mut events = Events::default();
    queue.submit(Token(1), Recv { source: ours.clone(), mode: Mode::Stream }).unwrap();
    for round in 0..rounds {
        theirs.write_all(&round.to_be_bytes()).unwrap();
        let mut sent = 0;
        while sent < 4 {
            assert!(Instant::now() < until, "{:?}", queue.stats());
            errors += u32::from(queue.wait(&mut events, Wait::until(until)).is_err());
            for event in events.drain() {
                match event.what {
                    What::Data(buf) => {
                        let send = Send { source: ours.clone(), data: buf.into(), mode: SendMode::Copy };
                        queue.submit(Token(2), send).unwrap();
                    }
                    What::Sent { bytes, .. } => sent += bytes,
                    // Of the connection before this one.
                    What::Eof => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        let mut back = [0; 4];
        theirs.read_exact(&mut back).unwrap();
        assert_eq!(back, round.to_be_bytes());
    }
    errors
}

#[test]
fn t08__every_set_of_flags_works() {
    for level in 0..LEVELS {
        let ring = build(64, 1024, level).unwrap();
        assert_eq!(ring.1.contains(&"DEFER_TASKRUN"), level < 2, "{:?}", ring.1);
        assert_eq!(echo(&mut queue_on(ring, true), 50), 0, "level {level}");
    }
}

/// A queue on a ring of the test's own making.
fn queue_on(ring: (io_uring::IoUring, Vec<&'static str>), min_timeout: bool) -> Queue {
    let config = Config { backend: Backend::Uring, ..Config::default() };
    let mut queue = queue();
    let pools = (
        crate::pool::Pool::new(crate::pool::STRIDE, 4, 2).unwrap(),
        crate::pool::Pool::new(4096, 4, 0).unwrap(),
    );
    let fresh = crate::core::Core::new(&config, pools.0, pools.1).unwrap();
    let (mut uring, _) = Uring::at_level(&config, &fresh, ring).unwrap();
    uring.min_timeout &= min_timeout;
    // The old ring is idle: nothing of its core is in the kernel but the doorbell, which `Uring` ends.
    *queue.core() = fresh;
    queue.backend = Engine::Uring(Box::new(uring));
    queue
}

/// An operation that somebody has forbidden on this ring. On epoll: `tests/conformance/setup.rs`.
#[test]
fn t07__forbidden_operation_fails_alone() {
    let ring = io_uring::IoUring::builder().setup_r_disabled().build(64).unwrap();
    let fsync = io_uring::opcode::Fsync::CODE;
    let mut allowed: Vec<_> = (0..58).filter(|op| *op != fsync).map(Restriction::sqe_op).collect();
    allowed.extend((0..27).map(Restriction::register_op));
    allowed.push(Restriction::sqe_flags_allowed(0xff));
    ring.submitter().register_restrictions(&mut allowed).unwrap();
    ring.submitter().register_enable_rings().unwrap();
    let mut queue = queue_on((ring, Vec::new()), true);
    let file = queue.adopt(OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap())).unwrap();
    let id = queue.submit(Token(1), crate::Fsync { source: file, data_only: true }).unwrap();
    let mut events = Events::default();
    queue.wait(&mut events, Wait::until(Instant::now() + Duration::from_secs(5))).unwrap();
    let event = events.drain().next().unwrap();
    assert!(event.last && event.id == Some(id));
    match event.what {
        What::Failed { error, done: 0, .. } => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
        other => panic!("{other:?}"),
    }
    assert_eq!(echo(&mut queue, 50), 0);
}

/// What kernels know, newest first; each gets what it knows, and the rest is done without.
#[test]
fn t10__older_kernels_get_what_they_know() {
    let kernels: [(&str, u32, bool, &[&str]); 5] = [
        ("6.12", 0, true, &["NO_SQARRAY", "DEFER_TASKRUN", "SINGLE_ISSUER", "COOP_TASKRUN", "SUBMIT_ALL"]),
        ("6.6", 0, false, &["NO_SQARRAY", "DEFER_TASKRUN", "SINGLE_ISSUER", "COOP_TASKRUN", "SUBMIT_ALL"]),
        ("6.1", 1, false, &["DEFER_TASKRUN", "SINGLE_ISSUER", "COOP_TASKRUN", "SUBMIT_ALL"]),
        ("5.19", 2, false, &["COOP_TASKRUN", "SUBMIT_ALL"]),
        ("5.11", 3, false, &[]),
    ];
    for (kernel, level, min_timeout, known) in kernels {
        let ring = build(64, 1024, level).unwrap();
        let all = ["NO_SQARRAY", "DEFER_TASKRUN", "SINGLE_ISSUER", "COOP_TASKRUN", "SUBMIT_ALL"];
        for flag in all {
            assert_eq!(ring.1.contains(&flag), known.contains(&flag), "{flag} on {kernel}");
        }
        let mut queue = queue_on(ring, min_timeout);
        assert_eq!(echo(&mut queue, 20), 0, "{kernel}");
        // A batch comes whole where the kernel can wait for it, and where it cannot.
        let (ours, mut theirs) = pair(&mut queue);
        let (others, mut their_others) = pair(&mut queue);
        for source in [ours, others] {
            queue.submit(Token(1), Recv { source, mode: Mode::Once }).unwrap();
        }
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            theirs.write_all(b"a").unwrap();
            std::thread::sleep(Duration::from_millis(5));
            their_others.write_all(b"b").unwrap();
            (theirs, their_others)
        });
        let until = Instant::now() + Duration::from_secs(20);
        let mut events = Events::default();
        let mut data = 0;
        while data < 2 {
            queue.wait(&mut events, Wait::until(until).batch(2, Duration::from_secs(1))).unwrap();
            data += events.drain().filter(|e| matches!(e.what, What::Data(_))).count();
            assert!(Instant::now() < until, "{kernel}: {:?}", queue.stats());
        }
        drop(writer.join().unwrap());
    }
}

#[test]
fn t19__stale_completions_are_counted_and_hit_nobody() {
    let mut queue = queue();
    let (ours, mut theirs) = pair(&mut queue);
    let id = queue.submit(Token(1), Recv { source: ours, mode: Mode::Stream }).unwrap();
    let mut events = Events::default();
    queue.wait(&mut events, Wait::now()).unwrap();
    let old = OpId { generation: id.generation.wrapping_sub(1), ..id };
    let nowhere = OpId { slot: 77, generation: 1 };
    let Queue { backend: Engine::Uring(uring), .. } = &mut queue else { panic!("not a ring") };
    let mut uring = std::mem::replace(uring, {
        // A place holder that is never used.
        let core = crate::core::Core::new(
            &Config::default(),
            crate::pool::Pool::new(crate::pool::STRIDE, 2, 2).unwrap(),
            crate::pool::Pool::new(4096, 2, 0).unwrap(),
        );
        Box::new(Uring::new(&Config::default(), &core.unwrap()).unwrap().0)
    });
    for stale in [old, nowhere] {
        uring.in_kernel += 1;
        uring.ios += 1;
        uring.complete(queue.core(), user_data(stale, IO), 5, 0, &mut events);
    }
    queue.backend = Engine::Uring(uring);
    assert_eq!(queue.stats().stale, 2);
    assert!(events.is_empty());
    theirs.write_all(b"x").unwrap();
    queue.wait(&mut events, Wait::until(Instant::now() + Duration::from_secs(5))).unwrap();
    assert!(matches!(events.drain().next().map(|e| e.what), Some(What::Data(_))));
}

#[test]
fn t73__calls_that_fail_for_now_lose_nothing() {
    for every in [2, 3, 10] {
        let mut queue = queue();
        uring(&mut queue).faults = Some((every, libc::EAGAIN));
        assert_eq!(echo(&mut queue, 500), 0);
        uring(&mut queue).faults = None;
    }
}

#[test]
fn t74__calls_without_memory_are_reported_and_lose_nothing() {
    let mut queue = queue();
    uring(&mut queue).faults = Some((5, libc::ENOMEM));
    let errors = echo(&mut queue, 500);
    assert!(errors > 0);
    uring(&mut queue).faults = None;
    assert_eq!(echo(&mut queue, 10), 0);
}
