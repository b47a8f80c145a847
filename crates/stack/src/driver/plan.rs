//! Which packets of a burst travel together.
//!
//! A train holds packets for one destination at one priority, all of one length except the last,
//! which may be shorter. Packets may change places to make longer trains, within limits: never
//! across a change of priority, never a control packet (which has no payload) behind data, and
//! never two packets of one message. A small packet never waits for a longer train behind it.

use std::net::SocketAddr;

/// What the plan must know about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) local: u16,
    pub(crate) remote: SocketAddr,
    pub(crate) priority: u8,
    pub(crate) control: bool,
    pub(crate) len: usize,
    /// Packets with the same key keep their order.
    pub(crate) key: u64,
}

/// A train: indices of the packets, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Planned {
    pub(crate) packets: Vec<u16>,
    segment: usize,
    bytes: usize,
    /// Its last packet is shorter: complete.
    closed: bool,
    /// The earliest train that its (only) packet may join.
    floor: usize,
}

/// How many trains back a packet looks for company.
const LOOK_BACK: usize = 16;
/// How many packets back are searched for one of the same message.
const KEY_BACK: usize = 64;

/// Plans bursts; keeps its memory between them.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    trains: Vec<Planned>,
    /// Trains of the plan; the rest of `trains` is memory for later.
    used: usize,
    /// For each packet of the burst: its key and train.
    placed: Vec<(u64, usize)>,
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
    /// Groups the packets of a burst, at most 65536 of them.
    pub(crate) fn plan(&mut self, items: &[Item], limits: Limits) -> &[Planned] {
        self.used = 0;
        self.placed.clear();
        let mut barrier = 0;
        for (i, item) in items.iter().enumerate() {
            let class = |x: &Item| (x.priority, x.control);
            if i > 0 && class(item) != class(&items[i - 1]) {
                barrier = self.used;
            }
            if self.used > barrier
                && self.trains[self.used - 1].segment == item.len
                && self.joins(items, self.used - 1, item, limits)
            {
                // Behind everything before it: nothing to check.
                self.add(self.used - 1, i, item);
                continue;
            }
            let floor = barrier.max(self.key_floor(item.key)).max(self.used.saturating_sub(LOOK_BACK));
            let train = self.find(items, item, floor, limits).unwrap_or_else(|| self.open(item, floor));
            self.add(train, i, item);
        }
        self.join_tails(items, limits);
        &self.trains[..self.used]
    }

    fn add(&mut self, train: usize, index: usize, item: &Item) {
        self.trains[train].packets.push(index as u16);
        self.trains[train].bytes += item.len;
        self.placed.push((item.key, train));
    }

    /// The train that holds the latest packet of the same message: none before it may be joined.
    fn key_floor(&self, key: u64) -> usize {
        let recent = self.placed.iter().rev().take(KEY_BACK);
        match recent.clone().find(|(k, _)| *k == key) {
            Some((_, train)) => *train,
            None if self.placed.len() > KEY_BACK => self.used,
            None => 0,
        }
    }

    fn find(&self, items: &[Item], item: &Item, floor: usize, limits: Limits) -> Option<usize> {
        (floor..self.used).rev().find(|&t| {
            let train = &self.trains[t];
            train.segment == item.len && self.joins(items, t, item, limits)
        })
    }

    fn joins(&self, items: &[Item], train: usize, item: &Item, limits: Limits) -> bool {
        let train = &self.trains[train];
        let first = &items[usize::from(train.packets[0])];
        !train.closed
            && (first.local, first.remote) == (item.local, item.remote)
            && train.packets.len() < limits.packets(train.segment)
            && train.bytes + item.len <= limits.bytes
    }

    fn open(&mut self, item: &Item, floor: usize) -> usize {
        if self.used == self.trains.len() {
            self.trains.push(Planned::default());
        }
        let train = &mut self.trains[self.used];
        train.packets.clear();
        train.segment = item.len;
        train.bytes = 0;
        train.closed = item.len == 0;
        train.floor = floor;
        self.used += 1;
        self.used - 1
    }

    /// Lets lone packets end an earlier train of longer ones.
    fn join_tails(&mut self, items: &[Item], limits: Limits) {
        for t in 1..self.used {
            let [packet] = self.trains[t].packets[..] else { continue };
            let item = &items[usize::from(packet)];
            let host = (self.trains[t].floor..t).rev().find(|&h| {
                !self.trains[h].packets.is_empty()
                    && self.trains[h].segment > item.len
                    && item.len > 0
                    && self.joins(items, h, item, limits)
            });
            if let Some(host) = host {
                self.trains[t].packets.clear();
                let host = &mut self.trains[host];
                host.packets.push(packet);
                host.bytes += item.len;
                host.closed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
