//! The poor man's fuzzer for stable compilers: seeds, cut and mutated, for a given time.

use std::fs;
use std::panic::RefUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

/// A small generator (splitmix64): the test needs variety and repeatability, not quality.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => bytes[at] = self.next() as u8,
                4 => {
                    let end = (at + 1 + self.below(16)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => {
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].fill(if self.below(2) == 0 { 0 } else { 0xff });
                }
            }
        }
    }
}

/// Gives the seeds of `target`, their beginnings, and mutations of them to `run` for a while.
///
/// # Panics
/// Where `run` does, with the input.
pub fn smoke(target: &str, time: Duration, run: impl Fn(&[u8]) + RefUnwindSafe) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut seeds: Vec<(String, Vec<u8>)> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds in {}", directory.display());
    for (_, seed) in &seeds {
        run(seed);
        (0..seed.len()).for_each(|end| run(&seed[..end]));
    }
    let mut generator = Generator(1);
    let start = Instant::now();
    let mut inputs = 0u64;
    while start.elapsed() < time {
        for _ in 0..100 {
            let (name, seed) = &seeds[generator.below(seeds.len())];
            let mut input = seed.clone();
            if generator.below(20) == 0 {
                input.iter_mut().for_each(|byte| *byte = generator.next() as u8);
            }
            generator.mutate(&mut input);
            if std::panic::catch_unwind(|| run(&input)).is_err() {
                panic!("{target} fails on a mutation of {name}: {input:02x?}");
            }
            inputs += 1;
        }
    }
    println!("{target}: {inputs} inputs");
}
