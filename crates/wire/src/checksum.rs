//! The Internet checksum with a TCP-style pseudo header, over IPv4 and IPv6.
//!
//! Homa's header overlays a TCP header, so HomaModule lets the network card compute a TCP checksum:
//! the pseudo header names protocol 6 even where the IP header says 146. Receivers never verify it;
//! the protocol number is therefore a parameter here and the check is a question, not a rule.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol number of TCP, and the one in the pseudo header of every Homa checksum.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of Homa (IANA, 2024).
pub const PROTOCOL_HOMA: u8 = 146;

/// A running ones' complement sum of big-endian 16-bit words.
///
/// Pieces may have odd lengths: the sum remembers whether it stands between two bytes of a word.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    words: u64,
    odd: bool,
}

impl Sum {
    /// The sum of no bytes.
    pub const fn new() -> Sum {
        Sum { words: 0, odd: false }
    }

    /// The sum of the pseudo header: addresses, protocol number and `length` of the packet after
    /// the IP header in bytes. Addresses of different families are both written as IPv6, the IPv4
    /// one as `::ffff:a.b.c.d`.
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> Sum {
        let mut sum = Sum::new();
        match (source, destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                sum.add(&Ipv4Addr::octets(&s));
                sum.add(&Ipv4Addr::octets(&d));
            }
            (s, d) => {
                sum.add(&as_v6(s).octets());
                sum.add(&as_v6(d).octets());
            }
        }
        sum.add(&[0, protocol]);
        sum.add(&length.to_be_bytes());
        sum
    }

    /// Adds bytes after those already summed.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if self.odd {
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            self.words += u64::from(*first);
            self.odd = false;
            bytes = rest;
        }
        // Four bytes at a time: 2^32 of them fit in the 64-bit sum, and folding makes them words.
        let (quads, rest) = bytes.as_chunks::<4>();
        for quad in quads {
            self.words += u64::from(u32::from_be_bytes(*quad));
        }
        let (pairs, last) = rest.as_chunks::<2>();
        for pair in pairs {
            self.words += u64::from(u16::from_be_bytes(*pair));
        }
        if let [byte] = last {
            self.words += u64::from(*byte) << 8;
            self.odd = true;
        }
        self.words = (self.words & 0xffff_ffff) + (self.words >> 32);
    }

    /// The checksum to write into the packet: the folded sum, inverted. Over a packet that already
    /// carries a correct checksum this is 0.
    pub fn finish(self) -> u16 {
        let mut sum = self.words;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The checksum over pseudo header and `packet` (everything after the IP header). Zero when
/// `packet` carries a correct one; otherwise, with the checksum field zeroed, the value to write.
pub fn of_packet(source: IpAddr, destination: IpAddr, protocol: u8, packet: &[u8]) -> u16 {
    let mut sum = Sum::pseudo_header(source, destination, protocol, packet.len() as u32);
    sum.add(packet);
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_rfc1071_example() {
        let mut sum = Sum::new();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn sum_pieces_of_any_length_add_up() {
        let bytes: Vec<u8> = (0..97u8).map(|i| i.wrapping_mul(37)).collect();
        let mut whole = Sum::new();
        whole.add(&bytes);
        for cut in 0..bytes.len() {
            for second in cut..bytes.len() {
                let mut pieces = Sum::new();
                pieces.add(&bytes[..cut]);
                pieces.add(&bytes[cut..second]);
                pieces.add(&bytes[second..]);
                assert_eq!(pieces.finish(), whole.finish(), "cut at {cut} and {second}");
            }
        }
    }

    #[test]
    fn pseudo_header_mixed_families_use_the_mapped_form() {
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(of_packet(v4, v6, PROTOCOL_TCP, b"homa"), of_packet(mapped, v6, PROTOCOL_TCP, b"homa"));
    }
}
