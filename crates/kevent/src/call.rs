//! One step of an operation as a system call: performed here and now, or described to the ring.
//!
//! A [`Call`] holds addresses. They lead to memory of the operation it was made for (its boxed
//! [`Io`](crate::io::Io)), which stays where it is until the call has returned, or the ring or the
//! worker has reported its result. The functions of this file rely on that and on nothing else.

use std::io;
use std::os::fd::RawFd;

use io_uring::types::{Fd, Fixed, FsyncFlags};
use io_uring::{opcode, squeue};

use crate::buf::Registration;
use crate::sys;

/// Sends without signals and receives without waiting, whatever the descriptor's own flags say.
const NOW: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// `waitid` on a descriptor of a process.
const P_PIDFD: libc::idtype_t = 3;
/// Report what a zero-copy send came to.
const REPORT_USAGE: u16 = 1 << 3;

/// A system call with its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    /// Performed directly, it relies on the listener's own O_NONBLOCK.
    Accept {
        fd: RawFd,
        many: bool,
    },
    Connect {
        fd: RawFd,
        addr: *const u8,
        len: u32,
    },
    /// What became of a connection under way.
    Connected {
        fd: RawFd,
    },
    /// Receive into a block of the pool, which the backend chooses.
    RecvPool {
        fd: RawFd,
        many: bool,
    },
    Recv {
        fd: RawFd,
        at: *mut u8,
        len: usize,
        fill: bool,
    },
    Send {
        fd: RawFd,
        at: *const u8,
        len: usize,
        zero_copy: bool,
    },
    /// As `Send`, but called directly on both backends: for what mostly fits into the socket's buffer.
    /// `more`: what follows at once belongs into the same packet.
    SendNow {
        fd: RawFd,
        at: *const u8,
        len: usize,
        more: bool,
    },
    SendMsg {
        fd: RawFd,
        message: *const libc::msghdr,
        zero_copy: bool,
    },
    Shutdown {
        fd: RawFd,
        how: i32,
    },
    Read {
        fd: RawFd,
        at: *mut u8,
        len: usize,
        offset: u64,
        known: Option<Registration>,
    },
    /// As `Read`, but fails with EAGAIN rather than waiting for the device.
    ReadNow {
        fd: RawFd,
        at: *mut u8,
        len: usize,
        offset: u64,
    },
    Write {
        fd: RawFd,
        slices: *const libc::iovec,
        count: usize,
        offset: u64,
    },
    Sync {
        fd: RawFd,
        data: bool,
    },
    Open {
        path: *const libc::c_char,
        flags: i32,
        mode: u32,
    },
    /// Relies on the socket's own O_NONBLOCK.
    Sendfile {
        out: RawFd,
        file: RawFd,
        offset: u64,
        len: usize,
    },
    Poll {
        fd: RawFd,
        mask: u32,
        many: bool,
    },
    /// Read a signal or the like.
    Take {
        fd: RawFd,
        at: *mut u8,
        len: usize,
    },
    /// Collect the process a descriptor stands for.
    Reap {
        fd: RawFd,
        info: *mut libc::siginfo_t,
    },
}

// SAFETY: a call goes to a worker while the operation that owns the memory waits for the result and
// touches none of it; see the head of the file.
unsafe impl Send for Call {}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Readiness of its descriptor; the ring waits by itself.
    Ready(u32),
    /// As `Ready`, but the ring cannot do it: call, and let the ring wait for readiness.
    Direct(u32),
    /// A device, for as long as it takes.
    File,
    /// Nothing.
    Instant,
}

const IN: u32 = libc::POLLIN as u32;
const OUT: u32 = libc::POLLOUT as u32;

/// Builds an entry for a file of the ring's own table, or for a plain descriptor.
macro_rules! on {
    ($fixed:expr, $fd:expr, |$target:ident| $build:expr) => {
        match $fixed {
            Some(index) => {
                let $target = Fixed(index);
                $build
            }
            None => {
                let $target = Fd($fd);
                $build
            }
        }
    };
}

impl Call {
    pub(crate) fn class(&self) -> Class {
        match self {
            Call::Accept { .. } | Call::RecvPool { .. } | Call::Recv { .. } => Class::Ready(IN),
            Call::Connect { .. } | Call::Send { .. } | Call::SendMsg { .. } => Class::Ready(OUT),
            Call::Poll { mask, .. } => Class::Ready(*mask),
            Call::Connected { .. } | Call::SendNow { .. } | Call::Sendfile { .. } => Class::Direct(OUT),
            Call::Take { .. } | Call::Reap { .. } => Class::Direct(IN),
            Call::Read { .. } | Call::Write { .. } | Call::Sync { .. } | Call::Open { .. } => Class::File,
            Call::ReadNow { .. } | Call::Shutdown { .. } => Class::Instant,
        }
    }

