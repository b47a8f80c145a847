//! The sending end of a link in a switch: its queues, who is served next, and what may wait.

use std::collections::{BTreeSet, VecDeque};

use crate::packet::PRIORITIES;
use crate::time::Picos;

/// What a port needs to know of a packet.
#[derive(Copy, Clone, Debug)]
pub struct Queued {
    /// The packet's key in the world.
    pub key: u32,
    /// Bytes on the wire.
    pub bytes: u32,
    /// 0 to 7.
    pub priority: u8,
    /// For service by rank.
    pub rank: u64,
}

/// Who is served next.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Discipline {
    /// The highest priority; within it, first come first served.
    StrictPriority,
    /// The lowest rank; of equal ranks the first. A full buffer drops the highest ranks, as many packets as
    /// the newcomer needs.
    LowestRank,
}

/// Lengths of the queues as packets found them.
#[derive(Clone, Debug, Default)]
pub struct QueueStats {
    /// Packets that came.
    pub arrivals: u64,
    /// Sum of the bytes that were there when they came, without the packet on the link.
    pub sum_bytes: u128,
    /// Most bytes that waited.
    pub max_bytes: u64,
    /// Packets that came, by priority.
    pub arrivals_by_priority: [u64; PRIORITIES],
    /// Sum of the bytes of their own priority that were there when they came.
    pub sum_by_priority: [u128; PRIORITIES],
    /// Most bytes that waited, by priority.
    pub max_by_priority: [u64; PRIORITIES],
    /// Packets dropped because the buffer was full.
    pub drops: u64,
    /// Packets marked.
    pub marks: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

impl QueueStats {
    /// Adds what another port has seen.
    pub fn add(&mut self, other: &QueueStats) {
        self.arrivals += other.arrivals;
        self.sum_bytes += other.sum_bytes;
        self.max_bytes = self.max_bytes.max(other.max_bytes);
        for level in 0..PRIORITIES {
            self.arrivals_by_priority[level] += other.arrivals_by_priority[level];
            self.sum_by_priority[level] += other.sum_by_priority[level];
            self.max_by_priority[level] = self.max_by_priority[level].max(other.max_by_priority[level]);
        }
        self.drops += other.drops;
        self.marks += other.marks;
        self.sent_bytes += other.sent_bytes;
    }

    /// Mean bytes found waiting.
    pub fn mean_bytes(&self) -> f64 {
        self.sum_bytes as f64 / self.arrivals.max(1) as f64
    }

    /// Mean bytes of its own priority that a packet of this priority found waiting.
    pub fn mean_bytes_of(&self, level: usize) -> f64 {
        self.sum_by_priority[level] as f64 / self.arrivals_by_priority[level].max(1) as f64
    }
}

/// What became of a packet that was offered to a port.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Offer {
    /// It waits, or is the next to be sent.
    Taken,
    /// It waits and is to be marked.
    TakenMarked,
    /// There was no room for it.
    Dropped,
}

/// A port.
#[derive(Debug)]
pub struct Port {
    ps_per_byte: u64,
    buffer_bytes: u64,
    mark_bytes: u64,
    discipline: Discipline,
    queues: [VecDeque<(u32, u32)>; PRIORITIES],
    /// One bit per queue that holds something.
    filled: u8,
    by_rank: BTreeSet<(u64, u64, u32, u32)>,
    arrivals: u64,
    bytes: u64,
    bytes_by_priority: [u64; PRIORITIES],
    /// When the link will have sent what it was given.
    free_at: Picos,
    /// Someone will ask for the next packet when the link is free.
    pub is_armed: bool,
    /// Lengths seen, and losses.
    pub stats: QueueStats,
}

