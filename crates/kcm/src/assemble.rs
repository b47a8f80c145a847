//! Messages out of a stream of chunks: the counterpart of the kernel's strparser. It knows no sockets.

use core::time::Duration;

use bytes::{Buf, Bytes};
use peyk_sansio::Instant;

use crate::error::{Code, FrameError};
use crate::framer::{Frame, Framer, Meta, Resume, Verdict};
use crate::partial::{Partial, Spares};
use crate::stats::PsockStats;

/// Bytes given to a framer at once when it has asked for less.
const LOOK: usize = 4096;
/// A slice of a chunk this short, or below an eighth of it, is copied instead of holding the chunk.
const COPY_BELOW: usize = 256;

/// Assembles the messages of one stream.
pub(crate) struct Assembler {
    framer: Box<dyn Framer>,
    resume: Resume,
    partial: Partial,
    spares: Spares,
    /// Bytes with which another call of the framer is worthwhile.
    need: usize,
    frame: Option<Frame>,
    /// When the message that has begun must be complete.
    pub(crate) deadline: Option<Instant>,
    /// Bytes of all messages before this one.
    pub(crate) offset: u64,
}

/// What came of the bytes.
pub(crate) enum Step {
    /// A message.
    Message(Bytes, Meta),
    /// All bytes are taken and more are needed.
    More,
    /// The stream is lost.
    Failed(FrameError),
}

/// What an assembler may use.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_message: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) now: Instant,
}

impl Assembler {
    pub(crate) fn new(framer: Box<dyn Framer>, spares: Spares) -> Assembler {
        Assembler {
            framer,
            resume: Resume::default(),
            partial: Partial::default(),
            spares,
            need: 1,
            frame: None,
            deadline: None,
            offset: 0,
        }
    }

    /// Takes bytes off the front of `chunk` until a message is complete or the chunk is used up.
    pub(crate) fn next(&mut self, chunk: &mut Bytes, limits: Limits, stats: &mut PsockStats) -> Step {
        if let Some(frame) = self.frame {
            return self.fill(frame, chunk, stats);
        }
        while !chunk.is_empty() {
            let held = self.partial.len();
            if held + chunk.len() < self.need {
                self.partial.extend(chunk);
                stats.rx_bytes += chunk.len() as u64;
                chunk.clear();
                break;
            }
            let verdict = if held == 0 {
                self.framer.frame(chunk, &mut self.resume)
            } else {
                let more = chunk.len().min((self.need - held.min(self.need)).max(LOOK));
                self.partial.extend(&chunk[..more]);
                self.framer.frame(&self.partial, &mut self.resume)
            };
            let seen = if held == 0 { chunk.len() } else { self.partial.len() };
            match self.judge(verdict, held, seen, limits, stats) {
                Err(error) => {
                    self.partial.truncate(held);
                    return Step::Failed(error);
                }
                Ok(Some(frame)) => {
                    self.frame = Some(frame);
                    // What was looked at beyond the end belongs to the next message.
                    let ours = self.partial.len().min(frame.total as usize);
                    self.partial.truncate(ours);
                    let taken = ours - held.min(ours);
                    stats.rx_bytes += taken as u64;
                    chunk.advance(taken);
                    return match self.fill(frame, chunk, stats) {
                        Step::More => {
                            self.start_timer(limits);
                            Step::More
                        }
                        step => step,
                    };
                }
                Ok(None) if held == 0 => {
                    self.partial.extend(chunk);
                    stats.rx_bytes += chunk.len() as u64;
                    chunk.clear();
                }
                Ok(None) => {
                    let taken = self.partial.len() - held;
                    stats.rx_bytes += taken as u64;
                    chunk.advance(taken);
                }
            }
        }
        if !self.partial.is_empty() {
            self.start_timer(limits);
        }
        Step::More
    }

    /// Takes whole messages off the front of bytes that start with one, up to `most`: their lengths, and the
    /// bytes of all. What is not plain is left to [`Assembler::next`].
    pub(crate) fn next_run(
        &mut self,
        bytes: &[u8],
        (most, longest): (usize, usize),
        lengths: &mut Vec<u32>,
        stats: &mut PsockStats,
    ) -> usize {
        if !self.partial.is_empty() || self.frame.is_some() {
            return 0;
        }
        let before = lengths.len();
        let taken = self.framer.frame_all(bytes, (most, longest), &mut self.resume, lengths);
        stats.rx_msgs += (lengths.len() - before) as u64;
        stats.rx_bytes += taken as u64;
        self.offset += taken as u64;
        taken
    }

    fn start_timer(&mut self, limits: Limits) {
        if let (None, Some(timeout)) = (self.deadline, limits.timeout) {
            self.deadline = Some(limits.now + timeout);
        }
    }

