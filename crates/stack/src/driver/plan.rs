//! Which packets of a burst travel together.
//!
//! A train holds packets for one destination at one priority, all of one length except the last,
//! which may be shorter. Packets may change places to make longer trains, within limits: never
//! across a change of priority, never a control packet (which has no payload) behind data, and
//! never two packets of one message. A small packet never waits for a longer train behind it.

use std::net::SocketAddr;

/// What the plan must know about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) local: u16,
    pub(crate) remote: &'a SocketAddr,
    pub(crate) priority: u8,
    pub(crate) control: bool,
    pub(crate) len: usize,
    /// Packets with the same key keep their order.
    pub(crate) key: u64,
}

/// A train under way.
#[derive(Debug, Clone)]
struct Planned {
    local: u16,
    remote: SocketAddr,
    packets: usize,
    segment: usize,
    bytes: usize,
    /// Most packets and bytes.
    room: (usize, usize),
    /// Its last packet is shorter: complete.
    closed: bool,
    /// The earliest train that its (only) packet may join.
    floor: usize,
}

/// How many trains back a packet looks for company.
const LOOK_BACK: usize = 16;
/// How many packets back are searched for one of the same message.
const KEY_BACK: usize = 64;

/// Plans bursts packet by packet; keeps its memory between them.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    trains: Vec<Planned>,
    /// For each packet of the burst: its key and train.
    placed: Vec<(u64, usize)>,
    /// Priority of the latest packet, and whether it was control.
    class: (u8, bool),
    /// The first train of that class.
    barrier: usize,
}

/// Most packets and bytes in a train.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) packets: usize,
    pub(crate) bytes: usize,
    pub(crate) short: Short,
}

/// A lower limit for trains of short packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short {
    /// Longest packet that counts as short.
    pub(crate) bytes: usize,
    /// Most of them in a train.
    pub(crate) packets: usize,
}

impl Limits {
    fn packets(&self, segment: usize) -> usize {
        if segment <= self.short.bytes { self.packets.min(self.short.packets) } else { self.packets }
    }
}

impl Planner {
    /// The train that the next packet of the burst goes to, counted from 0: one that is there, or the
    /// next one.
    #[inline]
    pub(crate) fn place(&mut self, item: &Item<'_>, limits: Limits) -> usize {
        let class = (item.priority, item.control);
        if self.trains.is_empty() {
            self.class = class;
            let train = self.open(item, 0, limits);
            self.add(train, item);
            return train;
        }
        if class != self.class {
            (self.class, self.barrier) = (class, self.trains.len());
        }
        // Behind everything before it there is nothing to check.
        let latest = self.trains.len().wrapping_sub(1);
        let train = if self.trains.len() > self.barrier && self.continues(latest, item) {
            latest
        } else {
            self.choose(item, limits)
        };
        self.add(train, item);
        train
    }

    /// Gives the packet placed last a train of its own, because that one could not take it.
    pub(crate) fn place_anew(&mut self, item: &Item<'_>, limits: Limits) {
        if let Some((_, train)) = self.placed.pop() {
            let train = &mut self.trains[train];
            (train.packets, train.bytes, train.closed) = (train.packets - 1, train.bytes - item.len, true);
        }
        let train = self.open(item, self.trains.len(), limits);
        self.add(train, item);
    }

    /// Packets in the burst.
    pub(crate) fn packets(&self) -> usize {
        self.placed.len()
    }

    /// The carriage socket of a train.
    pub(crate) fn local(&self, train: usize) -> u16 {
        self.trains[train].local
    }

    /// Whether the burst is one train that has all packets it may have.
    #[inline]
    pub(crate) fn is_one_full(&self) -> bool {
        matches!(&self.trains[..], [train] if train.packets >= train.room.0 && train.room.0 > 1)
    }

    /// Lets lone packets end an earlier train of longer ones: `join` is told which train goes to the end of
    /// which.
    pub(crate) fn join_tails(&mut self, mut join: impl FnMut(usize, usize)) {
        for t in 1..self.trains.len() {
            let Planned { packets: 1, segment: len @ 1.., local, remote, floor, .. } = self.trains[t] else {
                continue;
            };
            let host = (floor..t).rev().find(|&h| {
                let host = &self.trains[h];
                host.packets > 0 && host.segment > len && host.takes(local, &remote, len)
            });
            if let Some(host) = host {
                self.trains[t].packets = 0;
                let planned = &mut self.trains[host];
                planned.packets += 1;
                planned.bytes += len;
                planned.closed = true;
                join(t, host);
            }
        }
    }

    /// Begins the next burst.
    pub(crate) fn clear(&mut self) {
        self.trains.clear();
        self.placed.clear();
        self.barrier = 0;
    }

    fn choose(&mut self, item: &Item<'_>, limits: Limits) -> usize {
        let trains = self.trains.len();
        let floor = self.barrier.max(self.key_floor(item.key)).max(trains.saturating_sub(LOOK_BACK));
        let found = (floor..trains).rev().find(|&t| self.continues(t, item));
        found.unwrap_or_else(|| self.open(item, floor, limits))
    }

    #[inline]
    fn add(&mut self, train: usize, item: &Item<'_>) {
        self.trains[train].packets += 1;
        self.trains[train].bytes += item.len;
        self.placed.push((item.key, train));
    }

    /// The train that holds the latest packet of the same message: none before it may be joined.
    fn key_floor(&self, key: u64) -> usize {
        let recent = self.placed.iter().rev().take(KEY_BACK);
        match recent.clone().find(|(k, _)| *k == key) {
            Some((_, train)) => *train,
            None if self.placed.len() > KEY_BACK => self.trains.len(),
            None => 0,
        }
    }

    /// Whether the packet may follow the others of a train that are as long.
    #[inline]
    fn continues(&self, train: usize, item: &Item<'_>) -> bool {
        let train = &self.trains[train];
        train.segment == item.len && train.takes(item.local, item.remote, item.len)
    }

    fn open(&mut self, item: &Item<'_>, floor: usize, limits: Limits) -> usize {
        self.trains.push(Planned {
            local: item.local,
            remote: *item.remote,
            packets: 0,
            segment: item.len,
            bytes: 0,
            room: (limits.packets(item.len), limits.bytes),
            closed: item.len == 0,
            floor,
        });
        self.trains.len() - 1
    }
}

impl Planned {
    #[inline]
    fn takes(&self, local: u16, remote: &SocketAddr, len: usize) -> bool {
        !self.closed
            && self.packets < self.room.0
            && self.bytes + len <= self.room.1
            && (self.local, &self.remote) == (local, remote)
    }
}

#[cfg(test)]
mod tests;
