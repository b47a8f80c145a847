//! RESEND: the receiver of a message asks for bytes that did not arrive.
//!
//! ```text
//!  28       32       36         37
//!  | offset | length | priority |
//! ```
//!
//! The variant of HomaModule proposed for the Linux kernel has no priorities and sends 36 bytes.

use super::{HEADER_LEN, Header, MAX_PRIORITY, PacketType, ParseError, be32};

/// Bytes of a RESEND as sent here.
pub const RESEND_LEN: usize = 37;
/// Bytes a RESEND has at least: without priority.
pub const RESEND_LEN_MIN: usize = 36;
/// The length that means "nothing arrived, resend all that you sent so far".
pub const RESEND_ALL: u32 = u32::MAX;

/// RESEND: request for missing bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Resend {
    /// Common header.
    pub header: Header,
    /// First byte wanted; may lie beyond the message.
    pub offset: u32,
    /// Bytes wanted, or [`RESEND_ALL`].
    pub length: u32,
    /// Priority for the retransmissions as on the wire; absent in 36-byte packets. See
    /// [`level`](Resend::level).
    pub priority: Option<u8>,
}

impl Resend {
    /// A RESEND of 37 bytes; `header` should be of type RESEND.
    #[inline]
    pub const fn new(header: Header, offset: u32, length: u32, priority: u8) -> Resend {
        Resend { header, offset, length, priority: Some(priority) }
    }

    #[inline]
    pub(super) fn parse_body(header: Header, bytes: &[u8]) -> Result<Resend, ParseError> {
        let Some(b) = bytes.first_chunk::<RESEND_LEN_MIN>() else {
            return Err(ParseError::TooShort {
                kind: PacketType::Resend,
                length: bytes.len(),
                needed: RESEND_LEN_MIN,
            });
        };
        let priority = bytes.get(RESEND_LEN_MIN).copied();
        Ok(Resend { header, offset: be32(b, 28), length: be32(b, 32), priority })
    }

    /// Whether everything sent so far is wanted.
    #[inline]
    pub fn is_all(&self) -> bool {
        self.length == RESEND_ALL
    }

    /// Offset after the last byte wanted; the end of the number range for
    /// [`RESEND_ALL`] and for sums that leave it.
    #[inline]
    pub fn end(&self) -> u32 {
        self.offset.saturating_add(self.length)
    }

    /// The priority as a level 0..=7: the highest when the packet has none, and for higher values.
    #[inline]
    pub fn level(&self) -> u8 {
        self.priority.unwrap_or(MAX_PRIORITY).min(MAX_PRIORITY)
    }

    /// Bytes of the packet.
    #[inline]
    pub fn emit_len(&self) -> usize {
        if self.priority.is_some() { RESEND_LEN } else { RESEND_LEN_MIN }
    }

    /// Writes the packet to the front of `out` and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`emit_len`](Resend::emit_len).
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let mut bytes = [0; RESEND_LEN];
        self.header.write(&mut bytes);
        bytes[HEADER_LEN..32].copy_from_slice(&self.offset.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.length.to_be_bytes());
        bytes[36] = self.priority.unwrap_or(0);
        let length = self.emit_len();
        out[..length].copy_from_slice(&bytes[..length]);
        length
    }
}
