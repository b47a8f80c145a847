//! A file, or a part of it, to a socket, as one operation.
//!
//! Which way is best depends on length and on whether the file is in memory (measured; see
//! `docs/decisions/0010-one-queue.md`); small sends are plain calls on both backends:
//!
//! - up to 64 KiB: read behind the head, send both by one call;
//! - longer, in the page cache: `sendfile(2)` in slices, whenever the socket has room;
//! - longer, not in the page cache: the slice is read by the ring or a worker, then sent, so that
//!   the queue's thread never waits for a device.

use std::cell::RefCell;

use crate::buf::{Data, IoBuf};
use crate::call::Call;
use crate::event::{Operands, SendfileHow, What};
use crate::io::{Io, Machine, Outcome, Scratch, Verdict, Work};
use crate::op::sealed::Sealed;
use crate::op::{Refusal, Rejected, Step, refuse};
use crate::source::{Kind, Source};

/// Up to this length one read and one send are cheaper than `sendfile`.
const SMALL: u64 = 64 << 10;
/// Bytes of one `sendfile` call: of 64 KiB, 256 KiB and 1 MiB the last costs least.
const SLICE: u64 = 1 << 20;
/// Bytes of one read of what is not in memory, and between two places where that is found out.
const READ: u64 = 256 << 10;
/// Buffers kept for the next operation.
const SPARE: usize = 16;

thread_local! {
    static SPARES: RefCell<Vec<IoBuf>> = const { RefCell::new(Vec::new()) };
}

/// Sends `head`, then `len` bytes of a file: event [`What::FileSent`](crate::What::FileSent). Leaves
/// in order with the other sends of the source.
///
/// Fails with `ENODATA` if the file ends before; like every failure and cancellation, that says how
/// many bytes left.
#[derive(Debug)]
pub struct SendFile {
    /// A connected stream socket.
    pub source: Source,
    /// A file, not opened for direct access.
    pub file: Source,
    /// Where in the file.
    pub offset: u64,
    /// Bytes of the file.
    pub len: u64,
    /// Sent first; 16 KiB at most, may be empty.
    pub head: Data,
}

/// Longest head.
const HEAD_MAX: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Filling the buffer; `now`: only with what needs no waiting.
    Read { now: bool },
    /// Sending the buffer.
    Send,
    /// Is the next slice in memory? Asked piece by piece, so that a call meets no gap it would wait for.
    Probe,
    /// Sending the slice by sendfile.
    File,
}

#[derive(Debug)]
pub(crate) struct Sendfile {
    file: Source,
    /// Where the next byte of the file comes from.
    offset: u64,
    /// Bytes of the file that are neither sent nor in the buffer.
    left: u64,
    phase: Phase,
    head: Data,
    buf: IoBuf,
    /// Bytes of the buffer that are filled, and that have left.
    filled: usize,
    sent: usize,
    /// End of the slice under way, or of what of the next one is in memory; as an offset.
    slice_end: u64,
    /// The file ended early.
    short: bool,
    how: SendfileHow,
}

