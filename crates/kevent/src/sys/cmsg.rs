//! Control messages as bytes: building for sends, reading for receives and the error queue.
//!
//! The layout (a length of the machine's word, level, type, then data padded to a word) is the
//! kernel's; writing it as bytes needs neither alignment nor unsafe code.

use std::net::IpAddr;

use crate::event::{QUOTE, SocketError, Why};
use crate::sys::addr::{array, decode};

const WORD: usize = size_of::<usize>();
const HEAD: usize = size_of::<libc::cmsghdr>();
const LEVEL_AT: usize = WORD;
const KIND_AT: usize = WORD + 4;

const fn padded(len: usize) -> usize {
    len.next_multiple_of(WORD)
}

/// Control messages of a send: traffic class and segment size.
pub(crate) const SEND_ROOM: usize = padded(HEAD + 4) + padded(HEAD + 2);
/// Control messages of a receive: segment size (an int), traffic class, time, and destination, the
/// latter three of both address families at worst; and room to spare.
pub(crate) const RECV_ROOM: usize =
    3 * padded(HEAD + 4) + padded(HEAD + 16) + padded(HEAD + 12) + padded(HEAD + 20) + 32;

/// Control data under construction.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) bytes: [u8; SEND_ROOM],
    pub(crate) len: usize,
}

impl Control {
    pub(crate) const fn new() -> Control {
        Control { bytes: [0; SEND_ROOM], len: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let room = padded(HEAD + data.len());
        let out = &mut self.bytes[self.len..self.len + room];
        out.fill(0);
        out[..WORD].copy_from_slice(&(HEAD + data.len()).to_ne_bytes());
        out[LEVEL_AT..LEVEL_AT + 4].copy_from_slice(&level.to_ne_bytes());
        out[KIND_AT..KIND_AT + 4].copy_from_slice(&kind.to_ne_bytes());
        out[HEAD..HEAD + data.len()].copy_from_slice(data);
        self.len += room;
    }

    /// IPv4 type of service, also for IPv4 destinations of an IPv6 socket.
    pub(crate) fn tos(&mut self, tos: u8) {
        self.push(libc::IPPROTO_IP, libc::IP_TOS, &i32::from(tos).to_ne_bytes());
    }

    /// IPv6 traffic class.
    pub(crate) fn traffic_class(&mut self, class: u8) {
        self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &i32::from(class).to_ne_bytes());
    }

    /// Cut the payload into datagrams of this size.
    pub(crate) fn segment(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }
}

/// One control message received.
pub(crate) struct Received<'a> {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: &'a [u8],
}

impl Received<'_> {
    /// Traffic class: a byte of IPv4, an int of IPv6.
    pub(crate) fn class(&self) -> Option<u8> {
        match (self.level, self.kind) {
            (libc::IPPROTO_IP, libc::IP_TOS) => self.data.first().copied(),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                u8::try_from(i32::from_ne_bytes(array(self.data, 0)?)).ok()
            }
            _ => None,
        }
    }

    /// Destination address, and the number of the interface.
    pub(crate) fn destination(&self) -> Option<(IpAddr, u32)> {
        match (self.level, self.kind) {
            // Interface, the local address the route gives, the address in the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let ip: [u8; 4] = array(self.data, 8)?;
                Some((ip.into(), u32::from_ne_bytes(array(self.data, 0)?)))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let ip: [u8; 16] = array(self.data, 0)?;
                Some((IpAddr::from(ip).to_canonical(), u32::from_ne_bytes(array(self.data, 16)?)))
            }
            _ => None,
        }
    }

    /// Seconds and nanoseconds since 1970.
    pub(crate) fn time(&self) -> Option<(u64, u32)> {
        if (self.level, self.kind) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
            return None;
        }
        let (seconds, nanos) =
            (i64::from_ne_bytes(array(self.data, 0)?), i64::from_ne_bytes(array(self.data, 8)?));
        Some((u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?))
    }
}

/// Walks received control data; stops at the first entry that does not fit.
pub(crate) fn read(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(array(bytes, 0)?);
        let level = i32::from_ne_bytes(array(bytes, LEVEL_AT)?);
        let kind = i32::from_ne_bytes(array(bytes, KIND_AT)?);
        let data = bytes.get(HEAD..len)?;
        bytes = bytes.get(padded(len)..).unwrap_or(&[]);
        Some(Received { level, kind, data })
    })
}

/// Segment size of a received train; 0 when the payload is one datagram.
pub(crate) fn gro_segment(control: &[u8]) -> u32 {
    read(control)
        .find(|c| c.level == libc::SOL_UDP && c.kind == libc::UDP_GRO)
        .and_then(|c| Some(i32::from_ne_bytes(array(c.data, 0)?)))
        .and_then(|size| u32::try_from(size).ok())
        .unwrap_or(0)
}

/// Reads an entry of the error queue: `name` is the destination of the datagram at fault.
pub(crate) fn socket_error(name: &[u8], control: &[u8]) -> Option<SocketError> {
    let entry = read(control).find(|c| {
        (c.level == libc::IPPROTO_IP && c.kind == libc::IP_RECVERR)
            || (c.level == libc::IPPROTO_IPV6 && c.kind == libc::IPV6_RECVERR)
    })?;
    // struct sock_extended_err: errno u32, origin, type, code, pad u8, info u32, data u32.
    let errno = u32::from_ne_bytes(array(entry.data, 0)?) as i32;
    let [origin, kind, code, _] = array(entry.data, 4)?;
    let info = u32::from_ne_bytes(array(entry.data, 8)?);
    let why = explain(origin, kind, code, errno, info);
    Some(SocketError { remote: decode(name), why, quote: [0; QUOTE], quoted: 0 })
}

