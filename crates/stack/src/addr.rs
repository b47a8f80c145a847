//! Where a Homa socket is found: host, Homa port, and the UDP port that carries it.

use core::fmt;
use core::str::FromStr;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// UDP port on which hosts expect Homa packets unless told otherwise.
pub const DEFAULT_UDP_PORT: u16 = 14600;

/// Address of a Homa socket.
///
/// Homa has a port space of its own. Carried inside UDP, a packet also needs the UDP port of the
/// host's stack, [`DEFAULT_UDP_PORT`] unless stated.
///
/// Written `10.0.0.2:4000`, `[fd00::2]:4000`, or with another UDP port `10.0.0.2:4000/15000`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr {
    /// The host.
    pub ip: IpAddr,
    /// The Homa port, 1 to 32767 for servers.
    pub port: u16,
    /// The UDP port of the host's stack.
    pub udp_port: u16,
}

impl Addr {
    /// The socket at Homa port `port` of host `ip`, carried over the default UDP port.
    pub const fn new(ip: IpAddr, port: u16) -> Addr {
        Addr { ip, port, udp_port: DEFAULT_UDP_PORT }
    }

    /// The same socket, carried over another UDP port.
    #[must_use]
    pub const fn with_udp_port(self, udp_port: u16) -> Addr {
        Addr { udp_port, ..self }
    }

    /// Where the carrying datagrams go.
    pub const fn carriage(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.udp_port)
    }

    /// Looks up `host:port` or `host:port/udp-port`, with a name or an address as host.
    ///
    /// # Errors
    /// The text is not of that form, or the name cannot be resolved.
    pub fn resolve(text: &str) -> Result<Addr, AddrError> {
        let (host, udp_port) = split_udp_port(text)?;
        let mut found = host.to_socket_addrs().map_err(|e| AddrError::Resolve(text.into(), e))?;
        let first = found.next().ok_or_else(|| AddrError::Syntax(text.into()))?;
        Ok(Addr::from(first).with_udp_port(udp_port))
    }
}

impl From<SocketAddr> for Addr {
    fn from(a: SocketAddr) -> Addr {
        Addr::new(a.ip(), a.port())
    }
}

impl From<(IpAddr, u16)> for Addr {
    fn from((ip, port): (IpAddr, u16)) -> Addr {
        Addr::new(ip, port)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)?;
        if self.udp_port == DEFAULT_UDP_PORT {
            return Ok(());
        }
        write!(f, "/{}", self.udp_port)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Addr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Addr, AddrError> {
        let (host, udp_port) = split_udp_port(text)?;
        let socket: SocketAddr = host.parse().map_err(|_| AddrError::Syntax(text.into()))?;
        Ok(Addr::from(socket).with_udp_port(udp_port))
    }
}

fn split_udp_port(text: &str) -> Result<(&str, u16), AddrError> {
    match text.split_once('/') {
        None => Ok((text, DEFAULT_UDP_PORT)),
        Some((host, udp)) => match udp.parse() {
            Ok(port) if port != 0 => Ok((host, port)),
            _ => Err(AddrError::Syntax(text.into())),
        },
    }
}

/// A text is not the address of a Homa socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddrError {
    /// Not of the form `host:port` or `host:port/udp-port`.
    #[error("`{0}` is not an address: write host:port, or host:port/udp-port")]
    Syntax(String),
    /// The host's name has no address.
    #[error("cannot resolve `{0}`: {1}")]
    Resolve(String, #[source] std::io::Error),
}

/// What may stand where an [`Addr`] is wanted: an [`Addr`], a [`SocketAddr`], a pair, or a text
/// with an address in numbers (names are looked up with [`Addr::resolve`], which can block).
pub trait ToAddr {
    /// The address meant.
    ///
    /// # Errors
    /// The text is not an address.
    fn to_addr(&self) -> Result<Addr, AddrError>;
}

impl ToAddr for Addr {
    fn to_addr(&self) -> Result<Addr, AddrError> {
        Ok(*self)
    }
}

impl ToAddr for SocketAddr {
    fn to_addr(&self) -> Result<Addr, AddrError> {
        Ok(Addr::from(*self))
    }
}

impl ToAddr for (IpAddr, u16) {
    fn to_addr(&self) -> Result<Addr, AddrError> {
        Ok(Addr::from(*self))
    }
}

impl ToAddr for str {
    fn to_addr(&self) -> Result<Addr, AddrError> {
        self.parse()
    }
}

impl ToAddr for String {
    fn to_addr(&self) -> Result<Addr, AddrError> {
        self.parse()
    }
}

impl<T: ToAddr + ?Sized> ToAddr for &T {
    fn to_addr(&self) -> Result<Addr, AddrError> {
        (**self).to_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse__with_and_without_udp_port() {
        let plain: Addr = "10.0.0.2:4000".parse().unwrap();
        assert_eq!((plain.port, plain.udp_port), (4000, DEFAULT_UDP_PORT));
        let other: Addr = "[::1]:99/15000".parse().unwrap();
        assert_eq!(other.carriage(), "[::1]:15000".parse().unwrap());
        for text in ["10.0.0.2:4000", "[::1]:99/15000"] {
            assert_eq!(text.parse::<Addr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn parse__rejects_what_is_no_address() {
        for text in ["", "10.0.0.2", "10.0.0.2:x", "10.0.0.2:1/0", "10.0.0.2:1/x", "host:1", "1.2.3.4:70000"]
        {
            assert!(text.parse::<Addr>().is_err(), "{text}");
        }
    }

    #[test]
    fn resolve__takes_names() {
        let a = Addr::resolve("localhost:7/9").unwrap();
        assert!(a.ip.is_loopback());
        assert_eq!((a.port, a.udp_port), (7, 9));
    }
}
