//! Seeded randomness: xoshiro256++. Not for secrets; the seed comes from outside, and with the same seed
//! the same numbers follow on every machine.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// A pseudo-random number generator. Equal seeds give equal sequences, on every platform and for ever.
#[derive(Clone, Debug)]
pub struct Prng(Xoshiro256PlusPlus);

impl Prng {
    /// A generator whose whole sequence is determined by `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Splits off an independent generator; the parent moves on by one number.
    pub fn fork(&mut self) -> Prng {
        Prng::new(self.next_u64())
    }

    /// Uniform over all 64-bit values.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform over all 32-bit values.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// Uniform over `0..n`, without bias; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // Lemire: the high half of a product is uniform once the few low halves that would favour some
        // results are rejected.
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Uniform over `low..=high`; `low` if the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        match high.saturating_sub(low) {
            u64::MAX => self.next_u64(),
            span => low + self.below(span + 1),
        }
    }

    /// True with probability `p`; values outside 0..=1 mean never and always.
    pub fn chance(&mut self, p: f64) -> bool {
        self.f64_unit() < p
    }

    /// Uniform over `0.0..1.0`, in steps of 2^-53.
    pub fn f64_unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Exponentially distributed with the given mean: the gaps of a Poisson process.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.f64_unit()).ln()
    }

    /// Permutes `items`, every order being equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    /// One of `items`, or `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_same_seed_same_numbers() {
        let (mut a, mut b) = (Prng::new(7), Prng::new(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        let (mut c, mut d) = (a.fork(), b.fork());
        assert!((0..100).all(|_| c.next_u64() == d.next_u64()));
        assert_ne!(Prng::new(1).next_u64(), Prng::new(2).next_u64());
    }

    #[test]
    fn new_sequence_is_pinned() {
        // A change here changes the meaning of every recorded seed.
        let mut prng = Prng::new(0);
        assert_eq!([prng.next_u64(), prng.next_u64()], [0x53175d61490b23df, 0x61da6f3dc380d507]);
    }

    #[test]
    fn below_is_uniform_and_in_range() {
        let mut prng = Prng::new(1);
        let mut seen = [0u32; 7];
        for _ in 0..70_000 {
            seen[prng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (9_500..10_500).contains(&n)), "{seen:?}");
        assert_eq!(prng.below(0), 0);
        assert_eq!(prng.below(1), 0);
        assert!(prng.below(u64::MAX) < u64::MAX);
        assert_eq!(prng.between(5, 5), 5);
        assert_eq!(prng.between(6, 5), 6);
        let _ = prng.between(0, u64::MAX);
    }

    #[test]
    fn exponential_has_its_mean() {
        let mut prng = Prng::new(2);
        let sum: f64 = (0..100_000).map(|_| prng.exponential(10.0)).sum();
        assert!((9.8..10.2).contains(&(sum / 100_000.0)), "{sum}");
    }

    #[test]
    fn chance_follows_p() {
        let mut prng = Prng::new(3);
        let hits = (0..100_000).filter(|_| prng.chance(0.25)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!(!(0..1_000).any(|_| prng.chance(0.0)));
        assert!((0..1_000).all(|_| prng.chance(1.0)));
    }

    #[test]
    fn shuffle_keeps_all_items() {
        let mut prng = Prng::new(4);
        let mut items: Vec<u32> = (0..50).collect();
        prng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
        assert_eq!(prng.pick::<u8>(&[]), None);
        assert!(prng.pick(&items).is_some());
    }
}
