//! Bytes to values and back: Homa packets, their checksum and their text.
//!
//! No state lives here: no RPCs, no peers, no clocks, no sockets. Parsing is checked once, borrows
//! the payload, never allocates and never panics, whatever the bytes are.
//!
//! [`homa`] and [`checksum`] need no allocator and no `std`. [`pcapng`], behind the feature
//! `capture`, reads and writes capture files and needs both.
#![forbid(unsafe_code)]
#![cfg_attr(not(any(feature = "capture", test)), no_std)]

pub mod checksum;
pub mod homa;
#[cfg(feature = "capture")]
pub mod pcapng;
