//! Operations in flight, found by slot and generation.

use crate::op::{OpId, Token};

/// Largest number of slots: a slot has 24 bits in a completion's user data.
const SLOT_BITS: u32 = 24;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    token: Token,
    value: Option<T>,
}

/// A table with a fixed bound whose places are reused under a new generation.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new(limit: u32) -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new(), limit: limit.min(1 << SLOT_BITS) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() as u64 >= u64::from(self.limit)
    }

    /// Number of free places.
    pub(crate) fn room(&self) -> usize {
        (self.limit as usize).saturating_sub(self.slots.len()) + self.free.len()
    }

    /// Puts `value` in a free place; the caller has checked that there is one.
    pub(crate) fn insert(&mut self, token: Token, value: T) -> OpId {
        assert!(!self.is_full(), "insert into a full slab");
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, token, value: None });
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.token = token;
        place.value = Some(value);
        OpId { slot, generation: place.generation }
    }

    /// An identity for what has ended already, as if it had been put in and taken out; the caller has
    /// checked that there is a place.
    pub(crate) fn pass(&mut self) -> OpId {
        assert!(!self.is_full(), "pass through a full slab");
        if self.free.is_empty() {
            self.free.push(self.slots.len() as u32);
            self.slots.push(Slot { generation: 0, token: Token::default(), value: None });
        }
        let slot = self.free[self.free.len() - 1];
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        OpId { slot, generation: place.generation }
    }

    /// The operation, unless it ended.
    pub(crate) fn entry(&mut self, id: OpId) -> Option<(Token, &mut T)> {
        let place = self.slots.get_mut(id.slot as usize)?;
        if place.generation != id.generation {
            return None;
        }
        Some((place.token, place.value.as_mut()?))
    }

    pub(crate) fn remove(&mut self, id: OpId) -> Option<(Token, T)> {
        let place = self.slots.get_mut(id.slot as usize)?;
        if place.generation != id.generation {
            return None;
        }
        let value = place.value.take()?;
        self.free.push(id.slot);
        Some((place.token, value))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (OpId, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, place)| {
            let id = OpId { slot: slot as u32, generation: place.generation };
            Some((id, place.value.as_ref()?))
        })
    }

    pub(crate) fn values(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|place| place.value.as_mut())
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slab__refuses_old_generations() {
        let mut slab = Slab::new(2);
        let a = slab.insert(Token(1), 'a');
        assert_eq!(slab.remove(a), Some((Token(1), 'a')));
        let b = slab.insert(Token(2), 'b');
        assert_eq!(a.slot, b.slot);
        assert!(slab.entry(a).is_none() && slab.remove(a).is_none());
        assert_eq!(slab.entry(b).map(|(t, v)| (t, *v)), Some((Token(2), 'b')));
    }

    #[test]
    fn pass__gives_each_an_identity_and_takes_no_place() {
        let mut slab = Slab::new(1);
        let (a, b) = (slab.pass(), slab.pass());
        assert!(a != b && slab.entry(a).is_none() && slab.entry(b).is_none());
        assert_eq!((slab.len(), slab.room()), (0, 1));
        let c = slab.insert(Token(1), 'c');
        assert!(c != b && slab.entry(b).is_none() && slab.entry(c).is_some());
    }

    #[test]
    fn slab__is_bounded() {
        let mut slab = Slab::new(2);
        let a = slab.insert(Token(0), ());
        slab.insert(Token(0), ());
        assert!(slab.is_full());
        slab.remove(a);
        assert!(!slab.is_full());
        assert_eq!(slab.len(), 1);
    }
}
