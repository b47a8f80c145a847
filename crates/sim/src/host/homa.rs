//! Homa as it ships: a `peyk_homa::Endpoint` behind a network card that asks for a packet when it is free.

use core::net::SocketAddr;

use bytes::Bytes;
use peyk_homa::{
    Config, Endpoint, Event, PacketHeader, Path, PeerAddr, RequestOptions, ServerRpc, SocketId, SocketOptions,
};
use peyk_sansio::{Instant, Prng};
use peyk_sockbuf::{Payload, Pool};
use peyk_wire::homa::DATA_HEADER_LEN;

use super::{Delivered, Host, OneWay};
use crate::packet::Packet;
use crate::topology::{ETHERNET_OVERHEAD, HostId, SHORTEST_FRAME};

/// The port of the server on every host.
pub const SERVER_PORT: u16 = 99;
/// IP and UDP.
const NETWORK_HEADERS: u32 = 28;
const UDP_PORT: u16 = 14_600;

/// A Homa packet: its header and, if contents matter, its payload.
#[derive(Clone, Debug)]
pub struct HomaBody {
    /// The Homa header.
    pub header: PacketHeader,
    /// What follows it; empty if contents do not matter.
    pub payload: Payload,
}

/// How bytes are counted and kept.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Carriage {
    /// Whether packets carry the bytes of messages. Without, they only have their lengths.
    pub contents: bool,
    /// Bytes of transport header that a DATA packet is taken to have on the wire. Ours has 56; that of the
    /// Homa paper's simulator has 30.
    pub data_header_bytes: u32,
}

impl Default for Carriage {
    fn default() -> Carriage {
        Carriage { contents: true, data_header_bytes: DATA_HEADER_LEN as u32 }
    }
}

/// The address of a host.
pub fn address(host: HostId) -> SocketAddr {
    let [high, low] = host.to_be_bytes();
    SocketAddr::from(([10, 1, high, low], UDP_PORT))
}

/// The host at an address.
pub fn host_at(address: SocketAddr) -> Option<HostId> {
    match address {
        SocketAddr::V4(v4) => {
            let [10, 1, high, low] = v4.ip().octets() else { return None };
            Some(HostId::from_be_bytes([high, low]))
        }
        SocketAddr::V6(_) => None,
    }
}

/// Where to send requests for a host.
pub fn server_of(host: HostId) -> PeerAddr {
    PeerAddr { path: Path { remote: address(host), local: 0 }, port: SERVER_PORT }
}

/// One host that speaks Homa; its outcomes are the endpoint's events.
#[derive(Debug)]
pub struct HomaHost {
    /// The protocol, for applications to call.
    pub endpoint: Endpoint,
    /// The socket that takes requests, at [`SERVER_PORT`].
    pub server: SocketId,
    /// The socket that makes them.
    pub client: SocketId,
    id: HostId,
    carriage: Carriage,
    buffer: Vec<u8>,
}

impl HomaHost {
    /// A host that has just started.
    ///
    /// # Panics
    /// If the configuration is not valid: experiments check theirs first.
    pub fn new(
        id: HostId,
        config: Config,
        carriage: Carriage,
        seed: u64,
        pool: Pool,
        now: Instant,
    ) -> HomaHost {
        let mut endpoint = Endpoint::new(config, seed, pool, now).expect("the configuration was checked");
        let server = endpoint.open_socket(Some(SERVER_PORT), SocketOptions::default());
        let server = server.expect("a new endpoint has all ports free");
        let client = endpoint.open_socket(None, SocketOptions::default());
        let client = client.expect("a new endpoint has room for sockets");
        HomaHost { endpoint, server, client, id, carriage, buffer: Vec::new() }
    }

    /// A host with memory of its own for so many pages of 64 KiB, for measurements outside of a world.
    ///
    /// # Panics
    /// As [`HomaHost::new`].
    pub fn in_memory(id: HostId, config: Config, carriage: Carriage, pages: u32) -> HomaHost {
        HomaHost::new(id, config, carriage, 1 + u64::from(id), Pool::new(pages), Instant::ZERO)
    }

    /// Which host this is.
    pub fn id(&self) -> HostId {
        self.id
    }
}

impl Host for HomaHost {
    type Body = HomaBody;
    type Outcome = Event;

