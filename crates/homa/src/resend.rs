//! When to ask again and when to give up: pure arithmetic on ticks.
//!
//! HomaModule counts, for each RPC and in each tick of 1 ms, how long nothing that was owed has
//! come: RESEND after `resend_ticks` of silence and every `resend_interval` from then on, failure
//! after `timeout_ticks`. Here nobody counts: an RPC remembers the tick since which it is silent
//! and how many RESENDs it has sent, and the wheel wakes it at [`Timers::resend_due`].
//!
//! A timer that fires late moves the start of the silence by as much: what we slept through is
//! not the peer's silence. (HomaModule's count stands still while its timer does not run.)

use crate::config::Config;

/// The timers of the protocol, in ticks.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Timers {
    resend_ticks: u64,
    /// Longest silence before the first RESEND, when a server keeps saying BUSY.
    resend_ticks_busy: u64,
    resend_interval: u64,
    resend_interval_max: u64,
    timeout_ticks: u64,
    request_ack_ticks: u64,
    request_ack_max: u64,
}

/// How long an RPC has waited.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wait {
    /// Tick since which nothing owed has come, or at which a response was all sent (server).
    pub since: u64,
    /// RESENDs sent since then, or NEED_ACKs (server).
    pub rounds: u32,
    /// BUSYs in a row that were all a client heard. The first RESEND after the second BUSY waits
    /// twice as long as the one before, and so on: if the response gets lost meanwhile, the
    /// server's NEED_ACK tells. HomaModule asks every 5 ms however long the server takes, which
    /// 100,000 RPCs in service cannot afford.
    pub busies: u32,
}

impl Wait {
    /// A wait that begins in this tick.
    pub fn from(tick: u64) -> Wait {
        Wait { since: tick, rounds: 0, busies: 0 }
    }
}

/// What silence calls for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Silence {
    /// Nothing before this tick.
    Wait(u64),
    /// A RESEND.
    Resend,
    /// Giving up.
    Timeout,
}

impl Timers {
    pub fn new(config: &Config) -> Timers {
        Timers {
            resend_ticks: u64::from(config.resend_ticks),
            resend_ticks_busy: match config.busy_backoff {
                true => u64::from(config.resend_ticks.max(config.timeout_ticks / 2)),
                false => u64::from(config.resend_ticks),
            },
            resend_interval: u64::from(config.resend_interval),
            resend_interval_max: u64::from(config.resend_interval_max),
            timeout_ticks: u64::from(config.timeout_ticks),
            request_ack_ticks: u64::from(config.request_ack_ticks),
            request_ack_max: u64::from(config.request_ack_max_ticks),
        }
    }

    /// The tick of the next RESEND, or of giving up.
    #[inline]
    pub fn resend_due(&self, wait: Wait) -> u64 {
        let mut first = self.resend_ticks;
        if wait.busies > 1 {
            first = (first << (wait.busies - 1).min(20)).min(self.resend_ticks_busy);
        }
        let resend = first + doubling(self.resend_interval, self.resend_interval_max, u64::from(wait.rounds));
        wait.since + resend.min(self.timeout_ticks)
    }

    /// What to do at tick `now`.
    pub fn on_silence(&self, wait: Wait, now: u64) -> Silence {
        let due = self.resend_due(wait);
        if now < due {
            Silence::Wait(due)
        } else if due >= wait.since + self.timeout_ticks {
            Silence::Timeout
        } else {
            Silence::Resend
        }
    }

    /// The tick of NEED_ACK number `sent` (from 0) for a response that was all sent by `done`:
    /// the intervals double from `request_ack_ticks` up to a maximum.
    ///
    /// HomaModule sends one in every tick without end.
    pub fn need_ack_due(&self, done: u64, sent: u32) -> u64 {
        done + doubling(self.request_ack_ticks, self.request_ack_max, u64::from(sent) + 1)
    }

    /// The tick at which a server asks, for time number `sent`, about a response that its client
    /// has not granted any further since `since`.
    pub fn probe_due(&self, since: u64, sent: u32) -> u64 {
        self.need_ack_due(since + self.timeout_ticks, sent)
    }

    /// The tick at which a server forgets an answered request whose client was last heard at
    /// `heard`. Its client must have given up by then.
    pub fn server_forget_due(&self, heard: u64) -> u64 {
        heard + 2 * self.timeout_ticks
    }
}

/// The sum of `count` intervals that double from `first` up to `max`.
#[inline]
fn doubling(first: u64, max: u64, count: u64) -> u64 {
    let max = max.max(first);
    // Intervals that double without passing the maximum.
    let doublings = u64::from((max / first).ilog2()) + 1;
    let doubled = count.min(doublings);
    first * ((1 << doubled) - 1) + (count - doubled) * max
}

#[cfg(test)]
mod tests;
