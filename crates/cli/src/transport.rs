//! The transports that are compared: Homa, kernel TCP, bare UDP.

pub mod frame;
pub mod homa;
pub mod tcp;
pub mod tcp_client;
pub mod tcp_server;
pub mod udp_floor;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The unspecified address of a family.
pub fn any(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// The loopback address of a family.
pub fn loopback(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}
