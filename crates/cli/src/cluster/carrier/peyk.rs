//! Homa: one stack, on whose shard both the server and the client run.

use anyhow::{Context, Result};
use peyk::{Stack, homa::Addr};

use super::{Carrier, NodeLoad};
use crate::{
    cluster::Spec,
    process::Clock,
    transport::{homa, tcp::Waiting},
    verify::Executed,
};

/// Homa in a node.
pub struct Homa {
    stack: Stack,
    server: homa::Server,
    address: Addr,
    peers: Vec<Addr>,
}

impl Homa {
    /// Starts the stack and its server.
    pub fn start(spec: &Spec) -> Result<Homa> {
        let stack = homa::start(&spec.homa, Waiting::Block)?;
        let (server, address) = homa::Server::start(&stack, spec.ip, true)?;
        Ok(Homa { stack, server, address, peers: Vec::new() })
    }
}

impl Carrier for Homa {
    fn address(&self) -> (String, String) {
        (self.address.to_string(), self.stack.caps().to_string())
    }

    fn connect(&mut self, addresses: &[String]) -> Result<()> {
        self.peers = addresses.iter().map(|a| a.parse().context("an address")).collect::<Result<_>>()?;
        Ok(())
    }

    fn run(&mut self, load: NodeLoad, targets: &[usize]) -> Result<NodeLoad> {
        let servers: Vec<Addr> = targets.iter().map(|&target| self.peers[target]).collect();
        homa::run_client(&self.stack, &servers, Clock::start(), load)
    }

    fn retransmitted(&self) -> u64 {
        self.stack.stats().map_or(0, |stats| stats.homa.data_retransmitted)
    }

    fn stop(self: Box<Self>) -> Result<Executed> {
        let executed = self.server.stop()?;
        self.stack.stop();
        Ok(executed)
    }
}