impl Port {
    /// An empty port.
    pub fn new(ps_per_byte: u64, buffer: Option<u64>, mark: Option<u64>, discipline: Discipline) -> Port {
        Port {
            ps_per_byte,
            buffer_bytes: buffer.unwrap_or(u64::MAX),
            mark_bytes: mark.unwrap_or(u64::MAX),
            discipline,
            queues: Default::default(),
            filled: 0,
            by_rank: BTreeSet::new(),
            arrivals: 0,
            bytes: 0,
            bytes_by_priority: [0; PRIORITIES],
            free_at: Picos::ZERO,
            is_armed: false,
            stats: QueueStats::default(),
        }
    }

    /// When the link is free.
    pub fn free_at(&self) -> Picos {
        self.free_at
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// A packet has come for this link. The keys of packets that give way to it are added to `victims`.
    pub fn offer(&mut self, packet: Queued, victims: &mut Vec<u32>) -> Offer {
        let level = usize::from(packet.priority) % PRIORITIES;
        self.sample(level);
        self.arrivals += 1;
        let excess = (self.bytes + u64::from(packet.bytes)).saturating_sub(self.buffer_bytes);
        if excess > 0 && !self.evict(packet.rank, excess, victims) {
            self.stats.drops += 1;
            return Offer::Dropped;
        }
        self.insert(packet, level);
        if self.bytes > self.mark_bytes {
            self.stats.marks += 1;
            return Offer::TakenMarked;
        }
        Offer::Taken
    }

    /// Begins to send the next packet at `now`; gives its key and when all of it will have been sent.
    pub fn start(&mut self, now: Picos) -> Option<(u32, Picos)> {
        let (key, bytes) = match self.discipline {
            Discipline::StrictPriority => {
                let level = self.filled.checked_ilog2()? as usize;
                let queue = &mut self.queues[level];
                let (key, bytes) = queue.pop_front()?;
                if queue.is_empty() {
                    self.filled &= !(1 << level);
                }
                self.bytes_by_priority[level] -= u64::from(bytes);
                (key, bytes)
            }
            Discipline::LowestRank => {
                let (_, _, key, bytes) = self.by_rank.pop_first()?;
                (key, bytes)
            }
        };
        self.bytes -= u64::from(bytes);
        self.stats.sent_bytes += u64::from(bytes);
        self.free_at = now + Picos(u64::from(bytes) * self.ps_per_byte);
        Some((key, self.free_at))
    }

    fn insert(&mut self, packet: Queued, level: usize) {
        self.bytes += u64::from(packet.bytes);
        match self.discipline {
            Discipline::StrictPriority => {
                self.queues[level].push_back((packet.key, packet.bytes));
                self.filled |= 1 << level;
                self.bytes_by_priority[level] += u64::from(packet.bytes);
            }
            Discipline::LowestRank => {
                self.by_rank.insert((packet.rank, self.arrivals, packet.key, packet.bytes));
            }
        }
    }

    /// Takes out the worst packets until `excess` bytes are free. If those worse than `rank` are not enough,
    /// all of them stay, and false is returned.
    fn evict(&mut self, rank: u64, excess: u64, victims: &mut Vec<u32>) -> bool {
        let worse = self.by_rank.iter().rev().take_while(|waiting| waiting.0 > rank);
        let (mut freed, mut count) = (0, 0);
        for &(_, _, _, bytes) in worse {
            freed += u64::from(bytes);
            count += 1;
            if freed >= excess {
                break;
            }
        }
        if freed < excess {
            return false;
        }
        self.bytes -= freed;
        self.stats.drops += count;
        victims.extend((0..count).filter_map(|_| self.by_rank.pop_last()).map(|(_, _, key, _)| key));
        true
    }

    fn sample(&mut self, level: usize) {
        let stats = &mut self.stats;
        stats.arrivals += 1;
        stats.sum_bytes += u128::from(self.bytes);
        stats.max_bytes = stats.max_bytes.max(self.bytes);
        if self.discipline == Discipline::StrictPriority {
            let bytes = self.bytes_by_priority[level];
            stats.arrivals_by_priority[level] += 1;
            stats.sum_by_priority[level] += u128::from(bytes);
            stats.max_by_priority[level] = stats.max_by_priority[level].max(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(key: u32, priority: u8, rank: u64) -> Queued {
        Queued { key, bytes: 100, priority, rank }
    }

    fn offer(port: &mut Port, packet: Queued) -> (Offer, Vec<u32>) {
        let mut victims = Vec::new();
        (port.offer(packet, &mut victims), victims)
    }

    fn served(port: &mut Port) -> Vec<u32> {
        core::iter::from_fn(|| port.start(Picos::ZERO).map(|(key, _)| key)).collect()
    }

    #[test]
    fn start__highest_priority_first_then_first_come() {
        let mut port = Port::new(800, None, None, Discipline::StrictPriority);
        for (key, priority) in [(1, 0), (2, 7), (3, 0), (4, 7), (5, 3)] {
            assert_eq!(offer(&mut port, packet(key, priority, 0)), (Offer::Taken, vec![]));
        }
        assert_eq!(port.bytes(), 500);
        assert_eq!(served(&mut port), [2, 4, 5, 1, 3]);
        assert!(port.is_empty());
    }

    #[test]
    fn stats__mean_is_of_the_own_priority() {
        let mut port = Port::new(800, None, None, Discipline::StrictPriority);
        for priority in [7, 7, 7, 0] {
            offer(&mut port, packet(1, priority, 0));
        }
        assert_eq!((port.stats.mean_bytes_of(7), port.stats.mean_bytes_of(0)), (100.0, 0.0));
        assert_eq!(port.stats.mean_bytes(), 150.0);
        assert_eq!(port.stats.arrivals_by_priority, [1, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn start__takes_the_time_of_the_bytes() {
        let mut port = Port::new(800, None, None, Discipline::StrictPriority);
        offer(&mut port, packet(1, 0, 0));
        assert_eq!(port.start(Picos(1_000)), Some((1, Picos(81_000))));
        assert_eq!(port.free_at(), Picos(81_000));
    }

    #[test]
    fn offer__full_buffer_drops_the_newcomer() {
        let mut port = Port::new(800, Some(250), Some(150), Discipline::StrictPriority);
        assert_eq!(offer(&mut port, packet(1, 0, 0)), (Offer::Taken, vec![]));
        assert_eq!(offer(&mut port, packet(2, 0, 0)), (Offer::TakenMarked, vec![]));
        assert_eq!(offer(&mut port, packet(3, 7, 0)), (Offer::Dropped, vec![]));
        assert_eq!((port.stats.drops, port.stats.marks), (1, 1));
    }

    #[test]
    fn offer__by_rank_the_worst_gives_way() {
        let mut port = Port::new(800, Some(250), None, Discipline::LowestRank);
        offer(&mut port, packet(1, 0, 50));
        offer(&mut port, packet(2, 0, 90));
        assert_eq!(offer(&mut port, packet(3, 0, 10)), (Offer::Taken, vec![2]));
        assert_eq!(offer(&mut port, packet(4, 0, 60)), (Offer::Dropped, vec![]));
        assert_eq!(served(&mut port), [3, 1]);
    }

    #[test]
    fn offer__by_rank_as_many_give_way_as_the_newcomer_needs() {
        let mut port = Port::new(800, Some(400), None, Discipline::LowestRank);
        for (key, rank) in [(1, 50), (2, 90), (3, 70), (4, 5)] {
            offer(&mut port, packet(key, 0, rank));
        }
        // Two are worse, three would have to go: all stay.
        let large = |key, rank| Queued { key, bytes: 300, priority: 0, rank };
        assert_eq!(offer(&mut port, large(5, 60)), (Offer::Dropped, vec![]));
        assert_eq!(port.bytes(), 400);
        assert_eq!(offer(&mut port, large(6, 10)), (Offer::Taken, vec![2, 3, 1]));
        assert_eq!((port.bytes(), port.stats.drops), (400, 4));
        assert_eq!(served(&mut port), [4, 6]);
    }
}
