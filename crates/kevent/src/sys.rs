//! The system calls that both backends need, each behind a function without preconditions.

pub(crate) mod addr;
pub(crate) mod cmsg;
pub(crate) mod region;
pub(crate) mod socket;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::caps::Kernel;

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

/// Clears O_NONBLOCK: operations decide for themselves whether they wait, and io_uring would
/// take the flag as a wish to fail at once.
pub(crate) fn set_blocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers are passed; the descriptor is owned and open.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_NONBLOCK != 0 {
        // SAFETY: as above.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) })?;
    }
    Ok(())
}

/// Version of the running kernel; zeroes if it will not say.
pub(crate) fn kernel() -> Kernel {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or(Kernel::default(), |r| Kernel::parse(&r))
}
