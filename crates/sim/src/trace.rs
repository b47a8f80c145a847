//! What happened in a run: a digest of every packet and event, and if wanted lines for people.

use core::fmt::Write;
use std::collections::VecDeque;

use peyk_wire::homa::Packet as HomaPacket;

use crate::host::homa::HomaBody;
use crate::packet::Packet;
use crate::time::Picos;

/// Most lines kept; older ones are forgotten, the digest is not.
const LINES: usize = 3_000;

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    is_verbose: bool,
    lines: VecDeque<String>,
    forgotten: u64,
    digest: u64,
}

impl Trace {
    /// An empty trace; only a verbose one keeps lines.
    pub fn new(is_verbose: bool) -> Trace {
        Trace { is_verbose, ..Trace::default() }
    }

    /// A packet was put on the wire, and what becomes of it.
    pub fn packet(&mut self, at: Picos, packet: &Packet<HomaBody>, note: &str) {
        self.mix(at.0);
        self.mix(u64::from(packet.from) << 32 | u64::from(packet.to) << 16 | u64::from(packet.priority));
        self.mix_bytes(packet.body.header.as_slice());
        for chunk in packet.body.payload.chunks() {
            self.mix_bytes(chunk);
        }
        self.mix_bytes(note.as_bytes());
        if self.is_verbose {
            let line = packet_line(at, packet, note);
            self.push(line);
        }
    }

    /// Something happened that is not a packet.
    pub fn note(&mut self, at: Picos, what: core::fmt::Arguments<'_>) {
        self.mix(at.0);
        if self.is_verbose {
            let line = format!("{}  {what}", time(at));
            self.push(line);
        }
    }

    /// A value that differs if anything recorded differs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The lines, oldest first.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.forgotten > 0 {
            let _ = writeln!(text, "... {} lines before these", self.forgotten);
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn push(&mut self, line: String) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
            self.forgotten += 1;
        }
        self.lines.push_back(line);
    }

    fn mix(&mut self, value: u64) {
        self.digest = (self.digest ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }
}

/// One packet as a line: time, from, to, priority, the packet, and what becomes of it.
fn packet_line(at: Picos, packet: &Packet<HomaBody>, note: &str) -> String {
    let mut bytes = packet.body.header.as_slice().to_vec();
    bytes.extend_from_slice(&packet.body.payload.to_vec());
    let (from, to, priority) = (packet.from, packet.to, packet.priority);
    let mut line = format!("{}  h{from} > h{to} p{priority} ", time(at));
    let _ = match HomaPacket::parse(&bytes) {
        Ok(packet) => write!(line, "{packet}"),
        Err(error) => write!(line, "not a packet: {error}"),
    };
    if !note.is_empty() {
        let _ = write!(line, "  -- {note}");
    }
    line
}

fn time(at: Picos) -> String {
    format!("{:>13.6} ms", at.0 as f64 / 1e9)
}
