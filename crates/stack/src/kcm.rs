//! KCM over real streams: the pure mux of `peyk-kcm`, driven by the threads that use it.
//!
//! ```text
//!   worker threads (serve)  ─┐                        ┌─ read set: edge-triggered, shared; whoever is
//!   or the keeper thread     ├─ wait ── readiness ────┤  free reads whichever connection is ready
//!                            ┘                        └─ write set: the keeper's
//!   a connection is read by one thread at a time (a baton, not a lock), written by one at a time (the mux
//!   hands out what to write once); the mux itself is entered for microseconds, once per pass
//! ```
//!
//! A KCM mux is shared by its nature: N sockets on N threads take from M connections. What can be owned is
//! owned: the bytes of a pass by its reader, a message by whoever took it. The mux's state is behind one
//! mutex, which no thread holds across a system call.

mod attach;
mod conn;
mod engine;
mod keeper;
mod relay;
mod serve;
mod socket;
mod tls;

pub use attach::{AttachError, ListenHandle, UnattachError};
pub use conn::{Stream, TcpConn};
pub use engine::Mux;
pub use relay::{Relay, RelayOptions};
pub use serve::{Estimate, Incoming, Replies, ServeOptions, Workers};
pub use socket::{Message, RecvError, RecvFuture, SendError, Socket};
pub use tls::TlsConn;

pub use peyk_kcm::framer;
pub use peyk_kcm::stats;
pub use peyk_kcm::status;
pub use peyk_kcm::{
    Cause, Closed, Config, Event, Kind, Order, PsockId, Reenter, SendFlags, Steer, Target, Unattached, bpf,
};
