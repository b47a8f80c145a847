//! One experiment: which network, which load, which transport, and what is to be measured; with the settings
//! of the published ones.

mod build;
mod stage;

use peyk_homa::{Config, Pacing};

pub use build::Transport;
use stage::Scene;

use crate::host::homa::Carriage;
use crate::host::{OneWay, srpt, window};
use crate::incast::{self, IncastResult, IncastSpec};
use crate::load::{self, LoadResult, LoadSpec, Progress};
use crate::port::QueueStats;
use crate::topology::Topology;
use crate::workload::{Encoding, Name, Sizes};
use crate::world::World;

/// An experiment. See the module documentation.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The transport.
    pub transport: Transport,
    /// The network. Where it says nothing of buffers, they are as the transport needs them
    /// ([`Transport::network`]).
    pub topology: Topology,
    /// Sizes of messages.
    pub sizes: Sizes,
    /// Payload each host sends on average, as a share of its link.
    pub payload_load: f64,
    /// Messages measured, over all hosts.
    pub messages: u64,
    /// Messages before these, not measured.
    pub warmup: u64,
    /// Longest wait for the last of them, as a multiple of the time it took to create all.
    pub drain: f64,
    /// Seed of everything.
    pub seed: u64,
    /// Homa's settings.
    pub homa: Config,
    /// How Homa's bytes are counted.
    pub carriage: Carriage,
    /// Settings of [`Transport::Tcp`] and, with its gain, [`Transport::Dctcp`]; the number of connections is the
    /// transport's.
    pub window: window::Settings,
    /// Settings of [`Transport::Srpt`].
    pub srpt: srpt::Settings,
}

/// What came of an experiment.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Messages and time.
    pub load: LoadResult,
    /// Queues at the links to hosts.
    pub downlinks: QueueStats,
    /// Queues at the links between switches.
    pub fabric: QueueStats,
    /// Share of the time of the links to hosts that was wasted: the link had nothing to send while its host
    /// withheld grants from some message.
    pub wasted_bandwidth: f64,
    /// Share of the time of the links to hosts in which they sent.
    pub utilisation: f64,
}

/// What came of an incast.
#[derive(Clone, Debug)]
pub struct IncastOutcome {
    /// Messages and time.
    pub incast: IncastResult,
    /// Queues at the links to hosts.
    pub downlinks: QueueStats,
    /// Queues at the links between switches.
    pub fabric: QueueStats,
}

/// Levels for unscheduled data in the released configurations of the SIGCOMM'18 simulations, as the largest
/// messages of each level but the lowest, highest level first.
pub fn published_cutoffs(workload: Name) -> &'static [u32] {
    match workload {
        Name::W1 => &[11, 131, 280, 489, 794, 1_360],
        Name::W2 => &[269, 366, 512, 1_463],
        Name::W3 => &[433, 2_357, 6_906],
        Name::W4 | Name::W5 => &[],
    }
}

/// A table of cutoffs by priority of which the highest levels have these largest messages and one more, the
/// lowest for unscheduled data, has the rest.
pub fn cutoff_table(cutoffs: &[u32], levels: u8) -> [u32; 8] {
    let mut table = [0; 8];
    let mut level = usize::from(levels.clamp(1, 8)) - 1;
    for &cutoff in cutoffs.iter().take(level) {
        table[level] = cutoff;
        level -= 1;
    }
    table[level] = u32::MAX >> 1;
    table
}

/// Ticks before a RESEND that no experiment lasts.
pub const NO_TIMERS: u32 = 900_000;

/// Homa as the SIGCOMM'18 simulations had it: strict SRPT, a grant for each packet, fixed cutoffs, unscheduled
/// priorities by the bytes left, the last grants of a message raised, no timers in a network that loses
/// nothing.
pub fn published_homa(workload: Name) -> Config {
    let cutoffs = published_cutoffs(workload);
    let scheduled_levels = 8 - (cutoffs.len() as u32 + 1);
    Config {
        unsched_bytes: 9_328,
        window: 10_000,
        max_incoming: 100_000_000,
        max_overcommit: scheduled_levels.max(1),
        grant_fifo_fraction: 0,
        pacer_fifo_fraction: 0,
        unsched_cutoffs: cutoff_table(cutoffs, 8),
        adaptive_cutoffs: false,
        unsched_by_remaining: true,
        tail_boost_bytes: 10_000,
        link_mbps: 10_000,
        // IP, UDP and DATA headers around 1,442 bytes.
        mtu: 1_442 + 20 + 8 + 56,
        resend_ticks: NO_TIMERS,
        timeout_ticks: 999_999,
        ..simulated()
    }
}

/// Limits far out of the way, and no pacing: a simulated network card asks for a packet when it is free.
pub fn simulated() -> Config {
    Config {
        pacing: Pacing::Off,
        max_message: 40_000_000,
        wmem_max: u64::MAX / 4,
        max_send_bytes: u64::MAX / 4,
        unreachable_packets: false,
        ..Config::default()
    }
}

impl Experiment {
    /// The published experiment: 144 hosts, this workload, this share of the network's capacity; with Homa.
    /// Other transports get the same messages.
    pub fn published(workload: Name, load: f64, messages: u64, seed: u64) -> Experiment {
        Experiment {
            transport: Transport::Homa,
            topology: Topology::default(),
            sizes: Sizes::of(workload, Encoding::Simulation, 1),
            payload_load: load * workload.payload_share(),
            messages,
            warmup: messages / 10,
            drain: 1.0,
            seed,
            homa: published_homa(workload),
            carriage: Carriage { contents: false, data_header_bytes: 30 },
            window: window::Settings::default(),
            srpt: srpt::Settings::default(),
        }
    }

    /// Runs it. `watch` as in [`load::run`].
    pub fn run(&self, watch: impl FnMut(Progress) -> bool) -> Outcome {
        let spec = LoadSpec {
            sizes: self.sizes.clone(),
            payload_bytes_per_sec: self.payload_load * f64::from(self.topology.host_mbps) * 125_000.0,
            warmup: self.warmup,
            messages: self.messages,
            drain: self.drain,
            seed: self.seed ^ 2,
        };
        self.stage(UnderLoad { spec, watch })
    }

    /// Runs an incast in its network with its transport instead of its load. `watch` as in [`load::run`].
    pub fn run_incast(&self, spec: IncastSpec, watch: impl FnMut(Progress) -> bool) -> IncastOutcome {
        self.stage(Incast { spec, watch })
    }
}

struct UnderLoad<W> {
    spec: LoadSpec,
    watch: W,
}

impl<W: FnMut(Progress) -> bool> Scene for UnderLoad<W> {
    type Output = Outcome;

    fn play<H: OneWay>(self, mut world: World<H>) -> Outcome {
        let load = load::run(&mut world, self.spec, self.watch);
        let time = load.span.as_secs_f64() * f64::from(world.hosts());
        Outcome {
            wasted_bandwidth: load.counters.wasted.as_secs_f64() / time,
            utilisation: 1.0 - load.counters.idle.as_secs_f64() / time,
            downlinks: world.downlink_stats(),
            fabric: world.fabric_stats(),
            load,
        }
    }
}

struct Incast<W> {
    spec: IncastSpec,
    watch: W,
}

impl<W: FnMut(Progress) -> bool> Scene for Incast<W> {
    type Output = IncastOutcome;

    fn play<H: OneWay>(self, mut world: World<H>) -> IncastOutcome {
        let incast = incast::run(&mut world, self.spec, self.watch);
        IncastOutcome { incast, downlinks: world.downlink_stats(), fabric: world.fabric_stats() }
    }
}
