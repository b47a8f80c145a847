//! UDP sockets with the options message protocols want.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::socket;

/// How a UDP socket is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of receive memory asked for; the kernel counts its own overhead against it.
    pub recv_buffer: u32,
    /// Bytes of send memory asked for.
    pub send_buffer: u32,
    /// Join arriving datagrams of equal size to trains.
    pub gro: bool,
    /// Report what the network says about datagrams sent (ICMP).
    pub errors: bool,
    /// Let other sockets bind the same address.
    pub reuse_port: bool,
    /// Say of arriving datagrams which traffic class they have.
    pub class: bool,
    /// Say of arriving datagrams to which address they were sent, and by which interface they came.
    pub destination: bool,
    /// Say of arriving datagrams when they came.
    pub time: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            recv_buffer: 8 << 20,
            send_buffer: 4 << 20,
            gro: true,
            errors: true,
            reuse_port: false,
            class: false,
            destination: false,
            time: false,
        }
    }
}

/// A bound UDP socket and what was obtained.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub fd: OwnedFd,
    /// The address it is bound to.
    pub local: SocketAddr,
    /// The kernel cuts trains into datagrams (`UDP_SEGMENT`).
    pub gso: bool,
    /// Arriving datagrams are joined to trains (`UDP_GRO`).
    pub gro: bool,
    /// Bytes of receive memory, overhead included.
    pub recv_buffer: u32,
    /// Bytes of send memory, overhead included.
    pub send_buffer: u32,
}

/// Binds a UDP socket. An unspecified IPv6 address takes IPv4 as well (as mapped addresses).
///
/// # Errors
/// Those of `socket` and `bind`. Options the kernel lacks are no error: see [`Bound`].
pub fn bind(addr: SocketAddr, options: &Options) -> io::Result<Bound> {
    let fd = socket::udp_socket(&addr)?;
    let mut bound = set_up(fd, &addr, options)?;
    socket::bind(&bound.fd, &addr)?;
    bound.local = socket::local_addr(&bound.fd)?;
    Ok(bound)
}

/// One instruction of a classic BPF program: operation, jumps if true and false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// Binds `count` UDP sockets to one address. A classic BPF program that sees the payload of each
/// datagram returns the index of the socket that gets it, in the order of the result. No other
/// group can be at the address: the first socket takes it alone, and only then shares it.
///
/// # Errors
/// As [`bind`]; the kernel refuses the program.
pub fn bind_group(
    addr: SocketAddr,
    count: usize,
    options: &Options,
    program: &[Instruction],
) -> io::Result<Vec<Bound>> {
    let first = bind(addr, options)?;
    socket::set(&first.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    let addr = first.local;
    let options = Options { reuse_port: true, ..options.clone() };
    let mut group = vec![first];
    while group.len() < count {
        group.push(bind(addr, &options)?);
    }
    socket::steer(&group[0].fd, program)?;
    Ok(group)
}

/// A socket at the address of another, connected to `remote`.
pub(crate) fn connect_beside(other: RawFd, remote: SocketAddr, options: &Options) -> io::Result<OwnedFd> {
    let local = socket::local_addr(&other)?;
    let bound = set_up(socket::udp_socket(&local)?, &local, options)?;
    let share = |fd: RawFd, on: i32| socket::set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, on);
    share(bound.fd.as_raw_fd(), 1)?;
    // Only while this one joins: nobody else shall share the port.
    share(other, 1)?;
    let result = socket::bind(&bound.fd, &local);
    share(other, 0)?;
    result?;
    socket::connect(&bound.fd, &remote)?;
    Ok(bound.fd)
}

