//! The protocol, rule by rule: each row of the state tables and each algorithm
//! as a test of its own, most of them against a hand-made peer.

#[path = "../common/mod.rs"]
mod common;

mod acks;
mod client;
mod close;
mod control;
mod data;
mod defects;
mod errors;
mod granting;
mod input;
mod limits;
mod memory;
mod once;
mod overload;
mod pacing;
mod priorities;
mod resends;
mod sending;
mod server;
mod timers;
