//! Shards and drivers: the one place where protocols meet I/O.
//!
//! ```text
//!   threads of the application            the shard's thread
//!  ┌──────────────────────────┐   ring   ┌──────────────────────────────┐
//!  │ Socket: call recv reply  ├─────────►│ App      Service (in place)  │
//!  │                          │◄─────────┤        ▲ events    │ calls   │
//!  └──────────────────────────┘  cells,  │        │           ▼         │
//!                                 rings  │   homa::Endpoint             │
//!                                        │        ▲ packets   │         │
//!                                        │        │           ▼         │
//!                                        │   Driver: udp, memory, ...   │
//!                                        └──────────────────────────────┘
//! ```
//!
//! **Invariant**: everything in the shard's box is touched by its thread only. This crate knows
//! no async runtime and no simulator.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(non_snake_case))]

mod addr;
mod app;
mod clock;
mod config;
mod core;
pub mod driver;
mod error;
mod export;
pub mod kcm;
mod mesh;
mod service;
mod shard;
mod socket;
mod spread;
mod stack;
mod stats;
mod sys;
pub mod tasks;
mod wait;

pub use addr::{Addr, AddrError, DEFAULT_UDP_PORT, ToAddr};
pub use app::{CallOptions, Outcome, Response};
pub use config::{Backend, Config, Poll};
pub use driver::fault::Faults;
pub use error::{BindError, Error, StartError};
pub use export::Exporting;
#[doc(hidden)]
pub use mesh::measure_hand_over;
pub use peyk_sansio::Instant;
pub use service::{Context, Service};
pub use socket::{Call, Calls, Request, Responder, Socket};
pub use stack::{Serving, Stack};
pub use stats::{AppUsage, MeshStats, StackStats, Usage};
pub use wait::{block_on, block_on_until};
