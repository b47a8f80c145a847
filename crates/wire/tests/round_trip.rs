//! Any packet value is emitted and parsed to itself; any bytes that parse are emitted to themselves.

use peyk_wire::homa::{
    Ack, AckEntry, Cutoffs, Data, Grant, Header, MAX_MESSAGE_LENGTH, Packet, PacketType, Resend, Unreachable,
    UnreachableCode,
};
use proptest::prelude::*;

fn header(kind: PacketType) -> impl Strategy<Value = Header> {
    (any::<(u16, u16, u32, [u8; 3])>(), any::<(u8, u8, u16, u16, u16, u64)>()).prop_map(
        move |((sport, dport, sequence, ack_high), (doff, flags, window, checksum, urgent, id))| Header {
            sport,
            dport,
            sequence,
            ack_high,
            kind,
            doff,
            flags,
            window,
            checksum,
            urgent,
            sender_id: id,
        },
    )
}

fn ack_entry() -> impl Strategy<Value = AckEntry> {
    any::<(u64, u16)>().prop_map(|(client_id, server_port)| AckEntry { client_id, server_port })
}

/// A DATA packet inside a message; the payload comes from outside because it is borrowed.
fn data(payload: &[u8]) -> impl Strategy<Value = Data<'_>> {
    let room = MAX_MESSAGE_LENGTH - payload.len() as u32;
    let place = (0..=room).prop_flat_map(move |offset| {
        let end = offset + payload.len() as u32;
        (Just(offset), end.max(1)..=MAX_MESSAGE_LENGTH, any::<bool>())
    });
    (header(PacketType::Data), place, ack_entry(), any::<(u32, u16, u8, [u8; 3])>()).prop_map(
        |(mut header, (offset, message_length, in_sequence), ack, rest)| {
            let (incoming, cutoff_version, retransmit, pad) = rest;
            let mut seg_offset = offset;
            if in_sequence {
                header.sequence = offset;
                seg_offset = u32::MAX;
            }
            Data {
                header,
                message_length,
                incoming,
                ack,
                cutoff_version,
                retransmit,
                pad,
                seg_offset,
                payload,
            }
        },
    )
}

fn control() -> impl Strategy<Value = Packet<'static>> {
    prop_oneof![
        (header(PacketType::Grant), any::<(u32, u8, Option<u8>)>()).prop_map(
            |(header, (offset, priority, extra))| Packet::Grant(Grant { header, offset, priority, extra })
        ),
        (header(PacketType::Resend), any::<(u32, u32, Option<u8>)>()).prop_map(
            |(header, (offset, length, priority))| Packet::Resend(Resend {
                header,
                offset,
                length,
                priority
            })
        ),
        (header(PacketType::Cutoffs), any::<([u32; 8], u16)>())
            .prop_map(|(header, (cutoffs, v))| Packet::Cutoffs(Cutoffs::new(header, cutoffs, v))),
        (header(PacketType::Ack), any::<u16>(), prop::array::uniform5(ack_entry()))
            .prop_map(|(header, num_acks, acks)| Packet::Ack(Ack { header, num_acks, acks })),
        (header(PacketType::Unreachable), any::<(u8, [u8; 3])>()).prop_map(|(header, (c, pad))| {
            let code = UnreachableCode::from_code(c);
            Packet::Unreachable(Unreachable { header, code, pad })
        }),
        header(PacketType::RpcUnknown).prop_map(Packet::RpcUnknown),
        header(PacketType::Busy).prop_map(Packet::Busy),
        header(PacketType::Freeze).prop_map(Packet::Freeze),
        header(PacketType::NeedAck).prop_map(Packet::NeedAck),
    ]
}

fn there_and_back(packet: Packet<'_>) -> Result<(), TestCaseError> {
    let mut bytes = vec![0xaa; packet.emit_len() + 7];
    let length = packet.emit(&mut bytes);
    prop_assert_eq!(length, packet.emit_len());
    prop_assert!(bytes[length..].iter().all(|byte| *byte == 0xaa), "wrote beyond its length");
    prop_assert_eq!(Packet::parse(&bytes[..length]), Ok(packet));
    Ok(())
}

proptest! {
    #[test]
    fn control_there_and_back(packet in control()) {
        there_and_back(packet)?;
    }

    #[test]
    fn data_there_and_back(
        (payload, seed) in (prop::collection::vec(any::<u8>(), 0..2000), any::<[u8; 32]>())
    ) {
        use proptest::strategy::ValueTree;
        use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let data = data(&payload).new_tree(&mut runner).unwrap().current();
        there_and_back(Packet::Data(data))?;
        let mut head = [0; 56];
        data.emit_header(&mut head);
        let mut whole = vec![0; data.emit_len()];
        data.emit(&mut whole);
        prop_assert_eq!(&whole[..56], &head[..]);
    }

    #[test]
    fn bytes_there_and_back(mut bytes in prop::collection::vec(any::<u8>(), 28..200), kind in 0..10) {
        bytes[11] = PacketType::ALL[kind as usize].code();
        if bytes.len() > 56 {
            bytes[28] = 0;
            bytes[29] &= 0x0f;
            bytes[52] &= 0x80;
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            let mut again = vec![0; packet.emit_len()];
            let length = packet.emit(&mut again);
            prop_assert_eq!(&again[..], &bytes[..length]);
        }
    }
}
