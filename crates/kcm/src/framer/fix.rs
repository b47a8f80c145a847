//! FIX: `8=...|9=n|`, n bytes, and the checksum field of seven bytes.

use super::{Framer, Resume, Spread, Verdict, decimal};

/// Messages of FIX in tag=value encoding.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fix;

const SOH: u8 = 1;
/// Longest begin string and body length together.
const HEAD_MAX: usize = 64;
const BODY_MAX: u64 = 64 << 20;

impl Framer for Fix {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        let known = bytes.len().min(2);
        if bytes[..known] != b"8="[..known] {
            return Verdict::broken("a message starts with 8=");
        }
        let mut ends = bytes.iter().take(HEAD_MAX).enumerate().filter(|(_, byte)| **byte == SOH);
        let (Some((first, _)), second) = (ends.next(), ends.next()) else { return need(bytes) };
        let field = &bytes[first + 1..];
        let known = field.len().min(2);
        if field[..known] != b"9="[..known] {
            return Verdict::broken("the second field is 9=");
        }
        let Some((second, _)) = second else { return need(bytes) };
        match decimal(&bytes[first + 3..second]) {
            Some(length) if length > BODY_MAX => Verdict::too_big("a body of more than 64 MiB"),
            Some(length) => Verdict::framed(second as u64 + 1 + length + 7, second as u32 + 1),
            None => Verdict::broken("the body length is no number"),
        }
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}

fn need(bytes: &[u8]) -> Verdict {
    if bytes.len() >= HEAD_MAX {
        return Verdict::broken("no body length within 64 bytes");
    }
    Verdict::Need(bytes.len() + 1)
}
