//! How much a connection may have under way: slow start and congestion avoidance (RFC 5681), what NewReno does
//! to the window (RFC 6582), and DCTCP (RFC 8257). It counts bytes; sequence numbers and timers are the
//! sender's.

/// DCTCP's estimate of the share of bytes that met congestion.
#[derive(Clone, Debug)]
pub struct Alpha {
    /// The estimate.
    pub value: f64,
    gain: f64,
    acked: u64,
    marked: u64,
    /// The present window of observation ends when this is acknowledged.
    ends_at: u64,
    /// Until this is acknowledged the window has been reduced and neither grows nor shrinks again.
    reduced_until: u64,
}

/// The window of a connection.
#[derive(Clone, Debug)]
pub struct Congestion {
    mss: u64,
    limit: u64,
    /// Bytes that may be under way.
    pub window: u64,
    /// Below it the window grows by slow start.
    pub threshold: u64,
    /// Bytes acknowledged towards the next segment in congestion avoidance.
    credit: u64,
    /// Present in DCTCP.
    pub alpha: Option<Alpha>,
}

/// An acknowledgement of data, as the window sees it.
#[derive(Copy, Clone, Debug)]
pub struct Progress {
    /// Bytes acknowledged by it.
    pub acked: u64,
    /// All bytes before this have been.
    pub upto: u64,
    /// All bytes before this have been sent.
    pub sent: u64,
    /// The segment that caused it was marked.
    pub is_marked: bool,
    /// The window was what held the sender back.
    pub is_limited: bool,
}

impl Congestion {
    /// A window of `initial` bytes that never exceeds `limit`; with the gain of DCTCP's estimate if it is
    /// DCTCP.
    pub fn new(mss: u64, initial: u64, limit: u64, gain: Option<f64>) -> Congestion {
        // The estimate begins at one (RFC 8257, section 3.3).
        let alpha = |gain| Alpha { value: 1.0, gain, acked: 0, marked: 0, ends_at: 0, reduced_until: 0 };
        Congestion {
            mss,
            limit,
            window: initial.min(limit),
            threshold: limit,
            credit: 0,
            alpha: gain.map(alpha),
        }
    }

    /// Data has been acknowledged outside of a recovery.
    pub fn on_progress(&mut self, progress: Progress) {
        let is_reduced = self.observe(progress);
        if !is_reduced && progress.is_limited {
            self.grow(progress.acked);
        }
    }

    /// DCTCP's part. True if the window is not to grow.
    fn observe(&mut self, progress: Progress) -> bool {
        let Some(alpha) = &mut self.alpha else { return false };
        alpha.acked += progress.acked;
        alpha.marked += progress.acked * u64::from(progress.is_marked);
        if progress.upto >= alpha.ends_at {
            let share = alpha.marked as f64 / alpha.acked.max(1) as f64;
            alpha.value += alpha.gain * (share - alpha.value);
            (alpha.acked, alpha.marked, alpha.ends_at) = (0, 0, progress.sent);
        }
        if progress.upto < alpha.reduced_until {
            return true;
        }
        if progress.is_marked {
            alpha.reduced_until = progress.sent;
            let reduced = (self.window as f64 * (1.0 - alpha.value / 2.0)) as u64;
            self.window = reduced.max(2 * self.mss);
            self.threshold = self.window;
            self.credit = 0;
        }
        progress.is_marked
    }

