//! UNREACHABLE: "the request cannot be served", Peyk's own packet type 0x20.
//!
//! ```text
//!  28     29      32
//!  | code | 0 0 0 |
//! ```
//!
//! On raw IP an ICMP message says that a port is closed. The UDP carriage cannot use it: there
//! ICMP speaks of UDP ports, and one UDP port carries all Homa ports. HomaModule drops the type
//! silently, so it is never sent on raw IP.

use super::{Header, PacketType, ParseError};
use core::fmt;

/// Bytes of an UNREACHABLE packet.
pub const UNREACHABLE_LEN: usize = 32;
const CODE_AT: usize = 28;

/// Why a request cannot be served.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnreachableCode {
    /// No socket has the Homa port (1).
    NoSocket,
    /// The socket of the port serves no requests (2).
    NotServer,
    /// The server's application abandoned the request (3).
    Aborted,
    /// The message is longer than the receiver takes (4).
    TooLarge,
    /// The socket is being closed (5).
    Closing,
    /// The receiver has no room for the RPC (6).
    Overloaded,
    /// A code this version does not know.
    Other(u8),
}

impl UnreachableCode {
    /// The code on the wire.
    #[inline]
    pub const fn code(self) -> u8 {
        match self {
            UnreachableCode::NoSocket => 1,
            UnreachableCode::NotServer => 2,
            UnreachableCode::Aborted => 3,
            UnreachableCode::TooLarge => 4,
            UnreachableCode::Closing => 5,
            UnreachableCode::Overloaded => 6,
            UnreachableCode::Other(code) => code,
        }
    }

    /// The meaning of a code on the wire.
    #[inline]
    pub const fn from_code(code: u8) -> UnreachableCode {
        match code {
            1 => UnreachableCode::NoSocket,
            2 => UnreachableCode::NotServer,
            3 => UnreachableCode::Aborted,
            4 => UnreachableCode::TooLarge,
            5 => UnreachableCode::Closing,
            6 => UnreachableCode::Overloaded,
            other => UnreachableCode::Other(other),
        }
    }
}

impl fmt::Display for UnreachableCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnreachableCode::NoSocket => "no socket",
            UnreachableCode::NotServer => "not a server",
            UnreachableCode::Aborted => "aborted",
            UnreachableCode::TooLarge => "too large",
            UnreachableCode::Closing => "closing",
            UnreachableCode::Overloaded => "overloaded",
            UnreachableCode::Other(code) => return write!(f, "code {code}"),
        })
    }
}

/// UNREACHABLE: the request cannot be served.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Common header.
    pub header: Header,
    /// Why.
    pub code: UnreachableCode,
    /// Zero, ignored.
    pub pad: [u8; 3],
}

impl Unreachable {
    /// An UNREACHABLE packet; `header` should be of type UNREACHABLE.
    #[inline]
    pub const fn new(header: Header, code: UnreachableCode) -> Unreachable {
        Unreachable { header, code, pad: [0; 3] }
    }

    #[inline]
    pub(super) fn parse_body(header: Header, bytes: &[u8]) -> Result<Unreachable, ParseError> {
        let Some(b) = bytes.first_chunk::<UNREACHABLE_LEN>() else {
            return Err(ParseError::TooShort {
                kind: PacketType::Unreachable,
                length: bytes.len(),
                needed: UNREACHABLE_LEN,
            });
        };
        let code = UnreachableCode::from_code(b[CODE_AT]);
        Ok(Unreachable { header, code, pad: [b[29], b[30], b[31]] })
    }

    /// Writes the packet to the front of `out` and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`UNREACHABLE_LEN`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let mut bytes = [0; UNREACHABLE_LEN];
        self.header.write(&mut bytes);
        bytes[CODE_AT] = self.code.code();
        bytes[CODE_AT + 1..].copy_from_slice(&self.pad);
        out[..UNREACHABLE_LEN].copy_from_slice(&bytes);
        UNREACHABLE_LEN
    }
}
