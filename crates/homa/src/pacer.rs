//! Output pacing: how far ahead of the wire we may run.
//!
//! The pacer estimates when the link will have drained what was handed to it
//! and holds back data of longer messages while that lies too far in the
//! future, so that a short message never queues behind a long one in the NIC.
//! Control packets, retransmissions and short messages are charged but never
//! delayed. It does not queue anything: the owner asks `may_send`, picks a
//! message with `pick`, and reports what it sent.
//!
//! Both working modes are the same machine, a virtual time at which the link
//! falls idle, with a rate and a tolerance:
//!
//! ```text
//!   idle_at = max(now, idle_at) + cost(bytes)        may_send: idle_at - now <= tolerance
//!   Backlog:      rate = link * max_link_usage       tolerance = max_backlog
//!   TokenBucket:  rate = own                         tolerance = burst / rate
//! ```

use core::time::Duration;

use peyk_sansio::Instant;

/// Bytes every packet costs on an Ethernet beyond its frame: preamble, frame
/// check sequence and gap.
pub const FRAME_OVERHEAD: u32 = 24;

/// Tolerance of a link that is slow beside a wake-up.
const SLOW: Duration = Duration::from_micros(100);

/// How the pacer limits output.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PacerMode {
    /// Never delays; keeps no estimate.
    Off,
    /// Holds data back while the estimated NIC backlog exceeds `max_backlog`.
    Backlog {
        /// Estimated drain time above which paced data waits.
        max_backlog: Duration,
    },
    /// Sends at a fixed rate with a bounded burst, whatever the link's speed.
    TokenBucket {
        /// Bytes per second, wire overhead included.
        bytes_per_sec: u64,
        /// Bytes that may be sent at once after a pause.
        burst_bytes: u32,
    },
}

/// Settings of a [`Pacer`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PacerConfig {
    /// How output is limited.
    pub mode: PacerMode,
    /// Speed of the link in Mbit/s (mode `Backlog`); 0 counts as 1.
    pub link_mbps: u32,
    /// Share of the link's speed to use, in percent, clamped to 5..=100.
    pub max_link_usage: u32,
    /// Share of paced output given to the oldest message, in 1/1000, clamped
    /// to 0..=500; 0 turns it off.
    pub fifo_fraction: u32,
    /// Messages shorter than this many bytes are never delayed.
    pub defer_min_bytes: u32,
}

impl Default for PacerConfig {
    fn default() -> PacerConfig {
        PacerConfig {
            mode: PacerMode::Backlog { max_backlog: Duration::from_micros(5) },
            link_mbps: 25_000,
            max_link_usage: 99,
            fifo_fraction: 50,
            defer_min_bytes: 1000,
        }
    }
}

/// Which message the next paced packet is taken from.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The message with the fewest bytes left.
    Srpt,
    /// The message that has waited longest.
    Oldest,
}

/// The output pacer of one link. See the module documentation.
#[derive(Clone, Debug)]
pub struct Pacer {
    config: PacerConfig,
    /// Femtoseconds per byte; 0 when off.
    fs_per_byte: u64,
    /// Pacers that share the link, this one included.
    sharers: u32,
    tolerance: Duration,
    /// Estimated time at which the link falls idle, and femtoseconds beyond it.
    idle_at: Instant,
    idle_fs: u64,
    /// Bytes that may go by SRPT before the oldest message has its turn.
    srpt_bytes: i64,
}

impl Pacer {
    /// A pacer for an idle link. Out-of-range settings are clamped.
    pub fn new(mut config: PacerConfig) -> Pacer {
        config.max_link_usage = config.max_link_usage.clamp(5, 100);
        config.fifo_fraction = config.fifo_fraction.min(500);
        config.link_mbps = config.link_mbps.max(1);
        let (fs_per_byte, tolerance) = match config.mode {
            PacerMode::Off => (0, Duration::ZERO),
            PacerMode::Backlog { max_backlog } => {
                let mbps = u64::from(config.link_mbps) * u64::from(config.max_link_usage);
                (800_000_000_000 / mbps, max_backlog)
            }
            PacerMode::TokenBucket { bytes_per_sec, burst_bytes } => {
                let rate = bytes_per_sec.max(1);
                let burst = u128::from(burst_bytes) * 1_000_000_000 / u128::from(rate);
                let burst = u64::try_from(burst).unwrap_or(u64::MAX);
                (1_000_000_000_000_000 / rate, Duration::from_nanos(burst))
            }
        };
        Pacer {
            config,
            fs_per_byte: if config.mode == PacerMode::Off { 0 } else { fs_per_byte.max(1) },
            sharers: 1,
            tolerance,
            idle_at: Instant::ZERO,
            idle_fs: 0,
            srpt_bytes: 1,
        }
    }

