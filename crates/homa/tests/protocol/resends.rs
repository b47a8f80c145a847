//! RESEND as it comes in: what is sent again, and when BUSY is the answer.

use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn whole_original_segments_that_intersect_are_sent_again() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10_000));
    let from = lab.server_of(rpc);
    lab.pass(ms(2));
    assert_eq!(ranges(&lab.feed(&from.resend(1500, 10, 7))), [(1424, 2848)]);
    lab.pass(ms(2));
    assert_eq!(ranges(&lab.feed(&from.resend(2847, 2, 7))), [(1424, 2848), (2848, 4272)]);
    lab.pass(ms(2));
    assert_eq!(ranges(&lab.feed(&from.resend(2848, 1424, 7))), [(2848, 4272)]);
}

#[test]
fn retransmissions_say_so_and_promise_the_range() {
    let mut lab = Lab::new();
    let message = pattern(10_000);
    let (rpc, _) = lab.request(message.clone());
    lab.pass(ms(2));
    let sent = lab.feed(&lab.server_of(rpc).resend(1424, 2848, 3));
    assert_eq!(sent.len(), 2);
    for packet in &sent {
        let data = packet.data();
        assert_eq!((data.retransmit, data.incoming), (1, 4272));
        assert_eq!(packet.priority, 3, "the RESEND's");
        assert_eq!((data.seg_offset, data.header.sequence), (data.offset(), data.offset()));
        let at = data.offset() as usize;
        assert_eq!(data.payload, &message[at..at + 1424]);
    }
}

#[test]
fn boundary_at_the_unscheduled_limit_is_kept() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    lab.feed(&from.grant(45_000, 0));
    lab.pass(ms(2));
    let sent = lab.feed(&from.resend(39_900, 1000, 7));
    assert_eq!(ranges(&sent), [(39_872, 40_000), (40_000, 41_424)]);
    let sent = lab.feed(&from.resend(43_000, 10, 7));
    assert_eq!(ranges(&sent), [(42_848, 44_272)], "counted from the limit, not from the start");
}

#[test]
fn all_means_everything_sent_so_far() {
    let mut lab = Lab::new();
    let (rpc, sent) = lab.request(pattern(100_000));
    lab.pass(ms(2));
    let again = lab.feed(&lab.server_of(rpc).resend_all());
    assert_eq!(ranges(&again), ranges(&sent));
    assert!(again.iter().all(|s| s.data().incoming == 40_000));
}

#[test]
fn beyond_what_was_granted_extends_the_grant() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let sent = lab.feed(&lab.server_of(rpc).resend(40_000, 3000, 7));
    let data = only(&sent, PacketType::Data);
    assert_eq!(ranges(&data), [(40_000, 41_424), (41_424, 42_848), (42_848, 44_272)]);
    assert!(data.iter().all(|s| !s.data().is_retransmission()));
    assert_eq!(only(&sent, PacketType::Busy).len(), 1, "nothing of the range had been sent");
}

#[test]
fn absurd_offset_and_length_do_no_harm() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(50_000));
    let from = lab.server_of(rpc);
    for (offset, length) in
        [(u32::MAX, 1), (u32::MAX, u32::MAX - 1), (0x8000_0000, 0x7fff_ffff), (0, 0), (49_999, 0)]
    {
        lab.feed(&from.resend(offset, length, 7));
    }
    lab.feed(&from.resend(10, u32::MAX - 1, 200));
    lab.feed(&from.whole(b"response"));
    assert_eq!(lab.take_response(), b"response");
}

#[test]
fn server_before_its_response_is_busy() {
    let mut lab = Lab::new();
    lab.in_service(ID, b"work");
    let from = Lab::from_client(ID);
    assert_eq!(kinds(&lab.feed(&from.resend_all())), [PacketType::Busy], "in service");
}

#[test]
fn server_with_an_incomplete_request_is_busy_and_names_the_gaps() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    let message = pattern(10_000);
    lab.feed(&from.segment(&message, 10_000, 1424, 1424));
    lab.feed(&from.segment(&message, 10_000, 4272, 1424));
    let sent = lab.feed(&from.resend_all());
    assert_eq!(kinds(&sent), [PacketType::Busy, PacketType::Resend, PacketType::Resend]);
    assert_eq!(resends(&sent), [(0, 1424), (2848, 1424)]);
}

#[test]
fn server_sends_its_response_again() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"work");
    lab.reply(rpc, pattern(2000));
    lab.pass(ms(2));
    let sent = lab.feed(&Lab::from_client(ID).resend_all());
    assert_eq!(ranges(&sent), [(0, 1424), (1424, 2000)]);
}

