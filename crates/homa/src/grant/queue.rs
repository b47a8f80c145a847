//! Messages waiting for a place in the active set: one heap per peer, and the
//! peers in the order in which their head would be promoted.
//!
//! It also counts the active messages of each peer, because that count decides
//! the order: fewest active first, then the better head. Every operation is
//! O(log n).

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::Rank;
use super::heap::{Heap, Places};

#[derive(Debug, Default)]
struct Peer {
    waiting: Heap,
    active: u32,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Queue {
    peers: HashMap<u32, Peer, foldhash::fast::FixedState>,
    places: Places,
    /// Peers with a waiting message: (active count, rank of the head, peer).
    order: BTreeSet<(u32, Rank, u32)>,
}

impl Queue {
    pub(super) fn insert(&mut self, peer: u32, rank: Rank, key: u32) {
        self.change(peer, |p, places| p.waiting.push(rank, key, places));
    }

    /// Takes out a waiting message.
    pub(super) fn remove(&mut self, peer: u32, key: u32) {
        self.change(peer, |p, places| p.waiting.remove(key, places));
    }

    /// Moves a waiting message to its new rank.
    pub(super) fn set_rank(&mut self, peer: u32, rank: Rank, key: u32) {
        self.change(peer, |p, places| p.waiting.set_rank(key, rank, places));
    }

    /// One more message of this peer is active.
    pub(super) fn on_active(&mut self, peer: u32) {
        self.change(peer, |p, _| p.active += 1);
    }

    /// One message less of this peer is active.
    pub(super) fn on_inactive(&mut self, peer: u32) {
        self.change(peer, |p, _| p.active -= 1);
    }

    /// The best waiting message of a peer.
    pub(super) fn head(&self, peer: u32) -> Option<u32> {
        self.peers.get(&peer)?.waiting.first().map(|(_, key)| key)
    }

    /// The message to promote next.
    pub(super) fn next(&self) -> Option<u32> {
        self.order.first().and_then(|&(_, _, peer)| self.head(peer))
    }

    /// Active messages of a peer.
    pub(super) fn active(&self, peer: u32) -> u32 {
        self.peers.get(&peer).map_or(0, |p| p.active)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Applies a change and moves the peer to its new place in the order.
    fn change(&mut self, peer: u32, f: impl FnOnce(&mut Peer, &mut Places)) {
        let entry = self.peers.entry(peer).or_default();
        let place = |p: &Peer| p.waiting.first().map(|(rank, _)| (p.active, rank, peer));
        let before = place(entry);
        f(entry, &mut self.places);
        let after = place(entry);
        let is_unused = entry.active == 0 && entry.waiting.is_empty();
        if before != after {
            if let Some(before) = before {
                self.order.remove(&before);
            }
            if let Some(after) = after {
                self.order.insert(after);
            }
        }
        if is_unused {
            self.peers.remove(&peer);
        }
    }
}
