//! The load of the demo: Poisson arrivals (or a closed loop) of messages of a workload, each checked.
//!
//! Open loop: latency counts from the moment a message was due, not from when it was sent. A cap on outstanding
//! messages keeps a transport that cannot follow from eating the machine; while it binds the generator lags
//! behind, sends later what was due earlier, and the result says how often and how far. What is still open when
//! the drain time ends is lost; what could not even be sent is counted as unsent.

pub mod result;
mod sample;

use std::collections::VecDeque;

use bytes::Bytes;
use peyk_sim::workload::{Encoding, Name, Sizes};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

pub use self::{
    result::{LoadResult, Measured, Share},
    sample::{Baseline, Samples, quantile},
};
use crate::{
    prng,
    traffic::{self, HEADER, Outgoing, Traffic},
    verify::{self, Block, Kind},
};

/// Length of a held request in bytes.
const HELD_LENGTH: usize = 200;

/// Which sizes a load draws.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// From a workload.
    Workload(Name),
    /// The listed sizes in turn, each several times in a row.
    InTurn(Vec<u32>),
}

/// When messages are due.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Exponential gaps, this many messages a second on average.
    Poisson(f64),
    /// As soon as fewer than this many are outstanding.
    Closed(u32),
}

/// What a client is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadPlan {
    /// Sizes.
    pub draw: Draw,
    /// Times.
    pub arrivals: Arrivals,
    /// Seed of sizes, arrivals and bodies.
    pub seed: u64,
    /// Messages become due for this long, warm-up included.
    pub duration_ms: u64,
    /// Messages due in the first part of it are sent and checked, but not measured.
    pub warmup_ms: u64,
    /// How long to wait for the rest afterwards.
    pub drain_ms: u64,
    /// Cap on outstanding messages, held ones aside.
    pub outstanding_max: u32,
    /// Further requests that stay open at the server until everything else is done.
    pub hold: u32,
    /// Which of several clients this one is, counted from 0.
    pub origin: u32,
    /// To how many servers the messages go.
    pub servers: usize,
    /// How often in a row one of the listed sizes comes.
    pub in_a_row: u32,
    /// Unloaded round trips, for slowdowns; may be empty.
    pub baseline: Baseline,
}

/// A message on its way.
#[derive(Copy, Clone)]
struct Flight {
    due: u64,
    index: u32,
    done: bool,
}

/// State of the held requests.
#[derive(Default)]
struct Held {
    sent: u32,
    completed: Vec<bool>,
    completed_count: u32,
    released: bool,
    release_done: bool,
}

/// The load as a [`Traffic`].
pub struct Load<P> {
    plan: LoadPlan,
    sizes: Sizes,
    block: Block,
    gaps: Xoshiro256PlusPlus,
    draws: Xoshiro256PlusPlus,
    /// When the next message is due; open loop only.
    next_arrival: f64,
    /// When the first message was asked for; everything in the plan counts from there.
    start: Option<u64>,
    flights: VecDeque<Flight>,
    /// Sequence number of the first entry of `flights`.
    first: u64,
    outstanding: u32,
    held: Held,
    samples: Samples,
    counts: result::Counts,
    /// Told how far the load has come.
    progress: P,
    progress_due: u64,
    done: bool,
}

/// How far a load has come.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Milliseconds since the first message was due.
    pub elapsed_ms: u64,
    /// Messages completed.
    pub completed: u64,
}

/// Milliseconds between two reports of progress.
const PROGRESS_MS: u64 = 200;

impl<P: FnMut(Progress) + Send> Load<P> {
    /// A load; `progress` is called a few times a second.
    pub fn new(plan: LoadPlan, progress: P) -> Load<P> {
        let sizes = match &plan.draw {
            Draw::Workload(name) => Sizes::of(*name, Encoding::Linux, HEADER as u32),
            Draw::InTurn(sizes) => Sizes::uniform(sizes),
        };
        let samples = Samples::new(sizes.points().len());
        let hold = plan.hold as usize;
        Load {
            block: Block::new(plan.seed),
            gaps: prng::seeded(plan.seed ^ 1),
            draws: prng::seeded(plan.seed ^ 2),
            held: Held { completed: vec![false; hold], ..Held::default() },
            plan,
            sizes,
            next_arrival: 0.0,
            start: None,
            flights: VecDeque::new(),
            first: 0,
            outstanding: 0,
            samples,
            counts: result::Counts::default(),
            progress,
            progress_due: 0,
            done: false,
        }
    }

    /// The result; call it when [`Traffic::turn`] has said that all is done.
    pub fn finish(self) -> LoadResult {
        let (plan, sizes) = (self.plan.clone(), self.sizes.clone());
        LoadResult::new(&plan, &sizes, self.measured())
    }

