//! The commands, one file each.

pub mod bench;
pub mod decode;
pub mod demo;
pub mod kcm;
pub mod ping;
pub mod serve;
mod start;
