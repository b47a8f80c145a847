//! The record sockbuf: messages or datagrams from one thread to one other, bounded by their number and by
//! the bytes they stand for. A [`spsc`] ring with a budget, an end and sleepers; the bytes
//! themselves are in counted buffers that find their own way home.
//!
//! As with the stream, nobody knows how much is queued: the sender has a lower bound of the free budget,
//! which only its own sending lowers.

use core::fmt;

use crate::doorbell::Wake;
use crate::sleep::SleepCell;
use crate::spsc;
use crate::stream::End;
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Ordering, Padded, Site, order};

/// A queue for at least `records` records (rounded up to a power of two, at least 2) that stand for at most
/// `bytes` bytes: its two ends.
pub fn records<T>(records: usize, bytes: usize) -> (Sender<T>, Receiver<T>) {
    let (producer, consumer) = spsc::ring(records);
    let shared = Arc::new(Shared {
        taken: Padded(AtomicU64::new(0)),
        end: Padded(AtomicU32::new(0)),
        closed: AtomicBool::new(false),
        limit: AtomicU64::new(bytes as u64),
        receiver_sleep: SleepCell::new(),
        sender_sleep: SleepCell::new(),
    });
    let sender = Sender { producer, shared: shared.clone(), put: 0, sent: 0, rung: 0, taken: 0 };
    (sender, Receiver { consumer, shared, taken: 0, told: 0, received: 0 })
}

struct Shared {
    /// Bytes of the records taken out. Written by the receiver.
    taken: Padded<AtomicU64>,
    /// See [`End`]. Written by the sender, once.
    end: Padded<AtomicU32>,
    /// What follows is written rarely. The receiver wants nothing any more.
    closed: AtomicBool,
    limit: AtomicU64,
    /// Position: records.
    receiver_sleep: SleepCell,
    /// Position: bytes taken.
    sender_sleep: SleepCell,
}

/// The end that puts records in.
pub struct Sender<T> {
    producer: spsc::Producer<(T, u32)>,
    shared: Arc<Shared>,
    /// Bytes put in.
    put: u64,
    /// Records put in, and when the receiver was last rung for.
    sent: u64,
    rung: u64,
    /// Bytes taken out, as last seen.
    taken: u64,
}

/// The end that takes records out.
pub struct Receiver<T> {
    consumer: spsc::Consumer<(T, u32)>,
    shared: Arc<Shared>,
    /// Bytes taken out, and what the sender was told of it.
    taken: u64,
    told: u64,
    received: u64,
}

impl<T> Sender<T> {
    /// Free budget in bytes, at least. Does not look.
    pub fn writable(&self) -> usize {
        let limit = self.shared.limit.load(Ordering::Relaxed);
        limit.saturating_sub(self.put - self.taken) as usize
    }

    /// Appends a record that stands for `bytes` bytes. A record larger than the whole budget is taken while
    /// nothing else is queued.
    ///
    /// # Errors
    /// Gives the record back if there is no place or no budget for it.
    #[inline]
    pub fn push(&mut self, record: T, bytes: u32) -> Result<(), T> {
        if self.writable() < bytes as usize {
            self.taken = self.shared.taken.load(Ordering::Relaxed);
            if self.writable() < bytes as usize && self.taken != self.put {
                return Err(record);
            }
        }
        self.producer.push((record, bytes)).map_err(|(record, _)| record)?;
        self.put += u64::from(bytes);
        self.sent += 1;
        Ok(())
    }

    /// Wakes the receiver if it sleeps: after the last record of a turn. True if it had to.
    #[inline]
    pub fn wake_receiver(&mut self, wake: &impl Wake) -> bool {
        if self.rung == self.sent {
            return false;
        }
        self.rung = self.sent;
        self.shared.receiver_sleep.ring(self.sent, wake)
    }

    /// Ends the queue after the last record, and wakes the receiver if it sleeps. The first end counts.
    pub fn finish(&mut self, end: End, wake: &impl Wake) {
        self.end(end);
        self.shared.receiver_sleep.ring_always(wake);
    }

    /// True if the receiver is gone or wants nothing more.
    pub fn is_abandoned(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Changes the budget; a lower one takes back nothing that is queued.
    pub fn set_limit(&mut self, bytes: usize) {
        self.shared.limit.store(bytes as u64, Ordering::Relaxed);
    }

    /// Announces that this end sleeps until something is taken out, and looks again. True: sleep now, until
    /// woken. False: there is space for `bytes`, or nobody reads. Afterwards, in either case,
    /// [`Sender::cancel_sleep`].
    pub fn prepare_sleep(&mut self, bytes: u32) -> bool {
        self.shared.sender_sleep.arm(0);
        self.taken = self.shared.taken.load(Ordering::Relaxed);
        let fits = self.writable() >= bytes as usize || self.taken == self.put;
        (!fits || self.producer.is_full()) && !self.is_abandoned()
    }

    /// Awake again, or did not go to sleep after all.
    pub fn cancel_sleep(&mut self) {
        self.shared.sender_sleep.disarm();
    }

    fn end(&mut self, end: End) {
        // Only this end writes it.
        if self.shared.end.load(Ordering::Relaxed) == 0 {
            self.shared.end.store(end.encode(), order(Site::StreamEnd, Ordering::Release));
        }
    }
}

impl<T> Receiver<T> {
    /// The oldest record, if there is one. The sender learns of the space for it when much has come together,
    /// when there is nothing more, or by [`Receiver::wake_sender`].
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let Some((record, bytes)) = self.consumer.pop() else {
            self.tell();
            return None;
        };
        self.taken += u64::from(bytes);
        self.received += 1;
        if self.taken - self.told >= self.shared.limit.load(Ordering::Relaxed) / 8 {
            self.tell();
        }
        Some(record)
    }

    /// Tells the sender what was taken out, and wakes it if it sleeps: after the last record of a turn. True
    /// if it had to.
    pub fn wake_sender(&mut self, wake: &impl Wake) -> bool {
        self.tell();
        self.shared.sender_sleep.ring(self.taken, wake)
    }

    /// How the queue ended, if no record can come any more.
    pub fn end(&self) -> Option<End> {
        // The end first: what was put in before it cannot be missed then.
        let end = self.shared.end.load(order(Site::RecordEndFirst, Ordering::Acquire));
        End::decode(end).filter(|_| self.consumer.is_empty())
    }

    /// Wants nothing more: the sender is told, and woken if it sleeps.
    pub fn close(&mut self, wake: &impl Wake) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.sender_sleep.ring_always(wake);
    }

    /// Announces that this end sleeps until a record comes, and looks again. True: sleep now, until woken.
    /// False: there is a record, or the end. Afterwards, in either case, [`Receiver::cancel_sleep`].
    pub fn prepare_sleep(&mut self) -> bool {
        self.tell();
        self.shared.receiver_sleep.arm(self.received + 1);
        self.consumer.is_empty() && self.shared.end.load(Ordering::Acquire) == 0
    }

    /// Awake again, or did not go to sleep after all.
    pub fn cancel_sleep(&mut self) {
        self.shared.receiver_sleep.disarm();
    }

    #[inline]
    fn tell(&mut self) {
        if self.told != self.taken {
            self.told = self.taken;
            // Relaxed: a number; memory goes home by itself.
            self.shared.taken.store(self.taken, Ordering::Relaxed);
        }
    }
}

impl<T> Drop for Sender<T> {
    /// The receiver finds out at its next look; who drops the sender wakes it if it sleeps.
    fn drop(&mut self) {
        self.end(End::Aborted);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("received", &self.received).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
