//! Socket addresses as the bytes the kernel reads and writes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Room for an IPv4 or IPv6 socket address.
pub(crate) const ADDR_LEN: usize = size_of::<libc::sockaddr_in6>();

/// Writes `addr` and returns the number of bytes that count.
pub(crate) fn encode(addr: &SocketAddr, out: &mut [u8; ADDR_LEN]) -> usize {
    out.fill(0);
    out[2..4].copy_from_slice(&addr.port().to_be_bytes());
    match addr {
        SocketAddr::V4(v4) => {
            out[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            out[4..8].copy_from_slice(&v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            out[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            out[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            out[8..24].copy_from_slice(&v6.ip().octets());
            out[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            ADDR_LEN
        }
    }
}

/// Reads an address; `None` if the bytes hold neither IPv4 nor IPv6.
pub(crate) fn decode(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(array(bytes, 0)?));
    let port = u16::from_be_bytes(array(bytes, 2)?);
    match family {
        libc::AF_INET => Some((Ipv4Addr::from(array::<4>(bytes, 4)?), port).into()),
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(array(bytes, 4)?);
            let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
            let scope = u32::from_ne_bytes(array(bytes, 24)?);
            Some(SocketAddrV6::new(ip, port, flow, scope).into())
        }
        _ => None,
    }
}

/// The address that stands for "none given".
pub(crate) const fn unspecified() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}

pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode__undoes_encode() {
        for text in ["10.1.2.3:14600", "[fd00::2]:65535", "[::ffff:1.2.3.4]:1"] {
            let addr: SocketAddr = text.parse().unwrap();
            let mut bytes = [0xff; ADDR_LEN];
            let len = encode(&addr, &mut bytes);
            assert_eq!(decode(&bytes[..len]), Some(addr), "{text}");
        }
        let scoped = SocketAddr::from(SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 7, 9));
        let mut bytes = [0; ADDR_LEN];
        encode(&scoped, &mut bytes);
        assert_eq!(decode(&bytes), Some(scoped));
    }

    #[test]
    fn decode__refuses_what_is_no_address() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&(libc::AF_INET as u16).to_ne_bytes()), None);
        assert_eq!(decode(&[0; ADDR_LEN]), None);
        let mut short = [0; ADDR_LEN];
        let len = encode(&"[::1]:1".parse().unwrap(), &mut short);
        assert_eq!(decode(&short[..len - 1]), None);
    }
}