    fn handle_packet(&mut self, now: Instant, packet: Packet<HomaBody>) {
        let header = packet.body.header.as_slice();
        let length = header.len() + packet.payload_bytes as usize;
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        self.buffer[..header.len()].copy_from_slice(header);
        if self.carriage.contents {
            packet.body.payload.copy_to(&mut self.buffer[header.len()..length]);
        }
        let path = Path { remote: address(packet.from), local: 0 };
        self.endpoint.handle_packet(now, &path, &self.buffer[..length]);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Packet<HomaBody>> {
        let transmit = self.endpoint.poll_transmit(now)?;
        let to = host_at(transmit.path.remote).expect("only hosts of this world are known");
        let payload_bytes = transmit.payload.len() as u32;
        let header_bytes =
            if payload_bytes > 0 { self.carriage.data_header_bytes } else { transmit.header.len() as u32 };
        let frame = payload_bytes + header_bytes + NETWORK_HEADERS + ETHERNET_OVERHEAD;
        let payload = if self.carriage.contents { transmit.payload } else { Payload::new() };
        Some(Packet {
            from: self.id,
            to,
            priority: transmit.priority,
            is_marked: false,
            wire_bytes: frame.max(SHORTEST_FRAME),
            payload_bytes,
            flow: None,
            rank: 0,
            body: HomaBody { header: transmit.header, payload },
        })
    }

    fn poll_outcome(&mut self) -> Option<Event> {
        self.endpoint.poll_event()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout()
    }

    fn is_withholding(&self) -> bool {
        self.endpoint.queued_grantable() > 0
    }

    fn corrupt(packet: &mut Packet<HomaBody>, random: &mut Prng) -> bool {
        let mut bytes = packet.body.header.as_slice().to_vec();
        let header = bytes.len();
        bytes.extend_from_slice(&packet.body.payload.to_vec());
        if random.chance(0.2) {
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        } else {
            // Long packets are mostly payload, and most of what can go wrong is in headers.
            let part = if random.chance(0.5) { header } else { bytes.len() };
            for _ in 0..=random.below(3) {
                bytes[random.below(part as u64) as usize] ^= 1 << random.below(8);
            }
        }
        let split = header.min(bytes.len());
        packet.body.header = PacketHeader::copy_from(&bytes[..split]);
        packet.body.payload = Payload::copy_from(&bytes[split..]);
        packet.payload_bytes = (bytes.len() - split) as u32;
        true
    }
}

/// Homa carrying one-way messages: requests that need no response. What ends them at both hosts travels out
/// of band, at once and at no cost, as in the Homa paper's simulations, whose messages had no responses
/// either. The messages have lengths but no contents.
#[derive(Debug)]
pub struct OneWayHoma {
    host: HomaHost,
    zeros: Bytes,
    delivered: Option<ServerRpc>,
    /// Whether packets may be repeated: then it is remembered which messages were delivered, or a late copy
    /// would begin one anew, take grants and keep them until its silence is noticed.
    is_repeated: bool,
    now: Instant,
}

impl OneWayHoma {
    /// A host that has just started. `zeros` is at least as long as the longest message; `is_repeated` tells
    /// whether packets may be sent again.
    pub fn new(host: HomaHost, zeros: Bytes, is_repeated: bool) -> OneWayHoma {
        OneWayHoma { host, zeros, delivered: None, is_repeated, now: Instant::ZERO }
    }

    /// The protocol.
    pub fn endpoint(&self) -> &Endpoint {
        &self.host.endpoint
    }

    /// The protocol, to change.
    pub fn endpoint_mut(&mut self) -> &mut Endpoint {
        &mut self.host.endpoint
    }
}

impl Host for OneWayHoma {
    type Body = HomaBody;
    type Outcome = Delivered;

    fn handle_packet(&mut self, now: Instant, packet: Packet<HomaBody>) {
        self.now = now;
        self.host.handle_packet(now, packet);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.host.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Packet<HomaBody>> {
        self.host.poll_transmit(now)
    }

    fn poll_outcome(&mut self) -> Option<Delivered> {
        if let Some(rpc) = self.delivered.take() {
            self.host.endpoint.forget_request(self.now, rpc, self.is_repeated);
        }
        while let Some(event) = self.host.endpoint.poll_event() {
            if let Event::Request { rpc, from, .. } = event {
                self.delivered = Some(rpc);
                let from = host_at(from.path.remote)?;
                return Some(Delivered { from, key: rpc.id() & !1 });
            }
        }
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.host.poll_timeout()
    }

    fn is_withholding(&self) -> bool {
        self.host.is_withholding()
    }
}

impl OneWay for OneWayHoma {
    fn send(&mut self, now: Instant, to: HostId, bytes: u32) -> Option<u64> {
        let message = Payload::from(self.zeros.slice(..bytes as usize));
        let (client, options) = (self.host.client, RequestOptions::default());
        self.host.endpoint.send_request(now, client, server_of(to), message, options).ok().map(|rpc| rpc.0)
    }

    fn finish(&mut self, key: u64) {
        self.host.endpoint.forget_call(peyk_homa::RpcId(key));
    }
}
