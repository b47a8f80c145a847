//! What came of a simulated experiment, as it is shown and as it is written: the JSON form is this structure.

use peyk_sim::{
    experiment::{IncastOutcome, Outcome},
    incast::IncastSpec,
    load::LoadResult,
    measure::{self, Point},
    port::QueueStats,
};
use serde::{Deserialize, Serialize};

use super::spec::Spec;

/// Percentages of the messages at which slowdowns are given.
const PERCENTS: [f64; 13] = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.9, 100.0];

/// Backlog at the end, as a multiple of that at half time, from which a load counts as too high: what grows all
/// the time has doubled.
const GROWTH: f64 = 1.5;

/// One experiment and what came of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// The workload, or the name of the file with its sizes.
    pub workload: String,
    /// Share of the network that was asked for.
    pub load: f64,
    /// Hosts.
    pub hosts: u16,
    /// The seed.
    pub seed: u64,
    /// The transport.
    pub transport: String,
    /// Messages measured and delivered.
    pub messages: u64,
    /// Messages to measure that were not delivered.
    pub incomplete: u64,
    /// Slowdown at some shares of the messages; empty for an incast.
    pub points: Vec<Point>,
    /// Slowdown at every percent of the messages.
    pub curve: Vec<Point>,
    /// Geometric mean of the medians over the curve.
    pub p50_geometric_mean: f64,
    /// The same of the 99th percentiles.
    #[serde(default)]
    pub p99_geometric_mean: f64,
    /// Queues at the links to hosts.
    pub tor_queue_bytes: Queue,
    /// Queues at the links between switches.
    pub fabric_queue_bytes: Queue,
    /// Share of the links to hosts that stood idle while their host withheld grants.
    pub wasted_bandwidth: f64,
    /// Share of the links to hosts in use, all bytes counted.
    pub utilisation: f64,
    /// Payload delivered in the measured time, as a share of what was offered.
    pub delivered_share: f64,
    /// Messages under way when half of the measured ones had been created, and when all had.
    pub backlog: [u64; 2],
    /// Whether the backlog did not grow.
    pub sustained: bool,
    /// An incast's figures.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incast: Option<Incast>,
    /// Checks that failed.
    pub violations: u64,
    /// Which.
    pub violation_kinds: Violations,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Virtual time of the whole run.
    pub virtual_seconds: f64,
    /// Time it took.
    pub wall_seconds: f64,
    /// Links crossed by packets.
    pub packet_hops: u64,
    /// The same in a second of real time.
    pub packet_hops_per_second: f64,
    /// Most memory of the process until then.
    pub peak_memory_bytes: u64,
    /// What was asked for.
    pub spec: Spec,
}

/// Lengths of queues as packets found them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Queue {
    /// Mean bytes.
    pub mean: f64,
    /// Most bytes.
    pub max: u64,
    /// Packets dropped for want of room.
    pub drops: u64,
    /// Packets marked as having met congestion.
    pub marks: u64,
    /// By priority, the highest first, if switches serve by priority; those without packets left out.
    pub by_priority: Vec<Level>,
}

/// The queues of one priority.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Level {
    /// 0 to 7.
    pub priority: u8,
    /// Packets that came.
    pub packets: u64,
    /// Mean bytes of this priority that they found.
    pub mean: f64,
    /// Most bytes of this priority.
    pub max: u64,
}

/// Checks that failed.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Violations {
    /// Messages delivered again.
    pub duplicates: u64,
    /// Messages that the transport refused.
    pub refused: u64,
    /// Messages that a silent network had not delivered.
    pub lost: u64,
    /// Packets neither delivered nor dropped.
    pub unaccounted: u64,
}

/// What came of an incast.
#[derive(Copy, Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Incast {
    /// Messages of a round.
    pub senders: u32,
    /// Bytes of each.
    pub message_bytes: u32,
    /// Rounds that came to an end.
    pub rounds: u32,
    /// Payload the receiver got.
    pub gbps: f64,
    /// The longest round.
    pub slowest_round_us: f64,
}

/// What a run cost.
#[derive(Copy, Clone, Debug, Default)]
pub struct Cost {
    /// Real time.
    pub seconds: f64,
    /// Links crossed by packets.
    pub hops: u64,
    /// Whether it was interrupted.
    pub interrupted: bool,
}

impl RunResult {
    /// Of a load.
    pub fn of_load(spec: &Spec, payload_load: f64, outcome: Outcome, cost: Cost) -> RunResult {
        let mut load = outcome.load;
        let curve: Vec<f64> = (1..=100).map(f64::from).collect();
        let curve = measure::points(&mut load.samples, &curve);
        let points = measure::points(&mut load.samples, &PERCENTS);
        let mbps = f64::from(spec.host_mbps.unwrap_or(10_000));
        let offered = payload_load * mbps * 125_000.0 * f64::from(spec.hosts()) * load.span.as_secs_f64();
        let violations = violations(&load);
        RunResult {
            messages: load.samples.len() as u64,
            incomplete: load.incomplete,
            p50_geometric_mean: geometric_mean(curve.iter().map(|p| p.p50_slowdown)),
            p99_geometric_mean: geometric_mean(curve.iter().map(|p| p.p99_slowdown)),
            points,
            curve,
            wasted_bandwidth: finite(outcome.wasted_bandwidth),
            utilisation: finite(outcome.utilisation),
            delivered_share: finite(load.delivered_bytes as f64 / offered),
            backlog: [load.backlog_at_half, load.backlog_at_end],
            sustained: load.backlog_at_end as f64 <= GROWTH * load.backlog_at_half as f64 + 10.0,
            virtual_seconds: load.total.as_secs_f64(),
            violation_kinds: violations,
            violations: violations.sum(),
            ..RunResult::blank(spec, spec.workload_name(), &outcome.downlinks, &outcome.fabric, cost)
        }
    }