    /// What a verdict means: the frame, nothing yet, or the end. `held` bytes were there before the newest.
    fn judge(
        &mut self,
        verdict: Verdict,
        held: usize,
        seen: usize,
        limits: Limits,
        stats: &mut PsockStats,
    ) -> Result<Option<Frame>, FrameError> {
        let too_big = FrameError { code: Code::MSGSIZE, why: "the message is longer than the limit" };
        match verdict {
            Verdict::Need(need) => {
                stats.rx_need_more_hdr += 1;
                if need > limits.max_message {
                    stats.rx_msg_too_big += 1;
                    return Err(too_big);
                }
                if seen >= self.framer.max_header() {
                    stats.rx_bad_hdr_len += 1;
                    return Err(FrameError { code: Code::PROTO, why: "the header does not end" });
                }
                self.need = need.max(seen + 1);
                Ok(None)
            }
            Verdict::Len(frame) if frame.total > limits.max_message as u64 => {
                stats.rx_msg_too_big += 1;
                Err(too_big)
            }
            Verdict::Len(frame) if frame.total == 0 || frame.total <= held as u64 => {
                stats.rx_bad_hdr_len += 1;
                Err(FrameError {
                    code: Code::PROTO,
                    why: "the message ends before the bytes that told its length",
                })
            }
            Verdict::Len(frame) => Ok(Some(frame)),
            Verdict::Bad(error) => {
                match error.code {
                    Code::MSGSIZE => stats.rx_msg_too_big += 1,
                    Code::PROTO => stats.rx_bad_hdr_len += 1,
                    _ => {}
                }
                // Who hands back a stream must not have seen a part of the message taken from it.
                if error.code == Code::STRPIPE && held > 0 {
                    stats.rx_unrecov_intr += 1;
                    return Err(FrameError { code: Code::NODATA, why: "handed back in mid-message" });
                }
                if error.code == Code::STRPIPE {
                    stats.rx_interrupted += 1;
                }
                Err(error)
            }
        }
    }

    /// The length is known: takes what is missing.
    fn fill(&mut self, frame: Frame, chunk: &mut Bytes, stats: &mut PsockStats) -> Step {
        let total = frame.total as usize;
        let missing = total - self.partial.len();
        if chunk.len() < missing {
            self.partial.extend(chunk);
            stats.rx_bytes += chunk.len() as u64;
            chunk.clear();
            return Step::More;
        }
        stats.rx_bytes += missing as u64;
        let bytes = if self.partial.is_empty() {
            chunk.split_to(total)
        } else {
            self.partial.extend(&chunk[..missing]);
            chunk.advance(missing);
            core::mem::take(&mut self.partial).freeze(&self.spares)
        };
        self.complete(bytes, frame, stats)
    }

    fn complete(&mut self, bytes: Bytes, frame: Frame, stats: &mut PsockStats) -> Step {
        stats.rx_msgs += 1;
        self.framer.finished(&bytes);
        self.offset += bytes.len() as u64;
        (self.frame, self.need, self.deadline) = (None, 1, None);
        self.resume.clear();
        Step::Message(bytes, frame.meta)
    }

    /// Bytes of the message that has begun.
    pub(crate) fn have(&self) -> usize {
        self.partial.len()
    }

    /// Its whole length, if known.
    pub(crate) fn total(&self) -> Option<u64> {
        self.frame.map(|frame| frame.total)
    }

    /// Bytes that make another call worthwhile.
    pub(crate) fn missing(&self) -> usize {
        let goal = self.frame.map_or(self.need, |frame| frame.total as usize);
        goal.saturating_sub(self.partial.len()).max(1)
    }

    /// The beginning of the message, for a report.
    pub(crate) fn first(&self, chunk: &[u8]) -> ([u8; 16], u8) {
        let mut first = [0; 16];
        let bytes = self.partial.iter().chain(chunk);
        let count = first.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
        (first, count as u8)
    }

    /// Gives up what has been gathered.
    pub(crate) fn take_partial(&mut self) -> Vec<u8> {
        (self.frame, self.need, self.deadline) = (None, 1, None);
        self.resume = Resume::default();
        core::mem::take(&mut self.partial).into_vec()
    }

    /// Lends the memory of a long message whose length is known, to read into directly.
    pub(crate) fn lend(&mut self, least: usize) -> Option<(Partial, usize)> {
        let total = self.frame?.total as usize;
        let missing = total - self.partial.len();
        if missing < least {
            return None;
        }
        self.partial.use_spare(total, &self.spares);
        Some((core::mem::take(&mut self.partial), missing))
    }

    /// Takes it back with `read` more bytes in it.
    pub(crate) fn give_back(
        &mut self,
        partial: Partial,
        read: usize,
        stats: &mut PsockStats,
    ) -> Option<Step> {
        self.partial = partial;
        stats.rx_bytes += read as u64;
        let frame = self.frame?;
        if (self.partial.len() as u64) < frame.total {
            return None;
        }
        let bytes = core::mem::take(&mut self.partial).freeze(&self.spares);
        Some(self.complete(bytes, frame, stats))
    }

    pub(crate) fn replace_framer(&mut self, framer: Box<dyn Framer>) -> Result<(), Box<dyn Framer>> {
        if !self.partial.is_empty() || self.frame.is_some() {
            return Err(framer);
        }
        self.framer = framer;
        Ok(())
    }
}

/// A message that will wait must not hold a chunk of `pinned` bytes of which it is a small part.
pub(crate) fn compact(bytes: &mut Bytes, pinned: usize) {
    if bytes.len() < COPY_BELOW || bytes.len() < pinned / 8 {
        *bytes = Bytes::copy_from_slice(bytes);
    }
}
