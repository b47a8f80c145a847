//! Packets made by hand, and packets an endpoint sent, in a form to assert on.

use peyk_homa::Transmit;
use peyk_wire::homa::{
    Ack, AckEntry, Cutoffs, Data, Grant, Header, Packet, PacketType, Resend, Unreachable, UnreachableCode,
};

/// Homa port of servers in tests.
pub const PORT: u16 = 99;
/// Homa port of hand-made clients.
pub const CLIENT_PORT: u16 = 0x8001;

/// Who sends a hand-made packet: ports, and the id as its sender knows it.
#[derive(Copy, Clone, Debug)]
pub struct From {
    pub sport: u16,
    pub dport: u16,
    pub id: u64,
}

impl From {
    pub fn header(self, kind: PacketType) -> Header {
        Header::new(kind, self.sport, self.dport, self.id)
    }

    /// The bytes `[offset, offset + payload.len())` of a message.
    pub fn data(self, length: u32, incoming: u32, offset: u32, payload: &[u8]) -> Vec<u8> {
        self.data_with(length, incoming, offset, payload, |_| ())
    }

    pub fn data_with(
        self,
        length: u32,
        incoming: u32,
        offset: u32,
        payload: &[u8],
        change: impl FnOnce(&mut Data<'_>),
    ) -> Vec<u8> {
        let mut data = Data::new(self.header(PacketType::Data), length, incoming, offset, payload);
        change(&mut data);
        bytes(&Packet::Data(data))
    }

    /// A segment cut from a whole message.
    pub fn segment(self, message: &[u8], incoming: u32, offset: usize, len: usize) -> Vec<u8> {
        let end = (offset + len).min(message.len());
        self.data(message.len() as u32, incoming, offset as u32, &message[offset..end])
    }

    /// A whole message that is one packet.
    pub fn whole(self, message: &[u8]) -> Vec<u8> {
        self.segment(message, message.len() as u32, 0, message.len())
    }

    pub fn grant(self, offset: u32, priority: u8) -> Vec<u8> {
        bytes(&Packet::Grant(Grant::new(self.header(PacketType::Grant), offset, priority)))
    }

    pub fn resend(self, offset: u32, length: u32, priority: u8) -> Vec<u8> {
        bytes(&Packet::Resend(Resend::new(self.header(PacketType::Resend), offset, length, priority)))
    }

    pub fn resend_all(self) -> Vec<u8> {
        self.resend(0, u32::MAX, 7)
    }

    pub fn rpc_unknown(self) -> Vec<u8> {
        bytes(&Packet::RpcUnknown(self.header(PacketType::RpcUnknown)))
    }

    pub fn busy(self) -> Vec<u8> {
        bytes(&Packet::Busy(self.header(PacketType::Busy)))
    }

    pub fn need_ack(self) -> Vec<u8> {
        bytes(&Packet::NeedAck(self.header(PacketType::NeedAck)))
    }

    pub fn freeze(self) -> Vec<u8> {
        bytes(&Packet::Freeze(self.header(PacketType::Freeze)))
    }

    pub fn ack(self, entries: &[AckEntry]) -> Vec<u8> {
        bytes(&Packet::Ack(Ack::new(self.header(PacketType::Ack), entries)))
    }

    pub fn cutoffs(self, table: [u32; 8], version: u16) -> Vec<u8> {
        bytes(&Packet::Cutoffs(Cutoffs::new(self.header(PacketType::Cutoffs), table, version)))
    }

    pub fn unreachable(self, code: UnreachableCode) -> Vec<u8> {
        bytes(&Packet::Unreachable(Unreachable::new(self.header(PacketType::Unreachable), code)))
    }
}

/// An entry of an ACK packet.
pub fn acked(client_id: u64, server_port: u16) -> AckEntry {
    AckEntry { client_id, server_port }
}

/// The bytes of a packet.
pub fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = vec![0; packet.emit_len()];
    packet.emit(&mut bytes);
    bytes
}

/// A packet an endpoint sent.
#[derive(Clone)]
pub struct Sent {
    pub priority: u8,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn new(transmit: &Transmit) -> Sent {
        let mut bytes = Vec::new();
        transmit.write_to(&mut bytes);
        Sent { priority: transmit.priority, bytes }
    }

    pub fn packet(&self) -> Packet<'_> {
        Packet::parse(&self.bytes).expect("an endpoint sends well-formed packets")
    }

    pub fn kind(&self) -> PacketType {
        self.packet().kind()
    }

    pub fn header(&self) -> Header {
        *self.packet().header()
    }

    pub fn data(&self) -> Data<'_> {
        match self.packet() {
            Packet::Data(data) => data,
            other => panic!("DATA expected, not {other}"),
        }
    }

    pub fn grant(&self) -> Grant {
        match self.packet() {
            Packet::Grant(grant) => grant,
            other => panic!("GRANT expected, not {other}"),
        }
    }

    pub fn resend(&self) -> Resend {
        match self.packet() {
            Packet::Resend(resend) => resend,
            other => panic!("RESEND expected, not {other}"),
        }
    }

    pub fn ack(&self) -> Ack {
        match self.packet() {
            Packet::Ack(ack) => ack,
            other => panic!("ACK expected, not {other}"),
        }
    }

    pub fn cutoffs(&self) -> Cutoffs {
        match self.packet() {
            Packet::Cutoffs(cutoffs) => cutoffs,
            other => panic!("CUTOFFS expected, not {other}"),
        }
    }

    pub fn unreachable(&self) -> Unreachable {
        match self.packet() {
            Packet::Unreachable(unreachable) => unreachable,
            other => panic!("UNREACHABLE expected, not {other}"),
        }
    }
}

impl core::fmt::Debug for Sent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "p{} {}", self.priority, self.packet())
    }
}

/// The kinds of packets, in order.
pub fn kinds(sent: &[Sent]) -> Vec<PacketType> {
    sent.iter().map(Sent::kind).collect()
}

/// The byte ranges of the DATA packets, in order.
pub fn ranges(sent: &[Sent]) -> Vec<(u32, u32)> {
    let data = sent.iter().filter(|s| s.kind() == PacketType::Data);
    data.map(|s| (s.data().offset(), s.data().end())).collect()
}

/// The RESENDs as (offset, length), in order; length `u32::MAX` is "all".
pub fn resends(sent: &[Sent]) -> Vec<(u32, u32)> {
    let resends = sent.iter().filter(|s| s.kind() == PacketType::Resend);
    resends.map(|s| (s.resend().offset, s.resend().length)).collect()
}

/// The packets of one kind.
pub fn only(sent: &[Sent], kind: PacketType) -> Vec<Sent> {
    sent.iter().filter(|s| s.kind() == kind).cloned().collect()
}
