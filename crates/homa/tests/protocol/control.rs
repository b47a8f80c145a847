//! GRANT, BUSY, CUTOFFS as they come in. RESEND is in `resends.rs`, NEED_ACK and
//! ACK are in `acks.rs`.

use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn grant_lets_scheduled_data_go_at_its_priority() {
    let mut lab = Lab::new();
    let (rpc, sent) = lab.request(pattern(100_000));
    assert_eq!(ranges(&sent).last(), Some(&(39_872, 40_000)));
    let sent = lab.feed(&lab.server_of(rpc).grant(42_848, 2));
    assert_eq!(ranges(&sent), [(40_000, 41_424), (41_424, 42_848)]);
    assert!(sent.iter().all(|s| s.priority == 2));
    assert!(sent.iter().all(|s| s.data().incoming == 40_000), "grants do not raise it");
}

#[test]
fn grant_never_lowers_what_was_granted() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    lab.feed(&from.grant(60_000, 2));
    assert!(lab.feed(&from.grant(50_000, 2)).is_empty());
    let sent = lab.feed(&from.grant(62_000, 2));
    assert_eq!(ranges(&sent), [(61_360, 62_784)]);
}

#[test]
fn grant_is_clamped_to_the_message() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(41_000));
    let sent = lab.feed(&lab.server_of(rpc).grant(u32::MAX, 1));
    assert_eq!(ranges(&sent), [(40_000, 41_000)]);
}

#[test]
fn segment_goes_whole_if_its_first_byte_is_granted() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let sent = lab.feed(&lab.server_of(rpc).grant(40_001, 1));
    assert_eq!(ranges(&sent), [(40_000, 41_424)]);
}

#[test]
fn grant_without_progress_sets_the_priority() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    lab.feed(&from.grant(40_001, 1));
    assert!(lab.feed(&from.grant(40_001, 3)).is_empty());
    // The grant for the rest was lost; RESEND reveals it.
    let sent = lab.feed(&from.resend(41_424, 1424, 7));
    assert_eq!(only(&sent, PacketType::Data)[0].priority, 3);
}

#[test]
fn late_grant_does_not_set_the_priority() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    let late = from.grant(41_000, 5);
    let sent = lab.feed_batch([&from.grant(50_000, 1)[..], &late[..]]);
    assert!(sent.iter().all(|s| s.priority == 1), "{sent:?}");
}

#[test]
fn grant_priority_is_clamped() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let sent = lab.feed(&lab.server_of(rpc).grant(41_000, 255));
    assert_eq!(sent[0].priority, 7);
}

#[test]
fn grant_in_other_states_is_ignored() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    lab.feed(&from.segment(&pattern(3000), 3000, 0, 1424));
    assert!(lab.feed(&from.grant(50_000, 1)).is_empty(), "client, incoming");
    let rpc = lab.in_service(ID, b"work");
    assert!(lab.feed(&Lab::from_client(ID).grant(50_000, 1)).is_empty(), "server, in service");
    assert!(lab.endpoint.is_waiting(rpc));
}

#[test]
fn grant_resets_the_silence() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(100_000));
    let from = lab.server_of(rpc);
    for i in 0..50 {
        assert!(resends(&lab.pass(ms(4))).is_empty(), "round {i}");
        lab.feed(&from.grant(40_100 + 100 * i, 1));
    }
    assert!(lab.events.is_empty());
}

#[test]
fn busy_resets_the_silence_and_nothing_else() {
    let mut lab = Lab::with(peyk_homa::Config { busy_backoff: false, ..Default::default() }, 64);
    let (rpc, _) = lab.request(pattern(10));
    let busy = lab.server_of(rpc).busy();
    for _ in 0..100 {
        let sent = lab.pass(ms(5));
        assert_eq!(resends(&sent), [(0, u32::MAX)]);
        assert!(lab.feed(&busy).is_empty());
    }
    assert!(lab.events.is_empty(), "500 ms without an answer, but not without a sign");
    lab.pass(ms(101));
    assert_eq!(lab.take_failure(), peyk_homa::RpcError::Timeout);
}

#[test]
fn data_resets_the_silence() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    let response = pattern(30_000);
    let from = lab.server_of(rpc);
    for i in 0..20 {
        lab.feed(&from.segment(&response, 30_000, i * 1424, 1424));
        assert!(lab.pass(ms(4)).is_empty());
    }
}

#[test]
fn resend_need_ack_unknown_and_cutoffs_do_not_reset_the_silence() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    let from = lab.server_of(rpc);
    let mut time = 0;
    while lab.events.is_empty() {
        lab.pass(ms(1));
        time += 1;
        lab.feed(&from.resend(0, 10, 7));
        lab.feed(&from.need_ack());
        lab.feed(&from.rpc_unknown());
        lab.feed(&from.cutoffs([0; 8], 1));
        assert!(time <= 102);
    }
    assert_eq!(lab.take_failure(), peyk_homa::RpcError::Timeout);
}

#[test]
fn cutoffs_are_kept_for_the_host_and_echoed() {
    let mut lab = Lab::new();
    let (rpc, sent) = lab.request(pattern(100));
    assert_eq!((sent[0].priority, sent[0].data().cutoff_version), (6, 0));
    lab.feed(&lab.server_of(rpc).cutoffs([0, 0, 0, 0, 1_000_000, 15_000, 2_800, 200], 7));
    let (_, sent) = lab.request(pattern(100));
    assert_eq!((sent[0].priority, sent[0].data().cutoff_version), (7, 7));
    let (_, sent) = lab.request(pattern(3000));
    assert_eq!(sent[0].priority, 5);
}

#[test]
fn cutoffs_work_without_an_rpc_but_make_no_peer() {
    let mut lab = Lab::new();
    let from = From { sport: PORT, dport: lab.client_port(), id: ID | 1 };
    lab.feed_from(5, &from.cutoffs([0; 8], 9));
    assert_eq!(lab.endpoint.peer_count(), 0);
    lab.request(pattern(10));
    lab.feed(&from.cutoffs([0, 1_000_000, 0, 0, 0, 0, 0, 0], 9));
    let (_, sent) = lab.request(pattern(100));
    assert_eq!((sent[0].priority, sent[0].data().cutoff_version), (1, 9));
}

#[test]
fn cutoffs_first_entry_is_ignored() {
    for first in [0, 5, u32::MAX] {
        let mut lab = Lab::new();
        let (rpc, _) = lab.request(pattern(10));
        lab.feed(&lab.server_of(rpc).cutoffs([first, 0, 0, 0, 0, 0, 0, 50], 1));
        let (_, sent) = lab.request(pattern(100));
        assert_eq!(sent[0].priority, 0);
    }
}
