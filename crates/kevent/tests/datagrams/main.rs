//! One body of tests for datagram sockets, run on both backends: what a queue promises, whatever
//! carries it. Everything else is in `../conformance`.

#![allow(non_snake_case)]

mod arrivals;
mod common;
mod life;
mod sends;
#[path = "../shared/mod.rs"]
mod shared;
mod waits;
