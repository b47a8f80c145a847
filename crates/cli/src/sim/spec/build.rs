//! From what was asked for to an experiment: what cannot be is refused, what was not said has its default.

use anyhow::{Context, Result, bail, ensure};
use peyk_sim::{
    cutoffs,
    experiment::{Experiment, Transport, cutoff_table, simulated},
    host::homa::Carriage,
    topology::Topology,
    workload::{Encoding, Name, Sizes},
};

use super::{By, Kind, Settings, Spec};

/// Bytes of a message that the published settings send without a grant, and that their last grants raise.
const RTT_BYTES: (u32, u32) = (9_328, 10_000);

impl Spec {
    /// The experiment, and how much work it is in packets.
    ///
    /// # Errors
    /// What cannot be, in words.
    pub fn experiment(&self) -> Result<(Experiment, f64)> {
        self.check()?;
        let transport: Transport = self.transport_name().parse().map_err(anyhow::Error::msg)?;
        let sizes = self.message_sizes()?;
        let payload_share = match self.workload() {
            Some(workload) if !self.capped => workload.payload_share(),
            _ => sizes.payload_share(),
        };
        let packets = |messages: f64| messages * (2.0 + sizes.mean() / 700.0);
        let work = match self.kind {
            Kind::Load => packets(self.messages() as f64),
            Kind::Incast => {
                let incast = self.incast();
                f64::from(incast.rounds) * f64::from(incast.messages) * f64::from(incast.bytes) / 700.0
            }
        };
        let workload = self.workload().unwrap_or(Name::W4);
        let mut experiment = Experiment::published(workload, self.load(), self.messages(), self.seed());
        experiment.payload_load = self.load() * payload_share;
        experiment.warmup = self.warmup.unwrap_or(experiment.warmup);
        experiment.transport = transport;
        experiment.carriage = self.carriage();
        experiment.sizes = sizes;
        self.shape(&mut experiment.topology);
        self.adjust_homa(&mut experiment);
        experiment.drain = self.drain.unwrap_or(experiment.drain);
        experiment.window.one_path = !self.spray;
        if let Some(us) = self.min_rto_us {
            experiment.window.min_rto_ns = u64::from(us) * 1_000;
        }
        if let Some(problem) = experiment.topology.problem() {
            bail!("{problem}");
        }
        Ok((experiment, work))
    }

    fn check(&self) -> Result<()> {
        let load = self.load();
        ensure!(load > 0.0 && load <= 1.0, "a load of {load}: it is a share of the network, as 0.8");
        let hosts = self.hosts();
        ensure!((2..=4096).contains(&hosts), "{hosts} hosts: there must be 2 to 4096");
        ensure!(
            hosts <= 16 || hosts.is_multiple_of(16),
            "{hosts} hosts: more than 16 come in racks of 16, as {} or {}",
            hosts / 16 * 16,
            hosts.div_ceil(16) * 16,
        );
        ensure!((100..=1_000_000_000).contains(&self.messages()), "messages: 100 to 1,000,000,000");
        ensure!(self.warmup.unwrap_or(0) <= 1_000_000_000, "warm-up: at most 1,000,000,000 messages");
        let within = |name, value: Option<u32>, range: std::ops::RangeInclusive<u32>| match value {
            Some(value) if !range.contains(&value) => {
                bail!("{name} {value}: it must be {} to {}", range.start(), range.end())
            }
            _ => Ok(()),
        };
        within("overcommit", self.overcommit, 1..=8)?;
        within("unscheduled levels", self.unscheduled_levels.map(u32::from), 1..=7)?;
        within("unscheduled bytes", self.unscheduled_bytes, 1..=100_000_000)?;
        within("data header", self.data_header, 0..=1_000)?;
        within("FIFO priority", self.fifo_priority.map(u32::from), 0..=7)?;
        within("milliseconds before a RESEND", self.resend_ms, 1..=99)?;
        within("host link speed in Mbit/s", self.host_mbps, 10..=800_000)?;
        within("fabric link speed in Mbit/s", self.fabric_mbps, 10..=3_200_000)?;
        within("shortest retransmission timeout", self.min_rto_us, 1..=60_000_000)?;
        within("senders", self.senders, 1..=1_000_000)?;
        within("bytes of a message", self.message_bytes, 1..=10_000_000)?;
        within("rounds", self.rounds, 1..=1_000_000)?;
        let drain = self.drain.unwrap_or(1.0);
        ensure!((0.0..=1_000.0).contains(&drain), "drain: 0 to 1000 times the time of the load");
        let fifo = self.fifo_share.unwrap_or(0.0);
        ensure!((0.0..=0.5).contains(&fifo), "a FIFO share of {fifo}: at most half of the grants");
        ensure!(self.buffer.is_none_or(|bytes| bytes >= 3_000), "a buffer must hold two packets: 3000 bytes");
        let is_load = self.kind == Kind::Load;
        let for_incast = self.senders.is_some() || self.message_bytes.is_some() || self.rounds.is_some();
        ensure!(!self.capped || self.sizes.is_none(), "capped is for the sizes of a workload, not of a file");
        ensure!(!is_load || !for_incast, "senders, message_bytes and rounds are for `kind = \"incast\"`");
        Ok(())
    }