#[test]
fn unknown_rpc_is_answered_rpc_unknown() {
    let mut lab = Lab::new();
    let sent = lab.feed(&Lab::from_client(ID).resend_all());
    assert_eq!(kinds(&sent), [PacketType::RpcUnknown]);
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert_eq!(lab.endpoint.peer_count(), 0);
}

#[test]
fn repeated_resends_do_not_pile_up() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(40_000));
    let resend = lab.server_of(rpc).resend(0, 40_000, 7);
    lab.pass(ms(2));
    let burst: Vec<&[u8]> = (0..100).map(|_| &resend[..]).collect();
    let sent = lab.feed_batch(burst);
    assert_eq!(ranges(&sent).len(), 29, "one pass over the range");
}

#[test]
fn number_of_queued_ranges_is_bounded() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(40_000));
    let from = lab.server_of(rpc);
    lab.pass(ms(2));
    let mut random = peyk_sansio::Prng::new(9);
    let many: Vec<_> = (0..10_000)
        .map(|_| from.resend(random.below(40_000) as u32, random.below(40_000) as u32, 7))
        .collect();
    let sent = lab.feed_batch(many.iter().map(|p| &p[..]));
    assert!(ranges(&sent).len() <= 64 * 29, "{} packets", ranges(&sent).len());
}

#[test]
fn bytes_beyond_the_message_are_not_worth_waiting_for() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(24));
    let from = lab.server_of(rpc);
    assert!(lab.feed(&from.resend(24, 1000, 7)).is_empty());
    assert!(lab.feed(&from.resend(179_526, 20_000, 7)).is_empty());
}

#[test]
fn what_was_sent_a_moment_ago_is_not_sent_again() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10_000));
    let from = lab.server_of(rpc);
    lab.pass(us(1500));
    assert_eq!(kinds(&lab.feed(&from.resend(1424, 1424, 7))), [PacketType::Busy], "sent 1.5 ms ago");
    lab.pass(us(500));
    assert_eq!(ranges(&lab.feed(&from.resend(1424, 1424, 7))), [(1424, 2848)]);
    lab.pass(ms(1));
    assert_eq!(kinds(&lab.feed(&from.resend(0, 10_000, 7))), [PacketType::Busy], "sent again 1 ms ago");
    assert_eq!(ranges(&lab.feed(&from.resend(4272, 1, 7))), [(4272, 5696)], "that part was not");
    assert_eq!(lab.endpoint.stats().resends_premature, 2);
    lab.pass(ms(1));
    assert_eq!(lab.endpoint.stats().data_retransmitted, 2);
}

#[test]
fn what_was_sent_a_moment_ago_is_not_sent_again_at_any_priority() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10_000));
    let from = lab.server_of(rpc);
    lab.pass(us(1500));
    assert_eq!(kinds(&lab.feed(&from.resend(1424, 1424, 3))), [PacketType::Busy]);
    lab.pass(us(500));
    let again = lab.feed(&from.resend(1424, 1424, 3));
    assert_eq!(ranges(&again), [(1424, 2848)]);
    assert_eq!(again[0].priority, 3);
    assert_eq!(kinds(&lab.feed(&from.resend(1424, 1424, 3))), [PacketType::Busy]);
}

#[test]
fn every_gap_of_a_round_is_filled() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10_000));
    let from = lab.server_of(rpc);
    lab.pass(ms(5));
    let round = [from.resend(1424, 1424, 7), from.resend(4272, 1424, 7), from.resend(8544, 1456, 7)];
    let sent = lab.feed_batch(round.iter().map(|p| &p[..]));
    assert_eq!(ranges(&sent), [(1424, 2848), (4272, 5696), (8544, 9968), (9968, 10_000)]);
    assert!(lab.feed_batch(round.iter().map(|p| &p[..])).iter().all(|s| s.kind() == PacketType::Busy));
}

#[test]
fn receiver_that_had_no_memory_is_sent_everything_at_once() {
    let mut lab = Lab::new();
    let (rpc, sent) = lab.request(pattern(10_000));
    let again = lab.feed(&lab.server_of(rpc).resend(0, u32::MAX, 6));
    assert_eq!(ranges(&again), ranges(&sent));
}

#[test]
fn one_retransmission_answers_several_rpc_unknown() {
    let mut lab = Lab::new();
    let (rpc, sent) = lab.request(pattern(10_000));
    let from = lab.server_of(rpc);
    assert_eq!(ranges(&lab.feed(&from.rpc_unknown())), ranges(&sent));
    assert!(lab.feed(&from.rpc_unknown()).is_empty());
    lab.pass(ms(2));
    assert_eq!(ranges(&lab.feed(&from.rpc_unknown())), ranges(&sent));
}
