//! The transports as a node uses them: listen, connect to all others, run a load, end.

mod grpc;
mod kernel;
mod peyk;
mod quic;
mod runtime;

use anyhow::Result;

pub use self::quic::identity;

use super::{Spec, Transport};
use crate::{
    load::{Load, Progress},
    verify::Executed,
};

/// A load in a node.
pub type NodeLoad = Load<Box<dyn FnMut(Progress) + Send>>;

/// A transport in a node. It serves from when it is made until it is stopped.
pub trait Carrier {
    /// Where it listens, and particulars for the report.
    fn address(&self) -> (String, String);

    /// Connects to the nodes that listen there, by place; its own is among them.
    fn connect(&mut self, addresses: &[String]) -> Result<()>;

    /// Runs a load against the nodes at these places and gives it back when it is done.
    fn run(&mut self, load: NodeLoad, targets: &[usize]) -> Result<NodeLoad>;

    /// Packets or segments sent again so far.
    fn retransmitted(&self) -> u64;

    /// Ends it, when all others are done as well; gives what it served.
    fn stop(self: Box<Self>) -> Result<Executed>;
}

/// Starts the transport that a specification asks for.
pub fn start(spec: &Spec) -> Result<Box<dyn Carrier>> {
    Ok(match spec.transport {
        Transport::Homa => Box::new(peyk::Homa::start(spec)?),
        Transport::Tcp1 | Transport::Tcp4 => Box::new(kernel::Tcp::start(spec)?),
        Transport::Tonic => Box::new(runtime::Async::start(spec, grpc::Grpc)?),
        Transport::Quinn => Box::new(runtime::Async::start(spec, quic::Quic::new(spec)?)?),
    })
}
