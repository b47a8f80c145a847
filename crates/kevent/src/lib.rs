//! One completion queue for sockets, files, timers, signals, processes, messages and futures, on
//! io_uring or epoll.
//!
//! A [`Queue`] belongs to one thread. Typed operations ([`Recv`], [`SendFile`], [`Timer`] ...) go
//! in with a [`Token`], their results come out of [`Queue::wait`] as [`Event`]s carrying that token.
//! An operation owns what the kernel may touch until its last event: nothing is borrowed across a
//! call, so forgetting any value leaks at worst. Exactly one event with `last` set is delivered for
//! every accepted operation, also when it is cancelled, and a rejected operation is handed back.
//!
//! | want | operation | events |
//! |---|---|---|
//! | connections | [`Accept`], [`Connect`] | `Accepted`, `Connected` |
//! | bytes from a stream | [`Recv`] (blocks of the queue), [`RecvInto`] (a buffer of yours) | `Data`, `Eof`; `Read` |
//! | bytes to a stream | [`Send`], [`SendFile`] | `Sent`, `Released`; `FileSent` |
//! | datagrams | [`RecvMsg`], [`SendMsg`], [`Queue::send_now`] | `Dgrams`, `Error`; `TrainSent` |
//! | an orderly end | [`Shutdown`], [`Close`] | `Done`, `Closed` |
//! | files | [`OpenAt`], [`ReadAt`], [`WriteAt`], [`Fsync`] | `Opened`, `Read`, `Wrote`, `Done` |
//! | readiness | [`Poll`] | `Ready` |
//! | time | [`Timer`] | `Tick` |
//! | signals, children | [`Signal`], [`ChildExit`] | `Signal`, `Exited` |
//! | other threads | [`Handle::post`], [`Handle::wake`] | `Message`, `Woken` |
//! | anything awaited | [`Deliver`] | `Output` |
//!
//! Operations can be linked ([`Chain`]) and cancelled one by one or by source. Two backends drive
//! the same state machines: io_uring, and epoll with plain calls and a few threads for files.
//! [`Caps`] says which one runs and why; `PEYK_BACKEND=epoll|uring` forces one.
//!
//! For async code, [`local`] is an executor on top of a queue.
//!
#![cfg_attr(test, allow(non_snake_case))]

mod arrival;
mod backend;
mod buf;
mod call;
mod caps;
mod chain;
mod config;
mod core;
mod event;
mod handle;
mod io;
mod op;
mod pool;
mod queue;
mod slab;
mod source;
mod spin;
mod sys;
mod train;

#[doc(hidden)]
pub mod floor;
pub mod local;
pub mod udp;

pub use arrival::Datagrams;
pub use buf::{Data, IoBuf};
pub use caps::{Attempt, BackendKind, Caps, Kernel};
pub use chain::{CHAIN_MAX, Chain};
pub use config::{Backend, Config, Spin, Wait};
pub use core::Stats;
pub use event::{Event, Events, Operands, QUOTE, SendfileHow, SocketError, What, Why, ZeroCopy};
pub use handle::{Handle, Message, PostError};
pub use op::datagram::{RecvMsg, SendMsg};
pub use op::deliver::Deliver;
pub use op::file::{Fsync, OpenAt, OpenOptions, ReadAt, WriteAt};
pub use op::sendfile::SendFile;
pub use op::socket::{Accept, Close, CloseMode, Connect, Recv, RecvInto, Send, SendMode, Shutdown};
pub use op::timer::{Timer, When};
pub use op::watch::{ChildExit, Interest, Poll, PollMode, Signal};
pub use op::{AdoptError, Cancel, Mode, Op, OpId, Refusal, Rejected, SetupError, Step, Token, WaitError};
pub use pool::RecvBuf;
pub use queue::{Leaked, Queue};
pub use source::{Kind, Source};
pub use train::Train;
