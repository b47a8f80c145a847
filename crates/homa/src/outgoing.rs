//! A message being sent: where its segments lie, and how far it may go and has gone.
//!
//! ```text
//!   0 ........ next ......... granted ......... length
//!   [ sent    | permitted    | not granted      ]
//! ```
//!
//! Segment boundaries are fixed for the life of a message: every segment has `segment` bytes, but
//! one ends exactly at the unscheduled limit and the last may be short. HomaModule rejects DATA
//! that overlaps known bytes partly, so retransmissions use the same boundaries.

use core::ops::Range;

use peyk_sansio::Instant;
use peyk_sockbuf::Payload;

/// A range to retransmit, in whole segments.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Retransmit {
    /// Start of the next segment to send.
    pub next: u32,
    /// End of the range asked for; the last segment may reach beyond it.
    pub end: u32,
    /// Network priority.
    pub priority: u8,
}

/// The sending half of an RPC. Length 0 means that there is no message.
#[derive(Debug, Default)]
pub(crate) struct MessageOut {
    payload: Option<Payload>,
    /// Bytes of the message.
    pub length: u32,
    /// Bytes that need no grant; a segment ends here.
    pub unscheduled: u32,
    /// Segments that begin below this may be sent. At most `length`, never falls.
    pub granted: u32,
    /// Everything below has been sent at least once; a segment boundary.
    pub next: u32,
    /// Bytes per segment.
    segment: u32,
    /// Highest offset granted by a GRANT packet, to tell late ones.
    last_grant: u32,
    /// Priority of scheduled segments, from the latest grant.
    pub sched_prio: u8,
    /// When the application handed the message over.
    pub init_time: Instant,
    /// Ranges waiting for retransmission, first come first served.
    retransmits: Vec<Retransmit>,
    /// Tick in which the first segment was sent.
    first_sent: u64,
    /// Tick of the last request for retransmission that was heeded, and what those of that tick
    /// asked for, from the least to the greatest offset.
    resent_at: u64,
    resent: Range<u32>,
}

impl MessageOut {
    /// Starts a message of at least one byte.
    pub fn start(&mut self, payload: Payload, unsched_bytes: u32, segment: u32, now: Instant) {
        debug_assert!(self.length == 0 && !payload.is_empty() && segment > 0);
        self.length = payload.len() as u32;
        self.payload = Some(payload);
        self.unscheduled = unsched_bytes.min(self.length);
        self.granted = self.unscheduled;
        self.next = 0;
        self.segment = segment;
        self.last_grant = 0;
        self.sched_prio = 0;
        self.init_time = now;
        self.resent = 0..0;
    }

    /// Forgets the message.
    pub fn clear(&mut self) {
        if self.length != 0 {
            self.payload = None;
            self.length = 0;
            if self.retransmits.capacity() != 0 {
                self.retransmits = Vec::new();
            }
        }
    }

    /// Whether a segment may be sent for the first time.
    pub fn is_sendable(&self) -> bool {
        self.next < self.granted
    }

    /// Whether all of the message has been sent.
    pub fn is_sent(&self) -> bool {
        self.next >= self.length
    }

    /// Whether the whole message is one segment that needs no grant.
    pub fn is_single(&self) -> bool {
        self.length <= self.segment && self.length <= self.unscheduled
    }

    /// Bytes per segment.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Bytes not sent yet.
    pub fn left(&self) -> u32 {
        self.length - self.next
    }

    /// Raises the permission; returns whether it rose. A grant that an earlier one overtook does
    /// not set the priority.
    pub fn grant(&mut self, offset: u32, priority: u8) -> bool {
        let offset = offset.min(self.length);
        if offset >= self.last_grant {
            self.last_grant = offset;
            self.sched_prio = priority;
        }
        self.extend(offset)
    }

    /// Raises the permission without a GRANT packet: one must have been lost.
    pub fn extend(&mut self, offset: u32) -> bool {
        let offset = offset.min(self.length);
        let rises = offset > self.granted;
        self.granted = self.granted.max(offset);
        rises
    }

    /// Takes the next segment for its first transmission.
    pub fn advance(&mut self) -> Range<u32> {
        let start = self.next;
        self.next = self.segment_end(start);
        start..self.next
    }

    /// The first segment is sent in this tick.
    #[inline]
    pub fn on_first_sent(&mut self, tick: u64) {
        self.first_sent = tick;
    }

    /// Whether all that was sent was sent for the first time less than `ticks` ago.
    pub fn is_fresh(&self, tick: u64, ticks: u64) -> bool {
        tick < self.first_sent + ticks
    }

    /// Whether a part of the range was sent again less than `ticks` ago.
    pub fn is_resent(&self, range: &Range<u32>, tick: u64, ticks: u64) -> bool {
        tick < self.resent_at + ticks && range.start < self.resent.end && self.resent.start < range.end
    }

    /// The range is sent again in this tick.
    pub fn on_resent(&mut self, range: &Range<u32>, tick: u64) {
        if self.resent_at != tick || self.resent.is_empty() {
            self.resent_at = tick;
            self.resent = range.clone();
        }
        self.resent = self.resent.start.min(range.start)..self.resent.end.max(range.end);
    }

    /// Queues the segments that intersect the range, as far as they have been sent. False if
    /// there are `max` ranges already.
    pub fn retransmit(&mut self, range: Range<u32>, priority: u8, max: usize) -> bool {
        let end = range.end.min(self.next);
        if range.start >= end {
            return true;
        }
        let next = self.segment_start(range.start);
        let covers = |r: &Retransmit| r.next <= next && end <= self.rounded_up(r.end);
        if self.retransmits.iter().any(covers) {
            return true;
        }
        if self.retransmits.len() >= max {
            return false;
        }
        self.retransmits.push(Retransmit { next, end, priority });
        true
    }

    /// Takes the next segment to retransmit, and the range it belongs to.
    pub fn next_retransmit(&mut self) -> Option<(Range<u32>, Retransmit)> {
        let range = *self.retransmits.first()?;
        let end = self.segment_end(range.next);
        if end >= range.end {
            self.retransmits.remove(0);
        } else {
            self.retransmits[0].next = end;
        }
        Some((range.next..end, range))
    }

    /// Whether a range waits for retransmission.
    pub fn has_retransmits(&self) -> bool {
        !self.retransmits.is_empty()
    }

    /// The message that segments are cut from.
    #[inline]
    pub fn message(&self) -> &Payload {
        self.payload.as_ref().expect("segments are cut only from a live message")
    }

    fn segment_start(&self, offset: u32) -> u32 {
        let base = if offset < self.unscheduled { 0 } else { self.unscheduled };
        base + (offset - base) / self.segment * self.segment
    }

    /// End of the segment that holds the byte before `end`.
    fn rounded_up(&self, end: u32) -> u32 {
        self.segment_end(self.segment_start(end - 1))
    }

    /// End of the segment that begins at `start`, a boundary below `length`.
    fn segment_end(&self, start: u32) -> u32 {
        let limit = if start < self.unscheduled { self.unscheduled } else { self.length };
        start.saturating_add(self.segment).min(limit)
    }
}

#[cfg(test)]
mod tests;
