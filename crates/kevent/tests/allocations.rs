//! After warm-up no operation allocates, on either backend.

#![allow(non_snake_case)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use peyk_kevent::{
    Backend, Config, Data, Events, IoBuf, Message, Mode, Queue, ReadAt, Recv, Send, SendFile, SendMode,
    Timer, Token, Wait, What, When, WriteAt,
};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all calls are passed on to the system's allocator; the count is the thread's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct World {
    q: Queue,
    events: Events,
    theirs: TcpStream,
    ours: peyk_kevent::Source,
    file: peyk_kevent::Source,
    buf: Option<IoBuf>,
    head: peyk_sockbuf::Bytes,
}

impl World {
    fn new(backend: Backend) -> World {
        let mut q = Queue::new(Config { backend, ..Config::default() }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        theirs.set_nodelay(true).unwrap();
        let ours = q.adopt(OwnedFd::from(listener.accept().unwrap().0)).unwrap();
        ours.set_nodelay(true).unwrap();
        let path = std::env::temp_dir().join(format!("peyk-alloc-{}-{backend:?}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = q.adopt(OwnedFd::from(file.unwrap())).unwrap();
        std::fs::remove_file(path).unwrap();
        q.submit(Token(0), Recv { source: ours.clone(), mode: Mode::Stream }).unwrap();
        let head = peyk_sockbuf::Bytes::from_static(b"head");
        World {
            q,
            events: Events::with_capacity(64),
            theirs,
            ours,
            file,
            buf: Some(vec![5; 4096].into()),
            head,
        }
    }

    /// Waits for the last event of `token`, or any of a received piece.
    fn until(&mut self, token: u64) {
        loop {
            self.q.wait(&mut self.events, Wait::forever()).unwrap();
            let mut found = false;
            for event in self.events.drain() {
                found |= event.token.0 == token;
                match event.what {
                    What::Data(lease) => {
                        let send =
                            Send { source: self.ours.clone(), data: lease.into(), mode: SendMode::Copy };
                        self.q.submit(Token(1), send).unwrap();
                    }
                    What::Read { buf, .. } => self.buf = Some(buf),
                    What::Wrote { data: Data::Buf(buf), .. } => self.buf = Some(buf),
                    What::Failed { error, .. } => panic!("{error}"),
                    _ => {}
                }
            }
            if found {
                return;
            }
        }
    }

    /// One of each.
    fn round(&mut self) {
        let mut back = [0; 104];
        self.theirs.write_all(&[1; 100]).unwrap();
        self.until(1);
        self.theirs.read_exact(&mut back[..100]).unwrap();
        let data = Data::Buf(self.buf.take().unwrap());
        self.q.submit(Token(2), WriteAt { source: self.file.clone(), data, offset: 0 }).unwrap();
        self.until(2);
        let buf = self.buf.take().unwrap();
        self.q.submit(Token(3), ReadAt { source: self.file.clone(), buf, offset: 0 }).unwrap();
        self.until(3);
        let (source, file, head) = (self.ours.clone(), self.file.clone(), self.head.clone().into());
        self.q.submit(Token(4), SendFile { source, file, offset: 0, len: 100, head }).unwrap();
        self.until(4);
        self.theirs.read_exact(&mut back).unwrap();
        let at = When::In(Duration::from_micros(10));
        self.q.submit(Token(5), Timer { at, every: None }).unwrap();
        self.until(5);
        self.q.handle().post(Message { token: Token(6), ..Message::default() }).unwrap();
        self.until(6);
    }
}

#[test]
fn operations__do_not_allocate_after_warm_up() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let mut world = World::new(backend);
        (0..200).for_each(|_| world.round());
        let before = COUNT.with(Cell::get);
        (0..500).for_each(|_| world.round());
        let count = COUNT.with(Cell::get) - before;
        assert_eq!(count, 0, "{count} allocations in 3000 operations on {backend:?}");
    }
}
