//! A mux driven by a list of operations made of the input's bytes: it never panics, keeps its counters
//! exact, and holds no memory once everything is taken off.

use peyk_kcm::error::Code;
use peyk_kcm::framer::{Framer, LengthField, Spread};
use peyk_kcm::{
    AttachOptions, Config, Instant, Kind, Mux, Order, PsockId, SendFlags, SocketId, Steer, Target,
};

/// Does what the target claims with one input; panics where the claim fails.
pub fn run(bytes: &[u8]) {
    let [kind, order, steer, operations @ ..] = bytes else { return };
    let config = Config {
        kind: if kind & 1 == 0 { Kind::Datagram } else { Kind::SeqPacket },
        order: [Order::Any, Order::Key, Order::Connection, Order::Replies][usize::from(order % 4)],
        steer: if steer & 1 == 0 { Steer::Push } else { Steer::Pull },
        receive_buffer: 64,
        send_buffer: 64,
        max_message: 300,
        reply_window: 4,
        memory: 2000,
        max_psocks: 8,
        max_sockets: 8,
        ..Config::default()
    };
    let (mux, first) = Mux::new(config, Instant::ZERO);
    let mut world = World { mux, now: Instant::ZERO, sockets: vec![first], psocks: Vec::new() };
    for operation in operations.chunks_exact(3).take(600) {
        world.apply(operation[0], operation[1], operation[2]);
    }
    world.finish();
}

struct World {
    mux: Mux,
    now: Instant,
    sockets: Vec<SocketId>,
    psocks: Vec<PsockId>,
}

impl World {
    fn apply(&mut self, what: u8, a: u8, b: u8) {
        let socket = self.sockets[usize::from(a) % self.sockets.len()];
        let psock = self.psocks.get(usize::from(b) % self.psocks.len().max(1)).copied();
        match (what % 17, psock) {
            (0, _) => {
                let framer: Box<dyn Framer> = Box::new(LengthField::be(0, 1).plus(1).spread_as(Spread::Any));
                let addr = a.is_multiple_of(2).then(|| ([10, 0, 0, 1], 1).into());
                let options = AttachOptions { addr, only_targeted: a.is_multiple_of(3) };
                self.psocks.extend(self.mux.attach(framer, options));
            }
            (1..=3, Some(psock)) => {
                let bytes = vec![a % 40; usize::from(a)];
                self.mux.stream_bytes(psock, bytes.into(), self.now);
            }
            (4..=5, _) => {
                let target = match (b % 4, psock) {
                    (1, Some(psock)) => Target::Psock(psock),
                    (2, Some(psock)) => Target::Reply(psock, u64::from(a % 8)),
                    (3, _) => Target::Addr(([10, 0, 0, 1], 1).into()),
                    _ => Target::Any,
                };
                let flags = SendFlags { more: a & 1 == 0, end: a & 2 == 0, batch: a & 4 == 0, to: target };
                let _ = self.mux.send(socket, vec![b; usize::from(b)].into(), flags, self.now);
            }
            (6..=7, _) => {
                let _ = self.mux.recv(socket, usize::from(b), a & 16 != 0);
            }
            (8, Some(psock)) => self.mux.stream_eof(psock, self.now),
            (9, Some(psock)) => self.mux.stream_error(psock, Code::CONNRESET, self.now),
            (10, Some(psock)) if a.is_multiple_of(2) => {
                let _ = self.mux.unattach(psock, self.now);
                self.psocks.retain(|other| *other != psock);
            }
            (11, _) => self.sockets.extend(self.mux.clone_socket(socket)),
            (12, _) if self.sockets.len() > 1 => {
                self.mux.close_socket(socket, self.now);
                self.sockets.retain(|other| *other != socket);
            }
            (13, _) => self.mux.set_recv_disable(socket, b & 1 == 0).expect("it is open"),
            (14, _) => {
                self.now += std::time::Duration::from_secs(u64::from(b));
                self.mux.handle_timeout(self.now);
            }
            (15, Some(psock)) => {
                if self.mux.claim_tx(psock) {
                    let reply = vec![b; usize::from(a)];
                    let taken = usize::from(b) % (reply.len() + 1);
                    self.mux.end_claim(psock, socket, &reply, 1, taken);
                    self.mux.stream_writable(psock);
                }
            }
            _ => self.write(usize::from(b)),
        }
        while self.mux.poll_event().is_some() {}
        while self.mux.poll_resumed().is_some() {}
    }

    fn write(&mut self, takes: usize) {
        let Some(psock) = self.mux.poll_write() else { return };
        let mut slices = Vec::new();
        let offered = self.mux.tx_slices(psock, 1000, &mut slices);
        assert_eq!(offered, slices.iter().map(bytes::Bytes::len).sum::<usize>());
        if offered > 0 && takes == 255 {
            return self.mux.write_failed(psock, Code::PIPE, self.now);
        }
        self.mux.stream_wrote(psock, takes.min(offered), self.now);
        self.mux.stream_writable(psock);
    }

    fn finish(mut self) {
        for psock in std::mem::take(&mut self.psocks) {
            self.mux.unattach(psock, self.now).expect("it is attached");
        }
        let stats = self.mux.stats();
        assert_eq!(stats.psock_attach, stats.psock_unattach);
        for socket in std::mem::take(&mut self.sockets) {
            self.mux.close_socket(socket, self.now);
        }
        assert_eq!(self.mux.memory_used(), 0);
    }
}
