//! The one clock of a shard. Protocols never see it: they are handed an [`Instant`].

use peyk_sansio::Instant;

/// Monotonic time since the clock was made, which is its origin plus one second, so that
/// protocols may subtract small spans without reaching zero.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: std::time::Instant,
}

const HEAD_START_NS: u64 = 1_000_000_000;

impl Clock {
    /// A clock that starts here.
    pub fn start() -> Clock {
        Clock { origin: std::time::Instant::now() }
    }

    /// A time in the past, for those who must not wait.
    pub fn origin(&self) -> std::time::Instant {
        self.origin
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.at(std::time::Instant::now())
    }

    /// A time of the standard library on this clock; times before the start count as the start.
    pub fn at(&self, t: std::time::Instant) -> Instant {
        let ns = u64::try_from(t.saturating_duration_since(self.origin).as_nanos());
        Instant::from_nanos(HEAD_START_NS.saturating_add(ns.unwrap_or(u64::MAX / 2)))
    }

    /// A time of this clock in the standard library's terms.
    pub fn to_std(self, t: Instant) -> std::time::Instant {
        self.origin + std::time::Duration::from_nanos(t.as_nanos().saturating_sub(HEAD_START_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_std__undoes_at() {
        let clock = Clock::start();
        let t = std::time::Instant::now() + std::time::Duration::from_millis(5);
        assert_eq!(clock.to_std(clock.at(t)), t);
        assert!(clock.now() <= clock.now());
    }
}
