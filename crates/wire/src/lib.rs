//! Bytes to values and back: Homa packets, their checksum and their text.
//!
//! No state lives here: no RPCs, no peers, no clocks, no sockets. Parsing is checked once, borrows
//! the payload, never allocates and never panics, whatever the bytes are.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod homa;
