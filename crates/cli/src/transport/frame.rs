//! Messages on a TCP byte stream: a length of four bytes (little endian), then the message.

use std::{collections::VecDeque, io::IoSlice, ops::Range};

use anyhow::{Result, ensure};
use bytes::Bytes;

use crate::traffic::{HEADER, Outgoing, Traffic};

/// Bytes of the length.
pub const LENGTH: usize = 4;

/// Longest message.
pub const MESSAGE_MAX: usize = 1 << 20;

/// Bodies up to this length are copied next to their headers; longer ones are sent from where they lie.
const COPY_MAX: usize = 4_096;

/// Most pieces in one system call.
const PIECES_MAX: usize = 128;

/// A message's length from the first bytes of a frame, if they are all there.
pub fn length_of(frame: &[u8]) -> Result<Option<usize>> {
    let Some((length, _)) = frame.split_first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    ensure!((HEADER..=MESSAGE_MAX).contains(&length), "a frame of {length} bytes");
    Ok(Some(length))
}

/// Frames on their way out. Short things are collected in one buffer, so that many small messages are one piece of
/// one system call; long bodies stay in the block.
pub struct OutQueue {
    block: Bytes,
    pieces: VecDeque<Piece>,
    collected: Vec<u8>,
}

enum Piece {
    /// A range of `collected`.
    Collected(Range<usize>),
    /// A range of the block.
    Block(Range<usize>),
}

impl OutQueue {
    /// An empty queue of messages whose bodies are slices of the block.
    pub fn new(block: Bytes) -> OutQueue {
        OutQueue { block, pieces: VecDeque::new(), collected: Vec::with_capacity(1 << 16) }
    }

    /// Appends a message.
    pub fn push(&mut self, message: &Outgoing) {
        let start = self.collected.len();
        self.collected.extend_from_slice(&(message.len() as u32).to_le_bytes());
        self.collected.extend_from_slice(&message.header);
        let long = message.body.len() > COPY_MAX;
        if !long {
            self.collected.extend_from_slice(&self.block[message.body.clone()]);
        }
        match self.pieces.back_mut() {
            Some(Piece::Collected(range)) => range.end = self.collected.len(),
            _ => self.pieces.push_back(Piece::Collected(start..self.collected.len())),
        }
        if long {
            self.pieces.push_back(Piece::Block(message.body.clone()));
        }
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The first pieces, for a vectored write.
    pub fn slices(&self) -> ([IoSlice<'_>; PIECES_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let count = self.pieces.len().min(PIECES_MAX);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(match piece {
                Piece::Collected(range) => &self.collected[range.clone()],
                Piece::Block(range) => &self.block[range.clone()],
            });
        }
        (slices, count)
    }

    /// The first `written` bytes are sent.
    pub fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let (Piece::Collected(range) | Piece::Block(range)) = piece;
            if written < range.len() {
                range.start += written;
                break;
            }
            written -= range.len();
            self.pieces.pop_front();
        }
        self.compact();
    }

    /// Forgets what is sent of the collected bytes, when that is cheap.
    fn compact(&mut self) {
        if self.pieces.is_empty() {
            self.collected.clear();
            return;
        }
        let first = self.pieces.iter().find_map(|piece| match piece {
            Piece::Collected(range) => Some(range.start),
            Piece::Block(_) => None,
        });
        let sent = first.unwrap_or(self.collected.len());
        if sent > 1 << 16 && sent > self.collected.len() / 2 {
            self.collected.drain(..sent);
            for piece in &mut self.pieces {
                if let Piece::Collected(range) = piece {
                    *range = range.start - sent..range.end - sent;
                }
            }
        }
    }
}

/// Reads responses from a byte stream, in pieces of any length, and hands them to a traffic. Bodies are compared as
/// they come; nothing is copied.
pub struct Responses {
    prefix: [u8; LENGTH + HEADER],
    have: usize,
    remaining: usize,
    /// Where the rest of the body must stand in the block.
    expected: Option<usize>,
}

