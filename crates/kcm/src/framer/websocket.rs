//! WebSocket frames, after the HTTP upgrade.

use super::{Framer, Resume, Spread, Verdict, be};

/// Frames of WebSocket; a fragmented message is several of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebSocket;

impl Framer for WebSocket {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        let Some(head) = bytes.get(..2) else { return Verdict::Need(2) };
        let (opcode, short) = (head[0] & 0x0f, u64::from(head[1] & 0x7f));
        let is_control = opcode >= 8;
        if head[0] & 0x70 != 0 || matches!(opcode, 3..=7 | 11..) {
            return Verdict::broken("reserved bits or an unknown opcode");
        }
        if is_control && (short > 125 || head[0] & 0x80 == 0) {
            return Verdict::broken("a control frame that is long or fragmented");
        }
        let mask = if head[1] & 0x80 == 0 { 0 } else { 4 };
        let (width, wide) = match short {
            126 => (2, true),
            127 => (8, true),
            _ => (0, false),
        };
        let header = 2 + width + mask;
        let length = if wide {
            match bytes.get(2..2 + width).map(be) {
                None => return Verdict::Need(2 + width),
                Some(length) if length > i64::MAX as u64 - 14 => {
                    return Verdict::broken("the top bit of the length is set");
                }
                Some(length) => length,
            }
        } else {
            short
        };
        Verdict::framed(header as u64 + length, header as u32)
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
