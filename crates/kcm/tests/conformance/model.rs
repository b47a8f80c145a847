//! Case 111: every sequence of operations on two sockets, two connections and three messages, up to a
//! length. Whatever the order, messages are neither lost nor doubled and the machine comes to rest.

use crate::common::sim::*;
use peyk_kcm::error::Code;
use peyk_kcm::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Send(usize),
    Arrive(usize),
    ArriveHalf(usize),
    Receive(usize),
    Disable(usize),
    Enable(usize),
    Block(usize),
    Unblock(usize),
    Break(usize),
    Unattach(usize),
    Close(usize),
}

const OPS: [Op; 15] = [
    Op::Send(0),
    Op::Send(1),
    Op::Arrive(0),
    Op::Arrive(1),
    Op::ArriveHalf(0),
    Op::Receive(0),
    Op::Receive(1),
    Op::Disable(0),
    Op::Enable(0),
    Op::Block(0),
    Op::Unblock(0),
    Op::Break(0),
    Op::Unattach(1),
    Op::Close(0),
    Op::Disable(1),
];

struct Model {
    lab: Lab,
    sockets: Vec<SocketId>,
    psocks: Vec<PsockId>,
    closed: bool,
    gone: [bool; 2],
    half: bool,
    sent: usize,
    unsent: usize,
    arrived: usize,
    received: usize,
    lost: usize,
}

impl Model {
    fn new() -> Model {
        let (lab, sockets, psocks) = Lab::with(Config { receive_buffer: 3, ..Config::default() }, 2, 2);
        Model {
            lab,
            sockets,
            psocks,
            closed: false,
            gone: [false; 2],
            half: false,
            sent: 0,
            unsent: 0,
            arrived: 0,
            received: 0,
            lost: 0,
        }
    }

    /// False if the operation makes no sense here.
    fn apply(&mut self, op: Op) -> bool {
        let (is_open, is_up) = (|m: &Model, i: usize| i == 1 || !m.closed, |m: &Model, i: usize| !m.gone[i]);
        match op {
            Op::Send(i) if is_open(self, i) && self.sent < 3 => {
                self.lab.send(self.sockets[i], &[self.sent as u8]);
                self.sent += 1;
            }
            Op::Arrive(i) if is_up(self, i) && self.arrived < 3 && !(i == 0 && self.half) => {
                self.lab.input(self.psocks[i], &msg(&[self.arrived as u8]));
                self.arrived += 1;
            }
            Op::ArriveHalf(i) if is_up(self, i) && (self.half || self.arrived < 3) => {
                let message = msg(b"h");
                self.lab.input(self.psocks[i], if self.half { &message[1..] } else { &message[..1] });
                self.arrived += usize::from(self.half);
                self.half = !self.half;
            }
            Op::Receive(i) if is_open(self, i) => {
                self.received += usize::from(self.lab.mux.recv_message(self.sockets[i]).is_ok());
            }
            Op::Disable(i) if is_open(self, i) => {
                self.lab.mux.set_recv_disable(self.sockets[i], true).unwrap()
            }
            Op::Enable(i) if is_open(self, i) => {
                self.lab.mux.set_recv_disable(self.sockets[i], false).unwrap()
            }
            Op::Block(i) if is_up(self, i) => self.lab.peers.get_mut(&self.psocks[i]).unwrap().is_full = true,
            Op::Unblock(i) if is_up(self, i) => self.lab.unblock(self.psocks[i]),
            Op::Break(i) if is_up(self, i) => {
                self.lab.error(self.psocks[i], Code::CONNRESET);
                self.gone[i] = true;
            }
            Op::Unattach(i) if is_up(self, i) => {
                let off = self.lab.mux.unattach(self.psocks[i], self.lab.now).unwrap();
                self.lost += usize::from(off.parked.is_some()) + parse(&off.buffered).0.len();
                self.gone[i] = true;
            }
            Op::Close(0) if !self.closed => {
                self.unsent += self.lab.mux.close_socket(self.sockets[0], self.lab.now).unsent;
                self.closed = true;
            }
            _ => return false,
        }
        self.lab.run();
        true
    }

    fn settle(mut self, trace: &[Op]) {
        self.lab.peers.values_mut().for_each(|peer| peer.is_full = false);
        (0..2).for_each(|i| self.lab.mux.stream_writable(self.psocks[i]));
        let fresh = self.lab.attach();
        let open = if self.closed { vec![self.sockets[1]] } else { self.sockets.clone() };
        open.iter().for_each(|socket| self.lab.mux.set_recv_disable(*socket, false).unwrap());
        for _ in 0..8 {
            self.lab.run();
            self.received +=
                open.iter().map(|s| usize::from(self.lab.mux.recv_message(*s).is_ok())).sum::<usize>();
        }
        assert_eq!(self.received + self.lost, self.arrived, "received: {trace:?}");
        assert_eq!(self.lab.all_got().len() + self.unsent, self.sent, "sent: {trace:?}");
        for psock in self.lab.mux.psocks().collect::<Vec<_>>() {
            self.lab.mux.unattach(psock, self.lab.now).unwrap();
        }
        assert_eq!(self.lab.mux.memory_used(), 0, "memory: {trace:?}");
        let _ = fresh;
    }
}

fn explore(trace: &mut Vec<Op>, depth: usize, count: &mut usize) {
    let mut model = Model::new();
    for op in trace.iter() {
        if !model.apply(*op) {
            return; // the same state as without it
        }
    }
    *count += 1;
    model.settle(trace);
    if depth > 0 {
        for op in OPS {
            trace.push(op);
            explore(trace, depth - 1, count);
            trace.pop();
        }
    }
}

#[test]
fn case_111__every_sequence_of_operations() {
    let depth = std::env::var("PEYK_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(4);
    let mut count = 0;
    explore(&mut Vec::new(), depth, &mut count);
    assert!(count > 10_000, "{count}");
}
