//! DATA: what becomes of each packet, by where it lies in its message.

use peyk_homa::{Config, Share};
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

/// A request of 10,000 bytes; the packets `[start, end)` in this order deliver it.
fn deliver(packets: &[(usize, usize)]) -> Lab {
    let message = pattern(10_000);
    let mut lab = Lab::new();
    for &(start, end) in packets {
        assert!(lab.events.is_empty(), "complete before {start}..{end}");
        lab.feed(&Lab::from_client(ID).segment(&message, 10_000, start, end - start));
    }
    assert_eq!(lab.take_request().1, message);
    lab
}

#[test]
fn append_in_order() {
    deliver(&[(0, 5000), (5000, 10_000)]);
}

#[test]
fn beyond_the_end_makes_a_gap() {
    deliver(&[(0, 1000), (2000, 10_000), (1000, 2000)]);
}

#[test]
fn backwards() {
    deliver(&[(9000, 10_000), (6000, 9000), (1000, 6000), (0, 1000)]);
}

#[test]
fn head_of_a_gap() {
    deliver(&[(9000, 10_000), (0, 1000), (1000, 9000)]);
}

#[test]
fn tail_of_a_gap() {
    deliver(&[(9000, 10_000), (8000, 9000), (0, 8000)]);
}

#[test]
fn middle_of_a_gap_splits_it() {
    deliver(&[(9000, 10_000), (4000, 5000), (0, 4000), (5000, 9000)]);
}

#[test]
fn crossing_an_edge_is_trimmed() {
    let lab = deliver(&[(0, 1424), (2848, 10_000), (1000, 2848)]);
    assert_eq!(lab.endpoint.stats().data_trimmed, 1);
    let lab = deliver(&[(0, 6000), (5000, 10_000)]);
    assert_eq!(lab.endpoint.stats().data_trimmed, 1);
}

#[test]
fn one_packet_may_fill_several_gaps() {
    deliver(&[(1000, 2000), (3000, 4000), (5000, 6000), (9000, 10_000), (0, 9500)]);
}

#[test]
fn bytes_that_are_here_are_not_overwritten() {
    let message = pattern(3000);
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.segment(&message, 3000, 0, 2000));
    lab.feed(&from.data(3000, 3000, 1000, &[0xee; 1500]));
    lab.feed(&from.segment(&message, 3000, 2500, 500));
    let mut expected = message.clone();
    expected[2000..2500].fill(0xee);
    assert_eq!(lab.take_request().1, expected);
}

#[test]
fn duplicates_are_dropped_in_any_state() {
    let message = pattern(3000);
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    let first = from.segment(&message, 3000, 0, 1424);
    lab.feed(&first);
    assert!(lab.feed(&first).iter().all(|s| s.kind() == PacketType::Cutoffs));
    assert_eq!(lab.endpoint.stats().drop_duplicate, 1, "incoming");
    lab.feed(&from.segment(&message, 3000, 1424, 1576));
    let (rpc, _) = lab.take_request();
    lab.feed(&first);
    assert_eq!(lab.endpoint.stats().drop_duplicate, 2, "in service");
    lab.reply(rpc, &b"done"[..]);
    lab.feed(&first);
    assert_eq!(lab.endpoint.stats().drop_duplicate, 3, "outgoing");
    assert!(lab.events.is_empty());
}

#[test]
fn outside_of_the_message_is_dropped() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    for (length, offset, len) in [(100, 100, 1), (100, 90, 11), (100, u32::MAX - 1, 5), (100, 0, 101)] {
        lab.feed(&from.data(length, length, offset, &vec![0; len]));
    }
    assert_eq!(lab.endpoint.stats().drop_out_of_range, 4);
    assert_eq!(lab.endpoint.rpc_count(), 0);
}

