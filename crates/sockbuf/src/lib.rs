//! Memory and rings between application, protocol and driver.
//!
//! ```text
//!   Pool ──alloc──> MessageBuf ──freeze──> Message ──last drop, any thread──> return list ──> Pool
//!   (owner's thread, plain fields)         (shared, immutable, counted)       (lock-free)
//!
//!   Payload   an outgoing message: bytes inline, or a chain of counted slices
//!   stream    bytes, one writer to one reader: what TCP keeps for each direction of a socket
//!   record    messages or datagrams with a budget of bytes, one to one; ready: which of many have some
//!   ring      many-to-many queue      spsc      one-to-one queue      oneshot   one value, one future
//!   snapshot  numbers that one thread publishes and any may read, all of one moment
//!   doorbell  wake a thread only if it sleeps   waiters   wake a task only if one waits
//! ```
//!
//! No system call is made here and no protocol is known here. Everything that is shared between threads is
//! lock-free, except the list of waiting tasks, whose lock is never taken while nobody waits.
//!
//! All atomics come from the `sync` module, so that `--cfg loom` puts every structure under the model
//! checker (see the README).

pub mod doorbell;
mod message;
pub mod oneshot;
mod payload;
mod pool;
pub mod ready;
pub mod record;
mod region;
pub mod ring;
mod sleep;
pub mod snapshot;
pub mod spsc;
pub mod stream;
mod sync;
#[cfg(loom)]
pub use sync::mutant;
pub mod waiters;

pub use bytes::Bytes;
pub use message::{Chunks, Fragment, Message, MessageBuf};
pub use payload::{Payload, PayloadChunks};
pub use pool::{NewPoolError, Pool};

/// Size of a bpage, in bytes: what a pool hands out and what bounds a chunk of a [`Message`].
pub const PAGE: usize = 65536;
