//! GRANT: the receiver of a message lets its sender send more.
//!
//! ```text
//!  28       32         33   34
//!  | offset | priority | 0  |
//! ```
//!
//! HomaModule before July 2025 drops a GRANT without the 34th byte, later ones ignore the byte;
//! sending it pleases both.

use super::{HEADER_LEN, Header, MAX_PRIORITY, PacketType, ParseError, be32};

/// Bytes of a GRANT as sent here.
pub const GRANT_LEN: usize = 34;
/// Bytes a GRANT has at least.
pub const GRANT_LEN_MIN: usize = 33;

/// GRANT: permission to send up to an offset.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Common header.
    pub header: Header,
    /// The sender may send the bytes before this offset; may lie beyond the message.
    pub offset: u32,
    /// Priority for the scheduled bytes of the message, as on the wire; see
    /// [`level`](Grant::level).
    pub priority: u8,
    /// The 34th byte, when there is one (HomaModule of old: "resend all").
    pub extra: Option<u8>,
}

impl Grant {
    /// A GRANT of 34 bytes; `header` should be of type GRANT.
    #[inline]
    pub const fn new(header: Header, offset: u32, priority: u8) -> Grant {
        Grant { header, offset, priority, extra: Some(0) }
    }

    #[inline]
    pub(super) fn parse_body(header: Header, bytes: &[u8]) -> Result<Grant, ParseError> {
        let Some(b) = bytes.first_chunk::<GRANT_LEN_MIN>() else {
            return Err(ParseError::TooShort {
                kind: PacketType::Grant,
                length: bytes.len(),
                needed: GRANT_LEN_MIN,
            });
        };
        let extra = bytes.get(GRANT_LEN_MIN).copied();
        Ok(Grant { header, offset: be32(b, 28), priority: b[32], extra })
    }

    /// The priority as a level 0..=7; higher values from the wire count as 7.
    #[inline]
    pub fn level(&self) -> u8 {
        self.priority.min(MAX_PRIORITY)
    }

    /// Bytes of the packet.
    #[inline]
    pub fn emit_len(&self) -> usize {
        if self.extra.is_some() { GRANT_LEN } else { GRANT_LEN_MIN }
    }

    /// Writes the packet to the front of `out` and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`emit_len`](Grant::emit_len).
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let mut bytes = [0; GRANT_LEN];
        self.header.write(&mut bytes);
        bytes[HEADER_LEN..32].copy_from_slice(&self.offset.to_be_bytes());
        bytes[32] = self.priority;
        bytes[33] = self.extra.unwrap_or(0);
        let length = self.emit_len();
        out[..length].copy_from_slice(&bytes[..length]);
        length
    }
}
