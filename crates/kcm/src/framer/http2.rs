//! HTTP/2 frames: nine bytes of header. HEADERS and what continues them are one message, because header
//! compression has one state for the connection.

use super::{Frame, Framer, Meta, Resume, Spread, Verdict, be};

/// Frames of HTTP/2 in one direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    expects_preface: bool,
    is_client: bool,
    max_frame: u64,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// A block of headers has at most so many frames.
const CONTINUATIONS_MAX: u64 = 64;

impl Http2 {
    /// What a client sends: the preface, which is a message, then frames.
    pub fn client() -> Http2 {
        Http2 { expects_preface: true, is_client: true, max_frame: 16_384 }
    }

    /// What a server sends.
    pub fn server() -> Http2 {
        Http2 { expects_preface: false, is_client: false, max_frame: 16_384 }
    }

    /// Another SETTINGS_MAX_FRAME_SIZE than 16,384.
    pub fn max_frame_size(self, max_frame: u32) -> Http2 {
        Http2 { max_frame: u64::from(max_frame.clamp(16_384, 0xff_ffff)), ..self }
    }
}

impl Framer for Http2 {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        if self.expects_preface {
            let known = bytes.len().min(PREFACE.len());
            return match bytes[..known] == PREFACE[..known] {
                false => Verdict::broken("a client starts with the preface"),
                true if known < PREFACE.len() => Verdict::Need(PREFACE.len()),
                true => Verdict::len(PREFACE.len() as u64),
            };
        }
        loop {
            let at = resume.at;
            let Some(header) = bytes.get(at..at + 9) else { return Verdict::Need(at + 9) };
            let (length, kind, flags) = (be(&header[..3]), header[3], header[4]);
            let stream = be(&header[5..9]) as u32 & 0x7fff_ffff;
            if length > self.max_frame {
                return Verdict::too_big("a frame longer than SETTINGS_MAX_FRAME_SIZE");
            }
            let first_stream = be(&bytes[5..9]) as u32 & 0x7fff_ffff;
            if at > 0 && (kind != CONTINUATION || stream != first_stream) {
                return Verdict::broken("a block of headers is interrupted");
            }
            let end = at + 9 + length as usize;
            let starts_block = matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION);
            if !starts_block || flags & END_HEADERS != 0 {
                let meta = Meta { key: Some(first_stream), class: u32::from(bytes[3]), header: 9 };
                return Verdict::Len(Frame { total: end as u64, meta });
            }
            resume.state += 1;
            if resume.state > CONTINUATIONS_MAX {
                return Verdict::too_big("a block of headers of more than 64 frames");
            }
            resume.at = end;
        }
    }

    fn finished(&mut self, _: &[u8]) {
        self.expects_preface = false;
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(Http2 { expects_preface: self.is_client, ..*self })
    }
}
