//! The node's side: one thread reads standard input, the main thread works.

use std::{
    io::{BufRead, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, bail};

use super::{Carrier, Job, NodeEvent, NodeSpec};
use crate::{
    bench_traffic::Fixed,
    load::Load,
    process::{self, Clock, cpu_seconds},
    traffic::Traffic,
    transport::{self, tcp_client::TcpClient, tcp_server, udp_floor},
    verify::Ledger,
};

/// Does what the specification on standard input says.
pub fn run() -> Result<()> {
    process::prepare();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("reading the specification")?;
    let spec: NodeSpec = serde_json::from_str(&line).context("parsing the specification")?;
    let stop = Arc::new(AtomicBool::new(false));
    if let Some(cpu) = spec.cpu {
        process::pin(cpu);
    }
    watch_stdin(stop.clone());
    if let Err(error) = work(&spec, &stop) {
        emit(&NodeEvent::Failed(format!("{error:#}")));
    }
    Ok(())
}

/// A line means stop; the end means that the parent is gone.
fn watch_stdin(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            stop.store(true, Ordering::Release);
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

fn work(spec: &NodeSpec, stop: &Arc<AtomicBool>) -> Result<()> {
    match &spec.job {
        Job::ServeChecked => serve(spec, stop, true),
        Job::ServePlain => serve(spec, stop, false),
        Job::Load { server, plan } => {
            let load = Load::new(plan.clone(), |progress| emit(&NodeEvent::Progress(progress)));
            let load = drive(spec, *server, load)?;
            let mut result = load.finish();
            result.cpu_seconds = cpu_seconds();
            emit(&NodeEvent::Loaded(Box::new(result)));
            Ok(())
        }
        Job::Fixed { server, plan } => {
            let fixed = drive(spec, *server, Fixed::new(*plan))?;
            emit(&NodeEvent::Looped(fixed.finish()));
            Ok(())
        }
    }
}

/// Runs a traffic to its end and gives it back.
fn drive<T: Traffic + 'static>(spec: &NodeSpec, server: SocketAddr, mut traffic: T) -> Result<T> {
    let clock = Clock::start();
    match spec.carrier {
        Carrier::Tcp => {
            let mut client = TcpClient::connect(server, spec.connections, spec.waiting, &traffic)?;
            emit(&NodeEvent::Note(client.congestion()));
            client.run(&clock, &mut traffic)?;
        }
        Carrier::Udp => udp_floor::run_client(server, spec.waiting, &clock, &mut traffic)?,
        Carrier::Homa => bail!("Homa is not built in"),
    }
    Ok(traffic)
}

fn serve(spec: &NodeSpec, _stop: &Arc<AtomicBool>, checked: bool) -> Result<()> {
    let address = SocketAddr::new(transport::loopback(spec.ipv6), 0);
    let mut ledger = Ledger::default();
    let cpu_before = cpu_seconds();
    match spec.carrier {
        Carrier::Tcp => {
            let listener = TcpListener::bind(address).with_context(|| format!("binding TCP to {address}"))?;
            let address = listener.local_addr().context("asking for the port")?;
            emit(&NodeEvent::Ready { address });
            tcp_server::serve(&listener, spec.connections, spec.waiting, checked.then_some(&mut ledger))?;
        }
        Carrier::Udp => {
            let socket = udp_floor::bind(address)?;
            let address = socket.local_addr().context("asking for the port")?;
            emit(&NodeEvent::Ready { address });
            udp_floor::serve(&socket, spec.waiting)?;
        }
        Carrier::Homa => bail!("Homa is not built in"),
    }
    let mut executed = ledger.counts().clone();
    executed.cpu_seconds = cpu_seconds() - cpu_before;
    emit(&NodeEvent::Served(executed));
    Ok(())
}
