//! Grants: who may send us more, how much, and at which priority.
//!
//! One `Grants` stands for one receiving link. It manages the incoming messages
//! that are longer than their unscheduled part, from the moment they have
//! buffer space until they are complete or dead. It decides; the endpoint turns
//! each [`GrantOut`] into a packet. It knows neither time-outs nor buffers.
//!
//! ```text
//!   active   at most max_overcommit messages, granted as data arrives
//!   queue    every other message, per peer, best first (grant/queue.rs)
//!   needy    active messages that could use a grant but found no room
//!   fifo     the oldest messages, for the share that ignores all of the above
//! ```
//!
//! Ranking is by bytes not yet *received*, then age, always on live values.
//! With `W = window`, or `max_incoming / (active + 1)` if that is 0, an active
//! message is granted up to `received + W`, as long as the bytes authorised but
//! not received, over all managed messages, stay below `max_incoming`.
//!
//! A packet costs O(1) for an active message and O(log n) for a queued one; the
//! only loops run over the active set, which holds eight messages at most.

use core::time::Duration;

use peyk_sansio::Instant;
use slab::Slab;

use crate::priority::{DEFAULT_CUTOFFS, LEVELS};

mod bucket;
mod fifo;
mod heap;
mod queue;

pub use bucket::GrantBucket;

use bucket::Bucket;
use fifo::Fifo;
use queue::Queue;

/// Hard limit of the active set, whatever `max_overcommit` says.
pub const MAX_ACTIVE: usize = 8;

const NONE: u32 = u32::MAX;

/// Settings of [`Grants`]. Out-of-range values are clamped.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct GrantConfig {
    /// Most bytes authorised but not received, over all managed messages.
    pub max_incoming: u64,
    /// Fixed bytes ahead of the received ones per active message; 0 derives it
    /// from `max_incoming` and the number of active messages.
    pub window: u32,
    /// Bytes below which a grant waits for more, unless it is the message's last or nothing of it is under way.
    pub min_grant: u32,
    /// Most active messages, 1..=8.
    pub max_overcommit: usize,
    /// Priority levels in use, 1..=8.
    pub num_priorities: u8,
    /// Highest level for scheduled data.
    pub max_sched_prio: u8,
    /// Bytes left up to which fewer go first; messages with more are all alike, and the oldest goes first.
    pub srpt_limit: u32,
    /// Bytes of one FIFO grant.
    pub fifo_grant_increment: u32,
    /// Share of the link given to FIFO grants, in 1/1000, at most 500; 0 is off.
    pub grant_fifo_fraction: u32,
    /// Priority of FIFO grants, clamped to the levels in use.
    pub fifo_grant_priority: u8,
    /// Speed of the link in Mbit/s.
    pub link_mbps: u32,
    /// Optional limit on the rate of all grants.
    pub bucket: Option<GrantBucket>,
    /// Grants that begin within this many bytes of a message's end are raised to the level that
    /// unscheduled data of as many bytes has by the cutoffs; 0 is off.
    pub tail_boost_bytes: u32,
    /// Longest message per level, as in CUTOFFS packets; for the tail boost only.
    pub cutoffs: [u32; LEVELS],
}

impl Default for GrantConfig {
    fn default() -> GrantConfig {
        GrantConfig {
            max_incoming: 400_000,
            window: 0,
            min_grant: 0,
            max_overcommit: 8,
            num_priorities: 8,
            max_sched_prio: 3,
            srpt_limit: u32::MAX,
            fifo_grant_increment: 50_000,
            grant_fifo_fraction: 50,
            fifo_grant_priority: 0,
            link_mbps: 25_000,
            bucket: None,
            tail_boost_bytes: 0,
            cutoffs: DEFAULT_CUTOFFS,
        }
    }
}

/// A grant to send.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct GrantOut {
    /// The message, by the slot it was managed under.
    pub slot: u32,
    /// The sender may transmit bytes `[0, offset)`.
    pub offset: u32,
    /// Priority for its scheduled data.
    pub priority: u8,
}

/// Rank of a message: fewer unreceived bytes first as far as they count, then older, then slot.
type Rank = (u32, Instant, u32);

