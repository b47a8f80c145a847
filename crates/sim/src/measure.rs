//! From samples to the figures of the papers: slowdown by message size.
//!
//! The papers sort messages into about a hundred bins by size. Here a bin is one percent of the messages: that
//! of a percentage holds the sizes from one percent below it up to it.

use serde::{Deserialize, Serialize};

use crate::load::Sample;

/// Width of a bin, in percent of all messages.
const BIN: f64 = 1.0;

/// Slowdown of the messages in the bin of a percentage.
#[derive(Copy, Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// So many percent of the messages are not longer.
    pub percent: f64,
    /// Their size, in bytes.
    pub size: u32,
    /// Messages in the bin.
    pub messages: u64,
    /// Half of them were not slower.
    pub p50_slowdown: f64,
    /// 99 % of them were not slower.
    pub p99_slowdown: f64,
}

/// Sorts the samples by size and computes a point for each percentage, which ascend.
pub fn points(samples: &mut [Sample], percents: &[f64]) -> Vec<Point> {
    samples.sort_unstable_by_key(|s| s.size);
    percents.iter().filter_map(|&percent| point(samples, percent)).collect()
}

fn point(sorted: &[Sample], percent: f64) -> Option<Point> {
    let last = sorted.len().checked_sub(1)?;
    let size_at = |percent: f64| {
        let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
        sorted[rank.saturating_sub(1).min(last)].size
    };
    let (below, to) = (size_at(percent - BIN), size_at(percent));
    // A size that more than a percent of the messages have is a bin of its own.
    let begin = sorted.partition_point(|s| if below < to { s.size <= below } else { s.size < to });
    let end = sorted.partition_point(|s| s.size <= to);
    let mut slowdowns: Vec<f32> = sorted[begin..end].iter().map(|s| s.slowdown).collect();
    slowdowns.sort_unstable_by(f32::total_cmp);
    Some(Point {
        percent,
        size: size_at(percent),
        messages: slowdowns.len() as u64,
        p50_slowdown: quantile(&slowdowns, 0.5),
        p99_slowdown: quantile(&slowdowns, 0.99),
    })
}

/// The smallest of the sorted values that at least `share` of them do not exceed.
pub fn quantile(sorted: &[f32], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).map_or(f64::NAN, |&v| f64::from(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points__of_known_samples() {
        let mut samples: Vec<Sample> = Vec::new();
        for size in 1..=100 {
            for n in 1..=100u8 {
                samples.push(Sample { size, slowdown: f32::from(n) * size as f32 });
            }
        }
        let points = points(&mut samples, &[50.0, 100.0]);
        assert_eq!(points[0].size, 50);
        assert_eq!(points[0].messages, 100, "those of size 50");
        assert_eq!(points[1].size, 100);
        assert_eq!((points[1].p50_slowdown, points[1].p99_slowdown), (5_000.0, 9_900.0));
    }

    #[test]
    fn points__of_nothing_are_none() {
        assert!(points(&mut [], &[50.0]).is_empty());
    }
}
