//! What makes a lost, damaged or twice executed message visible: a header with sequence number and hash, bodies
//! that both sides can check, and the server's ledger of executed requests.
//!
//! The kind of a message stands in the two top bits of its sequence number, and below them who sent it, where there are
//! several clients.

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::{
    prng,
    traffic::{HEADER, Outgoing},
};

/// What the server does with a request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Answer at once with the same bytes.
    Echo,
    /// Keep it open until a release comes.
    Hold,
    /// Answer it and everything held.
    Release,
}

const HOLD: u64 = 1 << 63;
const RELEASE: u64 = 1 << 62;

/// The largest number that a ledger accepts, exclusive: its bitmap stays below 8 MB.
const NUMBERS: u64 = 1 << 26;

/// Where the number of the client begins.
const ORIGIN_AT: u32 = 40;

/// Most clients of a server.
pub const ORIGINS: u64 = 1 << 10;

/// Number and kind of a message, as in its first eight bytes (little endian).
pub fn sequence(kind: Kind, number: u64) -> u64 {
    match kind {
        Kind::Echo => number,
        Kind::Hold => number | HOLD,
        Kind::Release => number | RELEASE,
    }
}

/// The sequence number of a message of one of several clients.
pub fn with_origin(sequence: u64, origin: u32) -> u64 {
    sequence | u64::from(origin) << ORIGIN_AT
}

/// The client in a number, and the number without it.
fn origin_of(number: u64) -> (u64, u64) {
    (number >> ORIGIN_AT, number & ((1 << ORIGIN_AT) - 1))
}

/// The number of a message of this client; `None` if it is another's.
pub fn of_origin(number: u64, origin: u32) -> Option<u64> {
    let (whose, number) = origin_of(number);
    (whose == u64::from(origin)).then_some(number)
}

/// Splits a sequence number into kind and number.
pub fn kind_of(sequence: u64) -> (Kind, u64) {
    match (sequence & HOLD != 0, sequence & RELEASE != 0) {
        (true, _) => (Kind::Hold, sequence & !HOLD),
        (false, true) => (Kind::Release, sequence & !RELEASE),
        (false, false) => (Kind::Echo, sequence),
    }
}

/// The sequence number in a header.
pub fn sequence_of(header: &[u8; HEADER]) -> u64 {
    u64::from_le_bytes(header[..8].try_into().expect("eight bytes"))
}

fn hash_of(header: &[u8; HEADER]) -> u64 {
    u64::from_le_bytes(header[8..].try_into().expect("eight bytes"))
}

/// A block of random bytes; the body of message `n` is a slice of it at an offset that follows from `n`.
#[derive(Clone)]
pub struct Block {
    bytes: Bytes,
}

impl Block {
    /// Bytes in a block: several times the longest message, and more than a second-level cache.
    pub const SIZE: usize = 4 << 20;

    /// The block of a seed.
    pub fn new(seed: u64) -> Block {
        Block { bytes: prng::bytes(seed, Block::SIZE).into() }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where the body of a message starts.
    pub fn offset(&self, sequence: u64, body: usize) -> usize {
        (prng::mix(sequence) % (self.bytes.len() - body + 1) as u64) as usize
    }

    /// The message with this sequence number and `length` bytes (at least [`HEADER`]).
    pub fn message(&self, sequence: u64, length: usize) -> Outgoing {
        let body = length - HEADER;
        let start = self.offset(sequence, body);
        let range = start..start + body;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&sequence.to_le_bytes());
        header[8..].copy_from_slice(&xxh3_64_with_seed(&self.bytes[range.clone()], sequence).to_le_bytes());
        Outgoing { header, body: range }
    }
}

/// What a server did, at the end.
#[derive(Clone, Default, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Executed {
    /// Requests executed, duplicates included.
    pub executed: u64,
    /// Requests executed that had been executed before.
    pub executed_twice: u64,
    /// Requests whose hash did not fit.
    pub corrupt: u64,
    /// Most requests held open at once.
    pub held_max: u64,
    /// CPU time of the server process in seconds.
    pub cpu_seconds: f64,
}

/// The server's record of what it executed.
#[derive(Default)]
pub struct Ledger {
    /// By client.
    echoed: Vec<Bitmap>,
    held: Bitmap,
    counts: Executed,
}

