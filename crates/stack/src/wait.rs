//! Waiting for a future on a thread without a runtime. It drives nothing: what it waits for is
//! made to happen by a shard on another thread.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Sleeps until `future` is ready.
pub fn block_on<F: Future>(future: F) -> F::Output {
    block_on_until(future, None).expect("without a deadline it ends only when the future is ready")
}

/// Sleeps until `future` is ready, or until `deadline` has passed: then the future is dropped and
/// the answer is `None`.
pub fn block_on_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let (parker, unparker) = parking::pair();
    let waker = Waker::from(unparker);
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        match deadline {
            None => parker.park(),
            // The end of a wake-up that was seen before may end this sleep early, with nothing to
            // show for it: the clock decides. Late or woken, the future gets a last look in any case.
            Some(at) if parker.park_deadline(at) || Instant::now() < at => {}
            Some(_) => {
                return match future.as_mut().poll(&mut cx) {
                    Poll::Ready(output) => Some(output),
                    Poll::Pending => None,
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use peyk_sockbuf::oneshot;

    #[test]
    fn block_on__wakes_when_another_thread_completes() {
        let (done, completion) = oneshot::cell();
        let other = std::thread::spawn(move || done.complete(7));
        assert_eq!(block_on(completion), Ok(7));
        assert_eq!(other.join().unwrap(), Ok(()));
    }

    #[test]
    fn block_on_until__gives_up() {
        let (done, completion) = oneshot::cell::<()>();
        assert!(block_on_until(completion, Some(Instant::now() + Duration::from_millis(1))).is_none());
        assert!(done.is_cancelled());
    }

    #[test]
    fn block_on_until__does_not_give_up_early_however_often_it_is_woken() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (done, mut polls) = (AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            let woken = std::future::poll_fn(|cx: &mut Context<'_>| {
                polls += 1;
                if polls <= 2 {
                    let (waker, done) = (cx.waker().clone(), &done);
                    scope.spawn(move || {
                        while !done.load(Ordering::Relaxed) {
                            waker.wake_by_ref();
                            std::thread::yield_now();
                        }
                    });
                }
                if polls < 50_000 { Poll::Pending } else { Poll::Ready(()) }
            });
            let result = block_on_until(woken, Some(Instant::now() + Duration::from_secs(600)));
            done.store(true, Ordering::Relaxed);
            assert!(result.is_some(), "gave up long before the time");
        });
    }

    #[test]
    fn block_on_until__takes_what_is_there_although_late() {
        let past = Instant::now();
        assert_eq!(block_on_until(std::future::ready(3), Some(past)), Some(3));
    }
}
