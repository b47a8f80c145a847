//! The commands, one file each.

pub mod bench;
pub mod bench_kevent;
pub mod bench_shards;
pub mod cluster;
pub mod decode;
pub mod demo;
mod find_rate;
pub mod kcm;
pub mod ping;
pub mod serve;
pub mod sim;
mod start;
pub mod stat;
pub mod testbed;
