//! Every order of give, take and go, on one thread. (Threads: `tests/stress/` and `tests/loom/`.)

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<T>(completion: &mut Completion<T>, waker: &std::sync::Arc<CountWakes>) -> Poll<Result<T, Cancelled>> {
    let waker = Waker::from(waker.clone());
    Pin::new(completion).poll(&mut Context::from_waker(&waker))
}

#[test]
fn complete_before_poll() {
    let wakes = Default::default();
    let (completer, mut completion) = cell();
    assert_eq!(completer.complete("x"), Ok(()));
    assert_eq!(poll(&mut completion, &wakes), Poll::Ready(Ok("x")));
    assert_eq!(poll(&mut completion, &wakes), Poll::Ready(Err(Cancelled)));
}

#[test]
fn complete_after_poll_wakes_the_latest_waker() {
    let (first, second) = Default::default();
    let (completer, mut completion) = cell();
    assert_eq!(completion.try_take(), None);
    assert_eq!(poll(&mut completion, &first), Poll::Pending);
    assert_eq!(poll(&mut completion, &second), Poll::Pending);
    assert_eq!(completer.complete(5), Ok(()));
    assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(completion.try_take(), Some(Ok(5)));
}

#[test]
fn complete_with_nobody_there_gives_the_value_back() {
    let (completer, completion) = cell();
    assert!(!completer.is_cancelled());
    drop(completion);
    assert!(completer.is_cancelled());
    assert_eq!(completer.complete(5), Err(5));
}

#[test]
fn drop_of_the_completer_cancels() {
    let wakes = Default::default();
    let (completer, mut completion) = cell::<u8>();
    assert_eq!(poll(&mut completion, &wakes), Poll::Pending);
    drop(completer);
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert_eq!(poll(&mut completion, &wakes), Poll::Ready(Err(Cancelled)));
}

#[test]
fn drop_of_the_completion_drops_the_value() {
    let counted = std::sync::Arc::new(());
    let (completer, completion) = cell();
    assert!(completer.complete(counted.clone()).is_ok());
    drop(completion);
    assert_eq!(std::sync::Arc::strong_count(&counted), 1);
}
