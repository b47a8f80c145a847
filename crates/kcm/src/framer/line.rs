//! Messages that end with a byte: lines, NUL-terminated strings.

use super::{Framer, Resume, Spread, Verdict};

/// Everything up to a delimiter, which belongs to the message.
#[derive(Clone, Copy, Debug)]
pub struct Delimiter {
    byte: u8,
    max: usize,
}

impl Delimiter {
    /// Messages that end with `byte` and have at most `max` bytes with it.
    pub fn new(byte: u8, max: usize) -> Delimiter {
        Delimiter { byte, max: max.max(1) }
    }
}

impl Framer for Delimiter {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        let seen = &bytes[..bytes.len().min(self.max)];
        let from = resume.at.min(seen.len());
        if let Some(at) = seen[from..].iter().position(|&byte| byte == self.byte) {
            return Verdict::len((from + at + 1) as u64);
        }
        resume.at = seen.len();
        if bytes.len() >= self.max {
            return Verdict::too_big("no delimiter within the limit");
        }
        Verdict::Need(bytes.len() + 1)
    }

    fn spread(&self) -> Spread {
        Spread::User
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
