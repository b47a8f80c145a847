//! One completion queue for sockets, wake-ups and deadlines, on io_uring or epoll.
//!
//! A [`Queue`] belongs to one thread. Typed operations ([`RecvMsg`], [`SendMsg`]) go in with a
//! [`Token`], their results come out of [`Queue::wait`] as [`Event`]s carrying that token. An
//! operation owns what the kernel may touch until its last event: nothing is borrowed across a
//! call, so forgetting any value leaks at worst. Exactly one event with `last` set is delivered for
//! every accepted operation, and a rejected operation is handed back.
//!
//! Two backends implement the same operations: io_uring (streams of datagrams received by
//! multishot `recvmsg` into a ring of provided blocks) and epoll (readiness and plain calls).
//! [`Caps`] says which one runs and why; `PEYK_BACKEND=epoll|uring` forces one.
//!
//! It is not a runtime: no tasks, no protocol, no timers but the deadline of a wait.

#![cfg_attr(test, allow(non_snake_case))]

mod caps;
mod config;
mod core;
mod epoll;
mod event;
mod handle;
mod op;
mod pool;
mod queue;
mod slab;
mod spin;
mod sys;
mod train;
mod uring;

pub mod udp;

pub use caps::{Attempt, BackendKind, Caps, Kernel};
pub use config::{Backend, Config, Spin, Wait};
pub use core::Stats;
pub use event::{Datagrams, Event, Events, SocketError, What, Why};
pub use handle::Handle;
pub use op::{
    AdoptError, Cancel, Op, OpId, RecvMsg, Refusal, Rejected, SendMsg, SetupError, Source, Token, WaitError,
};
pub use pool::RecvBuf;
pub use queue::Queue;
pub use train::Train;
