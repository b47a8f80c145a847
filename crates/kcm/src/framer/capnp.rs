//! Cap'n Proto's stream format: a table of segment sizes, then the segments.

use super::{Framer, Resume, Spread, Verdict, le};

/// Unpacked messages of Cap'n Proto.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capnp;

/// As the reference implementation has it.
const SEGMENTS_MAX: u64 = 512;

impl Framer for Capnp {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        let Some(count) = bytes.get(..4).map(|word| le(word) + 1) else { return Verdict::Need(4) };
        if count > SEGMENTS_MAX {
            return Verdict::broken("more than 512 segments");
        }
        let header = (4 + 4 * count).next_multiple_of(8) as usize;
        let Some(sizes) = bytes.get(4..4 + 4 * count as usize) else { return Verdict::Need(header) };
        let words: u64 = sizes.chunks(4).map(le).sum();
        Verdict::framed(header as u64 + 8 * words, header as u32)
    }

    fn spread(&self) -> Spread {
        Spread::Any
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
