//! A bounded queue with one producer and one consumer, each enforced by a type that cannot be cloned. The
//! slots are those of [`crate::ring`]; with one thread at each end no ticket is shared, so the only line that
//! goes from CPU to CPU is the slot itself.

use core::fmt;

use crate::ring::Slot;
use crate::sync::{Arc, Ordering, Site, order};

/// A queue for at least `capacity` elements (rounded up to a power of two, at least 2): its two ends.
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let shared = Arc::new(Shared { slots: Slot::ring(capacity) });
    (Producer { shared: shared.clone(), tail: 0 }, Consumer { shared, head: 0 })
}

struct Shared<T> {
    slots: Box<[Slot<T>]>,
}

// SAFETY: a slot is accessed by the producer while free and by the consumer while full, and each hands it
// over by a Release store of the sequence that the other loads with Acquire. Elements move between threads,
// hence T: Send.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline(always)]
    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        Slot::drop_all(&mut self.slots);
    }
}

/// The end that puts elements in.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Elements put in so far.
    tail: usize,
}

/// The end that takes elements out.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// Elements taken out so far.
    head: usize,
}

impl<T> Producer<T> {
    /// Appends an element.
    ///
    /// # Errors
    /// Gives the element back if the queue is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        let slot = self.shared.slot(self.tail);
        if slot.sequence.load(Ordering::Acquire) != self.tail {
            return Err(value);
        }
        // SAFETY: the sequence says the slot is free, and we are the only producer.
        unsafe { slot.write(value) };
        self.tail = self.tail.wrapping_add(1);
        slot.sequence.store(self.tail, order(Site::SpscPublish, Ordering::Release));
        Ok(())
    }

    /// True if [`Producer::push`] would fail at this moment.
    pub fn is_full(&self) -> bool {
        self.shared.slot(self.tail).sequence.load(Ordering::Acquire) != self.tail
    }

    /// True if the consumer is gone: nobody will take anything out any more.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Most elements the queue can hold.
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }
}

impl<T> Consumer<T> {
    /// Removes the oldest element, if there is one.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let slot = self.shared.slot(self.head);
        if slot.sequence.load(Ordering::Acquire) != self.head.wrapping_add(1) {
            return None;
        }
        // SAFETY: the sequence says the slot is full, and we are the only consumer.
        let value = unsafe { slot.read() };
        let free = self.head.wrapping_add(self.shared.slots.len());
        slot.sequence.store(free, order(Site::SpscRelease, Ordering::Release));
        self.head = self.head.wrapping_add(1);
        Some(value)
    }

    /// True if [`Consumer::pop`] would find nothing at this moment.
    pub fn is_empty(&self) -> bool {
        self.shared.slot(self.head).sequence.load(Ordering::Acquire) != self.head.wrapping_add(1)
    }

    /// True if the producer is gone: once the queue is empty, it stays so. Ask this before the last look.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Most elements the queue can hold.
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