impl Sendfile {
    fn new(op: SendFile) -> Sendfile {
        let mut buf = SPARES.with(|spares| spares.borrow_mut().pop()).unwrap_or_default();
        let head = op.head.len();
        let needed = head + op.len.min(SMALL) as usize;
        if buf.capacity() < needed {
            buf = vec![0; needed.max(SMALL as usize + 1024)].into();
        }
        buf.set_len(buf.capacity());
        let mut at = 0;
        for part in 0..op.head.parts() {
            let slice = op.head.slice(part);
            buf[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        let phase = if op.len == 0 || (op.len > SMALL && head > 0) {
            Phase::Send
        } else if op.len <= SMALL {
            Phase::Read { now: true }
        } else {
            Phase::Probe
        };
        Sendfile {
            file: op.file,
            offset: op.offset,
            left: op.len,
            phase,
            head: op.head,
            buf,
            filled: head,
            sent: 0,
            slice_end: 0,
            short: false,
            how: SendfileHow::default(),
        }
    }

    /// Bytes to be read at once.
    fn piece(&self) -> u64 {
        self.left.min(READ)
    }

    /// End of the next piece that may be in memory.
    fn probe_end(&self) -> u64 {
        let known = self.slice_end.max(self.offset);
        known + READ.min(self.offset + self.left - known)
    }

    /// Bytes of this filling of the buffer.
    fn wanted(&self) -> usize {
        let room = self.buf.len() as u64;
        (self.filled as u64 + self.left).min(room) as usize
    }

    fn on_read(&mut self, outcome: &Outcome, now: bool) -> Verdict {
        match outcome.number() {
            Ok(0) => {
                self.short = true;
                self.phase = Phase::Send;
            }
            Ok(count) => {
                self.filled += count as usize;
                self.offset += count;
                self.left -= count.min(self.left);
                if self.left == 0 || self.filled >= self.wanted() {
                    self.phase = Phase::Send;
                }
            }
            Err(libc::EAGAIN | libc::EOPNOTSUPP) if now => self.phase = Phase::Read { now: false },
            Err(libc::EAGAIN) => {}
            Err(errno) => return Verdict::Fail(errno),
        }
        self.go_on()
    }

    fn on_send(&mut self, outcome: &Outcome) -> Verdict {
        match outcome.number() {
            Ok(count) => {
                self.sent += count as usize;
                self.how.copied += count;
                if self.sent >= self.filled {
                    (self.sent, self.filled) = (0, 0);
                    self.phase = Phase::Probe;
                }
            }
            Err(libc::EAGAIN) => {}
            Err(errno) => return Verdict::Fail(errno),
        }
        self.go_on()
    }

    fn on_probe(&mut self, outcome: &Outcome) {
        match outcome.number() {
            Err(libc::EAGAIN) if self.slice_end > self.offset => self.phase = Phase::File,
            Err(libc::EAGAIN) => self.phase = Phase::Read { now: false },
            found => {
                self.slice_end = self.probe_end();
                let is_enough = self.slice_end - self.offset >= SLICE.min(self.left);
                // A file that ends too early, or does not know the attempt, says so by itself.
                if is_enough || !matches!(found, Ok(1..)) {
                    self.phase = Phase::File;
                }
            }
        }
    }

    fn on_file(&mut self, outcome: &Outcome) -> Verdict {
        match outcome.number() {
            Ok(0) => self.short = true,
            Ok(count) => {
                self.how.sendfile += count;
                self.offset += count;
                self.left -= count.min(self.left);
                if self.offset >= self.slice_end {
                    self.phase = Phase::Probe;
                }
            }
            Err(libc::EAGAIN) => {}
            Err(errno) => return Verdict::Fail(errno),
        }
        self.go_on()
    }

    /// The end, if it is reached.
    fn go_on(&mut self) -> Verdict {
        let buffered = self.sent < self.filled;
        if self.short && !buffered {
            return Verdict::Fail(libc::ENODATA);
        }
        if self.left == 0 && !buffered {
            self.release();
            let what = What::FileSent { bytes: self.how.sendfile + self.how.copied, how: self.how };
            return Verdict::Last(what);
        }
        Verdict::Again
    }

    fn release(&mut self) {
        let buf = std::mem::take(&mut self.buf);
        SPARES.with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < SPARE && buf.capacity() > 0 {
                spares.push(buf);
            }
        });
    }
}

impl Machine for Sendfile {
    fn next(&mut self, source: &Source, scratch: &mut Scratch) -> Call {
        let (out, file) = (source.raw(), self.file.raw());
        match self.phase {
            Phase::Read { now } => {
                if self.filled == 0 && self.buf.len() < self.piece() as usize {
                    self.buf = vec![0; self.piece() as usize].into();
                }
                let (wanted, offset) = (self.wanted(), self.offset);
                let rest = &mut self.buf[self.filled..wanted];
                let (at, len) = (rest.as_mut_ptr(), rest.len());
                match now {
                    true => Call::ReadNow { fd: file, at, len, offset },
                    false => Call::Read { fd: file, at, len, offset, known: None },
                }
            }
            Phase::Send => {
                let rest = &self.buf[self.sent..self.filled];
                let more = self.left > 0 && !self.short;
                Call::SendNow { fd: out, at: rest.as_ptr(), len: rest.len(), more }
            }
            Phase::Probe => {
                let at = scratch.small.as_mut_ptr();
                Call::ReadNow { fd: file, at, len: 1, offset: self.probe_end().saturating_sub(1) }
            }
            Phase::File => {
                source.refuse_to_wait();
                let len = self.slice_end - self.offset;
                Call::Sendfile { out, file, offset: self.offset, len: len as usize }
            }
        }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match self.phase {
            Phase::Read { now } => self.on_read(&outcome, now),
            Phase::Send => self.on_send(&outcome),
            Phase::File => self.on_file(&outcome),
            Phase::Probe => {
                self.on_probe(&outcome);
                Verdict::Again
            }
        }
    }

    fn take(&mut self) -> (u64, Operands) {
        self.release();
        (self.how.sendfile + self.how.copied, Operands::Data(std::mem::take(&mut self.head)))
    }
}

impl Sealed for SendFile {}
impl Step for SendFile {
    fn prepare(self, io: &mut Io) -> Result<(), Rejected<SendFile>> {
        let end = self.offset.checked_add(self.len).filter(|end| *end <= i64::MAX as u64);
        let right = self.source.kind() == Kind::Stream
            && self.file.kind() == (Kind::File { align: 0 })
            && end.is_some()
            && self.head.len() <= HEAD_MAX;
        let why = refuse(&self.source, right).or(self.file.is_closed().then_some(Refusal::Closed));
        if let Some(why) = why {
            return Err(Rejected { op: self, why });
        }
        io.fill(self.source.clone(), true, Work::Sendfile(Sendfile::new(self)));
        Ok(())
    }
}
