//! Order, renewal and passing on, on one thread. (Threads: `tests/stress/` and `tests/loom/`.)

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl CountWakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Arc<CountWakes>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(waker.clone())))
}

#[test]
fn notify_one_wakes_the_latest() {
    let list = WaitList::new();
    let (a, b) = <(Arc<CountWakes>, Arc<CountWakes>)>::default();
    let (mut first, mut second) = (Ticket::new(), Ticket::new());
    assert!(!list.notify_one());
    list.join(&mut first, &Waker::from(a.clone()));
    list.join(&mut second, &Waker::from(b.clone()));
    list.join(&mut first, &Waker::from(a.clone())); // Renewing keeps the place.
    assert!(list.notify_one());
    assert_eq!((a.count(), b.count()), (0, 1));
    assert!(list.leave(&mut second));
    assert!(list.notify_one());
    assert!(!list.notify_one());
    assert_eq!((a.count(), b.count()), (1, 1));
    assert!(list.leave(&mut first));
    assert!(!list.leave(&mut first));
}

#[test]
fn notify_all_wakes_everybody() {
    let list = WaitList::new();
    let wakes = Arc::<CountWakes>::default();
    let mut tickets = [(); 5].map(|()| Ticket::new());
    tickets.iter_mut().for_each(|ticket| list.join(ticket, &Waker::from(wakes.clone())));
    assert!(!list.leave(&mut tickets[2]));
    assert_eq!((list.notify_all(), list.notify_all(), wakes.count()), (4, 0, 4));
}

#[test]
fn until_takes_what_comes() {
    let list = WaitList::new();
    let thing = Cell::new(None);
    let wakes = Arc::default();
    let mut wait = list.until(|| thing.take());
    assert_eq!(poll(&mut wait, &wakes), Poll::Pending);
    thing.set(Some(7));
    assert!(list.notify_one());
    assert_eq!((poll(&mut wait, &wakes), wakes.count()), (Poll::Ready(7), 1));
    drop(wait);
    assert!(!list.notify_one());
}

#[test]
fn until_dropped_after_its_notification_passes_it_on() {
    let list = WaitList::new();
    let thing = Cell::new(None);
    let (a, b) = <(Arc<CountWakes>, Arc<CountWakes>)>::default();
    let mut patient = list.until(|| thing.take());
    let mut hasty = list.until(|| thing.take());
    assert_eq!(poll(&mut patient, &a), Poll::Pending);
    assert_eq!(poll(&mut hasty, &b), Poll::Pending);
    thing.set(Some(7));
    assert!(list.notify_one());
    assert_eq!((a.count(), b.count()), (0, 1));
    drop(hasty);
    assert_eq!((poll(&mut patient, &a), a.count()), (Poll::Ready(7), 1));
}
