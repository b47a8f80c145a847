//! A network stack in user space whose unit is the message.
//!
//! ```text
//!             your service (async on any runtime, blocking, or inline on a shard)
//!    ┌────────────────────────────────┬──────────────────────────────────────────────┐
//!    │ homa::Socket, blocking::Socket │ Service, serve_fn (on the shard itself)      │
//!    │ call send recv reply           │ on_event on_turn                             │
//!    └───────────────┬────────────────┴──────────────────────┬───────────────────────┘
//!           rings, completion cells, counted buffers         │ plain calls
//!    ┌───────────────▼───────────────────────────────────────▼───────────────────────┐
//!    │ shard: one thread; owns its protocol state, sockets, timers, buffers          │
//!    └───────────────┬───────────────────────────────────────────────────────────────┘
//!    │ UDP sockets (IPv4, IPv6; trains of packets) on io_uring or epoll              │
//!    └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A request goes out, a response comes back: that is a remote procedure call, and the protocol,
//! Homa, knows where each begins and ends. So short ones need not wait behind long ones, and
//! nothing is connected, kept alive or framed.
//!
//! ```
//! use peyk::homa::Socket;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # peyk::block_on(async {
//! let config = peyk::Config::default().with_udp_port(0); // any free UDP port, for this example
//! let stack = peyk::Stack::start(config)?;
//! let server = Socket::bind(&stack, "127.0.0.1:4000")?;
//! let client = Socket::open(&stack)?;
//!
//! let call = client.call(server.local_addr().unwrap(), "ping"); // is on its way already
//! let request = server.recv().await?;
//! assert_eq!(request.message(), b"ping");
//! request.reply("pong").await?;
//! assert_eq!(call.await?.message, b"pong");
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # Where things are
//!
//! - [`Stack`] is a running stack: one thread, which you start with a [`Config`]. Keep it: what
//!   belongs to it ends with it.
//! - [`homa`] has the sockets. Their futures need no particular runtime: tokio, smol, or
//!   [`block_on`].
//! - [`blocking`] has the same calls without async.
//! - [`Service`] and [`Stack::serve_fn`] run your code on the stack's own thread: the lowest
//!   latency, for handlers that take microseconds.
//! - [`kcm`] sends and receives whole messages over ordinary TCP, N sockets by M connections.
//! - [`kevent`] is the completion queue below, for those who want it by itself.
//!
//! # Errors
//!
//! A call fails with [`Error`]. [`Error::Rpc`] says what became of the RPC ([`RpcError`]): its
//! server may have executed it or not, except where the reason says otherwise. All errors convert
//! to [`std::io::Error`] of a fitting kind. What other hosts send is never an error: it is dropped
//! and counted, see [`Stack::stats`].

#![forbid(unsafe_code)]

pub mod blocking;
pub mod homa;
pub mod kcm;

/// One completion queue for sockets, files, timers, signals and messages, on io_uring or epoll.
///
/// A thread submits operations and takes their results from one wait, whatever they are about. What
/// a shard of a [`Stack`] brings completes there as well: any future does, and so does
/// what a [`Service`] posts.
///
/// ```
/// use peyk::kevent::{Config, Deliver, Events, IoBuf, OpenAt, OpenOptions, Queue, ReadAt, Token, Wait, What};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = peyk::Config::default().with_udp_port(0);
/// let stack = peyk::Stack::start(config)?;
/// let server = peyk::homa::Socket::bind(&stack, "127.0.0.1:4000")?;
/// let client = peyk::homa::Socket::open(&stack)?;
/// let to = server.local_addr().unwrap();
///
/// let mut queue = Queue::new(Config::default())?;
/// queue.submit(Token(1), Deliver(async move { server.recv().await })).map_err(|r| r.why)?;
/// queue.submit(Token(2), OpenAt { path: "/etc/hostname".into(), options: OpenOptions::default() })?;
/// let call = client.call(to, "ping");
///
/// let (mut request, mut content) = (None, None);
/// let mut events = Events::with_capacity(8);
/// while request.is_none() || content.is_none() {
///     queue.wait(&mut events, Wait::forever())?;
///     for event in events.drain() {
///         match event.what {
///             What::Output(output) => {
///                 request = output.downcast::<Result<peyk::homa::Request, peyk::Error>>().ok();
///             }
///             What::Opened(source) => {
///                 let read = ReadAt { source, buf: IoBuf::from(vec![0; 256]), offset: 0 };
///                 queue.submit(Token(3), read)?;
///             }
///             What::Read { bytes, buf } => content = Some(buf[..bytes].to_vec()),
///             other => panic!("{other:?}"),
///         }
///     }
/// }
/// assert_eq!((*request.unwrap())?.message(), b"ping");
/// # drop(call);
/// # Ok(())
/// # }
/// ```
///
/// For async code there is an executor, [`kevent::local`]; examples are
/// `file_server`, `tcp_echo` and `copy`.
pub mod kevent {
    pub use peyk_kevent::*;
}

