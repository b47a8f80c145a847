//! The parent's side: starts nodes, waits for their events with a deadline, ends them.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{NodeEvent, NodeSpec};

/// Set when the user has asked to stop.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long one wait for an event lasts before interruption is looked at.
const SLICE: Duration = Duration::from_millis(50);

/// A running node. Dropping it ends it.
pub struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<NodeEvent>,
    what: String,
}

impl Node {
    /// From here on, waiting for a node fails.
    pub fn interrupt() {
        INTERRUPTED.store(true, Ordering::Release);
    }

    /// Whether [`Node::interrupt`] was called.
    pub fn is_interrupted() -> bool {
        INTERRUPTED.load(Ordering::Acquire)
    }

    /// Starts a node; `what` names it in errors.
    pub fn start(spec: &NodeSpec, what: &str) -> Result<Node> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .arg("demo-node")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the {what}"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line)
                    .unwrap_or_else(|e| NodeEvent::Failed(format!("sent an unreadable line: {e}")));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let mut node = Node { child, stdin: None, events, what: what.to_owned() };
        let mut line = serde_json::to_string(spec).context("writing the specification")?;
        line.push('\n');
        // If this fails the node has ended; its last event, or the lack of one, says more.
        let _ = stdin.write_all(line.as_bytes());
        node.stdin = Some(stdin);
        Ok(node)
    }

    /// The next event, at most until the deadline.
    pub fn event(&mut self, deadline: Instant) -> Result<NodeEvent> {
        loop {
            if Node::is_interrupted() {
                bail!("interrupted");
            }
            match self.events.recv_timeout(SLICE) {
                Ok(NodeEvent::Failed(message)) => bail!("the {}: {message}", self.what),
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => bail!("the {} did not finish in time", self.what),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().map(|s| s.to_string()).unwrap_or_default();
                    bail!("the {} ended early ({status})", self.what);
                }
            }
        }
    }

    /// Tells a server to finish.
    pub fn stop(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(b"stop\n");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Closing its standard input would do, but not at once if it is stuck.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