    /// What was measured, to be put together with what other clients of the same plan have; call it when
    /// [`Traffic::turn`] has said that all is done.
    pub fn measured(mut self) -> Measured {
        for number in (0..self.flights.len() as u64).filter(|&n| !self.flights[n as usize].done) {
            let sequence = self.sequence(self.first + number);
            *self.counts.lost_to.entry(traffic::target(sequence, self.plan.servers)).or_default() += 1;
        }
        Measured {
            by_size: self.samples.by_size(),
            bins: self.samples.bins().to_vec(),
            lag_us: self.samples.lag_us(),
            held_completed: u64::from(self.held.completed_count),
            counts: self.counts,
        }
    }

    /// The sequence number of a message.
    fn sequence(&self, number: u64) -> u64 {
        verify::with_origin(verify::sequence(Kind::Echo, number), self.plan.origin)
    }

    fn end(&self) -> u64 {
        self.start.unwrap_or(0) + self.plan.duration_ms * 1_000_000
    }

    fn measured_from(&self) -> u64 {
        self.start.unwrap_or(0) + self.plan.warmup_ms * 1_000_000
    }

    /// Whether no further message will be sent.
    fn all_due(&self, now: u64) -> bool {
        match self.plan.arrivals {
            Arrivals::Poisson(_) => {
                self.start.is_some() && (self.next_arrival as u64 >= self.end() || now >= self.last_send())
            }
            Arrivals::Closed(_) => self.start.is_some() && now >= self.end(),
        }
    }

    /// When the next message was or is due, if the rules let it go now.
    fn due_now(&mut self, now: u64) -> Option<u64> {
        match self.plan.arrivals {
            Arrivals::Closed(most) => (self.outstanding < most && now < self.end()).then_some(now),
            Arrivals::Poisson(per_second) => {
                let due = self.next_arrival as u64;
                if due > now || due >= self.end() {
                    return None;
                }
                if self.outstanding >= self.plan.outstanding_max {
                    self.counts.capped = true;
                    return None;
                }
                self.next_arrival += prng::exponential(&mut self.gaps, 1e9 / per_second);
                Some(due)
            }
        }
    }

    fn draw(&mut self) -> usize {
        match &self.plan.draw {
            Draw::Workload(_) => self.sizes.draw(prng::unit(&mut self.draws)),
            Draw::InTurn(_) => {
                let turn = self.counts.sent / u64::from(self.plan.in_a_row.max(1));
                (turn % self.sizes.points().len() as u64) as usize
            }
        }
    }

    fn next_held(&mut self) -> Option<Outgoing> {
        if self.held.sent == self.plan.hold {
            return None;
        }
        let number = u64::from(self.held.sent);
        self.held.sent += 1;
        Some(self.block.message(verify::sequence(Kind::Hold, number), HELD_LENGTH))
    }

    /// The message that lets the held requests go, once everything else is over.
    fn next_release(&mut self, now: u64) -> Option<Outgoing> {
        let over = self.all_due(now) && (self.outstanding == 0 || now >= self.drained_at());
        if self.plan.hold == 0 || self.held.released || !over {
            return None;
        }
        self.held.released = true;
        Some(self.block.message(verify::sequence(Kind::Release, 0), HEADER))
    }

    /// When messages that the cap has held back are no longer sent: half the drain time is left for the answers.
    fn last_send(&self) -> u64 {
        self.end() + self.plan.drain_ms * 500_000
    }

    fn drained_at(&self) -> u64 {
        self.end() + self.plan.drain_ms * 1_000_000
    }

    /// The entry of a number in flight, unless it is already answered.
    fn flight(&mut self, number: u64) -> Option<&mut Flight> {
        let number = verify::of_origin(number, self.plan.origin)?;
        let place = number.checked_sub(self.first)?;
        self.flights.get_mut(usize::try_from(place).ok()?).filter(|f| !f.done)
    }

    /// Takes a message out of flight.
    fn land(&mut self, number: u64) -> Option<Flight> {
        let flight = self.flight(number)?;
        flight.done = true;
        let landed = *flight;
        self.outstanding -= 1;
        while self.flights.front().is_some_and(|f| f.done) {
            self.flights.pop_front();
            self.first += 1;
        }
        Some(landed)
    }

    fn complete_held(&mut self, kind: Kind, number: u64) {
        match kind {
            Kind::Release => self.held.release_done = true,
            _ => match self.held.completed.get_mut(number as usize) {
                Some(done) if !*done => {
                    *done = true;
                    self.held.completed_count += 1;
                    // A held request that comes back before the release was not held.
                    self.counts.released_early += u64::from(!self.held.released);
                }
                _ => self.counts.unexpected += 1,
            },
        }
    }

