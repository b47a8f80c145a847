//! A token bucket over all grants of a link: caps the rate at which data is
//! asked for, against incast or where the receiver shares its downlink.
//!
//! FIFO grants are charged but never refused, so the level may fall below zero.

use core::time::Duration;

use peyk_sansio::Instant;

/// Rate limit on grants.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct GrantBucket {
    /// Bytes that may be granted per second.
    pub bytes_per_sec: u64,
    /// Most bytes that can be saved up.
    pub burst_bytes: u32,
}

/// The least worth a GRANT packet while tokens are scarce: about one packet.
const QUANTUM: u32 = 1500;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: GrantBucket,
    /// Tokens in billionths of a byte, so that no rate is rounded away.
    level: i128,
    at: Instant,
}

const NANO: i128 = 1_000_000_000;

impl Bucket {
    pub(super) fn new(mut limit: GrantBucket) -> Bucket {
        limit.bytes_per_sec = limit.bytes_per_sec.max(1);
        limit.burst_bytes = limit.burst_bytes.max(QUANTUM);
        Bucket { limit, level: i128::from(limit.burst_bytes) * NANO, at: Instant::ZERO }
    }

    pub(super) fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_since(self.at).as_nanos() as i128;
        self.at = self.at.max(now);
        let full = i128::from(self.limit.burst_bytes) * NANO;
        self.level = (self.level + elapsed * i128::from(self.limit.bytes_per_sec)).min(full);
    }

    /// Takes up to `bytes` and returns how many; none while the level is below
    /// a packet's worth (or all that is asked for).
    pub(super) fn take(&mut self, bytes: u32) -> u32 {
        if self.level < self.needed(bytes) {
            return 0;
        }
        let taken = bytes.min(u32::try_from(self.level / NANO).unwrap_or(u32::MAX));
        self.charge(taken);
        taken
    }

    pub(super) fn charge(&mut self, bytes: u32) {
        self.level -= i128::from(bytes) * NANO;
    }

    pub(super) fn has_tokens(&self) -> bool {
        self.level > 0
    }

    /// When `take(bytes)` will give something.
    pub(super) fn ready_at(&self, bytes: u32) -> Instant {
        let missing = self.needed(bytes) - self.level;
        if missing <= 0 {
            return self.at;
        }
        let rate = i128::from(self.limit.bytes_per_sec);
        let nanos = (missing + rate - 1) / rate;
        self.at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn needed(&self, bytes: u32) -> i128 {
        i128::from(bytes.min(QUANTUM)) * NANO
    }
}
