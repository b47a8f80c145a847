//! ACK: a client names RPCs whose server state may go; the same entry rides on DATA.
//!
//! ```text
//!  28         30                                        80
//!  | num acks | 5 x (client id 8, server port 2)        |
//! ```

use super::{Header, PacketType, ParseError, be16, be64};

/// Bytes of an ACK packet; HomaModule drops shorter ones.
pub const ACK_LEN: usize = 80;
/// Entries an ACK packet has room for.
pub const MAX_ACKS: usize = 5;
const COUNT_AT: usize = 28;
const ENTRIES_AT: usize = 30;
const ENTRY_LEN: usize = 10;

/// One RPC its client has done with.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AckEntry {
    /// The RPC id as its client knows it: even; 0 for none.
    pub client_id: u64,
    /// Homa port of the server.
    pub server_port: u16,
}

impl AckEntry {
    /// No ack.
    pub const NONE: AckEntry = AckEntry { client_id: 0, server_port: 0 };

    /// Whether the entry names no RPC.
    #[inline]
    pub const fn is_none(&self) -> bool {
        self.client_id == 0
    }

    /// The RPC id as its server knows it.
    #[inline]
    pub const fn server_id(&self) -> u64 {
        self.client_id ^ 1
    }
}

/// ACK: RPCs a client has done with. The RPC of the header is one of them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Common header; its `sender_id` is acknowledged too.
    pub header: Header,
    /// Number of entries that count, as on the wire, where it may exceed [`MAX_ACKS`]; see
    /// [`entries`](Ack::entries).
    pub num_acks: u16,
    /// The entries; those that do not count are 0.
    pub acks: [AckEntry; MAX_ACKS],
}

impl Ack {
    /// An ACK of the RPC of `header` and of the first [`MAX_ACKS`] `entries`; `header` should be
    /// of type ACK.
    #[inline]
    pub fn new(header: Header, entries: &[AckEntry]) -> Ack {
        let mut acks = [AckEntry::NONE; MAX_ACKS];
        let count = entries.len().min(MAX_ACKS);
        acks[..count].copy_from_slice(&entries[..count]);
        Ack { header, num_acks: count as u16, acks }
    }

    #[inline]
    pub(super) fn parse_body(header: Header, bytes: &[u8]) -> Result<Ack, ParseError> {
        let Some(b) = bytes.first_chunk::<ACK_LEN>() else {
            return Err(ParseError::TooShort { kind: PacketType::Ack, length: bytes.len(), needed: ACK_LEN });
        };
        let mut acks = [AckEntry::NONE; MAX_ACKS];
        for (i, ack) in acks.iter_mut().enumerate() {
            let at = ENTRIES_AT + ENTRY_LEN * i;
            *ack = AckEntry { client_id: be64(b, at), server_port: be16(b, at + 8) };
        }
        Ok(Ack { header, num_acks: be16(b, COUNT_AT), acks })
    }

    /// The entries that count, at most [`MAX_ACKS`].
    #[inline]
    pub fn entries(&self) -> &[AckEntry] {
        &self.acks[..usize::from(self.num_acks).min(MAX_ACKS)]
    }

    /// Writes the packet to the front of `out` and returns the bytes written.
    ///
    /// # Panics
    /// When `out` is shorter than [`ACK_LEN`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let mut bytes = [0; ACK_LEN];
        self.header.write(&mut bytes);
        bytes[COUNT_AT..ENTRIES_AT].copy_from_slice(&self.num_acks.to_be_bytes());
        for (i, ack) in self.acks.iter().enumerate() {
            let at = ENTRIES_AT + ENTRY_LEN * i;
            bytes[at..at + 8].copy_from_slice(&ack.client_id.to_be_bytes());
            bytes[at + 8..at + 10].copy_from_slice(&ack.server_port.to_be_bytes());
        }
        out[..ACK_LEN].copy_from_slice(&bytes);
        ACK_LEN
    }
}
