//! The order of age behind FIFO grants, and their clock.
//!
//! Holds every managed message that could be given more, oldest first. The
//! scheduler takes out messages that are fully granted or do not send, and puts
//! them back when data of theirs arrives, so that finding the oldest never
//! scans the unresponsive ones twice.

use core::time::Duration;
use std::collections::BTreeSet;

use peyk_sansio::Instant;

use super::{GrantConfig, fifo_interval};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Fifo {
    ages: BTreeSet<(Instant, u32)>,
    /// `None`: no FIFO grants at all.
    interval: Option<Duration>,
    next_at: Option<Instant>,
}

impl Fifo {
    pub(super) fn new(config: &GrantConfig) -> Fifo {
        Fifo { ages: BTreeSet::new(), interval: fifo_interval(config), next_at: None }
    }

    pub(super) fn insert(&mut self, birth: Instant, slot: u32) {
        if self.interval.is_some() {
            self.ages.insert((birth, slot));
        }
    }

    pub(super) fn remove(&mut self, birth: Instant, slot: u32) {
        self.ages.remove(&(birth, slot));
    }

    pub(super) fn oldest(&self) -> Option<(Instant, u32)> {
        self.ages.first().copied()
    }

    /// Whether an interval has passed; if so the next one starts. The first one
    /// starts with the first grant ever sent.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let Some(interval) = self.interval else {
            return false;
        };
        let is_due = self.next_at.is_some_and(|at| now >= at);
        if is_due || self.next_at.is_none() {
            self.next_at = Some(now + interval);
        }
        is_due
    }
}
