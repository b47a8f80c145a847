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
//! and drains what comes out: packets by `poll_transmit`, or, to write them where they are to lie, by
//! `poll_packet`. The same seed and the same calls give the same packets.
//!
//! ```
//! use peyk_homa::{Config, Endpoint, Event, Path, PeerAddr, RequestOptions, SocketOptions};
//! use peyk_sansio::Instant;
//! use peyk_sockbuf::{Payload, Pool};
//!
//! let now = Instant::from_millis(1);
//! let path = |host: &str| Path { remote: host.parse().unwrap(), local: 0 };
//! let (client_at, server_at) = (path("10.0.0.1:14600"), path("10.0.0.2:14600"));
//! let mut client = Endpoint::new(Config::default(), 1, Pool::new(16), now)?;
//! let mut server = Endpoint::new(Config::default(), 2, Pool::new(16), now)?;
//! server.open_socket(Some(99), SocketOptions::default())?;
//! let socket = client.open_socket(None, SocketOptions::default())?;
//!
//! let to = PeerAddr { path: server_at, port: 99 };
//! client.send_request(now, socket, to, Payload::from("ping"), RequestOptions::default())?;
//! carry(&mut client, &mut server, &client_at, now);
//! let Some(Event::Request { rpc, message, .. }) = server.poll_event() else { panic!("no request") };
//! assert_eq!(message.to_vec(), b"ping");
//! server.reply(now, rpc, Payload::from("pong"))?;
//! carry(&mut server, &mut client, &server_at, now);
//! let Some(Event::Response { message, .. }) = client.poll_event() else { panic!("no response") };
//! assert_eq!(message.to_vec(), b"pong");
//!
//! /// The network: gives the packets of one endpoint, which has this path, to another.
//! fn carry(from: &mut Endpoint, to: &mut Endpoint, path: &Path, now: Instant) {
//!     while let Some(packet) = from.poll_transmit(now) {
//!         let mut bytes = Vec::new();
//!         packet.write_to(&mut bytes);
//!         to.handle_packet(now, path, &bytes);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What other hosts send is never an error to the application: it is acted upon, or dropped and
//! counted in [`Stats`]. Every queue and table has a limit in [`Config`].

#![forbid(unsafe_code)]

mod ack;
mod budget;
pub mod completed;
mod config;
mod endpoint;
mod error;
mod event;
pub mod grant;
mod incoming;
mod index;
mod mutant;
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
pub mod steer;
mod transmit;
mod waiters;

pub use budget::{Budget, Share};
pub use completed::Completed;
pub use config::{Config, Pacing, RequestOptions, SocketOptions, TICK};
pub use endpoint::{Endpoint, StrayAck};
pub use error::{ConfigError, OpenError, Reason, ReplyError, RpcError, SendError, Unreachable};
pub use event::{Event, RpcId, ServerRpc, SocketId};
pub use grant::GrantBucket;
#[cfg(feature = "mutants")]
pub use mutant::Mutant;
pub use stats::{PACKET_TYPES, Stats, TYPE_NAMES, type_index};
pub use transmit::{Disposition, MAX_HEADER_LEN, PacketHeader, PacketOut, Path, PeerAddr, Transmit};
