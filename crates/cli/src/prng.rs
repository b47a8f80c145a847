//! Seeded random numbers for arrivals, sizes and message bodies. Not for anything secret.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A generator from a seed.
pub fn seeded(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

/// Uniform in `[0, 1)`.
pub fn unit(rng: &mut Xoshiro256PlusPlus) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Exponentially distributed with the given mean.
pub fn exponential(rng: &mut Xoshiro256PlusPlus, mean: f64) -> f64 {
    -(1.0 - unit(rng)).ln() * mean
}

/// Spreads the bits of a number (the finaliser of SplitMix64): consecutive numbers give unrelated ones.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `length` random bytes.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    seeded(seed).fill_bytes(&mut data);
    data
}
