//! Which RPCs of which peer this server has already finished.
//!
//! A late duplicate of a request must not be executed again after its RPC was
//! acknowledged and freed. `Completed` remembers finished ids for a retention
//! time (at least twice the client's timeout), in a bounded amount of memory.
//! It knows nothing of RPC state: the endpoint asks before it creates a server
//! RPC and records after it frees one.
//!
//! Ids of one client come almost in sequence, two apart, so they are kept as
//! bitmaps of 512 ids:
//!
//! ```text
//!   (peer, id >> 10)  ->  chunk { one bit per even id, time of the last insert }
//!   chunks form a list, least recently used first: that end expires and,
//!   when the limit is reached, is evicted (counted: protection was lost)
//! ```
//!
//! Repeated use of the same chunk skips the hash lookup and the list.

use core::time::Duration;

use hashbrown::HashMap;
use peyk_sansio::Instant;

/// Ids per chunk.
pub const CHUNK_IDS: usize = 512;
/// Bytes one chunk takes, its entry in the index included (approximately).
pub const CHUNK_BYTES: usize = 144;

const WORDS: usize = CHUNK_IDS / 64;
const NONE: u32 = u32::MAX;

/// Settings of a [`Completed`] record.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct CompletedConfig {
    /// How long an id is remembered after the last insert into its chunk.
    pub retention: Duration,
    /// Most chunks kept; memory is about `max_chunks * CHUNK_BYTES`. At least 1.
    pub max_chunks: usize,
}

impl Default for CompletedConfig {
    fn default() -> CompletedConfig {
        CompletedConfig { retention: Duration::from_secs(1), max_chunks: 65_536 }
    }
}

/// Owner of a chunk (not the peer's index: see `remove_peer`) and id range.
type Key = (u32, u64);

#[derive(Debug)]
struct Chunk {
    bits: [u64; WORDS],
    key: Key,
    last: Instant,
    prev: u32,
    next: u32,
}

/// Record of finished server RPCs. See the module documentation.
#[derive(Debug)]
pub struct Completed {
    config: CompletedConfig,
    /// Peer index -> owner number, so that forgetting a peer is O(1): its
    /// chunks become unreachable and expire in their time.
    owners: Vec<u32>,
    next_owner: u32,
    index: HashMap<Key, u32, foldhash::fast::FixedState>,
    chunks: Vec<Chunk>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    last: u32,
    last_key: Key,
    evicted: u64,
}

impl Completed {
    /// An empty record. `seed` keys the hash, so that peers cannot aim ids at it.
    pub fn new(mut config: CompletedConfig, seed: u64) -> Completed {
        config.max_chunks = config.max_chunks.clamp(1, NONE as usize - 1);
        Completed {
            config,
            owners: Vec::new(),
            next_owner: 1,
            index: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(seed)),
            chunks: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            last: NONE,
            last_key: (0, 0),
            evicted: 0,
        }
    }

    /// Records that RPC `id` of `peer` is finished (either form of the id).
    /// Returns false if it was recorded already.
    pub fn insert(&mut self, now: Instant, peer: u32, id: u64) -> bool {
        let key = (self.owner_of(peer), id >> 10);
        let at = match self.find(key) {
            Some(at) => at,
            None => self.create(now, key),
        };
        self.touch(now, at);
        let (word, bit) = position(id);
        let word = &mut self.chunks[at as usize].bits[word];
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Whether RPC `id` of `peer` is known to be finished.
    pub fn contains(&mut self, peer: u32, id: u64) -> bool {
        let Some(&owner) = self.owners.get(peer as usize) else {
            return false;
        };
        let Some(at) = self.find((owner, id >> 10)) else {
            return false;
        };
        let (word, bit) = position(id);
        self.chunks[at as usize].bits[word] & bit != 0
    }

    /// Forgets a peer whose index may be given to another host.
    pub fn remove_peer(&mut self, peer: u32) {
        if let Some(owner) = self.owners.get_mut(peer as usize) {
            *owner = self.next_owner;
            self.next_owner = self.next_owner.wrapping_add(1);
        }
    }

    /// Frees chunks without an insert for the retention time, at most `limit`
    /// of them. Returns how many.
    pub fn expire(&mut self, now: Instant, limit: usize) -> usize {
        let mut freed = 0;
        while freed < limit && self.oldest != NONE {
            let chunk = &self.chunks[self.oldest as usize];
            if now.saturating_since(chunk.last) < self.config.retention {
                break;
            }
            self.drop_chunk(self.oldest);
            freed += 1;
        }
        freed
    }

    /// When the next chunk expires.
    pub fn next_expiry(&self) -> Option<Instant> {
        let chunk = self.chunks.get(self.oldest as usize)?;
        Some(chunk.last + self.config.retention)
    }

    /// Chunks in use.
    pub fn chunks(&self) -> usize {
        self.index.len()
    }

    /// Chunks given up before their time because the limit was reached.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn owner_of(&mut self, peer: u32) -> u32 {
        while self.owners.len() <= peer as usize {
            self.owners.push(self.next_owner);
            self.next_owner = self.next_owner.wrapping_add(1);
        }
        self.owners[peer as usize]
    }

    #[inline]
    fn find(&mut self, key: Key) -> Option<u32> {
        if self.last != NONE && self.last_key == key {
            return Some(self.last);
        }
        let at = *self.index.get(&key)?;
        (self.last, self.last_key) = (at, key);
        Some(at)
    }

    fn create(&mut self, now: Instant, key: Key) -> u32 {
        if self.index.len() >= self.config.max_chunks {
            self.drop_chunk(self.oldest);
            self.evicted += 1;
        }
        let chunk = Chunk { bits: [0; WORDS], key, last: now, prev: NONE, next: NONE };
        let at = if let Some(at) = self.free.pop() {
            self.chunks[at as usize] = chunk;
            at
        } else {
            self.chunks.push(chunk);
            (self.chunks.len() - 1) as u32
        };
        self.index.insert(key, at);
        self.link_newest(at);
        (self.last, self.last_key) = (at, key);
        at
    }

    /// Moves a chunk to the recently used end.
    #[inline]
    fn touch(&mut self, now: Instant, at: u32) {
        self.chunks[at as usize].last = now;
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    fn link_newest(&mut self, at: u32) {
        let before = self.newest;
        let chunk = &mut self.chunks[at as usize];
        (chunk.prev, chunk.next) = (before, NONE);
        match before {
            NONE => self.oldest = at,
            before => self.chunks[before as usize].next = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let Chunk { prev, next, .. } = self.chunks[at as usize];
        match prev {
            NONE => self.oldest = next,
            prev => self.chunks[prev as usize].next = next,
        }
        match next {
            NONE => self.newest = prev,
            next => self.chunks[next as usize].prev = prev,
        }
    }

    fn drop_chunk(&mut self, at: u32) {
        self.unlink(at);
        self.index.remove(&self.chunks[at as usize].key);
        self.free.push(at);
        if self.last == at {
            self.last = NONE;
        }
    }
}

#[inline]
fn position(id: u64) -> (usize, u64) {
    let index = (id >> 1) as usize % CHUNK_IDS;
    (index / 64, 1 << (index % 64))
}

#[cfg(test)]
mod tests;
