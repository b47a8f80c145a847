//! An outgoing message, or a slice of one: what the application hands in and what a packet carries. Knows
//! nothing of headers.

use core::fmt;
use core::mem::MaybeUninit;
use core::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::message::Message;

/// Bytes kept in the payload itself. Small requests are then copied by value wherever they go, which costs
/// less than one count up and down; the number makes a payload 112 bytes, the size of a chain of three.
/// (Models want their few bytes counted.)
const INLINE: usize = if cfg!(loom) { 0 } else { 110 };

/// The bytes of an outgoing message: an immutable chain of counted slices, or a few bytes inline.
///
/// Cloning and slicing never copy more than 110 bytes and do not allocate, unless the result has more than
/// three parts. Small contents are moved inline when they are handed in, and their memory is freed at once.
pub struct Payload(Repr);

enum Repr {
    /// The first `len` bytes are initialised. The others are left as they are: clearing them would cost as
    /// much as the copy.
    Inline {
        len: u8,
        bytes: [MaybeUninit<u8>; INLINE],
    },
    One(Bytes),
    /// Two or more parts, none of them empty.
    Many(SmallVec<[Bytes; 3]>),
}

impl Payload {
    /// No bytes.
    pub const fn new() -> Payload {
        Payload(Repr::Inline { len: 0, bytes: [MaybeUninit::uninit(); INLINE] })
    }

    /// A copy of `bytes`.
    pub fn copy_from(bytes: &[u8]) -> Payload {
        if bytes.len() <= INLINE {
            return Payload::inline(bytes);
        }
        Payload(Repr::One(Bytes::copy_from_slice(bytes)))
    }

    /// Length, in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Inline { len, .. } => usize::from(*len),
            Repr::One(bytes) => bytes.len(),
            Repr::Many(parts) => parts.iter().map(Bytes::len).sum(),
        }
    }

    /// True if there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes from `range.start` up to, not including, `range.end`: counted, not copied, unless they are
    /// inline.
    ///
    /// # Panics
    /// If the range does not lie within the payload.
    #[inline]
    pub fn slice(&self, range: Range<usize>) -> Payload {
        match &self.0 {
            Repr::Inline { len, bytes } => {
                let part = &written(bytes, *len)[range.clone()];
                if range.start == 0 {
                    // The usual case, the whole: copied at its fixed size, without a call.
                    return Payload(Repr::Inline { len: part.len() as u8, bytes: *bytes });
                }
                Payload::inline(part)
            }
            Repr::One(bytes) => Payload(Repr::One(bytes.slice(range))),
            Repr::Many(parts) => slice_many(parts, range),
        }
    }

    /// The bytes, in order, in chunks that are not empty.
    #[inline]
    pub fn chunks(&self) -> PayloadChunks<'_> {
        match &self.0 {
            Repr::Inline { len, bytes } => PayloadChunks { first: written(bytes, *len), rest: &[] },
            Repr::One(bytes) => PayloadChunks { first: bytes, rest: &[] },
            Repr::Many(parts) => PayloadChunks { first: &parts[0], rest: &parts[1..] },
        }
    }

    /// All bytes, if they are contiguous.
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &self.0 {
            Repr::Inline { len, bytes } => Some(written(bytes, *len)),
            Repr::One(bytes) => Some(bytes),
            Repr::Many(_) => None,
        }
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.chunks().for_each(|chunk| bytes.extend_from_slice(chunk));
        bytes
    }

    /// Copies as many bytes as fit from the front of the payload; returns how many.
    #[inline]
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let mut done = 0;
        for chunk in self.chunks() {
            let count = chunk.len().min(to.len() - done);
            to[done..done + count].copy_from_slice(&chunk[..count]);
            done += count;
        }
        done
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return;
        }
        self.0 = match core::mem::take(self).0 {
            Repr::Inline { len: 0, .. } => Payload::from(bytes).0,
            Repr::Inline { len, bytes: first } => {
                let first = written(&first, len);
                if first.len() + bytes.len() <= INLINE {
                    Payload::inline(&[first, &bytes].concat()).0
                } else {
                    Repr::Many([Bytes::copy_from_slice(first), bytes].into_iter().collect())
                }
            }
            Repr::One(first) if first.is_empty() => Repr::One(bytes),
            Repr::One(first) => Repr::Many([first, bytes].into_iter().collect()),
            Repr::Many(mut parts) => {
                parts.push(bytes);
                Repr::Many(parts)
            }
        };
    }

    /// At most `INLINE` bytes, inline.
    #[inline(always)]
    fn inline(bytes: &[u8]) -> Payload {
        let mut inline = [MaybeUninit::uninit(); INLINE];
        let room = &mut inline[..bytes.len()];
        // SAFETY: `room` is as long as `bytes`, and a variable of ours.
        unsafe { room.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Payload(Repr::Inline { len: bytes.len() as u8, bytes: inline })
    }
}

