//! The commands, one file each.

pub mod bench;
pub mod decode;
pub mod demo;
pub mod ping;
pub mod serve;
pub mod sim;
mod start;
