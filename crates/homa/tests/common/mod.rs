//! What the tests of the endpoint share: a world of endpoints on virtual time,
//! hand-made packets, and message contents that betray a misplaced byte.

#![allow(dead_code, unused_imports)]

pub mod lab;
pub mod packets;
pub mod trace;
pub mod world;

pub use lab::Lab;
pub use packets::*;
pub use world::{CLIENT, SERVER, Verdict, World};

use core::time::Duration;

use peyk_sansio::Instant;

/// Milliseconds of virtual time.
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Microseconds of virtual time.
pub fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// The instant `n` milliseconds after the origin.
pub fn at_ms(n: u64) -> Instant {
    Instant::ZERO + ms(n)
}

/// A message whose byte i is `(i + (i >> 8)) & 0xff`, as in the recorded traces.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i + (i >> 8)) as u8).collect()
}

/// A message that differs for every `key`, so that mixed-up messages show.
pub fn keyed(key: u64, len: usize) -> Vec<u8> {
    let mut bytes = pattern(len);
    let mask = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[i % 8];
    }
    bytes
}
