//! MySQL: packets of at most 16 MiB less one byte; a full one is continued in the next.

use super::{Framer, Resume, Spread, Verdict, le};

/// Logical packets of MySQL: all parts of one are one message.
#[derive(Clone, Copy, Debug)]
pub struct Mysql {
    header: usize,
}

const FULL: u64 = 0xff_ffff;

impl Mysql {
    /// The plain protocol, or the compressed one after the handshake (each compressed packet a message).
    pub fn new(compressed: bool) -> Mysql {
        Mysql { header: if compressed { 7 } else { 4 } }
    }
}

impl Framer for Mysql {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        loop {
            let end = resume.at + self.header;
            let Some(header) = bytes.get(resume.at..end) else { return Verdict::Need(end) };
            let length = le(&header[..3]);
            let total = end + length as usize;
            if self.header == 7 || length < FULL {
                return Verdict::framed(total as u64, self.header as u32);
            }
            resume.at = total;
        }
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
