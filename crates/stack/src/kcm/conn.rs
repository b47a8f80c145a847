//! A connection below a mux: a stream, and the baton of who reads it. What its bytes mean is the mux's.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use peyk_kcm::PsockId;
use socket2::SockRef;

use crate::sys::END;

/// A byte stream that does not block: TCP, TLS over it, a Unix socket, anything with readiness.
pub trait Stream: Send + Sync + 'static {
    /// Reads what is there. `Ok(0)` is the end; `WouldBlock` means nothing is there.
    ///
    /// # Errors
    /// The stream is broken.
    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Takes some of these bytes, in order. `WouldBlock` means none.
    ///
    /// # Errors
    /// The stream is broken.
    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Called when the descriptor may be written again, for streams with buffers of their own.
    ///
    /// # Errors
    /// The stream is broken.
    fn flush_own(&self) -> io::Result<()> {
        Ok(())
    }

    /// Whether a read of less than asked for means that nothing more is there. Not so for streams that
    /// keep bytes themselves.
    fn short_read_is_all(&self) -> bool {
        true
    }

    /// What readiness is asked of.
    fn fd(&self) -> BorrowedFd<'_>;

    /// No more is wanted from the stream in either direction.
    fn shut_down(&self);

    /// Gives the stream back to its owner, as it was before it was attached.
    fn release(self: Box<Self>) -> Option<TcpStream> {
        None
    }
}

/// A kernel TCP connection.
#[derive(Debug)]
pub struct TcpConn {
    tcp: TcpStream,
    was_nonblocking: bool,
}

impl TcpConn {
    /// Takes a connection over; it does not block from then on.
    ///
    /// # Errors
    /// The system refuses to change its mode.
    pub fn new(tcp: TcpStream) -> io::Result<TcpConn> {
        let was_nonblocking = SockRef::from(&tcp).nonblocking()?;
        tcp.set_nonblocking(true)?;
        let _ = tcp.set_nodelay(true); // Unix sockets have no such option
        Ok(TcpConn { tcp, was_nonblocking })
    }
}

impl Stream for TcpConn {
    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.tcp).read(buf)
    }

    fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match bufs {
            [one] => (&self.tcp).write(one),
            _ => (&self.tcp).write_vectored(bufs),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }

    fn shut_down(&self) {
        let _ = self.tcp.shutdown(Shutdown::Both);
    }

    fn release(self: Box<Self>) -> Option<TcpStream> {
        let _ = self.tcp.set_nonblocking(self.was_nonblocking);
        Some(self.tcp)
    }
}

/// Nobody reads; somebody reads; somebody reads and must look again.
const IDLE: u8 = 0;
const READING: u8 = 1;
const AGAIN: u8 = 2;

/// A stream with the state its threads share.
pub(crate) struct Conn {
    pub(crate) id: PsockId,
    pub(crate) stream: Box<dyn Stream>,
    /// Identity of the descriptor in the list of those that are attached.
    pub(crate) identity: (u64, u64),
    baton: AtomicU8,
    /// Messages of it that are being handled.
    pub(crate) in_service: AtomicUsize,
    /// The mux has said that it is down.
    pub(crate) is_down: AtomicBool,
    /// The mux must be asked before it is read: it was paused, or a long message is in assembly.
    pub(crate) asks_first: AtomicBool,
    /// There was room for writing while a write was under way.
    pub(crate) was_writable: AtomicBool,
    /// An edge said that the peer has sent its last byte: a short read is then not all, the end follows.
    pub(crate) is_ending: AtomicBool,
    /// Its connect has not been confirmed.
    pub(crate) is_connecting: AtomicBool,
}

impl Conn {
    pub(crate) fn new(id: PsockId, stream: Box<dyn Stream>, identity: (u64, u64), connecting: bool) -> Conn {
        Conn {
            id,
            stream,
            identity,
            baton: AtomicU8::new(IDLE),
            in_service: AtomicUsize::new(0),
            is_down: AtomicBool::new(false),
            asks_first: AtomicBool::new(false),
            was_writable: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            is_connecting: AtomicBool::new(connecting),
        }
    }

    /// Notes what an edge said. To be called before the baton is tried for, so that whoever has it sees it.
    pub(crate) fn note_edge(&self, events: u32) {
        if events & END != 0 {
            self.is_ending.store(true, Ordering::Release);
        }
    }

    /// Takes the baton; false if another has it, who will look again before laying it down.
    pub(crate) fn begin_read(&self) -> bool {
        loop {
            match self.baton.compare_exchange(IDLE, READING, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                // An edge for the reader: it must not be lost.
                Err(READING) => {
                    if self
                        .baton
                        .compare_exchange(READING, AGAIN, Ordering::AcqRel, Ordering::Relaxed)
                        .is_ok()
                    {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Says that the next look sees all edges up to here.
    pub(crate) fn look_again(&self) {
        self.baton.store(READING, Ordering::Release);
    }

    /// Lays the baton down; false if there was an edge since the last look.
    pub(crate) fn end_read(&self) -> bool {
        self.baton.compare_exchange(READING, IDLE, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Lays it down whatever came: the reader is told by other means when to go on.
    pub(crate) fn drop_read(&self) {
        self.baton.store(IDLE, Ordering::Release);
    }
}
