//! HTTP/1.1 messages: a head up to the blank line, then a body by Content-Length or in chunks. Responses
//! that end with their connection cannot be framed.

use super::{Framer, Resume, Spread, Verdict, chomp, decimal, line_end};

/// Requests or responses of HTTP/1.1.
#[derive(Clone, Copy, Debug)]
pub struct Http1 {
    is_response: bool,
    head_max: usize,
    /// Responses to HEAD have no body whatever they say.
    only_heads: bool,
}

/// What the scan is at; kept in `Resume::state`.
const IN_HEAD: u64 = 0;
const IN_CHUNK_SIZE: u64 = 1;
const IN_TRAILER: u64 = 2;

impl Http1 {
    /// What a client sends.
    pub fn request() -> Http1 {
        Http1 { is_response: false, head_max: 64 * 1024, only_heads: false }
    }

    /// What a server sends.
    pub fn response() -> Http1 {
        Http1 { is_response: true, ..Http1::request() }
    }

    /// What a server sends to a client that asks for heads only.
    pub fn response_to_head() -> Http1 {
        Http1 { only_heads: true, ..Http1::response() }
    }

    fn body(&self, head: &[u8]) -> Result<Body, Verdict> {
        let mut lines = head.split_inclusive(|&byte| byte == b'\n').map(chomp);
        let first = lines.next().unwrap_or_default();
        let mut body = Body::None;
        let mut has_length = false;
        for line in lines {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let Some(length) = decimal(value) else {
                    return Err(Verdict::broken("Content-Length is no number"));
                };
                if has_length && body != Body::Length(length) && body != Body::Chunked {
                    return Err(Verdict::broken("two lengths that differ"));
                }
                has_length = true;
                if body != Body::Chunked {
                    body = Body::Length(length);
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
                if !last.eq_ignore_ascii_case(b"chunked") {
                    return Err(Verdict::broken("the last transfer encoding is not chunked"));
                }
                body = Body::Chunked;
            }
        }
        if has_length && body == Body::Chunked {
            return Err(Verdict::broken("both a length and chunks"));
        }
        if self.is_response {
            let status = first.split(|&byte| byte == b' ').nth(1).and_then(decimal).unwrap_or(0);
            match status {
                100..=199 | 204 | 304 => body = Body::None,
                200..=599 if self.only_heads => body = Body::None,
                200..=599 if body == Body::None && !has_length => {
                    return Err(Verdict::broken("a response that ends with its connection"));
                }
                200..=599 => {}
                _ => return Err(Verdict::broken("no status")),
            }
        }
        Ok(body)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
}

/// Position after the blank line that ends the head; lines may end with `\n` alone.
fn head_end(bytes: &[u8], resume: &mut Resume) -> Option<usize> {
    let mut at = resume.at;
    while let Some(end) = line_end(bytes, at) {
        let is_blank = chomp(&bytes[at..end]).is_empty();
        if is_blank && at > 0 {
            return Some(end);
        }
        at = end;
        resume.at = end;
    }
    None
}

impl Framer for Http1 {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        if resume.state == IN_HEAD {
            let Some(end) = head_end(bytes, resume) else {
                return match bytes.len() {
                    length if length > self.head_max => Verdict::too_big("a head beyond the limit"),
                    length => Verdict::Need(length + 1),
                };
            };
            if end > self.head_max {
                return Verdict::too_big("a head beyond the limit");
            }
            match self.body(&bytes[..end]) {
                Err(verdict) => return verdict,
                Ok(Body::None) => return Verdict::framed(end as u64, end as u32),
                Ok(Body::Length(length)) if length > i64::MAX as u64 => {
                    return Verdict::too_big("a body of 2^63 bytes");
                }
                Ok(Body::Length(length)) => return Verdict::framed(end as u64 + length, end as u32),
                Ok(Body::Chunked) => {}
            }
            (resume.at, resume.state) = (end, IN_CHUNK_SIZE);
        }
        loop {
            if resume.at > bytes.len() {
                return Verdict::Need(resume.at);
            }
            let Some(end) = line_end(bytes, resume.at) else {
                return match bytes.len() - resume.at {
                    length if length > 4096 => Verdict::too_big("a chunk's line beyond 4096 bytes"),
                    _ => Verdict::Need(bytes.len() + 1),
                };
            };
            let line = chomp(&bytes[resume.at..end]);
            resume.at = end;
            if resume.state == IN_TRAILER {
                if line.is_empty() {
                    return Verdict::len(end as u64);
                }
                continue;
            }
            let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
            let Some(size) = hexadecimal(digits) else { return Verdict::broken("no size of a chunk") };
            match size {
                0 => resume.state = IN_TRAILER,
                size => resume.at = end + size as usize + 2,
            }
        }
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}

/// Up to 48 bits in hexadecimal digits.
fn hexadecimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 12 {
        return None;
    }
    text.iter().try_fold(0, |value, &digit| Some(value << 4 | u64::from((digit as char).to_digit(16)?)))
}
