//! A length as protobuf's varint: what `writeDelimited` writes.

use super::{Framer, Resume, Spread, Verdict};

/// Messages after a varint of at most five bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Varint;

/// Reads a base-128 number of at most `most` bytes from `at`: its value and the position after it.
/// `Ok(None)` if it is not all there, `Err` if it is longer.
pub(crate) fn read(bytes: &[u8], at: usize, most: usize) -> Result<Option<(u64, usize)>, ()> {
    let mut value = 0;
    for i in 0..most {
        let Some(&byte) = bytes.get(at + i) else { return Ok(None) };
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + i + 1)));
        }
    }
    Err(())
}

impl Framer for Varint {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        match read(bytes, 0, 5) {
            Ok(Some((value, at))) => Verdict::framed(value + at as u64, at as u32),
            Ok(None) => Verdict::Need(bytes.len() + 1),
            Err(()) => Verdict::broken("a length of more than five bytes"),
        }
    }

    fn spread(&self) -> Spread {
        Spread::User
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
