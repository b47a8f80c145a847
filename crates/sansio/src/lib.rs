//! What a pure protocol may use besides bytes: time, timers, randomness.
