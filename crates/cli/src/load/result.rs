//! The result of a load: counts, slowdowns by share of messages, distributions, throughput.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use super::{
    Arrivals, LoadPlan,
    sample::{BIN_MS, Baseline, Delivered, quantile},
};
use peyk_sim::workload::Sizes;

/// What one client has measured; those of several that follow the same plan can be put together.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Round trips in nanoseconds by index of size, sorted.
    pub by_size: Vec<Vec<u64>>,
    /// Delivered bytes over time.
    pub bins: Vec<Delivered>,
    /// The generator's lag in microseconds: mean, 99th percentile, largest.
    pub lag_us: (f64, f64, f64),
    /// Held requests that were answered.
    pub held_completed: u64,
    /// Counts.
    pub counts: Counts,
}

impl Measured {
    /// Adds what another client has measured.
    pub fn add(&mut self, other: Measured) {
        self.by_size.resize(self.by_size.len().max(other.by_size.len()), Vec::new());
        for (list, more) in self.by_size.iter_mut().zip(other.by_size) {
            list.extend(more);
            list.sort_unstable();
        }
        self.bins.resize(self.bins.len().max(other.bins.len()), Delivered::default());
        for (bin, more) in self.bins.iter_mut().zip(other.bins) {
            bin.messages += more.messages;
            bin.bytes += more.bytes;
        }
        let (a, b) = (self.lag_us, other.lag_us);
        self.lag_us = (a.0.max(b.0), a.1.max(b.1), a.2.max(b.2));
        self.held_completed += other.held_completed;
        self.counts.add(&other.counts);
    }
}

/// Counts kept while a load runs.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Messages handed to the transport, held ones aside.
    pub sent: u64,
    /// Messages answered.
    pub completed: u64,
    /// Messages the transport gave up on.
    pub failed: u64,
    /// Responses that differ from what was sent.
    pub corrupt: u64,
    /// Responses to nothing: duplicates or of a wrong length.
    pub unexpected: u64,
    /// Due, but never sent.
    pub unsent: u64,
    /// Held requests that were answered before their release.
    pub released_early: u64,
    /// Most messages outstanding at once.
    pub outstanding_max: u32,
    /// Whether the cap on outstanding messages has held anything back.
    pub capped: bool,
    /// Whether the last message has become due.
    pub all_due: bool,
    /// Bytes of the messages that became due during the measurement.
    pub due_bytes: u64,
    /// Messages without an answer, by the server they went to.
    pub lost_to: BTreeMap<usize, u64>,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.completed += other.completed;
        self.failed += other.failed;
        self.corrupt += other.corrupt;
        self.unexpected += other.unexpected;
        self.unsent += other.unsent;
        self.released_early += other.released_early;
        self.outstanding_max = self.outstanding_max.max(other.outstanding_max);
        self.capped |= other.capped;
        self.all_due |= other.all_due;
        self.due_bytes += other.due_bytes;
        for (&server, &lost) in &other.lost_to {
            *self.lost_to.entry(server).or_default() += lost;
        }
    }
}

/// One group of neighbouring sizes: everything longer than the group before, up to `size`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// Percent of all messages of the workload that are not longer than `size`.
    pub percent: f64,
    /// Largest size of the group in bytes.
    pub size: u32,
    /// Messages measured in the group.
    pub count: u64,
    /// Median slowdown; `None` without messages or baseline.
    pub p50_slowdown: Option<f64>,
    /// 99th percentile of slowdown.
    pub p99_slowdown: Option<f64>,
    /// Median round trip in microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile of the round trip in microseconds.
    pub p99_us: Option<f64>,
}

/// Throughput in one stretch of time.
#[derive(Copy, Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Bin {
    /// Start in seconds since the measurement began.
    pub seconds: f64,
    /// Delivered payload in Gbit/s, one direction.
    pub goodput_gbps: f64,
}

