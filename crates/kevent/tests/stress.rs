//! Random operations, cancellations and closes, on both backends: each accepted operation ends
//! exactly once, and in the end no descriptor, block or operation is left (t11), nor in a storm of
//! signals (t72), nor however long it goes on (t78).
//!
//! `PEYK_STRESS_OPS` sets the number of operations of t11 and t72, `PEYK_STRESS_SECONDS` the time of
//! t78, `PEYK_SEED` the first seed.

#![allow(non_snake_case)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peyk_kevent::{
    Accept, Backend, Close, CloseMode, Config, Data, Deliver, Event, Events, Fsync, Handle, Interest,
    Message, Mode, Op, OpId, Operands, Poll, PollMode, Queue, ReadAt, Recv, RecvInto, Refusal, Send,
    SendFile, SendMode, Shutdown, Source, Timer, Token, Wait, What, When, WriteAt,
};
use peyk_sansio::Prng;

/// Rounds after which the allocator has what it needs.
const WARM_UP: u64 = 1;

/// Descriptors are counted: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One side in the queue, the other plain and not waiting.
struct Pair {
    ours: Source,
    theirs: TcpStream,
    receiving: bool,
}

struct World {
    q: Queue,
    events: Events,
    handle: Handle,
    random: Prng,
    /// Operations without a last event: token by id.
    open: HashMap<OpId, u64>,
    pairs: Vec<Pair>,
    /// Where pairs are made: a port of its own for each would use all ports up in a minute, for a port rests
    /// after its last connection.
    door: TcpListener,
    listener: Source,
    addr: std::net::SocketAddr,
    file: Source,
    next: u64,
    messages: u64,
    messages_seen: u64,
    refused: u64,
}

fn nonblocking_pair(q: &mut Queue, door: &TcpListener) -> Pair {
    let theirs = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let ours = q.adopt(OwnedFd::from(door.accept().unwrap().0)).unwrap();
    Pair { ours, theirs, receiving: false }
}