    /// Whether it goes on after its first result, once the ring has it.
    pub(crate) fn is_many(&self) -> bool {
        matches!(
            self,
            Call::Accept { many: true, .. }
                | Call::RecvPool { many: true, .. }
                | Call::Poll { many: true, .. }
        )
    }

    /// Performs the call. Those of class `File` may take long, the others do not wait. Returns what
    /// the kernel returned: a number, or an error number negated.
    pub(crate) fn perform(&self) -> i64 {
        let result = match *self {
            Call::Connect { fd, .. } => match nonblocking(fd, || self.raw()) {
                result if result == -i64::from(libc::EINPROGRESS) => return -i64::from(libc::EAGAIN),
                result => return result,
            },
            _ => self.raw(),
        };
        negated(result)
    }

    fn raw(&self) -> i64 {
        // SAFETY: all addresses lead to memory that the operation owns, with the lengths given, and
        // that nobody else uses until this returns: see the head of the file.
        unsafe {
            match *self {
                Call::Accept { fd, .. } => {
                    let none = std::ptr::null_mut();
                    i64::from(libc::accept4(fd, none, std::ptr::null_mut(), libc::SOCK_CLOEXEC))
                }
                Call::Connect { fd, addr, len } => i64::from(libc::connect(fd, addr.cast(), len)),
                Call::Connected { fd } => connected(fd),
                Call::RecvPool { .. } => -i64::from(libc::EINVAL),
                Call::Recv { fd, at, len, .. } => libc::recv(fd, at.cast(), len, NOW) as i64,
                Call::Send { fd, at, len, .. } => libc::send(fd, at.cast(), len, NOW) as i64,
                Call::SendNow { fd, at, len, more } => {
                    let flags = if more { NOW | libc::MSG_MORE } else { NOW };
                    libc::send(fd, at.cast(), len, flags) as i64
                }
                Call::SendMsg { fd, message, .. } => libc::sendmsg(fd, message, NOW) as i64,
                Call::Shutdown { fd, how } => i64::from(libc::shutdown(fd, how)),
                Call::Read { fd, at, len, offset, .. } => {
                    libc::pread(fd, at.cast(), len, offset as i64) as i64
                }
                Call::ReadNow { fd, at, len, offset } => {
                    let slice = libc::iovec { iov_base: at.cast(), iov_len: len };
                    libc::preadv2(fd, &raw const slice, 1, offset as i64, libc::RWF_NOWAIT) as i64
                }
                Call::Write { fd, slices, count, offset } => {
                    libc::pwritev(fd, slices, count as i32, offset as i64) as i64
                }
                Call::Sync { fd, data: true } => i64::from(libc::fdatasync(fd)),
                Call::Sync { fd, data: false } => i64::from(libc::fsync(fd)),
                Call::Open { path, flags, mode } => {
                    i64::from(libc::openat(libc::AT_FDCWD, path, flags | libc::O_CLOEXEC, mode))
                }
                Call::Sendfile { out, file, mut offset, len } => {
                    libc::sendfile(out, file, (&raw mut offset).cast(), len) as i64
                }
                Call::Poll { fd, mask, .. } => poll(fd, mask),
                Call::Take { fd, at, len } => libc::read(fd, at.cast(), len) as i64,
                Call::Reap { fd, info } => reap(fd, info),
            }
        }
    }

    /// Describes the call to the ring. `None` for what the ring cannot do.
    pub(crate) fn entry(&self, fixed: Option<u32>, group: u16) -> Option<squeue::Entry> {
        self.socket_entry(fixed, group).or_else(|| self.file_entry(fixed))
    }