/// Everything a client reports about its load.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct LoadResult {
    /// Messages handed to the transport, held ones aside.
    pub sent: u64,
    /// Messages answered.
    pub completed: u64,
    /// `sent - completed` when the drain time was over.
    pub lost: u64,
    /// Of these, given up by the transport.
    pub failed: u64,
    /// Responses that differ from what was sent.
    pub corrupt: u64,
    /// Responses to nothing: duplicates or of a wrong length.
    pub unexpected: u64,
    /// Messages that became due but were never sent, because of the cap.
    pub unsent: u64,
    /// Whether the cap on outstanding messages has held anything back.
    pub capped: bool,
    /// Most messages outstanding at once.
    pub outstanding_max: u32,
    /// Requests held open during the run.
    pub held: u64,
    /// Of these, answered after the release.
    pub held_completed: u64,
    /// Of these, answered before the release.
    pub released_early: u64,
    /// Mean time by which messages were sent later than due, in microseconds.
    pub lag_mean_us: f64,
    /// 99th percentile of it.
    pub lag_p99_us: f64,
    /// Largest.
    pub lag_max_us: f64,
    /// Messages delivered a second during the measurement.
    pub rpcs_per_second: f64,
    /// Their payload in Gbit/s, one direction.
    pub goodput_gbps: f64,
    /// Smallest round trip by size, in nanoseconds.
    pub best: Vec<(u32, u64)>,
    /// By tenths of the messages.
    pub points: Vec<Share>,
    /// By fortieths of the messages.
    pub curve: Vec<Share>,
    /// Round trips of all messages: microseconds and share of messages that took no longer.
    pub cdf: Vec<(f64, f64)>,
    /// The same for the shortest tenth of the messages.
    pub cdf_short: Vec<(f64, f64)>,
    /// Throughput over time.
    pub timeline: Vec<Bin>,
    /// CPU time of the client process in seconds.
    pub cpu_seconds: f64,
}

impl LoadResult {
    /// Percentiles and rates of what was measured.
    pub fn new(plan: &LoadPlan, sizes: &Sizes, measured: Measured) -> LoadResult {
        let Measured { by_size, bins, lag_us, held_completed, counts } = measured;
        let (lag_mean_us, lag_p99_us, lag_max_us) = match plan.arrivals {
            Arrivals::Poisson(_) => lag_us,
            Arrivals::Closed(_) => (0.0, 0.0, 0.0),
        };
        let seconds = (plan.duration_ms - plan.warmup_ms) as f64 / 1e3;
        let messages: u64 = bins.iter().map(|b| b.messages).sum();
        let bytes: u64 = bins.iter().map(|b| b.bytes).sum();
        LoadResult {
            sent: counts.sent,
            completed: counts.completed,
            lost: counts.sent - counts.completed,
            failed: counts.failed,
            corrupt: counts.corrupt,
            unexpected: counts.unexpected,
            unsent: counts.unsent,
            capped: counts.capped,
            outstanding_max: counts.outstanding_max,
            held: u64::from(plan.hold),
            held_completed,
            released_early: counts.released_early,
            lag_mean_us,
            lag_p99_us,
            lag_max_us,
            rpcs_per_second: messages as f64 / seconds,
            goodput_gbps: bytes as f64 * 8.0 / seconds / 1e9,
            best: best(sizes, &by_size),
            points: shares(sizes, &by_size, &plan.baseline, &steps(10)),
            curve: shares(sizes, &by_size, &plan.baseline, &steps(40)),
            cdf: cdf(&by_size),
            cdf_short: cdf(&by_size[..=sizes.index_of(sizes.quantile(0.1))]),
            timeline: timeline(&bins, seconds),
            cpu_seconds: 0.0,
        }
    }
}

fn best(sizes: &Sizes, by_size: &[Vec<u64>]) -> Vec<(u32, u64)> {
    let pairs = sizes.points().iter().zip(by_size);
    pairs.filter_map(|(point, list)| Some((point.size, *list.first()?))).collect()
}

/// The ends of so many groups of equal shares, in percent.
fn steps(parts: u32) -> Vec<f64> {
    (1..=parts).map(|part| f64::from(part) * 100.0 / f64::from(parts)).collect()
}

