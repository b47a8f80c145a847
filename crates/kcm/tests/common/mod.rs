//! What the tests share.
#![allow(dead_code, reason = "each test binary uses some of it")]

pub mod bpf;
pub mod sim;
