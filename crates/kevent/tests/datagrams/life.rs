//! The life of a queue and of its receives: cancelled, refused, torn down, forced to a backend, forked.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use peyk_kevent::{
    Backend, BackendKind, Config, Events, Queue, RecvMsg, Refusal, SendMsg, Spin, Token, Train, Wait, What,
    udp,
};

use crate::common::*;

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

/// A socket at an address that the last round has freed. Children that other tests start have copies of all
/// descriptors from their fork to their exec: until then the address is in use.
fn bind_again(to: SocketAddr) -> udp::Bound {
    let start = Instant::now();
    loop {
        match udp::bind(to, &udp::Options::default()) {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            bound => return bound.unwrap(),
        }
    }
}

#[test]
fn teardown__with_traffic_in_flight_leaks_nothing() {
    let _alone = ALONE.lock().unwrap();
    on_both(|backend| {
        let stop = AtomicBool::new(false);
        // An address of its own: the port is to be free in every round.
        let target = UdpSocket::bind("127.0.0.2:0").unwrap();
        let to = target.local_addr().unwrap();
        drop(target);
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            scope.spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                while !stop.load(Relaxed) {
                    let _ = socket.send_to(&[7; 1200], to);
                }
            });
            let mut leases = Vec::new();
            for round in 0..50 {
                let mut q = queue(backend);
                let source = q.adopt(bind_again(to).fd).unwrap();
                listen(&mut q, &source, 0);
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
        });
    });
}

#[test]
fn descriptors__are_all_closed() {
    let _alone = ALONE.lock().unwrap();
    // Other tests open descriptors meanwhile, so count in a process of its own.
    if std::env::var_os("PEYK_COUNT_FDS").is_none() {
        let me = std::env::current_exe().unwrap();
        let args = ["--exact", "life::descriptors__are_all_closed", "--test-threads=1"];
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
        let args = ["--exact", "life::environment__forces_a_backend"];
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
        let args = ["--exact", "life::ring_refused__falls_back_and_says_why", "--test-threads=1"];
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
