//! Operations on files: open, read and write at an offset, sync. There is no current position.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::buf::{Data, IoBuf};
use crate::call::Call;
use crate::event::{Operands, What};
use crate::io::{Io, Machine, Outcome, Scratch, Verdict, Work};
use crate::op::sealed::Sealed;
use crate::op::socket::step;
use crate::op::transfer::{Emptying, Filling};
use crate::op::{Refusal, Rejected, Step, refuse};
use crate::queue::Queue;
use crate::source::{Kind, Source};
use crate::sys::own;

/// Reads no longer than this are tried at once: from the page cache, that is quicker than handing
/// them over.
const INLINE_MAX: usize = 256 << 10;
/// Reads handed over at once after one that was not in the page cache.
const COLD: u8 = 8;

/// How [`OpenAt`] opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// Make it if there is none, readable and writable by everyone the umask lets.
    pub create: bool,
    /// Fail if there is one already.
    pub exclusive: bool,
    /// Empty it.
    pub truncate: bool,
    /// Go around the page cache; offsets, lengths and memory must be aligned (see
    /// [`IoBuf::aligned`](crate::IoBuf::aligned) and [`Kind::File`](crate::Kind)).
    pub direct: bool,
}

impl Default for OpenOptions {
    /// For reading.
    fn default() -> OpenOptions {
        OpenOptions {
            read: true,
            write: false,
            create: false,
            exclusive: false,
            truncate: false,
            direct: false,
        }
    }
}

/// Opens a file: event [`What::Opened`](crate::What::Opened).
#[derive(Debug, Clone)]
pub struct OpenAt {
    /// Where it is; relative paths start at the process's current directory.
    pub path: PathBuf,
    /// How.
    pub options: OpenOptions,
}

/// Reads until the buffer is full or the file ends: event [`What::Read`](crate::What::Read).
#[derive(Debug)]
pub struct ReadAt {
    /// A file.
    pub source: Source,
    /// Where to put the bytes; its length says how many.
    pub buf: IoBuf,
    /// Where in the file.
    pub offset: u64,
}

/// Writes all of `data`: event [`What::Wrote`](crate::What::Wrote). A failure says how many bytes
/// were written before it.
#[derive(Debug)]
pub struct WriteAt {
    /// A file.
    pub source: Source,
    /// What to write; comes back with the event.
    pub data: Data,
    /// Where in the file.
    pub offset: u64,
}

/// Waits until what was written is on the device: event [`What::Done`](crate::What::Done). Covers
/// writes that have completed; link it to those that have not.
#[derive(Debug, Clone)]
pub struct Fsync {
    /// A file.
    pub source: Source,
    /// The data and what is needed to read it, but not times and the like.
    pub data_only: bool,
}

#[derive(Debug)]
pub(crate) struct Open {
    path: CString,
    flags: i32,
}

