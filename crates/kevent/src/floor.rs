//! What benchmarks compare with: the kernel's interfaces used directly, with nothing around them.
//! Not for anything else.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

use crate::buf::IoBuf;
use crate::sys::addr::{ADDR_LEN, decode, encode, unspecified};
use crate::sys::socket::empty_message;
use crate::sys::{check, check_size};

/// Datagrams of one size by `sendmmsg`, and by `recvmmsg`, a batch at a time.
pub struct Batch {
    // What the headers point to; never touched otherwise.
    _memory: Vec<Vec<u8>>,
    _slices: Vec<libc::iovec>,
    _address: Box<[u8; ADDR_LEN]>,
    headers: Vec<libc::mmsghdr>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("count", &self.headers.len()).finish_non_exhaustive()
    }
}

impl Batch {
    /// `count` datagrams of `size` bytes, for `to` if they are to be sent.
    pub fn new(count: usize, size: usize, to: Option<SocketAddr>) -> Batch {
        let mut memory = vec![vec![7u8; size]; count];
        let mut slices: Vec<libc::iovec> = memory
            .iter_mut()
            .map(|m| libc::iovec { iov_base: m.as_mut_ptr().cast(), iov_len: m.len() })
            .collect();
        let mut address = Box::new([0; ADDR_LEN]);
        let len = to.map_or(0, |to| encode(&to, &mut address));
        let headers = slices
            .iter_mut()
            .map(|slice| {
                let mut message = empty_message();
                message.msg_iov = slice;
                message.msg_iovlen = 1;
                if len > 0 {
                    message.msg_name = address.as_mut_ptr().cast();
                    message.msg_namelen = len as u32;
                }
                libc::mmsghdr { msg_hdr: message, msg_len: 0 }
            })
            .collect();
        Batch { _memory: memory, _slices: slices, _address: address, headers }
    }

    /// Sends the batch; returns how many datagrams left.
    ///
    /// # Errors
    /// Those of `sendmmsg`.
    pub fn send(&mut self, fd: &impl AsRawFd) -> io::Result<usize> {
        let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len() as u32);
        // SAFETY: the headers point to memory, slices and address of this value, which do not move.
        check(unsafe { libc::sendmmsg(fd.as_raw_fd(), headers, count, 0) }).map(|n| n as usize)
    }

    /// Waits for one datagram and takes those that are there; returns how many.
    ///
    /// # Errors
    /// Those of `recvmmsg`.
    pub fn recv(&mut self, fd: &impl AsRawFd) -> io::Result<usize> {
        let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len() as u32);
        let (flags, none) = (libc::MSG_WAITFORONE, std::ptr::null_mut());
        // SAFETY: as in `send`; the memory is writable and nobody else's.
        check(unsafe { libc::recvmmsg(fd.as_raw_fd(), headers, count, flags as _, none) }).map(|n| n as usize)
    }
}

/// Reads at offsets by the ring's crate alone, `depth` at a time.
pub struct RawReads {
    // Dropped first: the ring is idle between calls.
    ring: IoUring,
    bufs: Vec<IoBuf>,
    file: OwnedFd,
}

impl std::fmt::Debug for RawReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawReads").field("depth", &self.bufs.len()).finish_non_exhaustive()
    }
}

impl RawReads {
    /// Reads of `size` bytes from `file`.
    ///
    /// # Errors
    /// There is no ring to be had.
    pub fn new(file: OwnedFd, depth: usize, size: usize) -> io::Result<RawReads> {
        let ring = ring(depth.next_power_of_two() as u32)?;
        let bufs = (0..depth).map(|_| IoBuf::aligned(size)).collect::<io::Result<_>>()?;
        Ok(RawReads { ring, bufs, file })
    }

    /// Reads at the offsets that `next` gives until it gives none, always as many at a time as there
    /// are buffers, waiting for `batch` of them; returns the number of reads.
    ///
    /// # Errors
    /// A read failed.
    pub fn run(&mut self, batch: usize, mut next: impl FnMut() -> Option<u64>) -> io::Result<u64> {
        let (mut flying, mut done) = (0, 0);
        let mut free: Vec<usize> = (0..self.bufs.len()).collect();
        let mut failed = None;
        loop {
            while let Some(at) = free.pop() {
                let Some(offset) = next() else { break };
                let buf = &mut self.bufs[at];
                let (address, len) = (buf.as_mut_ptr(), buf.len() as u32);
                let entry = opcode::Read::new(Fd(self.file.as_raw_fd()), address, len).offset(offset).build();
                // SAFETY: the buffer is this value's and untouched until its completion was seen; this
                // function does not return before all were.
                unsafe { self.ring.submission().push(&entry.user_data(at as u64)) }
                    .map_err(|_| io::Error::other("submission queue full"))?;
                flying += 1;
            }
            if flying == 0 {
                return failed.map_or(Ok(done), Err);
            }
            self.ring.submit_and_wait(batch.min(flying))?;
            for completion in self.ring.completion() {
                flying -= 1;
                done += 1;
                free.push(completion.user_data() as usize);
                if completion.result() < 0 {
                    failed = Some(io::Error::from_raw_os_error(-completion.result()));
                }
            }
        }
    }
}