    /// Tells how many pacers share the link at this moment, this one included: each has an equal
    /// part of its rate from now on.
    pub fn set_sharers(&mut self, sharers: u32) {
        let sharers = sharers.max(1);
        if sharers != self.sharers {
            let full = self.fs_per_byte / u64::from(self.sharers);
            self.sharers = sharers;
            self.fs_per_byte = full.saturating_mul(u64::from(sharers));
        }
    }

    /// Whether pacing is switched off altogether.
    pub fn is_off(&self) -> bool {
        self.config.mode == PacerMode::Off
    }

    /// Whether data of a message of this length is never delayed. It is the
    /// message's length that counts, not the packet's: otherwise the short tail
    /// of a long message would overtake its own deferred body.
    pub fn is_exempt(&self, message_length: u32) -> bool {
        self.is_off() || message_length < self.config.defer_min_bytes
    }

    /// Whether a paced packet may go now.
    pub fn may_send(&self, now: Instant) -> bool {
        self.is_off() || self.idle_at.saturating_since(now) <= self.tolerance
    }

    /// When a paced packet may go, `None` if it may go now.
    pub fn next_time(&self, now: Instant) -> Option<Instant> {
        if self.may_send(now) {
            return None;
        }
        let at = self.idle_at.as_nanos() - self.tolerance.as_nanos() as u64;
        Some(Instant::from_nanos(at))
    }

    /// When to look again after [`Pacer::may_send`] said no, for an owner that has to be woken: on a slow link a little
    /// later than the next packet may go, when several may, so that not every packet costs a wake-up.
    pub fn wakeup(&self) -> Option<Instant> {
        let slack = if self.tolerance >= SLOW { self.tolerance / 2 } else { Duration::ZERO };
        self.next_time(Instant::ZERO).map(|at| at + slack)
    }

    /// Accounts a packet of `bytes` (IP length) handed to the driver, paced or not.
    pub fn charge(&mut self, now: Instant, bytes: u32) {
        if self.is_off() {
            return;
        }
        if self.idle_at < now {
            self.idle_at = now;
            self.idle_fs = 0;
        }
        let bytes = u64::from(bytes) + u64::from(FRAME_OVERHEAD);
        let fs = bytes.saturating_mul(self.fs_per_byte).saturating_add(self.idle_fs);
        self.idle_at += Duration::from_nanos(fs / 1_000_000);
        self.idle_fs = fs % 1_000_000;
    }

    /// Estimated time the link needs to drain what it was given.
    pub fn backlog(&self, now: Instant) -> Duration {
        self.idle_at.saturating_since(now)
    }

    /// From which message the next paced packet should come.
    pub fn pick(&self) -> Pick {
        let is_shared = !self.is_off() && self.config.fifo_fraction > 0;
        if is_shared && self.srpt_bytes <= 0 { Pick::Oldest } else { Pick::Srpt }
    }

    /// Reports that `bytes` of paced data were sent by that choice. Does not
    /// charge the link; see [`Pacer::charge`].
    pub fn on_sent(&mut self, pick: Pick, bytes: u32) {
        let fraction = i64::from(self.config.fifo_fraction);
        if fraction == 0 {
            return;
        }
        match pick {
            Pick::Srpt => self.srpt_bytes -= i64::from(bytes),
            Pick::Oldest => self.srpt_bytes += i64::from(bytes) * (1000 - fraction) / fraction,
        }
    }
}

#[cfg(test)]
mod tests;
