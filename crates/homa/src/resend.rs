//! When to ask again, how often, and when to give up: pure arithmetic on ticks.
//!
//! HomaModule counts, for each RPC and in each tick of 1 ms, how long nothing that was owed has
//! come: RESEND after `resend_ticks` of silence and every `resend_interval` from then on, failure
//! after `timeout_ticks`. Here nobody counts: an RPC remembers the tick since which it is silent
//! and how many RESENDs it has sent, and the wheel wakes it at [`Timers::resend_due`].
//!
//! A timer that fires late moves the start of the silence by as much: what we slept through is
//! not the peer's silence. (HomaModule's count stands still while its timer does not run.)
//!
//! A peer that is late with everything is not to be asked for everything: its answers would make
//! it later still. What timers may ask of a peer is therefore limited by a [`Budget`]. An RPC to
//! whose RESEND there is none waits in a queue of its peer, the oldest first, as long as the peer
//! is heard at all; that the peer is busy with others is not its silence either, so this time
//! counts for one part in [`RATIONED_SHARE`] only.

use crate::config::Config;

/// How late a peer is with what it owes us: by so much its timers are stretched. It grows with
/// every retransmission that came for nothing, for then the original was only late; it shrinks by
/// half as much with every one that was needed, and with time. Where nothing is late it is nothing.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lateness {
    /// In 1/8 ticks, at tick `at`; one less in each tick since.
    eighths: u64,
    at: u64,
}

impl Lateness {
    /// In whole ticks.
    #[inline]
    pub fn ticks(&self, now: u64) -> u64 {
        self.eighths.saturating_sub(now.saturating_sub(self.at)) / 8
    }

    /// A retransmission came whose bytes were here already.
    #[cold]
    pub fn on_useless(&mut self, timers: &Timers, now: u64) {
        let max = (timers.resend_ticks * MAX_LATENESS).min(timers.timeout_ticks / 4);
        self.update(now);
        self.eighths = (self.eighths + 2).min(8 * max);
    }

    /// A retransmission came whose bytes were missing.
    #[cold]
    pub fn on_useful(&mut self, now: u64) {
        self.update(now);
        self.eighths = self.eighths.saturating_sub(1);
    }

    fn update(&mut self, now: u64) {
        self.eighths = self.eighths.saturating_sub(now.saturating_sub(self.at));
        self.at = self.at.max(now);
    }
}

/// The timers of the protocol, in ticks.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Timers {
    resend_ticks: u64,
    /// Longest silence before the first RESEND, when a server keeps saying BUSY.
    resend_ticks_busy: u64,
    resend_bytes_per_tick: u64,
    resend_interval: u64,
    resend_interval_max: u64,
    timeout_ticks: u64,
    request_ack_ticks: u64,
    request_ack_max: u64,
    resends_per_tick: u32,
    resend_burst: u32,
}

/// What an RPC waits for a RESEND to be allowed is divided by this before it counts as silence.
const RATIONED_SHARE: u64 = 8;
/// RESENDs allowed for one that was answered by a retransmission of use: twice as many after each
/// round trip, if much was lost and the peer is able to send it again.
const EARNED: u32 = 2;
/// Times `resend_ticks` by which timers are stretched at most; also at most a quarter of the time-out.
const MAX_LATENESS: u64 = 8;

/// Times `timeout_ticks` after which a server forgets a response that a live client ignores: longer
/// than a client can wait for one while it is heard.
const DESPAIR: u64 = 32;

/// RESENDs that timers may send to a peer now, or NEED_ACKs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Budget {
    left: u32,
    /// Tick up to which the steady allowance is included.
    refilled: u64,
}

impl Budget {
    /// A full one.
    pub fn new(burst: u32, tick: u64) -> Budget {
        Budget { left: burst, refilled: tick }
    }

