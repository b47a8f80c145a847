//! The other side of a connection.

use std::cell::OnceCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::shared::{LATE, Timing};

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
