//! A bounded queue with any number of producers and consumers: Vyukov's ring with a sequence number in each
//! slot. Not for blocking: full and empty are answers.
//!
//! ```text
//!   slot i of n, turn t       sequence = t*n + i       free for the producer that takes ticket t*n + i
//!                             sequence = t*n + i + 1   holds that producer's element
//!                             sequence = (t+1)*n + i   free again
//! ```
//!
//! A slot has cache lines of its own, so a producer and a consumer at different slots do not disturb each
//! other, and the two tickets are the only lines that are contended for.

use core::fmt;
use core::mem::MaybeUninit;

use crate::sync::{AtomicUsize, Ordering, Padded, Site, UnsafeCell, order};

/// A bounded many-to-many queue. Lock-free except that an element being put in or taken out by a thread that
/// was interrupted holds up those behind it.
pub struct Ring<T> {
    slots: Box<[Slot<T>]>,
    /// Next ticket for producers.
    tail: Padded<AtomicUsize>,
    /// Next ticket for consumers.
    head: Padded<AtomicUsize>,
}

/// One element and its sequence number, on cache lines of its own. Shared by the rings of this crate.
#[repr(align(64))]
pub(crate) struct Slot<T> {
    pub(crate) sequence: AtomicUsize,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Slot<T> {
    /// The slots of a ring for `capacity` elements, rounded up to a power of two of at least 2: with a single
    /// slot, "full" and "free again" would be the same number.
    pub(crate) fn ring(capacity: usize) -> Box<[Slot<T>]> {
        let count = capacity.max(2).next_power_of_two();
        let slot = |sequence| Slot {
            sequence: AtomicUsize::new(sequence),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        };
        (0..count).map(slot).collect()
    }

    /// Puts an element in.
    ///
    /// # Safety
    /// The caller holds the slot's ticket and the slot is free.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: nobody else accesses a free slot but the holder of its ticket.
        self.value.with_mut(|cell| unsafe { cell.write(MaybeUninit::new(value)) });
    }

    /// Takes the element out.
    ///
    /// # Safety
    /// The caller holds the slot's ticket and the slot is full. The element counts as moved out.
    #[inline(always)]
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: a full slot holds an element, and only the holder of its ticket accesses it. (Mutable
        // access because the element leaves.)
        self.value.with_mut(|cell| unsafe { cell.read().assume_init() })
    }

    /// Drops the elements that are left in the slots of a ring.
    pub(crate) fn drop_all(slots: &mut [Slot<T>]) {
        let count = slots.len();
        for (index, slot) in slots.iter_mut().enumerate() {
            let sequence = slot.sequence.load(Ordering::Relaxed);
            if sequence & (count - 1) != index {
                // SAFETY: full, by the table in the head of the file (count is a power of two above 1), and
                // we have the slots to ourselves.
                drop(unsafe { slot.read() });
            }
        }
    }
}

// SAFETY: an element is accessed by one thread at a time: by the holder of the slot's ticket, and only after
// it has seen (Acquire) the sequence number that the previous one set (Release). Elements move between
// threads, hence T: Send.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    /// An empty ring for at least `capacity` elements (rounded up to a power of two, at least 2).
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            slots: Slot::ring(capacity),
            tail: Padded(AtomicUsize::new(0)),
            head: Padded(AtomicUsize::new(0)),
        }
    }

    /// Appends an element.
    ///
    /// # Errors
    /// Gives the element back if the ring is full.
    #[inline]
    pub fn push(&self, value: T) -> Result<(), T> {
        let mut ticket = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[ticket & (self.slots.len() - 1)];
            let sequence = slot.sequence.load(Ordering::Acquire);
            let ahead = sequence.wrapping_sub(ticket) as isize;
            if ahead == 0 {
                let next = ticket.wrapping_add(1);
                match self.tail.compare_exchange_weak(ticket, next, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        // SAFETY: the exchange gave us this ticket, and the sequence says the slot is free.
                        unsafe { slot.write(value) };
                        slot.sequence.store(next, order(Site::RingPublish, Ordering::Release));
                        return Ok(());
                    }
                    Err(now) => ticket = now,
                }
            } else if ahead < 0 {
                // The slot still holds, or a consumer is just taking, the element of the turn before.
                return Err(value);
            } else {
                ticket = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    /// Removes the oldest element, if there is one.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        let mut ticket = self.head.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[ticket & (self.slots.len() - 1)];
            let sequence = slot.sequence.load(Ordering::Acquire);
            let next = ticket.wrapping_add(1);
            let ahead = sequence.wrapping_sub(next) as isize;
            if ahead == 0 {
                match self.head.compare_exchange_weak(ticket, next, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        // SAFETY: the exchange gave us this ticket, and the sequence says the slot is full.
                        let value = unsafe { slot.read() };
                        let free = ticket.wrapping_add(self.slots.len());
                        slot.sequence.store(free, order(Site::RingRelease, Ordering::Release));
                        return Some(value);
                    }
                    Err(now) => ticket = now,
                }
            } else if ahead < 0 {
                // Empty, or the producer of this slot is not done yet.
                return None;
            } else {
                ticket = self.head.load(Ordering::Relaxed);
            }
        }
    }

    /// Number of elements, including those being put in or taken out at this moment; exact when nobody does.
    pub fn len(&self) -> usize {
        let head = self.head.load(Ordering::Relaxed);
        let tail = self.tail.load(Ordering::Relaxed);
        (tail.wrapping_sub(head) as isize).clamp(0, self.slots.len() as isize) as usize
    }

    /// True if there is nothing to take out: as certain as [`Ring::len`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most elements the ring can hold.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        Slot::drop_all(&mut self.slots);
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
