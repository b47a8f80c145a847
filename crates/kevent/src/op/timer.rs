//! Timers: kept in user space, so that a million of them cost the kernel one deadline.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use peyk_sansio::{Instant, Wheel};

use crate::call::Call;
use crate::core::{Core, InFlight};
use crate::event::What;
use crate::io::{Machine, Outcome, Scratch, Verdict, Work};
use crate::op::sealed::Sealed;
use crate::op::{Op, OpId, Refusal, Rejected, Token};
use crate::queue::Queue;
use crate::source::{Kind, Source};
use crate::sys;

/// Width of the finest slots of the wheel: a matter of speed, not of precision.
const TICK: Duration = Duration::from_millis(1);
/// Cancelled timers that may stay in the wheel, at least.
const STALE_MIN: usize = 1024;
/// Shortest and longest time before a paused operation is tried again.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(10)..Duration::from_secs(1);

/// When a timer goes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// After this time.
    In(Duration),
    /// At this time of the steady clock.
    At(std::time::Instant),
    /// When the wall clock shows this time, whether it gets there by passing or by being set.
    Wall(SystemTime),
}

/// Goes off at its time, then again after each period if there is one: event
/// [`What::Tick`](crate::What::Tick). A time in the past means: at the next wait. Timers of one
/// moment go off in no particular order.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    /// The first time.
    pub at: When,
    /// Time between one and the next; not with [`When::Wall`].
    pub every: Option<Duration>,
}

/// A timer in flight.
#[derive(Debug)]
pub(crate) struct Ticking {
    at: Instant,
    every: Option<u64>,
    wall: Option<Duration>,
}

/// An entry of the wheel.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    id: OpId,
    /// A paused operation, not a timer.
    retry: bool,
}

#[derive(Debug)]
pub(crate) struct Timers {
    origin: std::time::Instant,
    /// Made with the first timer.
    wheel: Option<Wheel<Due>>,
    /// Entries of the wheel whose timers are gone.
    stale: usize,
    due: Vec<Due>,
    /// Timers of the wall clock, by time since 1970.
    wall: BTreeMap<(Duration, u32), OpId>,
    /// Watches the wall clock for the first of them, and for being set.
    clock: Option<Source>,
    pub(crate) clock_op: Option<OpId>,
    /// By how many seconds tests have set the clock.
    #[cfg(test)]
    set_by: i64,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers {
            origin: std::time::Instant::now(),
            wheel: None,
            stale: 0,
            due: Vec::new(),
            wall: BTreeMap::new(),
            clock: None,
            clock_op: None,
            #[cfg(test)]
            set_by: 0,
        }
    }

    fn instant(&self, at: std::time::Instant) -> Instant {
        let since = at.saturating_duration_since(self.origin);
        Instant::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn insert(&mut self, due: Due) {
        self.wheel.get_or_insert_with(|| Wheel::new(TICK, Instant::ZERO)).insert(due.at, due);
    }

    /// The next moment something is due.
    pub(crate) fn next(&self) -> Option<std::time::Instant> {
        let at = self.wheel.as_ref()?.next_deadline()?;
        Some(self.origin + Duration::from_nanos(at.as_nanos()))
    }

    /// Takes what is due out of the wheel.
    fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = std::mem::take(&mut self.due);
        if let Some(wheel) = &mut self.wheel {
            wheel.expire(now, &mut due);
        }
        due.sort_by_key(|d| d.at);
        due
    }

    /// A timer in the wheel was cancelled; true if the wheel should be made anew.
    fn note_stale(&mut self) -> bool {
        self.stale += 1;
        let held = self.wheel.as_ref().map_or(0, Wheel::len);
        self.stale > STALE_MIN && self.stale * 2 > held
    }

    /// What the wall clock shows, since 1970.
    fn wall_now(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        #[cfg(test)]
        let now = Duration::from_secs(now.as_secs().saturating_add_signed(self.set_by));
        now
    }

    /// What is due when the wall clock shows `now`.
    fn take_wall(&mut self, now: Duration) -> Vec<(Duration, OpId)> {
        let later = self.wall.split_off(&(now + Duration::from_nanos(1), 0));
        let due = std::mem::replace(&mut self.wall, later);
        due.into_iter().map(|((at, _), id)| (at, id)).collect()
    }
}

