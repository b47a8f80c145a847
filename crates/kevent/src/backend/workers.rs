//! Threads that perform the calls that wait for devices, for the backend whose kernel interface
//! cannot.
//!
//! A call in a worker's hands refers to memory of its operation, which stays until the result is
//! back. The lock is the workers' own: the queue's thread takes it for a push, once per call.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::call::Call;
use crate::handle::Shared;
use crate::op::OpId;

#[derive(Debug)]
pub(crate) struct Workers {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
    limit: usize,
    /// Calls whose results have not been taken.
    pub(crate) out: usize,
}

#[derive(Debug)]
struct State {
    work: Mutex<Work>,
    more: Condvar,
    queue: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Work {
    calls: VecDeque<(OpId, Call)>,
    results: Vec<(OpId, i64)>,
    idle: usize,
    over: bool,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut work = self.lock();
        loop {
            if let Some((id, call)) = work.calls.pop_front() {
                drop(work);
                let result = call.perform();
                work = self.lock();
                work.results.push((id, result));
                self.queue.notify();
                continue;
            }
            if work.over {
                return;
            }
            work.idle += 1;
            work = self.more.wait(work).unwrap_or_else(PoisonError::into_inner);
            work.idle -= 1;
        }
    }
}

impl Workers {
    pub(crate) fn new(limit: u32, queue: &Arc<Shared>) -> Workers {
        let state = State { work: Mutex::default(), more: Condvar::new(), queue: Arc::clone(queue) };
        Workers { state: Arc::new(state), threads: Vec::new(), limit: limit.max(1) as usize, out: 0 }
    }

    /// Threads running.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Has a call performed.
    ///
    /// # Errors
    /// There is no thread to do it, and none can be had.
    pub(crate) fn perform(&mut self, id: OpId, call: Call) -> io::Result<()> {
        let mut work = self.state.lock();
        if work.idle <= work.calls.len() && self.threads.len() < self.limit {
            let state = Arc::clone(&self.state);
            match std::thread::Builder::new().name("kevent-file".into()).spawn(move || state.run()) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        work.calls.push_back((id, call));
        drop(work);
        self.out += 1;
        self.state.more.notify_one();
        Ok(())
    }

    /// Moves the results to `results`.
    pub(crate) fn take(&mut self, results: &mut Vec<(OpId, i64)>) {
        if self.out > 0 {
            let before = results.len();
            results.append(&mut self.state.lock().results);
            self.out -= results.len() - before;
        }
    }

    /// Leaves the threads to themselves: one of them hangs in the kernel, and what it uses is never
    /// to be freed.
    pub(crate) fn abandon(&mut self) {
        self.state.lock().over = true;
        self.threads.clear();
        self.out = 0;
    }

    /// Calls that no worker has begun are not made.
    pub(crate) fn clear(&mut self) {
        let mut work = self.state.lock();
        self.out -= work.calls.len();
        work.calls.clear();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.state.lock().over = true;
        self.state.more.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}
