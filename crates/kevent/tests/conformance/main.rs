//! One body of tests, run on both backends: what a queue promises, whatever carries it. Datagrams
//! have a file of their own, `../datagrams.rs`, and so has the long random test, `../stress.rs`.
//!
//! The numbers are those of the list the crate was built to. Cases without a test here:
//!
//! - t08, t19, t73, t74 need the inside of the ring: `src/backend/uring/tests.rs`.
//! - t10 asks for tables by kernel version: there are none, each feature is found by trying it.
//! - t11, t78: `../stress.rs`.
//! - t37, closing a number behind the queue's back: epoll forgets such a descriptor without a word,
//!   so the operation stays until it is cancelled. In Rust this takes `unsafe` code.
//! - t64: `crates/sockbuf/tests/loom.rs` has the model, `messages.rs` here the hunt.

#![allow(non_snake_case)]

mod common;
mod faults;
mod files;
mod life;
mod messages;
mod setup;
mod sockets;
mod timers;
mod watch;
mod zero_copy;