/// A stack is started once and shared by all sockets of a program.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stack = peyk::Stack::start(peyk::Config::default())?;
/// println!("{}", stack.caps()); // which kernel interfaces it found, and why
/// assert!(stack.stats()?.is_idle());
/// stack.stop();
/// assert!(stack.stats().is_err());
/// # Ok(())
/// # }
/// ```
///
/// A function on the shard itself, without any thread of yours:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = peyk::Config::default().with_udp_port(0);
/// let stack = peyk::Stack::start(config)?;
/// let shout = stack.serve_fn("127.0.0.1:4001", |request| request.to_vec().to_ascii_uppercase())?;
///
/// let client = peyk::blocking::Socket::open(&stack)?;
/// let response = client.call(shout.local_addr().unwrap(), "hello")?;
/// assert_eq!(response.message, b"HELLO");
/// # Ok(())
/// # }
/// ```
pub use peyk_stack::Stack;

/// All limits and choices have defaults; those of the protocol are in [`Config::homa`].
///
/// ```
/// use std::time::Duration;
///
/// let mut config = peyk::Config::default()
///     .with_backend(peyk::Backend::Epoll)
///     .with_poll(peyk::Poll::Adaptive { max: Duration::from_micros(20) })
///     .with_receive_memory(16 << 20);
/// config.homa.max_message = 4_000_000; // HomaModule's limit is 1,000,000
/// config.parked_calls = 100;
/// ```
pub use peyk_stack::Config;

/// Packets lost, doubled, overtaken or spoilt on purpose, to see how a program takes it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = peyk::Config::default().with_faults(peyk::Faults::loss(0.01));
/// # let config = config.with_udp_port(0);
/// let stack = peyk::Stack::start(config)?;
/// let echo = stack.serve_fn("127.0.0.1:4001", |request| request)?;
/// let client = peyk::blocking::Socket::open(&stack)?;
/// let message = vec![7; 100_000];
/// assert_eq!(client.call(echo.local_addr().unwrap(), message.clone())?.message, message);
/// # Ok(())
/// # }
/// ```
pub use peyk_stack::Faults;

/// Waits for a future on a thread without a runtime.
///
/// ```
/// assert_eq!(peyk::block_on(async { 6 * 7 }), 42);
/// ```
pub use peyk_stack::block_on;

/// An application on the shard may be client and server at once.
///
/// ```
/// use peyk::{Context, homa::{Addr, Event, Payload, PeerAddr}};
///
/// /// Answers each request with the backend's answer to it.
/// struct Relay {
///     outside: peyk::homa::SocketId,
///     backend: PeerAddr,
///     waiting: std::collections::HashMap<u64, peyk::homa::ServerRpc>,
///     next: u64,
/// }
///
/// impl peyk::Service for Relay {
///     fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
///         match event {
///             Event::Request { rpc, message, .. } => {
///                 let options = peyk::homa::RequestOptions { cookie: self.next, ..Default::default() };
///                 if cx.send_request(self.outside, self.backend, message.into(), options).is_ok() {
///                     self.waiting.insert(self.next, rpc);
///                     self.next += 1;
///                 } else {
///                     cx.reject(rpc, peyk::homa::Reason::Overloaded);
///                 }
///             }
///             Event::Response { cookie, message, .. } => {
///                 if let Some(rpc) = self.waiting.remove(&cookie) {
///                     let _ = cx.reply(rpc, message.into());
///                 }
///             }
///             Event::Failed { cookie, .. } => {
///                 if let Some(rpc) = self.waiting.remove(&cookie) {
///                     cx.reject(rpc, peyk::homa::Reason::Aborted);
///                 }
///             }
///             _ => {}
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = peyk::Config::default().with_udp_port(0);
/// let stack = peyk::Stack::start(config)?;
/// let backend = stack.serve_fn("127.0.0.1:4001", |_| "from the backend")?;
/// let to = backend.local_addr().unwrap();
///
/// let (tell, told) = std::sync::mpsc::channel();
/// let relay = stack.serve(move |cx| {
///     let (_, addr) = cx.bind("127.0.0.1:4000".parse()?)?;
///     let outside = cx.open()?;
///     let backend = cx.peer(outside, to).expect("loopback is there");
///     let _ = tell.send(addr);
///     Ok(Box::new(Relay { outside, backend, waiting: Default::default(), next: 0 }))
/// })?;
///
/// let client = peyk::blocking::Socket::open(&stack)?;
/// assert_eq!(client.call(told.recv()?, "hello")?.message, b"from the backend");
/// relay.stop(); // or when it is dropped
/// # Ok(())
/// # }
/// ```
pub use peyk_stack::Service;

/// Tasks on the shard: async code where the protocol runs.
pub use peyk_stack::tasks;

pub use peyk_homa::RpcError;
#[doc(hidden)]
pub use peyk_sockbuf::stream;
/// A moment in the time of a stack, as a [`Service`] sees it.
pub use peyk_stack::Instant;
pub use peyk_stack::driver::Caps;
pub use peyk_stack::{AppUsage, Exporting, MeshStats, Usage};
pub use peyk_stack::{Backend, BindError, Context, Error, Poll, Serving, StackStats as Stats, StartError};
#[doc(hidden)]
pub use peyk_stack::{driver::pin_to_cpu, measure_hand_over};