/// The initialised bytes of `Repr::Inline`.
#[inline(always)]
fn written(bytes: &[MaybeUninit<u8>; INLINE], len: u8) -> &[u8] {
    let written = &bytes[..usize::from(len)];
    // SAFETY: the invariant of `Repr::Inline`: only `Payload::inline`, which writes that many, and
    // `Payload::slice`, which keeps or lowers it, set a `len` other than 0.
    unsafe { core::slice::from_raw_parts(written.as_ptr().cast(), written.len()) }
}

#[cold]
fn slice_many(parts: &[Bytes], range: Range<usize>) -> Payload {
    let total: usize = parts.iter().map(Bytes::len).sum();
    assert!(range.start <= range.end && range.end <= total, "slicing {range:?} out of {total} bytes");
    let mut start = 0;
    let mut found = SmallVec::<[Bytes; 3]>::new();
    for part in parts {
        let end = start + part.len();
        if start >= range.end {
            break;
        }
        if end > range.start {
            found.push(part.slice(range.start.max(start) - start..range.end.min(end) - start));
        }
        start = end;
    }
    match found.len() {
        0 => Payload::new(),
        1 => Payload(Repr::One(found.remove(0))),
        _ => Payload(Repr::Many(found)),
    }
}

impl Clone for Payload {
    #[inline]
    fn clone(&self) -> Payload {
        match &self.0 {
            // SAFETY: an inline payload is bytes and owns nothing. Copied as a whole, for its bytes alone begin at
            // an odd place: copied from there they would be moved twice, in pieces that do not fit each other.
            Repr::Inline { .. } => unsafe { core::ptr::read(self) },
            Repr::One(bytes) => Payload(Repr::One(bytes.clone())),
            Repr::Many(parts) => Payload(Repr::Many(parts.clone())),
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Payload::new()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        if bytes.len() <= INLINE { Payload::inline(&bytes) } else { Payload(Repr::One(bytes)) }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Payload {
        if bytes.len() <= INLINE { Payload::inline(&bytes) } else { Payload(Repr::One(Bytes::from(bytes))) }
    }
}

impl From<Box<[u8]>> for Payload {
    fn from(bytes: Box<[u8]>) -> Payload {
        Payload::from(Vec::from(bytes))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Payload {
        Payload::from(text.into_bytes())
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Payload {
        if bytes.len() <= INLINE {
            Payload::inline(bytes)
        } else {
            Payload(Repr::One(Bytes::from_static(bytes)))
        }
    }
}

impl<const N: usize> From<&'static [u8; N]> for Payload {
    fn from(bytes: &'static [u8; N]) -> Payload {
        Payload::from(&bytes[..])
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Payload {
        Payload::from(text.as_bytes())
    }
}

impl From<Message> for Payload {
    /// Keeps the message's pages until the last slice of the payload is gone; only small messages are copied.
    fn from(message: Message) -> Payload {
        if message.len() <= INLINE {
            return Payload::inline(message.as_slice().expect("short messages are contiguous"));
        }
        if message.as_slice().is_some() {
            return Payload(Repr::One(Bytes::from_owner(Contiguous(message))));
        }
        Payload(Repr::Many(message.into_chunks().map(|chunk| Bytes::from_owner(Contiguous(chunk))).collect()))
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Payload {
        let mut payload = Payload::new();
        parts.into_iter().for_each(|part| payload.push(part));
        payload
    }
}

/// A message of one chunk, as the owner of a `Bytes`.
struct Contiguous(Message);

impl AsRef<[u8]> for Contiguous {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice().expect("a message of one chunk")
    }
}

impl fmt::Debug for Payload {
    /// Length and the first bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.chunks().next().unwrap_or_default();
        write!(f, "Payload({} bytes: ", self.len())?;
        debug_bytes(&first[..first.len().min(32)], f)?;
        f.write_str(if self.len() > 32 { "...)" } else { ")" })
    }
}

impl Eq for Payload {}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.len() == other.len() && self.chunks().flatten().eq(other.chunks().flatten())
    }
}

impl PartialEq<[u8]> for Payload {
    fn eq(&self, other: &[u8]) -> bool {
        let mut rest = other;
        self.len() == other.len()
            && self.chunks().all(|chunk| {
                let (same, after) = rest.split_at(chunk.len());
                rest = after;
                same == chunk
            })
    }
}

impl PartialEq<&[u8]> for Payload {
    fn eq(&self, other: &&[u8]) -> bool {
        *self == **other
    }
}

impl PartialEq<Vec<u8>> for Payload {
    fn eq(&self, other: &Vec<u8>) -> bool {
        *self == **other
    }
}

/// The chunks of a [`Payload`].
#[derive(Clone, Debug)]
pub struct PayloadChunks<'a> {
    /// Next chunk; empty at the end.
    first: &'a [u8],
    rest: &'a [Bytes],
}

impl<'a> Iterator for PayloadChunks<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let chunk = self.first;
        (self.first, self.rest) = match self.rest {
            [next, rest @ ..] => (&next[..], rest),
            [] => (&[][..], &[][..]),
        };
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// Prints bytes as a byte string literal.
pub(crate) fn debug_bytes(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "b\"{}\"", bytes.escape_ascii())
}

#[cfg(test)]
mod tests;