impl World {
    fn new(backend: Backend, seed: u64, path: &std::path::Path) -> World {
        let config = Config {
            backend,
            entries: 16,
            completions: 64,
            max_ops: 200,
            stream_blocks: 8,
            stream_block: 4096,
            inlet: 16,
            ..Config::default()
        };
        let mut q = Queue::new(config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let file =
            std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len(300_000).unwrap();
        World {
            handle: q.handle(),
            listener: q.adopt(OwnedFd::from(listener)).unwrap(),
            file: q.adopt(OwnedFd::from(file)).unwrap(),
            pairs: (0..6).map(|_| nonblocking_pair(&mut q, &door)).collect(),
            door,
            q,
            events: Events::default(),
            random: Prng::new(seed),
            open: HashMap::new(),
            addr,
            next: 0,
            messages: 0,
            messages_seen: 0,
            refused: 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn submit<O: Op>(&mut self, op: O) -> Option<OpId> {
        self.next += 1;
        let token = self.next;
        match self.q.submit(Token(token), op) {
            Ok(id) => {
                assert!(self.open.insert(id, token).is_none(), "an id was given twice");
                Some(id)
            }
            Err(rejected) => {
                assert!(matches!(rejected.why, Refusal::Full | Refusal::Closed | Refusal::Invalid));
                self.refused += 1;
                None
            }
        }
    }

    fn step(&mut self) {
        let which = self.below(self.pairs.len() as u64) as usize;
        let ours = self.pairs[which].ours.clone();
        let len = 1 + self.below(20_000) as usize;
        match self.below(20) {
            0 if !self.pairs[which].receiving => {
                let mode = if self.below(2) == 0 { Mode::Once } else { Mode::Stream };
                self.pairs[which].receiving = self.submit(Recv { source: ours, mode }).is_some();
            }
            1 if !self.pairs[which].receiving => {
                let fill = self.below(2) == 0;
                let op = RecvInto { source: ours, buf: vec![0; len].into(), fill };
                self.pairs[which].receiving = self.submit(op).is_some();
            }
            2 | 3 => {
                let mode = [SendMode::Copy, SendMode::Auto, SendMode::ZeroCopy][self.below(3) as usize];
                self.submit(Send { source: ours, data: vec![1; len * 5].into(), mode });
            }
            4 => {
                let (offset, len) = (self.below(200_000), self.below(150_000));
                let op = SendFile { source: ours, file: self.file.clone(), offset, len, head: "head".into() };
                self.submit(op);
            }
            5 => {
                let offset = self.below(310_000);
                self.submit(ReadAt { source: self.file.clone(), buf: vec![0; len].into(), offset });
            }
            6 => {
                let offset = self.below(280_000);
                self.submit(WriteAt { source: self.file.clone(), data: vec![2; len].into(), offset });
            }
            7 => {
                let _ = self.submit(Fsync { source: self.file.clone(), data_only: true });
            }
            8 => {
                let at = When::In(Duration::from_micros(self.below(3000)));
                let every = (self.below(4) == 0).then(|| Duration::from_micros(500));
                self.submit(Timer { at, every });
            }
            9 => {
                let mode = [PollMode::Once, PollMode::Edge, PollMode::Level][self.below(3) as usize];
                self.submit(Poll { source: ours, interest: Interest::READ | Interest::WRITE, mode });
            }
            10 => {
                let mode = if self.below(2) == 0 { Mode::Once } else { Mode::Stream };
                self.submit(Accept { source: self.listener.clone(), mode });
            }
            11 => drop(TcpStream::connect_timeout(&self.addr, Duration::from_millis(1))),
            12 => {
                let _ = self.submit(Deliver(std::future::ready(5)));
            }
            13 => {
                let posted = self.handle.post(Message { token: Token(1), ..Message::default() });
                self.messages += u64::from(posted.is_ok());
            }
            14 | 15 => self.cancel_one(),
            16 => {
                let mode = if self.below(2) == 0 { CloseMode::Graceful } else { CloseMode::Abort };
                // Closing waits for the peer to take what was sent: it does not, so it goes.
                if self.submit(Close { source: ours, mode }).is_some() {
                    self.pairs[which] = nonblocking_pair(&mut self.q, &self.door);
                }
            }
            17 => {
                let _ = self.submit(Shutdown { source: ours, how: std::net::Shutdown::Write });
            }
            _ => self.peer(which),
        }
    }

    /// The other side reads or writes something.
    fn peer(&mut self, which: usize) {
        let mut piece = [3; 30_000];
        let len = 1 + self.below(29_999) as usize;
        let theirs = &mut self.pairs[which].theirs;
        // Nothing to read, no room, or gone: all is fine.
        let _ = if len.is_multiple_of(2) { theirs.read(&mut piece) } else { theirs.write(&piece[..len]) };
    }

    fn cancel_one(&mut self) {
        let count = self.open.len() as u64;
        if count > 0 {
            let at = self.below(count) as usize;
            let id = *self.open.keys().nth(at).unwrap();
            self.q.cancel(id);
        }
    }

    fn take(&mut self, wait: Wait) -> usize {
        let mut events = std::mem::take(&mut self.events);
        let count = self.q.wait(&mut events, wait).unwrap();
        let held: Vec<Event> = events.drain().collect();
        for event in held {
            self.check(event);
        }
        self.events = events;
        count
    }

    fn check(&mut self, event: Event) {
        let Some(id) = event.id else {
            self.messages_seen += u64::from(matches!(event.what, What::Message(_)));
            return;
        };
        let token = self.open.get(&id).copied();
        assert_eq!(token, Some(event.token.0), "an event after the last, or of nobody: {event:?}");
        if event.last {
            self.open.remove(&id);
        }
        match event.what {
            What::Data(buf) => assert!(buf.iter().all(|b| *b == 3)),
            What::Read { bytes, buf } => assert!(bytes <= buf.len()),
            What::Failed { operands: Operands::Data(Data::Buf(buf)), done, .. } => {
                assert!(done <= buf.len() as u64);
            }
            What::Sent { bytes, data: Some(data) } => assert_eq!(bytes, data.len() as u64),
            _ => {}
        }
        for pair in &mut self.pairs {
            // Asked for anew by chance; the second one is refused or shares the bytes, both fine.
            pair.receiving = false;
        }
    }

    fn finish(mut self) -> u64 {
        for pair in std::mem::take(&mut self.pairs) {
            drop(pair.theirs);
            self.submit_patiently(Close { source: pair.ours, mode: CloseMode::Abort });
        }
        for source in [self.listener.clone(), self.file.clone()] {
            self.submit_patiently(Close { source, mode: CloseMode::Abort });
        }
        let ids: Vec<OpId> = self.open.keys().copied().collect();
        for id in ids {
            self.q.cancel(id);
        }
        let until = Instant::now() + Duration::from_secs(20);
        while !self.open.is_empty() || self.messages_seen < self.messages {
            assert!(Instant::now() < until, "left: {:?}; {:?}", self.open, self.q.stats());
            self.take(Wait::until(until));
        }
        assert_eq!((self.q.in_flight(), self.q.leased_blocks()), (0, 0));
        assert_eq!(self.messages, self.messages_seen);
        self.q.shutdown(Duration::from_secs(5)).unwrap();
        self.next
    }

    fn submit_patiently(&mut self, op: Close) {
        while self.submit(op.clone()).is_none() {
            self.cancel_one();
            self.take(Wait::until(Instant::now() + Duration::from_millis(1)));
        }
    }
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn run(backend: Backend, seed: u64, ops: u64) {
    let path = std::env::temp_dir().join(format!("peyk-stress-{}", std::process::id()));
    let before = open_fds();
    let mut world = World::new(backend, seed, &path);
    while world.next < ops {
        for _ in 0..=world.below(10) {
            world.step();
        }
        let wait = match world.below(3) {
            0 => Wait::now(),
            _ => Wait::until(Instant::now() + Duration::from_micros(200)),
        };
        world.take(wait);
    }
    let refused = world.refused;
    let done = world.finish();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(open_fds(), before, "descriptors on {backend:?} with seed {seed}");
    eprintln!("{backend:?}, seed {seed}: {done} operations, {refused} refused, nothing left");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// Rounds on both backends with new seeds, for `seconds` but two at least; after each, `then`.
fn rounds(seconds: u64, ops: u64, mut then: impl FnMut(u64)) {
    let until = Instant::now() + Duration::from_secs(seconds);
    let first = number("PEYK_SEED").unwrap_or(1);
    for round in 0.. {
        for backend in [Backend::Uring, Backend::Epoll] {
            run(backend, first + round, ops);
        }
        then(round);
        if Instant::now() >= until && round > 0 {
            return;
        }
    }
}

#[test]
fn t11__random_operations_end_once_and_leave_nothing() {
    let _alone = alone();
    rounds(0, number("PEYK_STRESS_OPS").unwrap_or(6_000), |_| {});
}

extern "C" fn nothing(_: i32) {}

/// The same, interrupted a thousand times a second.
#[test]
fn t72__random_operations_in_a_storm_of_signals() {
    let _alone = alone();
    let storm = |micros| {
        let tick = libc::timeval { tv_sec: 0, tv_usec: micros };
        let every = libc::itimerval { it_interval: tick, it_value: tick };
        // SAFETY: `every` is readable for the call.
        assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const every, std::ptr::null_mut()) }, 0);
    };
    // SAFETY: zero is a value for the record; the handler does nothing; calls are interrupted, not
    // restarted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
    }
    storm(1000);
    rounds(0, number("PEYK_STRESS_OPS").unwrap_or(6_000), |_| {});
    storm(0);
}

/// Kilobytes of memory this process has.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// However long it goes on, memory and descriptors stay what they were after the first rounds.
#[test]
fn t78__long_run_keeps_memory_and_descriptors_flat() {
    let _alone = alone();
    let mut settled = (0, 0);
    let mut most = 0;
    rounds(number("PEYK_STRESS_SECONDS").unwrap_or(0), 6_000, |round| {
        let found = (resident_kb(), open_fds());
        match round {
            0..WARM_UP => settled = found,
            _ => assert_eq!(found.1, settled.1, "descriptors after round {round}"),
        }
        most = found.0.max(most);
        // The sanitizer keeps freed memory back for a while.
        let slack = if std::env::var_os("ASAN_OPTIONS").is_some() { 128 << 10 } else { 32 << 10 };
        assert!(found.0 <= settled.0 + slack, "{} KiB after round {round}, were {}", found.0, settled.0);
    });
    println!("{} KiB and {} descriptors when settled, {most} KiB at most", settled.0, settled.1);
}
