//! Contents of messages: every key has its own, so that a byte in the wrong place or message is seen.

use bytes::Bytes;
use peyk_sansio::Prng;
use peyk_sockbuf::Message;

/// Longest message.
const LONGEST: usize = 1 << 20;
/// Different beginnings.
const STARTS: u64 = 1 << 18;

/// Random bytes, of which every message is a slice.
#[derive(Debug)]
pub struct Pattern(Bytes);

impl Pattern {
    /// The pattern of a seed.
    pub fn new(seed: u64) -> Pattern {
        let mut random = Prng::new(seed ^ 0x7061_7474);
        let words = (LONGEST + STARTS as usize) / 8;
        Pattern((0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect())
    }

    /// The contents of a message of so many bytes.
    ///
    /// # Panics
    /// If they are more than a megabyte.
    pub fn bytes(&self, key: u64, length: u32) -> Bytes {
        let start = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % STARTS;
        self.0.slice(start as usize..start as usize + length as usize)
    }

    /// Whether a message has the contents it should have.
    pub fn is(&self, message: &Message, key: u64, length: u32) -> bool {
        let expected = self.bytes(key, length);
        let mut at = 0;
        message.len() == expected.len()
            && message.chunks().all(|chunk| {
                let begin = at;
                at += chunk.len();
                expected[begin..at] == *chunk
            })
    }
}
