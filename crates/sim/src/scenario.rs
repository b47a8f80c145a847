//! A scenario: network, settings, calls and faults, all in the open, so that it can be printed, changed and
//! made smaller. `generate.rs` makes one from a seed.
//!
//! ```text
//!   0 ............ active ............ probes ........ end
//!   calls and faults | the network heals | must succeed | nothing may be left
//! ```

mod generate;

use core::fmt;

use peyk_homa::{Config, Reason, TICK};

use crate::fault::plan::{Fault, FaultKind, Noise};
use crate::time::Picos;
use crate::topology::{HostId, Topology};
use crate::world::Drift;

/// One call of the traffic.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct CallPlan {
    /// When it is made.
    pub at: Picos,
    /// Who calls.
    pub client: HostId,
    /// Whom.
    pub server: HostId,
    /// Bytes of the request.
    pub request: u32,
    /// Bytes of the response.
    pub response: u32,
    /// How long the server's application takes; it holds the request meanwhile.
    pub service: Picos,
    /// The server refuses.
    pub rejection: Option<Reason>,
    /// The client gives up so long after the call.
    pub abort: Option<Picos>,
    /// The call has a deadline so long after it was made.
    pub deadline: Option<Picos>,
    /// It is made from the socket that takes requests.
    pub from_server_socket: bool,
}

/// See the module documentation.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// Where it came from; also the seed of ids, hashes and of what happens to packets.
    pub seed: u64,
    /// The network; its hosts are at most 64.
    pub topology: Topology,
    /// Settings of every host.
    pub config: Config,
    /// Pages of 64 KiB of each host's pool.
    pub pages: u32,
    /// How long calls are made and faults begin.
    pub active: Picos,
    /// Traffic.
    pub calls: Vec<CallPlan>,
    /// What happens to packets at random.
    pub noise: Noise,
    /// Everything else that goes wrong.
    pub faults: Vec<Fault>,
    /// Clocks that run otherwise, by host; those without an entry run well.
    pub drifts: Vec<Drift>,
    /// Hosts take packets and calls in batches, as [`World::set_look_after`](crate::world::World::set_look_after).
    pub look_after: Picos,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Scenario {
        generate::scenario(seed)
    }

    /// Number of hosts.
    pub fn hosts(&self) -> u16 {
        self.topology.hosts()
    }

    /// When the network heals: the time of action is over, and so are all faults.
    pub fn heal_at(&self) -> Picos {
        self.faults.iter().map(Fault::end).fold(self.active, Picos::max)
    }

    /// From healing to the probes: in this time every RPC has ended, one way or the other.
    pub fn settling(&self) -> Picos {
        let drain = Picos(self.drain().0 * 2);
        let services = self.calls.iter().map(|c| c.service);
        let limits = self.config.max_unanswered.min(self.config.max_socket_rpcs);
        let service = if limits < self.calls.len() as u32 {
            // One after the other, and each is asked for only now and then.
            let pause = Picos::from_millis(u64::from(self.config.timeout_ticks));
            services.fold(Picos::ZERO, |sum, service| sum + service + pause)
        } else {
            services.max().unwrap_or_default()
        };
        let ticks = TICK.as_nanos() as u64 * u64::from(self.config.timeout_ticks);
        Picos::from_nanos(8 * ticks) + Picos::from_millis(500) + service + drain + self.noise.lag
    }

    /// Time the slowest link needs if all messages cross it, headers included.
    pub fn drain(&self) -> Picos {
        let bytes: u64 = self.calls.iter().map(|c| u64::from(c.request) + u64::from(c.response)).sum();
        let t = &self.topology;
        let fabric = if t.racks > 1 { t.fabric_ps_per_byte() / u64::from(t.spines) } else { 0 };
        Picos(2 * bytes * t.host_ps_per_byte().max(fabric))
    }

    /// Whether a host lies at some time.
    pub fn is_liar(&self, host: HostId) -> bool {
        self.faults.iter().any(|f| matches!(f.kind, FaultKind::Lie { host: liar, .. } if liar == host))
    }

    /// Whether packets may say what nobody said: contents and identities then prove nothing, for Homa has no
    /// end-to-end check (nor has HomaModule).
    pub fn is_garbled(&self) -> bool {
        self.noise.corruption > 0.0
    }

    /// Whether every packet arrives, and everybody is there.
    pub fn is_lossless(&self) -> bool {
        let noise = &self.noise;
        noise.loss + noise.corruption == 0.0 && self.faults.is_empty() && self.topology.buffer_bytes.is_none()
    }

    /// Whether every call must get its response: packets may come late, twice, in another order, and a few
    /// may be lost; but everybody is there, honest and attentive, with memory to spare, and asks often enough
    /// for what was lost.
    pub fn is_survivable(&self) -> bool {
        let (c, noise) = (&self.config, &self.noise);
        let asks_often =
            c.timeout_ticks >= 20 * c.resend_interval && c.resend_interval_max <= c.resend_interval;
        let has_room = self.pages >= ROOMY_PAGES && c.max_unanswered > 10_000 && c.max_gaps >= 1_000;
        let comes = noise.loss <= 0.02 && noise.corruption == 0.0 && self.topology.buffer_bytes.is_none();
        // Else what is asked for again may wait in the queues of the network for longer than clients do.
        let ticks = TICK.as_nanos() as u64 * u64::from(c.timeout_ticks);
        let is_light = self.drain() + noise.lag <= Picos::from_nanos(ticks / 2);
        self.faults.is_empty() && asks_often && has_room && comes && is_light
    }
}

/// Pages that are more than any traffic generated here needs at a time.
pub const ROOMY_PAGES: u32 = 1024;

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.topology;
        writeln!(f, "scenario of seed {}, active for {}", self.seed, self.active)?;
        let (racks, per_rack, spines) = (t.racks, t.hosts_per_rack, t.spines);
        write!(f, "  {racks} rack(s) of {per_rack} hosts, {spines} spine(s), {} Mbit/s", t.host_mbps)?;
        writeln!(f, ", buffers {:?} bytes, {} pages a host", t.buffer_bytes, self.pages)?;
        let default = format!("{:#?}", Config::default());
        for (line, usual) in format!("{:#?}", self.config).lines().zip(default.lines()) {
            if line != usual {
                writeln!(f, "  setting {} (default {})", line.trim(), usual.trim())?;
            }
        }
        if !self.noise.is_none() {
            writeln!(f, "  {:?}", self.noise)?;
        }
        if self.look_after > Picos::ZERO {
            writeln!(f, "  hosts look at what happened after {}", self.look_after)?;
        }
        for (host, drift) in self.drifts.iter().enumerate() {
            if *drift != Drift::default() {
                writeln!(f, "  h{host} {drift:?}")?;
            }
        }
        for fault in &self.faults {
            writeln!(f, "  at {} for {}: {:?}", fault.at, fault.span, fault.kind)?;
        }
        for (number, c) in self.calls.iter().enumerate() {
            write!(f, "  call {number} at {}: h{} > h{}, {} bytes", c.at, c.client, c.server, c.request)?;
            write!(f, ", answered by {} bytes after {}", c.response, c.service)?;
            for (name, span) in [("abort after", c.abort), ("deadline after", c.deadline)] {
                if let Some(span) = span {
                    write!(f, ", {name} {span}")?;
                }
            }
            match c.rejection {
                Some(reason) => writeln!(f, ", refused: {reason:?}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
