//! The packet trace of a test: text for people, and a hash that tells whether
//! two runs were the same.

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::fmt::Write;

use peyk_sansio::Instant;
use peyk_wire::homa::Packet;

/// Most lines kept; older ones are forgotten, the hash is not.
const LINES: usize = 4000;

/// A running packet trace.
#[derive(Default)]
pub struct Trace {
    /// Keeps the hash only.
    pub is_brief: bool,
    records: VecDeque<Record>,
    hash: u64,
    packets: u64,
}

enum Record {
    Packet { at: Instant, from: SocketAddr, to: SocketAddr, priority: u8, note: &'static str, head: Vec<u8> },
    Note { at: Instant, text: String },
}

impl Trace {
    /// Records a packet and what became of it.
    pub fn packet(
        &mut self,
        at: Instant,
        from: SocketAddr,
        to: SocketAddr,
        priority: u8,
        bytes: &[u8],
        note: &'static str,
    ) {
        self.packets += 1;
        self.mix(at.as_nanos());
        self.mix(u64::from(priority) << 32 | bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(note.len() as u64);
        if self.is_brief {
            return;
        }
        self.push(Record::Packet { at, from, to, priority, note, head: bytes.to_vec() });
    }

    /// Records something that is not a packet.
    pub fn note(&mut self, at: Instant, text: String) {
        for byte in text.bytes() {
            self.mix(u64::from(byte));
        }
        if !self.is_brief {
            self.push(Record::Note { at, text });
        }
    }

    /// A value that differs if anything recorded differs.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, oldest first.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.packets > self.records.len() as u64 {
            let _ = writeln!(text, "... {} packets in all, the last {LINES} lines:", self.packets);
        }
        for record in &self.records {
            match record {
                Record::Note { at, text: note } => {
                    let _ = writeln!(text, "{:>12.6} ms  {note}", millis(*at));
                }
                Record::Packet { at, from, to, priority, note, head } => {
                    let what = match Packet::parse(head) {
                        Ok(packet) => packet.to_string(),
                        Err(error) => format!("not a packet: {error}"),
                    };
                    let _ = writeln!(
                        text,
                        "{:>12.6} ms  {} > {} p{priority} {what}{}{note}",
                        millis(*at),
                        from.ip(),
                        to.ip(),
                        if note.is_empty() { "" } else { "  -- " },
                    );
                }
            }
        }
        text
    }

    fn push(&mut self, record: Record) {
        if self.records.len() == LINES {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

fn millis(at: Instant) -> f64 {
    at.as_nanos() as f64 / 1e6
}