#[derive(Clone, Debug)]
struct Message {
    slot: u32,
    peer: u32,
    length: u32,
    received: u32,
    granted: u32,
    birth: Instant,
    srpt_limit: u32,
    /// Bytes of the incoming ones that FIFO grants authorised. FIFO grants
    /// extend the end of what is granted, so received bytes use it up last.
    fifo_credit: u32,
    /// Tells this message from earlier ones with the same key.
    stamp: u32,
    is_active: bool,
    is_needy: bool,
    is_dirty: bool,
    /// Whether it stands in the order of age.
    is_aging: bool,
}

impl Message {
    fn rank(&self) -> Rank {
        ((self.length - self.received).min(self.srpt_limit), self.birth, self.slot)
    }

    /// Where the next grant starts: a sender may have gone beyond the last one.
    fn base(&self) -> u32 {
        self.granted.max(self.received)
    }

    fn incoming(&self) -> u32 {
        self.granted.saturating_sub(self.received)
    }
}

/// The grant scheduler of one receiving link. See the module documentation.
#[derive(Debug)]
pub struct Grants {
    config: GrantConfig,
    /// Slot -> key in `messages`, or `NONE`.
    keys: Vec<u32>,
    messages: Slab<Message>,
    active: Vec<u32>,
    queue: Queue,
    /// Messages with packets since the last poll, in order of arrival.
    dirty: Vec<(u32, u32)>,
    next_stamp: u32,
    total_incoming: u64,
    total_fifo_credit: u64,
    /// Cap on `total_incoming` for now: at most `max_incoming`, less where others share that.
    share: u64,
    fifo: Fifo,
    bucket: Option<Bucket>,
}

impl Grants {
    /// No messages.
    pub fn new(mut config: GrantConfig) -> Grants {
        config.max_overcommit = config.max_overcommit.clamp(1, MAX_ACTIVE);
        config.num_priorities = config.num_priorities.clamp(1, 8);
        config.max_sched_prio = config.max_sched_prio.min(config.num_priorities - 1);
        config.fifo_grant_increment = config.fifo_grant_increment.max(1);
        Grants {
            config,
            keys: Vec::new(),
            messages: Slab::new(),
            active: Vec::with_capacity(MAX_ACTIVE),
            queue: Queue::default(),
            dirty: Vec::new(),
            next_stamp: 0,
            total_incoming: 0,
            total_fifo_credit: 0,
            share: config.max_incoming,
            fifo: Fifo::new(&config),
            bucket: config.bucket.map(Bucket::new),
        }
    }

    /// Starts to manage a message: `granted` is its unscheduled part, `received`
    /// the bytes already here. To be called once buffers exist. A message that
    /// needs no grant (nothing beyond `granted`, or complete) is refused with
    /// false, as is a slot already managed.
    pub fn manage(
        &mut self,
        slot: u32,
        peer: u32,
        length: u32,
        granted: u32,
        received: u32,
        birth: Instant,
    ) -> bool {
        if granted >= length || received >= length || self.is_managed(slot) {
            return false;
        }
        let message = Message {
            slot,
            peer,
            length,
            received,
            granted,
            birth,
            srpt_limit: self.config.srpt_limit,
            fifo_credit: 0,
            stamp: self.next_stamp,
            is_active: false,
            is_needy: false,
            is_dirty: false,
            is_aging: true,
        };
        self.next_stamp = self.next_stamp.wrapping_add(1);
        self.total_incoming += u64::from(message.incoming());
        self.fifo.insert(birth, slot);
        let rank = message.rank();
        let key = self.messages.insert(message) as u32;
        if self.keys.len() <= slot as usize {
            self.keys.resize(slot as usize + 1, NONE);
        }
        self.keys[slot as usize] = key;
        self.queue.insert(peer, rank, key);
        self.try_activate(key);
        self.mark_dirty(key);
        true
    }

    /// Reports how many distinct bytes of a message have arrived so far. A
    /// complete message leaves management by itself; an unknown slot is ignored.
    pub fn on_received(&mut self, slot: u32, received: u32) {
        let Some(key) = self.key_of(slot) else { return };
        let message = &mut self.messages[key as usize];
        let received = received.clamp(message.received, message.length);
        if received == message.length {
            self.remove(slot);
            return;
        }
        let (before, old_rank, peer) = (message.incoming(), message.rank(), message.peer);
        message.received = received;
        let incoming = message.incoming();
        let credit = message.fifo_credit.min(incoming);
        self.total_incoming -= u64::from(before - incoming);
        self.total_fifo_credit -= u64::from(message.fifo_credit - credit);
        message.fifo_credit = credit;
        if !message.is_aging && message.granted < message.length {
            message.is_aging = true;
            self.fifo.insert(message.birth, slot);
        }
        if !message.is_active {
            let rank = message.rank();
            if rank != old_rank {
                self.queue.set_rank(peer, rank, key);
            }
            self.try_activate(key);
        }
        self.mark_dirty(key);
    }

