//! The other side of a connection, and when things happen.

use std::cell::{Cell, OnceCell};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// The order of events that a test runs with: bugs that one of them hides show in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// As it comes: what can be done at once is.
    Inline,
    /// Each operation is in the kernel before anything else happens.
    Armed,
    /// Nothing is done at once that can be done elsewhere (`Config::force_async`).
    Async,
    /// What the peer does, it does a while later: the queue sleeps by then.
    Delayed,
}

thread_local! {
    static NOW: Cell<Timing> = const { Cell::new(Timing::Inline) };
}

impl Timing {
    pub const ALL: [Timing; 4] = [Timing::Inline, Timing::Armed, Timing::Async, Timing::Delayed];

    /// That of the test this thread runs.
    pub fn now() -> Timing {
        NOW.get()
    }

    pub fn set(self) {
        NOW.set(self);
    }
}

/// How late a delayed peer is.
const LATE: Duration = Duration::from_micros(500);

enum Deed {
    Write(Vec<u8>),
    Shutdown(Shutdown),
}

/// A plain connection. When the timing is [`Timing::Delayed`], what is written to it, and its close,
/// is the business of a thread that takes its time; few such deeds may wait, as in a socket.
pub struct Peer {
    stream: Arc<TcpStream>,
    is_late: bool,
    deeds: OnceCell<SyncSender<Deed>>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Peer {
        let is_late = Timing::now() == Timing::Delayed;
        Peer { stream: Arc::new(stream), is_late, deeds: OnceCell::new() }
    }

    fn later(&self, deed: Deed) -> io::Result<()> {
        let deeds = self.deeds.get_or_init(|| {
            let (deeds, todo) = sync_channel(4);
            let stream = Arc::clone(&self.stream);
            std::thread::spawn(move || perform(&stream, &todo));
            deeds
        });
        deeds.send(deed).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if self.is_late { self.later(Deed::Shutdown(how)) } else { self.stream.shutdown(how) }
    }
}

fn perform(stream: &TcpStream, todo: &Receiver<Deed>) {
    while let Ok(deed) = todo.recv() {
        std::thread::sleep(LATE);
        let done = match deed {
            Deed::Write(bytes) => (&*stream).write_all(&bytes),
            Deed::Shutdown(how) => stream.shutdown(how),
        };
        if done.is_err() {
            return;
        }
    }
    std::thread::sleep(LATE);
}

impl Read for Peer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.stream).read(buf)
    }
}

impl Write for Peer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.is_late {
            return self.later(Deed::Write(buf.to_vec())).map(|()| buf.len());
        }
        (&*self.stream).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Deref for Peer {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for Peer {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
