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