fn explain(origin: u8, kind: u8, code: u8, errno: i32, info: u32) -> Why {
    if errno == libc::EMSGSIZE {
        return Why::TooBig { mtu: info };
    }
    match (origin, kind, code) {
        // ICMP destination unreachable.
        (libc::SO_EE_ORIGIN_ICMP, 3, 3) => Why::Port,
        (libc::SO_EE_ORIGIN_ICMP, 3, 2) => Why::Protocol,
        (libc::SO_EE_ORIGIN_ICMP, 3, 0 | 6 | 11) => Why::Network,
        (libc::SO_EE_ORIGIN_ICMP, 3, 9 | 10 | 13) => Why::Prohibited,
        (libc::SO_EE_ORIGIN_ICMP, 3, _) => Why::Host,
        // ICMPv6 destination unreachable; parameter problem: unknown next header.
        (libc::SO_EE_ORIGIN_ICMP6, 1, 4) => Why::Port,
        (libc::SO_EE_ORIGIN_ICMP6, 1, 0) => Why::Network,
        (libc::SO_EE_ORIGIN_ICMP6, 1, 1 | 5 | 6) => Why::Prohibited,
        (libc::SO_EE_ORIGIN_ICMP6, 1, _) => Why::Host,
        (libc::SO_EE_ORIGIN_ICMP6, 4, 1) => Why::Protocol,
        _ => of_errno(errno),
    }
}

/// What an error number of a send or receive says about the destination.
pub(crate) fn of_errno(errno: i32) -> Why {
    match errno {
        libc::ECONNREFUSED => Why::Port,
        libc::ENOPROTOOPT | libc::EPROTONOSUPPORT => Why::Protocol,
        libc::EHOSTUNREACH | libc::EHOSTDOWN => Why::Host,
        libc::ENETUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL => Why::Network,
        libc::EPERM | libc::EACCES => Why::Prohibited,
        other => Why::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control__is_what_read_reads() {
        let mut control = Control::new();
        control.tos(0xe0);
        control.segment(1400);
        assert_eq!(control.len, SEND_ROOM);
        let all: Vec<_> =
            read(&control.bytes[..control.len]).map(|c| (c.level, c.kind, c.data.to_vec())).collect();
        assert_eq!(all[0], (libc::IPPROTO_IP, libc::IP_TOS, 0xe0i32.to_ne_bytes().to_vec()));
        assert_eq!(all[1], (libc::SOL_UDP, libc::UDP_SEGMENT, 1400u16.to_ne_bytes().to_vec()));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn received__is_read_by_kind_or_not_at_all() {
        let of = |level, kind, data: &'static [u8]| Received { level, kind, data };
        assert_eq!(of(libc::IPPROTO_IP, libc::IP_TOS, &[3]).class(), Some(3));
        assert_eq!(of(libc::IPPROTO_IP, libc::IP_TOS, &[]).class(), None);
        assert_eq!(of(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &[3]).class(), None);
        const INFO: [u8; 12] = [7, 0, 0, 0, 1, 1, 1, 1, 127, 0, 0, 2];
        let found = of(libc::IPPROTO_IP, libc::IP_PKTINFO, &INFO).destination();
        assert_eq!(found, Some(([127, 0, 0, 2].into(), u32::from_ne_bytes([7, 0, 0, 0]))));
        assert_eq!(of(libc::IPPROTO_IP, libc::IP_PKTINFO, &INFO[..11]).destination(), None);
        assert_eq!(of(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &[0xff; 16]).time(), None);
        assert_eq!(of(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &[0; 15]).time(), None);
    }

    #[test]
    fn read__stops_at_nonsense() {
        assert_eq!(read(&[]).count(), 0);
        assert_eq!(read(&[0xff; 40]).count(), 0);
        assert_eq!(read(&[0; 40]).count(), 0);
        let mut control = Control::new();
        control.tos(1);
        for cut in 0..HEAD + 4 {
            assert_eq!(read(&control.bytes[..cut]).count(), 0, "{cut}");
        }
        assert_eq!(gro_segment(&control.bytes[..control.len]), 0);
    }

    #[test]
    fn explain__knows_icmp() {
        let icmp = |kind, code| explain(libc::SO_EE_ORIGIN_ICMP, kind, code, libc::ECONNREFUSED, 0);
        assert_eq!(icmp(3, 3), Why::Port);
        assert_eq!(icmp(3, 2), Why::Protocol);
        assert_eq!(icmp(3, 1), Why::Host);
        assert_eq!(icmp(3, 13), Why::Prohibited);
        assert_eq!(explain(libc::SO_EE_ORIGIN_ICMP6, 1, 4, libc::ECONNREFUSED, 0), Why::Port);
        assert_eq!(explain(libc::SO_EE_ORIGIN_ICMP, 3, 4, libc::EMSGSIZE, 1280), Why::TooBig { mtu: 1280 });
        assert_eq!(explain(libc::SO_EE_ORIGIN_LOCAL, 0, 0, libc::ENETUNREACH, 0), Why::Network);
    }
}
