//! Writes Homa packets as a pcapng file of raw IP packets.

use super::{Carriage, Envelope};
use crate::checksum::PROTOCOL_HOMA;
use crate::checksum::PROTOCOL_TCP;
use etherparse::{IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::time::Duration;

/// TTL and hop limit written, as HomaModule's hosts do.
const HOP_LIMIT: u8 = 64;
/// The largest IP packet and so the snap length.
const MAX_PACKET: u32 = 65_535;
/// `if_tsresol`: times count 10^-9 seconds.
const NANOSECONDS: u8 = 9;

/// Writes Homa packets as a pcapng file of raw IP packets, for Wireshark, tcpdump and
/// [`Reader`](super::Reader).
pub struct Writer<W: Write> {
    file: PcapNgWriter<W>,
    packet: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts a file. Every packet is one small write: give a buffered writer.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(writer: W) -> io::Result<Writer<W>> {
        let mut file = PcapNgWriter::new(writer).map_err(io_error)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: MAX_PACKET,
            options: vec![InterfaceDescriptionOption::IfTsResol(NANOSECONDS)],
        };
        file.write_pcapng_block(interface).map_err(io_error)?;
        Ok(Writer { file, packet: Vec::with_capacity(2048) })
    }

    /// Writes one Homa packet given in pieces (header and payload chunks, say).
    ///
    /// # Errors
    /// Those of the writer; [`ErrorKind::InvalidInput`] when the addresses are of different
    /// families or the packet is too long for IP, in which case nothing is written.
    pub fn write(&mut self, envelope: &Envelope, pieces: &[&[u8]]) -> io::Result<()> {
        build(&mut self.packet, envelope, pieces)?;
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(envelope.time_ns),
            original_len: self.packet.len() as u32,
            data: Cow::Borrowed(&self.packet),
            options: Vec::new(),
        };
        self.file.write_pcapng_block(block).map_err(io_error)?;
        Ok(())
    }

    /// The writer below, to flush it.
    pub fn writer_mut(&mut self) -> &mut W {
        self.file.get_mut()
    }

    /// Ends the file and gives the writer back; it is not flushed.
    pub fn into_inner(self) -> W {
        self.file.into_inner()
    }
}

/// Makes the IP packet in `out`: room for the headers first, then the pieces, then the headers,
/// which need lengths and checksums.
fn build(out: &mut Vec<u8>, envelope: &Envelope, pieces: &[&[u8]]) -> io::Result<()> {
    let (source, destination) = (envelope.source.ip(), envelope.destination.ip());
    let ip_len = match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Ipv4Header::MIN_LEN,
        (IpAddr::V6(_), IpAddr::V6(_)) => Ipv6Header::LEN,
        _ => {
            return Err(io::Error::new(ErrorKind::InvalidInput, "addresses of two families"));
        }
    };
    let (protocol, shim) = match envelope.carriage {
        Carriage::Ip => (PROTOCOL_HOMA, 0),
        Carriage::Tcp => (PROTOCOL_TCP, 0),
        Carriage::Udp => (IpNumber::UDP.0, UdpHeader::LEN),
    };
    let payload: usize = pieces.iter().map(|piece| piece.len()).sum();
    if ip_len + shim + payload > MAX_PACKET as usize {
        return Err(too_long());
    }
    out.clear();
    out.resize(ip_len + shim, 0);
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    let (head, payload) = out.split_at_mut(ip_len + shim);
    let (ip, udp) = head.split_at_mut(ip_len);
    if shim > 0 {
        udp.copy_from_slice(&udp_header(envelope, payload)?);
    }
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let length = (shim + payload.len()) as u16;
            let addresses = (s.octets(), d.octets());
            ip.copy_from_slice(&ipv4_header(addresses, protocol, envelope.traffic_class, length)?);
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let header = Ipv6Header {
                traffic_class: envelope.traffic_class,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: (shim + payload.len()) as u16,
                next_header: IpNumber(protocol),
                hop_limit: HOP_LIMIT,
                source: s.octets(),
                destination: d.octets(),
            };
            ip.copy_from_slice(&header.to_bytes());
        }
        _ => unreachable!("the families were compared above"),
    }
    Ok(())
}

fn udp_header(envelope: &Envelope, payload: &[u8]) -> io::Result<[u8; UdpHeader::LEN]> {
    let ports = (envelope.source.port(), envelope.destination.port());
    let header = match (envelope.source.ip(), envelope.destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let length = (UdpHeader::LEN + payload.len()) as u16;
            let addresses = (s.octets(), d.octets());
            let ip = ipv4_fields(addresses, IpNumber::UDP.0, envelope.traffic_class, length)?;
            UdpHeader::with_ipv4_checksum(ports.0, ports.1, &ip, payload)
        }
        (s, d) => {
            let ip = Ipv6Header {
                source: as_v6(s),
                destination: as_v6(d),
                next_header: IpNumber::UDP,
                ..Ipv6Header::default()
            };
            UdpHeader::with_ipv6_checksum(ports.0, ports.1, &ip, payload)
        }
    };
    Ok(header.map_err(|_| too_long())?.to_bytes())
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn ipv4_fields(
    (source, destination): ([u8; 4], [u8; 4]),
    protocol: u8,
    traffic_class: u8,
    length: u16,
) -> io::Result<Ipv4Header> {
    let mut header = Ipv4Header::new(length, HOP_LIMIT, IpNumber(protocol), source, destination)
        .map_err(|_| too_long())?;
    // Six bits and two bits of one byte: both always fit.
    header.dscp = IpDscp::try_new(traffic_class >> 2).unwrap_or_default();
    header.ecn = IpEcn::try_new(traffic_class & 3).unwrap_or_default();
    Ok(header)
}

fn ipv4_header(
    addresses: ([u8; 4], [u8; 4]),
    protocol: u8,
    traffic_class: u8,
    length: u16,
) -> io::Result<[u8; Ipv4Header::MIN_LEN]> {
    let mut header = ipv4_fields(addresses, protocol, traffic_class, length)?;
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = [0; Ipv4Header::MIN_LEN];
    bytes.copy_from_slice(&header.to_bytes());
    Ok(bytes)
}

fn too_long() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "packet too long for IP")
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
