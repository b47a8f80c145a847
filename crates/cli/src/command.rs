//! The commands, one file each.

pub mod bench;
pub mod bench_kevent;
pub mod bench_shards;
pub mod decode;
pub mod demo;
pub mod kcm;
pub mod ping;
pub mod serve;
pub mod sim;
mod start;
pub mod stat;
