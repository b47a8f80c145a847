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
    resend_interval: u64,
    timeout_ticks: u64,
    request_ack_ticks: u64,
    request_ack_max: u64,
}

/// What silence calls for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Silence {
    /// Nothing before this tick.
    Wait(u64),
    /// A RESEND; so many have been due by then.
    Resend(u32),
    /// Giving up.
    Timeout,
}

impl Timers {
    pub fn new(config: &Config) -> Timers {
        Timers {
            resend_ticks: u64::from(config.resend_ticks),
            resend_interval: u64::from(config.resend_interval),
            timeout_ticks: u64::from(config.timeout_ticks),
            request_ack_ticks: u64::from(config.request_ack_ticks),
            request_ack_max: u64::from(config.request_ack_max_ticks),
        }
    }

    /// The tick of the next RESEND, or of giving up, for silence since `since` in which `resends`
    /// were sent.
    pub fn resend_due(&self, since: u64, resends: u32) -> u64 {
        let resend = self.resend_ticks + self.resend_interval * u64::from(resends);
        since + resend.min(self.timeout_ticks)
    }

    /// What to do at tick `now`.
    pub fn on_silence(&self, since: u64, resends: u32, now: u64) -> Silence {
        let due = self.resend_due(since, resends);
        if now < due {
            Silence::Wait(due)
        } else if due >= since + self.timeout_ticks {
            Silence::Timeout
        } else {
            Silence::Resend(resends.saturating_add(1))
        }
    }

    /// The tick of NEED_ACK number `sent` (from 0) for a response that was all sent by `done`:
    /// the intervals double from `request_ack_ticks` up to a maximum.
    ///
    /// HomaModule sends one in every tick without end.
    pub fn need_ack_due(&self, done: u64, sent: u32) -> u64 {
        let first = self.request_ack_ticks;
        let max = self.request_ack_max.max(first);
        // Intervals that double without passing the maximum.
        let doublings = u64::from((max / first).ilog2()) + 1;
        let count = u64::from(sent) + 1;
        let doubled = count.min(doublings);
        done + first * ((1 << doubled) - 1) + (count - doubled) * max
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

#[cfg(test)]
mod tests;