#[test]
fn lengths_of_zero_and_above_the_maximum_are_refused() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.data(0, 0, 0, &[]));
    lab.feed(&from.data(1_000_001, 40_000, 0, &[1; 100]));
    lab.feed(&from.data(u32::MAX, 40_000, 0, &[1; 100]));
    assert_eq!(lab.endpoint.rpc_count(), 0);
    assert_eq!(lab.endpoint.stats().drop_bad_length, 3);
}

#[test]
fn client_whose_response_changed_its_length_asks_for_it_again() {
    let mut lab = Lab::with(Config { shards: 2, ..Config::default() }, 64);
    // No grants: then nothing is owed when all that was announced is here, and no timer runs.
    lab.endpoint.set_share(Share { max_incoming: 0, senders: 1 });
    let (rpc, _) = lab.request(&b"what?"[..]);
    let server = lab.server_of(rpc);
    lab.feed(&server.data(100_000, 1424, 0, &[1; 1424]));
    for _ in 0..16 {
        lab.feed(&server.data(99_999, 1424, 0, &[2; 1424]));
    }
    assert!(!only(&lab.pass(ms(20)), PacketType::Resend).is_empty());
    lab.feed(&server.whole(b"this"));
    assert_eq!(lab.take_response(), b"this");
}

#[test]
fn another_message_length_is_dropped() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    let message = pattern(3000);
    lab.feed(&from.segment(&message, 3000, 0, 1424));
    lab.feed(&from.data(5000, 5000, 1424, &[0; 1424]));
    assert_eq!(lab.endpoint.stats().drop_length_changed, 1);
    lab.feed(&from.segment(&message, 3000, 1424, 1576));
    assert_eq!(lab.take_request().1, message);
}

#[test]
fn zero_byte_data_announces_a_message() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.data(3000, 3000, 0, &[]));
    assert_eq!(lab.endpoint.rpc_count(), 1);
    let message = pattern(3000);
    lab.feed(&from.segment(&message, 3000, 0, 3000));
    assert_eq!(lab.take_request().1, message);
}

#[test]
fn data_beyond_what_was_granted_is_taken() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    let message = pattern(500_000);
    for offset in (0..500_000).step_by(8000) {
        lab.feed(&from.segment(&message, 40_000, offset, 8000));
    }
    assert_eq!(lab.take_request().1, message);
    assert_eq!(lab.endpoint.total_incoming(), 0);
}

#[test]
fn incoming_zero_means_all_unscheduled() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    let message = pattern(100_000);
    let sent = lab.feed(&from.segment(&message, 0, 0, 1424));
    assert!(only(&sent, PacketType::Grant).is_empty());
    assert!(only(&sent, PacketType::Cutoffs).is_empty(), "that variant has no CUTOFFS");
    // Everything is owed: what is missing is asked for up to the end.
    assert_eq!(resends(&lab.pass(ms(5))), [(1424, 98_576)]);
}

#[test]
fn incoming_above_the_length_is_clamped() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.data(3000, u32::MAX, 0, &pattern(1424)));
    assert_eq!(resends(&lab.pass(ms(5))), [(1424, 1576)]);
}

#[test]
fn stale_cutoff_version_draws_cutoffs_once_per_tick() {
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    let message = pattern(10_000);
    let sent = lab.feed(&from.segment(&message, 10_000, 0, 1000));
    assert_eq!(kinds(&sent), [PacketType::Cutoffs]);
    assert_eq!(sent[0].priority, 7);
    assert!(lab.feed(&from.segment(&message, 10_000, 1000, 1000)).is_empty());
    lab.pass(ms(1));
    let sent = lab.feed(&from.segment(&message, 10_000, 2000, 1000));
    assert_eq!(kinds(&sent), [PacketType::Cutoffs]);
    let version = sent[0].cutoffs().cutoff_version;
    lab.pass(ms(1));
    let packet = from.data_with(10_000, 10_000, 3000, &message[3000..4000], |d| {
        d.cutoff_version = version;
    });
    assert!(lab.feed(&packet).is_empty(), "the sender knows them");
}

