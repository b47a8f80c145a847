//! One body of tests, run on both backends: what a queue promises, whatever carries it. Datagrams
//! have a file of their own, `../datagrams`, and so has the long random test, `../stress.rs`.
//!
//! The numbers are those of the list the crate was built to. Cases without a test here:
//!
//! - t08, t10, t19, t73, t74 need the inside of the ring: `src/backend/uring/tests.rs`.
//! - t11, t78: `../stress.rs`.
//! - t41, t42, t43: `../datagrams`.
//! - t64: `crates/sockbuf/tests/loom.rs` has the model, `messages.rs` here the hunt.
//!
//! Bodies run on both backends in four timings (`../shared`), or on both once where a case is about
//! setting up or has an order of events of its own.

#![allow(non_snake_case)]

mod common;
mod device;
mod faults;
mod files;
mod life;
mod messages;
mod peer;
mod setup;
#[path = "../shared/mod.rs"]
mod shared;
mod sockets;
mod timers;
mod watch;
mod zero_copy;
