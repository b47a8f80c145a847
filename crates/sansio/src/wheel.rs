//! A hierarchical timer wheel. It holds deadlines, not timers: cancelling is lazy, an item that no longer
//! matters is handed out when due and its owner ignores it. It never visits items that are not due, except
//! once per level on their way down.
//!
//! ```text
//!   level 0   64 slots of one tick        ──┐ an item lives in the level of the highest group of six
//!   level 1   64 slots of 64 ticks          │ bits in which its tick differs from the wheel's own
//!   level 2   64 slots of 4096 ticks        │ tick, in the slot named by that group; as time passes
//!   ...       11 levels: all of u64       ──┘ it moves to lower levels
//! ```
//!
//! A slot remembers the earliest deadline in it, and every item of a lower level is due before every item of
//! a higher one: so the nearest deadline is exact and is found by two bit scans.

use core::time::Duration;

use crate::Instant;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 64usize.div_ceil(BITS as usize);
const NONE: u32 = u32::MAX;

/// Deadlines in, due items out.
///
/// Memory grows to the largest number of items held at once (about 24 bytes each for a small `T`) and is
/// kept; the wheel itself takes 11 KiB.
#[derive(Clone, Debug)]
pub struct Wheel<T: Copy> {
    /// Length of a level-0 slot, in nanoseconds, at least 1. Only a matter of speed: deadlines stay exact.
    tick_ns: u64,
    /// The tick the wheel has been moved to: `now / tick_ns` of the latest `expire` that found something.
    tick: u64,
    /// One bit per level that has items.
    levels: u16,
    /// Per level, one bit per slot that has items.
    occupied: [u64; LEVELS],
    /// `LEVELS * SLOTS` list heads.
    slots: Box<[Slot]>,
    /// All items, linked through `next`, in a slot's list or the free list.
    nodes: Vec<Node<T>>,
    free: u32,
    len: usize,
}

#[derive(Copy, Clone, Debug)]
struct Slot {
    first: u32,
    last: u32,
    /// Earliest deadline in the slot; meaningless when it is empty.
    earliest: Instant,
}

#[derive(Copy, Clone, Debug)]
struct Node<T> {
    at: Instant,
    next: u32,
    item: T,
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel. `tick` is the width of its finest slots (1 ms suits a network protocol): it sets the
    /// cost, not the precision. Items due in the same tick are gone through together, each time that one of
    /// them is due: up to some hundred items per tick that goes unnoticed. `now` must not be later than the first `now` given to [`Wheel::expire`].
    pub fn new(tick: Duration, now: Instant) -> Self {
        let tick_ns = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).max(1);
        let empty = Slot { first: NONE, last: NONE, earliest: Instant::MAX };
        Self {
            tick_ns,
            tick: now.as_nanos() / tick_ns,
            levels: 0,
            occupied: [0; LEVELS],
            slots: vec![empty; LEVELS * SLOTS].into_boxed_slice(),
            nodes: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    /// Will hand out `item` at the first [`Wheel::expire`] whose `now` is not before `at`. A deadline that
    /// has passed already is due at the next call. O(1).
    pub fn insert(&mut self, at: Instant, item: T) {
        let node = Node { at, next: NONE, item };
        let index = if self.free == NONE {
            assert!(self.nodes.len() < NONE as usize, "a wheel holds fewer than 2^32 items");
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        } else {
            let index = self.free;
            self.free = self.nodes[index as usize].next;
            self.nodes[index as usize] = node;
            index
        };
        self.len += 1;
        self.place(index);
    }

    /// Appends every item whose deadline is at or before `now` to `out`, earlier slots first; within a slot
    /// in no particular but reproducible order. A `now` that goes backwards is taken as it is for the items,
    /// but does not turn the wheel back.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<T>) {
        if self.next_deadline().is_none_or(|at| at > now) {
            return; // The wheel need not even turn: a tick that lags behind is as good.
        }
        let old = self.tick;
        let new = (now.as_nanos() / self.tick_ns).max(old);
        self.tick = new;
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let shift = level * BITS;
            // All items of a level lie in the one slot of the level above that holds the old tick. If the
            // new tick has left that slot, all of them are in the past; else those up to the new position.
            let left = parent(old, shift) != parent(new, shift);
            let mask = if left { u64::MAX } else { u64::MAX >> (SLOTS as u32 - 1 - position(new, shift)) };
            let mut due = self.occupied[level as usize] & mask;
            while due != 0 {
                let slot = due.trailing_zeros();
                due &= due - 1;
                self.drain(level, slot, now, out);
            }
            if !left {
                break; // No higher level has seen the time pass.
            }
        }
    }

    /// The earliest deadline held, exactly; `None` when the wheel is empty. After `expire(now)` it is later
    /// than `now`.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros() as usize;
        let slot = self.occupied[level].trailing_zeros() as usize;
        Some(self.slots[level * SLOTS + slot].earliest)
    }

    /// Number of items held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no item is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Links a node into the slot that its deadline and the wheel's tick call for.
    fn place(&mut self, index: u32) {
        let at = self.nodes[index as usize].at;
        let tick = (at.as_nanos() / self.tick_ns).max(self.tick);
        let level = (63 - ((tick ^ self.tick) | 1).leading_zeros()) / BITS;
        let slot = position(tick, level * BITS);
        self.occupied[level as usize] |= 1 << slot;
        self.levels |= 1 << level;
        self.nodes[index as usize].next = NONE;
        let slot = &mut self.slots[level as usize * SLOTS + slot as usize];
        if slot.first == NONE {
            *slot = Slot { first: index, last: index, earliest: at };
        } else {
            self.nodes[slot.last as usize].next = index;
            slot.last = index;
            slot.earliest = slot.earliest.min(at);
        }
    }

    /// Empties a slot: due items go out, the others are placed again, relative to the new tick.
    fn drain(&mut self, level: u32, slot: u32, now: Instant, out: &mut Vec<T>) {
        let head = &mut self.slots[level as usize * SLOTS + slot as usize];
        let mut index = core::mem::replace(&mut head.first, NONE);
        self.occupied[level as usize] &= !(1 << slot);
        if self.occupied[level as usize] == 0 {
            self.levels &= !(1 << level);
        }
        while index != NONE {
            let node = self.nodes[index as usize];
            if node.at <= now {
                out.push(node.item);
                self.nodes[index as usize].next = self.free;
                self.free = index;
                self.len -= 1;
            } else {
                self.place(index);
            }
            index = node.next;
        }
    }
}

/// Position of a tick within the level that starts at bit `shift`.
fn position(tick: u64, shift: u32) -> u32 {
    (tick >> shift) as u32 & (SLOTS as u32 - 1)
}

/// The tick's slot in all levels above the one that starts at bit `shift`.
fn parent(tick: u64, shift: u32) -> u64 {
    tick.checked_shr(shift + BITS).unwrap_or(0)
}

#[cfg(test)]
mod tests;
