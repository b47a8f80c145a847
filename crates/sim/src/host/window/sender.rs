//! The sending end of a connection: what to send next, what is lost, and when to give up waiting.
//!
//! NewReno (RFC 6582) with limited transmit (RFC 3042), without selective acknowledgements; after a timeout
//! everything from the first unacknowledged byte is sent again (RFC 6298 for the time).

use std::collections::VecDeque;

use peyk_sansio::Instant;

use super::congestion::{Congestion, Progress};
use super::receiver::End;
use super::{Ack, Settings};
use crate::topology::HostId;

/// A timeout is doubled so often at most.
const BACKOFF_MAX: u32 = 10;
/// Acknowledgements of the same byte that mean a loss.
const DUPLICATES: u32 = 3;

/// Bytes of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Place of the first, counted from the beginning of the connection.
    pub seq: u64,
    /// Their number.
    pub len: u32,
    /// The messages that end in it.
    pub ends: Vec<End>,
    /// When it was sent.
    pub sent_at: Instant,
}

/// Smoothed round-trip time and what follows from it (RFC 6298), in nanoseconds.
#[derive(Clone, Debug)]
struct RoundTrip {
    smooth: Option<u64>,
    variation: u64,
    min_rto: u64,
    backoff: u32,
}

impl RoundTrip {
    fn sample(&mut self, nanos: u64) {
        self.backoff = 0;
        let Some(smooth) = self.smooth else {
            (self.smooth, self.variation) = (Some(nanos), nanos / 2);
            return;
        };
        self.variation = (3 * self.variation + smooth.abs_diff(nanos)) / 4;
        self.smooth = Some((7 * smooth + nanos) / 8);
    }

