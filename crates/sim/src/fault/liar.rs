//! Packets of a host that lies: its own, altered, and others that it makes up.

use peyk_homa::PacketHeader;
use peyk_sansio::Prng;
use peyk_sockbuf::Payload;
use peyk_wire::homa::{Ack, AckEntry, Header, PacketType, TYPE_AT};

use super::plan::Lie;
use crate::host::homa::HomaBody;
use crate::packet::Packet;
use crate::topology::{HostId, SHORTEST_FRAME};

/// Share of its own packets that a liar alters.
const SHARE: f64 = 0.3;
/// Where the fields are that a liar changes.
const ID_AT: usize = 20;
const LENGTH_AT: usize = 28;
const INCOMING_AT: usize = 32;

/// Alters a packet of the liar's own. False if it stays as it is.
pub fn alter(lie: Lie, packet: &mut Packet<HomaBody>, random: &mut Prng) -> bool {
    if !random.chance(SHARE) {
        return false;
    }
    let mut bytes = packet.body.header.as_slice().to_vec();
    let is_data = bytes.get(TYPE_AT) == Some(&PacketType::Data.code());
    let value = match random.below(4) {
        0 => 0,
        1 => random.below(2_000_000) as u32,
        2 => u32::MAX - random.below(10) as u32,
        _ => random.below(200_000) as u32,
    };
    match lie {
        Lie::Lengths if is_data => put(&mut bytes, LENGTH_AT, value),
        Lie::Incoming if is_data => put(&mut bytes, INCOMING_AT, value),
        Lie::Ids => {
            let at = ID_AT + 4 + random.below(4) as usize;
            bytes[at] = bytes[at].wrapping_add(1 + random.below(3) as u8);
        }
        _ => return false,
    }
    packet.body.header = PacketHeader::copy_from(&bytes);
    true
}

/// A packet that the liar makes up, for some host; `overheard` are packets of anybody.
pub fn forge(
    lie: Lie,
    liar: HostId,
    hosts: u16,
    overheard: &[Packet<HomaBody>],
    random: &mut Prng,
) -> Option<Packet<HomaBody>> {
    let other = random.pick(overheard)?;
    let victims = [other.from, other.to];
    let to = *random.pick(&victims).filter(|&&to| to != liar && to < hosts)?;
    let mut bytes = other.body.header.as_slice().to_vec();
    let mut payload = other.body.payload.clone();
    if to == other.from {
        // As if the other side said it.
        bytes.swap(0, 2);
        bytes.swap(1, 3);
        bytes[ID_AT + 7] ^= 1;
    }
    match lie {
        Lie::Impostor => {
            if random.chance(0.5) {
                bytes[TYPE_AT] = 0x10 + random.below(10) as u8;
                bytes.resize(80, 0);
            }
            if random.chance(0.5) {
                payload = Payload::from(vec![0xee; payload.len()]);
            }
        }
        Lie::Acks => {
            let head = Header::parse(&bytes).ok()?;
            let entries = [AckEntry { client_id: head.sender_id & !1, server_port: head.dport }; 3];
            let ack = Header::new(PacketType::Ack, head.sport, head.dport, head.sender_id & !1);
            bytes = vec![0; 80];
            Ack::new(ack, &entries).emit(&mut bytes);
            payload = Payload::new();
        }
        Lie::Garbage => {
            bytes.truncate(random.below(81) as usize);
            let skip = if random.chance(0.5) { 12 } else { 0 };
            bytes.iter_mut().skip(skip).for_each(|byte| *byte = random.next_u32() as u8);
            payload = Payload::new();
        }
        Lie::Lengths | Lie::Incoming | Lie::Ids => return None,
    }
    let payload_bytes = payload.len() as u32;
    Some(Packet {
        from: liar,
        to,
        priority: random.below(8) as u8,
        is_marked: false,
        flow: None,
        wire_bytes: (bytes.len() as u32 + payload_bytes + 66).max(SHORTEST_FRAME),
        payload_bytes,
        rank: 0,
        body: HomaBody { header: PacketHeader::copy_from(&bytes), payload },
    })
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
