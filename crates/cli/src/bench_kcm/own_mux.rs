//! K11: a server with one mux for all connections beside one with a mux for each, as the kernel's KCM
//! needs, because there a reply finds its way only if one connection is below the mux.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};
use peyk::kcm::{Config, Mux, Order, ServeOptions, Socket, Steer, Workers};

use super::client::{Load, round};
use super::figure::{Figure, Goal};
use super::work::{self, Work};
use super::{frames, served};

const LOAD: Load = Load { connections: 32, depth: 4, bytes: 64, clients: 1, looks: false, pace: None };

/// A mux, its socket and its worker for each connection that comes.
struct Many {
    addr: SocketAddr,
    listener: TcpListener,
}

impl Many {
    fn start() -> Result<Many> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        Ok(Many { addr: listener.local_addr()?, listener })
    }

    fn accept(&self) -> Result<Vec<(Workers, Socket)>> {
        (0..LOAD.connections)
            .map(|_| {
                let (tcp, _) = self.listener.accept()?;
                let config = Config { steer: Steer::Pull, order: Order::Any, ..Config::default() };
                let (mux, socket) = Mux::open(config)?;
                mux.attach(tcp, frames())?;
                let options = ServeOptions { threads: 1, ..ServeOptions::default() };
                let workers = mux
                    .serve(&socket, options, |message, replies| replies.reply(&work::answer(message.bytes)))
                    .context("starting a worker")?;
                Ok((workers, socket))
            })
            .collect()
    }
}

pub fn run(pairs: u32, time: Duration) -> Result<Vec<Figure>> {
    let mut both = Vec::new();
    for _ in 0..pairs {
        let theirs = {
            let many = Many::start()?;
            let addr = many.addr;
            let client = std::thread::spawn(move || round(addr, LOAD, time));
            let _served = many.accept()?;
            client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??.per_second
        };
        let ours = {
            let (addr, _server) = served(2, Work::None)?;
            round(addr, LOAD, time)?.per_second
        };
        both.push((theirs, ours));
    }
    let what = "requests/s, replies over their own of 32 connections, one mux";
    Ok(vec![Figure::new("k11", what, "a mux for each connection", &both, Goal::None)])
}
