//! Segment boundaries, grants and retransmission of a message being sent.

use super::*;

fn message(length: usize) -> MessageOut {
    let mut m = MessageOut::default();
    m.start(Payload::from(vec![7; length]), 40_000, 1424, Instant::ZERO);
    m
}

fn send_permitted(m: &mut MessageOut) -> Vec<(u32, u32)> {
    let mut sent = Vec::new();
    while m.is_sendable() {
        let range = m.advance();
        sent.push((range.start, range.end));
    }
    sent
}

#[test]
fn unscheduled_part_ends_at_a_forced_boundary() {
    // HomaModule, MTU 1500, IPv4: originals at 0, 1424 ... 38448, then 39872..40000.
    let mut m = message(100_000);
    let sent = send_permitted(&mut m);
    assert_eq!(sent.len(), 29);
    assert_eq!(sent[27], (38_448, 39_872));
    assert_eq!(sent[28], (39_872, 40_000));
    assert!(m.grant(100_000, 3));
    assert_eq!(m.advance(), 40_000..41_424);
}

#[test]
fn a_packet_is_sent_whole_if_it_begins_below_the_grant() {
    let mut m = message(100_000);
    send_permitted(&mut m);
    assert!(m.grant(40_001, 2));
    assert_eq!(send_permitted(&mut m), [(40_000, 41_424)]);
    assert!(!m.is_sendable());
    assert!(m.grant(41_424, 2));
    assert!(!m.is_sendable());
}

#[test]
fn grants_do_not_fall_and_late_ones_leave_the_priority() {
    let mut m = message(100_000);
    assert!(m.grant(60_000, 3));
    assert!(!m.grant(50_000, 1));
    assert_eq!((m.granted, m.sched_prio), (60_000, 3));
    assert!(!m.grant(60_000, 2));
    assert_eq!(m.sched_prio, 2);
    assert!(m.grant(u32::MAX, 7));
    assert_eq!(m.granted, 100_000);
}

#[test]
fn retransmits_whole_original_segments() {
    let mut m = message(100_000);
    send_permitted(&mut m);
    m.grant(100_000, 0);
    m.advance();
    assert!(m.retransmit(1500..1501, 7, 4));
    assert!(m.retransmit(39_999..40_001, 7, 4));
    let segments: Vec<_> = core::iter::from_fn(|| m.next_retransmit()).map(|(s, _)| s).collect();
    assert_eq!(segments, [1424..2848, 39_872..40_000, 40_000..41_424]);
}

#[test]
fn only_what_was_sent_is_retransmitted_and_once() {
    let mut m = message(100_000);
    m.advance();
    assert!(m.retransmit(0..u32::MAX, 7, 4));
    assert!(m.retransmit(0..1424, 7, 4));
    assert!(m.retransmit(1424..9000, 7, 4));
    let (segment, range) = m.next_retransmit().unwrap();
    assert_eq!((segment, range.end), (0..1424, 1424));
    assert_eq!(m.next_retransmit(), None);
}

#[test]
fn the_number_of_ranges_is_limited() {
    let mut m = message(40_000);
    send_permitted(&mut m);
    assert!(m.retransmit(0..1, 7, 2));
    assert!(m.retransmit(3000..3001, 7, 2));
    assert!(!m.retransmit(9000..9001, 7, 2));
    assert!(m.retransmit(0..100, 7, 2));
}

#[test]
fn one_packet_messages_are_single() {
    assert!(message(1424).is_single());
    assert!(!message(1425).is_single());
    let mut m = message(100);
    assert_eq!(m.advance(), 0..100);
    assert!(m.is_sent());
    assert_eq!(m.message().len(), 100);
}
