//! The outcome of a cluster run; its JSON form is this structure.

use serde::Serialize;

use peyk_sim::workload::{Name, Sizes};

use super::{
    crew::Loaded,
    run::{Case, Trouble},
};
use crate::{
    load::{
        Baseline, LoadPlan, LoadResult, Measured, Share, quantile,
        result::{cdf, shares},
    },
    testbed::{Rate, Testbed},
    verify::Executed,
};

/// The ends of the groups of sizes in percent of the messages.
const PERCENTS: [f64; 11] = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0, 100.0];

/// Everything a cluster run has found out.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Hosts, each client and server.
    pub hosts: usize,
    /// Rate of each direction of each link in Mbit/s.
    #[serde(rename = "rate_mbit")]
    pub rate: Rate,
    /// Payload that each host sends, as a share of the rate.
    pub load: f64,
    /// The workload.
    pub workload: Name,
    /// Time of a full frame on a link, in microseconds.
    pub frame_us: f64,
    /// Seconds of each run that were measured.
    pub seconds: f64,
    /// Packets that a queue of the testbed holds; `None` on other networks.
    pub queue: Option<u32>,
    /// Share of packets lost on purpose at each port of the switch.
    pub loss: f64,
    /// Bytes of a message that Homa sent without a grant, where they were given.
    pub unscheduled: Option<u32>,
    /// Bytes left above which Homa served the oldest message first, where they were given.
    pub srpt_limit: Option<u32>,
    /// Seed.
    pub seed: u64,
    /// CPUs of this machine.
    pub cpus: usize,
    /// The transport whose unloaded round trips slowdowns are relative to.
    pub reference: String,
    /// One entry per run, in order.
    pub runs: Vec<Run>,
}

/// Best round trips of a transport while nothing else is sent.
#[derive(Clone, Debug, Serialize)]
pub struct Unloaded {
    /// Size in bytes, nanoseconds.
    #[serde(flatten)]
    pub baseline: Baseline,
}

/// Round trips of a group of messages in microseconds.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct Trips {
    /// Messages.
    pub count: usize,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// Packets that the testbed dropped.
#[derive(Copy, Clone, Default, Debug, Serialize)]
pub struct Drops {
    /// In the hosts, because a queue was full.
    pub hosts: u64,
    /// In the switch, because a queue was full.
    pub switch: u64,
    /// In the switch, on purpose.
    pub on_purpose: u64,
    /// Bytes that left the hosts.
    pub bytes: u64,
}

impl Drops {
    /// Up to this moment; nothing where the network is not ours.
    pub fn so_far(testbed: Option<&Testbed>) -> anyhow::Result<Drops> {
        let mut drops = Drops::default();
        for port in testbed.map(Testbed::ports).transpose()?.unwrap_or_default() {
            match port.switch {
                true => drops.switch += port.dropped(),
                false => {
                    drops.hosts += port.dropped();
                    drops.bytes += port.bytes;
                }
            }
            drops.on_purpose += port.lost;
        }
        Ok(drops)
    }

