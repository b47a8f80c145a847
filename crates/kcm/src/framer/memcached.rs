//! memcached's text protocol, classic and meta: a line, and data after those that announce some.

use super::{Framer, Resume, Spread, Verdict, chomp, decimal, first_line};

/// Requests and replies of memcached's text protocol; a reply with several values is several messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemcachedText;

const DATA_MAX: u64 = 1 << 30;

impl Framer for MemcachedText {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        let end = match first_line(bytes, resume) {
            Ok(end) => end,
            Err(verdict) => return verdict,
        };
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
