//! Whole messages over ordinary TCP: N sockets by M connections, as Linux's Kernel Connection Multiplexor
//! has them, in user space.
//!
//! ```text
//!   threads       KCM sockets     mux       connections
//!   recv send ◄──► Socket  ◄──┐         ┌──► TCP, TLS, any stream
//!   recv send ◄──► Socket  ◄──┼── Mux ──┼──► ...
//!                             └─────────┘    Framer: where a message ends
//! ```
//!
//! A message is sent whole over whichever connection is free, and received whole by whichever socket is
//! free. What a message is, a [framer](framer::Framer) says: forty protocols are [ready](framer::by_name), and
//! programs written for the kernel's KCM run unmodified ([`bpf`]).
//!
//! ```
//! use peyk::kcm::{Config, Mux, Target, framer::LengthField};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # peyk::block_on(async {
//! let framer = || Box::new(LengthField::be(0, 4).plus(4)); // four bytes of length, then so many
//! let (server, inbox) = Mux::open(Config::default())?;
//! let here = server.listen("127.0.0.1:0".parse()?, framer(), false)?;
//!
//! let (client, socket) = Mux::open(Config::default())?;
//! client.connect(here.local_addr(), framer())?;
//! socket.send(&b"\0\0\0\x02hi"[..]).await?;
//!
//! let message = inbox.recv().await?;
//! inbox.send_to(message.bytes().clone(), Target::Psock(message.from())).await?;
//! assert_eq!(&socket.recv().await?[..], b"\0\0\0\x02hi");
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! A server with a pool of workers, which hands messages over only when that pays, is [`Mux::serve`]:
//!
//! ```
//! use peyk::kcm::{Config, Mux, ServeOptions, Steer, framer::LengthField};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mux, socket) = Mux::open(Config { steer: Steer::Pull, ..Config::default() })?;
//! mux.listen("127.0.0.1:0".parse()?, Box::new(LengthField::be(0, 4).plus(4)), false)?;
//! let workers = mux.serve(&socket, ServeOptions::default(), |message, replies| {
//!     replies.reply(message.bytes); // goes to the connection it came from
//! })?;
//! # drop(workers);
//! # Ok(())
//! # }
//! ```
//!
//! Protocols that answer in the order of their requests are refused unless the mux keeps an order:
//! [`Order::Connection`] handles the messages of a connection one after the other, [`Order::Replies`] handles
//! them in any order and sends the replies in that of the requests.
//!
//! A mux need not lead to one place. [`Message::from`] is the token of a message's connection, and a reply by it
//! ([`Target::Psock`]) finds the way back; [`Target::Addr`] takes any connection to an address, which is made on
//! demand ([`Mux::connect_on_demand`]). Programs and framers may say more than the length: equal keys (for programs
//! the first word of their context, `cb[0]`) go to the same socket with [`Order::Key`], and any message carries what
//! was said of it ([`Message::meta`]). A file, or a range of one, is sent as a message by [`Socket::send_from`]; what
//! was received is sent on without a copy:
//!
//! ```
//! use peyk::kcm::{Config, Mux, Order, SendFlags, Target, framer::LengthField};
//! use std::io::Read;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # peyk::block_on(async {
//! let framer = || Box::new(LengthField::be(0, 2).plus(2).key(2, 1, 0xff)); // a key after the length
//! let (server, inbox) = Mux::open(Config { order: Order::Key, ..Config::default() })?;
//! let here = server.listen("127.0.0.1:0".parse()?, framer(), false)?.local_addr();
//!
//! let (client, socket) = Mux::open(Config::default())?;
//! client.connect_on_demand(framer());
//! socket.send_to(&b"\0\x02\x07a"[..], Target::Addr(here)).await?;
//! let file = std::fs::File::open(std::env::current_exe()?)?;
//! socket.send_from(&mut (&b"\0\x20\x07"[..]).chain(file.take(31)), SendFlags {
//!     end: true,
//!     to: Target::Addr(here),
//!     ..SendFlags::default()
//! })?;
//!
//! let (first, second) = (inbox.recv().await?, inbox.recv().await?);
//! assert_eq!((first.meta().key, second.meta().key), (Some(7), Some(7)));
//! assert_eq!(second.len(), 2 + 32);
//! inbox.reply(&second, first.bytes().clone()).await?; // the same memory
//! assert_eq!(&socket.recv().await?[..], b"\0\x02\x07a");
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! Differences to the kernel's, all on purpose: programs see each message from its first byte; errors come
//! with their connection and their cause ([`Mux::next_event`]); the rest of a sequenced packet is not lost;
//! everything that can grow has a limit ([`Config`]).

pub use peyk_stack::kcm::*;
