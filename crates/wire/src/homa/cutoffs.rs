//! CUTOFFS: the receiver of messages tells a sender which message lengths go at which priority.
//!
//! ```text
//!  28                       60        62
//!  | unsched cutoffs 8 x 4  | version |
//! ```

use super::{Header, PRIORITIES, PacketType, ParseError, be16, be32};

/// Bytes of a CUTOFFS packet.
pub const CUTOFFS_LEN: usize = 62;
const CUTOFFS_AT: usize = 28;
const VERSION_AT: usize = 60;

/// CUTOFFS: priorities for unscheduled bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    /// Common header.
    pub header: Header,
    /// Entry `i` is the longest message, in bytes, that goes at priority `i`. Entry 0 is not to be
    /// believed: HomaModule sends 0 there until its parameters are written; see
    /// [`lowest_unlimited`](Cutoffs::lowest_unlimited).
    pub unsched_cutoffs: [u32; PRIORITIES],
    /// To be echoed in DATA.
    pub cutoff_version: u16,
}

impl Cutoffs {
    /// A CUTOFFS packet; `header` should be of type CUTOFFS.
    #[inline]
    pub const fn new(header: Header, unsched_cutoffs: [u32; PRIORITIES], version: u16) -> Cutoffs {
        Cutoffs { header, unsched_cutoffs, cutoff_version: version }
    }

    #[inline]
    pub(super) fn parse_body(header: Header, bytes: &[u8]) -> Result<Cutoffs, ParseError> {
        let Some(b) = bytes.first_chunk::<CUTOFFS_LEN>() else {
            return Err(ParseError::TooShort {
                kind: PacketType::Cutoffs,
                length: bytes.len(),
                needed: CUTOFFS_LEN,
            });
        };
        let mut unsched_cutoffs = [0; PRIORITIES];
        for (i, cutoff) in unsched_cutoffs.iter_mut().enumerate() {
            *cutoff = be32(b, CUTOFFS_AT + 4 * i);
        }
        Ok(Cutoffs { header, unsched_cutoffs, cutoff_version: be16(b, VERSION_AT) })
    }

    /// The cutoffs with entry 0 as the receiver must take it: no limit (2^31 - 1).
    #[inline]
    pub fn lowest_unlimited(&self) -> [u32; PRIORITIES] {
        let mut cutoffs = self.unsched_cutoffs;
        cutoffs[0] = i32::MAX as u32;
        cutoffs
    }

    /// Writes the packet to the front of `out` and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`CUTOFFS_LEN`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let mut bytes = [0; CUTOFFS_LEN];
        self.header.write(&mut bytes);
        for (i, cutoff) in self.unsched_cutoffs.iter().enumerate() {
            let at = CUTOFFS_AT + 4 * i;
            bytes[at..at + 4].copy_from_slice(&cutoff.to_be_bytes());
        }
        bytes[VERSION_AT..].copy_from_slice(&self.cutoff_version.to_be_bytes());
        out[..CUTOFFS_LEN].copy_from_slice(&bytes);
        CUTOFFS_LEN
    }
}
