//! A rate limit for things that others can make us do.

use peyk_sansio::Instant;

/// At most so many per second, with a burst of a tenth of a second's worth.
#[derive(Debug)]
pub(crate) struct RateLimit {
    interval_ns: u64,
    burst_ns: u64,
    /// When everything allowed so far would have been used up at the steady rate, in ns.
    used_until: u64,
}

impl RateLimit {
    /// 0 per second allows nothing.
    pub fn new(per_sec: u32) -> RateLimit {
        let interval_ns = 1_000_000_000u64.checked_div(u64::from(per_sec)).unwrap_or(u64::MAX);
        RateLimit { interval_ns, burst_ns: 100_000_000, used_until: 0 }
    }

    /// Whether one more may happen now; if so it is counted.
    pub fn allow(&mut self, now: Instant) -> bool {
        let now = now.as_nanos();
        let used = self.used_until.max(now).saturating_add(self.interval_ns);
        let is_allowed = used - now <= self.burst_ns.max(self.interval_ns) && used != u64::MAX;
        if is_allowed {
            self.used_until = used;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut limit = RateLimit::new(1000);
        let now = Instant::from_nanos(5_000_000_000);
        assert_eq!((0..500).filter(|_| limit.allow(now)).count(), 100);
        assert!(!limit.allow(now));
        assert!(limit.allow(Instant::from_nanos(5_001_000_000)));
        assert!(!limit.allow(Instant::from_nanos(5_001_000_000)));
    }

    #[test]
    fn zero_allows_nothing() {
        assert!(!RateLimit::new(0).allow(Instant::from_nanos(1)));
    }

    #[test]
    fn one_per_second() {
        let mut limit = RateLimit::new(1);
        assert!(limit.allow(Instant::from_nanos(10)));
        assert!(!limit.allow(Instant::from_nanos(20)));
        assert!(limit.allow(Instant::from_nanos(1_000_000_010)));
    }
}
