//! The load of `peyk bench rpc`: a closed loop of messages of one size. The harness itself must cost next to
//! nothing: no hash, no comparison of bodies, one histogram entry per response, times as the transport reads them.

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    process::cpu_seconds,
    traffic::{HEADER, Outgoing, Traffic},
};

/// What a client of the benchmark is to do.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub struct FixedPlan {
    /// Length of every request and response in bytes.
    pub size: u32,
    /// Requests kept outstanding, at most [`OUTSTANDING_MAX`].
    pub outstanding: u32,
    /// Not measured, at the beginning.
    pub warmup_ms: u64,
    /// Measured afterwards.
    pub measure_ms: u64,
}

/// Most requests outstanding.
pub const OUTSTANDING_MAX: u32 = 1_024;

/// Result of one closed loop.
#[derive(Copy, Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct FixedResult {
    /// Responses in the measured time.
    pub completed: u64,
    /// Requests answered from the first to the last, warm-up included.
    pub answered: u64,
    /// Requests the transport gave up on (bare UDP: datagrams lost).
    pub failed: u64,
    /// Responses that were not expected.
    pub unexpected: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Median round trip in microseconds.
    pub p50_us: f64,
    /// 99th percentile of it.
    pub p99_us: f64,
    /// CPU time of the client process in the measured time, in seconds.
    pub cpu_seconds: f64,
}

/// Fewer responses than this give no figure: the measurement goes on for up to ten times the planned time.
const COMPLETED_MIN: u64 = 50;

/// Departure times are kept for this many sequence numbers.
const RING: usize = 1 << 16;

/// The measured time, once it has begun.
#[derive(Copy, Clone)]
struct Window {
    from: u64,
    cpu_from: f64,
}

/// A closed loop of messages of one size.
pub struct Fixed {
    plan: FixedPlan,
    block: Bytes,
    /// Departure plus one nanosecond by sequence number; zero: not in flight.
    departures: Vec<u64>,
    next: u64,
    outstanding: u32,
    start: Option<u64>,
    window: Option<Window>,
    stopping: bool,
    round_trips: Histogram<u64>,
    result: FixedResult,
}

impl Fixed {
    /// A closed loop.
    pub fn new(plan: FixedPlan) -> Fixed {
        let size = (plan.size as usize).max(HEADER);
        Fixed {
            plan: FixedPlan { size: size as u32, outstanding: plan.outstanding.min(OUTSTANDING_MAX), ..plan },
            block: vec![0x5a; size - HEADER].into(),
            departures: vec![0; RING],
            next: 0,
            outstanding: 0,
            start: None,
            window: None,
            stopping: false,
            round_trips: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds"),
            result: FixedResult::default(),
        }
    }

    /// The result; call it when [`Traffic::turn`] has said that all is done.
    pub fn finish(mut self) -> FixedResult {
        self.result.p50_us = self.round_trips.value_at_quantile(0.5) as f64 / 1e3;
        self.result.p99_us = self.round_trips.value_at_quantile(0.99) as f64 / 1e3;
        self.result
    }

    /// Whether so many nanoseconds of measuring will do: longer than planned if hardly anything came back.
    fn is_enough(&self, ns: u64) -> bool {
        let planned = self.plan.measure_ms * 1_000_000;
        ns >= planned && (self.result.completed >= COMPLETED_MIN || ns >= planned * 10)
    }

    fn slot(sequence: u64) -> usize {
        sequence as usize % RING
    }

    /// Takes a request out of flight; its departure.
    fn land(&mut self, sequence: u64) -> Option<u64> {
        let departure = std::mem::take(&mut self.departures[Fixed::slot(sequence)]).checked_sub(1)?;
        self.outstanding -= 1;
        Some(departure)
    }
}

impl Traffic for Fixed {
    const CHECKS_BODIES: bool = false;

    fn block(&self) -> &Bytes {
        &self.block
    }

    fn next_due(&mut self, now: u64) -> Option<Outgoing> {
        if self.outstanding >= self.plan.outstanding || self.stopping {
            return None;
        }
        self.start.get_or_insert(now);
        let sequence = self.next;
        // Only a request that is 65,536 numbers behind can still stand here: it will not come back.
        if self.land(sequence).is_some() {
            self.result.failed += 1;
        }
        self.next += 1;
        self.outstanding += 1;
        self.departures[Fixed::slot(sequence)] = now + 1;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&sequence.to_le_bytes());
        Some(Outgoing { header, body: 0..self.block.len() })
    }

    fn wakeup(&self) -> Option<u64> {
        None
    }

    fn expect(&mut self, _: &[u8; HEADER], length: usize) -> Option<usize> {
        (length == self.plan.size as usize).then_some(0)
    }

    fn complete(&mut self, header: &[u8; HEADER], intact: bool, now: u64) {
        let sequence = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
        let Some(departure) = self.land(sequence) else {
            self.result.unexpected += 1;
            return;
        };
        self.result.answered += 1;
        self.result.unexpected += u64::from(!intact);
        if self.window.is_some() && !self.stopping {
            self.result.completed += 1;
            self.round_trips.saturating_record(now.saturating_sub(departure).max(1));
        }
    }

    fn fail(&mut self, sequence: u64) {
        self.result.failed += u64::from(self.land(sequence).is_some());
    }

    fn turn(&mut self, now: u64) -> bool {
        let Some(start) = self.start else { return false };
        match self.window {
            None if now >= start + self.plan.warmup_ms * 1_000_000 => {
                self.window = Some(Window { from: now, cpu_from: cpu_seconds() });
            }
            Some(window) if !self.stopping && self.is_enough(now - window.from) => {
                self.result.seconds = (now - window.from) as f64 / 1e9;
                self.result.cpu_seconds = cpu_seconds() - window.cpu_from;
                self.stopping = true;
            }
            _ => {}
        }
        self.stopping && self.outstanding == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_loop_counts_inside_the_window_only() {
        let plan = FixedPlan { size: 100, outstanding: 2, warmup_ms: 1, measure_ms: 5 };
        let mut fixed = Fixed::new(plan);
        let mut now = 0;
        while !fixed.turn(now) {
            let due: Vec<_> = std::iter::from_fn(|| fixed.next_due(now)).collect();
            assert!(due.len() <= 2);
            now += 100_000;
            for message in due {
                assert_eq!(message.len(), 100);
                assert_eq!(fixed.expect(&message.header, 100), Some(0));
                fixed.complete(&message.header, true, now);
                fixed.complete(&message.header, true, now);
            }
        }
        let result = fixed.finish();
        assert_eq!(result.completed, 100);
        assert_eq!(result.answered, 120);
        assert_eq!(result.unexpected, 120);
        assert!((99.0..101.0).contains(&result.p50_us), "{}", result.p50_us);
    }

    #[test]
    fn fail_frees_a_place_once() {
        let mut fixed = Fixed::new(FixedPlan { size: 100, outstanding: 1, warmup_ms: 0, measure_ms: 1 });
        let message = fixed.next_due(0).unwrap();
        assert_eq!(fixed.next_due(0), None);
        fixed.fail(message.sequence());
        fixed.fail(message.sequence());
        assert!(fixed.next_due(0).is_some());
        assert_eq!(fixed.finish().failed, 1);
    }
}