    /// What was added since then.
    pub fn since(self, before: &Drops) -> Drops {
        Drops {
            hosts: self.hosts - before.hosts,
            switch: self.switch - before.switch,
            on_purpose: self.on_purpose - before.on_purpose,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What carried the messages.
    pub transport: String,
    /// What was special about it.
    pub variant: String,
    /// Connections for each pair of hosts; Homa has none.
    pub connections: usize,
    /// By shares of the messages.
    pub points: Vec<Share>,
    /// By fortieths of the messages.
    pub curve: Vec<Share>,
    /// The shortest tenth of the messages.
    pub shortest_tenth: Option<Trips>,
    /// The shortest half.
    pub shortest_half: Option<Trips>,
    /// Round trips of the shortest tenth: microseconds, share of messages that took no longer.
    pub cdf_short: Vec<(f64, f64)>,
    /// The same of the shortest half.
    pub cdf_half: Vec<(f64, f64)>,
    /// Payload delivered to each host in Mbit/s: requests and responses.
    pub goodput_mbit_per_host: f64,
    /// Payload that became due, counted likewise.
    pub offered_mbit_per_host: f64,
    /// How busy the CPUs of this machine were while messages became due.
    pub cpu_percent: f64,
    /// CPU time of all nodes for a gigabyte of payload, in seconds.
    pub cpu_seconds_per_gb: f64,
    /// Messages sent.
    pub sent: u64,
    /// Messages without an answer, those to a host that was killed aside.
    pub lost: u64,
    /// Messages to a host that was killed, without an answer.
    pub lost_to_dead: u64,
    /// Messages that became due but were held back by the cap on outstanding ones, for good.
    pub unsent: u64,
    /// Responses or requests that were damaged.
    pub corrupt: u64,
    /// Requests executed more than once.
    pub executed_twice: u64,
    /// Packets or segments sent again.
    pub retransmitted: u64,
    /// Packets that the testbed dropped.
    pub drops: Drops,
    /// Largest time by which a message was sent later than due, in microseconds.
    pub lag_p99_us: f64,
    /// The transport's own best round trips, nanoseconds by size.
    pub unloaded: Unloaded,
    /// What shared the links.
    pub beside: Option<Box<Run>>,
    /// Particulars.
    pub note: String,
}

impl Run {
    /// From what all nodes have measured.
    pub fn new(
        case: &Case,
        plan: &LoadPlan,
        sizes: &Sizes,
        hosts: usize,
        loaded: Loaded,
        unloaded: &Unloaded,
        served: &[Executed],
    ) -> Run {
        let Loaded { measured, usage } = loaded;
        let by_size = measured.by_size.clone();
        let counts = measured.counts.clone();
        let seconds = (plan.duration_ms - plan.warmup_ms) as f64 / 1e3;
        // Requests and responses are of the same size, and both are delivered to some host.
        let per_host = |bytes: u64| 2.0 * bytes as f64 * 8.0 / 1e6 / seconds / hosts as f64;
        let lost_to_dead = lost_to_dead(case, &measured, hosts);
        let result = LoadResult::new(plan, sizes, measured);
        let delivered = (result.goodput_gbps * 1e9 / 8.0 * seconds) as u64;
        let group = |share: f64| {
            let last = sizes.index_of(sizes.quantile(share)).min(by_size.len().saturating_sub(1));
            &by_size[..(last + 1).min(by_size.len())]
        };
        let corrupt = result.corrupt + served.iter().map(|s| s.corrupt).sum::<u64>();
        Run {
            transport: case.transport.name().to_owned(),
            variant: case.variant.clone(),
            connections: case.transport.connections(),
            points: shares(sizes, &by_size, &plan.baseline, &PERCENTS),
            curve: result.curve,
            shortest_tenth: trips(group(0.1)),
            shortest_half: trips(group(0.5)),
            cdf_short: cdf(group(0.1)),
            cdf_half: cdf(group(0.5)),
            goodput_mbit_per_host: per_host(delivered),
            offered_mbit_per_host: per_host(counts.due_bytes),
            cpu_percent: 0.0,
            cpu_seconds_per_gb: usage.cpu_seconds * 1e9 / (2 * delivered).max(1) as f64,
            sent: counts.sent,
            lost: result.lost - lost_to_dead.min(result.lost),
            lost_to_dead,
            unsent: counts.unsent,
            corrupt: corrupt + counts.unexpected,
            executed_twice: served.iter().map(|s| s.executed_twice).sum(),
            retransmitted: usage.retransmitted,
            drops: Drops::default(),
            lag_p99_us: result.lag_p99_us,
            unloaded: unloaded.clone(),
            beside: None,
            note: String::new(),
        }
    }

    /// Name and variant.
    pub fn title(&self) -> String {
        match self.variant.as_str() {
            "" => self.transport.clone(),
            variant => format!("{} {variant}", self.transport),
        }
    }

    /// Whether every message came back once, whole, and was executed once.
    pub fn is_clean(&self) -> bool {
        self.lost + self.unsent + self.corrupt + self.executed_twice == 0
    }
}

/// Messages without an answer that went to the host which was killed. Targets are counted without the sender's own place,
/// so a place may be one lower in the count.
fn lost_to_dead(case: &Case, measured: &Measured, hosts: usize) -> u64 {
    let Some(Trouble::Kill { place, .. }) = case.trouble else { return 0 };
    // The last host: for every other sender it is the last target.
    debug_assert_eq!(place, hosts - 1);
    measured.counts.lost_to.get(&(hosts - 2)).copied().unwrap_or(0)
}

fn trips(lists: &[Vec<u64>]) -> Option<Trips> {
    let mut all: Vec<u64> = lists.iter().flatten().copied().collect();
    all.sort_unstable();
    let us = |q| quantile(&all, q).map(|ns| ns as f64 / 1e3);
    Some(Trips { count: all.len(), p50_us: us(0.5)?, p99_us: us(0.99)? })
}
