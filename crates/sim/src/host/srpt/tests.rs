//! One host against a script of packets.

use super::*;

const RTO: u64 = 45_000;

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn host() -> SrptHost {
    SrptHost::new(0, Settings::default())
}

fn sent(host: &mut SrptHost, now: u64) -> Vec<Packet<SrptBody>> {
    core::iter::from_fn(|| host.poll_transmit(at(now))).collect()
}

fn indices(packets: &[Packet<SrptBody>]) -> Vec<u32> {
    let index = |body: &SrptBody| match body {
        SrptBody::Data { index, .. } => Some(*index),
        _ => None,
    };
    packets.iter().filter_map(|packet| index(&packet.body)).collect()
}

fn ack(host: &mut SrptHost, key: u64, index: u32, now: u64) {
    let mut packet = host.packet(0, 0, 0, SrptBody::Ack { key, index });
    packet.from = 1;
    host.handle_packet(at(now), packet);
}

#[test]
fn poll_transmit__fewest_bytes_left_first_and_no_more_than_a_window() {
    let mut host = host();
    host.send(at(0), 1, 50_000);
    host.send(at(0), 2, 3_000);
    let packets = sent(&mut host, 0);
    let ranks: Vec<u64> = packets.iter().map(|packet| packet.rank).collect();
    assert_eq!(ranks[..4], [3_000, 3_000, 3_000, 50_000]);
    assert_eq!(packets.len(), 3 + 8);
    assert_eq!(packets[2].payload_bytes, 80);
    ack(&mut host, 0, 0, 10);
    let more = sent(&mut host, 10);
    assert_eq!((more[0].rank, indices(&more)), (50_000 - 1_460, vec![8]));
}

#[test]
fn handle_timeout__only_what_was_not_acknowledged_is_sent_again() {
    let mut host = host();
    host.send(at(0), 1, 4_000);
    assert_eq!(indices(&sent(&mut host, 0)), [0, 1, 2]);
    ack(&mut host, 0, 1, 10);
    assert_eq!(host.poll_timeout(), Some(at(RTO)));
    host.handle_timeout(at(RTO));
    assert_eq!(indices(&sent(&mut host, RTO)), [0, 2]);
    ack(&mut host, 0, 0, RTO + 1);
    ack(&mut host, 0, 2, RTO + 1);
    assert_eq!(host.poll_timeout(), None);
    assert!(host.outgoing.is_empty() && host.queue.is_empty() && host.open.is_empty());
}

#[test]
fn handle_timeout__after_rounds_of_losses_only_probes_until_one_is_answered() {
    let mut host = host();
    host.send(at(0), 1, 50_000);
    for round in 0..5 {
        assert_eq!(sent(&mut host, round * RTO).len(), 8, "round {round}");
        host.handle_timeout(at((round + 1) * RTO));
    }
    for round in 5..9 {
        let packets = sent(&mut host, round * RTO);
        assert!(matches!(packets[..], [Packet { body: SrptBody::Probe { key: 0 }, .. }]));
        host.handle_timeout(at((round + 1) * RTO));
    }
    let mut answer = host.packet(0, 0, 0, SrptBody::ProbeAck { key: 0 });
    answer.from = 1;
    host.handle_packet(at(9 * RTO), answer);
    assert_eq!(sent(&mut host, 9 * RTO).len(), 8);
}

#[test]
fn handle_packet__a_message_is_delivered_once_and_forgotten_when_its_sender_knows() {
    let mut host = host();
    let data = |key, index, oldest| {
        let body = SrptBody::Data { key, index, size: 2_000, oldest };
        Packet { from: 1, ..SrptHost::new(1, Settings::default()).packet(0, 1_460, 2_000, body) }
    };
    for (index, delivered) in [(1, false), (1, false), (0, true), (1, false), (0, false)] {
        host.handle_packet(at(0), data(7, index, 3));
        assert_eq!(host.poll_outcome().is_some(), delivered);
    }
    assert_eq!(sent(&mut host, 0).len(), 5, "each copy is acknowledged");
    host.handle_packet(at(0), data(8, 0, 8));
    assert_eq!(host.incoming.len(), 1);
    host.handle_packet(at(0), data(7, 0, 3));
    assert_eq!((host.incoming.len(), host.poll_outcome()), (1, None));
}

#[test]
fn send__refuses_beyond_the_limit() {
    let mut host = SrptHost::new(0, Settings { max_messages: 1, ..Settings::default() });
    assert_eq!(host.send(at(0), 1, 1), Some(0));
    assert_eq!(host.send(at(0), 1, 1), None);
}

#[test]
fn problem__names_what_cannot_work() {
    assert_eq!(Settings::default().problem(), None);
    for (settings, word) in [
        (Settings { window_packets: 0, ..Settings::default() }, "window"),
        (Settings { rto_ns: 0, ..Settings::default() }, "time"),
        (Settings { probe_after: 0, ..Settings::default() }, "probes"),
    ] {
        assert!(settings.problem().is_some_and(|problem| problem.contains(word)), "{settings:?}");
    }
}
