//! Waiting: look, look again for a while, sleep.

use std::time::{Duration, Instant};

use crate::backend::Batch;
use crate::config::{Spin, Wait};
use crate::event::{Event, Events, What};
use crate::op::WaitError;
use crate::queue::{Guest, Queue};
use crate::sys;

/// A gap between two looks longer than this means the thread was descheduled.
const DESCHEDULED: Duration = Duration::from_micros(200);
/// Looks between two readings of the clock.
const LOOKS_PER_CLOCK: u32 = 8;
/// Waits without a sleep after which the streams are taken out of the kernel.
const HOT: u32 = 64;
/// Trains received by plain calls in one wait when there were some the time before: more would save
/// little, and what they ask for would wait.
const BULK: usize = 2;
/// A wait begins with a look that counts as so many of those that follow while nothing is there: between two
/// of its own things of use are done, so a source where little is expected would wait long.
const WAIT_WEIGHT: u32 = 4;
/// Waits that end without asking the kernel, after which one asks it: what other threads publish is
/// found without, and must not keep everything else waiting.
const UNASKED: u32 = 16;

impl Queue {
    /// Waits for events and appends them to `out`; returns how many, 0 when the deadline passed.
    ///
    /// # Errors
    /// The system refused to wait, or this is a forked child. Events found before are not lost: they
    /// are in `out`.
    pub fn wait(&mut self, out: &mut Events, wait: Wait) -> Result<usize, WaitError> {
        if self.guard.is_child() {
            return Err(WaitError::Forked);
        }
        let before = out.len();
        self.begin_visit();
        loop {
            self.wait_once(out, wait)?;
            if wait.min > 1 {
                self.fill(out, before, wait)?;
            }
            if out.len() > before || self.end_visit() {
                return Ok(out.len() - before);
            }
        }
    }

    /// As a guest of another loop: the thread has come to look.
    fn begin_visit(&mut self) {
        match &self.guest {
            None => return,
            Some(Guest::Told(fd)) => sys::clear_eventfd(fd),
            Some(Guest::Watched) => {}
        }
        self.core.shared.end_sleep();
    }

    /// As a guest of another loop: the thread goes to sleep elsewhere. False if something was
    /// published just then.
    fn end_visit(&mut self) -> bool {
        self.guest.is_none() || self.core.shared.prepare_sleep()
    }