/// A ring with the flags a queue's has.
fn ring(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .build(entries)
}

/// Receives datagrams by the ring's crate alone, one after another.
pub struct RawReceive {
    // Dropped first: the ring is idle between calls.
    ring: IoUring,
    socket: OwnedFd,
    buf: Vec<u8>,
    name: Box<[u8; ADDR_LEN]>,
    slice: Box<libc::iovec>,
    message: Box<libc::msghdr>,
}

impl std::fmt::Debug for RawReceive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawReceive").field("room", &self.buf.len()).finish_non_exhaustive()
    }
}

impl RawReceive {
    /// Receives of at most `size` bytes.
    ///
    /// # Errors
    /// There is no ring to be had.
    pub fn new(socket: OwnedFd, size: usize) -> io::Result<RawReceive> {
        let mut buf = vec![0; size];
        let slice = Box::new(libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: size });
        let (name, message) = (Box::new([0; ADDR_LEN]), Box::new(empty_message()));
        Ok(RawReceive { ring: ring(8)?, socket, buf, name, slice, message })
    }

    /// Waits for the next datagram: its length, and from whom.
    ///
    /// # Errors
    /// Those of `recvmsg`.
    pub fn recv(&mut self) -> io::Result<(usize, SocketAddr)> {
        self.message.msg_name = self.name.as_mut_ptr().cast();
        self.message.msg_namelen = ADDR_LEN as u32;
        self.message.msg_iov = &raw mut *self.slice;
        self.message.msg_iovlen = 1;
        let entry = opcode::RecvMsg::new(Fd(self.socket.as_raw_fd()), &raw mut *self.message).build();
        // SAFETY: header, slice, name and buffer are this value's, boxed, and untouched until the
        // completion was seen, below.
        unsafe { self.ring.submission().push(&entry) }
            .map_err(|_| io::Error::other("submission queue full"))?;
        loop {
            // Until the completion is there the memory is the kernel's: nothing ends this before.
            if let Err(e) = self.ring.submit_and_wait(1)
                && e.kind() != io::ErrorKind::Interrupted
            {
                panic!("the ring does not wait: {e}");
            }
            if let Some(completion) = self.ring.completion().next() {
                let len = check_size_of(completion.result())?;
                return Ok((len, decode(&*self.name).unwrap_or(unspecified())));
            }
        }
    }
}

/// Sends or receives on a stream by the ring's crate alone, one call after another.
pub struct RawStream {
    // Dropped first: the ring is idle between calls.
    ring: IoUring,
    stream: OwnedFd,
    buf: Vec<u8>,
}

impl std::fmt::Debug for RawStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawStream").field("unit", &self.buf.len()).finish_non_exhaustive()
    }
}

impl RawStream {
    /// In units of `size` bytes.
    ///
    /// # Errors
    /// There is no ring to be had.
    pub fn new(stream: OwnedFd, size: usize) -> io::Result<RawStream> {
        Ok(RawStream { ring: ring(8)?, stream, buf: vec![7; size] })
    }

    /// Sends one unit.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn send(&mut self) -> io::Result<usize> {
        let (fd, at, len) = (Fd(self.stream.as_raw_fd()), self.buf.as_ptr(), self.buf.len() as u32);
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        self.perform(&opcode::Send::new(fd, at, len).flags(flags).build())
    }

    /// Receives up to one unit; 0 at the end.
    ///
    /// # Errors
    /// Those of `recv`.
    pub fn recv(&mut self) -> io::Result<usize> {
        let (fd, at, len) = (Fd(self.stream.as_raw_fd()), self.buf.as_mut_ptr(), self.buf.len() as u32);
        self.perform(&opcode::Recv::new(fd, at, len).build())
    }

    fn perform(&mut self, entry: &squeue::Entry) -> io::Result<usize> {
        // SAFETY: the entry refers to this value's buffer, which nobody touches until the completion
        // was seen, below.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::Error::other("submission queue full"))?;
        loop {
            // As in `RawReceive::recv`.
            if let Err(e) = self.ring.submit_and_wait(1)
                && e.kind() != io::ErrorKind::Interrupted
            {
                panic!("the ring does not wait: {e}");
            }
            if let Some(completion) = self.ring.completion().next() {
                return check_size_of(completion.result());
            }
        }
    }
}

/// The size in a completion, or the error.
fn check_size_of(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// One read at an offset by a plain call.
///
/// # Errors
/// Those of `pread`.
pub fn read_at(file: &OwnedFd, buf: &mut IoBuf, offset: u64) -> io::Result<usize> {
    let (at, len) = (buf.as_mut_ptr(), buf.len());
    // SAFETY: the buffer is writable and borrowed for the call.
    check_size(unsafe { libc::pread(file.as_raw_fd(), at.cast(), len, offset as i64) })
}
