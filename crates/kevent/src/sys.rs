//! The system calls that both backends need, each behind a function without preconditions.

pub(crate) mod addr;
pub(crate) mod cmsg;
pub(crate) mod region;
pub(crate) mod socket;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::caps::Kernel;
use crate::source::Kind;

/// Turns a system call's result into a number or the error it left in `errno`.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`check`], for calls that return sizes.
pub(crate) fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Takes ownership of a descriptor a system call has just made.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass a descriptor returned by a successful call that made it, and drop
    // their copy of the number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map(own)
}

/// Adds one to an eventfd. A full counter means a wake-up is pending anyway.
pub(crate) fn ring_eventfd(fd: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is eight readable bytes; the descriptor is owned and open.
    unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Takes everything off an eventfd. Does not wait, even if whoever shares the descriptor has changed
/// its O_NONBLOCK.
pub(crate) fn clear_eventfd(fd: &OwnedFd) {
    let mut count = [0u8; 8];
    let slice = libc::iovec { iov_base: count.as_mut_ptr().cast(), iov_len: count.len() };
    // SAFETY: `slice` is eight writable bytes; the descriptor is owned and open.
    unsafe { libc::preadv2(fd.as_raw_fd(), &raw const slice, 1, -1, libc::RWF_NOWAIT) };
}

/// Sets or clears O_NONBLOCK; does nothing if it is as wanted.
pub(crate) fn set_nonblocking(fd: RawFd, wanted: bool) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let new = if wanted { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if new != flags {
        // SAFETY: as above.
        check(unsafe { libc::fcntl(fd, libc::F_SETFL, new) })?;
    }
    Ok(())
}

/// What a descriptor is.
pub(crate) fn kind(fd: &OwnedFd) -> io::Result<Kind> {
    let stat = fstat(fd.as_raw_fd())?;
    Ok(match stat.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => match socket::get(fd, libc::SOL_SOCKET, libc::SO_TYPE)? {
            libc::SOCK_STREAM | libc::SOCK_SEQPACKET => Kind::Stream,
            _ => Kind::Datagram,
        },
        libc::S_IFREG | libc::S_IFBLK => Kind::File { align: alignment(fd)? },
        _ => Kind::Other,
    })
}

fn fstat(fd: RawFd) -> io::Result<libc::stat> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is writable for the call.
    check(unsafe { libc::fstat(fd, &raw mut stat) })?;
    Ok(stat)
}

pub(crate) fn file_len(fd: RawFd) -> io::Result<u64> {
    fstat(fd).map(|stat| stat.st_size as u64)
}

/// What offsets of a file opened for direct access must be a multiple of; 0 for other files.
fn alignment(fd: &OwnedFd) -> io::Result<u32> {
    // SAFETY: no pointers are passed.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_DIRECT == 0 {
        return Ok(0);
    }
    // SAFETY: all fields are integers, for which zero is a value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let (raw, here) = (fd.as_raw_fd(), c"".as_ptr());
    // SAFETY: `stat` is writable and the path readable for the call.
    let asked = unsafe { libc::statx(raw, here, libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &raw mut stat) };
    let told = asked == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0;
    Ok(if told { stat.stx_dio_offset_align.max(1) } else { 512 })
}

/// A descriptor that becomes readable when one of the signals waits for this process. The signals
/// are blocked for the calling thread, or they would act as if nobody watched.
pub(crate) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: a signal set is plain bits, for which zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: `set` is writable; numbers that are no signals are refused.
        check(unsafe { libc::sigaddset(&raw mut set, *signal) })?;
    }
    // SAFETY: `set` is readable; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    // SAFETY: `set` is readable for the call.
    check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }).map(own)
}

/// An alarm on the wall clock.
pub(crate) fn wall_alarm() -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, flags) }).map(own)
}

/// Sets an alarm to a time since 1970; it also goes off when somebody sets the clock.
pub(crate) fn set_wall_alarm(fd: RawFd, at: Duration) -> io::Result<()> {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // All zeroes would mean "never".
    let at = at.max(Duration::from_nanos(1));
    let value = libc::timespec {
        tv_sec: at.as_secs().min(1 << 40) as libc::time_t,
        tv_nsec: at.subsec_nanos().into(),
    };
    let spec = libc::itimerspec { it_interval: zero, it_value: value };
    let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
    // SAFETY: `spec` is readable for the call; the old value is not asked for.
    check(unsafe { libc::timerfd_settime(fd, flags, &raw const spec, std::ptr::null_mut()) }).map(drop)
}

/// What a collected process left: its exit code, or the signal that ended it.
pub(crate) fn status(info: &libc::siginfo_t) -> i32 {
    // SAFETY: the kernel filled the record for a child, which has this field; or it is zero.
    unsafe { info.si_status() }
}

/// A descriptor that becomes readable when a process ends.
pub(crate) fn pid_fd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    check(fd as i32).map(own)
}

/// Version of the running kernel; zeroes if it will not say.
pub(crate) fn kernel() -> Kernel {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or(Kernel::default(), |r| Kernel::parse(&r))
}
