//! A message being received: which of its bytes are here, and which are owed to us.
//!
//! ```text
//!   0 ....... recv_end ....... granted ....... length
//!   [ received, but for the gaps | owed | not granted ]
//! ```
//!
//! The bytes go straight into pool memory. HomaModule accepts only packets that lie wholly inside
//! one gap or beyond `recv_end`; we also take packets that overlap known bytes and trim them, so a
//! sender may change its segmentation. Bytes that are here are never overwritten.

use peyk_sockbuf::{Message, MessageBuf};

/// A range of bytes that have not arrived, below `recv_end`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    pub start: u32,
    pub end: u32,
}

/// What became of the bytes of a packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Insert {
    /// All of them were new.
    New,
    /// Some were here already.
    Trimmed,
    /// All of them were here already, or there were none.
    Duplicate,
    /// They would have made more gaps than allowed.
    TooManyGaps,
}

/// The receiving half of an RPC. Length 0 means that nothing of the message is known.
#[derive(Debug, Default)]
pub(crate) struct MessageIn {
    /// Pool memory for the whole message; `None` before the first packet and while waiting for
    /// memory.
    buf: Option<MessageBuf>,
    /// Bytes of the message.
    pub length: u32,
    /// End of the highest byte received.
    pub recv_end: u32,
    /// Bytes received.
    pub received: u32,
    /// The sender may send up to here; at least what it announced as unscheduled.
    pub granted: u32,
    /// Packets in a row that gave the message another length.
    pub contradictions: u8,
    /// Ordered, disjoint, below `recv_end`.
    gaps: Vec<Gap>,
}

impl MessageIn {
    /// Starts a message of which `unscheduled` bytes come without grants. Without a buffer it
    /// waits for memory.
    pub fn start(&mut self, length: u32, unscheduled: u32, buf: Option<MessageBuf>) {
        debug_assert!(self.gaps.is_empty() && length > 0);
        self.buf = buf;
        self.length = length;
        self.recv_end = 0;
        self.received = 0;
        self.granted = unscheduled.min(length);
        self.contradictions = 0;
    }

    /// Forgets the message and gives its memory back.
    pub fn clear(&mut self) {
        if self.length != 0 {
            self.buf = None;
            self.length = 0;
            if self.gaps.capacity() != 0 {
                self.gaps = Vec::new();
            }
        }
    }

    /// Gives the memory that the message waited for.
    pub fn give(&mut self, buf: MessageBuf) {
        self.buf = Some(buf);
    }

    /// Whether there is memory for the message.
    pub fn has_memory(&self) -> bool {
        self.buf.is_some()
    }

    /// Whether all bytes are here.
    pub fn is_complete(&self) -> bool {
        self.received == self.length
    }

    /// Whether the sender owes us bytes: something granted has not arrived, and we could take it.
    pub fn is_owed(&self) -> bool {
        self.buf.is_some() && self.received < self.granted
    }

    /// The ranges missing below `recv_end`.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Takes the bytes of a packet that lie inside the message. There must be memory.
    pub fn insert(&mut self, offset: u32, bytes: &[u8], max_gaps: usize) -> Insert {
        let end = offset + bytes.len() as u32;
        debug_assert!(end <= self.length);
        if bytes.is_empty() {
            return Insert::Duplicate;
        }
        if offset < self.recv_end {
            return self.fill(offset, bytes, max_gaps);
        }
        if offset > self.recv_end {
            if self.gaps.len() >= max_gaps {
                return Insert::TooManyGaps;
            }
            self.gaps.push(Gap { start: self.recv_end, end: offset });
        }
        self.write(offset, bytes);
        self.recv_end = end;
        Insert::New
    }

    /// The finished message.
    ///
    /// # Panics
    /// If there is no memory: only complete messages are taken, and they have some.
    pub fn take(&mut self) -> Message {
        let buf = self.buf.take().expect("a complete message has memory");
        self.clear();
        buf.freeze()
    }

    /// Takes a packet that begins below `recv_end`: the parts that fall into gaps, and what lies
    /// beyond `recv_end`.
    fn fill(&mut self, offset: u32, bytes: &[u8], max_gaps: usize) -> Insert {
        let end = offset + bytes.len() as u32;
        let before = self.received;
        let mut i = self.gaps.partition_point(|gap| gap.end <= offset);
        while i < self.gaps.len() && self.gaps[i].start < end {
            let gap = self.gaps[i];
            let (from, to) = (gap.start.max(offset), gap.end.min(end));
            let (at_head, at_tail) = (from == gap.start, to == gap.end);
            if !at_head && !at_tail && self.gaps.len() >= max_gaps {
                return Insert::TooManyGaps;
            }
            self.write(from, &bytes[(from - offset) as usize..(to - offset) as usize]);
            match (at_head, at_tail) {
                (true, true) => {
                    self.gaps.remove(i);
                    continue;
                }
                (true, false) => self.gaps[i].start = to,
                (false, true) => self.gaps[i].end = from,
                (false, false) => {
                    self.gaps[i].end = from;
                    self.gaps.insert(i + 1, Gap { start: to, end: gap.end });
                    break;
                }
            }
            i += 1;
        }
        if end > self.recv_end {
            let from = self.recv_end;
            self.write(from, &bytes[(from - offset) as usize..]);
            self.recv_end = end;
        }
        match self.received - before {
            0 => Insert::Duplicate,
            new if new < bytes.len() as u32 => Insert::Trimmed,
            _ => Insert::New,
        }
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) {
        let buf = self.buf.as_mut().expect("bytes are inserted only when there is memory");
        buf.write_at(offset as usize, bytes);
        self.received += bytes.len() as u32;
    }
}

#[cfg(test)]
mod tests;