    /// Stops managing a message (complete, failed or abandoned). The slot it
    /// held in the active set goes to the next in line. Unknown slots are ignored.
    pub fn remove(&mut self, slot: u32) {
        let Some(key) = self.key_of(slot) else { return };
        let message = self.messages.remove(key as usize);
        self.keys[slot as usize] = NONE;
        self.total_incoming -= u64::from(message.incoming());
        self.total_fifo_credit -= u64::from(message.fifo_credit);
        self.fifo.remove(message.birth, slot);
        if message.is_active {
            self.active.retain(|&k| k != key);
            self.queue.on_inactive(message.peer);
            self.promote();
        } else {
            self.queue.remove(message.peer, key);
        }
    }

    /// Tells the highest priority for scheduled data and the new table, after cutoffs changed.
    pub fn set_cutoffs(&mut self, max_sched_prio: u8, cutoffs: &[u32; LEVELS]) {
        self.config.max_sched_prio = max_sched_prio.min(self.config.num_priorities - 1);
        self.config.cutoffs = *cutoffs;
    }

    /// Caps the authorised bytes at a part of `max_incoming`. The window of a message remains a part
    /// of the whole: a message that could be granted, but for the share, must be known to be needy.
    pub fn set_share(&mut self, bytes: u64) {
        self.share = bytes.min(self.config.max_incoming);
    }

