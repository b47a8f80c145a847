//! memcached's text protocol, classic and meta: a line, and data after those that announce some.

use super::{Framer, Resume, Spread, Verdict, chomp, decimal, line_end};

/// Requests and replies of memcached's text protocol; a reply with several values is several messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemcachedText;

/// Longest line: a key has at most 250 bytes, but `get` takes many.
const LINE_MAX: usize = 64 * 1024;
const DATA_MAX: u64 = 1 << 30;

impl Framer for MemcachedText {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        let Some(end) = line_end(bytes, resume.at) else {
            resume.at = bytes.len();
            return match bytes.len() {
                length if length > LINE_MAX => Verdict::too_big("a line of more than 64 KiB"),
                length => Verdict::Need(length + 1),
            };
        };
        if end > LINE_MAX {
            return Verdict::too_big("a line of more than 64 KiB");
        }
        let mut words = chomp(&bytes[..end]).split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let data = match words.next().unwrap_or_default() {
            b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => words.nth(3),
            b"VALUE" => words.nth(2),
            b"ms" => words.nth(1),
            b"VA" => words.next(),
            _ => return Verdict::len(end as u64),
        };
        match data.and_then(decimal) {
            Some(length) if length > DATA_MAX => Verdict::too_big("data of more than 1 GiB"),
            Some(length) => Verdict::framed(end as u64 + length + 2, end as u32),
            None => Verdict::broken("the length of the data is no number"),
        }
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
