//! What the tests share: queues in four timings, senders, and waits for what arrives.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use peyk_kevent::{
    Backend, BackendKind, Config, Events, Queue, RecvMsg, Source, Spin, Token, Train, Wait, What, udp,
};

pub use crate::shared::{LATE, Stop, Timing, in_child};

pub const PATIENCE: Duration = Duration::from_secs(5);

/// Serialises tests that count descriptors or load the machine.
pub static ALONE: Mutex<()> = Mutex::new(());

pub fn queue(backend: Backend) -> Queue {
    let force_async = Timing::now() == Timing::Async;
    let queue = Queue::new(Config { backend, force_async, ..Config::default() }).unwrap();
    let kind = if backend == Backend::Epoll { BackendKind::Epoll } else { BackendKind::Uring };
    assert_eq!(queue.caps().backend, kind, "{}", queue.caps());
    queue
}

pub fn on_both(test: impl Fn(Backend)) {
    for backend in [Backend::Uring, Backend::Epoll] {
        eprintln!("on {backend:?}");
        test(backend);
    }
}

/// The same in all four timings.
pub fn in_all_timings(test: impl Fn(Backend)) {
    for timing in Timing::ALL {
        eprintln!("{timing:?}");
        timing.set();
        on_both(&test);
    }
    Timing::Inline.set();
}

pub fn open(queue: &mut Queue, bind: &str, token: u64) -> (Source, SocketAddr) {
    let bound = udp::bind(bind.parse().unwrap(), &udp::Options::default()).unwrap();
    let source = queue.adopt(bound.fd).unwrap();
    listen(queue, &source, token);
    (source, bound.local)
}

pub fn listen(queue: &mut Queue, source: &Source, token: u64) {
    queue.submit(Token(token), RecvMsg { source: source.clone() }).unwrap();
    if Timing::now() == Timing::Armed {
        assert_eq!(queue.wait(&mut Events::default(), Wait::now()).unwrap(), 0);
    }
}

pub type Deed = (SocketAddr, u8, Vec<Vec<u8>>);

/// Another queue, that sends: at once, or, if that is the timing, from a thread that takes its time.
pub enum Sender {
    Here(Box<Queue>, Source),
    Late(std::sync::mpsc::Sender<Deed>),
}

impl Sender {
    pub fn new(backend: Backend, bind: &'static str) -> (Sender, SocketAddr) {
        if Timing::now() != Timing::Delayed {
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

    pub fn send(&mut self, to: SocketAddr, class: u8, datagrams: &[&[u8]]) {
        match self {
            Sender::Here(q, source) => send(q, source, train(to, class, datagrams)),
            Sender::Late(deeds) => {
                deeds.send((to, class, datagrams.iter().map(|d| d.to_vec()).collect())).unwrap();
            }
        }
    }
}

pub fn train(to: SocketAddr, class: u8, datagrams: &[&[u8]]) -> Box<Train> {
    let mut train = Train::new();
    train.start(to, class);
    for d in datagrams {
        let cut = d.len().min(20);
        train.push(&d[..cut], d[cut..].to_vec().into()).expect("datagrams of one train fit");
    }
    train
}

pub fn send(queue: &mut Queue, source: &Source, train: Box<Train>) {
    assert_eq!(queue.send_now(source, &mut [train]).unwrap(), 1);
}

/// Waits until `done` says so of the events so far.
pub fn run(queue: &mut Queue, spin: Spin, mut done: impl FnMut(Token, bool, What) -> bool) -> bool {
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

pub fn receive(queue: &mut Queue, spin: Spin, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut got = Vec::new();
    run(queue, spin, |_, _, what| {
        if let What::Dgrams(d) = what {
            got.extend(d.iter().map(|one| (d.from, one.to_vec())));
        }
        got.len() >= count
    });
    got
}
