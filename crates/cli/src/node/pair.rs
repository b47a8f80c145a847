//! One server and one client, from start to result.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Carrier, HomaOptions, Job, Node, NodeEvent, NodeSpec};
use crate::{
    bench_traffic::{FixedPlan, FixedResult},
    load::{LoadPlan, LoadResult, Progress},
    transport::tcp::Waiting,
    verify::Executed,
};

/// How the two nodes of a pair are set up.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Name for errors.
    pub name: String,
    /// Transport.
    pub carrier: Carrier,
    /// Connections, where the transport has them.
    pub connections: usize,
    /// What to do when there is nothing to do.
    pub waiting: Waiting,
    /// Whether to use IPv6.
    pub ipv6: bool,
    /// Whether the client stays on the first CPU and the server on the second.
    pub pinned: bool,
    /// For Homa.
    pub homa: HomaOptions,
}

/// Time allowed for starting and ending.
const GRACE: Duration = Duration::from_secs(10);

impl Pair {
    /// Runs a load; also gives what the server counted and a note from the client.
    pub fn load(
        &self,
        plan: LoadPlan,
        progress: impl FnMut(Progress),
    ) -> Result<(LoadResult, Executed, String)> {
        let time = Duration::from_millis(plan.duration_ms + 2 * plan.drain_ms);
        let (outcome, executed, note) =
            self.run(Job::ServeChecked, time, progress, |server| Job::Load { server, plan })?;
        match outcome {
            NodeEvent::Loaded(result) => Ok((*result, executed, note)),
            other => bail!("unexpected event {other:?}"),
        }
    }

    /// Runs a closed loop of one size; also gives what the server counted.
    pub fn fixed(&self, plan: FixedPlan) -> Result<(FixedResult, Executed)> {
        let time = Duration::from_millis(plan.warmup_ms + plan.measure_ms);
        let (outcome, executed, _) =
            self.run(Job::ServePlain, time, |_| (), |server| Job::Fixed { server, plan })?;
        match outcome {
            NodeEvent::Looped(result) => Ok((result, executed)),
            other => bail!("unexpected event {other:?}"),
        }
    }

    fn run(
        &self,
        serve: Job,
        time: Duration,
        mut progress: impl FnMut(Progress),
        job: impl FnOnce(String) -> Job,
    ) -> Result<(NodeEvent, Executed, String)> {
        let deadline = Instant::now() + time + GRACE;
        let mut server = Node::start(&self.spec(serve, 1), &format!("{} server", self.name))?;
        let address = match server.event(deadline)? {
            NodeEvent::Ready { address } => address,
            other => bail!("unexpected event {other:?}"),
        };
        let mut client = Node::start(&self.spec(job(address), 0), &format!("{} client", self.name))?;
        let mut note = String::new();
        let outcome = loop {
            match client.event(deadline)? {
                NodeEvent::Progress(so_far) => progress(so_far),
                NodeEvent::Note(text) => note = text,
                other => break other,
            }
        };
        server.stop();
        drop(client);
        match server.event(deadline)? {
            NodeEvent::Served(executed) => Ok((outcome, executed, note)),
            other => bail!("unexpected event {other:?}"),
        }
    }

    fn spec(&self, job: Job, cpu: usize) -> NodeSpec {
        NodeSpec {
            carrier: self.carrier,
            connections: self.connections,
            waiting: self.waiting,
            ipv6: self.ipv6,
            cpu: self.pinned.then_some(cpu),
            homa: self.homa.clone(),
            job,
        }
    }
}
