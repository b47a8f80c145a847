//! MQTT 3.1.1 and 5: one byte of type, then the remaining length in base 128.

use super::{Frame, Framer, Meta, Resume, Spread, Verdict, be, varint};

/// Control packets of MQTT; PUBLISH is keyed by its topic, everything else by nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mqtt;

const PUBLISH: u8 = 3;

impl Framer for Mqtt {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        let Some(&first) = bytes.first() else { return Verdict::Need(2) };
        if first >> 4 == 0 {
            return Verdict::broken("packet type 0");
        }
        let (remaining, at) = match varint::read(bytes, 1, 4) {
            Ok(Some(length)) => length,
            Ok(None) => return Verdict::Need(bytes.len() + 1),
            Err(()) => return Verdict::broken("a remaining length of more than four bytes"),
        };
        let total = remaining + at as u64;
        let mut meta = Meta { header: at as u32, class: u32::from(first >> 4), key: None };
        if first >> 4 == PUBLISH && remaining >= 2 {
            let Some(topic) = bytes.get(at..at + 2).map(be) else { return Verdict::Need(at + 2) };
            if topic + 2 > remaining {
                return Verdict::broken("a topic longer than its packet");
            }
            let end = at + 2 + topic as usize;
            let Some(topic) = bytes.get(at + 2..end) else { return Verdict::Need(end) };
            meta.key = Some(hash(topic));
        }
        Verdict::Len(Frame { total, meta })
    }

    fn spread(&self) -> Spread {
        Spread::Key
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}

/// FNV-1a: short keys, no secrets; the same on every machine.
pub(crate) fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
