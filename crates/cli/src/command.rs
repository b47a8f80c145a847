//! The commands, one file each.

pub mod bench;
pub mod decode;
pub mod demo;