impl Machine for Open {
    fn next(&mut self, _: &Source, _: &mut Scratch) -> Call {
        Call::Open { path: self.path.as_ptr(), flags: self.flags, mode: 0o666 }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number().map(|fd| Source::adopt(own(fd as RawFd))) {
            Ok(Ok(source)) => Verdict::Last(What::Opened(source)),
            Ok(Err(error)) => Verdict::Fail(error.raw_os_error().unwrap_or(libc::EIO)),
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Read {
    into: Filling,
    offset: u64,
    /// The next call is the attempt that does not wait.
    inline: bool,
}

impl Machine for Read {
    fn next(&mut self, source: &Source, _: &mut Scratch) -> Call {
        let offset = self.offset + self.into.done() as u64;
        let (fd, (at, len)) = (source.raw(), self.into.rest());
        if self.inline {
            return Call::ReadNow { fd, at, len, offset };
        }
        Call::Read { fd, at, len, offset, known: self.into.known() }
    }

    fn advance(&mut self, source: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(count) => match self.into.note(count) {
                true if count > 0 => Verdict::Again,
                _ => Verdict::Last(self.into.read()),
            },
            Err(libc::EAGAIN | libc::EOPNOTSUPP) if self.inline => {
                source.0.cold.set(COLD);
                self.inline = false;
                Verdict::Again
            }
            Err(libc::EAGAIN) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }

    fn take(&mut self) -> (u64, Operands) {
        self.into.take()
    }
}

#[derive(Debug)]
pub(crate) struct Write {
    from: Emptying,
    offset: u64,
}

impl Machine for Write {
    fn next(&mut self, source: &Source, scratch: &mut Scratch) -> Call {
        scratch.slices.clear();
        self.from.gather(&mut scratch.slices);
        Call::Write {
            fd: source.raw(),
            slices: scratch.slices.as_ptr(),
            count: scratch.slices.len(),
            offset: self.offset + self.from.done(),
        }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(count) => match self.from.note(count) {
                false if count == 0 => Verdict::Fail(libc::EIO),
                false => Verdict::Again,
                true => {
                    let (bytes, data) = self.from.take();
                    Verdict::Last(What::Wrote { bytes, data })
                }
            },
            Err(libc::EAGAIN) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }

    fn take(&mut self) -> (u64, Operands) {
        let (done, data) = self.from.take();
        (done, Operands::Data(data))
    }
}

#[derive(Debug)]
pub(crate) struct Sync(bool);

impl Machine for Sync {
    fn next(&mut self, source: &Source, _: &mut Scratch) -> Call {
        Call::Sync { fd: source.raw(), data: self.0 }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Ok(_) => Verdict::Last(What::Done),
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

/// Whether `memory` and `offset` are as a file's direct access demands.
fn is_aligned(source: &Source, memory: &[u8], offset: u64) -> bool {
    match source.kind() {
        Kind::File { align: 0 } => true,
        Kind::File { align } => {
            let align = align as usize;
            [memory.as_ptr() as usize, memory.len()].iter().all(|n| n.is_multiple_of(align))
                && offset.is_multiple_of(align as u64)
        }
        _ => false,
    }
}

fn is_data_aligned(source: &Source, data: &Data, offset: u64) -> bool {
    (0..data.parts()).all(|part| is_aligned(source, data.slice(part), offset))
}

/// Whether the file position, as the kernel counts it, can hold the end of the range.
fn in_range(offset: u64, len: usize) -> bool {
    offset.checked_add(len as u64).is_some_and(|end| end <= i64::MAX as u64)
}

/// Whether an attempt that does not wait promises to bring something.
fn may_read_inline(source: &Source, buf: &IoBuf) -> bool {
    source.0.cold.get() == 0 && buf.len() <= INLINE_MAX && source.kind() == (Kind::File { align: 0 })
}

fn read_of(source: &Source, buf: IoBuf, offset: u64) -> Read {
    let inline = may_read_inline(source, &buf);
    source.0.cold.set(source.0.cold.get().saturating_sub(1));
    Read { into: Filling::new(buf), offset, inline }
}

impl ReadAt {
    fn is_valid(&self) -> bool {
        is_aligned(&self.source, &self.buf, self.offset)
            && in_range(self.offset, self.buf.len())
            && !self.buf.is_empty_memory()
    }
}

impl Sealed for ReadAt {}
impl Step for ReadAt {
    /// Reads what is in the page cache, as `Read` would, but without becoming an operation in flight:
    /// that costs as much again as the read itself.
    fn at_once(&mut self, queue: &mut Queue) -> Option<What> {
        let core = queue.core();
        let source = &self.source;
        if core.force_async
            || !may_read_inline(source, &self.buf)
            || refuse(source, self.is_valid()).is_some()
        {
            return None;
        }
        let (fd, len) = (source.raw(), self.buf.len());
        let mut done = 0;
        while done < len {
            let (rest, offset) = (&mut self.buf[done..], self.offset + done as u64);
            let call = Call::ReadNow { fd, at: rest.as_mut_ptr(), len: rest.len(), offset };
            match call.perform() {
                0 => break,
                count @ 1.. => done += count as usize,
                error if error == -i64::from(libc::EINTR) => {}
                error => {
                    if [libc::EAGAIN, libc::EOPNOTSUPP].map(|errno| -i64::from(errno)).contains(&error) {
                        // One more than `read_of` is about to count.
                        source.0.cold.set(COLD + 1);
                    }
                    return None;
                }
            }
        }
        core.stats.inline_reads += u64::from(done > 0);
        Some(What::Read { bytes: done, buf: std::mem::take(&mut self.buf) })
    }

    fn prepare(self, io: &mut Io) -> Result<(), Rejected<ReadAt>> {
        if let Some(why) = refuse(&self.source, self.is_valid()) {
            return Err(Rejected { op: self, why });
        }
        let work = Work::Read(read_of(&self.source, self.buf, self.offset));
        io.fill(self.source, false, work);
        Ok(())
    }
}
step!(
    WriteAt,
    |op| is_data_aligned(&op.source, &op.data, op.offset) && in_range(op.offset, op.data.len()),
    false,
    Work::Write(Write { from: Emptying::new(op.data), offset: op.offset })
);
step!(Fsync, |op| matches!(op.source.kind(), Kind::File { .. }), false, Work::Sync(Sync(op.data_only)));

impl Sealed for OpenAt {}
impl Step for OpenAt {
    fn prepare(self, io: &mut Io) -> Result<(), Rejected<OpenAt>> {
        let Ok(path) = CString::new(Path::as_os_str(&self.path).as_bytes()) else {
            return Err(Rejected { op: self, why: Refusal::Invalid });
        };
        let o = self.options;
        let access = match (o.read, o.write) {
            (_, false) => libc::O_RDONLY,
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
        };
        let flags = access
            | if o.create { libc::O_CREAT } else { 0 }
            | if o.exclusive { libc::O_EXCL } else { 0 }
            | if o.truncate { libc::O_TRUNC } else { 0 }
            | if o.direct { libc::O_DIRECT } else { 0 };
        if (o.truncate || o.create) && !o.write {
            return Err(Rejected { op: self, why: Refusal::Invalid });
        }
        io.fill(Source::nowhere(), false, Work::Open(Open { path, flags }));
        Ok(())
    }
}