    fn timeout(&self) -> u64 {
        let measured = self.smooth.map_or(0, |smooth| smooth + 4 * self.variation);
        measured.max(self.min_rto) << self.backoff
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Sender {
    /// The other end.
    pub to: HostId,
    settings: Settings,
    /// First byte that is not acknowledged.
    first: u64,
    /// Next byte to send; after a timeout that may be one sent before.
    next: u64,
    /// First byte that was never sent.
    fresh: u64,
    /// Bytes written.
    end: u64,
    /// Messages not wholly acknowledged, in order.
    ends: VecDeque<End>,
    congestion: Congestion,
    round_trip: RoundTrip,
    duplicates: u32,
    /// In fast recovery.
    is_recovering: bool,
    /// Losses of what was sent before this byte have been answered.
    recover: u64,
    /// The first unacknowledged segment is to be sent again at once.
    is_resending: bool,
    deadline: Option<Instant>,
    last_sent: Instant,
}

impl Sender {
    /// A connection on which nothing has been sent.
    pub fn new(to: HostId, settings: Settings, now: Instant) -> Sender {
        let mss = u64::from(settings.mss);
        let initial = mss * u64::from(settings.initial_window);
        Sender {
            to,
            first: 0,
            next: 0,
            fresh: 0,
            end: 0,
            ends: VecDeque::new(),
            congestion: Congestion::new(mss, initial, settings.receive_window, settings.dctcp_gain),
            round_trip: RoundTrip { smooth: None, variation: 0, min_rto: settings.min_rto_ns, backoff: 0 },
            duplicates: 0,
            is_recovering: false,
            recover: 0,
            is_resending: false,
            deadline: None,
            last_sent: now,
            settings,
        }
    }

    /// Writes a message. False if too much waits already.
    pub fn write(&mut self, bytes: u32, key: u64) -> bool {
        if self.end - self.first + u64::from(bytes) > self.settings.send_buffer {
            return false;
        }
        // A stream has no empty messages.
        self.end += u64::from(bytes.max(1));
        self.ends.push_back(End { at: self.end, key });
        true
    }

    /// Bytes under way.
    pub fn in_flight(&self) -> u64 {
        self.next - self.first
    }

    /// The window.
    pub fn congestion(&self) -> &Congestion {
        &self.congestion
    }

    /// When [`handle_timeout`](Sender::handle_timeout) is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn mss(&self) -> u64 {
        u64::from(self.settings.mss)
    }

    /// Whether [`next_segment`](Sender::next_segment) would give one.
    pub fn can_send(&self) -> bool {
        self.is_resending || self.has_room(self.next_len())
    }

    fn next_len(&self) -> u64 {
        self.mss().min(self.end - self.next)
    }

    /// Whether the window allows so many bytes more. The first duplicates allow a segment each: something has
    /// left the network.
    fn has_room(&self, len: u64) -> bool {
        let limited = if self.is_recovering { 0 } else { u64::from(self.duplicates.min(2)) * self.mss() };
        let flight = self.in_flight();
        len > 0 && (flight == 0 || flight + len <= self.congestion.window + limited)
    }

    /// The next segment to send.
    pub fn next_segment(&mut self, now: Instant) -> Option<Segment> {
        if self.is_resending {
            self.is_resending = false;
            return Some(self.segment(now, self.first, self.mss().min(self.fresh - self.first)));
        }
        if self.settings.idle_restart
            && self.in_flight() == 0
            && now.nanos_since(self.last_sent) > self.round_trip.timeout()
        {
            self.congestion.on_idle(self.mss() * u64::from(self.settings.initial_window));
        }
        let len = self.next_len();
        if !self.has_room(len) {
            return None;
        }
        let seq = self.next;
        self.next += len;
        self.fresh = self.fresh.max(self.next);
        Some(self.segment(now, seq, len))
    }

    fn segment(&mut self, now: Instant, seq: u64, len: u64) -> Segment {
        self.last_sent = now;
        if self.deadline.is_none() {
            self.restart_timer(now);
        }
        let from = self.ends.partition_point(|end| end.at <= seq);
        let ends = self.ends.iter().skip(from).take_while(|end| end.at <= seq + len).copied().collect();
        Segment { seq, len: len as u32, ends, sent_at: now }
    }

    fn restart_timer(&mut self, now: Instant) {
        self.deadline = Some(now.plus_nanos(self.round_trip.timeout()));
    }

    /// The other end has received something.
    pub fn handle_ack(&mut self, now: Instant, ack: &Ack) {
        if ack.upto > self.fresh || ack.upto < self.first {
            return;
        }
        if ack.upto == self.first {
            return self.handle_duplicate();
        }
        self.round_trip.sample(now.nanos_since(ack.sent_at));
        let acked = ack.upto - self.first;
        let is_limited = self.in_flight() + self.mss() > self.congestion.window;
        self.first = ack.upto;
        self.next = self.next.max(self.first);
        self.is_resending = false;
        let kept = self.ends.partition_point(|end| end.at <= ack.upto);
        self.ends.drain(..kept);
        if self.is_recovering && ack.upto < self.recover {
            self.congestion.on_partial(acked);
            self.is_resending = true;
        } else if self.is_recovering {
            self.is_recovering = false;
            self.duplicates = 0;
            self.congestion.on_recovered(self.in_flight());
        } else {
            self.duplicates = 0;
            let (upto, sent, is_marked) = (ack.upto, self.fresh, ack.is_marked);
            self.congestion.on_progress(Progress { acked, upto, sent, is_marked, is_limited });
        }
        self.deadline = None;
        if self.first < self.fresh {
            self.restart_timer(now);
        }
    }

    fn handle_duplicate(&mut self) {
        if self.in_flight() == 0 {
            return;
        }
        self.duplicates += 1;
        if self.is_recovering {
            self.congestion.on_duplicate();
        } else if self.duplicates == DUPLICATES && self.first >= self.recover {
            self.congestion.on_fast_retransmit(self.in_flight());
            self.is_recovering = true;
            self.recover = self.fresh;
            self.is_resending = true;
        }
    }

    /// The deadline has come: everything under way is taken to be lost.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.congestion.on_timeout(self.in_flight(), self.round_trip.backoff == 0);
        self.round_trip.backoff = (self.round_trip.backoff + 1).min(BACKOFF_MAX);
        self.next = self.first;
        self.recover = self.fresh;
        self.is_recovering = false;
        self.is_resending = false;
        self.duplicates = 0;
        self.restart_timer(now);
    }
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
