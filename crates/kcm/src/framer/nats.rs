//! NATS: lines, and a payload after those that announce one. Keyed by subject.

use super::{Frame, Framer, Meta, Resume, Spread, Verdict, chomp, decimal, first_line, mqtt};

/// Client and server messages of NATS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nats;

/// The server's limit for control lines; INFO and CONNECT may be longer.
const CONTROL_MAX: usize = 4096;
const PAYLOAD_MAX: u64 = 64 << 20;

impl Framer for Nats {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        let end = match first_line(bytes, resume) {
            Ok(end) => end,
            Err(verdict) => return verdict,
        };
        let mut words = chomp(&bytes[..end]).split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        if !matches!(&verb[..], b"PUB" | b"MSG" | b"HPUB" | b"HMSG") {
            return Verdict::len(end as u64);
        }
        if end > CONTROL_MAX {
            return Verdict::too_big("a control line of more than 4096 bytes");
        }
        let subject = words.next().map(mqtt::hash);
        match words.next_back().and_then(decimal) {
            Some(length) if length > PAYLOAD_MAX => Verdict::too_big("a payload of more than 64 MiB"),
            Some(length) => {
                let meta = Meta { key: subject, class: 0, header: end as u32 };
                Verdict::Len(Frame { total: end as u64 + length + 2, meta })
            }
            None => Verdict::broken("the length of the payload is no number"),
        }
    }

    fn spread(&self) -> Spread {
        Spread::Key
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
