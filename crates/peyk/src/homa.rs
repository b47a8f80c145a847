//! Homa sockets: requests and responses, as futures for any runtime.
//!
//! # Client
//!
//! [`Socket::call`] is the usual way: it hands the request over at once and gives a future of the
//! response. Dropping the future gives the RPC up, and the server is told.
//!
//! ```
//! # use peyk::homa::{CallOptions, Reason, Socket};
//! # use peyk::{Error, RpcError};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let stack = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
//! # let echo = stack.serve_fn("127.0.0.1:4000", |request| request)?;
//! # let server = echo.local_addr().unwrap();
//! # peyk::block_on(async {
//! let client = Socket::open(&stack)?;
//! let response = client.call(server, "one").await?;
//! assert_eq!(response.message, b"one");
//! assert_eq!(response.from, server);
//!
//! // Many at once; the results come in the order of the requests.
//! let responses = client.call_many((0..100).map(|n| (server, vec![n; 1000]))).await;
//! assert_eq!(responses[42].as_ref().unwrap().message, vec![42; 1000]);
//!
//! // Nobody has port 9.
//! let nobody = peyk::homa::Addr { port: 9, ..server };
//! assert_eq!(client.call(nobody, "?").await.unwrap_err(), Error::Rpc(RpcError::NoSocket));
//!
//! // A time limit; without one a call waits as long as the server shows signs of life.
//! let options = CallOptions { timeout: Some(std::time::Duration::from_secs(5)) };
//! client.call_with(server, "soon", options).await?;
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! Without a future for each request: [`Socket::send`] and [`Socket::recv_response`], which are
//! matched by a cookie.
//!
//! ```
//! # use peyk::homa::Socket;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let stack = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
//! # let echo = stack.serve_fn("127.0.0.1:4000", |request| request)?;
//! # let server = echo.local_addr().unwrap();
//! # peyk::block_on(async {
//! let client = Socket::open(&stack)?;
//! client.send_many((0..10).map(|n| (server, format!("number {n}"), n))).await?;
//! let mut outcomes = Vec::new();
//! while outcomes.len() < 10 {
//!     client.recv_response_batch(&mut outcomes, 10).await?; // takes what is there, at least one
//! }
//! for outcome in outcomes {
//!     assert_eq!(outcome.result?.message, format!("number {}", outcome.cookie).into_bytes());
//! }
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # Server
//!
//! A [`Request`] is a duty: it is answered, rejected, or dropped, and in each case the client is
//! told at once. Any number of tasks and threads may receive from clones of one socket.
//!
//! ```
//! # use peyk::homa::{Reason, Socket};
//! # use peyk::{Error, RpcError};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let stack = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
//! # peyk::block_on(async {
//! let server = Socket::bind(&stack, "[::1]:4000")?;
//! # let client = Socket::open(&stack)?;
//! # let calls = client.call_many((0..3).map(|_| (server.local_addr().unwrap(), "hello")));
//! let request = server.recv().await?;
//! println!("{} bytes from {}", request.message().len(), request.from());
//! request.reply("welcome").await?;
//!
//! server.recv().await?.reject(Reason::Overloaded);
//!
//! // The message alone, without a copy, and the duty apart from it.
//! let (message, responder) = server.recv().await?.into_parts();
//! responder.reply(message).await?;
//! # let results = calls.await;
//! # let texts: Vec<_> = results.iter().flatten().map(|r| r.message.to_vec()).collect();
//! # assert_eq!(texts, [&b"welcome"[..], b"hello"]);
//! # assert_eq!(results.iter().flat_map(|r| r.as_ref().err()).collect::<Vec<_>>(),
//! #     [&Error::Rpc(RpcError::Overloaded)]);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # Messages
//!
//! What is sent is a [`Payload`]: made of a `Vec<u8>`, a `String`, `Bytes` or a [`Message`]
//! without a copy. What is received is a [`Message`]: memory of the stack, lent until the last
//! clone is dropped. It is one slice up to 64 KiB and a few chunks beyond. Who keeps as many as
//! [`Config::receive_memory`](crate::Config::receive_memory) holds, or the part of it that a shard
//! has, gets no more; a program that waits for further responses all the same, with `call_many`
//! perhaps, gets [`RpcError::NoMemory`] for them after ten seconds.
//!
//! # Clean ends
//!
//! A socket closes when its last clone and the last request taken from it are dropped, or by
//! [`Socket::close`]. Nobody is left waiting: calls under way fail with
//! [`Error::Closed`](crate::Error::Closed), clients of unanswered requests with
//! [`RpcError::PeerClosed`]. A response that was handed over but not
//! yet wholly sent counts as unanswered, so a server that means to finish closes its socket after
//! its clients have their responses.

/// An address is written `host:port`, or `host:port/udp-port` if the host's packets are carried
/// over another UDP port than 14600.
///
/// ```
/// use peyk::homa::Addr;
///
/// let addr: Addr = "10.0.0.2:4000".parse()?;
/// assert_eq!((addr.port, addr.udp_port), (4000, 14600));
/// assert_eq!(addr.with_udp_port(15000).to_string(), "10.0.0.2:4000/15000");
/// assert!(Addr::resolve("localhost:4000")?.ip.is_loopback()); // names are looked up here only
/// # Ok::<(), peyk::homa::AddrError>(())
/// ```
pub use peyk_stack::Addr;

/// The RPC can be given up at any time.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let stack = peyk::Stack::start(peyk::Config::default().with_udp_port(0))?;
/// # let server = peyk::homa::Socket::bind(&stack, "127.0.0.1:4000")?;
/// # let addr = server.local_addr().unwrap();
/// let client = peyk::homa::Socket::open(&stack)?;
/// let call = client.call(addr, "on second thought");
/// call.abort(); // as does dropping it
/// # Ok(())
/// # }
/// ```
pub use peyk_stack::Call;

pub use peyk_homa::{Config, Event, PeerAddr, Reason, RequestOptions, RpcError, RpcId, ServerRpc, SocketId};
pub use peyk_homa::{ReplyError, SendError, Stats};
pub use peyk_sockbuf::{Bytes, Message, Payload};
pub use peyk_stack::{AddrError, CallOptions, Calls, Outcome, Request, Responder, Response, Socket, ToAddr};