impl Ledger {
    /// Records a request that is about to be executed; says what to do with it. A damaged one is answered like
    /// any other (the client sees the damage too), but it is not in the record of executed numbers.
    pub fn execute<'a>(&mut self, mut chunks: impl Iterator<Item = &'a [u8]>) -> Kind {
        self.counts.executed += 1;
        let first = chunks.next().unwrap_or(&[]);
        let Some((header, rest)) = first.split_first_chunk::<HEADER>() else {
            self.counts.corrupt += 1;
            return Kind::Echo;
        };
        let sequence = sequence_of(header);
        let hash = match chunks.next() {
            None => xxh3_64_with_seed(rest, sequence),
            Some(second) => {
                let mut hasher = Xxh3::with_seed(sequence);
                hasher.update(rest);
                hasher.update(second);
                chunks.for_each(|chunk| hasher.update(chunk));
                hasher.digest()
            }
        };
        let (kind, number) = kind_of(sequence);
        let (origin, number) = origin_of(number);
        if hash != hash_of(header) || number >= NUMBERS || origin >= ORIGINS {
            self.counts.corrupt += 1;
            return Kind::Echo;
        }
        let new = match kind {
            Kind::Echo => {
                let clients = self.echoed.len().max(origin as usize + 1);
                self.echoed.resize_with(clients, Bitmap::default);
                self.echoed[origin as usize].insert(number)
            }
            Kind::Hold => self.held.insert(number),
            Kind::Release => true,
        };
        self.counts.executed_twice += u64::from(!new);
        kind
    }

    /// Notes how many requests are held open.
    pub fn holding(&mut self, open: usize) {
        self.counts.held_max = self.counts.held_max.max(open as u64);
    }

    /// The counts so far.
    pub fn counts(&self) -> &Executed {
        &self.counts
    }
}

/// A set of small numbers.
#[derive(Default)]
struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Whether the number was not in the set.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(block: &Block, message: &Outgoing) -> Vec<u8> {
        [&message.header[..], &block.bytes()[message.body.clone()]].concat()
    }

    #[test]
    fn execute_counts_each_number_once_and_repeats_as_twice() {
        let block = Block::new(1);
        let mut ledger = Ledger::default();
        for number in [0, 1, 5, 1, 70_000] {
            let bytes = whole(&block, &block.message(sequence(Kind::Echo, number), 300));
            assert_eq!(ledger.execute([&bytes[..]].into_iter()), Kind::Echo);
        }
        assert_eq!(ledger.counts().executed, 5);
        assert_eq!(ledger.counts().executed_twice, 1);
        assert_eq!(ledger.counts().corrupt, 0);
    }

    #[test]
    fn execute_tells_clients_apart() {
        let block = Block::new(1);
        let mut ledger = Ledger::default();
        for origin in [0, 3, 1023] {
            let sequence = with_origin(sequence(Kind::Echo, 7), origin);
            assert_eq!(kind_of(sequence).0, Kind::Echo);
            let bytes = whole(&block, &block.message(sequence, 300));
            ledger.execute([&bytes[..]].into_iter());
        }
        assert_eq!((ledger.counts().executed_twice, ledger.counts().corrupt), (0, 0));
        let bytes = whole(&block, &block.message(with_origin(7, 3), 300));
        ledger.execute([&bytes[..]].into_iter());
        assert_eq!(ledger.counts().executed_twice, 1);
    }

    #[test]
    fn execute_sees_one_flipped_bit_anywhere() {
        let block = Block::new(1);
        let bytes = whole(&block, &block.message(9, 64));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut ledger = Ledger::default();
            ledger.execute([&damaged[..]].into_iter());
            assert_eq!(ledger.counts().corrupt, 1, "bit {bit}");
        }
    }

    #[test]
    fn execute_takes_a_message_in_any_chunks() {
        let block = Block::new(3);
        let bytes = whole(&block, &block.message(sequence(Kind::Hold, 2), 100_000));
        for size in [16, 17, 65_536, 99_999] {
            let mut ledger = Ledger::default();
            assert_eq!(ledger.execute(bytes.chunks(size)), Kind::Hold);
            assert_eq!(ledger.counts().corrupt, 0, "chunks of {size}");
        }
    }

    #[test]
    fn execute_of_a_short_or_absurd_message_is_corrupt() {
        let mut ledger = Ledger::default();
        ledger.execute([&[0u8; 15][..]].into_iter());
        ledger.execute(std::iter::empty());
        let block = Block::new(1);
        let bytes = whole(&block, &block.message(1 << 30, 64));
        ledger.execute([&bytes[..]].into_iter());
        assert_eq!(ledger.counts().corrupt, 3);
    }

    #[test]
    fn kind_of_undoes_sequence() {
        for kind in [Kind::Echo, Kind::Hold, Kind::Release] {
            assert_eq!(kind_of(sequence(kind, 77)), (kind, 77));
        }
    }

    #[test]
    fn offset_keeps_every_body_inside_the_block() {
        let block = Block::new(2);
        for number in 0..50 {
            let message = block.message(number, HEADER + (number as usize * 99_991) % 1_000_000);
            assert!(message.body.end <= Block::SIZE);
        }
        assert_eq!(block.message(4, HEADER).body.len(), 0);
    }
}