    /// Waits for the rest of the events wanted, at most for the window.
    fn fill(&mut self, out: &mut Events, before: usize, wait: Wait) -> Result<(), WaitError> {
        if out.len() == before {
            return Ok(());
        }
        let min = (wait.min as usize).min(self.core.max_events);
        let end = Instant::now() + wait.window;
        let until = Some(wait.until.map_or(end, |until| until.min(end)));
        while out.len() - before < min {
            let missing = min - (out.len() - before);
            let window = end.saturating_duration_since(Instant::now());
            if self.wait_once(out, Wait { until, min: missing as u32, window, ..wait })? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn wait_once(&mut self, out: &mut Events, wait: Wait) -> Result<usize, WaitError> {
        let before = out.len();
        let disarmed = self.hot >= HOT;
        let asks = disarmed || wait.spin != Spin::Sleep || self.unasked >= UNASKED;
        self.look(out, asks)?;
        self.unasked = if asks { 0 } else { self.unasked + 1 };
        if out.len() > before {
            self.eager = true;
            self.core.stats.immediate += 1;
            return Ok(out.len() - before);
        }
        self.eager = false;
        let start = Instant::now();
        if disarmed && wait.until.is_some_and(|until| until <= start) {
            // The look was all there is; arming the streams would end being hot.
            return Ok(0);
        }
        let budget = self.spinner.budget(wait.spin);
        if !budget.is_zero() && self.look_for(budget, start, wait, out)? {
            return Ok(out.len() - before);
        }
        self.sleep(wait, budget.is_zero(), start, out)?;
        Ok(out.len() - before)
    }

    /// Looks again and again for `budget`. True if the wait is over.
    fn look_for(
        &mut self,
        budget: Duration,
        start: Instant,
        wait: Wait,
        out: &mut Events,
    ) -> Result<bool, WaitError> {
        let mut last = start;
        loop {
            if wait.until.is_some_and(|until| last >= until) {
                return Ok(true);
            }
            if last.saturating_duration_since(start) >= budget {
                self.core.stats.spins_vain += 1;
                self.spinner.in_vain();
                return Ok(false);
            }
            if self.look_in_row(last, out)? {
                self.core.stats.spins_paid += 1;
                self.spinner.paid_off(wait.spin);
                return self.on_hot().map(|()| true);
            }
            let now = Instant::now();
            if now.saturating_duration_since(last) > DESCHEDULED && wait.spin != Spin::Spin {
                self.core.stats.preempted += 1;
                self.spinner.preempted();
                return Ok(false);
            }
            last = now;
        }
    }

    /// Looks some times in a row, beginning at about `now`, because reading the clock takes a good part of the
    /// time of a look. Half of that time is latency, so what is the same for all of the row is found once. True
    /// if there are events.
    fn look_in_row(&mut self, now: Instant, out: &mut Events) -> Result<bool, WaitError> {
        let due = self.core.timers.next().is_some_and(|at| at <= now);
        let mut rare = self.core.is_turn_of_rare(LOOKS_PER_CLOCK);
        let focus = self.core.focus();
        for _ in 0..LOOKS_PER_CLOCK {
            if due || self.core.shared.is_pending() || self.backend.wants_look(&self.core) {
                // What that does may change what is to be looked at.
                let before = out.len();
                self.look(out, true)?;
                return Ok(out.len() > before);
            }
            let found = match &focus {
                Some(aim) if !rare => self.core.receive_on(aim, out),
                _ => self.core.receive_each(std::mem::take(&mut rare), out),
            };
            if found {
                return Ok(true);
            }
            if self.core.streams.is_empty() {
                // Otherwise each look is a system call, which is pause enough.
                std::hint::spin_loop();
            }
        }
        Ok(false)
    }

    /// Looking paid off once more without a sleep in between.
    fn on_hot(&mut self) -> Result<(), WaitError> {
        self.hot += 1;
        if self.hot == HOT {
            self.backend.disarm(&mut self.core)?;
        }
        Ok(())
    }

    fn sleep(&mut self, wait: Wait, fresh: bool, start: Instant, out: &mut Events) -> Result<(), WaitError> {
        let before = out.len();
        self.hot = 0;
        self.unasked = 0;
        let mut now = start;
        loop {
            let timer = self.core.timers.next();
            let next = [wait.until, timer].into_iter().flatten().min();
            let timeout = next.map(|next| next.saturating_duration_since(now));
            let asleep = timeout != Some(Duration::ZERO) && self.core.shared.prepare_sleep();
            let timeout = if asleep { timeout } else { Some(Duration::ZERO) };
            self.core.stats.sleeps += u64::from(asleep);
            let batch = Batch { want: wait.min.max(1) as usize, window: wait.window };
            let result = self.backend.sleep(&mut self.core, timeout, batch, out);
            if asleep {
                self.core.shared.end_sleep();
            }
            result?;
            now = Instant::now();
            self.core.expire(now);
            self.collect(out);
            if out.len() > before {
                if fresh {
                    self.spinner.slept(wait.spin, now.saturating_duration_since(start));
                }
                return Ok(());
            }
            if wait.until.is_some_and(|until| now >= until) {
                return Ok(());
            }
        }
    }

    /// Runs what can go on, and moves what is done, and what other threads published, to `out`.
    fn collect(&mut self, out: &mut Events) {
        self.pump();
        // Looked at after the flag was cleared: what is published later sets it again.
        if self.core.shared.take_pending() {
            self.backend.take_published(&mut self.core);
            self.take_published(out);
            self.pump();
        }
        let room = self.core.max_events.saturating_sub(out.len()).min(self.core.done.len());
        for event in self.core.done.drain(..room) {
            out.add(event);
        }
    }

    /// Takes what other threads published.
    fn take_published(&mut self, out: &mut Events) {
        if self.core.shared.take_woken() {
            out.woken();
        }
        self.core.poll_futures();
        // Half of the room at most, so that messages and operations do not starve each other.
        let mut room = (self.core.max_events / 2).max(1);
        while let Some(message) = self.core.shared.inlet.pop() {
            out.add(Event { token: message.token, id: None, last: true, what: What::Message(message) });
            room -= 1;
            if room == 0 {
                self.core.shared.notify();
                return;
            }
        }
    }

    /// Takes what is there. With `direct`, receives by plain calls too.
    fn look(&mut self, out: &mut Events, direct: bool) -> Result<(), WaitError> {
        for id in std::mem::take(&mut self.core.next_wait) {
            self.core.resume(id);
        }
        if self.core.timers.next().is_some() {
            self.core.expire(Instant::now());
        }
        self.core.unstash(out);
        self.pump();
        self.backend.look(&mut self.core, direct, out)?;
        self.collect(out);
        let limit = if self.eager { BULK } else { 1 };
        let rare = self.core.is_turn_of_rare(WAIT_WEIGHT);
        let mut at = 0;
        while let Some(&id) = self.core.streams.get(at) {
            let room = self.core.max_events.saturating_sub(out.len()).min(limit);
            let wanted = self.core.recv(id).is_some_and(|(_, recv)| recv.ready)
                || direct && (rare || !self.core.is_rare(id));
            if room > 0 && wanted && self.core.pool.has_free() {
                let drained = self.core.receive_direct(id, room, out);
                if let Some((_, recv)) = self.core.recv(id) {
                    recv.ready = recv.ready && drained == crate::core::Drained::More;
                }
            }
            // A stream that ended has left the list.
            at += usize::from(self.core.streams.get(at) == Some(&id));
        }
        Ok(())
    }
}
