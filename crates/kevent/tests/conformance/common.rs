//! What the tests share: a queue on a given backend, waiting for certain events, and scratch files.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peyk_kevent::{
    Backend, BackendKind, Config, Event, Events, Mode, Op, OpId, Queue, Recv, Source, Token, Wait, What,
};

use crate::peer::Peer;
use crate::shared::Timing;
pub use crate::shared::{in_child, in_child_with};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Tests that count descriptors or load the machine take this.
static ALONE: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often to do something: `usual`, or, if `PEYK_LONG=n` asks for the long way, the `n`th part of
/// `long`. Each such part takes minutes at most, so the whole can be had in slices.
pub fn times(usual: u64, long: u64) -> u64 {
    let parts = std::env::var("PEYK_LONG").ok().map(|parts| parts.parse().unwrap_or(1));
    parts.map_or(usual, |parts: u64| long / parts.max(1))
}

/// On both backends, in all four timings.
pub fn on_both(test: impl Fn(Backend)) {
    for timing in Timing::ALL {
        timing.set();
        on_both_once(|backend| {
            eprintln!("{timing:?}");
            test(backend);
        });
    }
    Timing::Inline.set();
}

/// On both backends; for what has an order of events of its own, or none.
pub fn on_both_once(test: impl Fn(Backend)) {
    for backend in [Backend::Uring, Backend::Epoll] {
        eprintln!("on {backend:?}");
        test(backend);
    }
}

/// A queue with a place for events.
pub struct Bench {
    pub q: Queue,
    pub events: Events,
}

impl Bench {
    pub fn new(backend: Backend) -> Bench {
        Bench::with(Config { backend, ..Config::default() })
    }

    pub fn with(config: Config) -> Bench {
        let wanted = if config.backend == Backend::Epoll { BackendKind::Epoll } else { BackendKind::Uring };
        let config = Config { force_async: Timing::now() == Timing::Async, ..config };
        let q = Queue::new(config).unwrap();
        assert_eq!(q.caps().backend, wanted, "{}", q.caps());
        Bench { q, events: Events::default() }
    }

    pub fn submit<O: Op + std::fmt::Debug>(&mut self, token: u64, op: O) -> OpId {
        let id = self.q.submit(Token(token), op).unwrap();
        if Timing::now() == Timing::Armed {
            self.q.wait(&mut self.events, Wait::now()).unwrap();
        }
        id
    }

    /// The next event, or none within the patience.
    pub fn try_next(&mut self, patience: Duration) -> Option<Event> {
        let until = Instant::now() + patience;
        loop {
            if let Some(event) = self.events.drain().next() {
                return Some(event);
            }
            if self.q.wait(&mut self.events, Wait::until(until)).unwrap() == 0 && Instant::now() >= until {
                return None;
            }
        }
    }

    pub fn next(&mut self) -> Event {
        self.next_within(PATIENCE)
    }

    fn next_within(&mut self, patience: Duration) -> Event {
        let stats = self.q.stats().clone();
        self.try_next(patience).unwrap_or_else(|| panic!("no event; {stats:?}, now {:?}", self.q.stats()))
    }

    /// The next event, which belongs to `id`.
    pub fn next_of(&mut self, id: OpId) -> What {
        self.next_of_within(id, PATIENCE)
    }

    /// The same, for what may take longer than everything else.
    pub fn next_of_within(&mut self, id: OpId, patience: Duration) -> What {
        let event = self.next_within(patience);
        assert_eq!(event.id, Some(id), "{event:?}");
        event.what
    }

    /// Waits until the operation has ended, dropping other events.
    pub fn last_of(&mut self, id: OpId) -> What {
        loop {
            let event = self.next();
            if event.id == Some(id) && event.last {
                return event.what;
            }
        }
    }

    /// What a thread returns that waits for the end of a connection of ours. The queue turns in the
    /// meantime: what a worker of the kernel has just done may hold the socket open until then.
    pub fn join<T>(&mut self, thread: JoinHandle<T>) -> T {
        while !thread.is_finished() {
            let soon = Instant::now() + Duration::from_millis(1);
            self.q.wait(&mut self.events, Wait::until(soon)).unwrap();
        }
        thread.join().unwrap()
    }

    /// All that still comes from a peer of ours, up to its end.
    pub fn read_to_end(&mut self, mut theirs: Peer) -> Vec<u8> {
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).map(|_| all)
        });
        self.join(reader).unwrap()
    }

    /// Nothing comes for a moment.
    pub fn quiet(&mut self) {
        if let Some(event) = self.try_next(Duration::from_millis(20)) {
            panic!("unexpected {event:?}");
        }
    }

    /// A connected pair: ours in the queue, theirs plain.
    pub fn pair(&mut self) -> (Source, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        theirs.set_write_timeout(Some(PATIENCE)).unwrap();
        (self.q.adopt(OwnedFd::from(ours)).unwrap(), Peer::new(theirs))
    }

    pub fn listener(&mut self) -> (Source, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        (self.q.adopt(OwnedFd::from(listener)).unwrap(), addr)
    }

    pub fn recv_stream(&mut self, token: u64, source: &Source) -> OpId {
        self.submit(token, Recv { source: source.clone(), mode: Mode::Stream })
    }

    pub fn file_to_read(&mut self, path: &std::path::Path) -> Source {
        self.q.adopt(OwnedFd::from(std::fs::File::open(path).unwrap())).unwrap()
    }

    pub fn file(&mut self, path: &std::path::Path) -> Source {
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path);
        self.q.adopt(OwnedFd::from(file.unwrap())).unwrap()
    }
}

/// Open descriptors of this process.
pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// So many descriptors are open, or will be when late peers have closed theirs.
pub fn settled_fds(expected: usize) {
    let until = Instant::now() + PATIENCE;
    while open_fds() != expected && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_fds(), expected);
}

/// Sets a resource limit.
pub fn limit(what: libc::__rlimit_resource_t, to: u64) {
    let limit = libc::rlimit { rlim_cur: to, rlim_max: to };
    // SAFETY: `limit` is readable for the call.
    assert_eq!(unsafe { libc::setrlimit(what, &raw const limit) }, 0);
}

/// Becomes an ordinary user: some limits do not hold for others.
pub fn leave_root() {
    // SAFETY: plain numbers.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
    }
}

/// Bytes that can be told from others at every place.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// A scratch directory that goes with the value.
pub struct Scratch(pub std::path::PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("peyk-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn file(&self, name: &str, content: &[u8]) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A file that cannot be opened until the value is dropped: who tries, waits.
    pub fn leased(&self, name: &str) -> Lease {
        use std::os::fd::AsRawFd;
        let path = self.file(name, b"leased");
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        // SAFETY: plain numbers. The holder is told by a signal that is ignored unless asked for.
        unsafe {
            assert_eq!(libc::fcntl(file.as_raw_fd(), 10 /* F_SETSIG */, libc::SIGURG), 0);
            let leased = libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK);
            assert_eq!(leased, 0, "{}", std::io::Error::last_os_error());
        }
        Lease { path, _file: file }
    }
}

pub struct Lease {
    pub path: std::path::PathBuf,
    _file: std::fs::File,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
