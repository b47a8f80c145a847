//! All nodes of one transport: started, connected, loaded and stopped together.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::{Event, Order, Spec, Transport, Usage, carrier, remote::Remote};
use crate::{
    load::{LoadPlan, Measured, Progress},
    node::HomaOptions,
    verify::Executed,
};

/// Time allowed for starting, connecting and ending.
const GRACE: Duration = Duration::from_secs(20);

/// What one node is to send.
pub struct Assignment {
    /// The load.
    pub plan: LoadPlan,
    /// To the nodes at these places.
    pub targets: Vec<usize>,
}

/// What happens to a node in the middle of a load.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Disturbance {
    /// It is killed after so long.
    Kill {
        /// Its place.
        place: usize,
        /// When.
        after: Duration,
    },
    /// It is stopped again and again, and so is slow to receive.
    Stutter {
        /// Its place.
        place: usize,
        /// For so long.
        stopped: Duration,
        /// With so long in between.
        running: Duration,
    },
}

/// What came of a load, over all nodes.
#[derive(Default)]
pub struct Loaded {
    /// What the clients measured.
    pub measured: Measured,
    /// What it took.
    pub usage: Usage,
}

/// Nodes that are connected to each other.
pub struct Crew<'a> {
    nodes: &'a mut [Remote],
    gone: Vec<bool>,
    /// Congestion control, kernel interface, or other particulars.
    pub note: String,
}

impl<'a> Crew<'a> {
    /// Starts a transport on all nodes.
    pub fn start(
        nodes: &'a mut [Remote],
        ips: &[IpAddr],
        transport: Transport,
        homa: &HomaOptions,
    ) -> Result<Crew<'a>> {
        let identity = (transport == Transport::Quinn).then(carrier::identity).transpose()?;
        for (index, (node, &ip)) in nodes.iter_mut().zip(ips).enumerate() {
            let (nodes, homa, identity) = (ips.len(), homa.clone(), identity.clone());
            node.tell(&Spec { index, nodes, ip, transport, homa, identity })?;
        }
        let deadline = Instant::now() + GRACE;
        let mut addresses = Vec::new();
        let mut first_note = String::new();
        for node in nodes.iter_mut() {
            match node.event(deadline)? {
                Event::Ready { address, note } => {
                    addresses.push(address);
                    first_note = note;
                }
                other => bail!("unexpected event {other:?}"),
            }
        }
        for node in nodes.iter_mut() {
            node.tell(&Order::Connect { addresses: addresses.clone() })?;
        }
        for node in nodes.iter_mut() {
            let event = node.event(deadline)?;
            ensure!(matches!(event, Event::Connected), "unexpected event {event:?}");
        }
        let gone = vec![false; nodes.len()];
        Ok(Crew { nodes, gone, note: first_note })
    }

    /// Starts a load; `None` for those that only serve.
    pub fn begin(&mut self, assignments: Vec<Option<Assignment>>) -> Result<Loading> {
        let begun = Instant::now();
        let mut time = Duration::ZERO;
        let mut waiting = vec![false; self.nodes.len()];
        for (place, (node, assignment)) in self.nodes.iter_mut().zip(assignments).enumerate() {
            if let Some(Assignment { plan, targets }) = assignment {
                time = time.max(Duration::from_millis(plan.duration_ms + plan.drain_ms));
                node.tell(&Order::Load { plan, targets })?;
                waiting[place] = true;
            }
        }
        Ok(Loading { begun, deadline: begun + time + GRACE, waiting, loaded: Loaded::default() })
    }

    /// Takes what the nodes say; true if all are done.
    pub fn poll(&mut self, loading: &mut Loading, progress: &mut dyn FnMut(Progress)) -> Result<bool> {
        for (place, node) in self.nodes.iter_mut().enumerate() {
            while loading.waiting[place] && !self.gone[place] {
                match node.poll()? {
                    None => break,
                    Some(Event::Progress(so_far)) => progress(so_far),
                    Some(Event::Loaded { measured, usage }) => {
                        loading.loaded.measured.add(*measured);
                        loading.loaded.usage.add(usage);
                        loading.waiting[place] = false;
                    }
                    Some(other) => bail!("unexpected event {other:?}"),
                }
            }
        }
        ensure!(Instant::now() < loading.deadline, "a load did not end in time");
        Ok((0..self.nodes.len()).all(|place| !loading.waiting[place] || self.gone[place]))
    }

    /// Does to a node what is to happen to it by now.
    pub fn disturb(&mut self, loading: &Loading, disturbance: Disturbance) -> Result<()> {
        let elapsed = loading.begun.elapsed();
        match disturbance {
            Disturbance::Kill { place, after } if elapsed >= after && !self.gone[place] => {
                self.gone[place] = true;
                self.nodes[place].signal(Signal::SIGKILL)
            }
            Disturbance::Kill { .. } => Ok(()),
            Disturbance::Stutter { place, stopped, running } => {
                let phase = elapsed.as_micros() % (stopped + running).as_micros();
                let signal = if phase < running.as_micros() { Signal::SIGCONT } else { Signal::SIGSTOP };
                self.nodes[place].signal(signal)
            }
        }
    }

    /// Lets a node go on that was stopped.
    pub fn resume(&self, place: usize) -> Result<()> {
        self.nodes[place].signal(Signal::SIGCONT)
    }

    /// Ends the transport; gives what each server saw.
    pub fn stop(self) -> Result<Vec<Executed>> {
        let Crew { nodes, gone, .. } = self;
        let deadline = Instant::now() + GRACE;
        let mut served = Vec::new();
        let alive = || gone.iter().enumerate().filter(|(_, gone)| !**gone).map(|(place, _)| place);
        for place in alive() {
            nodes[place].tell(&Order::Stop)?;
        }
        for place in alive() {
            match nodes[place].event(deadline).context("ending")? {
                Event::Stopped(executed) => served.push(executed),
                other => bail!("unexpected event {other:?}"),
            }
        }
        Ok(served)
    }
}

/// A load that is under way.
pub struct Loading {
    begun: Instant,
    deadline: Instant,
    waiting: Vec<bool>,
    /// What has come so far.
    pub loaded: Loaded,
}
