//! Finds RPCs by what packets say: a client's by its id, a server's by peer and id.
//!
//! A client numbers its requests one after the other, and most of them are over soon. So nearly every RPC that
//! is asked for is the last one whose number has its place in a small table, and is found there without a
//! hash. Whoever needs a place that is taken moves its occupant to a hash map.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Places in the table, a power of two: together a small part of the first-level cache.
const RECENT: usize = 256;

/// A place of the table: an RPC, or the id 0, which no RPC has.
#[derive(Copy, Clone, Debug)]
struct Recent {
    id: u64,
    peer: u32,
    slot: u32,
}

/// RPCs of one role. Their order does not matter: nothing walks over them. The hashes are keyed, for ids of
/// requests are chosen by others, who can make an RPC move to the hash map but not slower than that.
#[derive(Debug)]
pub(crate) struct Lookup {
    recent: Box<[Recent; RECENT]>,
    in_recent: usize,
    others: HashMap<(u32, u64), u32, FixedState>,
}

/// Place of an id in the table. The lowest bit says whose id it is.
fn place_of(id: u64) -> usize {
    (id >> 1) as usize % RECENT
}

impl Lookup {
    fn new(state: FixedState) -> Lookup {
        let recent = Box::new([Recent { id: 0, peer: 0, slot: 0 }; RECENT]);
        Lookup { recent, in_recent: 0, others: HashMap::with_hasher(state) }
    }

    /// The slot of an RPC.
    #[inline]
    pub fn get(&self, peer: u32, id: u64) -> Option<u32> {
        let recent = &self.recent[place_of(id)];
        if (recent.id, recent.peer) == (id, peer) {
            return Some(recent.slot);
        }
        if self.others.is_empty() { None } else { self.others.get(&(peer, id)).copied() }
    }

    /// Enters an RPC that is not there, with an id other than 0.
    #[inline]
    pub fn insert(&mut self, peer: u32, id: u64, slot: u32) {
        let place = &mut self.recent[place_of(id)];
        let before = core::mem::replace(place, Recent { id, peer, slot });
        if before.id == 0 {
            self.in_recent += 1;
        } else {
            self.others.insert((before.peer, before.id), before.slot);
        }
    }

    /// Forgets an RPC.
    #[inline]
    pub fn remove(&mut self, peer: u32, id: u64) {
        let recent = &mut self.recent[place_of(id)];
        if (recent.id, recent.peer) == (id, peer) {
            recent.id = 0;
            self.in_recent -= 1;
        } else {
            self.others.remove(&(peer, id));
        }
    }

    /// Number of RPCs.
    pub fn len(&self) -> usize {
        self.in_recent + self.others.len()
    }
}

/// The RPCs of an endpoint. Ids of requests are unique per client host only.
#[derive(Debug)]
pub(crate) struct Index {
    /// Our own requests, as those of peer 0.
    clients: Lookup,
    servers: Lookup,
}

impl Index {
    /// Without RPCs; `seed` keys the hashes.
    pub fn new(seed: u64) -> Index {
        let state = FixedState::with_seed(seed);
        Index { clients: Lookup::new(state.clone()), servers: Lookup::new(state) }
    }

    /// A request of ours.
    #[inline]
    pub fn client(&self, id: u64) -> Option<u32> {
        self.clients.get(0, id)
    }

    /// A request of a peer's.
    #[inline]
    pub fn server(&self, peer: u32, id: u64) -> Option<u32> {
        self.servers.get(peer, id)
    }

    /// Enters an RPC with a peer; even ids are our own.
    #[inline]
    pub fn insert(&mut self, peer: u32, id: u64, slot: u32) {
        match id & 1 {
            0 => self.clients.insert(0, id, slot),
            _ => self.servers.insert(peer, id, slot),
        }
    }

    /// Forgets an RPC with a peer.
    #[inline]
    pub fn remove(&mut self, peer: u32, id: u64) {
        match id & 1 {
            0 => self.clients.remove(0, id),
            _ => self.servers.remove(peer, id),
        }
    }

    /// Number of requests of ours.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Number of requests of others.
    #[cfg(test)]
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peyk_sansio::Prng;
    use std::collections::BTreeMap;

    #[test]
    fn ids_of_one_place_are_all_found() {
        let mut index = Index::new(1);
        let ids = [2, 2 + 2 * RECENT as u64, 2 + 4 * RECENT as u64];
        for (slot, id) in ids.into_iter().enumerate() {
            index.insert(9, id, slot as u32);
            // A peer may use the same ids as another, and as we do.
            index.insert(3, id + 1, 10 + slot as u32);
            index.insert(4, id + 1, 20 + slot as u32);
        }
        for (slot, id) in ids.into_iter().enumerate() {
            let slot = slot as u32;
            assert_eq!(index.client(id), Some(slot));
            assert_eq!(
                (index.server(3, id + 1), index.server(4, id + 1)),
                (Some(10 + slot), Some(20 + slot))
            );
            assert_eq!(index.server(5, id + 1), None);
        }
        assert_eq!((index.client_count(), index.server_count()), (3, 6));
    }

    #[test]
    fn random_operations_agree_with_a_map() {
        for seed in 0..50 {
            let mut random = Prng::new(seed);
            let (mut index, mut model) = (Index::new(seed), BTreeMap::new());
            for step in 0..2_000 {
                let (peer, id) = (random.below(3) as u32, 2 + random.below(3 * RECENT as u64));
                let key = if id & 1 == 0 { (0, id) } else { (peer, id) };
                let found = if id & 1 == 0 { index.client(id) } else { index.server(peer, id) };
                assert_eq!(found, model.get(&key).copied(), "seed {seed}, step {step}");
                match found {
                    Some(_) => {
                        index.remove(peer, id);
                        model.remove(&key);
                    }
                    None => {
                        index.insert(peer, id, step);
                        model.insert(key, step);
                    }
                }
                assert_eq!(index.client_count() + index.server_count(), model.len());
            }
        }
    }
}