/// Sets the options; the address is still to come.
fn set_up(fd: OwnedFd, addr: &SocketAddr, options: &Options) -> io::Result<Bound> {
    if let SocketAddr::V6(v6) = addr {
        let only = i32::from(!v6.ip().is_unspecified());
        socket::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only)?;
    }
    if options.reuse_port {
        socket::set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    let recv_buffer = raise(&fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.recv_buffer)?;
    let send_buffer = raise(&fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.send_buffer)?;
    let gro = options.gro && socket::set(&fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    let gso = socket::set(&fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
    if options.errors {
        // The IPv4 option also counts for mapped addresses on an IPv6 socket.
        socket::set(&fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        if addr.is_ipv6() {
            socket::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
        }
    }
    ask_for(&fd, addr.is_ipv6(), options)?;
    Ok(Bound { fd, local: *addr, gso, gro, recv_buffer, send_buffer })
}

/// Asks for what the kernel is to say of arriving datagrams.
fn ask_for(fd: &OwnedFd, ipv6: bool, options: &Options) -> io::Result<()> {
    let v4 = |name| socket::set(fd, libc::IPPROTO_IP, name, 1);
    // The IPv4 options also count for mapped addresses on an IPv6 socket.
    let v6 = |name| if ipv6 { socket::set(fd, libc::IPPROTO_IPV6, name, 1) } else { Ok(()) };
    if options.class {
        v4(libc::IP_RECVTOS)?;
        v6(libc::IPV6_RECVTCLASS)?;
    }
    if options.destination {
        v4(libc::IP_PKTINFO)?;
        v6(libc::IPV6_RECVPKTINFO)?;
    }
    if options.time {
        socket::set(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    }
    Ok(())
}

/// Asks for a buffer size beyond the system's limit, or else up to it; returns what there is.
fn raise(fd: &OwnedFd, force: i32, plain: i32, bytes: u32) -> io::Result<u32> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    if socket::set(fd, libc::SOL_SOCKET, force, bytes).is_err() {
        socket::set(fd, libc::SOL_SOCKET, plain, bytes)?;
    }
    let now = socket::get(fd, libc::SOL_SOCKET, plain)?;
    Ok(u32::try_from(now).unwrap_or(0))
}

/// Bytes the route to `remote` carries in one IP packet, as the kernel knows it now.
///
/// # Errors
/// Those of `socket` and `connect`: there is no route.
pub fn route_mtu(remote: SocketAddr) -> io::Result<u32> {
    let remote = canonical(remote);
    let fd = socket::udp_socket(&remote)?;
    socket::connect(&fd, &remote)?;
    let (level, name) = match remote {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    socket::get(&fd, level, name).map(|mtu| u32::try_from(mtu).unwrap_or(0))
}

/// The address of ours that packets to `remote` leave from.
///
/// # Errors
/// Those of `socket` and `connect`: there is no route.
pub fn route_source(remote: SocketAddr) -> io::Result<IpAddr> {
    let remote = canonical(remote);
    let fd = socket::udp_socket(&remote)?;
    socket::connect(&fd, &remote)?;
    Ok(socket::local_addr(&fd)?.ip())
}

/// The same address with mapped IPv4 written as IPv4 and a port that can be connected to.
fn canonical(addr: SocketAddr) -> SocketAddr {
    let port = addr.port().max(1);
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), port),
            None => {
                let mut v6 = v6;
                v6.set_port(port);
                v6.into()
            }
        },
        SocketAddr::V4(v4) => SocketAddr::new((*v4.ip()).into(), port),
    }
}

/// The loopback address of the same family, for talking to a socket bound to "any" address.
pub fn loopback_of(local: SocketAddr) -> SocketAddr {
    match local {
        SocketAddr::V4(a) if a.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, a.port()).into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, a.port()).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind__reports_what_it_got() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), &Options::default()).unwrap();
        assert_ne!(bound.local.port(), 0);
        assert!(bound.recv_buffer > 0 && bound.send_buffer > 0);
    }

    #[test]
    fn connect_beside__takes_the_hosts_datagrams_and_leaves_the_port_unshared() {
        let shared = bind("127.0.0.1:0".parse().unwrap(), &Options::default()).unwrap();
        let host = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let own =
            connect_beside(shared.fd.as_raw_fd(), host.local_addr().unwrap(), &Options::default()).unwrap();
        assert_eq!(socket::get(&shared.fd, libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap(), 0);
        for (from, to) in [(&host, &own), (&other, &shared.fd)] {
            from.send_to(b"x", shared.local).unwrap();
            let pool = crate::pool::Pool::new(crate::pool::STRIDE, 0, 1).unwrap();
            let block = pool.peek().unwrap();
            let arrived = socket::receive(to.as_raw_fd(), None, &pool, block).unwrap().unwrap();
            assert_eq!((arrived.len, arrived.from), (1, from.local_addr().unwrap()));
        }
    }

    #[test]
    fn bind_group__steers_by_payload_and_keeps_others_out() {
        use std::os::fd::AsRawFd;
        // A = first byte of the payload, modulo 3.
        let program = [(0x30, 0, 0, 0), (0x94, 0, 0, 3), (0x16, 0, 0, 0)];
        let at = "127.0.0.1:0".parse().unwrap();
        let group = bind_group(at, 3, &Options::default(), &program).unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for byte in 0..30u8 {
            other.send_to(&[byte], group[0].local).unwrap();
            let pool = crate::pool::Pool::new(crate::pool::STRIDE, 0, 1).unwrap();
            let block = pool.peek().unwrap();
            let to = &group[usize::from(byte % 3)].fd;
            let arrived = socket::receive(to.as_raw_fd(), None, &pool, block).unwrap().unwrap();
            assert_eq!(arrived.len, 1, "{byte}");
        }
        let second = bind_group(group[0].local, 3, &Options::default(), &program);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn route_mtu__of_loopback() {
        let mtu = route_mtu("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(mtu >= 1280, "{mtu}");
        assert_eq!(route_mtu("[::ffff:127.0.0.1]:9".parse().unwrap()).unwrap(), mtu);
    }
}
