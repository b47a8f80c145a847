//! Virtual time in picoseconds: a byte on a 10 Gbit/s link takes 800 of them, so links do not round.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

use peyk_sansio::Instant;

/// A point in virtual time, or a span of it, in picoseconds. The range is 213 days.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Picos(pub u64);

impl Picos {
    /// The beginning.
    pub const ZERO: Picos = Picos(0);
    /// Never.
    pub const MAX: Picos = Picos(u64::MAX);

    /// So many nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Picos {
        Picos(nanos.saturating_mul(1_000))
    }

    /// So many microseconds.
    pub const fn from_micros(micros: u64) -> Picos {
        Picos(micros.saturating_mul(1_000_000))
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Picos {
        Picos(millis.saturating_mul(1_000_000_000))
    }

    /// The nearest number of picoseconds; negative and absurd values saturate.
    pub fn from_secs_f64(secs: f64) -> Picos {
        Picos((secs * 1e12) as u64)
    }

    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e12
    }

    /// In microseconds.
    pub fn as_micros_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// The protocol's clock, which counts nanoseconds: rounded down.
    pub const fn to_instant(self) -> Instant {
        Instant::from_nanos(self.0 / 1_000)
    }

    /// The first moment at which [`to_instant`](Picos::to_instant) gives `instant` or later.
    pub const fn at_instant(instant: Instant) -> Picos {
        Picos(instant.as_nanos().saturating_mul(1_000))
    }

    /// The span from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Picos) -> Picos {
        Picos(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Picos {
    type Output = Picos;
    fn add(self, other: Picos) -> Picos {
        Picos(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Picos {
    fn add_assign(&mut self, other: Picos) {
        *self = *self + other;
    }
}

impl Sub for Picos {
    type Output = Picos;
    fn sub(self, other: Picos) -> Picos {
        self.since(other)
    }
}

impl fmt::Debug for Picos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} us", self.as_micros_f64())
    }
}

impl fmt::Display for Picos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
