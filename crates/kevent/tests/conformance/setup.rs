//! Setting up: what is found out, and what is done without.

use std::io::Write;

use peyk_kevent::{Backend, BackendKind, Config, Fsync, Queue, Send, SendMode, Shutdown, Token, What};

use crate::common::{Bench, Scratch, in_child, leave_root, limit, on_both, on_both_once, open_fds};

fn forbid_io_uring(verdict: u32) {
    forbid(libc::SYS_io_uring_setup, verdict);
}

/// Makes a system call meet a policy: an error number, or death.
fn forbid(call: libc::c_long, verdict: u32) {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        op(libc::BPF_RET, 0, 0, verdict),
        op(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is readable for the call, which copies it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Bytes there and back.
fn works(bench: &mut Bench) {
    let (ours, mut theirs) = bench.pair();
    let recv = bench.recv_stream(1, &ours);
    theirs.write_all(b"there").unwrap();
    let What::Data(buf) = bench.next_of(recv) else { panic!("no data") };
    let send = bench.submit(2, Send { source: ours.clone(), data: buf.into(), mode: SendMode::Copy });
    assert!(matches!(bench.next_of(send), What::Sent { bytes: 5, .. }));
    let mut back = [0; 5];
    std::io::Read::read_exact(&mut theirs, &mut back).unwrap();
    assert_eq!(&back, b"there");
}

#[test]
fn t01__self_test_decides_what_is_used() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let uring = bench.q.caps().backend == BackendKind::Uring;
        assert_eq!(bench.q.caps().multishot_recvmsg, uring);
        assert_eq!(bench.q.caps().zero_copy, uring);
        assert_eq!(bench.q.caps().flags.is_empty(), !uring, "{:?}", bench.q.caps());
        works(&mut bench);
    });
}

fn falls_back(verdict: u32, said: &str) {
    forbid_io_uring(verdict);
    let q = Queue::new(Config::default()).unwrap();
    assert_eq!(q.caps().backend, BackendKind::Epoll);
    let reason = &q.caps().attempts[0].reason;
    assert!(reason.contains("io_uring_setup") && reason.contains(said), "{}", q.caps());
    let refused = Queue::new(Config { backend: Backend::Uring, ..Config::default() }).unwrap_err();
    assert!(refused.to_string().contains("io_uring_setup"), "{refused}");
    works(&mut Bench { q, events: Default::default() });
}

#[test]
fn t02__setup_denied_with_eperm_falls_back_to_epoll() {
    if in_child("setup::t02__setup_denied_with_eperm_falls_back_to_epoll") {
        falls_back(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, "not permitted");
    }
}

#[test]
fn t03__setup_denied_with_enosys_falls_back_to_epoll() {
    if in_child("setup::t03__setup_denied_with_enosys_falls_back_to_epoll") {
        falls_back(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, "not implemented");
    }
}

#[test]
fn t04__deadly_policy_is_not_touched_when_epoll_is_asked_for() {
    if in_child("setup::t04__deadly_policy_is_not_touched_when_epoll_is_asked_for") {
        forbid_io_uring(libc::SECCOMP_RET_KILL_PROCESS);
        let mut bench = Bench::new(Backend::Epoll);
        assert!(bench.q.caps().to_string().contains("epoll was asked for"));
        works(&mut bench);
    }
}

#[test]
fn t05__little_lockable_memory_is_enough() {
    if in_child("setup::t05__little_lockable_memory_is_enough") {
        limit(libc::RLIMIT_MEMLOCK, 64 << 10);
        leave_root();
        // What rings and blocks are registered with is charged: it shrinks until it fits.
        on_both_once(|backend| works(&mut Bench::new(backend)));
    }
}

#[test]
fn t06__no_descriptors_is_an_error_that_leaks_nothing() {
    if in_child("setup::t06__no_descriptors_is_an_error_that_leaks_nothing") {
        let before = open_fds();
        for extra in 0..3 {
            limit_soft(libc::RLIMIT_NOFILE, before as u64 - 1 + extra);
            for backend in [Backend::Uring, Backend::Epoll, Backend::Auto] {
                if let Err(error) = Queue::new(Config { backend, ..Config::default() }) {
                    assert!(error.to_string().contains("Too many open files"), "{error}");
                }
            }
        }
        limit_soft(libc::RLIMIT_NOFILE, 1024);
        assert_eq!(open_fds(), before);
        on_both_once(|backend| works(&mut Bench::new(backend)));
    }
}

fn limit_soft(what: libc::__rlimit_resource_t, to: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable for the call.
    assert_eq!(unsafe { libc::getrlimit(what, &raw mut limit) }, 0);
    limit.rlim_cur = to.min(limit.rlim_max);
    // SAFETY: `limit` is readable for the call.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0);
}

/// Makes one call of this process, and of threads it starts from now on, fail with `EPERM`. On the ring:
/// `src/backend/uring/tests.rs`, for its operations are no calls.
#[test]
fn t07__denied_call_fails_alone() {
    if !in_child("setup::t07__denied_call_fails_alone") {
        return;
    }
    forbid(libc::SYS_fsync, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let scratch = Scratch::new("t07");
    let mut bench = Bench::new(Backend::Epoll);
    let file = bench.file(&scratch.file("data", b"content"));
    let denied = bench.submit(1, Fsync { source: file.clone(), data_only: false });
    match bench.next_of(denied) {
        What::Failed { error, done: 0, .. } => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
        other => panic!("{other:?}"),
    }
    let other = bench.submit(2, Fsync { source: file, data_only: true });
    assert!(matches!(bench.next_of(other), What::Done));
    works(&mut bench);
}

#[test]
fn t07__refused_operation_fails_alone() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let lonely = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let lonely = bench.q.adopt(std::os::fd::OwnedFd::from(lonely)).unwrap();
        let refused = bench.submit(1, Shutdown { source: lonely, how: std::net::Shutdown::Both });
        match bench.next_of(refused) {
            What::Failed { error, done: 0, .. } => assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN)),
            other => panic!("{other:?}"),
        }
        works(&mut bench);
    });
}

#[test]
fn t09__forked_child_is_refused() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let (ours, _theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        bench.quiet();
        // SAFETY: the child calls little that allocates, and leaves at once.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let wait = bench.q.wait(&mut bench.events, peyk_kevent::Wait::now()).is_err();
            let send = Send { source: ours, data: "x".into(), mode: SendMode::Copy };
            let submit = bench.q.submit(Token(0), send).is_err_and(|r| r.why == peyk_kevent::Refusal::Forked);
            // SAFETY: leaves without running the test harness's exit code.
            unsafe { libc::_exit(if wait && submit { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "{backend:?}");
        bench.q.cancel(recv);
        assert!(matches!(bench.next_of(recv), What::Cancelled { .. }));
    });
}
