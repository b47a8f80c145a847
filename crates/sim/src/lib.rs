//! Many hosts, links and switches on one thread in virtual time, running the protocol that ships.
//!
//! ```text
//!   application   load.rs: open-loop workloads, slowdown by size; echo.rs: RPCs that are checked
//!        |
//!   [ World: hosts ── network cards ── switches with priority queues ]   schedule.rs: what happens when
//!        |
//!   transports    host/: Homa as it ships, and others to compare it with
//!   search        check.rs: scenarios with faults from seeds, checkers, shrinking, traces
//! ```
//!
//! The same seed gives the same run, to the byte, on any machine: nothing here reads a clock, starts a thread
//! or opens a socket.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(non_snake_case))]

pub mod check;
pub mod checker;
pub mod cutoffs;
pub mod echo;
pub mod experiment;
pub mod fault;
pub mod host;
pub mod incast;
pub mod load;
pub mod measure;
pub mod packet;
pub mod port;
pub mod scenario;
pub mod schedule;
pub mod shrink;
pub mod time;
pub mod topology;
pub mod trace;
pub mod workload;
pub mod world;

pub use host::Host;
pub use time::Picos;
pub use topology::{HostId, Topology};
pub use world::{Application, World};
