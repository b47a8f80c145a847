//! What a request costs the server besides I/O, and the answer to it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// The work for one request.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// None: the answer is all.
    None,
    /// Waiting, gamma-distributed with shape 2 and this mean.
    Wait {
        /// Mean, in microseconds.
        micros: f64,
    },
    /// Computing for as long as this.
    Cpu {
        /// Microseconds.
        micros: u64,
    },
}

thread_local! {
    static RANDOM: RefCell<Xoshiro256PlusPlus> = RefCell::new(Xoshiro256PlusPlus::seed_from_u64(
        std::process::id().into(),
    ));
}

impl Work {
    /// Does it.
    pub fn run(self) {
        match self {
            Work::None => {}
            Work::Wait { micros } => std::thread::sleep(Duration::from_nanos((gamma2(micros) * 1e3) as u64)),
            Work::Cpu { micros } => {
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(micros) {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

/// The sum of two exponentials.
fn gamma2(mean: f64) -> f64 {
    RANDOM.with_borrow_mut(|random| {
        let mut unit = || 1.0 - (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        -mean / 2.0 * (unit().ln() + unit().ln())
    })
}

/// The answer to a request: its stamp, framed.
pub fn answer(request: &[u8]) -> [u8; 12] {
    let mut answer = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    answer[4..].copy_from_slice(&request[4..12]);
    answer
}

/// The first whole message in some bytes.
pub fn first_message(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    bytes.get(..4 + length)
}
