//! Datagram sockets: options, and sends and receives that never wait.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::event::{QUOTE, SocketError};
use crate::pool::{CONTROL_AT, MULTISHOT_HEAD, PAYLOAD, Pool};
use crate::sys::addr::{ADDR_LEN, decode, encode, unspecified};
use crate::sys::cmsg::{RECV_ROOM, socket_error};
use crate::sys::{check, check_size, own};
use crate::train::Train;

/// A message header that points nowhere.
pub(crate) fn empty_message() -> libc::msghdr {
    // SAFETY: all fields are integers or pointers, for which zero is a value.
    unsafe { mem::zeroed() }
}

pub(crate) fn udp_socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers are passed.
    check(unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }).map(own)
}

pub(crate) fn stream_socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers are passed.
    check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) }).map(own)
}

/// Two connected datagram sockets without addresses.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two numbers.
    check(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    })?;
    Ok((own(fds[0]), own(fds[1])))
}

pub(crate) fn bind(fd: &impl AsRawFd, addr: &SocketAddr) -> io::Result<()> {
    let mut bytes = [0; ADDR_LEN];
    let len = encode(addr, &mut bytes);
    // SAFETY: `bytes` holds `len` readable bytes; the kernel copies them.
    check(unsafe { libc::bind(fd.as_raw_fd(), bytes.as_ptr().cast(), len as u32) }).map(drop)
}

pub(crate) fn connect(fd: &impl AsRawFd, addr: &SocketAddr) -> io::Result<()> {
    let mut bytes = [0; ADDR_LEN];
    let len = encode(addr, &mut bytes);
    // SAFETY: `bytes` holds `len` readable bytes; the kernel copies them.
    check(unsafe { libc::connect(fd.as_raw_fd(), bytes.as_ptr().cast(), len as u32) }).map(drop)
}

/// Ends a connection at once, dropping what was not sent: the kernel lets go of all memory it was
/// to send from.
pub(crate) fn disconnect(fd: &impl AsRawFd) -> io::Result<()> {
    // The unspecified family is zero.
    let bytes = [0u8; ADDR_LEN];
    // SAFETY: `bytes` is readable; the kernel copies it.
    check(unsafe { libc::connect(fd.as_raw_fd(), bytes.as_ptr().cast(), 16) }).map(drop)
}

