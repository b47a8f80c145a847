//! A TCP client that drives a traffic: one thread, one or several connections to each server, messages multiplexed on
//! them.
//!
//! Each turn collects everything that is due, writes it with one system call per connection, and reads whatever has
//! arrived, in large pieces. Messages to a server go to its connections in turn.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use super::{
    frame::{OutQueue, Responses},
    tcp::{self, Interest, Waiting},
};
use crate::{
    process::Clock,
    traffic::{Traffic, target},
};

/// Bytes read at once.
const READ: usize = 256 << 10;

/// Reads from one connection in one turn, before the others and the due messages get theirs.
const READS_A_TURN: usize = 4;

/// Bytes written to one connection in one turn, about: as long as the server keeps up there is no other end to it.
const WRITE_A_TURN: usize = 1 << 20;

struct Connection {
    stream: TcpStream,
    out: OutQueue,
    responses: Responses,
}

impl Connection {
    fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        while !self.out.is_empty() && sent < WRITE_A_TURN {
            let (slices, count) = self.out.slices();
            let written = tcp::send(&self.stream, &slices[..count]).context("sending requests over TCP")?;
            if written == 0 {
                break;
            }
            self.out.advance(written);
            sent += written;
        }
        Ok(())
    }

    /// Reads what is there; with `wait`, waits for the first bytes.
    fn read<T: Traffic>(
        &mut self,
        buffer: &mut [u8],
        wait: bool,
        clock: &Clock,
        traffic: &mut T,
    ) -> Result<()> {
        for round in 0..READS_A_TURN {
            let got = tcp::receive(&self.stream, buffer, wait && round == 0)
                .context("reading responses over TCP")?;
            let Some(n) = got else { break };
            if n == 0 {
                bail!("the server closed the connection");
            }
            self.responses.feed(&buffer[..n], traffic, clock.now())?;
            if n < buffer.len() {
                break;
            }
        }
        Ok(())
    }
}

/// A client with its connections.
pub struct TcpClient {
    connections: Vec<Connection>,
    /// Connections to each server, which stand next to each other.
    each: usize,
    waiting: Waiting,
    /// The connection that is next, by server.
    next: Vec<usize>,
    /// The servers that messages go to, in the order of [`target`].
    targets: Vec<usize>,
}

impl TcpClient {
    /// Opens `count` connections to each server.
    pub fn connect(servers: &[SocketAddr], count: usize, waiting: Waiting) -> Result<TcpClient> {
        let connections = servers
            .iter()
            .flat_map(|server| std::iter::repeat_n(server, count))
            .map(|server| {
                let stream = TcpStream::connect_timeout(server, Duration::from_secs(5))
                    .with_context(|| format!("connecting to {server} over TCP"))?;
                tcp::configure(&stream)?;
                let out = OutQueue::new(Bytes::new());
                Ok(Connection { stream, out, responses: Responses::new() })
            })
            .collect::<Result<_>>()?;
        Ok(TcpClient {
            connections,
            each: count,
            waiting,
            next: vec![0; servers.len()],
            targets: (0..servers.len()).collect(),
        })
    }

    /// Lets messages go to these of the servers only, by their places in the list of servers.
    pub fn aim(&mut self, targets: &[usize]) {
        self.targets = targets.to_vec();
    }

    /// The congestion control of the connections.
    pub fn congestion(&self) -> String {
        self.connections.first().map(|c| tcp::congestion(&c.stream)).unwrap_or_default()
    }

    /// Runs until the traffic is done.
    pub fn run<T: Traffic>(&mut self, clock: &Clock, traffic: &mut T) -> Result<()> {
        let mut buffer = vec![0; READ];
        let mut ready = Vec::new();
        for connection in &mut self.connections {
            connection.out = OutQueue::new(traffic.block().clone());
        }
        loop {
            let now = clock.now();
            if traffic.turn(now) {
                return Ok(());
            }
            while let Some(message) = traffic.next_due(now) {
                let server = self.targets[target(message.sequence(), self.targets.len())];
                let next = &mut self.next[server];
                self.connections[server * self.each + *next].out.push(&message);
                *next = (*next + 1) % self.each;
            }
            for connection in &mut self.connections {
                connection.flush()?;
            }
            let wakeup = traffic.wakeup();
            match (self.waiting, &mut self.connections[..]) {
                (Waiting::Spin, all) => {
                    for connection in all {
                        connection.read(&mut buffer, false, clock, traffic)?;
                    }
                }
                (Waiting::Block, [only]) if wakeup.is_none() && only.out.is_empty() => {
                    only.read(&mut buffer, true, clock, traffic)?;
                }
                (Waiting::Block, _) => self.wait(wakeup, clock, &mut ready, &mut buffer, traffic)?,
            }
        }
    }

    fn wait<T: Traffic>(
        &mut self,
        wakeup: Option<u64>,
        clock: &Clock,
        ready: &mut Vec<Interest>,
        buffer: &mut [u8],
        traffic: &mut T,
    ) -> Result<()> {
        let timeout = wakeup.map(|at| Duration::from_nanos(at.saturating_sub(clock.now())));
        let interests =
            self.connections.iter().map(|c| (&c.stream, Interest { read: true, write: !c.out.is_empty() }));
        tcp::wait(interests, timeout, ready)?;
        for (connection, ready) in self.connections.iter_mut().zip(ready.iter()) {
            if ready.read {
                connection.read(buffer, false, clock, traffic)?;
            }
        }
        Ok(())
    }
}