impl Responses {
    /// At the start of a stream.
    pub fn new() -> Responses {
        Responses { prefix: [0; LENGTH + HEADER], have: 0, remaining: 0, expected: None }
    }

    /// Takes the next bytes of the stream.
    pub fn feed<T: Traffic>(&mut self, mut data: &[u8], traffic: &mut T, now: u64) -> Result<()> {
        while !data.is_empty() {
            if self.have < self.prefix.len() {
                let n = data.len().min(self.prefix.len() - self.have);
                self.prefix[self.have..self.have + n].copy_from_slice(&data[..n]);
                self.have += n;
                data = &data[n..];
                if self.have < self.prefix.len() {
                    return Ok(());
                }
                let length = length_of(&self.prefix)?.unwrap_or(0);
                self.remaining = length - HEADER;
                self.expected = traffic.expect(self.header(), length);
            }
            let n = data.len().min(self.remaining);
            if T::CHECKS_BODIES
                && let Some(at) = self.expected
            {
                let same = traffic.block()[at..at + n] == data[..n];
                self.expected = same.then_some(at + n);
            }
            self.remaining -= n;
            data = &data[n..];
            if self.remaining == 0 {
                traffic.complete(self.header(), self.expected.is_some(), now);
                self.have = 0;
            }
        }
        Ok(())
    }

    fn header(&self) -> &[u8; HEADER] {
        self.prefix.last_chunk().expect("the prefix ends with a header")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Arrivals, Baseline, Draw, Load, LoadPlan};
    use peyk_sim::workload::Name;

    fn load() -> Load<impl FnMut(crate::load::Progress) + Send> {
        let plan = LoadPlan {
            draw: Draw::Workload(Name::W4),
            arrivals: Arrivals::Closed(40),
            seed: 3,
            duration_ms: 1_000,
            warmup_ms: 0,
            drain_ms: 1_000,
            outstanding_max: 100,
            hold: 2,
            origin: 0,
            servers: 1,
            in_a_row: 16,
            baseline: Baseline::default(),
        };
        Load::new(plan, |_| ())
    }

    /// All bytes of a queue, taken in writes of `step` bytes.
    fn drain(queue: &mut OutQueue, step: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        while !queue.is_empty() {
            let (slices, count) = queue.slices();
            let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).collect();
            let n = all.len().min(step);
            stream.extend_from_slice(&all[..n]);
            queue.advance(n);
        }
        stream
    }

    #[test]
    fn stream_comes_back_intact_in_any_pieces() {
        for (write, read) in [(1_000_000, 1 << 20), (77_777, 1_000), (5_000_000, 13)] {
            let mut load = load();
            let mut queue = OutQueue::new(load.block().clone());
            let mut sent = 0;
            while let Some(message) = load.next_due(1) {
                queue.push(&message);
                sent += 1;
            }
            assert_eq!(sent, 42);
            let stream = drain(&mut queue, write);
            let mut responses = Responses::new();
            for piece in stream.chunks(read) {
                responses.feed(piece, &mut load, 500).unwrap();
            }
            let result = load.finish();
            assert_eq!((result.completed, result.lost, result.corrupt, result.unexpected), (40, 0, 0, 0));
            assert_eq!(result.released_early, 2);
        }
    }

    #[test]
    fn damage_in_a_body_is_corrupt() {
        let mut load = load();
        let mut queue = OutQueue::new(load.block().clone());
        while let Some(message) = load.next_due(1) {
            queue.push(&message);
        }
        let mut stream = drain(&mut queue, 1 << 20);
        let last = stream.len() - 1;
        stream[last] ^= 4;
        Responses::new().feed(&stream, &mut load, 500).unwrap();
        assert_eq!(load.finish().corrupt, 1);
    }

    #[test]
    fn length_of_refuses_absurd_frames() {
        assert_eq!(length_of(&[16, 0, 0]).unwrap(), None);
        assert_eq!(length_of(&[16, 0, 0, 0]).unwrap(), Some(16));
        assert!(length_of(&[15, 0, 0, 0]).is_err());
        assert!(length_of(&[0, 0, 0, 255]).is_err());
    }
}
