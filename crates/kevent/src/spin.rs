//! How long to look before sleeping, learned from what looking brought.
//!
//! A sleep costs the sender a wake-up and the sleeper the way back, tens of microseconds on virtual
//! machines; looking costs a CPU. The budget doubles when looking paid off and halves when it did
//! not. From zero it comes back by a probe, after some sleeps that a full budget would have
//! covered; failed probes make the next one rarer, so that two threads on one CPU (where looking
//! only delays the other) settle at sleeping.

use std::time::Duration;

use crate::config::Spin;

/// Budgets below this are not worth the trouble.
const FLOOR: Duration = Duration::from_micros(2);
const FIRST_PROBE: u32 = 4;
const RAREST_PROBE: u32 = 1024;

#[derive(Debug)]
pub(crate) struct Spinner {
    budget: Duration,
    short_sleeps: u32,
    probe_after: u32,
    probing: bool,
}

impl Spinner {
    pub(crate) fn new() -> Spinner {
        Spinner { budget: Duration::ZERO, short_sleeps: 0, probe_after: FIRST_PROBE, probing: false }
    }

    /// How long to look this time.
    pub(crate) fn budget(&self, spin: Spin) -> Duration {
        match spin {
            Spin::Sleep => Duration::ZERO,
            Spin::Spin => Duration::MAX,
            Spin::Adaptive { max } => self.budget.min(max),
        }
    }

    /// Looking brought something.
    pub(crate) fn paid_off(&mut self, spin: Spin) {
        if let Spin::Adaptive { max } = spin {
            self.budget = (self.budget * 2).clamp(FLOOR, max.max(FLOOR));
            self.probing = false;
            self.probe_after = FIRST_PROBE;
        }
    }

    /// Looking for the whole budget brought nothing.
    pub(crate) fn in_vain(&mut self) {
        if self.probing {
            self.probing = false;
            self.probe_after = (self.probe_after * 2).min(RAREST_PROBE);
            self.budget = Duration::ZERO;
        }
        self.budget /= 2;
        if self.budget < FLOOR {
            self.budget = Duration::ZERO;
        }
    }

    /// The thread was descheduled while looking: somebody else wants the CPU.
    pub(crate) fn preempted(&mut self) {
        self.budget = Duration::ZERO;
        self.probing = false;
        self.probe_after = (self.probe_after * 2).min(RAREST_PROBE);
    }

    /// A sleep without looking first lasted `time`.
    pub(crate) fn slept(&mut self, spin: Spin, time: Duration) {
        let Spin::Adaptive { max } = spin else { return };
        if time > max || !self.budget.is_zero() {
            self.short_sleeps = 0;
            return;
        }
        self.short_sleeps += 1;
        if self.short_sleeps >= self.probe_after {
            self.short_sleeps = 0;
            self.budget = max;
            self.probing = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(50);
    const SPIN: Spin = Spin::Adaptive { max: MAX };

    fn probe(spinner: &mut Spinner) -> u32 {
        (1..)
            .find(|_| {
                spinner.slept(SPIN, MAX / 2);
                !spinner.budget(SPIN).is_zero()
            })
            .unwrap()
    }

    #[test]
    fn budget__grows_by_success_and_shrinks_by_failure() {
        let mut spinner = Spinner::new();
        assert_eq!(spinner.budget(SPIN), Duration::ZERO);
        probe(&mut spinner);
        assert_eq!(spinner.budget(SPIN), MAX);
        spinner.paid_off(SPIN);
        assert_eq!(spinner.budget(SPIN), MAX);
        for _ in 0..6 {
            spinner.in_vain();
        }
        assert_eq!(spinner.budget(SPIN), Duration::ZERO);
    }

    #[test]
    fn probes__become_rare_when_they_fail() {
        let mut spinner = Spinner::new();
        let mut last = 0;
        for _ in 0..12 {
            let now = probe(&mut spinner);
            assert!(now >= last && now <= RAREST_PROBE);
            last = now;
            spinner.in_vain();
        }
        assert_eq!(last, RAREST_PROBE);
        probe(&mut spinner);
        spinner.paid_off(SPIN);
        for _ in 0..6 {
            spinner.in_vain();
        }
        assert_eq!(probe(&mut spinner), FIRST_PROBE);
    }

    #[test]
    fn long_sleeps__never_probe() {
        let mut spinner = Spinner::new();
        for _ in 0..5000 {
            spinner.slept(SPIN, MAX * 2);
        }
        assert_eq!(spinner.budget(SPIN), Duration::ZERO);
        assert_eq!(spinner.budget(Spin::Spin), Duration::MAX);
    }
}
