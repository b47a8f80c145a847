//! The conformance list of KCM (part 3 of its specification), by number: the pure machine on imaginary
//! streams. Cases that need descriptors, threads or the network are in `crates/peyk/tests/kcm`.
#![allow(non_snake_case)]

#[path = "../common/mod.rs"]
mod common;

mod assembly;
mod attach;
mod chaos;
mod counters;
mod create;
mod model;
mod receive;
mod transmit;
