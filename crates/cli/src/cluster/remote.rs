//! Where nodes run and how the parent talks to them: a process in a namespace, a process over ssh, or one that was
//! started by others and has joined over TCP.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, TryRecvError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;

use super::Event;
use crate::node::Node;

/// Where a node runs, or is to run.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a network namespace of this machine.
    Namespace {
        /// Its name.
        name: String,
    },
    /// On a machine that ssh reaches.
    Ssh {
        /// As ssh wants it.
        host: String,
        /// The command `peyk` there.
        program: String,
    },
}

impl Place {
    fn command(&self) -> Result<Command> {
        let mut command;
        match self {
            Place::Namespace { name, .. } => {
                command = Command::new("ip");
                command.args(["netns", "exec", name]);
                command.arg(std::env::current_exe().context("finding this program")?);
            }
            Place::Ssh { host, program, .. } => {
                command = Command::new("ssh");
                command.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host, "--", program]);
            }
        }
        command.arg("cluster-node");
        Ok(command)
    }
}

/// Waits for nodes that are started by others.
pub struct Door {
    listener: TcpListener,
}

impl Door {
    /// Listens.
    pub fn open(address: SocketAddr) -> Result<Door> {
        let listener = TcpListener::bind(address).with_context(|| format!("listening at {address}"))?;
        listener.set_nonblocking(true).context("making the door non-blocking")?;
        Ok(Door { listener })
    }

    /// The next that joins, and its address.
    pub fn accept(&self, deadline: Instant) -> Result<(Remote, IpAddr)> {
        loop {
            ensure!(!Node::is_interrupted(), "interrupted");
            match self.listener.accept() {
                Ok((stream, from)) => {
                    stream.set_nonblocking(false).context("making a connection blocking")?;
                    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
                    return Ok((Remote::joined(stream, from.ip())?, from.ip().to_canonical()));
                }
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                Err(_) => bail!("not all nodes joined in time"),
            }
        }
    }
}

/// A node as its parent sees it. Dropping it ends it.
pub struct Remote {
    child: Option<Child>,
    output: Box<dyn Write + Send>,
    events: Receiver<Event>,
    what: String,
}

impl Remote {
    /// Starts a node.
    pub fn start(place: &Place) -> Result<Remote> {
        let what = match place {
            Place::Namespace { name, .. } => format!("node in {name}"),
            Place::Ssh { host, .. } => format!("node on {host}"),
        };
        let mut child = place
            .command()?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the {what}"))?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Remote { child: Some(child), output: Box::new(stdin), events: listen(stdout), what })
    }

    fn joined(stream: TcpStream, ip: IpAddr) -> Result<Remote> {
        let output = stream.try_clone().context("sharing a connection")?;
        Ok(Remote {
            child: None,
            output: Box::new(output),
            events: listen(stream),
            what: format!("node at {ip}"),
        })
    }

    /// Tells it something.
    pub fn tell(&mut self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(what).context("writing an order")?;
        line.push('\n');
        // If this fails the node has ended; its last event, or the lack of one, says more.
        let _ = self.output.write_all(line.as_bytes()).and_then(|()| self.output.flush());
        Ok(())
    }

    /// The next event, if there is one.
    pub fn poll(&mut self) -> Result<Option<Event>> {
        ensure!(!Node::is_interrupted(), "interrupted");
        match self.events.try_recv() {
            Ok(Event::Failed(message)) => bail!("the {}: {message}", self.what),
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                let status = self.child.as_mut().and_then(|c| c.wait().ok()).map(|s| s.to_string());
                bail!("the {} ended early ({})", self.what, status.unwrap_or_else(|| "hung up".into()))
            }
        }
    }

    /// The next event, at most until the deadline.
    pub fn event(&mut self, deadline: Instant) -> Result<Event> {
        loop {
            if let Some(event) = self.poll()? {
                return Ok(event);
            }
            ensure!(Instant::now() < deadline, "the {} did not answer in time", self.what);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends its process a signal, where that is a process of this machine.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("this node is no process of this machine")?;
        kill(Pid::from_raw(child.id() as i32), signal)
            .with_context(|| format!("signalling the {}", self.what))
    }
}

/// The events that come by a stream.
fn listen(input: impl Read + Send + 'static) -> Receiver<Event> {
    let (sender, events) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(input).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line)
                .unwrap_or_else(|e| Event::Failed(format!("sent an unreadable line: {e}")));
            if sender.send(event).is_err() {
                break;
            }
        }
    });
    events
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
