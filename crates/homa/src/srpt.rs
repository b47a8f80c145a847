//! The order in which outgoing messages are sent: shortest remaining first.
//!
//! `SendQueue` holds one entry per message that has something it may send now.
//! It answers "who is best" (fewest bytes left, then the older, then the lower
//! slot) and "who is oldest" (for the pacer's FIFO share). It does not send,
//! does not know grants, and never looks at a message: the owner inserts a slot
//! when bytes become sendable, reports every change and removes it when nothing
//! is left or nothing is granted.
//!
//! ```text
//!   singles  VecDeque   single-packet messages, first come first served: before all others
//!   best     one key    the best of the longer messages, kept outside the tree
//!   rest     BTreeSet   (left, init_time, slot) of the others
//!   ages     BTreeSet   (init_time, slot) of best and rest
//! ```
//!
//! Sending a packet of the best message only lowers its own key, so the common
//! step is O(1); everything else is O(log n).

use std::collections::{BTreeSet, VecDeque};

use peyk_sansio::Instant;

/// Rank of a longer message: fewer bytes left first, then older, then slot.
type Key = (u32, Instant, u32);

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Place {
    Absent,
    Single,
    Ranked,
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    place: Place,
    left: u32,
    init_time: Instant,
    /// Tells this occupation of `singles` from earlier ones of the same slot.
    ticket: u32,
}

const ABSENT: Entry = Entry { place: Place::Absent, left: 0, init_time: Instant::ZERO, ticket: 0 };

/// Messages that may send now, by slot. See the module documentation.
#[derive(Debug, Default)]
pub struct SendQueue {
    entries: Vec<Entry>,
    singles: VecDeque<(u32, u32)>,
    singles_live: usize,
    best: Option<Key>,
    rest: BTreeSet<Key>,
    ages: BTreeSet<(Instant, u32)>,
}

impl SendQueue {
    /// An empty queue.
    pub fn new() -> SendQueue {
        SendQueue::default()
    }

    /// Queues a message with `left` bytes to send. Returns false, changing only
    /// `left`, if the slot is already queued.
    pub fn insert(&mut self, slot: u32, left: u32, init_time: Instant) -> bool {
        if self.place(slot) != Place::Absent {
            self.update(slot, left);
            return false;
        }
        let entry = self.entry(slot);
        *entry = Entry { place: Place::Ranked, left, init_time, ticket: entry.ticket };
        self.ages.insert((init_time, slot));
        self.rank_in((left, init_time, slot));
        true
    }

    /// Queues a message that is one packet: it goes before every longer message,
    /// after the single packets queued earlier. Returns false if already queued.
    pub fn insert_single(&mut self, slot: u32, left: u32, init_time: Instant) -> bool {
        if self.place(slot) != Place::Absent {
            return false;
        }
        let entry = self.entry(slot);
        let ticket = entry.ticket.wrapping_add(1);
        *entry = Entry { place: Place::Single, left, init_time, ticket };
        self.singles.push_back((slot, ticket));
        self.singles_live += 1;
        true
    }

    /// Tells the queue that `left` of a queued message changed. A slot that is
    /// not queued is left alone.
    pub fn update(&mut self, slot: u32, left: u32) {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        let old = (entry.left, entry.init_time, slot);
        match entry.place {
            Place::Absent => {}
            Place::Single => entry.left = left,
            Place::Ranked => {
                entry.left = left;
                let new = (left, old.1, slot);
                if self.best == Some(old) && new <= old {
                    self.best = Some(new);
                } else if new != old {
                    self.rank_out(old);
                    self.rank_in(new);
                }
            }
        }
    }

    /// Takes a message out. Returns whether it was queued.
    pub fn remove(&mut self, slot: u32) -> bool {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return false;
        };
        let was = entry.place;
        let key = (entry.left, entry.init_time, slot);
        entry.place = Place::Absent;
        match was {
            Place::Absent => return false,
            Place::Single => {
                self.singles_live -= 1;
                self.sweep_singles();
            }
            Place::Ranked => {
                self.ages.remove(&(key.1, slot));
                self.rank_out(key);
            }
        }
        true
    }

    /// The message to send from next, without taking it out.
    pub fn best(&mut self) -> Option<u32> {
        while let Some(&(slot, ticket)) = self.singles.front() {
            if self.is_live_single(slot, ticket) {
                return Some(slot);
            }
            self.singles.pop_front();
        }
        self.best.map(|key| key.2)
    }

    /// Takes out and returns the message to send from next.
    pub fn pop_best(&mut self) -> Option<u32> {
        let slot = self.best()?;
        self.remove(slot);
        Some(slot)
    }

    /// The longer message that has waited longest, without taking it out.
    /// Single-packet messages have no part in this: they never starve.
    pub fn oldest(&self) -> Option<u32> {
        self.ages.first().map(|&(_, slot)| slot)
    }

    /// Whether a single-packet message is at the front.
    pub fn has_single(&self) -> bool {
        self.singles_live > 0
    }

    /// Whether the slot is queued.
    pub fn contains(&self, slot: u32) -> bool {
        self.place(slot) != Place::Absent
    }

    /// Number of queued messages.
    pub fn len(&self) -> usize {
        self.singles_live + self.ages.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&self, slot: u32) -> Place {
        self.entries.get(slot as usize).map_or(Place::Absent, |e| e.place)
    }

    fn entry(&mut self, slot: u32) -> &mut Entry {
        let at = slot as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, ABSENT);
        }
        &mut self.entries[at]
    }

    fn is_live_single(&self, slot: u32, ticket: u32) -> bool {
        let entry = &self.entries[slot as usize];
        entry.place == Place::Single && entry.ticket == ticket
    }

    /// Drops dead entries once they are the majority, so that removals out of
    /// order cannot grow the deque without bound.
    fn sweep_singles(&mut self) {
        if self.singles_live == 0 {
            self.singles.clear();
        } else if self.singles.len() > 64 && self.singles.len() > 2 * self.singles_live {
            let entries = &self.entries;
            self.singles.retain(|&(slot, ticket)| {
                let entry = &entries[slot as usize];
                entry.place == Place::Single && entry.ticket == ticket
            });
        }
    }

    fn rank_in(&mut self, key: Key) {
        match self.best {
            None => self.best = Some(key),
            Some(best) if key < best => {
                self.rest.insert(best);
                self.best = Some(key);
            }
            Some(_) => {
                self.rest.insert(key);
            }
        }
    }

    fn rank_out(&mut self, key: Key) {
        if self.best == Some(key) {
            self.best = self.rest.pop_first();
        } else {
            self.rest.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