    /// Whether there is any left.
    pub fn has(&mut self, timers: &Timers, tick: u64) -> bool {
        let ticks = u32::try_from(tick.saturating_sub(self.refilled)).unwrap_or(u32::MAX);
        self.refilled = self.refilled.max(tick);
        self.earn(timers, ticks.saturating_mul(timers.resends_per_tick));
        self.left > 0
    }

    /// Takes one RESEND, if there is one.
    pub fn take(&mut self, timers: &Timers, tick: u64) -> bool {
        let is_allowed = self.has(timers, tick);
        self.left -= u32::from(is_allowed);
        is_allowed
    }

    /// A RESEND brought a part of a message that had been lost.
    pub fn on_useful(&mut self, timers: &Timers) {
        self.earn(timers, EARNED);
    }

    /// A RESEND was answered BUSY, or a NEED_ACK by ACK: asking cost next to nothing.
    pub fn on_answer(&mut self, timers: &Timers) {
        self.earn(timers, 1);
    }

    fn earn(&mut self, timers: &Timers, count: u32) {
        self.left = self.left.saturating_add(count).min(timers.resend_burst);
    }
}

/// How long an RPC has waited.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wait {
    /// Tick since which nothing owed has come, or at which a response was all sent (server).
    pub since: u64,
    /// RESENDs sent since then, or due but not worth sending, or NEED_ACKs (server).
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
            resend_bytes_per_tick: u64::from(config.resend_bytes_per_tick),
            resend_interval: u64::from(config.resend_interval),
            resend_interval_max: u64::from(config.resend_interval_max),
            timeout_ticks: u64::from(config.timeout_ticks),
            request_ack_ticks: u64::from(config.request_ack_ticks),
            request_ack_max: u64::from(config.request_ack_max_ticks),
            resends_per_tick: config.resends_per_tick,
            resend_burst: config.resend_burst,
        }
    }

    /// The timers for a message that lacks so many bytes. It is given up as soon as any other.
    pub fn patient(self, missing: u32) -> Timers {
        let ticks = u64::from(missing).checked_div(self.resend_bytes_per_tick).unwrap_or(0);
        let ticks = ticks.min(self.timeout_ticks / 4);
        Timers {
            resend_ticks: self.resend_ticks + ticks,
            resend_ticks_busy: self.resend_ticks_busy.max(self.resend_ticks + ticks),
            resend_interval: self.resend_interval + ticks,
            ..self
        }
    }

    /// The timers for a peer that is so many ticks late.
    pub fn stretched(self, late: u64) -> Timers {
        Timers {
            resend_ticks: self.resend_ticks + late,
            resend_ticks_busy: self.resend_ticks_busy.max(self.resend_ticks + late),
            resend_interval: self.resend_interval + late,
            // Or there would be fewer attempts; at most twice as long.
            timeout_ticks: self.timeout_ticks + 4 * late,
            ..self
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

    /// The wait after the RESEND of tick `now`: the next is due after that, or it is the end.
    pub fn after_resend(&self, mut wait: Wait, now: u64) -> Wait {
        loop {
            wait.rounds = wait.rounds.saturating_add(1);
            let due = self.resend_due(wait);
            if due > now || due >= wait.since + self.timeout_ticks {
                return wait;
            }
        }
    }

    /// The wait of an RPC that waited from when its RESEND was due until `now` for its peer to
    /// have budget.
    pub fn after_rationing(&self, wait: Wait, now: u64) -> Wait {
        let waited = now.saturating_sub(self.resend_due(wait));
        Wait { since: wait.since + waited - waited / RATIONED_SHARE, ..wait }
    }

    /// Whether a peer is at work: not silent for longer than an RPC may be.
    pub fn is_heard(&self, heard: u64, now: u64) -> bool {
        now <= heard + self.resend_ticks
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

    /// The tick at which a server forgets an answered request whatever its client is heard saying:
    /// it has neither acknowledged nor asked for anything new since `since`.
    pub fn server_despair_due(&self, since: u64) -> u64 {
        since + DESPAIR * self.timeout_ticks
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
