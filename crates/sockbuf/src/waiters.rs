//! A list of tasks that wait for the same thing, such as the next message of a socket. Not the queue of the
//! things themselves.
//!
//! ```text
//!   waiter                               notifier
//!   look: nothing                        publish
//!   join the list (count += 1)           full fence
//!   full fence                           count = 0?  done: one fence, one load
//!   look again: nothing                  else lock, take the latest waiter, wake it
//!   pending
//! ```
//!
//! The handshake is that of [`crate::doorbell`]. Waiters are woken last in, first out: the one that waited
//! least has the warmest cache, and the others stay asleep under light load.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::sync::{AtomicUsize, Mutex, Ordering, Padded, Site, full_fence};

/// Tasks that wait for the same thing.
#[derive(Default)]
pub struct WaitList {
    /// Number of entries; written under the lock.
    count: Padded<AtomicUsize>,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    /// In the order of joining; each has a ticket out.
    entries: Vec<Entry>,
    next: u64,
}

struct Entry {
    ticket: u64,
    waker: Waker,
}

/// A waiter's place in a [`WaitList`], or none.
#[derive(Debug, Default)]
pub struct Ticket(Option<u64>);

impl Ticket {
    /// No place yet.
    pub const fn new() -> Self {
        Ticket(None)
    }
}

impl WaitList {
    /// A list nobody waits in.
    pub fn new() -> Self {
        Self { count: Padded(AtomicUsize::new(0)), list: Mutex::new(List { entries: Vec::new(), next: 0 }) }
    }

    /// Waiter: joins the list, or renews its waker if it is there already. Then look again for what is
    /// waited for; a waiter that finds it, or gives up, calls [`WaitList::leave`].
    pub fn join(&self, ticket: &mut Ticket, waker: &Waker) {
        let mut list = self.lock();
        let place = ticket.0.and_then(|ticket| list.find(ticket));
        if let Some(place) = place {
            list.entries[place].waker.clone_from(waker);
        } else {
            let new = list.next;
            list.next += 1;
            list.entries.push(Entry { ticket: new, waker: waker.clone() });
            ticket.0 = Some(new);
            self.count.store(list.entries.len(), Ordering::Relaxed);
        }
        drop(list);
        full_fence(Site::WaitersJoin);
    }

    /// Waiter: leaves the list. True if a notifier had already taken the waiter off it: who leaves with empty
    /// hands must then pass the notification on, by [`WaitList::notify_one`].
    pub fn leave(&self, ticket: &mut Ticket) -> bool {
        let Some(ticket) = ticket.0.take() else {
            return false;
        };
        let mut list = self.lock();
        let Some(place) = list.find(ticket) else {
            return true;
        };
        let entry = list.entries.remove(place);
        self.count.store(list.entries.len(), Ordering::Relaxed);
        drop(list);
        drop(entry); // A waker's drop is foreign code: not under the lock.
        false
    }

    /// Notifier: after publishing one thing, wakes the waiter that joined last. False if nobody waits.
    #[inline]
    pub fn notify_one(&self) -> bool {
        full_fence(Site::WaitersNotify);
        self.count.load(Ordering::Relaxed) != 0 && self.wake_latest()
    }

    /// Notifier: after publishing something that concerns all (such as the end), wakes every waiter. Returns
    /// how many.
    pub fn notify_all(&self) -> usize {
        full_fence(Site::WaitersNotify);
        if self.count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut list = self.lock();
        let entries = core::mem::take(&mut list.entries);
        self.count.store(0, Ordering::Relaxed);
        drop(list);
        let count = entries.len();
        entries.into_iter().rev().for_each(|entry| entry.waker.wake());
        count
    }

    /// A future that is ready as soon as `look` finds something. `look` is called at every poll; whatever
    /// makes it succeed must be followed by a notification.
    pub fn until<T, F: FnMut() -> Option<T> + Unpin>(&self, look: F) -> Until<'_, F> {
        Until { list: self, ticket: Ticket::new(), look }
    }

    #[cold]
    fn wake_latest(&self) -> bool {
        let mut list = self.lock();
        let latest = list.entries.pop();
        self.count.store(list.entries.len(), Ordering::Relaxed);
        drop(list);
        latest.map(|entry| entry.waker.wake()).is_some()
    }

    fn lock(&self) -> impl core::ops::DerefMut<Target = List> + '_ {
        // No foreign code that could panic runs under the lock but a waker's clone, and the list is whole
        // at that point.
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl List {
    /// Place of the entry with this ticket; the latest are looked at first.
    fn find(&self, ticket: u64) -> Option<usize> {
        self.entries.iter().rposition(|entry| entry.ticket == ticket)
    }
}

impl fmt::Debug for WaitList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitList")
            .field("waiting", &self.count.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// Waits until a look succeeds; made by [`WaitList::until`]. Dropped after it was notified but before it could
/// look, it passes the notification on.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct Until<'a, F> {
    list: &'a WaitList,
    ticket: Ticket,
    look: F,
}

impl<T, F: FnMut() -> Option<T> + Unpin> Future for Until<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        // Off the list before looking: a notification that came for us is then matched by what we find, and
        // none can come that we would have to pass on.
        this.list.leave(&mut this.ticket);
        let mut found = (this.look)();
        if found.is_none() {
            this.list.join(&mut this.ticket, cx.waker());
            found = (this.look)();
        }
        let Some(found) = found else {
            return Poll::Pending;
        };
        if this.list.leave(&mut this.ticket) {
            // Found on the second look, and notified meanwhile, perhaps for another thing than what we found:
            // a waiter that sleeps on may have to know. Waking one too many is harmless.
            this.list.notify_one();
        }
        Poll::Ready(found)
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        if self.list.leave(&mut self.ticket) {
            self.list.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
