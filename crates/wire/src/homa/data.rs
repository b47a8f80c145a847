//! DATA: bytes of a message, with a piggybacked ack.
//!
//! ```text
//!  28               32         36              44            46               48      49   52          56
//!  | message length | incoming | ack client id | ack srv port | cutoff version | rexmit | 0  | seg offset | payload
//! ```
//!
//! The offset stands in one of two places, because a network card that segments a frame rewrites
//! one or the other: `seg_offset`, or `sequence` when `seg_offset` is all ones. A sender that does
//! not let a card segment writes the true offset into both; every generation of HomaModule then
//! agrees about it.

use super::{AckEntry, HEADER_LEN, Header, LENGTH_LIMIT, PacketType, ParseError, be16, be32, be64};

/// Bytes before the payload.
pub const DATA_HEADER_LEN: usize = 56;
/// The value of `seg_offset` that sends the reader to `sequence`.
pub const OFFSET_IN_SEQUENCE: u32 = u32::MAX;

/// DATA: bytes of a message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Common header; its `sequence` may hold the offset, see [`offset`](Data::offset).
    pub header: Header,
    /// Bytes of the whole message, the same in all its packets; 1..=1,000,000.
    pub message_length: u32,
    /// The sender will send at least up to this offset (exclusive) without further grants.
    pub incoming: u32,
    /// An RPC its client has done with; [`AckEntry::NONE`] when there is none.
    pub ack: AckEntry,
    /// Version of the last CUTOFFS the sender has from the receiver; 0 for none yet.
    pub cutoff_version: u16,
    /// 1 in a retransmission, else 0; kept raw, see [`is_retransmission`](Data::is_retransmission).
    pub retransmit: u8,
    /// Zero, ignored.
    pub pad: [u8; 3],
    /// Offset of the first payload byte, or [`OFFSET_IN_SEQUENCE`].
    pub seg_offset: u32,
    /// The bytes; may be empty.
    pub payload: &'a [u8],
}

impl<'a> Data<'a> {
    /// A packet with the offset in both places, no ack, no cutoffs, not a retransmission.
    /// `incoming` is the unscheduled byte count.
    #[inline]
    pub fn new(
        header: Header,
        message_length: u32,
        incoming: u32,
        offset: u32,
        payload: &'a [u8],
    ) -> Data<'a> {
        Data {
            header: Header { sequence: offset, ..header },
            message_length,
            incoming,
            ack: AckEntry::NONE,
            cutoff_version: 0,
            retransmit: 0,
            pad: [0; 3],
            seg_offset: offset,
            payload,
        }
    }

    /// Parses and checks a DATA packet; quicker than [`Packet::parse`](super::Packet::parse) where
    /// the type is known.
    ///
    /// # Errors
    /// As [`Packet::parse`](super::Packet::parse); a packet of another type is
    /// [`ParseError::UnknownType`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Data<'a>, ParseError> {
        let header = Header::parse(bytes)?;
        if header.kind != PacketType::Data {
            return Err(ParseError::UnknownType { code: header.kind.code() });
        }
        Data::parse_body(header, bytes)
    }

    #[inline]
    pub(super) fn parse_body(header: Header, bytes: &'a [u8]) -> Result<Data<'a>, ParseError> {
        let Some((b, payload)) = bytes.split_first_chunk::<DATA_HEADER_LEN>() else {
            return Err(ParseError::TooShort {
                kind: PacketType::Data,
                length: bytes.len(),
                needed: DATA_HEADER_LEN,
            });
        };
        let data = Data {
            header,
            message_length: be32(b, 28),
            incoming: be32(b, 32),
            ack: AckEntry { client_id: be64(b, 36), server_port: be16(b, 44) },
            cutoff_version: be16(b, 46),
            retransmit: b[48],
            pad: [b[49], b[50], b[51]],
            seg_offset: be32(b, 52),
            payload,
        };
        data.check()?;
        Ok(data)
    }

    /// What can be said about the packet without knowing its RPC.
    #[inline]
    fn check(&self) -> Result<(), ParseError> {
        let length = self.message_length;
        let end = u64::from(self.offset()) + self.payload.len() as u64;
        if length == 0 {
            return Err(ParseError::EmptyMessage);
        }
        if length > LENGTH_LIMIT {
            return Err(ParseError::MessageTooLong { length });
        }
        if end > u64::from(length) {
            let (offset, payload) = (self.offset(), self.payload.len());
            return Err(ParseError::OutsideMessage { offset, payload, length });
        }
        Ok(())
    }

    /// Offset in the message of the first payload byte.
    #[inline]
    pub fn offset(&self) -> u32 {
        if self.seg_offset == OFFSET_IN_SEQUENCE { self.header.sequence } else { self.seg_offset }
    }

    /// Offset after the last payload byte; at most `message_length` in a parsed packet.
    #[inline]
    pub fn end(&self) -> u32 {
        self.offset().saturating_add(self.payload.len() as u32)
    }

    /// [`incoming`](Data::incoming), never beyond the message.
    #[inline]
    pub fn incoming_in_message(&self) -> u32 {
        self.incoming.min(self.message_length)
    }

    /// Whether the sender marked the packet as a retransmission.
    #[inline]
    pub fn is_retransmission(&self) -> bool {
        self.retransmit != 0
    }

    /// Bytes of the packet, payload included.
    #[inline]
    pub fn emit_len(&self) -> usize {
        DATA_HEADER_LEN + self.payload.len()
    }

    /// Writes everything but the payload.
    #[inline]
    pub fn emit_header(&self, out: &mut [u8; DATA_HEADER_LEN]) {
        self.header.write(out);
        out[HEADER_LEN..32].copy_from_slice(&self.message_length.to_be_bytes());
        out[32..36].copy_from_slice(&self.incoming.to_be_bytes());
        out[36..44].copy_from_slice(&self.ack.client_id.to_be_bytes());
        out[44..46].copy_from_slice(&self.ack.server_port.to_be_bytes());
        out[46..48].copy_from_slice(&self.cutoff_version.to_be_bytes());
        out[48] = self.retransmit;
        out[49..52].copy_from_slice(&self.pad);
        out[52..56].copy_from_slice(&self.seg_offset.to_be_bytes());
    }

    /// Writes the packet to the front of `out` and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`emit_len`](Data::emit_len).
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let length = self.emit_len();
        let out = &mut out[..length];
        let (head, rest) = out.split_at_mut(DATA_HEADER_LEN);
        let mut bytes = [0; DATA_HEADER_LEN];
        self.emit_header(&mut bytes);
        head.copy_from_slice(&bytes);
        rest.copy_from_slice(self.payload);
        length
    }
}