#[test]
fn ack_on_a_dropped_duplicate_is_processed() {
    let mut lab = Lab::new();
    let rpc = lab.in_service(ID, b"one");
    lab.reply(rpc, &b"done"[..]);
    lab.in_service(ID + 2, b"two");
    let duplicate = Lab::from_client(ID + 2).data_with(3, 3, 0, b"two", |d| d.ack = acked(ID, PORT));
    lab.feed(&duplicate);
    assert_eq!(lab.endpoint.rpc_count(), 1);
}

#[test]
fn number_of_gaps_is_bounded() {
    let config = Config { max_gaps: 10, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    let from = Lab::from_client(ID);
    let message = pattern(10_000);
    for offset in (100..10_000).step_by(200) {
        lab.feed(&from.segment(&message, 10_000, offset, 100));
    }
    assert_eq!(lab.endpoint.stats().drop_gaps, 40);
    lab.feed(&from.segment(&message, 10_000, 0, 10_000));
    assert_eq!(lab.take_request().1, message);
}

#[test]
fn response_longer_than_acceptable_fails_the_rpc() {
    let config = Config { max_message: 5000, ..Config::default() };
    let mut lab = Lab::with(config, 16);
    let (rpc, _) = lab.request(pattern(10));
    lab.feed(&lab.server_of(rpc).data(6000, 6000, 0, &pattern(1424)));
    assert_eq!(lab.take_failure(), peyk_homa::RpcError::TooLarge);
}

#[test]
fn any_segmentation_and_order_gives_the_same_message() {
    let mut random = peyk_sansio::Prng::new(3);
    let message = pattern(20_000);
    for round in 0..200u64 {
        let mut lab = Lab::new();
        let mut packets = Vec::new();
        for _ in 0..3 {
            let mut at = 0;
            while at < message.len() {
                let len = 1 + random.below(3000) as usize;
                packets.push((at, len));
                at += len;
            }
        }
        random.shuffle(&mut packets);
        for (at, len) in packets {
            lab.feed(&Lab::from_client(ID + 2 * round).segment(&message, 20_000, at, len));
        }
        assert_eq!(lab.take_request().1, message);
    }
}

#[test]
fn wrong_length_does_not_keep_a_mistaken_rpc_alive() {
    // A garbled first packet made up a message of 200,000 bytes. What the client
    // really sends must not count as progress of that, or both would wait for ever.
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.data(200_000, 200_000, 1000, &[0; 24]));
    for _ in 0..21 {
        lab.pass(ms(5));
        lab.feed(&from.whole(b"what the client really sent"));
    }
    assert_eq!(lab.take_request().1, b"what the client really sent");
}

#[test]
fn message_of_a_garbled_length_starts_anew() {
    // The same while the sender has not sent all of its message, so that its BUSY
    // would keep the mistaken one alive without end.
    let message = pattern(30_000);
    let mut lab = Lab::new();
    let from = Lab::from_client(ID);
    lab.feed(&from.data(200_000, 200_000, 1000, &[0; 24]));
    for _ in 0..2 {
        for offset in (0..30_000).step_by(1424) {
            lab.feed(&from.segment(&message, 30_000, offset, 1424));
            lab.feed(&from.busy());
        }
    }
    assert_eq!(lab.take_request().1, message);
    let (rpc, _) = lab.request(pattern(10));
    let from = lab.server_of(rpc);
    lab.feed(&from.data(200_000, 200_000, 1000, &[0; 24]));
    for _ in 0..2 {
        for offset in (0..30_000).step_by(1424) {
            lab.feed(&from.segment(&message, 30_000, offset, 1424));
        }
    }
    assert_eq!(lab.take_response(), message);
    let pool = lab.endpoint.pool();
    assert!(pool.free_pages() + 1 >= pool.total_pages());
}
