//! The memory in which a message is gathered, and what is kept of it for the next. What its bytes mean is not
//! known here.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Memory worth keeping: less is quickly had. The system gives more than this page by page, each with a fault.
const LONG: usize = 1 << 20;
/// Most pieces that are kept, and the longest.
const SPARES: usize = 2;
const LONGEST: usize = 64 << 20;
/// Memory that a message in assembly gets at once, beyond as much again as has come of it.
const STEP: usize = 1 << 20;

/// Memory of long messages that have been handled, for those to come. Whoever drops a message puts it here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spares(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spares {
    fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, memory: Vec<u8>) {
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARES {
            spares.push(memory);
        }
    }
}

/// A long message; its memory goes back to the spares.
struct Long {
    memory: Vec<u8>,
    len: usize,
    spares: Spares,
}

impl AsRef<[u8]> for Long {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.spares.put(std::mem::take(&mut self.memory));
    }
}

/// The bytes of a message that has begun. Lent out by [`Mux::lend`](crate::Mux::lend), to be read into directly.
#[derive(Debug, Default)]
pub struct Partial {
    /// Its first `len` bytes are the message's, the others have any value.
    memory: Vec<u8>,
    len: usize,
}

impl Partial {
    /// Bytes that are there.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Room for the next bytes, at most `missing` and not less than one. What the peer has announced is
    /// believed as it comes true: there is never much more room than bytes that came.
    pub fn room(&mut self, missing: usize) -> &mut [u8] {
        let missing = missing.max(1);
        let end = self.len + missing.min(self.len.max(STEP));
        if self.memory.len() < end {
            self.memory.resize(end, 0);
        }
        let end = self.memory.len().min(self.len + missing);
        &mut self.memory[self.len..end]
    }

    /// Says that so many bytes have been put into the room.
    pub fn advance(&mut self, count: usize) {
        self.len = (self.len + count).min(self.memory.len());
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let known = (self.memory.len() - self.len).min(bytes.len());
        self.memory[self.len..self.len + known].copy_from_slice(&bytes[..known]);
        self.memory.extend_from_slice(&bytes[known..]);
        self.len += bytes.len();
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        self.memory.truncate(self.len);
        self.memory
    }

    /// Goes on in memory that is there already, if there is some for a message of `total` bytes.
    pub(crate) fn use_spare(&mut self, total: usize, spares: &Spares) {
        if total < LONG || self.memory.len() >= total {
            return;
        }
        let Some(mut memory) = spares.take() else { return };
        if memory.len() <= self.memory.len() {
            return spares.put(memory);
        }
        memory[..self.len].copy_from_slice(&self.memory[..self.len]);
        self.memory = memory;
    }

    /// The whole message.
    pub(crate) fn freeze(self, spares: &Spares) -> Bytes {
        if (LONG..=LONGEST).contains(&self.memory.len()) {
            return Bytes::from_owner(Long { memory: self.memory, len: self.len, spares: spares.clone() });
        }
        Bytes::from(self.into_vec())
    }
}

impl std::ops::Deref for Partial {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room__grows_with_what_came() {
        let mut partial = Partial::default();
        partial.extend(b"abc");
        assert_eq!(partial.room(10).len(), 10);
        assert_eq!(partial.room(usize::MAX >> 2).len(), STEP);
        partial.advance(STEP);
        assert_eq!(partial.room(8 * STEP).len(), STEP + 3);
        partial.advance(1);
        partial.extend(b"z");
        assert_eq!((partial.len(), &partial[..4], partial[STEP + 4]), (STEP + 5, &b"abc\0"[..], b'z'));
    }

    #[test]
    fn spares__come_back_when_the_last_slice_is_dropped() {
        let spares = Spares::default();
        let mut partial = Partial::default();
        partial.extend(&vec![7; LONG]);
        let message = partial.freeze(&spares);
        let slice = message.slice(5..6);
        drop(message);
        assert!(spares.take().is_none());
        drop(slice);
        let mut next = Partial::default();
        next.extend(b"xy");
        next.use_spare(LONG, &spares);
        assert_eq!((&next[..], next.memory.len()), (&b"xy"[..], LONG));
        // A message that is longer than what there is gets the rest when it comes.
        assert_eq!(next.room(2 * LONG).len(), LONG);
        assert!(spares.take().is_none());
    }

    #[test]
    fn spares__are_few() {
        let spares = Spares::default();
        (0..9).for_each(|_| spares.put(vec![0; LONG]));
        assert_eq!(std::iter::from_fn(|| spares.take()).count(), SPARES);
    }
}