pub(crate) fn local_addr(fd: &impl AsRawFd) -> io::Result<SocketAddr> {
    let mut bytes = [0u8; ADDR_LEN];
    let mut len = ADDR_LEN as u32;
    // SAFETY: `bytes` has room for `len` bytes.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len) })?;
    decode(&bytes).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

pub(crate) fn peer_addr(fd: &impl AsRawFd) -> io::Result<SocketAddr> {
    let mut bytes = [0u8; ADDR_LEN];
    let mut len = ADDR_LEN as u32;
    // SAFETY: `bytes` has room for `len` bytes.
    check(unsafe { libc::getpeername(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len) })?;
    decode(&bytes).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Sets an option whose value is an int.
pub(crate) fn set(fd: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as u32;
    // SAFETY: `value` is four readable bytes.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

/// Lets a classic BPF program choose among the sockets that share this one's address.
pub(crate) fn steer(fd: &OwnedFd, program: &[(u16, u8, u8, u32)]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(code.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
    let size = size_of::<libc::sock_fprog>() as u32;
    // SAFETY: `program` is readable for its size and names `len` instructions, which the kernel copies.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const program).cast(), size) })
        .map(drop)
}

/// Reads an option whose value is an int.
pub(crate) fn get(fd: &impl AsRawFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as u32;
    // SAFETY: `value` has room for `len` bytes.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

/// The system call by itself: the C library's function is a cancellation point, which costs several
/// per cent of a receive that does not wait anyway.
///
/// # Safety
/// As for `recvmsg(2)`.
unsafe fn recvmsg(fd: RawFd, message: *mut libc::msghdr, flags: i32) -> isize {
    // SAFETY: passed on to the caller.
    unsafe { libc::syscall(libc::SYS_recvmsg, fd, message, flags) as isize }
}

/// As [`recvmsg`], for sending.
///
/// # Safety
/// As for `sendmsg(2)`.
unsafe fn sendmsg(fd: RawFd, message: *const libc::msghdr, flags: i32) -> isize {
    // SAFETY: passed on to the caller.
    unsafe { libc::syscall(libc::SYS_sendmsg, fd, message, flags) as isize }
}

/// What one receive call brought.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Where in the block the payload begins, and its length.
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) from: SocketAddr,
    /// Bytes of control data, in front of the payload.
    pub(crate) control: usize,
    pub(crate) truncated: bool,
}

/// Receives one datagram or train, if there is one, into `block` of `pool`, which is free for it. What comes
/// to a connected socket comes from `remote`. Control data and payload lie where multishot receives put them.
pub(crate) fn receive(
    fd: RawFd,
    remote: Option<SocketAddr>,
    pool: &Pool,
    block: u16,
) -> io::Result<Option<Arrived>> {
    let mut name = [0u8; ADDR_LEN];
    let base = pool.address(block);
    let payload = base.wrapping_add(MULTISHOT_HEAD);
    let mut slice = libc::iovec { iov_base: payload.cast(), iov_len: PAYLOAD };
    let mut message = empty_message();
    if remote.is_none() {
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = ADDR_LEN as u32;
    }
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = base.wrapping_add(CONTROL_AT).cast();
    message.msg_controllen = RECV_ROOM;
    // SAFETY: name and slice live in this frame; the block is mapped, longer than head and `PAYLOAD`
    // together, and free, so nobody else reads or writes it.
    let result = unsafe { recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    let Some(len) = check_arrival(result)? else { return Ok(None) };
    Ok(Some(Arrived {
        start: MULTISHOT_HEAD,
        len: len.min(PAYLOAD),
        from: remote.unwrap_or_else(|| {
            decode(&name[..(message.msg_namelen as usize).min(ADDR_LEN)]).unwrap_or(unspecified())
        }),
        control: message.msg_controllen.min(RECV_ROOM),
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
    }))
}

/// As [`check_size`], for receives: `None` if nothing was there, which is no error and made none.
#[inline]
fn check_arrival(result: isize) -> io::Result<Option<usize>> {
    match check_size(result) {
        Ok(len) => Ok(Some(len)),
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
        Err(e) => Err(e),
    }
}

/// As [`receive`], for a socket that is connected to `remote` and gets no trains: the shorter call.
#[inline]
pub(crate) fn receive_single(
    fd: RawFd,
    remote: SocketAddr,
    pool: &Pool,
    block: u16,
) -> io::Result<Option<Arrived>> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let nobody = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the block is mapped, `PAYLOAD` bytes long, and free, so nobody else reads or writes it; no
    // address is asked for.
    let result = unsafe {
        libc::syscall(libc::SYS_recvfrom, fd, pool.address(block), PAYLOAD, flags, nobody, nobody) as isize
    };
    let Some(len) = check_arrival(result)? else { return Ok(None) };
    let truncated = len > PAYLOAD;
    Ok(Some(Arrived { start: 0, len: len.min(PAYLOAD), from: remote, control: 0, truncated }))
}

/// Takes one entry off the error queue: `Ok(None)` when it is empty, `Ok(Some(None))` for an entry
/// that says nothing of use.
pub(crate) fn receive_error(fd: RawFd) -> io::Result<Option<Option<SocketError>>> {
    let mut name = [0u8; ADDR_LEN];
    let mut control = [0u8; 256];
    let mut quote = [0u8; QUOTE];
    let mut slice = libc::iovec { iov_base: quote.as_mut_ptr().cast(), iov_len: quote.len() };
    let mut message = empty_message();
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = ADDR_LEN as u32;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len();
    // SAFETY: name, control, slice and what it leads to live in this frame.
    let result = unsafe { recvmsg(fd, &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    match check_size(result) {
        Ok(len) => {
            let name = &name[..(message.msg_namelen as usize).min(ADDR_LEN)];
            let report = socket_error(name, &control[..message.msg_controllen.min(control.len())]);
            Ok(Some(report.map(|report| SocketError { quote, quoted: len.min(QUOTE), ..report })))
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Gives a socket a traffic class for everything it sends.
pub(crate) fn set_class(fd: &impl AsRawFd, class: u8) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_TOS, class.into())?;
    if get(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)? == libc::AF_INET6 {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class.into())?;
    }
    Ok(())
}

/// Sends one train if the socket, whose own traffic class is `class` if known, has room.
pub(crate) fn send(fd: RawFd, train: &mut Train, class: Option<u8>) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let nowhere = std::ptr::null::<libc::c_void>();
    if let Some(bytes) = class.and_then(|class| train.lone_slice(class)) {
        // SAFETY: `bytes` is readable for the call; no address is passed.
        let sent =
            unsafe { libc::syscall(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, nowhere, 0) };
        return check_size(sent as isize).map(drop);
    }
    let message = train.seal_for(class);
    // SAFETY: `seal_for` returns a header inside `train`, which is borrowed for the call.
    let head = unsafe { &*message };
    if head.msg_iovlen == 1 && head.msg_controllen == 0 {
        // The shorter way in.
        // SAFETY: `msg_iovlen` is 1, so there is a slice.
        let slice = unsafe { &*head.msg_iov };
        let (name, name_len) = (head.msg_name, head.msg_namelen);
        // SAFETY: slice and address lie in memory owned by `train`.
        let sent = unsafe {
            libc::syscall(libc::SYS_sendto, fd, slice.iov_base, slice.iov_len, flags, name, name_len)
        };
        return check_size(sent as isize).map(drop);
    }
    // SAFETY: the header's pointers lead to memory owned by `train`.
    check_size(unsafe { sendmsg(fd, message, flags) }).map(drop)
}

/// Message headers for one call that sends many trains; kept to reuse the memory.
#[derive(Default)]
pub(crate) struct SendScratch {
    headers: Vec<libc::mmsghdr>,
}

/// Sends trains in order with one call; returns how many left, which is less than given when the
/// next one met an error or a full socket. An error is returned only if the first one met it.
pub(crate) fn send_many(
    fd: RawFd,
    trains: &mut [Box<Train>],
    class: u8,
    scratch: &mut SendScratch,
) -> io::Result<usize> {
    scratch.headers.clear();
    for train in trains.iter_mut() {
        let header = train.seal_for(Some(class));
        // SAFETY: `seal_for` returns a pointer to the header inside the train.
        let msg_hdr = unsafe { *header };
        scratch.headers.push(libc::mmsghdr { msg_hdr, msg_len: 0 });
    }
    let count = scratch.headers.len() as u32;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: each header's pointers lead to memory owned by its train, borrowed for the call.
    check(unsafe { libc::sendmmsg(fd, scratch.headers.as_mut_ptr(), count, flags as _) }).map(|n| n as usize)
}

impl std::fmt::Debug for SendScratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendScratch").field("room", &self.headers.capacity()).finish()
    }
}
