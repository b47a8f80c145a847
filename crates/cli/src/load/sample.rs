//! What a load measures while it runs: every round trip, the generator's lag, delivered bytes over time; and the
//! baseline that slowdowns are computed with.
//!
//! Round trips are kept one by one (eight bytes each) and sorted at the end, so that percentiles are exact.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Width of a bin of delivered bytes, in milliseconds.
pub const BIN_MS: u64 = 100;

/// Bits of a packed sample that hold nanoseconds: more than a day.
const NS_BITS: u32 = 48;

/// Most bins of delivered bytes: a quarter of an hour.
const BINS_MAX: usize = 9_000;

/// Measurements of one load.
pub struct Samples {
    /// Index of the size above, nanoseconds below.
    packed: Vec<u64>,
    sizes: usize,
    lag_ns: Histogram<u64>,
    lag_sum_ns: u128,
    bins: Vec<Delivered>,
}

/// What arrived in one bin of time.
#[derive(Copy, Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct Delivered {
    /// Messages.
    pub messages: u64,
    /// Their bytes, counted in one direction.
    pub bytes: u64,
}

impl Samples {
    /// Room for samples of this many sizes.
    pub fn new(sizes: usize) -> Samples {
        let lag_ns = Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("constant bounds");
        Samples { packed: Vec::with_capacity(1 << 22), sizes, lag_ns, lag_sum_ns: 0, bins: Vec::new() }
    }

    /// A message of the size at `index` took `ns` from when it was due until its response was there.
    pub fn round_trip(&mut self, index: u32, ns: u64) {
        self.packed.push(u64::from(index) << NS_BITS | ns.min((1 << NS_BITS) - 1));
    }

    /// A message was handed to the transport this long after it was due.
    pub fn lag(&mut self, ns: u64) {
        self.lag_ns.saturating_record(ns.max(1));
        self.lag_sum_ns += u128::from(ns);
    }

    /// A response of `bytes` arrived, `ns` after the start of the measurement.
    pub fn delivered(&mut self, ns: u64, bytes: u32) {
        let bin = (ns / (BIN_MS * 1_000_000)) as usize;
        if bin >= BINS_MAX {
            return;
        }
        if bin >= self.bins.len() {
            self.bins.resize(bin + 1, Delivered::default());
        }
        self.bins[bin].messages += 1;
        self.bins[bin].bytes += u64::from(bytes);
    }

    /// Round trips in nanoseconds per index of size, each list sorted.
    pub fn by_size(&self) -> Vec<Vec<u64>> {
        let mut lists = vec![Vec::new(); self.sizes];
        for &sample in &self.packed {
            lists[(sample >> NS_BITS) as usize].push(sample & ((1 << NS_BITS) - 1));
        }
        lists.iter_mut().for_each(|list| list.sort_unstable());
        lists
    }

    /// Delivered bytes over time.
    pub fn bins(&self) -> &[Delivered] {
        &self.bins
    }

    /// The generator's lag in microseconds: mean, 99th percentile, largest.
    pub fn lag_us(&self) -> (f64, f64, f64) {
        let mean = match self.lag_ns.len() {
            0 => 0.0,
            n => self.lag_sum_ns as f64 / n as f64,
        };
        let p99 = self.lag_ns.value_at_quantile(0.99) as f64;
        (mean / 1e3, p99 / 1e3, self.lag_ns.max() as f64 / 1e3)
    }
}

/// The value at a quantile (0 to 1) of a sorted list: the smallest value that at least this share does not exceed.
pub fn quantile<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    let rank = (q * sorted.len() as f64 - 1e-9).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).checked_sub(1)?).copied()
}

/// Best round trips on an idle machine by size, measured at some sizes and interpolated linearly between them.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct Baseline {
    /// Size in bytes and best round trip in nanoseconds, by size.
    pub points: Vec<(u32, u64)>,
}

impl Baseline {
    /// The best unloaded round trip of a size in nanoseconds; `None` if nothing was measured.
    pub fn round_trip(&self, size: u32) -> Option<f64> {
        let above = self.points.partition_point(|&(s, _)| s < size);
        let (Some(&low), Some(&high)) = (self.points.get(above.saturating_sub(1)), self.points.get(above))
        else {
            return self.points.last().map(|&(_, ns)| ns as f64);
        };
        if low.0 == high.0 {
            return Some(high.1 as f64);
        }
        let t = f64::from(size - low.0) / f64::from(high.0 - low.0);
        Some(low.1 as f64 + t * (high.1 as f64 - low.1 as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_the_smallest_value_that_covers_the_share() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile(&values, 1.0), Some(100));
        assert_eq!(quantile(&values, 0.0), Some(1));
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile::<u64>(&[], 0.5), None);
    }

    #[test]
    fn baseline_interpolates_and_stays_flat_outside() {
        let baseline = Baseline { points: vec![(100, 1_000), (200, 2_000), (1_000, 4_000)] };
        for (size, ns) in [(16, 1_000.0), (100, 1_000.0), (150, 1_500.0), (600, 3_000.0), (5_000, 4_000.0)] {
            assert_eq!(baseline.round_trip(size), Some(ns), "{size}");
        }
        assert_eq!(Baseline::default().round_trip(5), None);
    }

    #[test]
    fn by_size_sorts_every_list() {
        let mut samples = Samples::new(2);
        for (index, ns) in [(1, 30), (0, 5), (1, 10)] {
            samples.round_trip(index, ns);
        }
        assert_eq!(samples.by_size(), vec![vec![5], vec![10, 30]]);
    }

    #[test]
    fn delivered_goes_to_its_bin() {
        let mut samples = Samples::new(1);
        samples.delivered(0, 10);
        samples.delivered(BIN_MS * 1_000_000, 5);
        samples.delivered(BIN_MS * 1_000_000 + 1, 5);
        let bins: Vec<_> = samples.bins().iter().map(|b| (b.messages, b.bytes)).collect();
        assert_eq!(bins, [(1, 10), (2, 10)]);
    }
}
