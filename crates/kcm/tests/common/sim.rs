//! A mux on imaginary streams: virtual time, writes that take any number of bytes, errors at any byte.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peyk_kcm::error::Code;
use peyk_kcm::framer::{Framer, LengthField, Spread};
use peyk_kcm::*;

/// What the far end of a connection sees, and what it takes.
#[derive(Debug, Default)]
pub struct Peer {
    /// All bytes that arrived.
    pub got: Vec<u8>,
    /// Most bytes it takes in one write; `None` is all.
    pub takes: Option<usize>,
    /// It is blocked until told otherwise.
    pub is_full: bool,
    /// Bytes after which writing fails.
    pub fails_at: Option<usize>,
}

pub struct Lab {
    pub mux: Mux,
    pub now: Instant,
    pub peers: BTreeMap<PsockId, Peer>,
    pub events: Vec<Event>,
    pub resumed: Vec<PsockId>,
}

/// Messages of the tests: two bytes of length, then a body.
pub fn msg(body: &[u8]) -> Bytes {
    let mut bytes = (body.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes.into()
}

pub fn frames() -> Box<dyn Framer> {
    Box::new(LengthField::be(0, 2).plus(2).spread_as(Spread::Any))
}

pub fn send_now() -> SendFlags {
    SendFlags { end: true, ..SendFlags::default() }
}

pub fn to(target: Target) -> SendFlags {
    SendFlags { to: target, ..send_now() }
}

/// The bodies of the messages in a stream, and the bytes of one that is cut.
pub fn parse(mut bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut bodies = Vec::new();
    while bytes.len() >= 2 {
        let length = 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        if bytes.len() < length {
            break;
        }
        bodies.push(bytes[2..length].to_vec());
        bytes = &bytes[length..];
    }
    (bodies, bytes.len())
}

impl Lab {
    pub fn new(config: Config) -> (Lab, SocketId) {
        let now = Instant::from_millis(1000);
        let (mux, socket) = Mux::new(config, now);
        (Lab { mux, now, peers: BTreeMap::new(), events: Vec::new(), resumed: Vec::new() }, socket)
    }

    /// A mux with so many sockets and connections.
    pub fn with(config: Config, sockets: usize, psocks: usize) -> (Lab, Vec<SocketId>, Vec<PsockId>) {
        let (mut lab, first) = Lab::new(config);
        let mut all = vec![first];
        all.extend((1..sockets).map(|_| lab.mux.clone_socket(first).unwrap()));
        let psocks = (0..psocks).map(|_| lab.attach()).collect();
        (lab, all, psocks)
    }

    pub fn attach(&mut self) -> PsockId {
        self.attach_as(AttachOptions::default())
    }

    pub fn attach_as(&mut self, options: AttachOptions) -> PsockId {
        let psock = self.mux.attach(frames(), options).unwrap();
        self.peers.insert(psock, Peer::default());
        self.run();
        psock
    }

    /// Moves all bytes that can be moved.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            let Some(psock) = self.mux.poll_write() else {
                while let Some(event) = self.mux.poll_event() {
                    self.events.push(event);
                }
                while let Some(psock) = self.mux.poll_resumed() {
                    self.resumed.push(psock);
                }
                return;
            };
            self.write(psock);
        }
        panic!("writing does not come to an end");
    }

    fn write(&mut self, psock: PsockId) {
        let mut slices = Vec::new();
        let offered = self.mux.tx_slices(psock, 64 * 1024, &mut slices);
        let bytes = slices.concat();
        assert_eq!(bytes.len(), offered);
        if offered == 0 {
            return;
        }
        let peer = self.peers.entry(psock).or_default();
        let mut takes = if peer.is_full { 0 } else { peer.takes.unwrap_or(offered).min(offered) };
        if let Some(at) = peer.fails_at {
            if peer.got.len() >= at {
                return self.mux.write_failed(psock, Code::CONNRESET, self.now);
            }
            takes = takes.min(at - peer.got.len());
        }
        peer.got.extend_from_slice(&bytes[..takes]);
        let is_short = takes < offered;
        let goes_on = is_short && !peer.is_full;
        self.mux.stream_wrote(psock, takes, self.now);
        if goes_on {
            self.mux.stream_writable(psock);
        }
    }

    pub fn input(&mut self, psock: PsockId, bytes: &[u8]) {
        self.mux.stream_bytes(psock, Bytes::copy_from_slice(bytes), self.now);
        self.run();
    }

    pub fn eof(&mut self, psock: PsockId) {
        self.mux.stream_eof(psock, self.now);
        self.run();
    }

    pub fn error(&mut self, psock: PsockId, code: Code) {
        self.mux.stream_error(psock, code, self.now);
        self.run();
    }

    pub fn send(&mut self, socket: SocketId, body: &[u8]) {
        self.mux.send(socket, msg(body), send_now(), self.now).unwrap();
        self.run();
    }

    /// All messages that wait for a socket, bodies only.
    pub fn drain(&mut self, socket: SocketId) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Ok(message) = self.mux.recv_message(socket) {
            all.push(message.bytes[2..].to_vec());
        }
        self.run();
        all
    }

    pub fn pass_time(&mut self, time: Duration) {
        self.now += time;
        self.mux.handle_timeout(self.now);
        self.run();
    }

    pub fn got(&self, psock: PsockId) -> Vec<Vec<u8>> {
        parse(&self.peers[&psock].got).0
    }

    /// Everything all peers got whole.
    pub fn all_got(&self) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = self.peers.values().flat_map(|peer| parse(&peer.got).0).collect();
        all.sort();
        all
    }

    pub fn unblock(&mut self, psock: PsockId) {
        self.peers.get_mut(&psock).unwrap().is_full = false;
        self.mux.stream_writable(psock);
        self.run();
    }

    pub fn down(&self, psock: PsockId) -> Option<Cause> {
        self.events.iter().find_map(|event| match event {
            Event::PsockDown { psock: which, cause, .. } if *which == psock => Some(*cause),
            _ => None,
        })
    }

    pub fn has(&self, event: &Event) -> bool {
        self.events.contains(event)
    }
}
