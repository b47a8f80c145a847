//! Incoming messages that wait for memory of the pool.
//!
//! The shortest is served first. That alone would leave a long message without memory for as long as there are
//! shorter ones, so the oldest that has waited for [`PATIENCE`] gets a turn: what becomes free is kept for it. A
//! turn that is in vain ends, because the application may hold what is missing, and the next one of the same message
//! is twice as far away; and after each the others have as long for themselves.

use std::collections::{BTreeMap, BTreeSet};

/// Ticks that a message waits before it gets a turn, and that the turn lasts at most.
pub(crate) const PATIENCE: u64 = 1_000;
/// How often the time to the next turn doubles at most.
const DOUBLINGS: u32 = 6;

#[derive(Debug, Copy, Clone)]
struct Waiter {
    length: u32,
    /// Tick in which it began to wait.
    since: u64,
    /// Tick from which on it may have its next turn.
    due: u64,
    /// Turns that were in vain.
    vain: u32,
}

/// A turn that was in vain.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct InVain {
    pub slot: u32,
    /// Tick in which it began to wait.
    pub since: u64,
}

/// The places of RPCs whose message waits, in both orders.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    of: BTreeMap<u32, Waiter>,
    by_length: BTreeSet<(u32, u32)>,
    by_due: BTreeSet<(u64, u32)>,
    /// Whose turn it is, and the tick in which it began.
    turn: Option<(u32, u64)>,
    /// No turn begins before this tick.
    rest: u64,
    /// Tick since which there are some and there was memory for none.
    stalled: u64,
}

impl Waiters {
    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub fn insert(&mut self, slot: u32, length: u32, tick: u64) {
        if self.is_empty() {
            self.stalled = tick;
        }
        let due = tick + PATIENCE;
        self.of.insert(slot, Waiter { length, since: tick, due, vain: 0 });
        self.by_length.insert((length, slot));
        self.by_due.insert((due, slot));
    }

    /// Forgets one that waits no longer, for whatever reason.
    pub fn remove(&mut self, slot: u32, tick: u64) {
        let Some(waiter) = self.of.remove(&slot) else { return };
        self.by_length.remove(&(waiter.length, slot));
        self.by_due.remove(&(waiter.due, slot));
        if self.turn().is_some_and(|turn| turn == slot) {
            self.end_turn(tick);
        }
    }

    /// There was memory for one of them.
    pub fn not_stalled(&mut self, tick: u64) {
        self.stalled = tick;
    }

    /// Whether there was memory for none of them for so many ticks.
    pub fn is_stalled(&self, tick: u64, ticks: u64) -> bool {
        !self.is_empty() && tick >= self.stalled + ticks
    }

    /// All, shortest first.
    pub fn by_length(&self) -> impl Iterator<Item = u32> {
        self.by_length.iter().map(|&(_, slot)| slot)
    }

    /// Whose turn it is.
    pub fn turn(&self) -> Option<u32> {
        self.turn.map(|(slot, _)| slot)
    }

    /// Begins a turn if one is due and ends one that takes too long; to be called in each tick.
    pub fn on_tick(&mut self, tick: u64) -> Option<InVain> {
        match self.turn {
            Some((slot, began)) if tick >= began + PATIENCE => {
                self.end_turn(tick);
                let waiter = self.of.get_mut(&slot)?;
                self.by_due.remove(&(waiter.due, slot));
                waiter.vain = (waiter.vain + 1).min(DOUBLINGS);
                waiter.due = tick + (PATIENCE << waiter.vain);
                self.by_due.insert((waiter.due, slot));
                return Some(InVain { slot, since: waiter.since });
            }
            Some(_) => {}
            None if tick < self.rest => {}
            None => {
                let next = self.by_due.first().filter(|(due, _)| tick >= *due);
                self.turn = next.map(|&(_, slot)| (slot, tick));
            }
        }
        None
    }

    fn end_turn(&mut self, tick: u64) {
        if let Some((_, began)) = self.turn.take() {
            self.rest = tick + tick.saturating_sub(began);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through the ticks; returns which turns were in vain and when they ended.
    fn run(waiters: &mut Waiters, ticks: std::ops::Range<u64>) -> Vec<(u64, InVain)> {
        ticks.filter_map(|tick| Some((tick, waiters.on_tick(tick)?))).collect()
    }

    #[test]
    fn by_length_shortest_first_and_nobody_has_a_turn_at_first() {
        let mut waiters = Waiters::default();
        for (slot, length) in [(1, 300), (2, 100), (3, 200)] {
            waiters.insert(slot, length, 5);
        }
        assert_eq!(waiters.by_length().collect::<Vec<_>>(), [2, 3, 1]);
        assert!(run(&mut waiters, 5..5 + PATIENCE).is_empty());
        assert_eq!(waiters.turn(), None);
        waiters.remove(2, 6);
        assert_eq!((waiters.by_length().collect::<Vec<_>>(), waiters.len()), (vec![3, 1], 2));
    }

    #[test]
    fn turn_of_the_oldest_then_the_others_have_as_long() {
        let mut waiters = Waiters::default();
        waiters.insert(1, 300, 0);
        waiters.insert(2, 100, 10);
        assert_eq!(waiters.on_tick(PATIENCE), None);
        assert_eq!(waiters.turn(), Some(1));
        // Served after 40 ticks: nobody's turn for as many.
        waiters.remove(1, PATIENCE + 40);
        assert!(run(&mut waiters, PATIENCE + 40..PATIENCE + 80).is_empty());
        assert_eq!(waiters.turn(), None);
        assert_eq!(waiters.on_tick(PATIENCE + 80), None);
        assert_eq!(waiters.turn(), Some(2));
    }

    #[test]
    fn turn_in_vain_ends_and_all_get_theirs() {
        let mut waiters = Waiters::default();
        waiters.insert(1, 300, 0);
        waiters.insert(2, 200, 0);
        let vain = run(&mut waiters, 0..10 * PATIENCE);
        let slots: Vec<u32> = vain.iter().map(|(_, vain)| vain.slot).collect();
        assert_eq!(slots, [1, 2, 1, 2], "{vain:?}");
        assert!(vain.iter().all(|(_, vain)| vain.since == 0));
        let ends: Vec<u64> = vain.iter().map(|(tick, _)| tick / PATIENCE).collect();
        assert_eq!(ends, [2, 4, 6, 8], "half of the time is for the others");
    }

    #[test]
    fn turn_in_vain_makes_the_next_one_rarer() {
        let mut waiters = Waiters::default();
        waiters.insert(1, 300, 0);
        let ends: Vec<u64> =
            run(&mut waiters, 0..40 * PATIENCE).iter().map(|(tick, _)| tick / PATIENCE).collect();
        assert_eq!(ends, [2, 5, 10, 19, 36]);
    }

    #[test]
    fn stalled_from_the_first_and_from_the_last_for_which_there_was_memory() {
        let mut waiters = Waiters::default();
        assert!(!waiters.is_stalled(1000, 0), "there is none");
        waiters.insert(1, 1, 100);
        waiters.insert(2, 1, 150);
        assert!(!waiters.is_stalled(199, 100) && waiters.is_stalled(200, 100));
        waiters.not_stalled(180);
        assert!(!waiters.is_stalled(279, 100) && waiters.is_stalled(280, 100));
    }
}