    fn grow(&mut self, acked: u64) {
        if self.window < self.threshold {
            // Each segment is acknowledged: at most one of growth for each (RFC 3465 with L = 1).
            self.window += acked.min(self.mss);
        } else {
            self.credit += acked;
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window += self.mss;
            }
        }
        self.window = self.window.min(self.limit);
    }

    /// A segment is taken to be lost while later ones arrived: half the window, and the three that arrived.
    pub fn on_fast_retransmit(&mut self, in_flight: u64) {
        self.halve(in_flight);
        self.window = self.threshold + 3 * self.mss;
    }

    /// One more segment has left the network during recovery.
    pub fn on_duplicate(&mut self) {
        self.window = (self.window + self.mss).min(self.limit + 3 * self.mss);
    }

    /// Part of what was under way when recovery began has been acknowledged.
    pub fn on_partial(&mut self, acked: u64) {
        self.window = self.window.saturating_sub(acked) + if acked >= self.mss { self.mss } else { 0 };
        self.window = self.window.max(self.mss);
    }

    /// All that was under way when recovery began has been acknowledged.
    pub fn on_recovered(&mut self, in_flight: u64) {
        self.window = self.threshold.min(in_flight.max(self.mss) + self.mss);
        self.credit = 0;
    }

    /// Nothing has been acknowledged for a long time. `is_first`: for the first time in a row.
    pub fn on_timeout(&mut self, in_flight: u64, is_first: bool) {
        if is_first {
            self.halve(in_flight);
        }
        self.window = self.mss;
        self.credit = 0;
    }

    /// Nothing has been sent for a long time: the window says nothing about the network any more.
    pub fn on_idle(&mut self, initial: u64) {
        self.window = self.window.min(initial);
        self.credit = 0;
    }

    fn halve(&mut self, in_flight: u64) {
        self.threshold = (in_flight / 2).max(2 * self.mss);
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1_000;

    fn progress(acked: u64, upto: u64, sent: u64) -> Progress {
        Progress { acked, upto, sent, is_marked: false, is_limited: true }
    }

    #[test]
    fn grow__doubles_below_the_threshold_and_then_adds_a_segment_a_window() {
        let mut tcp = Congestion::new(MSS, 10 * MSS, 1 << 20, None);
        tcp.threshold = 20 * MSS;
        (0..10).for_each(|n| tcp.on_progress(progress(MSS, n * MSS, 0)));
        assert_eq!(tcp.window, 20 * MSS);
        (0..20).for_each(|n| tcp.on_progress(progress(MSS, n * MSS, 0)));
        assert_eq!(tcp.window, 21 * MSS);
    }

    #[test]
    fn grow__not_while_the_application_is_what_limits() {
        let mut tcp = Congestion::new(MSS, 10 * MSS, 1 << 20, None);
        tcp.on_progress(Progress { is_limited: false, ..progress(MSS, MSS, 0) });
        assert_eq!(tcp.window, 10 * MSS);
    }

    #[test]
    fn on_timeout__one_segment_and_the_threshold_only_once() {
        let mut tcp = Congestion::new(MSS, 10 * MSS, 1 << 20, None);
        tcp.on_timeout(10 * MSS, true);
        assert_eq!((tcp.window, tcp.threshold), (MSS, 5 * MSS));
        tcp.on_timeout(MSS, false);
        assert_eq!((tcp.window, tcp.threshold), (MSS, 5 * MSS));
    }

    #[test]
    fn dctcp__without_marks_alpha_fades() {
        let mut dctcp = Congestion::new(MSS, 10 * MSS, 1 << 20, Some(1.0 / 16.0));
        (1..=48).for_each(|n| dctcp.on_progress(progress(MSS, n * MSS, n * MSS)));
        let alpha = dctcp.alpha.as_ref().expect("dctcp").value;
        assert!((alpha - (15.0f64 / 16.0).powi(48)).abs() < 1e-9, "{alpha}");
    }

    #[test]
    fn dctcp__marks_take_half_of_alpha_off_the_window_once_a_window() {
        let mut dctcp = Congestion::new(MSS, 100 * MSS, 1 << 20, Some(1.0 / 16.0));
        dctcp.alpha.as_mut().expect("dctcp").value = 0.5;
        dctcp.alpha.as_mut().expect("dctcp").ends_at = 100 * MSS;
        for n in 1..100 {
            let marked = Progress { is_marked: true, ..progress(MSS, n * MSS, 100 * MSS) };
            dctcp.on_progress(marked);
            assert_eq!(dctcp.window, 75 * MSS);
        }
        // The whole window was marked: alpha moves a sixteenth of the way to one, then halves the window.
        dctcp.on_progress(Progress { is_marked: true, ..progress(MSS, 100 * MSS, 175 * MSS) });
        let alpha = 0.5 + 0.5 / 16.0;
        assert_eq!(dctcp.alpha.as_ref().expect("dctcp").value, alpha);
        assert_eq!(dctcp.window, (75_000.0 * (1.0 - alpha / 2.0)) as u64);
    }

    #[test]
    fn dctcp__all_marked_converges_to_half_a_window_each_round() {
        let mut dctcp = Congestion::new(MSS, 1_000 * MSS, 1 << 20, Some(1.0 / 16.0));
        dctcp.alpha.as_mut().expect("dctcp").value = 0.0;
        for n in 1..=100 {
            dctcp.on_progress(Progress { is_marked: true, ..progress(MSS, n * MSS, (n + 1) * MSS) });
        }
        assert!(dctcp.alpha.as_ref().expect("dctcp").value > 0.99);
        let before = dctcp.window.max(100 * MSS);
        dctcp.window = before;
        dctcp.on_progress(Progress { is_marked: true, ..progress(MSS, 101 * MSS, 102 * MSS) });
        let share = dctcp.window as f64 / before as f64;
        assert!((0.5..0.51).contains(&share), "{share}");
    }
}
