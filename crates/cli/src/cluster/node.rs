//! The node's side: a thread reads what the parent says, the main thread works.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Event, Order, Spec, Usage, carrier};
use crate::{
    load::{Load, Progress},
    process,
};

/// How long a node that joins tries to reach its parent.
const JOIN_FOR: Duration = Duration::from_secs(120);

/// Where events go.
type Out = Arc<Mutex<Box<dyn Write + Send>>>;

/// Is a node: for the parent at the other end of standard input and output, or the one that waits at this address.
pub fn run(join: Option<&str>) -> Result<()> {
    let (input, output): (Box<dyn Read + Send>, Box<dyn Write + Send>) = match join {
        None => {
            process::prepare();
            (Box::new(std::io::stdin()), Box::new(std::io::stdout()))
        }
        Some(address) => {
            process::precise();
            let stream = join_parent(address)?;
            (Box::new(stream.try_clone().context("sharing the connection")?), Box::new(stream))
        }
    };
    let out: Out = Arc::new(Mutex::new(output));
    let lines = read(input, join.is_some());
    if let Err(error) = work(&lines, &out) {
        emit(&out, &Event::Failed(format!("{error:#}")));
        bail!("{error:#}");
    }
    Ok(())
}

fn join_parent(address: &str) -> Result<TcpStream> {
    let deadline = Instant::now() + JOIN_FOR;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_nodelay(true).context("setting TCP_NODELAY")?;
                return Ok(stream);
            }
            // Names and listeners come late where all start at once.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(500)),
            Err(error) => return Err(error).with_context(|| format!("joining {address}")),
        }
    }
}

/// The lines of the parent. Their end is the end of this process, whatever it is doing.
fn read(input: Box<dyn Read + Send>, joined: bool) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(input).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        std::process::exit(i32::from(!joined));
    });
    lines
}

/// Writes an event. If the parent is gone there is nobody to tell, and this process is about to end.
fn emit(out: &Out, event: &Event) {
    if let (Ok(mut line), Ok(mut out)) = (serde_json::to_string(event), out.lock()) {
        line.push('\n');
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// Does what each specification in turn asks for.
fn work(lines: &Receiver<String>, out: &Out) -> Result<()> {
    while let Ok(line) = lines.recv() {
        let spec: Spec = serde_json::from_str(&line).context("parsing a specification")?;
        let mut carrier = carrier::start(&spec)?;
        let (address, note) = carrier.address();
        emit(out, &Event::Ready { address, note });
        loop {
            let line = lines.recv().context("the parent is gone")?;
            match serde_json::from_str(&line).context("parsing an order")? {
                Order::Connect { addresses } => {
                    carrier.connect(&addresses)?;
                    emit(out, &Event::Connected);
                }
                Order::Load { plan, targets } => {
                    let progress = out.clone();
                    let tell: Box<dyn FnMut(Progress) + Send> =
                        Box::new(move |so_far| emit(&progress, &Event::Progress(so_far)));
                    let before = Usage::so_far(carrier.retransmitted());
                    let load = carrier.run(Load::new(plan, tell), &targets)?;
                    let usage = Usage::so_far(carrier.retransmitted()).since(before);
                    emit(out, &Event::Loaded { measured: Box::new(load.measured()), usage });
                }
                Order::Stop => break,
            }
        }
        emit(out, &Event::Stopped(carrier.stop()?));
    }
    Ok(())
}
