//! Scenarios of the pacer on virtual time.

use core::time::Duration;

use peyk_sansio::Instant;
use proptest::prelude::*;

use super::{Pacer, PacerConfig, PacerMode, Pick};

fn us(n: u64) -> Instant {
    Instant::from_nanos(n * 1000)
}

fn pacer(mbps: u32, backlog_us: u64) -> Pacer {
    let mode = PacerMode::Backlog { max_backlog: Duration::from_micros(backlog_us) };
    Pacer::new(PacerConfig { mode, link_mbps: mbps, max_link_usage: 100, ..PacerConfig::default() })
}

#[test]
fn backlog_waits_above_the_limit_until_it_has_drained() {
    // 1000 Mbit/s: 8 ns a byte; 1226 + 24 bytes take 10 us.
    let mut p = pacer(1000, 5);
    assert!(p.may_send(us(0)));
    p.charge(us(0), 1226);
    assert_eq!(p.backlog(us(0)), Duration::from_micros(10));
    assert!(!p.may_send(us(0)));
    assert_eq!(p.next_time(us(0)), Some(us(5)));
    assert!(!p.may_send(us(4)));
    assert!(p.may_send(us(5)), "a backlog equal to the limit is allowed");
    assert_eq!(p.next_time(us(5)), None);
}

#[test]
fn backlog_idle_link_saves_up_nothing() {
    let mut p = pacer(1000, 5);
    p.charge(us(0), 1226);
    p.charge(us(1000), 1226);
    assert_eq!(p.backlog(us(1000)), Duration::from_micros(10));
}

#[test]
fn backlog_usage_stretches_the_cost() {
    let mode = PacerMode::Backlog { max_backlog: Duration::ZERO };
    let config = PacerConfig { mode, link_mbps: 1000, max_link_usage: 50, ..PacerConfig::default() };
    let mut p = Pacer::new(config);
    p.charge(us(0), 1226);
    assert_eq!(p.backlog(us(0)), Duration::from_micros(20));
}

#[test]
fn backlog_fractions_of_a_nanosecond_are_not_lost() {
    // 100 Gbit/s at 99 %: 0.0808 ns a byte.
    let config = PacerConfig { link_mbps: 100_000, ..PacerConfig::default() };
    let mut p = Pacer::new(config);
    for _ in 0..1_000_000 {
        p.charge(us(0), 1476);
    }
    let seconds = p.backlog(us(0)).as_secs_f64();
    let exact = 1500.0 * 8.0 * 1e6 / 99e9;
    assert!((seconds / exact - 1.0).abs() < 1e-3, "{seconds} instead of {exact}");
}

#[test]
fn exempt_by_message_length_not_packet_length() {
    let p = pacer(1000, 5);
    assert!(p.is_exempt(999));
    assert!(!p.is_exempt(1000));
    let off = Pacer::new(PacerConfig { mode: PacerMode::Off, ..PacerConfig::default() });
    assert!(off.is_exempt(1_000_000));
}

#[test]
fn exempt_is_charged_though_not_delayed() {
    let mut p = pacer(1000, 5);
    for _ in 0..10 {
        p.charge(us(0), 101);
    }
    assert_eq!(p.backlog(us(0)), Duration::from_micros(10));
    assert!(!p.may_send(us(0)), "paced data waits for what short messages took");
}

#[test]
fn off_never_delays() {
    let mut p = Pacer::new(PacerConfig { mode: PacerMode::Off, ..PacerConfig::default() });
    for _ in 0..1000 {
        p.charge(us(0), 65_535);
    }
    assert!(p.may_send(us(0)));
    assert_eq!(p.next_time(us(0)), None);
}

#[test]
fn bucket_allows_the_burst_then_the_rate() {
    let mode = PacerMode::TokenBucket { bytes_per_sec: 1_000_000, burst_bytes: 10_000 };
    let mut p = Pacer::new(PacerConfig { mode, ..PacerConfig::default() });
    let mut sent = 0;
    while p.may_send(us(0)) {
        p.charge(us(0), 976);
        sent += 1000;
    }
    assert!((10_000..=11_000).contains(&sent), "burst of {sent}");
    let mut now = us(0);
    while sent < 1_011_000 {
        now = p.next_time(now).unwrap_or(now);
        p.charge(now, 976);
        sent += 1000;
    }
    let seconds = now.as_nanos() as f64 / 1e9;
    assert!((0.99..1.01).contains(&seconds), "1 MB took {seconds} s");
}

#[test]
fn fifo_share_of_the_oldest() {
    let mut p = pacer(1000, 5);
    let (mut srpt, mut oldest) = (0u64, 0u64);
    for _ in 0..100_000 {
        let pick = p.pick();
        p.on_sent(pick, 1500);
        match pick {
            Pick::Srpt => srpt += 1500,
            Pick::Oldest => oldest += 1500,
        }
    }
    let share = oldest as f64 / (srpt + oldest) as f64;
    assert!((0.049..0.051).contains(&share), "share {share}");
}

#[test]
fn fifo_off_is_always_srpt() {
    let mut p = Pacer::new(PacerConfig { fifo_fraction: 0, ..PacerConfig::default() });
    for _ in 0..100 {
        assert_eq!(p.pick(), Pick::Srpt);
        p.on_sent(Pick::Srpt, 1500);
    }
}

proptest! {
    /// Whatever is charged when, waiting until `next_time` always suffices and
    /// the average rate never exceeds the link's.
    #[test]
    fn next_time_is_exact(steps in prop::collection::vec((0..9000u32, 0..50u64), 1..200)) {
        let mut p = pacer(1000, 5);
        let mut now = us(0);
        let mut bytes = 0u64;
        for (size, pause) in steps {
            now = us(now.as_nanos() / 1000 + pause);
            if let Some(at) = p.next_time(now) {
                prop_assert!(at > now);
                let just_before = Instant::from_nanos(at.as_nanos() - 1);
                prop_assert!(!p.may_send(just_before));
                now = at;
            }
            prop_assert!(p.may_send(now));
            prop_assert!(p.backlog(now) <= Duration::from_micros(5));
            p.charge(now, size);
            bytes += u64::from(size) + 24;
            prop_assert!(now.as_nanos() + p.backlog(now).as_nanos() as u64 >= bytes * 8);
        }
    }
}
