//! One connection's sending end against a script of acknowledgements.

use super::*;

const MSS: u64 = 1_000;
const RTO: u64 = 1_000_000;

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn sender(bytes: u32) -> Sender {
    let settings = Settings { mss: MSS as u32, min_rto_ns: RTO, ..Settings::default() };
    let mut sender = Sender::new(1, settings, at(0));
    assert!(sender.write(bytes, 0));
    sender
}

/// The segments it sends, as numbers of their first bytes in segments.
fn sent(sender: &mut Sender, now: u64) -> Vec<u64> {
    core::iter::from_fn(|| sender.next_segment(at(now)).map(|segment| segment.seq / MSS)).collect()
}

fn ack(sender: &mut Sender, now: u64, segments: u64) {
    sender.handle_ack(at(now), &Ack { upto: segments * MSS, is_marked: false, sent_at: at(now - 10_000) });
}

#[test]
fn next_segment__ten_at_first_then_two_for_each_acknowledged() {
    let mut tcp = sender(100_000);
    assert_eq!(sent(&mut tcp, 0), (0..10).collect::<Vec<_>>());
    ack(&mut tcp, 10_000, 1);
    assert_eq!(sent(&mut tcp, 10_000), [10, 11]);
    ack(&mut tcp, 10_000, 3);
    assert_eq!(sent(&mut tcp, 10_000), [12, 13, 14], "growth is one segment for an acknowledgement");
}

#[test]
fn handle_ack__one_loss_is_sent_again_after_three_duplicates_and_half_the_window_stays() {
    let mut tcp = sender(100_000);
    sent(&mut tcp, 0);
    // Segment 0 is lost, 1 to 9 arrive.
    ack(&mut tcp, 10_000, 0);
    assert_eq!(sent(&mut tcp, 10_000), [10], "limited transmit");
    ack(&mut tcp, 10_000, 0);
    assert_eq!(sent(&mut tcp, 10_000), [11]);
    ack(&mut tcp, 10_000, 0);
    assert_eq!(sent(&mut tcp, 10_000), [0]);
    assert_eq!(tcp.congestion().threshold, 6 * MSS, "half of twelve");
    (0..6).for_each(|_| ack(&mut tcp, 10_000, 0));
    assert_eq!(sent(&mut tcp, 10_000), [12, 13, 14], "each duplicate inflates the window");
    ack(&mut tcp, 20_000, 12);
    // Three are under way: the window deflates to the threshold, but not by a burst.
    assert_eq!(tcp.congestion().window, 4 * MSS);
    assert_eq!(sent(&mut tcp, 20_000), [15]);
    assert_eq!(tcp.deadline(), Some(at(20_000 + RTO)));
}

#[test]
fn handle_ack__two_losses_of_one_window_take_two_round_trips() {
    let mut tcp = sender(10_000);
    sent(&mut tcp, 0);
    // Segments 0 and 5 are lost.
    (0..8).for_each(|_| ack(&mut tcp, 10_000, 0));
    assert_eq!(sent(&mut tcp, 10_000), [0]);
    ack(&mut tcp, 20_000, 5);
    assert_eq!(sent(&mut tcp, 20_000), [5], "a partial acknowledgement means the next loss");
    ack(&mut tcp, 30_000, 10);
    assert_eq!((tcp.in_flight(), tcp.deadline()), (0, None));
    assert!(tcp.ends.is_empty());
}

#[test]
fn handle_timeout__a_lost_window_is_sent_again_by_slow_start() {
    let mut tcp = sender(10_000);
    sent(&mut tcp, 0);
    assert_eq!(tcp.deadline(), Some(at(RTO)));
    tcp.handle_timeout(at(RTO));
    assert_eq!(sent(&mut tcp, RTO), [0]);
    assert_eq!(tcp.deadline(), Some(at(RTO + 2 * RTO)), "the next timeout is twice as long");
    tcp.handle_timeout(at(3 * RTO));
    assert_eq!(tcp.congestion().threshold, 5 * MSS, "halved once");
    assert_eq!(sent(&mut tcp, 3 * RTO), [0]);
    ack(&mut tcp, 4 * RTO, 1);
    assert_eq!(sent(&mut tcp, 4 * RTO), [1, 2]);
    ack(&mut tcp, 4 * RTO, 3);
    assert_eq!(sent(&mut tcp, 4 * RTO), [3, 4, 5]);
    // Duplicates of what was sent before the timeout mean nothing.
    (0..4).for_each(|_| ack(&mut tcp, 4 * RTO, 3));
    assert!(!tcp.is_recovering);
    ack(&mut tcp, 4 * RTO, 10);
    assert_eq!(tcp.deadline(), None);
}

#[test]
fn handle_ack__of_bytes_never_sent_or_long_acknowledged_is_ignored() {
    let mut tcp = sender(10_000);
    tcp.next_segment(at(0));
    ack(&mut tcp, 10_000, 2);
    assert_eq!(tcp.in_flight(), MSS);
    ack(&mut tcp, 10_000, 1);
    (0..5).for_each(|_| tcp.handle_ack(at(20_000), &Ack { upto: 500, is_marked: false, sent_at: at(0) }));
    assert_eq!((tcp.in_flight(), tcp.duplicates), (0, 0));
}

#[test]
fn next_segment__after_idling_the_window_is_the_initial_one() {
    let mut tcp = sender(100_000);
    let (mut now, mut acked) = (0, 0);
    while acked < 100 {
        acked += sent(&mut tcp, now).len() as u64;
        now += 10_000;
        ack(&mut tcp, now, acked);
    }
    assert!(tcp.congestion().window > 12 * MSS);
    assert!(tcp.write(100_000, 1));
    assert_eq!(sent(&mut tcp, now + 2 * RTO).len(), 10);
}

#[test]
fn next_segment__carries_the_ends_of_its_messages() {
    let mut tcp = sender(400);
    for (bytes, key) in [(300, 1), (500, 2)] {
        assert!(tcp.write(bytes, key));
    }
    let first = tcp.next_segment(at(0)).expect("data");
    assert_eq!(first.ends, [End { at: 400, key: 0 }, End { at: 700, key: 1 }]);
    let second = tcp.next_segment(at(0)).expect("data");
    assert_eq!((second.len, second.ends), (200, vec![End { at: 1_200, key: 2 }]));
}

#[test]
fn write__refuses_beyond_the_buffer() {
    let mut tcp = Sender::new(1, Settings { send_buffer: 1_000, ..Settings::default() }, at(0));
    assert!(tcp.write(900, 0));
    assert!(!tcp.write(101, 1));
    assert!(tcp.write(100, 2));
}

#[test]
fn timeout__follows_the_measured_round_trips() {
    let mut round_trip = RoundTrip { smooth: None, variation: 0, min_rto: 1_000, backoff: 3 };
    round_trip.sample(8_000);
    assert_eq!(round_trip.timeout(), 8_000 + 4 * 4_000);
    round_trip.sample(16_000);
    assert_eq!((round_trip.smooth, round_trip.variation), (Some(9_000), 5_000));
    let mut short = RoundTrip { smooth: None, variation: 0, min_rto: 1_000, backoff: 0 };
    short.sample(10);
    assert_eq!(short.timeout(), 1_000);
}