impl Core {
    /// Fires what is due; `now` is read by the caller.
    pub(crate) fn expire(&mut self, now: std::time::Instant) {
        let Some(next) = self.timers.next() else { return };
        if next > now {
            return;
        }
        let at = self.timers.instant(now);
        let mut due = self.timers.take_due(at);
        for item in due.drain(..) {
            if item.retry {
                self.resume(item.id);
                continue;
            }
            let Some((token, InFlight::Timer(timer))) = self.ops.entry(item.id) else {
                self.timers.stale = self.timers.stale.saturating_sub(1);
                continue;
            };
            let late = at.nanos_since(item.at);
            let missed = timer.every.map_or(0, |every| late / every);
            let tick = What::Tick {
                late: Duration::from_nanos(late),
                missed: u32::try_from(missed).unwrap_or(u32::MAX),
            };
            match timer.every {
                Some(every) => {
                    timer.at = item.at.plus_nanos(every.saturating_mul(missed + 1));
                    let again = Due { at: timer.at, ..item };
                    self.timers.insert(again);
                    self.push(token, item.id, false, tick);
                }
                None => {
                    self.ops.remove(item.id);
                    self.push(token, item.id, true, tick);
                }
            }
        }
        self.timers.due = due;
    }

    /// Tries a paused operation again after `wait`.
    pub(crate) fn retry_later(&mut self, id: OpId, wait: Duration) {
        let wait = wait.clamp(RETRY.start, RETRY.end);
        let at = self.timers.instant(std::time::Instant::now() + wait);
        self.timers.insert(Due { at, id, retry: true });
    }

    pub(crate) fn cancel_timer(&mut self, id: OpId) {
        let Some((token, InFlight::Timer(timer))) = self.ops.remove(id) else { return };
        let what = What::Cancelled { done: 0, operands: Default::default() };
        self.push(token, id, true, what);
        if let Some(at) = timer.wall {
            self.timers.wall.remove(&(at, id.slot));
            return;
        }
        if self.timers.note_stale() {
            self.rebuild_wheel();
        }
    }

    /// Makes the wheel anew without the timers that were cancelled.
    fn rebuild_wheel(&mut self) {
        let Some(mut old) = self.timers.wheel.take() else { return };
        let mut all = Vec::with_capacity(old.len());
        old.expire(Instant::MAX, &mut all);
        for due in all {
            if self.ops.entry(due.id).is_some() {
                self.timers.insert(due);
            }
        }
        self.timers.stale = 0;
    }

    /// The wall clock reached the first timer, or was set.
    pub(crate) fn expire_wall(&mut self) {
        let now = self.timers.wall_now();
        for (at, id) in self.timers.take_wall(now) {
            let Some((token, _)) = self.ops.remove(id) else { continue };
            let late = now.saturating_sub(at);
            self.push(token, id, true, What::Tick { late, missed: 0 });
        }
        self.set_wall();
    }

    /// Sets the clock's alarm for the first timer.
    fn set_wall(&mut self) {
        let first = self.timers.wall.keys().next().map(|(at, _)| *at);
        if let (Some(clock), Some(first)) = (&self.timers.clock, first) {
            // Fails only for arguments that are not made here.
            let _ = sys::set_wall_alarm(clock.raw(), first);
        }
    }
}

/// The internal operation that waits for the wall clock's alarm.
#[derive(Debug)]
pub(crate) struct WallClock;

impl Machine for WallClock {
    fn next(&mut self, source: &Source, scratch: &mut Scratch) -> Call {
        Call::Take { fd: source.raw(), at: scratch.small.as_mut_ptr(), len: 8 }
    }

    fn advance(&mut self, _: &Source, _: &mut Scratch, outcome: Outcome) -> Verdict {
        match outcome.number() {
            Err(libc::EAGAIN) => Verdict::Again,
            // It went off, or the clock was set.
            Ok(_) | Err(libc::ECANCELED) if outcome.result != 0 => Verdict::More(What::Woken),
            Ok(_) => Verdict::Again,
            Err(errno) => Verdict::Fail(errno),
        }
    }
}

impl Queue {
    /// Watches the wall clock, from the first timer on that needs it.
    fn watch_wall(&mut self) -> bool {
        if self.core().timers.clock.is_some() {
            return true;
        }
        let Ok(fd) = sys::wall_alarm() else { return false };
        let source = Source::new(fd, Kind::Other);
        self.core().timers.clock = Some(source.clone());
        let mut io = self.spare_io();
        io.fill(source, false, Work::Wall(WallClock));
        let id = self.launch(Token::default(), io);
        self.core().timers.clock_op = Some(id);
        true
    }
}

