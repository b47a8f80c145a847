//! Waiting messages of one peer, best rank first, with a cheap change of rank.
//!
//! Data of a waiting message improves its rank by a little with every packet,
//! and hardly ever moves it past another. So this is a heap in which the owner
//! of an entry knows its place: such a change costs one comparison with the
//! parent, where a search tree would take the entry out and put it in again.

use super::Rank;

const ARITY: usize = 4;

/// Where each message stands in its heap, by key. One table serves all heaps:
/// a message waits in one of them at a time.
pub(super) type Places = Vec<u32>;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Heap {
    items: Vec<(Rank, u32)>,
}

impl Heap {
    pub(super) fn push(&mut self, rank: Rank, key: u32, places: &mut Places) {
        if places.len() <= key as usize {
            places.resize(key as usize + 1, 0);
        }
        self.items.push((rank, key));
        self.rise(self.items.len() - 1, places);
    }

    /// Takes out a message that is in this heap.
    pub(super) fn remove(&mut self, key: u32, places: &mut Places) {
        let place = places[key as usize] as usize;
        debug_assert_eq!(self.items[place].1, key, "the message stands elsewhere");
        self.items.swap_remove(place);
        if place < self.items.len() {
            let place = self.rise(place, places);
            self.sink(place, places);
        }
    }

    /// Gives a message that is in this heap a new rank.
    pub(super) fn set_rank(&mut self, key: u32, rank: Rank, places: &mut Places) {
        let place = places[key as usize] as usize;
        debug_assert_eq!(self.items[place].1, key, "the message stands elsewhere");
        self.items[place].0 = rank;
        let place = self.rise(place, places);
        self.sink(place, places);
    }

    /// The best message.
    pub(super) fn first(&self) -> Option<(Rank, u32)> {
        self.items.first().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn rise(&mut self, mut place: usize, places: &mut Places) -> usize {
        let item = self.items[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.items[parent].0 <= item.0 {
                break;
            }
            self.put(place, self.items[parent], places);
            place = parent;
        }
        self.put(place, item, places);
        place
    }

    fn sink(&mut self, mut place: usize, places: &mut Places) {
        let item = self.items[place];
        loop {
            let children = ARITY * place + 1..(ARITY * place + 1 + ARITY).min(self.items.len());
            let Some(child) = children.min_by_key(|&child| self.items[child].0) else { break };
            if item.0 <= self.items[child].0 {
                break;
            }
            self.put(place, self.items[child], places);
            place = child;
        }
        self.put(place, item, places);
    }

    fn put(&mut self, place: usize, item: (Rank, u32), places: &mut Places) {
        self.items[place] = item;
        places[item.1 as usize] = place as u32;
    }
}
