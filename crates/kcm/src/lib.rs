//! KCM as a pure state machine: whole messages over ordinary byte streams, N sockets by M connections.
//!
//! ```text
//!   application threads       KCM sockets      mux          psocks        streams (TCP, TLS, any)
//!      recv, send  ◄────────►  kcm-0   ◄──┐            ┌──►  psock-0  ◄──► bytes
//!      recv, send  ◄────────►  kcm-1   ◄──┼── Mux ─────┼──►  psock-1  ◄──► bytes
//!                                         └─ steer,    └──►  ...
//!                                            reserve        Framer: where does the message end?
//! ```
//!
//! The model and its words are those of Linux's Kernel Connection Multiplexor: a message is sent whole over
//! whichever connection is free, and received whole by whichever socket is free. What a message is, a
//! [`framer::Framer`] says, or an eBPF program written for the kernel ([`bpf`]).
//!
//! There is no socket, no thread and no clock here: bytes and time come in through calls of [`Mux`], bytes,
//! events and deadlines come out.
//!
//! ```
//! use peyk_kcm::{AttachOptions, Config, Instant, Mux, framer::LengthField};
//!
//! let now = Instant::ZERO;
//! let (mut mux, socket) = Mux::new(Config::default(), now);
//! let psock = mux.attach(Box::new(LengthField::be(0, 2).plus(2)), AttachOptions::default()).unwrap();
//! mux.stream_bytes(psock, b"\0\x02hi\0\x03ho"[..].into(), now); // one message and a half
//! assert_eq!(&mux.recv_message(socket).unwrap().bytes[..], b"\0\x02hi");
//! mux.stream_bytes(psock, b"!"[..].into(), now);
//! assert_eq!(&mux.recv_message(socket).unwrap().bytes[..], b"\0\x03ho!");
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(non_snake_case))]

mod assemble;
pub mod bpf;
mod config;
pub mod error;
mod event;
pub mod framer;
pub mod kernel;
mod mux;
mod partial;
mod psock;
mod socket;
pub mod stats;
pub mod status;
mod table;

pub use config::{Config, Kind, Order, Reenter, Steer};
pub use event::{
    Cause, Closed, Event, Message, PsockId, Received, Run, SendFlags, SocketId, Target, Unattached, WantRead,
};
pub use mux::{AttachOptions, Mux};
pub use partial::Partial;
pub use peyk_sansio::Instant;
