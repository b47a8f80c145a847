//! The timers against HomaModule's documented behaviour.

use super::*;

fn timers() -> Timers {
    Timers::new(&Config::default())
}

#[test]
fn a_dead_server_draws_resends_at_5_to_95_and_timeout_at_100() {
    let timers = timers();
    let (mut resends, mut at, mut gave_up) = (0, Vec::new(), None);
    for now in 0..200 {
        match timers.on_silence(Wait { since: 0, rounds: resends, busies: 0 }, now) {
            Silence::Wait(due) => assert!(due > now),
            Silence::Resend => {
                resends += 1;
                at.push(now);
            }
            Silence::Timeout => {
                gave_up = Some(now);
                break;
            }
        }
    }
    assert_eq!(at, (1..20).map(|i| i * 5).collect::<Vec<_>>());
    assert_eq!(gave_up, Some(100));
}

#[test]
fn timeout_that_is_no_multiple_of_the_interval() {
    let config = Config { resend_ticks: 5, resend_interval: 7, timeout_ticks: 20, ..Config::default() };
    let timers = Timers::new(&config);
    let wait = |rounds| Wait { since: 100, rounds, busies: 0 };
    assert_eq!([0, 2, 3].map(|rounds| timers.resend_due(wait(rounds))), [105, 119, 120]);
    assert_eq!(timers.on_silence(wait(3), 120), Silence::Timeout);
}

#[test]
fn resends_back_off_if_they_may() {
    let config = Config { resend_interval_max: 80, timeout_ticks: 400, ..Config::default() };
    let timers = Timers::new(&config);
    let due = |rounds| timers.resend_due(Wait { since: 0, rounds, busies: 0 });
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(due), [5, 10, 20, 40, 80, 160, 240, 320]);
    assert_eq!(due(20), 400, "the time-out stays");
}

#[test]
fn a_busy_server_is_asked_less_and_less_often() {
    let first = |timers: &Timers, busies| timers.resend_due(Wait { since: 0, rounds: 0, busies });
    let backing_off = timers();
    let at: Vec<_> = (0..7).map(|busies| first(&backing_off, busies)).collect();
    assert_eq!(at, [5, 5, 10, 20, 40, 50, 50]);
    let asked = Wait { since: 0, rounds: 10, busies: 9 };
    assert_eq!(backing_off.on_silence(asked, 100), Silence::Timeout);
    let steady = Timers::new(&Config { busy_backoff: false, ..Config::default() });
    assert_eq!([0, 1, 9, u32::MAX].map(|busies| first(&steady, busies)), [5; 4]);
}

#[test]
fn need_acks_back_off() {
    let timers = timers();
    let at: Vec<_> = (0..9).map(|sent| timers.need_ack_due(10, sent)).collect();
    let after = [2, 6, 14, 30, 62, 126, 190, 254, 318];
    assert_eq!(at, after.map(|t| t + 10));
}

#[test]
fn need_ack_interval_that_never_doubles() {
    let config = Config { request_ack_ticks: 3, request_ack_max_ticks: 1, ..Config::default() };
    let timers = Timers::new(&config);
    assert_eq!([0, 1, 2].map(|n| timers.need_ack_due(0, n)), [3, 6, 9]);
}

#[test]
fn budget_is_a_burst_and_a_rate_and_what_is_earned() {
    let timers = timers();
    let mut budget = Budget::new(64, 1000);
    let taken = |budget: &mut Budget, tick| (0..500).filter(|_| budget.take(&timers, tick)).count();
    assert_eq!(taken(&mut budget, 1000), 64);
    assert_eq!(taken(&mut budget, 1001), 4);
    assert!(!budget.has(&timers, 1001));
    (0..3).for_each(|_| budget.on_useful(&timers));
    budget.on_answer(&timers);
    assert_eq!(taken(&mut budget, 1001), 7);
    assert_eq!(taken(&mut budget, 1000), 0, "time does not run backwards");
    assert_eq!(taken(&mut budget, 1_000_000), 64, "no more than the burst is saved up");
}

#[test]
fn lateness_grows_with_useless_retransmissions_and_goes_with_time() {
    let timers = timers();
    let mut lateness = Lateness::default();
    assert_eq!(lateness.ticks(1000), 0);
    (0..8).for_each(|_| lateness.on_useless(&timers, 1000));
    assert_eq!(lateness.ticks(1000), 2);
    (0..8).for_each(|_| lateness.on_useful(1000));
    assert_eq!(lateness.ticks(1000), 1);
    (0..10_000).for_each(|_| lateness.on_useless(&timers, 1000));
    assert_eq!(lateness.ticks(1000), 25, "a quarter of the time-out");
    assert_eq!([1080, 1192, 1193].map(|now| lateness.ticks(now)), [15, 1, 0]);
    assert_eq!(timers.stretched(10).resend_due(wait_since(100)), 115);
}

#[test]
fn long_messages_are_waited_for_longer_but_not_given_up_later() {
    let timers = Timers::new(&Config { resend_bytes_per_tick: 1000, ..Config::default() });
    let due = |missing| timers.patient(missing).resend_due(wait_since(100));
    assert_eq!([0, 999, 1000, 9999, 1_000_000].map(due), [105, 105, 106, 114, 130]);
    let mut wait = wait_since(100);
    let patient = timers.patient(10_000);
    while patient.on_silence(wait, patient.resend_due(wait)) == Silence::Resend {
        wait = patient.after_resend(wait, patient.resend_due(wait));
    }
    assert_eq!((wait.rounds, patient.resend_due(wait)), (6, 200));
    assert_eq!(self::timers().patient(1_000_000).resend_due(wait_since(100)), 105, "not unless asked for");
}

#[test]
fn waiting_to_ask_counts_for_an_eighth() {
    let timers = timers();
    let wait = timers.after_rationing(wait_since(100), 105 + 80);
    assert_eq!(wait.since, 100 + 70);
    // Ten ticks of silence beyond the first RESEND are two RESENDs not sent.
    let wait = timers.after_resend(wait, 185);
    assert_eq!((wait.rounds, timers.resend_due(wait)), (3, 190));
}

#[test]
fn after_a_resend_the_next_is_due_in_time() {
    let timers = timers();
    let wait = timers.after_resend(wait_since(100), 105);
    assert_eq!((wait.rounds, timers.resend_due(wait)), (1, 110));
    let wait = timers.after_resend(wait, 1_000_000);
    assert_eq!(timers.resend_due(wait), 200, "the time-out ends it");
}

fn wait_since(since: u64) -> Wait {
    Wait { since, rounds: 0, busies: 0 }
}
