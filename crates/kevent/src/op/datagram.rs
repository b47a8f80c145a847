//! Operations on datagram sockets: a stream of received trains, and sends of trains.

use crate::core::{InFlight, Recv, Send};
use crate::op::sealed::Sealed;
use crate::op::{Op, OpId, Rejected, Token, refuse};
use crate::queue::Queue;
use crate::source::{Kind, Source};
use crate::sys::socket;
use crate::train::Train;

/// Receives datagrams until cancelled: events [`What::Dgrams`](crate::What::Dgrams), and
/// [`What::Error`](crate::What::Error) for errors the network reported about earlier sends.
#[derive(Debug, Clone)]
pub struct RecvMsg {
    /// The socket; one receive operation at a time.
    pub source: Source,
}

/// Sends one train when the socket has room: event [`What::TrainSent`](crate::What::TrainSent).
/// Trains of one source leave in the order of submission.
#[derive(Debug)]
pub struct SendMsg {
    /// The socket.
    pub source: Source,
    /// What to send; comes back with the event.
    pub train: Box<Train>,
}

impl Sealed for RecvMsg {}
impl Op for RecvMsg {
    fn start(self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<RecvMsg>> {
        let core = queue.core();
        let right = self.source.kind() == Kind::Datagram && core.stream_of(&self.source).is_none();
        if let Some(why) = refuse(&self.source, right) {
            return Err(Rejected { op: self, why });
        }
        let recv = Recv {
            source: self.source,
            template: Box::new(socket::empty_message()),
            in_kernel: false,
            cancelled: false,
            ending: false,
            ready: true,
            failures: 0,
        };
        let id = core.ops.insert(token, InFlight::Recv(recv));
        core.streams.push(id);
        queue.start_stream(id);
        Ok(id)
    }
}

impl Sealed for SendMsg {}
impl Op for SendMsg {
    fn start(self, queue: &mut Queue, token: Token) -> Result<OpId, Rejected<SendMsg>> {
        let right = self.train.packets() > 0 && self.source.kind() == Kind::Datagram;
        if let Some(why) = refuse(&self.source, right) {
            return Err(Rejected { op: self, why });
        }
        let core = queue.core();
        let SendMsg { source, train } = self;
        let send = Send { source: source.clone(), train, in_kernel: false, cancelled: false, failures: 0 };
        let id = core.ops.insert(token, InFlight::Send(send));
        core.stats.sends_queued += 1;
        core.sends_waiting += 1;
        let first = source.first_send().is_none();
        source.0.sends.borrow_mut().push_back(id);
        if first {
            queue.start_send(id);
        }
        Ok(id)
    }
}