impl Sealed for Timer {}
impl Op for Timer {
    fn start(self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<Timer>> {
        let refused = |why| Err(Rejected { op: self, why });
        if self.every.is_some_and(|every| every.is_zero()) {
            return refused(Refusal::Invalid);
        }
        let now = std::time::Instant::now();
        let at = match self.at {
            When::In(wait) => {
                now.checked_add(wait).map_or(Instant::MAX, |at| queue.core().timers.instant(at))
            }
            When::At(at) => queue.core().timers.instant(at),
            When::Wall(_) if self.every.is_some() => return refused(Refusal::Invalid),
            When::Wall(_) => Instant::MAX,
        };
        let wall = match self.at {
            When::Wall(at) => Some(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
            _ => None,
        };
        if wall.is_some() && (queue.core().ops.is_full() || !queue.watch_wall()) {
            return refused(Refusal::System);
        }
        let core = queue.core();
        if core.ops.is_full() {
            return refused(Refusal::Full);
        }
        let every = self.every.map(|e| u64::try_from(e.as_nanos()).unwrap_or(u64::MAX));
        let id = core.ops.insert(token, InFlight::Timer(Ticking { at, every, wall }));
        match wall {
            Some(at) => {
                core.timers.wall.insert((at, id.slot), id);
                core.set_wall();
            }
            None => core.timers.insert(Due { at, id, retry: false }),
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> OpId {
        OpId { slot, generation: 1 }
    }

    #[test]
    fn wall__fires_what_the_clock_has_reached_however_it_got_there() {
        let mut timers = Timers::new();
        for (slot, at) in [(0, 100), (1, 200), (2, 200), (3, 300)] {
            timers.wall.insert((Duration::from_secs(at), slot), id(slot));
        }
        let slots = |due: Vec<(Duration, OpId)>| due.iter().map(|d| d.1.slot).collect::<Vec<_>>();
        assert_eq!(slots(timers.take_wall(Duration::from_secs(100))), [0]);
        // Set back: nothing; set forward: all it passed.
        assert_eq!(slots(timers.take_wall(Duration::from_secs(50))), [0; 0]);
        assert_eq!(slots(timers.take_wall(Duration::from_secs(250))), [1, 2]);
        assert_eq!(timers.wall.len(), 1);
    }

    /// The clock is the test's, and so is the report that it was set, which comes by the operation that
    /// watches it (`WallClock`); the rest is as ever.
    #[test]
    fn t61__wall_clock_set_forward_fires_what_it_passed_and_set_back_fires_nothing() {
        use crate::{Backend, Config, Events, Wait};
        for backend in [Backend::Uring, Backend::Epoll] {
            let mut queue = Queue::new(Config { backend, ..Config::default() }).unwrap();
            let now = SystemTime::now();
            let after = |hours: u64| When::Wall(now + Duration::from_secs(hours * 3600));
            let ids = [1, 2, 5]
                .map(|hours| queue.submit(Token(hours), Timer { at: after(hours), every: None }).unwrap());
            let mut events = Events::default();
            let hour = 3600;
            for (set_by, fired) in [
                (-hour, vec![]),
                (hour / 2, vec![]),
                (hour + hour / 2, vec![1]),
                (-9 * hour, vec![]),
                (3 * hour, vec![2]),
            ] {
                queue.core().timers.set_by = set_by;
                queue.core().expire_wall();
                queue.wait(&mut events, Wait::now()).unwrap();
                let seen: Vec<u64> = events
                    .drain()
                    .map(|event| match event.what {
                        What::Tick { late, missed: 0 } => {
                            assert!(event.last && late >= Duration::from_secs(hour as u64 / 2 - 5));
                            event.token.0
                        }
                        other => panic!("{other:?}"),
                    })
                    .collect();
                assert_eq!(seen, fired, "set by {set_by} s on {backend:?}");
            }
            queue.cancel(ids[2]);
            assert_eq!(queue.wait(&mut events, Wait::now()).unwrap(), 1);
            assert_eq!(queue.in_flight(), 0);
        }
    }

    #[test]
    fn wheel__is_made_anew_when_most_of_it_is_stale() {
        let mut timers = Timers::new();
        for slot in 0..3000 {
            timers.insert(Due { at: Instant::from_millis(u64::from(slot)), id: id(slot), retry: false });
        }
        let rounds = (0..).take_while(|_| !timers.note_stale()).count();
        assert_eq!(rounds, 1500);
    }
}