    /// Of an incast.
    pub fn of_incast(spec: &Spec, asked: IncastSpec, outcome: &IncastOutcome, cost: Cost) -> RunResult {
        let result = &outcome.incast;
        let done = result.rounds.len() as u64 * u64::from(asked.messages);
        let all = u64::from(asked.rounds) * u64::from(asked.messages);
        let lost = if cost.interrupted { 0 } else { result.incomplete };
        let violations = Violations {
            duplicates: result.duplicates,
            refused: result.refused,
            lost,
            unaccounted: result.unaccounted,
        };
        let slowest = result.rounds.iter().copied().max().unwrap_or_default();
        RunResult {
            load: 0.0,
            messages: done,
            incomplete: all - done,
            incast: Some(Incast {
                senders: asked.messages,
                message_bytes: asked.bytes,
                rounds: result.rounds.len() as u32,
                gbps: result.gbps(),
                slowest_round_us: slowest.as_micros_f64(),
            }),
            sustained: true,
            virtual_seconds: result.rounds.iter().map(|t| t.as_secs_f64()).sum(),
            violation_kinds: violations,
            violations: violations.sum(),
            ..RunResult::blank(spec, "incast".into(), &outcome.downlinks, &outcome.fabric, cost)
        }
    }

    fn blank(spec: &Spec, workload: String, down: &QueueStats, fabric: &QueueStats, cost: Cost) -> RunResult {
        RunResult {
            workload,
            load: spec.load(),
            hosts: spec.hosts(),
            seed: spec.seed(),
            transport: spec.transport_name().to_owned(),
            messages: 0,
            incomplete: 0,
            points: Vec::new(),
            curve: Vec::new(),
            p50_geometric_mean: 0.0,
            p99_geometric_mean: 0.0,
            tor_queue_bytes: Queue::of(down),
            fabric_queue_bytes: Queue::of(fabric),
            wasted_bandwidth: 0.0,
            utilisation: 0.0,
            delivered_share: 0.0,
            backlog: [0; 2],
            sustained: false,
            incast: None,
            violations: 0,
            violation_kinds: Violations::default(),
            interrupted: cost.interrupted,
            virtual_seconds: 0.0,
            wall_seconds: cost.seconds,
            packet_hops: cost.hops,
            packet_hops_per_second: finite(cost.hops as f64 / cost.seconds),
            peak_memory_bytes: peak_memory(),
            spec: spec.clone(),
        }
    }

    /// The slowdown at a share of the messages, in percent.
    pub fn point(&self, percent: f64) -> Option<&Point> {
        self.points.iter().find(|p| (p.percent - percent).abs() < 1e-6)
    }

    /// A figure by name, as plans draw it.
    pub fn figure(&self, name: &str) -> Option<f64> {
        match name {
            "p50_mean" => (self.p50_geometric_mean > 0.0).then_some(self.p50_geometric_mean),
            "p99_mean" => (self.p99_geometric_mean > 0.0).then_some(self.p99_geometric_mean),
            "wasted_bandwidth" => Some(self.wasted_bandwidth),
            "utilisation" => Some(self.utilisation),
            "delivered_share" => Some(self.delivered_share),
            "tor_queue_mean" => Some(self.tor_queue_bytes.mean),
            "tor_queue_max" => Some(self.tor_queue_bytes.max as f64),
            "gbps" => self.incast.map(|i| i.gbps),
            _ => {
                let percent = name.strip_prefix("p99_at_")?.parse().ok()?;
                self.point(percent).map(|p| p.p99_slowdown)
            }
        }
    }
}

impl Queue {
    fn of(stats: &QueueStats) -> Queue {
        let level = |priority: usize| Level {
            priority: priority as u8,
            packets: stats.arrivals_by_priority[priority],
            mean: stats.mean_bytes_of(priority),
            max: stats.max_by_priority[priority],
        };
        let levels = (0..stats.arrivals_by_priority.len()).rev().map(level);
        Queue {
            mean: stats.mean_bytes(),
            max: stats.max_bytes,
            drops: stats.drops,
            marks: stats.marks,
            by_priority: levels.filter(|l| l.packets > 0).collect(),
        }
    }
}

impl Violations {
    /// All of them.
    pub fn sum(self) -> u64 {
        self.duplicates + self.refused + self.lost + self.unaccounted
    }
}

fn violations(load: &LoadResult) -> Violations {
    Violations {
        duplicates: load.duplicates,
        refused: load.refused,
        lost: load.lost,
        unaccounted: load.unaccounted,
    }
}

fn geometric_mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    if count == 0 { 0.0 } else { (values.map(f64::ln).sum::<f64>() / count as f64).exp() }
}

/// JSON knows no infinities.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

/// Most memory this process has had, in bytes.
fn peak_memory() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.map_or(0, |u| u.max_rss() as u64 * 1024)
}