/// Percentiles in groups of sizes that end at these percentages of the messages. A size that is so frequent that it
/// spans several groups stands in each of them.
pub fn shares(sizes: &Sizes, by_size: &[Vec<u64>], baseline: &Baseline, percents: &[f64]) -> Vec<Share> {
    let mut below = 0; // index of the first size of the group
    percents
        .iter()
        .map(|&percent| {
            let size = sizes.quantile(percent / 100.0);
            let last = sizes.index_of(size);
            let group = below.min(last)..=last;
            below = last + 1;
            share(percent, size, group.clone().map(|i| (sizes.size(i), &by_size[i][..])), baseline)
        })
        .collect()
}

fn share<'a>(
    percent: f64,
    size: u32,
    lists: impl Iterator<Item = (u32, &'a [u64])>,
    baseline: &Baseline,
) -> Share {
    let mut slowdowns = Vec::new();
    let mut trips = Vec::new();
    for (size, list) in lists {
        trips.extend_from_slice(list);
        if let Some(best) = baseline.round_trip(size) {
            slowdowns.extend(list.iter().map(|&ns| ns as f64 / best));
        }
    }
    trips.sort_unstable();
    slowdowns.sort_unstable_by(f64::total_cmp);
    let us = |q| quantile(&trips, q).map(|ns| ns as f64 / 1e3);
    Share {
        percent,
        size,
        count: trips.len() as u64,
        p50_slowdown: quantile(&slowdowns, 0.5),
        p99_slowdown: quantile(&slowdowns, 0.99),
        p50_us: us(0.5),
        p99_us: us(0.99),
    }
}

/// About two hundred points of a distribution, denser in the upper tail.
pub fn cdf(by_size: &[Vec<u64>]) -> Vec<(f64, f64)> {
    let mut all: Vec<u64> = by_size.iter().flatten().copied().collect();
    all.sort_unstable();
    let steps = (1..200).map(|i| f64::from(i) / 200.0).chain([0.998, 0.999, 0.9995, 0.9999, 1.0]);
    steps.filter_map(|q| Some((quantile(&all, q)? as f64 / 1e3, q))).collect()
}

fn timeline(bins: &[Delivered], seconds: f64) -> Vec<Bin> {
    let width = BIN_MS as f64 / 1e3;
    let full = (seconds / width).round() as usize;
    let bins = bins.iter().take(full).enumerate();
    bins.map(|(i, b)| Bin { seconds: i as f64 * width, goodput_gbps: b.bytes as f64 * 8.0 / width / 1e9 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use peyk_sim::workload::{Encoding, Name, Sizes};

    #[test]
    fn shares_put_every_message_of_distinct_deciles_in_one_group() {
        let sizes = Sizes::of(Name::W4, Encoding::Linux, 16);
        let by_size: Vec<Vec<u64>> = sizes.points().iter().map(|p| vec![u64::from(p.size) * 10; 3]).collect();
        let baseline = Baseline { points: vec![(16, 16), (1_000_000, 1_000_000)] };
        let points = shares(&sizes, &by_size, &baseline, &steps(10));
        assert_eq!(points.iter().map(|p| p.count).sum::<u64>(), 3 * sizes.points().len() as u64);
        assert_eq!(points.iter().map(|p| p.size).take(3).collect::<Vec<_>>(), [315, 376, 502]);
        for point in &points {
            let slowdown = point.p50_slowdown.unwrap();
            assert!((9.99..10.01).contains(&slowdown), "{point:?}");
        }
        assert_eq!(points[9].p99_us, Some(10_000.0));
    }

    #[test]
    fn shares_repeat_a_size_that_spans_several_groups() {
        let sizes = Sizes::of(Name::W1, Encoding::Linux, 16);
        let by_size = vec![vec![100]; sizes.points().len()];
        let points = shares(&sizes, &by_size, &Baseline::default(), &steps(10));
        assert_eq!(points[0].size, 16);
        assert_eq!(points[1].size, 16);
        assert_eq!((points[1].count, points[1].p50_slowdown), (1, None));
    }

    #[test]
    fn cdf_ends_at_the_largest() {
        let cdf = cdf(&[vec![1_000, 2_000], vec![9_000]]);
        assert_eq!(cdf.last(), Some(&(9.0, 1.0)));
        assert!(cdf.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 < w[1].1));
    }
}
