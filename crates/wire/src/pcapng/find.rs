//! Finds Homa in a frame: which frames of a capture carry a Homa packet, and where it starts.

use super::{Carriage, DEFAULT_UDP_PORT};
use crate::checksum::{PROTOCOL_HOMA, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::homa::{Packet, URGENT_HOMA, has_tcp_signature};
use etherparse::{EtherType, LaxIpPayloadSlice, LaxNetSlice, LaxSlicedPacket, UdpSlice};
use std::net::{IpAddr, SocketAddr};

/// How long the headers of Linux's cooked captures are.
const COOKED_LEN: usize = 16;
const COOKED2_LEN: usize = 20;

/// What the frames of a capture start with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Ethernet,
    RawIp,
    /// Four bytes of address family, then IP (BSD loopback).
    Loopback,
    Cooked,
    Cooked2,
}

impl Link {
    /// The link with this number in capture files, where it is one of those understood. The high
    /// half of the number may say something about checksums and does not count.
    pub(super) fn from_number(number: u32) -> Option<Link> {
        Some(match number & 0xffff {
            0 | 108 => Link::Loopback,
            1 => Link::Ethernet,
            12 | 14 | 101 | 228 | 229 => Link::RawIp,
            113 => Link::Cooked,
            276 => Link::Cooked2,
            _ => return None,
        })
    }
}

/// A Homa packet found in a frame.
pub(super) struct Found<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) carriage: Carriage,
    pub(super) traffic_class: u8,
    pub(super) payload: &'a [u8],
    pub(super) truncated: bool,
}

/// What a frame turned out to be.
pub(super) enum Verdict<'a> {
    Homa(Found<'a>),
    /// A fragment of an IP packet; Homa never sends any.
    Fragment,
    Other,
}

/// Decides which packets are Homa: IP protocol 146; TCP with Homa's signature; UDP at a known
/// port, or that parses as Homa and carries its urgent pointer.
#[derive(Clone, Debug)]
pub struct Finder {
    udp_ports: Vec<u16>,
}

impl Default for Finder {
    fn default() -> Finder {
        Finder { udp_ports: vec![DEFAULT_UDP_PORT] }
    }
}

impl Finder {
    /// A finder that takes everything at [`DEFAULT_UDP_PORT`] and at these UDP ports for Homa.
    pub fn with_udp_ports(ports: impl IntoIterator<Item = u16>) -> Finder {
        let mut finder = Finder::default();
        finder.udp_ports.extend(ports);
        finder
    }

    pub(super) fn find<'a>(&self, link: Link, frame: &'a [u8]) -> Verdict<'a> {
        let Some(sliced) = slice(link, frame) else {
            return Verdict::Other;
        };
        let (source, destination, traffic_class) = match &sliced {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                let class = (header.dcp().value() << 2) | header.ecn().value();
                (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()), class)
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let (source, destination) = (header.source_addr(), header.destination_addr());
                (IpAddr::V6(source), IpAddr::V6(destination), header.traffic_class())
            }
            LaxNetSlice::Arp(_) => return Verdict::Other,
        };
        let Some(ip) = sliced.ip_payload_ref() else {
            return Verdict::Other;
        };
        let Some((carriage, ports, payload)) = self.classify(ip) else {
            return Verdict::Other;
        };
        if ip.fragmented {
            return Verdict::Fragment;
        }
        Verdict::Homa(Found {
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
            carriage,
            traffic_class,
            payload,
            truncated: ip.incomplete,
        })
    }

    /// Carriage, UDP ports and Homa packet of an IP payload.
    fn classify<'a>(&self, ip: &LaxIpPayloadSlice<'a>) -> Option<(Carriage, (u16, u16), &'a [u8])> {
        match ip.ip_number.0 {
            PROTOCOL_HOMA => Some((Carriage::Ip, (0, 0), ip.payload)),
            PROTOCOL_TCP if has_tcp_signature(ip.payload) => Some((Carriage::Tcp, (0, 0), ip.payload)),
            PROTOCOL_UDP => {
                let udp = UdpSlice::from_slice_lax(ip.payload).ok()?;
                let ports = (udp.source_port(), udp.destination_port());
                let known = self.udp_ports.contains(&ports.0) || self.udp_ports.contains(&ports.1);
                (known || looks_like_homa(udp.payload())).then_some((Carriage::Udp, ports, udp.payload()))
            }
            _ => None,
        }
    }
}

/// The IP (or ARP) part of a frame.
fn slice(link: Link, frame: &[u8]) -> Option<LaxNetSlice<'_>> {
    let sliced = match link {
        Link::Ethernet => LaxSlicedPacket::from_ethernet(frame).ok()?,
        Link::RawIp => LaxSlicedPacket::from_ip(frame).ok()?,
        Link::Loopback => LaxSlicedPacket::from_ip(frame.get(4..)?).ok()?,
        Link::Cooked => {
            let (head, packet) = frame.split_first_chunk::<COOKED_LEN>()?;
            let ether_type = EtherType(u16::from_be_bytes([head[14], head[15]]));
            LaxSlicedPacket::from_ether_type(ether_type, packet)
        }
        Link::Cooked2 => {
            let (head, packet) = frame.split_first_chunk::<COOKED2_LEN>()?;
            let ether_type = EtherType(u16::from_be_bytes([head[0], head[1]]));
            LaxSlicedPacket::from_ether_type(ether_type, packet)
        }
    };
    sliced.net
}

fn looks_like_homa(bytes: &[u8]) -> bool {
    Packet::parse(bytes).is_ok_and(|packet| packet.header().urgent == URGENT_HOMA)
}