    /// Appends the grants that are due. To be called after each batch of
    /// packets, and when [`Grants::next_time`] has come.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<GrantOut>) {
        if let Some(bucket) = &mut self.bucket {
            bucket.refill(now);
        }
        for at in 0..self.dirty.len() {
            let (key, stamp) = self.dirty[at];
            let message = self.messages.get_mut(key as usize);
            let Some(message) = message.filter(|m| m.stamp == stamp) else {
                continue;
            };
            message.is_dirty = false;
            if message.is_active {
                self.try_send(now, key, true, out);
            }
        }
        self.dirty.clear();
        while self.has_room() {
            let Some(key) = self.best_needy() else { break };
            self.messages[key as usize].is_needy = false;
            if !self.try_send(now, key, false, out) {
                break;
            }
        }
        self.check_invariants();
    }

    /// Whether [`Grants::poll`] may have something to do now.
    #[inline]
    pub fn wants_poll(&self) -> bool {
        !self.dirty.is_empty() || (!self.active.is_empty() && self.has_room() && self.best_needy().is_some())
    }

    /// When a grant held back by the rate limit alone can be sent.
    #[inline]
    pub fn next_time(&self) -> Option<Instant> {
        let bucket = self.bucket.as_ref()?;
        let room = self.share.saturating_sub(self.total_incoming);
        if room == 0 {
            return None;
        }
        let key = self.best_needy()?;
        let wanted = self.wanted(&self.messages[key as usize]);
        Some(bucket.ready_at(wanted.min(u32::try_from(room).unwrap_or(u32::MAX))))
    }

    /// Bytes left of the shortest message that could use a grant but found no room.
    pub fn shortest_needy(&self) -> Option<u32> {
        self.best_needy().map(|key| self.messages[key as usize].rank().0)
    }

    /// Bytes authorised but not received, over all managed messages.
    pub fn total_incoming(&self) -> u64 {
        self.total_incoming
    }

    /// Those of them that FIFO grants authorised.
    pub fn total_fifo_credit(&self) -> u64 {
        self.total_fifo_credit
    }

    /// Messages in the active set.
    pub fn n_active(&self) -> usize {
        self.active.len()
    }

    /// Managed messages, active or queued.
    pub fn n_managed(&self) -> usize {
        self.messages.len()
    }

    /// Whether the slot is managed.
    pub fn is_managed(&self, slot: u32) -> bool {
        self.key_of(slot).is_some()
    }

    /// Whether the slot is in the active set.
    pub fn is_active(&self, slot: u32) -> bool {
        self.key_of(slot).is_some_and(|key| self.messages[key as usize].is_active)
    }

    /// Offset up to which a managed message is granted.
    pub fn granted(&self, slot: u32) -> Option<u32> {
        self.key_of(slot).map(|key| self.messages[key as usize].granted)
    }

    fn key_of(&self, slot: u32) -> Option<u32> {
        self.keys.get(slot as usize).copied().filter(|&key| key != NONE)
    }

    fn mark_dirty(&mut self, key: u32) {
        let message = &mut self.messages[key as usize];
        if !message.is_dirty {
            message.is_dirty = true;
            self.dirty.push((key, message.stamp));
        }
    }

    /// Bytes an active message may run ahead of what was received of it.
    fn window(&self) -> u64 {
        match self.config.window {
            0 => self.config.max_incoming / (self.active.len() as u64 + 1),
            window => u64::from(window),
        }
    }

    fn has_room(&self) -> bool {
        self.total_incoming < self.share && self.bucket.as_ref().is_none_or(Bucket::has_tokens)
    }

    fn outranks(&self, a: u32, b: u32) -> bool {
        self.messages[a as usize].rank() < self.messages[b as usize].rank()
    }

    fn best_needy(&self) -> Option<u32> {
        let needy = self.active.iter().copied().filter(|&k| self.messages[k as usize].is_needy);
        needy.min_by_key(|&k| self.messages[k as usize].rank())
    }

    /// Puts a queued message into the active set if it heads its peer's queue
    /// and there is a free place or a victim.
    fn try_activate(&mut self, key: u32) {
        let peer = self.messages[key as usize].peer;
        if self.queue.head(peer) != Some(key) {
            return;
        }
        if self.active.len() >= self.config.max_overcommit {
            let Some(victim) = self.find_victim(key) else {
                return;
            };
            self.deactivate(victim);
        }
        self.activate(key);
    }

    /// The active message `key` may replace: of the peer with most active
    /// messages (counted as if `key` were one of them), the worst in rank.
    fn find_victim(&self, key: u32) -> Option<u32> {
        let own = self.messages[key as usize].peer;
        let count = |k: u32| {
            let peer = self.messages[k as usize].peer;
            self.queue.active(peer) + u32::from(peer == own)
        };
        let worst = |&k: &u32| (count(k), self.messages[k as usize].rank());
        let victim = self.active.iter().copied().max_by_key(worst)?;
        let is_fairer = count(victim) > self.queue.active(own) + 1;
        (is_fairer || self.outranks(key, victim)).then_some(victim)
    }

    fn activate(&mut self, key: u32) {
        let message = &mut self.messages[key as usize];
        message.is_active = true;
        let peer = message.peer;
        self.queue.remove(peer, key);
        self.queue.on_active(peer);
        self.active.push(key);
    }

    /// Sends an active message back to its queue; it keeps what it was granted.
    fn deactivate(&mut self, key: u32) {
        let message = &mut self.messages[key as usize];
        message.is_active = false;
        message.is_needy = false;
        let (peer, rank) = (message.peer, message.rank());
        self.active.retain(|&k| k != key);
        self.queue.on_inactive(peer);
        self.queue.insert(peer, rank, key);
    }

    /// Fills a freed place: the head of the best peer without active messages,
    /// else of the peer with fewest.
    fn promote(&mut self) {
        if let Some(key) = self.queue.next() {
            self.activate(key);
            self.messages[key as usize].is_needy = true;
        }
    }

    /// Bytes an active message could be granted if there were room.
    fn wanted(&self, message: &Message) -> u32 {
        let until = u64::from(message.received) + self.window();
        let until = until.min(u64::from(message.length)) as u32;
        until.saturating_sub(message.base())
    }

    /// Grants what the window and the room allow. Returns false if only the
    /// rate limit stood in the way.
    fn try_send(&mut self, now: Instant, key: u32, respect_needy: bool, out: &mut Vec<GrantOut>) -> bool {
        let mut bytes = self.wanted(&self.messages[key as usize]);
        let message = &self.messages[key as usize];
        let is_last = bytes == message.length - message.base();
        if bytes == 0 || (bytes < self.config.min_grant && !is_last && message.incoming() > 0) {
            return true;
        }
        let room = self.share.saturating_sub(self.total_incoming);
        if room == 0 || (respect_needy && self.best_needy().is_some()) {
            self.messages[key as usize].is_needy = true;
            return true;
        }
        let mut is_short = u64::from(bytes) > room;
        if is_short {
            bytes = room as u32;
        }
        if let Some(bucket) = &mut self.bucket {
            let taken = bucket.take(bytes);
            is_short |= taken < bytes;
            bytes = taken;
        }
        self.messages[key as usize].is_needy = is_short;
        if bytes == 0 {
            return false;
        }
        let priority = self.priority(key);
        self.grant(key, bytes, priority, out);
        self.fifo_check(now, out);
        true
    }

    fn grant(&mut self, key: u32, bytes: u32, priority: u8, out: &mut Vec<GrantOut>) {
        let message = &mut self.messages[key as usize];
        let before = message.incoming();
        message.granted = message.base() + bytes;
        debug_assert!(message.granted <= message.length, "granted beyond the message");
        self.total_incoming += u64::from(message.incoming() - before);
        out.push(GrantOut { slot: message.slot, offset: message.granted, priority });
    }

    /// Scheduled priority by rank among the active messages. Few of them use
    /// only the lowest levels, so that a newcomer can be put above.
    fn priority(&self, key: u32) -> u8 {
        let rank = self.active.iter().filter(|&&k| self.outranks(k, key)).count() as i32;
        let top = i32::from(self.config.max_sched_prio);
        let extra = (top + 1 - self.active.len() as i32).max(0);
        let level = (top - rank - extra).max(0) as u8;
        let message = &self.messages[key as usize];
        let left = message.length - message.base();
        if left < self.config.tail_boost_bytes { level.max(self.unscheduled_level(left)) } else { level }
    }

    /// The level of unscheduled data of messages of so many bytes.
    fn unscheduled_level(&self, bytes: u32) -> u8 {
        let levels = usize::from(self.config.num_priorities);
        let top = self.config.cutoffs[..levels].iter().rposition(|&cutoff| cutoff >= bytes);
        top.unwrap_or(0) as u8
    }

    /// After a normal grant: once per interval, some bytes for the oldest
    /// message, whatever its rank and whatever is incoming.
    fn fifo_check(&mut self, now: Instant, out: &mut Vec<GrantOut>) {
        if !self.fifo.is_due(now) {
            return;
        }
        let increment = self.config.fifo_grant_increment;
        let limit = self.window() + 2 * u64::from(increment);
        while let Some((birth, slot)) = self.fifo.oldest() {
            let key = self.keys[slot as usize];
            let message = &mut self.messages[key as usize];
            let left = message.length - message.base();
            if left == 0 || u64::from(message.incoming()) >= limit {
                // Fully granted, or not sending: back in line with its next packet.
                message.is_aging = false;
                self.fifo.remove(birth, slot);
                continue;
            }
            let bytes = left.min(increment);
            let before = message.incoming();
            let level = self.config.fifo_grant_priority.min(self.config.num_priorities - 1);
            self.grant(key, bytes, level, out);
            let message = &mut self.messages[key as usize];
            let credit = message.incoming() - before;
            message.fifo_credit += credit;
            self.total_fifo_credit += u64::from(credit);
            if let Some(bucket) = &mut self.bucket {
                bucket.charge(bytes);
            }
            return;
        }
    }

    /// Recomputes every total the slow way; debug builds only, small sets only.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) || self.messages.len() > 64 {
            return;
        }
        let sum = |f: fn(&Message) -> u32| self.messages.iter().map(|(_, m)| u64::from(f(m))).sum::<u64>();
        assert_eq!(sum(Message::incoming), self.total_incoming, "incoming total drifted");
        assert_eq!(sum(|m| m.fifo_credit), self.total_fifo_credit, "credit total drifted");
        assert!(self.active.len() <= self.config.max_overcommit, "too many active messages");
        let is_full = self.active.len() == self.config.max_overcommit;
        assert!(is_full || self.queue.is_empty(), "a message waits beside a free place");
        for (_, m) in &self.messages {
            assert!(m.received < m.length && m.granted <= m.length, "message out of range");
            assert!(m.fifo_credit <= m.incoming(), "credit exceeds incoming bytes");
            assert!(m.is_active || !m.is_needy, "a queued message is needy");
        }
    }
}

/// Time between two FIFO grants: `increment` bytes at `fraction`/1000 of the link.
fn fifo_interval(config: &GrantConfig) -> Option<Duration> {
    let fraction = u64::from(config.grant_fifo_fraction.min(500));
    if fraction == 0 {
        return None;
    }
    let mbps = u64::from(config.link_mbps.max(1));
    let bits = u64::from(config.fifo_grant_increment) * 8;
    Some(Duration::from_nanos(bits * 1_000_000 / (mbps * fraction)))
}

#[cfg(test)]
mod tests;
