//! What a pure protocol may use besides bytes: time, timers, randomness.
//!
//! ```text
//!   Instant   a number of nanoseconds; whoever drives the protocol says what "now" is
//!   Wheel     deadlines in, due items out; arming is O(1), cancelling is forgetting
//!   Prng      seeded numbers; the same seed replays the same world
//! ```
//!
//! Nothing here reads a clock, asks the system for entropy or knows a protocol.
#![forbid(unsafe_code)]

mod instant;
mod prng;
mod wheel;

pub use instant::Instant;
pub use prng::Prng;
pub use wheel::Wheel;
