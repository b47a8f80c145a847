//! Where a message ends: the contract of framers, and the ready ones. It is not assembly: a framer sees the
//! bytes of one message from its first byte on and keeps no bytes.
//!
//! ```text
//!   bytes so far ──frame()──> Need(n)   call again with at least n bytes
//!                             Len(..)   the message is that long, header included
//!                             Bad(..)   it never will be one
//! ```
//!
//! A framer is *monotone*: once it has said `Len` for a prefix it says the same for every longer prefix of
//! the same bytes, and `Need(n)` never exceeds the length of the message.

mod ber;
mod capnp;
mod cql;
mod fix;
mod http1;
mod http2;
mod iscsi;
mod kafka;
mod length;
mod line;
mod memcached;
mod mqtt;
mod mysql;
mod nats;
mod postgres;
mod registry;
mod resp;
mod rpc;
mod thrift;
mod varint;
mod websocket;

pub use ber::Ber;
pub use capnp::Capnp;
pub use cql::Cql;
pub use fix::Fix;
pub use http1::Http1;
pub use http2::Http2;
pub use iscsi::{Amqp, Iscsi};
pub use kafka::Kafka;
pub use length::{Check, LengthField};
pub use line::Delimiter;
pub use memcached::MemcachedText;
pub use mqtt::Mqtt;
pub use mysql::Mysql;
pub use nats::Nats;
pub use postgres::Postgres;
pub use registry::{NAMES, Side, SpecError, by_name};
pub use resp::{RespCommand, RespReply};
pub use rpc::OncRpc;
pub use thrift::Thrift;
pub use varint::Varint;
pub use websocket::WebSocket;

use crate::error::{Code, FrameError};

/// Finds the end of the message that starts at the first byte.
pub trait Framer: Send {
    /// Looks at all bytes of the message that are there, and perhaps some beyond its end. `resume` starts
    /// empty with each message and is kept between the calls for it: a place for how far a scan has come.
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict;

    /// Takes whole messages off the front of some bytes, up to `most` and none longer than `longest`: their
    /// lengths are appended, the bytes of all returned. Stops before whatever is not plain, and leaves `resume`
    /// empty.
    fn frame_all(
        &mut self,
        bytes: &[u8],
        (most, longest): (usize, usize),
        resume: &mut Resume,
        lengths: &mut Vec<u32>,
    ) -> usize {
        each_whole(self, bytes, (most, longest), resume, lengths)
    }

    /// Called once with each whole message: for protocols whose framing depends on earlier messages.
    fn finished(&mut self, _message: &[u8]) {}

    /// Most bytes of one message that may be there before its length is known. For framers that cannot tell
    /// a hopeless header from a short one.
    fn max_header(&self) -> usize {
        usize::MAX
    }

    /// Whether the messages of one connection may be handled in any order.
    fn spread(&self) -> Spread;

    /// A framer for a new connection of the same protocol, in its initial state.
    fn fresh(&self) -> Box<dyn Framer>;
}

/// [`Framer::frame_all`] for any framer.
fn each_whole<F: Framer + ?Sized>(
    framer: &mut F,
    bytes: &[u8],
    (most, longest): (usize, usize),
    resume: &mut Resume,
    lengths: &mut Vec<u32>,
) -> usize {
    let (mut at, mut count) = (0, 0);
    while count < most && at < bytes.len() {
        let Verdict::Len(frame) = framer.frame(&bytes[at..], resume) else { break };
        if frame.total == 0 || frame.total > longest.min(bytes.len() - at) as u64 {
            break;
        }
        let end = at + frame.total as usize;
        framer.finished(&bytes[at..end]);
        lengths.push(frame.total as u32);
        (at, count) = (end, count + 1);
        resume.clear();
    }
    resume.clear();
    at
}

/// What a framer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing certain yet; another call is worthwhile with this many bytes of the message, more than
    /// there are.
    Need(usize),
    /// The message is known.
    Len(Frame),
    /// No message starts here.
    Bad(FrameError),
}

/// A message whose end is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Bytes of the whole message, header included; at least 1.
    pub total: u64,
    /// What the framer knows beyond the length.
    pub meta: Meta,
}

/// What a framer may say about a message beyond its length; steering uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Equal keys want the same socket; `None` if the protocol has none here.
    pub key: Option<u32>,
    /// A class of the program's own choice, for marks and for estimates of cost.
    pub class: u32,
    /// Bytes of the header, or 0 if unknown.
    pub header: u32,
}

/// How far a scan of one message has come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resume {
    /// Bytes that need not be looked at again.
    pub at: usize,
    /// Any other number.
    pub state: u64,
    /// Open counts of nested structures, outermost first.
    pub open: Vec<u64>,
}

/// In which order messages of one connection must be handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// In any: messages carry an id.
    Any,
    /// In order for each key.
    Key,
    /// In order for the connection: only a sequencer for the replies allows to spread them.
    Connection,
    /// The framer does not know; the user decides.
    User,
}

impl Resume {
    /// Ready for the next message.
    pub fn clear(&mut self) {
        (self.at, self.state) = (0, 0);
        self.open.clear();
    }
}

impl Verdict {
    /// A message of this many bytes, without further knowledge.
    pub fn len(total: u64) -> Verdict {
        Verdict::Len(Frame { total, meta: Meta::default() })
    }

    /// A message of this many bytes after a header of so many.
    pub fn framed(total: u64, header: u32) -> Verdict {
        Verdict::Len(Frame { total, meta: Meta { header, ..Meta::default() } })
    }

    /// The same with a key.
    pub fn keyed(total: u64, header: u32, key: u32) -> Verdict {
        Verdict::Len(Frame { total, meta: Meta { header, key: Some(key), class: 0 } })
    }

    /// The bytes break the protocol.
    pub fn broken(why: &'static str) -> Verdict {
        Verdict::Bad(FrameError { code: Code::PROTO, why })
    }

    /// The message is longer than the protocol allows.
    pub fn too_big(why: &'static str) -> Verdict {
        Verdict::Bad(FrameError { code: Code::MSGSIZE, why })
    }
}

/// Finds the end of a line: the position after `\n`. `Err` says from where to look next time.
pub(crate) fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.iter().position(|&byte| byte == b'\n').map(|at| from + at + 1)
}

/// The end of the first line of a message of lines and data; the verdict if there is none yet, or if it is
/// longer than such lines are.
pub(crate) fn first_line(bytes: &[u8], resume: &mut Resume) -> Result<usize, Verdict> {
    const MAX: usize = 64 * 1024;
    let end = line_end(bytes, resume.at);
    if end.unwrap_or(bytes.len()) > MAX {
        return Err(Verdict::too_big("a line of more than 64 KiB"));
    }
    end.ok_or_else(|| {
        resume.at = bytes.len();
        Verdict::Need(bytes.len() + 1)
    })
}

/// A line without its end, `\r\n` or `\n`.
pub(crate) fn chomp(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A number in decimal digits and nothing else; `None` also when it exceeds 64 bits.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Big-endian number of up to eight bytes.
pub(crate) fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Little-endian number of up to eight bytes.
pub(crate) fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}