    fn is_over(&self, now: u64) -> bool {
        // Held requests get as long again as the drain, counted from its end.
        let held_over = self.plan.hold == 0
            || (self.held.release_done && self.held.completed_count == self.plan.hold)
            || now >= self.drained_at() + self.plan.drain_ms * 1_000_000;
        let rest_over = self.all_due(now) && self.outstanding == 0 || now >= self.drained_at();
        rest_over && held_over
    }
}

impl<P: FnMut(Progress) + Send> Traffic for Load<P> {
    const CHECKS_BODIES: bool = true;

    fn block(&self) -> &Bytes {
        self.block.bytes()
    }

    fn next_due(&mut self, now: u64) -> Option<Outgoing> {
        if self.start.is_none() {
            self.start = Some(now);
            self.next_arrival = now as f64;
            self.progress_due = now;
        }
        if let Some(held) = self.next_held() {
            return Some(held);
        }
        if now >= self.last_send() {
            return self.next_release(now);
        }
        let Some(due) = self.due_now(now) else { return self.next_release(now) };
        let index = self.draw();
        let number = self.counts.sent;
        self.counts.sent += 1;
        self.outstanding += 1;
        self.counts.outstanding_max = self.counts.outstanding_max.max(self.outstanding);
        self.flights.push_back(Flight { due, index: index as u32, done: false });
        let length = self.sizes.size(index) as usize;
        if due >= self.measured_from() {
            self.samples.lag(now - due);
            self.counts.due_bytes += length as u64;
        }
        Some(self.block.message(self.sequence(number), length))
    }

    fn wakeup(&self) -> Option<u64> {
        let end = self.end();
        let next = match self.plan.arrivals {
            Arrivals::Closed(_) => end,
            Arrivals::Poisson(_) if self.outstanding >= self.plan.outstanding_max => end,
            Arrivals::Poisson(_) => (self.next_arrival as u64).min(end),
        };
        // After the end: now and then, to notice that the drain time is over.
        let poll = self.progress_due;
        Some(if self.counts.all_due { poll } else { next.min(poll) })
    }

    fn expect(&mut self, header: &[u8; HEADER], length: usize) -> Option<usize> {
        let sequence = verify::sequence_of(header);
        let (kind, number) = verify::kind_of(sequence);
        let expected = match kind {
            Kind::Echo => {
                let index = self.flight(number)?.index;
                self.sizes.size(index as usize) as usize
            }
            Kind::Hold => HELD_LENGTH,
            Kind::Release => HEADER,
        };
        (expected == length).then(|| self.block.offset(sequence, length - HEADER))
    }

    fn complete(&mut self, header: &[u8; HEADER], intact: bool, now: u64) {
        let (kind, number) = verify::kind_of(verify::sequence_of(header));
        if kind != Kind::Echo {
            self.counts.corrupt += u64::from(!intact);
            self.complete_held(kind, number);
            return;
        }
        let Some(flight) = self.land(number) else {
            self.counts.unexpected += 1;
            return;
        };
        self.counts.corrupt += u64::from(!intact);
        self.counts.completed += 1;
        let size = self.sizes.size(flight.index as usize);
        let from = self.measured_from();
        if flight.due >= from {
            self.samples.round_trip(flight.index, now.saturating_sub(flight.due));
        }
        if now >= from && now < self.end() {
            self.samples.delivered(now - from, size);
        }
    }

    fn fail(&mut self, sequence: u64) {
        let (kind, number) = verify::kind_of(sequence);
        self.counts.failed += 1;
        if kind == Kind::Echo && self.land(number).is_some() {
            *self.counts.lost_to.entry(traffic::target(sequence, self.plan.servers)).or_default() += 1;
        }
    }

    fn turn(&mut self, now: u64) -> bool {
        if self.start.is_none() {
            return false;
        }
        self.counts.all_due = self.all_due(now);
        if now >= self.progress_due {
            self.progress_due = now + PROGRESS_MS * 1_000_000;
            let elapsed_ms = (now - self.start.unwrap_or(now)) / 1_000_000;
            (self.progress)(Progress { elapsed_ms, completed: self.counts.completed });
        }
        if !self.done && self.is_over(now) {
            self.done = true;
            self.count_unsent(now);
        }
        self.done
    }
}

impl<P: FnMut(Progress) + Send> Load<P> {
    /// Counts what was due but could never be sent because the cap on outstanding messages held it back.
    fn count_unsent(&mut self, now: u64) {
        let Arrivals::Poisson(per_second) = self.plan.arrivals else { return };
        let end = self.end().min(now);
        while (self.next_arrival as u64) < end {
            self.counts.unsent += 1;
            self.next_arrival += prng::exponential(&mut self.gaps, 1e9 / per_second);
        }
    }
}

#[cfg(test)]
mod tests;
