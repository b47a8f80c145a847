//! Timers and clocks. A wall clock that is set back and forth (t61) is tested beside the code
//! (`src/op/timer.rs`), with a clock of its own: a machine's clock is not a test's to set.

use std::time::{Duration, Instant, SystemTime};

use peyk_kevent::{Config, Events, OpId, Refusal, Timer, Token, Wait, What, When};

use crate::common::{Bench, PATIENCE, on_both, on_both_once, times};

fn after(ms: u64) -> When {
    When::In(Duration::from_millis(ms))
}

#[test]
fn t59__very_many_timers_go_off_in_order() {
    on_both_once(|backend| {
        let count = times(100_000, 1_000_000);
        let mut bench =
            Bench::with(Config { backend, max_ops: 1 << 21, max_events: 4096, ..Config::default() });
        let origin = Instant::now() + Duration::from_millis(20);
        let at = |i: u64| origin + Duration::from_nanos(i * 7919 % count * 500);
        let ids: Vec<OpId> =
            (0..count).map(|i| bench.submit(i, Timer { at: When::At(at(i)), every: None })).collect();
        // Every third is cancelled, and half of those are set again.
        let (mut expected, mut cancelled) = (0, 0);
        for (i, id) in ids.iter().enumerate() {
            if i % 3 == 0 {
                bench.q.cancel(*id);
                cancelled += 1;
                if i % 2 == 0 {
                    bench.submit(i as u64, Timer { at: When::At(at(i as u64)), every: None });
                    expected += 1;
                }
            } else {
                expected += 1;
            }
        }
        let (mut fired, mut gone) = (0, 0);
        let mut events = Events::default();
        let mut latest = origin;
        while fired < expected || gone < cancelled {
            let begun = Instant::now();
            assert!(bench.q.wait(&mut events, Wait::until(begun + PATIENCE)).unwrap() > 0);
            let now = Instant::now();
            for event in events.drain() {
                match event.what {
                    What::Tick { missed: 0, late } => {
                        let due = at(event.token.0);
                        assert!(now >= due, "early");
                        // It says how late it is: as of some moment of a wait.
                        assert!(due + late <= now, "{late:?}");
                        // None goes off after one that was set for later; those that had waited for
                        // room among the events of a wait are no exception.
                        assert!(due >= latest, "out of order by {:?}", latest - due);
                        latest = due;
                        fired += 1;
                    }
                    What::Cancelled { .. } => gone += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((fired, gone, bench.q.in_flight()), (expected, cancelled, 0));
    });
}

#[test]
fn t60__periodic_timer_counts_what_it_missed() {
    on_both_once(|backend| {
        let mut bench = Bench::new(backend);
        let every = Duration::from_millis(10);
        let id = bench.submit(1, Timer { at: When::In(every), every: Some(every) });
        for _ in 0..3 {
            assert!(matches!(bench.next_of(id), What::Tick { .. }));
        }
        std::thread::sleep(Duration::from_secs(1));
        let What::Tick { late, missed } = bench.next_of(id) else { panic!("no tick") };
        assert!(missed >= 97 && late >= every * missed, "{missed} {late:?}");
        let next = bench.next_of(id);
        assert!(matches!(next, What::Tick { .. }), "{next:?}");
        bench.q.cancel(id);
        assert!(matches!(bench.last_of(id), What::Cancelled { .. }));
        let zero = Timer { at: after(1), every: Some(Duration::ZERO) };
        assert_eq!(bench.q.submit(Token(0), zero).unwrap_err().why, Refusal::Invalid);
    });
}

#[test]
fn t61__wall_clock_timers_go_off_and_are_cancelled() {
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let now = SystemTime::now();
        let late = bench.submit(1, Timer { at: When::Wall(now + Duration::from_secs(3600)), every: None });
        let soon = bench.submit(2, Timer { at: When::Wall(now + Duration::from_millis(30)), every: None });
        let past = bench.submit(3, Timer { at: When::Wall(now - Duration::from_secs(3600)), every: None });
        assert!(matches!(bench.next_of(past), What::Tick { .. }));
        assert!(matches!(bench.next_of(soon), What::Tick { .. }));
        assert!(SystemTime::now() >= now + Duration::from_millis(30));
        bench.q.cancel(late);
        assert!(matches!(bench.next_of(late), What::Cancelled { .. }));
        assert_eq!(bench.q.in_flight(), 0);
    });
}

#[test]
fn t62__deadline_in_the_past_fires_once_at_the_next_wait() {
    on_both_once(|backend| {
        let mut bench = Bench::new(backend);
        let past = When::At(Instant::now().checked_sub(Duration::from_millis(1)).unwrap());
        for at in [past, When::In(Duration::ZERO)] {
            let id = bench.submit(1, Timer { at, every: None });
            let mut events = Events::default();
            assert_eq!(bench.q.wait(&mut events, Wait::now()).unwrap(), 1);
            let event = events.drain().next().unwrap();
            assert!(event.last && event.id == Some(id) && matches!(event.what, What::Tick { .. }));
            bench.quiet();
        }
    });
}
