//! Cassandra's native protocol: frames of v1 to v4, and the envelopes v5 wraps them in after STARTUP.

use super::{Framer, Resume, Spread, Verdict, be, le};

/// Frames of CQL; from the first byte of each it knows the version, v5's outer frames must be asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cql {
    /// 0 for plain frames; else bytes of v5's outer header (6, or 8 with compression).
    outer: usize,
}

const BODY_MAX: u64 = 256 << 20;

impl Cql {
    /// v5 after STARTUP: 17 bits of length, a checksum of the header, one of the payload.
    pub fn v5(compressed: bool) -> Cql {
        Cql { outer: if compressed { 8 } else { 6 } }
    }
}

impl Framer for Cql {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        if self.outer > 0 {
            let Some(header) = bytes.get(..self.outer) else { return Verdict::Need(self.outer) };
            let length = le(&header[..3]) & 0x1_ffff;
            return Verdict::framed(self.outer as u64 + length + 4, self.outer as u32);
        }
        let Some(version) = bytes.first().map(|byte| byte & 0x7f) else { return Verdict::Need(1) };
        let (length_at, stream) = match version {
            1 | 2 => (4, 2..3),
            3..=5 => (5, 2..4),
            _ => return Verdict::broken("an unknown version of the protocol"),
        };
        let header = length_at + 4;
        let Some(length) = bytes.get(length_at..header).map(be) else { return Verdict::Need(header) };
        if length > BODY_MAX {
            return Verdict::too_big("a body of more than 256 MiB");
        }
        Verdict::keyed(header as u64 + length, header as u32, be(&bytes[stream]) as u32)
    }

    fn spread(&self) -> Spread {
        if self.outer > 0 { Spread::Connection } else { Spread::Any }
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
