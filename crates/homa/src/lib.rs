//! Homa as a pure state machine: packets, time and randomness in; packets, events and deadlines out.
//!
//! ```text
//!   application   send_request  reply  reject  abort            poll_event
//!                        |                                          ^
//!                        v                                          |
//!                   [ Endpoint: sockets, peers, RPCs, grants, timers ]
//!                        |                                          ^
//!                        v                                          |
//!   driver          poll_transmit        poll_timeout      handle_packet  handle_timeout
//! ```
//!
//! An [`Endpoint`] speaks the wire format of HomaModule and the rules of the Homa draft. It reads
//! no clock, opens no socket, starts no thread: whoever drives it supplies packets and the time
//! and drains what comes out. The same seed and the same calls give the same packets.
//!
//! What other hosts send is never an error to the application: it is acted upon, or dropped and
//! counted in [`Stats`]. Every queue and table has a limit in [`Config`].

#![forbid(unsafe_code)]

mod ack;
pub mod completed;
mod config;
mod endpoint;
mod error;
mod event;
pub mod grant;
mod incoming;
mod outgoing;
pub mod pacer;
mod peer;
pub mod priority;
mod rate;
mod resend;
mod rpc;
mod socket;
pub mod srpt;
mod stats;
mod transmit;

pub use completed::Completed;
pub use config::{Config, Pacing, RequestOptions, SocketOptions, TICK};
pub use endpoint::Endpoint;
pub use error::{ConfigError, OpenError, Reason, ReplyError, RpcError, SendError, Unreachable};
pub use event::{Event, RpcId, ServerRpc, SocketId};
pub use stats::{PACKET_TYPES, Stats, TYPE_NAMES, type_index};
pub use transmit::{Disposition, MAX_HEADER_LEN, PacketHeader, Path, PeerAddr, Transmit};
