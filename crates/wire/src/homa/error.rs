//! Why bytes are not a Homa packet. Always the peer's fault: drop, count, go on.

use super::{HEADER_LEN, LENGTH_LIMIT, PacketType};
use thiserror::Error;

/// Why bytes are not a Homa packet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer bytes than the common header has.
    #[error("{length} bytes are too short for the common header of {HEADER_LEN}")]
    NoHeader {
        /// Bytes there are.
        length: usize,
    },
    /// The type byte names no packet type.
    #[error("unknown packet type {code:#04x}")]
    UnknownType {
        /// The type byte.
        code: u8,
    },
    /// A header, but fewer bytes than its type must have.
    #[error("{length} bytes are too short for {kind}, which has {needed}")]
    TooShort {
        /// The type the header names.
        kind: PacketType,
        /// Bytes there are.
        length: usize,
        /// Bytes a packet of this type has at least.
        needed: usize,
    },
    /// A DATA packet of a message of no bytes.
    #[error("DATA of an empty message")]
    EmptyMessage,
    /// A DATA packet of a message longer than any endpoint takes.
    #[error("DATA of a message of {length} bytes, at most {LENGTH_LIMIT} are allowed")]
    MessageTooLong {
        /// Message length in bytes.
        length: u32,
    },
    /// A DATA packet whose payload leaves its message.
    #[error("DATA of {payload} bytes at offset {offset} leaves its message of {length} bytes")]
    OutsideMessage {
        /// Offset of the first payload byte.
        offset: u32,
        /// Payload bytes.
        payload: usize,
        /// Message length in bytes.
        length: u32,
    },
}

impl ParseError {
    /// Whether the bytes are fewer than the type needs (HomaModule counts these as "short").
    pub fn is_short(&self) -> bool {
        matches!(self, ParseError::NoHeader { .. } | ParseError::TooShort { .. })
    }
}
