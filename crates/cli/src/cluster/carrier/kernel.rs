//! Kernel TCP: the client in the node's own thread, the server in another.

use std::{
    net::{SocketAddr, TcpListener},
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};

use super::{Carrier, NodeLoad};
use crate::{
    cluster::{Spec, usage},
    process::Clock,
    transport::{tcp::Waiting, tcp_client::TcpClient, tcp_server},
    verify::{Executed, Ledger},
};

/// TCP in a node.
pub struct Tcp {
    address: SocketAddr,
    server: JoinHandle<Result<Executed>>,
    connections: usize,
    index: usize,
    client: Option<TcpClient>,
}

impl Tcp {
    /// Starts the server.
    pub fn start(spec: &Spec) -> Result<Tcp> {
        let listener =
            TcpListener::bind((spec.ip, 0)).with_context(|| format!("binding TCP to {}", spec.ip))?;
        let address = listener.local_addr().context("asking for the port")?;
        let connections = spec.transport.connections();
        let count = (spec.nodes - 1) * connections;
        let server = std::thread::spawn(move || {
            let mut ledger = Ledger::default();
            tcp_server::serve(&listener, count, Waiting::Block, Some(&mut ledger))?;
            Ok(ledger.counts().clone())
        });
        Ok(Tcp { address, server, connections, index: spec.index, client: None })
    }
}

impl Carrier for Tcp {
    fn address(&self) -> (String, String) {
        (self.address.to_string(), String::new())
    }

    fn connect(&mut self, addresses: &[String]) -> Result<()> {
        let others = addresses.iter().enumerate().filter(|&(place, _)| place != self.index);
        let servers: Vec<SocketAddr> =
            others.map(|(_, address)| address.parse().context("an address")).collect::<Result<_>>()?;
        let client = TcpClient::connect(&servers, self.connections, Waiting::Block)?;
        self.client = Some(client);
        Ok(())
    }

    fn run(&mut self, mut load: NodeLoad, targets: &[usize]) -> Result<NodeLoad> {
        let client = self.client.as_mut().context("not connected")?;
        // Its list has all nodes but this one.
        let places: Vec<usize> = targets.iter().map(|&t| t - usize::from(t > self.index)).collect();
        client.aim(&places);
        client.run(&Clock::start(), &mut load)?;
        Ok(load)
    }

    fn retransmitted(&self) -> u64 {
        usage::tcp_retransmitted()
    }

    fn stop(self: Box<Self>) -> Result<Executed> {
        let Tcp { server, client, .. } = *self;
        // The servers of the others see their connections end.
        drop(client);
        server.join().map_err(|_| anyhow!("the TCP server panicked"))?
    }
}
