//! RESP, the protocol of Redis: commands of clients, and replies in RESP2 and RESP3.

use super::{Framer, Resume, Spread, Verdict, chomp, decimal, line_end};

/// Longest line that is not a bulk, as in redis-server.
const LINE_MAX: usize = 64 * 1024;
/// Longest bulk, as in redis-server.
const BULK_MAX: u64 = 512 << 20;
/// Most arguments of a command, as in redis-server.
const ARGUMENTS_MAX: u64 = 1024 * 1024;
/// Deepest nesting of a reply.
const DEPTH_MAX: usize = 128;

/// What clients send: `*n` with n bulks, or an inline command of one line.
#[derive(Clone, Copy, Debug, Default)]
pub struct RespCommand;

/// What servers send: any RESP2 or RESP3 value, nested as deep as it may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct RespReply;

/// The line at `at`, and the position after it.
fn line(bytes: &[u8], at: usize) -> Result<(&[u8], usize), Verdict> {
    match line_end(bytes, at) {
        Some(end) if end - at > LINE_MAX => Err(Verdict::too_big("a line of more than 64 KiB")),
        Some(end) => Ok((chomp(&bytes[at..end]), end)),
        None if bytes.len() - at > LINE_MAX => Err(Verdict::too_big("a line of more than 64 KiB")),
        None => Err(Verdict::Need(bytes.len() + 1)),
    }
}

/// Position after the bulk whose bytes start at `at`.
fn bulk(length: &[u8], at: usize) -> Result<usize, Verdict> {
    match decimal(length) {
        Some(length) if length > BULK_MAX => Err(Verdict::too_big("a bulk of more than 512 MiB")),
        Some(length) => Ok(at + length as usize + 2),
        None => Err(Verdict::broken("the length of a bulk is no number")),
    }
}

/// Goes on from `resume.at` with `step` until all counts are used up. Inside `step` the position moves.
fn scan(
    bytes: &[u8],
    resume: &mut Resume,
    mut step: impl FnMut(&mut Resume) -> Result<(), Verdict>,
) -> Verdict {
    while !resume.open.is_empty() {
        if resume.at > bytes.len() {
            // Inside a bulk. Only its last byte matters, and the element behind it if there is one.
            return Verdict::Need(resume.at);
        }
        if let Err(verdict) = step(resume) {
            return verdict;
        }
        while resume.open.last() == Some(&0) {
            resume.open.pop();
        }
    }
    Verdict::len(resume.at as u64)
}

fn take_one(resume: &mut Resume) {
    if let Some(open) = resume.open.last_mut() {
        *open -= 1;
    }
}

impl Framer for RespCommand {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        if resume.at == 0 {
            let Some(&first) = bytes.first() else { return Verdict::Need(1) };
            let (head, end) = match line(bytes, 0) {
                Ok(line) => line,
                Err(verdict) => return verdict,
            };
            if first != b'*' {
                return Verdict::len(end as u64); // inline
            }
            let count = match &head[1..] {
                [b'-', rest @ ..] if decimal(rest).is_some() => 0,
                digits => match decimal(digits) {
                    Some(count) if count <= ARGUMENTS_MAX => count,
                    _ => return Verdict::broken("invalid number of arguments"),
                },
            };
            resume.at = end;
            if count > 0 {
                resume.open.push(count);
            }
        }
        scan(bytes, resume, |resume| {
            let (head, end) = line(bytes, resume.at)?;
            let [b'$', length @ ..] = head else { return Err(Verdict::broken("expected a bulk")) };
            resume.at = bulk(length, end)?;
            take_one(resume);
            Ok(())
        })
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}

impl RespReply {
    /// Takes one value, or the head of an aggregate, at `resume.at`.
    fn value(bytes: &[u8], resume: &mut Resume) -> Result<(), Verdict> {
        let (head, end) = line(bytes, resume.at)?;
        let Some((kind, rest)) = head.split_first() else { return Err(Verdict::broken("an empty line")) };
        let is_null = matches!(rest, b"-1");
        resume.at = end;
        take_one(resume);
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
            b'$' | b'!' | b'=' if is_null => {}
            b'$' | b'!' | b'=' => resume.at = bulk(rest, end)?,
            b'*' | b'~' | b'>' | b'%' | b'|' if is_null => {}
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let Some(count) = decimal(rest).filter(|&count| count <= u64::from(u32::MAX)) else {
                    return Err(Verdict::broken("the count of an aggregate is no number"));
                };
                if resume.open.len() >= DEPTH_MAX {
                    return Err(Verdict::broken("nested too deeply"));
                }
                let elements = if matches!(kind, b'%' | b'|') { 2 * count } else { count };
                // Attributes come before the value they belong to, which is still to follow.
                if *kind == b'|'
                    && let Some(open) = resume.open.last_mut()
                {
                    *open += 1;
                }
                resume.open.push(elements);
            }
            _ => return Err(Verdict::broken("an unknown type of value")),
        }
        Ok(())
    }
}

impl Framer for RespReply {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        if bytes.is_empty() {
            return Verdict::Need(1);
        }
        if resume.at == 0 && resume.open.is_empty() {
            resume.open.push(1);
        }
        scan(bytes, resume, |resume| RespReply::value(bytes, resume))
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
