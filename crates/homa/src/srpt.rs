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
//!   singles  VecDeques  single-packet messages, before all others: by size class, two to an octave,
//!                       and first come first served within a class
//!   best     one key    the best of the longer messages, kept outside the tree
//!   rest     BTreeSet   (left, born, slot) of the others
//!   ages     BTreeSet   (born, slot) of best and rest
//! ```
//!
//! Sending a packet of the best message only lowers its own key, so the common
//! step is O(1), as is everything about single packets; the rest is O(log n).

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
    born: Instant,
    /// Tells this occupation of `singles` from earlier ones of the same slot.
    ticket: u32,
}

const ABSENT: Entry = Entry { place: Place::Absent, left: 0, born: Instant::ZERO, ticket: 0 };

/// Size classes of single packets: up to 64 KiB.
const CLASSES: usize = 32;

/// The class of a message of so many bytes: the octave and its half.
fn class_of(bytes: u32) -> usize {
    let octave = bytes.max(2).ilog2();
    let half = bytes.max(2) >> (octave - 1) & 1;
    ((octave - 1) * 2 + half).min(CLASSES as u32 - 1) as usize
}

/// Messages that may send now, by slot. See the module documentation.
#[derive(Debug, Default)]
pub struct SendQueue {
    entries: Vec<Entry>,
    singles: [VecDeque<(u32, u32)>; CLASSES],
    /// One bit per class that is not empty, the shortest messages in bit 0.
    classes: u32,
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
    pub fn insert(&mut self, slot: u32, left: u32, born: Instant) -> bool {
        if self.place(slot) != Place::Absent {
            self.update(slot, left);
            return false;
        }
        let entry = self.entry(slot);
        *entry = Entry { place: Place::Ranked, left, born, ticket: entry.ticket };
        self.ages.insert((born, slot));
        self.rank_in((left, born, slot));
        true
    }

    /// Queues a message that is one packet: it goes before every longer message,
    /// after the single packets of its size class queued earlier. Returns false
    /// if already queued.
    #[inline]
    pub fn insert_single(&mut self, slot: u32, left: u32, born: Instant) -> bool {
        let entry = self.entry(slot);
        if entry.place != Place::Absent {
            return false;
        }
        let ticket = entry.ticket.wrapping_add(1);
        *entry = Entry { place: Place::Single, left, born, ticket };
        let class = class_of(left);
        self.singles[class].push_back((slot, ticket));
        self.classes |= 1 << class;
        self.singles_live += 1;
        true
    }

    /// Tells the queue that `left` of a queued message changed. A slot that is
    /// not queued is left alone.
    pub fn update(&mut self, slot: u32, left: u32) {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        let old = (entry.left, entry.born, slot);
        match entry.place {
            Place::Absent => {}
            // It has one packet: there is nothing in between.
            Place::Single => {}
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
        let (was, entry_left) = (entry.place, entry.left);
        let key = (entry.left, entry.born, slot);
        entry.place = Place::Absent;
        match was {
            Place::Absent => return false,
            Place::Single => {
                self.singles_live -= 1;
                self.sweep_singles(class_of(entry_left));
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
        while self.classes != 0 {
            let class = self.classes.trailing_zeros() as usize;
            while let Some(&(slot, ticket)) = self.singles[class].front() {
                if self.is_live_single(slot, ticket) {
                    return Some(slot);
                }
                self.singles[class].pop_front();
            }
            self.classes &= !(1 << class);
        }
        self.best.map(|key| key.2)
    }

    /// Takes out the message to send from next, if it is a single packet.
    #[inline]
    pub fn pop_single(&mut self) -> Option<u32> {
        while self.classes != 0 {
            let class = self.classes.trailing_zeros() as usize;
            while let Some((slot, ticket)) = self.singles[class].pop_front() {
                if self.is_live_single(slot, ticket) {
                    self.entries[slot as usize].place = Place::Absent;
                    self.singles_live -= 1;
                    return Some(slot);
                }
            }
            self.classes &= !(1 << class);
        }
        None
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

    #[inline]
    fn entry(&mut self, slot: u32) -> &mut Entry {
        let at = slot as usize;
        if at >= self.entries.len() {
            self.grow(at + 1);
        }
        &mut self.entries[at]
    }

    #[cold]
    fn grow(&mut self, slots: usize) {
        self.entries.resize(slots, ABSENT);
    }

    fn is_live_single(&self, slot: u32, ticket: u32) -> bool {
        let entry = &self.entries[slot as usize];
        entry.place == Place::Single && entry.ticket == ticket
    }

    /// Drops the dead entries of a class once they are many, so that removals out of order cannot
    /// grow it without bound.
    fn sweep_singles(&mut self, class: usize) {
        let singles = &mut self.singles[class];
        if self.singles_live == 0 {
            // Nearly always: each message is sent before the next one comes.
            singles.clear();
        } else if singles.len() > 64 && singles.len() > 2 * self.singles_live {
            let entries = &self.entries;
            singles.retain(|&(slot, ticket)| {
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
