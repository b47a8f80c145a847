//! Random operations, cancellations and closes, on both backends: each accepted operation ends
//! exactly once, and in the end no descriptor, block or operation is left (t11, t78).
//!
//! `PEYK_STRESS_OPS` sets the number of operations, `PEYK_STRESS_SECONDS` repeats for that time
//! with new seeds, `PEYK_SEED` takes one seed.

#![allow(non_snake_case)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use peyk_kevent::{
    Accept, Backend, Close, CloseMode, Config, Data, Deliver, Event, Events, Fsync, Handle, Interest,
    Message, Mode, Op, OpId, Operands, Poll, PollMode, Queue, ReadAt, Recv, RecvInto, Refusal, Send,
    SendFile, SendMode, Shutdown, Source, Timer, Token, Wait, What, When, WriteAt,
};
use peyk_sansio::Prng;

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
    listener: Source,
    addr: std::net::SocketAddr,
    file: Source,
    next: u64,
    messages: u64,
    messages_seen: u64,
    refused: u64,
}

fn nonblocking_pair(q: &mut Queue) -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let ours = q.adopt(OwnedFd::from(listener.accept().unwrap().0)).unwrap();
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
        let file =
            std::fs::File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len(300_000).unwrap();
        World {
            handle: q.handle(),
            listener: q.adopt(OwnedFd::from(listener)).unwrap(),
            file: q.adopt(OwnedFd::from(file)).unwrap(),
            pairs: (0..6).map(|_| nonblocking_pair(&mut q)).collect(),
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
                    self.pairs[which] = nonblocking_pair(&mut self.q);
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

#[test]
fn t11__random_operations_end_once_and_leave_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let ops = number("PEYK_STRESS_OPS").unwrap_or(6_000);
    let until = Instant::now() + Duration::from_secs(number("PEYK_STRESS_SECONDS").unwrap_or(0));
    let mut seed = number("PEYK_SEED").unwrap_or(1);
    loop {
        for backend in [Backend::Uring, Backend::Epoll] {
            run(backend, seed, ops);
        }
        seed += 1;
        if Instant::now() >= until {
            return;
        }
    }
}
