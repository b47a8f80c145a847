//! The node's side: one thread reads standard input, the main thread works.

use std::{
    io::{BufRead, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, Sender, channel},
};

use anyhow::{Context, Result};

use super::{Carrier, Job, NodeEvent, NodeSpec};
use crate::{
    bench_traffic::Fixed,
    load::Load,
    process::{self, Clock, cpu_seconds},
    traffic::Traffic,
    transport::{self, homa, tcp_client::TcpClient, tcp_server, udp_floor},
    verify::{Executed, Ledger},
};

/// Does what the specification on standard input says.
pub fn run() -> Result<()> {
    process::prepare();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("reading the specification")?;
    let spec: NodeSpec = serde_json::from_str(&line).context("parsing the specification")?;
    let (stopping, stop) = channel();
    if let Some(cpu) = spec.cpu {
        process::pin(cpu);
    }
    watch_stdin(stopping);
    if let Err(error) = work(&spec, &stop) {
        emit(&NodeEvent::Failed(format!("{error:#}")));
    }
    Ok(())
}

/// A line means stop; the end means that the parent is gone.
fn watch_stdin(stopping: Sender<()>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            // Clients and servers of connections need not be told.
            let _ = stopping.send(());
        }
        std::process::exit(1);
    });
}

/// Writes an event. If the parent is gone there is nobody to tell, and this process is about to be ended.
fn emit(event: &NodeEvent) {
    if let Ok(mut line) = serde_json::to_string(event) {
        line.push('\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

fn work(spec: &NodeSpec, stop: &Receiver<()>) -> Result<()> {
    match &spec.job {
        Job::ServeChecked => serve(spec, stop, true),
        Job::ServePlain => serve(spec, stop, false),
        Job::Load { server, plan } => {
            let load = Load::new(plan.clone(), |progress| emit(&NodeEvent::Progress(progress)));
            let load = drive(spec, server, load)?;
            let mut result = load.finish();
            result.cpu_seconds = cpu_seconds();
            emit(&NodeEvent::Loaded(Box::new(result)));
            Ok(())
        }
        Job::Fixed { server, plan } => {
            let fixed = drive(spec, server, Fixed::new(*plan))?;
            emit(&NodeEvent::Looped(fixed.finish()));
            Ok(())
        }
    }
}

/// Runs a traffic to its end and gives it back.
fn drive<T: Traffic + 'static>(spec: &NodeSpec, server: &str, mut traffic: T) -> Result<T> {
    let clock = Clock::start();
    match spec.carrier {
        Carrier::Tcp => {
            let mut client = TcpClient::connect(&[server.parse()?], spec.connections, spec.waiting)?;
            emit(&NodeEvent::Note(client.congestion()));
            client.run(&clock, &mut traffic)?;
        }
        Carrier::Udp => udp_floor::run_client(server.parse()?, spec.waiting, &clock, &mut traffic)?,
        Carrier::Homa => {
            let stack = homa::start(&spec.homa, spec.waiting)?;
            traffic = homa::run_client(&stack, &[server.parse()?], clock, traffic)?;
            emit(&NodeEvent::Note(stack.caps().to_string()));
            stack.stop();
        }
    }
    Ok(traffic)
}

fn serve(spec: &NodeSpec, stop: &Receiver<()>, checked: bool) -> Result<()> {
    let address = SocketAddr::new(transport::loopback(spec.ipv6), 0);
    let mut ledger = Ledger::default();
    let cpu_before = cpu_seconds();
    match spec.carrier {
        Carrier::Tcp => {
            let listener = TcpListener::bind(address).with_context(|| format!("binding TCP to {address}"))?;
            let address = listener.local_addr().context("asking for the port")?.to_string();
            emit(&NodeEvent::Ready { address });
            tcp_server::serve(&listener, spec.connections, spec.waiting, checked.then_some(&mut ledger))?;
        }
        Carrier::Udp => {
            let socket = udp_floor::bind(address)?;
            let address = socket.local_addr().context("asking for the port")?.to_string();
            emit(&NodeEvent::Ready { address });
            udp_floor::serve(&socket, spec.waiting)?;
        }
        Carrier::Homa => {
            let stack = homa::start(&spec.homa, spec.waiting)?;
            let (server, address) = homa::Server::start(&stack, address.ip(), checked)?;
            emit(&NodeEvent::Ready { address: address.to_string() });
            // The end of standard input ends the process, so a line comes or this wait does not matter.
            let _ = stop.recv();
            let executed = server.stop()?;
            stack.stop();
            return emit_served(executed, cpu_before);
        }
    }
    emit_served(ledger.counts().clone(), cpu_before)
}

fn emit_served(mut executed: Executed, cpu_before: f64) -> Result<()> {
    executed.cpu_seconds = cpu_seconds() - cpu_before;
    emit(&NodeEvent::Served(executed));
    Ok(())
}
