//! A load against a perfect transport with a fixed delay, on virtual time.

use super::*;

fn plan(arrivals: Arrivals, hold: u32) -> LoadPlan {
    LoadPlan {
        draw: Draw::Workload(Name::W3),
        arrivals,
        seed: 42,
        duration_ms: 200,
        warmup_ms: 50,
        drain_ms: 100,
        outstanding_max: 1_000,
        hold,
        origin: 0,
        servers: 1,
        in_a_row: 16,
        baseline: Baseline { points: vec![(16, 10_000)] },
    }
}

/// What the transport between client and server does with a message.
#[derive(Copy, Clone, PartialEq)]
enum Fate {
    Echo,
    Lose,
    Damage,
    Double,
}

/// Runs a load to its end; every response comes `delay` ns after its request.
fn run(plan: LoadPlan, delay: u64, fate: impl Fn(u64) -> Fate) -> (LoadResult, Vec<usize>) {
    let mut load = Load::new(plan, |_| ());
    let mut wire: VecDeque<(u64, Outgoing)> = VecDeque::new();
    let mut held = Vec::new();
    let mut lengths = Vec::new();
    let mut now = 5_000;
    while !load.turn(now) {
        while let Some(message) = load.next_due(now) {
            lengths.push(message.len());
            wire.push_back((now + delay, message));
        }
        let mut answered = None;
        while wire.front().is_some_and(|(at, _)| *at <= now) {
            let (_, message) = wire.pop_front().unwrap();
            answered = Some(now);
            match verify::kind_of(message.sequence()) {
                (Kind::Hold, _) => held.push(message),
                (Kind::Echo, number) => answer(&mut load, &message, fate(number), now),
                (Kind::Release, _) => {
                    held.drain(..).for_each(|m| answer(&mut load, &m, Fate::Echo, now));
                    answer(&mut load, &message, Fate::Echo, now);
                }
            }
        }
        let next =
            [answered, load.wakeup(), wire.front().map(|(at, _)| *at)].into_iter().flatten().min().unwrap();
        now = next.max(now + 1_000);
    }
    (load.finish(), lengths)
}

fn answer(load: &mut Load<impl FnMut(Progress) + Send>, message: &Outgoing, fate: Fate, now: u64) {
    let repeats = match fate {
        Fate::Lose => 0,
        Fate::Double => 2,
        _ => 1,
    };
    for _ in 0..repeats {
        let offset = load.expect(&message.header, message.len());
        assert!(fate == Fate::Double || offset == Some(message.body.start));
        load.complete(&message.header, fate != Fate::Damage, now);
    }
}

#[test]
fn open_loop_sends_and_completes_all() {
    let (result, lengths) = run(plan(Arrivals::Poisson(50_000.0), 0), 20_000, |_| Fate::Echo);
    assert!((8_000..12_000).contains(&result.sent), "{}", result.sent);
    assert_eq!((result.completed, result.lost, result.corrupt, result.unsent), (result.sent, 0, 0, 0));
    assert_eq!(lengths.len() as u64, result.sent);
    let ratio = result.rpcs_per_second / 50_000.0;
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
    // A fixed delay of twice the baseline, and at most a microsecond of virtual lag either way.
    for point in &result.points {
        let slowdown = point.p50_slowdown.unwrap();
        assert!((1.9..2.5).contains(&slowdown), "{point:?}");
    }
}

#[test]
fn open_loop_is_the_same_for_every_delay() {
    let (_, fast) = run(plan(Arrivals::Poisson(20_000.0), 0), 1_000, |_| Fate::Echo);
    let (_, slow) = run(plan(Arrivals::Poisson(20_000.0), 0), 900_000, |_| Fate::Echo);
    assert_eq!(fast, slow);
}

#[test]
fn loss_damage_and_duplicates_are_counted() {
    let fate = |number| match number % 100 {
        7 => Fate::Lose,
        8 => Fate::Damage,
        9 => Fate::Double,
        _ => Fate::Echo,
    };
    let (result, _) = run(plan(Arrivals::Poisson(20_000.0), 0), 10_000, fate);
    let of = |remainder| (result.sent + 99 - remainder) / 100;
    assert_eq!(result.lost, of(7));
    assert_eq!(result.corrupt, of(8));
    assert_eq!(result.unexpected, of(9));
}

#[test]
fn closed_loop_keeps_the_number_outstanding() {
    let (result, _) = run(plan(Arrivals::Closed(8), 0), 100_000, |_| Fate::Echo);
    assert_eq!(result.outstanding_max, 8);
    assert_eq!(result.lost, 0);
    let ratio = result.rpcs_per_second / 80_000.0;
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
}

#[test]
fn held_requests_complete_after_everything_else() {
    let (result, _) = run(plan(Arrivals::Poisson(10_000.0), 1_200), 10_000, |_| Fate::Echo);
    assert_eq!((result.held, result.held_completed, result.released_early), (1_200, 1_200, 0));
    assert_eq!(result.lost, 0);
}

#[test]
fn cap_binds_and_says_so() {
    let mut slow = plan(Arrivals::Poisson(50_000.0), 0);
    slow.outstanding_max = 10;
    let (result, _) = run(slow, 1_000_000, |_| Fate::Echo);
    assert!(result.capped);
    assert_eq!(result.outstanding_max, 10);
    assert!(result.unsent > 0);
    assert!(result.lag_max_us > 10_000.0);
    assert_eq!(result.lost, 0);
}

#[test]
fn in_turn_measures_the_best_of_each_size() {
    let mut baseline = plan(Arrivals::Closed(1), 0);
    baseline.draw = Draw::InTurn(vec![100, 1_000, 10_000]);
    baseline.warmup_ms = 0;
    let (result, _) = run(baseline, 10_000, |_| Fate::Echo);
    assert_eq!(result.best.iter().map(|b| b.0).collect::<Vec<_>>(), [100, 1_000, 10_000]);
    assert!(result.best.iter().all(|b| b.1 >= 10_000 && b.1 < 12_000), "{:?}", result.best);
}
