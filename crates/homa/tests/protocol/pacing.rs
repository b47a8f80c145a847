//! The pacer as seen from outside an endpoint.

use core::time::Duration;

use peyk_homa::{Config, Pacing};
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

fn slow() -> Config {
    Config {
        pacing: Pacing::NicEstimate,
        link_mbps: 1000,
        max_link_usage: 100,
        max_nic_est_backlog: Duration::from_micros(5),
        pacer_fifo_fraction: 0,
        ..Config::default()
    }
}

#[test]
fn long_message_is_spread_over_time() {
    let mut lab = Lab::with(slow(), 16);
    let (_, first) = lab.request(pattern(40_000));
    assert_eq!(first.len(), 1, "one packet fills the estimate");
    let rest = lab.pass_timed(ms(2));
    let data: Vec<_> = rest.iter().filter(|(_, s)| s.kind() == PacketType::Data).collect();
    assert_eq!(data.len(), 28);
    // About 12 us for each packet of 1500 bytes at 1 Gbit/s.
    let last = data.last().unwrap().0;
    assert!((us(300)..us(370)).contains(&last), "{last:?}");
}

#[test]
fn short_messages_and_control_are_not_delayed() {
    let mut lab = Lab::with(slow(), 16);
    lab.request(pattern(40_000));
    let (_, sent) = lab.request(pattern(999));
    assert_eq!(ranges(&sent), [(0, 999)]);
    let sent = lab.feed(&Lab::from_client(ID).resend_all());
    assert_eq!(kinds(&sent), [PacketType::RpcUnknown]);
}

#[test]
fn short_message_passes_a_deferred_single_packet() {
    let mut lab = Lab::with(slow(), 16);
    lab.request(pattern(40_000));
    let (_, sent) = lab.request(pattern(1300));
    assert!(sent.is_empty(), "1300 bytes are paced");
    let (_, sent) = lab.request(pattern(100));
    assert_eq!(ranges(&sent), [(0, 100)], "100 bytes are not");
}

#[test]
fn tail_of_a_long_message_is_paced_too() {
    let mut lab = Lab::with(slow(), 16);
    let (_, sent) = lab.request(pattern(1424 + 100));
    assert_eq!(ranges(&sent), [(0, 1424)]);
    assert_eq!(ranges(&lab.pass(ms(1))), [(1424, 1524)]);
}

#[test]
fn shorter_message_overtakes_the_deferred_one() {
    let mut lab = Lab::with(slow(), 16);
    let (long, _) = lab.request(pattern(40_000));
    let (short, _) = lab.request(pattern(5_000));
    let order: Vec<_> = lab.pass(ms(1)).iter().map(|s| s.header().sender_id).collect();
    assert_eq!(order[..4], [short.0; 4]);
    assert!(order[4..].iter().all(|&id| id == long.0));
}

#[test]
fn oldest_message_gets_its_share() {
    let config = Config { pacer_fifo_fraction: 200, unsched_bytes: 1_000_000, ..slow() };
    let mut lab = Lab::with(config, 16);
    let (old, _) = lab.request(pattern(900_000));
    for _ in 0..100 {
        lab.request(pattern(100_000));
        lab.now += us(1);
    }
    let sent = lab.pass(ms(20));
    let of_old = sent.iter().filter(|s| s.header().sender_id == old.0).count();
    let share = of_old as f64 / sent.len() as f64;
    assert!((0.15..0.25).contains(&share), "share {share}");
}

#[test]
fn resend_for_deferred_bytes_is_answered_busy() {
    let mut lab = Lab::with(slow(), 16);
    let (rpc, _) = lab.request(pattern(40_000));
    let sent = lab.feed(&lab.server_of(rpc).resend(20_000, 5_000, 7));
    assert_eq!(kinds(&sent), [PacketType::Busy]);
}

#[test]
fn retransmissions_are_charged_not_delayed() {
    let mut lab = Lab::with(slow(), 16);
    let (rpc, _) = lab.request(pattern(40_000));
    lab.pass(ms(2));
    let sent = lab.feed(&lab.server_of(rpc).resend(0, 14_240, 7));
    assert_eq!(sent.len(), 10);
    let (_, sent) = lab.request(pattern(5_000));
    assert!(sent.is_empty(), "what was retransmitted is still in the link");
}

#[test]
fn client_whose_request_is_deferred_does_not_time_out() {
    let config = Config { link_mbps: 1, unsched_bytes: 1_000_000, ..slow() };
    let mut lab = Lab::with(config, 16);
    // 100,000 bytes take 0.8 s at 1 Mbit/s.
    lab.request(pattern(100_000));
    let sent = lab.pass(ms(700));
    assert!(resends(&sent).is_empty());
    assert!(lab.events.is_empty());
}

#[test]
fn token_bucket_allows_a_burst() {
    let pacing = Pacing::TokenBucket { bytes_per_sec: 10_000_000, burst_bytes: 15_000 };
    let mut lab = Lab::with(Config { pacing, ..Config::default() }, 16);
    let (_, sent) = lab.request(pattern(40_000));
    assert!((10..=12).contains(&sent.len()), "{} packets at once", sent.len());
    let rest = lab.pass_timed(ms(10));
    let data: Vec<_> = rest.iter().filter(|(_, s)| s.kind() == PacketType::Data).collect();
    assert_eq!(sent.len() + data.len(), 29);
    let last = data.last().unwrap().0;
    assert!((us(2400)..us(3200)).contains(&last), "{last:?}");
}

#[test]
fn paced_exchange_completes() {
    let mut world = World::with(slow(), slow());
    let rpcs: Vec<_> = (0..20).map(|i| (world.request(pattern(1 + i * 20_000)), 1 + i * 20_000)).collect();
    world.run(Duration::from_secs(3));
    let mut done = 0;
    while let Some(event) = world.hosts[CLIENT].events.pop_front() {
        let peyk_homa::Event::Response { rpc, message, .. } = event else { panic!("{event:?}") };
        let len = rpcs.iter().find(|r| r.0 == rpc).unwrap().1;
        assert_eq!(message.to_vec(), pattern(len));
        done += 1;
    }
    assert_eq!(done, 20);
    world.assert_clean();
}