    fn message_sizes(&self) -> Result<Sizes> {
        let Some(file) = &self.sizes else {
            let encoding = if self.capped { Encoding::Linux } else { Encoding::Simulation };
            return Ok(Sizes::of(self.workload().unwrap_or(Name::W4), encoding, 1));
        };
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let sizes = Sizes::parse(&text).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
        let largest = sizes.quantile(1.0);
        let limit = simulated().max_message;
        ensure!(largest <= limit, "{}: a message of {largest} bytes, at most {limit}", file.display());
        Ok(sizes)
    }

    fn shape(&self, topology: &mut Topology) {
        let shape = Topology::with_hosts(self.hosts());
        (topology.racks, topology.hosts_per_rack) = (shape.racks, shape.hosts_per_rack);
        topology.host_mbps = self.host_mbps.unwrap_or(topology.host_mbps);
        topology.fabric_mbps = self.fabric_mbps.unwrap_or(topology.fabric_mbps);
        topology.buffer_bytes = self.buffer;
        topology.mark_bytes = self.mark;
    }

    fn carriage(&self) -> Carriage {
        let header = match self.settings {
            Settings::Published => 30,
            Settings::Shipped => Carriage::default().data_header_bytes,
        };
        Carriage { contents: false, data_header_bytes: self.data_header.unwrap_or(header) }
    }

    fn adjust_homa(&self, experiment: &mut Experiment) {
        let shipped = simulated();
        if self.settings == Settings::Shipped {
            experiment.homa = shipped.clone();
        } else if self.workload().is_none() {
            let levels = levels_for(&experiment.sizes);
            set_levels(experiment, levels);
            experiment.homa.max_overcommit = 8 - u32::from(levels);
        }
        if let Some(levels) = self.unscheduled_levels {
            set_levels(experiment, levels);
        }
        let homa = &mut experiment.homa;
        homa.link_mbps = experiment.topology.host_mbps;
        if self.buffer.is_some() {
            // The published settings know no losses.
            homa.resend_ticks = shipped.resend_ticks;
            homa.timeout_ticks = shipped.timeout_ticks;
        }
        if let Some(ms) = self.resend_ms {
            (homa.resend_ticks, homa.resend_interval) = (ms, ms);
        }
        homa.max_overcommit = self.overcommit.unwrap_or(homa.max_overcommit);
        homa.unsched_bytes = self.unscheduled_bytes.unwrap_or(homa.unsched_bytes);
        homa.window = self.window.unwrap_or(homa.window);
        homa.max_incoming = self.max_incoming.unwrap_or(homa.max_incoming);
        homa.tail_boost_bytes = self.tail_boost.unwrap_or(homa.tail_boost_bytes);
        homa.srpt_limit = self.srpt_limit.unwrap_or(homa.srpt_limit);
        homa.fifo_grant_increment = self.fifo_increment.unwrap_or(homa.fifo_grant_increment);
        homa.fifo_grant_priority = self.fifo_priority.unwrap_or(homa.fifo_grant_priority);
        if let Some(by) = self.unscheduled_by {
            homa.unsched_by_remaining = by == By::Remaining;
        }
        if let Some(share) = self.fifo_share {
            homa.grant_fifo_fraction = (share * 1_000.0).round() as u32;
        }
    }
}

