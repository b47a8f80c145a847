//! One endpoint and nobody else: a test plays the other host with hand-made
//! packets and sees every packet the endpoint sends.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use peyk_homa::{
    Config, Disposition, Endpoint, Event, Path, PeerAddr, RequestOptions, RpcId, ServerRpc, SocketId,
    SocketOptions,
};
use peyk_sansio::Instant;
use peyk_sockbuf::{Payload, Pool};

use super::packets::{CLIENT_PORT, From, PORT, Sent};
use super::trace::Trace;
use super::world::describe;

/// Id of the hand-made client's RPC in most tests.
pub const ID: u64 = 1_000_000_000_000;

/// See the module documentation.
pub struct Lab {
    pub now: Instant,
    pub endpoint: Endpoint,
    /// Serves `PORT`.
    pub server: SocketId,
    /// Has an automatic port.
    pub client: SocketId,
    pub events: Vec<Event>,
    pub trace: Trace,
    own: SocketAddr,
    is_verbose: bool,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(Config::default(), 64)
    }

    pub fn with(config: Config, pages: u32) -> Lab {
        let now = Instant::from_nanos(10_000_000_000);
        let mut endpoint = Endpoint::new(config, 77, Pool::new(pages), now).expect("valid settings");
        let server = endpoint.open_socket(Some(PORT), SocketOptions::default()).expect("free port");
        let client = endpoint.open_socket(None, SocketOptions::default()).expect("free port");
        let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 14600);
        let trace = Trace::default();
        Lab { now, endpoint, server, client, events: Vec::new(), trace, own, is_verbose: true }
    }

    /// The way to hand-made host `n`: raw IP carriage, so that segments are 1424 bytes.
    pub fn path(n: u8) -> Path {
        Path { remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100 + n)), 0), local: 0 }
    }

    /// The server at hand-made host 0.
    pub fn to() -> PeerAddr {
        PeerAddr { path: Lab::path(0), port: PORT }
    }

    /// The hand-made client, to our server socket.
    pub fn from_client(id: u64) -> From {
        From { sport: CLIENT_PORT, dport: PORT, id }
    }

    /// The hand-made server, answering our request.
    pub fn server_of(&self, rpc: RpcId) -> From {
        From { sport: PORT, dport: self.client_port(), id: rpc.0 | 1 }
    }

    pub fn client_port(&self) -> u16 {
        self.endpoint.port(self.client).expect("client socket is open")
    }

    /// Hands a packet of host 0 to the endpoint and returns what it sends.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.feed_from(0, bytes)
    }

    /// Hands a packet of host `n` to the endpoint and returns what it sends.
    pub fn feed_from(&mut self, n: u8, bytes: &[u8]) -> Vec<Sent> {
        self.feed_path(&Lab::path(n), bytes).1
    }

    pub fn feed_path(&mut self, path: &Path, bytes: &[u8]) -> (Disposition, Vec<Sent>) {
        self.trace.packet(self.now, path.remote, self.own, 0, bytes, "");
        let disposition = self.endpoint.handle_packet(self.now, path, bytes);
        (disposition, self.drain())
    }

    /// Hands several packets over before anything is drained.
    pub fn feed_batch<'a>(&mut self, packets: impl IntoIterator<Item = &'a [u8]>) -> Vec<Sent> {
        let path = Lab::path(0);
        for bytes in packets {
            self.trace.packet(self.now, path.remote, self.own, 0, bytes, "");
            self.endpoint.handle_packet(self.now, &path, bytes);
        }
        self.drain()
    }

    /// Lets time pass, with time-outs when they are asked for; returns what is sent.
    pub fn pass(&mut self, time: Duration) -> Vec<Sent> {
        self.pass_timed(time).into_iter().map(|(_, sent)| sent).collect()
    }

    /// As `pass`, with the time of each packet since the start of the call.
    pub fn pass_timed(&mut self, time: Duration) -> Vec<(Duration, Sent)> {
        let (start, end) = (self.now, self.now + time);
        let mut sent = Vec::new();
        while let Some(at) = self.endpoint.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            let passed = self.now - start;
            sent.extend(self.drain().into_iter().map(|packet| (passed, packet)));
            let is_stuck = self.endpoint.poll_timeout().is_some_and(|at| at <= self.now);
            assert!(!is_stuck, "a time-out is asked for at or before the present");
        }
        self.now = end;
        sent
    }

    /// What the endpoint has to send; its events are appended to `events`.
    pub fn drain(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            let before = (sent.len(), self.events.len());
            while let Some(event) = self.endpoint.poll_event() {
                self.trace.note(self.now, describe(&event));
                self.events.push(event);
            }
            while let Some(transmit) = self.endpoint.poll_transmit(self.now) {
                let packet = Sent::new(&transmit);
                let to = transmit.path.remote;
                self.trace.packet(self.now, self.own, to, packet.priority, &packet.bytes, "");
                sent.push(packet);
            }
            if before == (sent.len(), self.events.len()) {
                return sent;
            }
        }
    }

    /// Sends a request to host 0 and returns it with the packets that leave at once.
    pub fn request(&mut self, message: impl Into<Payload>) -> (RpcId, Vec<Sent>) {
        self.request_with(message, RequestOptions::default())
    }

    pub fn request_with(
        &mut self,
        message: impl Into<Payload>,
        options: RequestOptions,
    ) -> (RpcId, Vec<Sent>) {
        let rpc = self
            .endpoint
            .send_request(self.now, self.client, Lab::to(), message.into(), options)
            .expect("request accepted");
        (rpc, self.drain())
    }

    pub fn reply(&mut self, rpc: ServerRpc, message: impl Into<Payload>) -> Vec<Sent> {
        self.endpoint.reply(self.now, rpc, message.into()).expect("reply accepted");
        self.drain()
    }

    /// A request from host 0 is delivered whole; its handle.
    pub fn in_service(&mut self, id: u64, message: &[u8]) -> ServerRpc {
        let from = Lab::from_client(id);
        let step = 1424;
        for offset in (0..message.len()).step_by(step) {
            self.feed(&from.segment(message, message.len() as u32, offset, step));
        }
        self.take_request().0
    }

    /// The only event, which must be a request.
    pub fn take_request(&mut self) -> (ServerRpc, Vec<u8>) {
        assert_eq!(self.events.len(), 1, "one event: {:?}", self.events);
        match self.events.pop() {
            Some(Event::Request { rpc, message, .. }) => (rpc, message.to_vec()),
            other => panic!("request expected, not {other:?}"),
        }
    }

    /// The only event, which must be a response.
    pub fn take_response(&mut self) -> Vec<u8> {
        assert_eq!(self.events.len(), 1, "one event: {:?}", self.events);
        match self.events.pop() {
            Some(Event::Response { message, .. }) => message.to_vec(),
            other => panic!("response expected, not {other:?}"),
        }
    }

    /// The only event, which must be a failure.
    pub fn take_failure(&mut self) -> peyk_homa::RpcError {
        assert_eq!(self.events.len(), 1, "one event: {:?}", self.events);
        match self.events.pop() {
            Some(Event::Failed { error, .. }) => error,
            other => panic!("failure expected, not {other:?}"),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.is_verbose && std::thread::panicking() {
            eprintln!("{}", self.trace.text());
        }
    }
}