    fn socket_entry(&self, fixed: Option<u32>, group: u16) -> Option<squeue::Entry> {
        let quiet = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let none = std::ptr::null_mut();
        Some(match *self {
            Call::Accept { fd, many: true } => {
                on!(fixed, fd, |t| opcode::AcceptMulti::new(t).flags(libc::SOCK_CLOEXEC).build())
            }
            Call::Accept { fd, many: false } => {
                let flags = libc::SOCK_CLOEXEC;
                on!(fixed, fd, |t| opcode::Accept::new(t, none, none.cast()).flags(flags).build())
            }
            Call::Connect { fd, addr, len } => {
                on!(fixed, fd, |t| opcode::Connect::new(t, addr.cast(), len).build())
            }
            Call::RecvPool { fd, many: true } => {
                on!(fixed, fd, |t| opcode::RecvMulti::new(t, group).build())
            }
            Call::RecvPool { fd, many: false } => {
                on!(fixed, fd, |t| opcode::Recv::new(t, none.cast(), 0).buf_group(group).build())
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
            Call::Recv { fd, at, len, fill } => {
                let flags = if fill { libc::MSG_WAITALL } else { 0 };
                on!(fixed, fd, |t| opcode::Recv::new(t, at, clamp(len)).flags(flags).build())
            }
            Call::Send { fd, at, len, zero_copy: false } => {
                on!(fixed, fd, |t| opcode::Send::new(t, at, clamp(len)).flags(quiet).build())
            }
            Call::Send { fd, at, len, zero_copy: true } => {
                let len = clamp(len);
                on!(fixed, fd, |t| opcode::SendZc::new(t, at, len)
                    .flags(quiet)
                    .zc_flags(REPORT_USAGE)
                    .build())
            }
            Call::SendMsg { fd, message, zero_copy: false } => {
                on!(fixed, fd, |t| opcode::SendMsg::new(t, message).flags(quiet as u32).build())
            }
            Call::SendMsg { fd, message, zero_copy: true } => {
                on!(fixed, fd, |t| opcode::SendMsgZc::new(t, message)
                    .flags(quiet as u32)
                    .ioprio(REPORT_USAGE)
                    .build())
            }
            Call::Poll { fd, mask, many } => {
                on!(fixed, fd, |t| opcode::PollAdd::new(t, mask).multi(many).build())
            }
            _ => return None,
        })
    }

    /// Describes a read into memory that is at `index` in the ring's own table.
    pub(crate) fn known_entry(&self, fixed: Option<u32>, index: u16) -> Option<squeue::Entry> {
        let Call::Read { fd, at, len, offset, .. } = *self else { return None };
        let len = clamp(len);
        Some(on!(fixed, fd, |t| opcode::ReadFixed::new(t, at, len, index).offset(offset).build()))
    }

    fn file_entry(&self, fixed: Option<u32>) -> Option<squeue::Entry> {
        Some(match *self {
            Call::Read { fd, at, len, offset, .. } => {
                on!(fixed, fd, |t| opcode::Read::new(t, at, clamp(len)).offset(offset).build())
            }
            Call::Write { fd, slices, count, offset } => {
                on!(fixed, fd, |t| opcode::Writev::new(t, slices, count as u32).offset(offset).build())
            }
            Call::Sync { fd, data } => {
                let flags = if data { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
                on!(fixed, fd, |t| opcode::Fsync::new(t).flags(flags).build())
            }
            Call::Open { path, flags, mode } => {
                let here = Fd(libc::AT_FDCWD);
                opcode::OpenAt::new(here, path).flags(flags | libc::O_CLOEXEC).mode(mode).build()
            }
            _ => return None,
        })
    }
}

fn clamp(len: usize) -> u32 {
    // Longer transfers are continued, as short ones are; the ring's limit is 2 GiB.
    len.min(1 << 30) as u32
}

/// An error number, negated, in place of -1.
fn negated(result: i64) -> i64 {
    if result >= 0 {
        return result;
    }
    -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Performs a call that knows no flag of its own for not waiting.
fn nonblocking(fd: RawFd, call: impl FnOnce() -> i64) -> i64 {
    if let Err(error) = sys::set_nonblocking(fd, true) {
        return -i64::from(error.raw_os_error().unwrap_or(libc::EBADF));
    }
    let result = negated(call());
    // The ring takes the flag as a wish to fail at once. The descriptor is open: this cannot fail.
    let _ = sys::set_nonblocking(fd, false);
    result
}

/// Whether a connection stands; EAGAIN while it is under way.
fn connected(fd: RawFd) -> i64 {
    match crate::sys::socket::get(&fd, libc::SOL_SOCKET, libc::SO_ERROR) {
        Ok(0) => poll(fd, OUT).min(0),
        Ok(errno) => fail(errno),
        Err(error) => fail(error.raw_os_error().unwrap_or(libc::EBADF)),
    }
}

/// Which of the conditions hold; EAGAIN if none does.
fn poll(fd: RawFd, mask: u32) -> i64 {
    let mut entry = libc::pollfd { fd, events: mask as i16, revents: 0 };
    // SAFETY: one entry, writable for the call.
    match unsafe { libc::poll(&raw mut entry, 1, 0) } {
        0 => fail(libc::EAGAIN),
        1.. => i64::from(entry.revents),
        _ => -1,
    }
}

/// Collects an ended process; EAGAIN while it lives.
///
/// # Safety
/// `info` is writable.
unsafe fn reap(fd: RawFd, info: *mut libc::siginfo_t) -> i64 {
    // SAFETY: the caller's; zero is a value for a record of integers.
    unsafe { info.write_bytes(0, 1) };
    // SAFETY: the caller's.
    let result = unsafe { libc::waitid(P_PIDFD, fd as libc::id_t, info, libc::WEXITED | libc::WNOHANG) };
    // SAFETY: `info` was written above. Zero there means that no process has ended.
    if result == 0 && unsafe { (*info).si_pid() } == 0 {
        return fail(libc::EAGAIN);
    }
    i64::from(result)
}

/// Leaves an error number where `negated` looks for it.
fn fail(errno: i32) -> i64 {
    // SAFETY: the location is the calling thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}
