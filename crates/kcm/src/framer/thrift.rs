//! Thrift's framed transport and THeader. Unframed Thrift has no length and is refused.

use super::{Framer, Resume, Spread, Verdict, be};

/// Frames of Thrift: four bytes of length, or THeader's big frames with eight.
#[derive(Clone, Copy, Debug, Default)]
pub struct Thrift;

/// Says that a 64-bit length follows.
const BIG_FRAME: u64 = 0x4249_4721;

impl Framer for Thrift {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        let Some(word) = bytes.get(..4).map(be) else { return Verdict::Need(4) };
        if word & 0x8000_0000 != 0 {
            return Verdict::broken("unframed binary Thrift has no length");
        }
        if word != BIG_FRAME {
            return Verdict::framed(4 + word, 4);
        }
        match bytes.get(4..12).map(be) {
            None => Verdict::Need(12),
            Some(length) if length > i64::MAX as u64 - 12 => Verdict::too_big("a frame of 2^63 bytes"),
            Some(length) => Verdict::framed(12 + length, 12),
        }
    }

    fn spread(&self) -> Spread {
        Spread::Any
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