/// Gives unscheduled data so many levels with balanced cutoffs.
fn set_levels(experiment: &mut Experiment, levels: u8) {
    let cutoffs = cutoffs::balanced(&experiment.sizes, levels, RTT_BYTES.0, RTT_BYTES.1);
    experiment.homa.unsched_cutoffs = cutoff_table(&cutoffs, experiment.homa.num_priorities);
    experiment.homa.adaptive_cutoffs = false;
}

/// The share of the eight levels that unscheduled data gets by the paper's rule: its share of the bytes.
fn levels_for(sizes: &Sizes) -> u8 {
    let mut below = 0.0;
    let mut unscheduled = 0.0;
    for point in sizes.points() {
        unscheduled += (point.share - below) * f64::from(point.size.min(RTT_BYTES.0));
        below = point.share;
    }
    ((8.0 * unscheduled / sizes.mean()).round() as u8).clamp(1, 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experiment_says_what_cannot_be() {
        let cases: [(Spec, &str); 9] = [
            (Spec { load: Some(0.0), ..Spec::default() }, "share of the network"),
            (Spec { hosts: Some(1), ..Spec::default() }, "2 to 4096"),
            (Spec { hosts: Some(20), ..Spec::default() }, "as 16 or 32"),
            (Spec { overcommit: Some(9), ..Spec::default() }, "1 to 8"),
            (Spec { messages: Some(3), ..Spec::default() }, "messages"),
            (Spec { transport: Some("avian".into()), ..Spec::default() }, "avian"),
            (Spec { fifo_priority: Some(8), ..Spec::default() }, "0 to 7"),
            (Spec { senders: Some(3), ..Spec::default() }, "incast"),
            (Spec { capped: true, sizes: Some("sizes.txt".into()), ..Spec::default() }, "of a workload"),
        ];
        for (spec, reason) in cases {
            let error = spec.experiment().expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn experiment_has_the_settings_asked_for() {
        let spec = Spec {
            workload: Some(Name::W1),
            unscheduled_levels: Some(3),
            overcommit: Some(2),
            fifo_share: Some(0.05),
            srpt_limit: Some(50_000),
            fifo_priority: Some(6),
            resend_ms: Some(2),
            unscheduled_by: Some(By::Length),
            hosts: Some(32),
            ..Spec::default()
        };
        let (experiment, _) = spec.experiment().unwrap();
        let homa = &experiment.homa;
        assert_eq!((homa.max_overcommit, homa.grant_fifo_fraction, homa.srpt_limit), (2, 50, 50_000));
        assert_eq!((homa.fifo_grant_priority, homa.resend_ticks, homa.resend_interval), (6, 2, 2));
        assert!(!homa.unsched_by_remaining);
        assert_eq!(homa.unsched_cutoffs.iter().filter(|&&c| c > 0).count(), 3);
        assert_eq!(experiment.topology.hosts(), 32);
        let capped = Spec { capped: true, ..Spec::default() }.experiment().unwrap().0;
        assert_eq!((capped.sizes.quantile(1.0), capped.sizes.quantile(0.5)), (1_000_000, 662));
        let shipped = Spec { settings: Settings::Shipped, ..Spec::default() }.experiment().unwrap().0;
        assert_eq!(shipped.homa.unsched_bytes, simulated().unsched_bytes);
        assert_eq!(shipped.carriage.data_header_bytes, 56);
    }

    #[test]
    fn sizes_alone_get_levels_by_the_papers_rule() {
        assert_eq!(levels_for(&Sizes::of(Name::W1, Encoding::Simulation, 1)), 7);
        assert_eq!(levels_for(&Sizes::of(Name::W5, Encoding::Simulation, 1)), 1);
    }
}
