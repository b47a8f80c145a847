//! ASN.1 BER with definite lengths, as LDAP and SNMP over TCP use it.

use super::{Framer, Resume, Spread, Verdict, be};

/// Tag, short or long length of at most four bytes, value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ber;

impl Framer for Ber {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        match bytes.first() {
            Some(tag) if tag & 0x1f == 0x1f => return Verdict::broken("a tag of more than one byte"),
            _ => {}
        }
        let Some(&first) = bytes.get(1) else { return Verdict::Need(2) };
        let width = usize::from(first & 0x7f);
        match first {
            0..=0x7f => Verdict::framed(2 + u64::from(first), 2),
            0x80 => Verdict::broken("an indefinite length"),
            _ if width > 4 => Verdict::broken("a length of more than four bytes"),
            _ => match bytes.get(2..2 + width) {
                Some(length) => Verdict::framed((2 + width) as u64 + be(length), (2 + width) as u32),
                None => Verdict::Need(2 + width),
            },
        }
    }

    fn spread(&self) -> Spread {
        Spread::Any
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
