//! The message sizes of workloads W1 to W5, as a discrete set of sizes with their cumulative shares.
//!
//! Built from published quantiles (W1: from its model), in one of two encodings. A draw takes the first
//! point at or above a uniform number: sizes between two points do not occur.
//!
//! The quantiles leave gaps in which a size may grow tenfold. They are filled with points at most
//! `STEP` apart; how fast the share grows inside a gap is one exponent per workload and encoding
//! (`Name::bend`), fitted so that the mean is the published one. The quantiles themselves are kept exactly.
//! The complete point lists that the papers used are public files: [`Sizes::parse`] reads one.

mod tables;

use serde::{Deserialize, Serialize};

/// Largest message of the Linux encoding, in bytes.
pub const CAP: u32 = 1_000_000;

/// Smallest message of the Linux encoding, in bytes.
const FLOOR: u32 = 8;

/// Two neighbouring points of a filled gap differ by at most this factor.
const STEP: f64 = 1.2;

/// Which of the published forms of the size tables.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Of the Homa/Linux measurements: nothing below 8 bytes, nothing above a cap of 1,000,000 bytes, W5 in
    /// multiples of 1,470 bytes.
    Linux,
    /// Of the SIGCOMM'18 simulations: no cap, W5 in multiples of 1,442 bytes.
    Simulation,
}

/// A workload by name.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// Facebook memcached (ETC pool).
    W1,
    /// A Google search application.
    W2,
    /// All applications of one Google datacenter.
    W3,
    /// A Facebook Hadoop cluster.
    W4,
    /// Web search, as used by DCTCP.
    W5,
}

/// All workloads.
pub const ALL: [Name; 5] = [Name::W1, Name::W2, Name::W3, Name::W4, Name::W5];

impl core::str::FromStr for Name {
    type Err = String;

    fn from_str(name: &str) -> Result<Name, String> {
        let found = ALL.into_iter().find(|n| n.to_string().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("no workload `{name}`: there are w1, w2, w3, w4 and w5"))
    }
}

impl Name {
    /// Where the workload comes from, for people.
    pub fn origin(self) -> &'static str {
        match self {
            Name::W1 => "Facebook memcached",
            Name::W2 => "Google search application",
            Name::W3 => "all applications of a Google datacenter",
            Name::W4 => "Facebook Hadoop cluster",
            Name::W5 => "web search (DCTCP)",
        }
    }

    /// The published mean, in bytes.
    pub fn published_mean(self, encoding: Encoding) -> f64 {
        let (linux, simulation) = match self {
            Name::W1 => (189.2, 187.5),
            Name::W2 => (433.3, 440.8),
            Name::W3 => (2_423.1, 2_927.0),
            Name::W4 => (60_175.1, 127_797.0),
            Name::W5 => (385_315.5, 2_515_863.0),
        };
        if encoding == Encoding::Linux { linux } else { simulation }
    }

    /// Share of the network load that is payload in the SIGCOMM'18 simulations: theirs to turn the one into
    /// the other.
    pub fn payload_share(self) -> f64 {
        match self {
            Name::W1 => 0.657,
            Name::W2 => 0.796,
            Name::W3 => 0.887,
            Name::W4 | Name::W5 => 0.898,
        }
    }

    /// Inside a gap between two quantiles the share grows as `t^(1/bend)` while the logarithm of the size grows
    /// as `t`. 1 would be a straight line; above 1 the small sizes of the gap are the more frequent ones.
    fn bend(self, encoding: Encoding) -> f64 {
        let (linux, simulation) = match self {
            Name::W1 => (1.0, 1.0),
            Name::W2 => (4.227, 3.673),
            Name::W3 => (1.959, 2.292),
            Name::W4 => (1.653, 2.932),
            Name::W5 => (2.785, 1.102),
        };
        if encoding == Encoding::Linux { linux } else { simulation }
    }

    /// The column of this workload in the quantile table, W1 has none.
    fn column(self) -> Option<usize> {
        match self {
            Name::W1 => None,
            Name::W2 => Some(0),
            Name::W3 => Some(1),
            Name::W4 => Some(2),
            Name::W5 => Some(3),
        }
    }
}

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// One size and the share of messages that are not longer.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Point {
    /// Cumulative share of messages, 0 to 1.
    pub share: f64,
    /// Size in bytes.
    pub size: u32,
}

/// A distribution of message sizes: points of growing share and strictly growing size; the last share is 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Sizes {
    points: Vec<Point>,
}

impl Sizes {
    /// The sizes of a workload; what is shorter than `smallest` bytes is raised to it.
    pub fn of(name: Name, encoding: Encoding, smallest: u32) -> Sizes {
        let encoded = match name.column() {
            None => w1(encoding),
            Some(column) => fill(&quantiles(name, encoding, column), name.bend(encoding)),
        };
        Sizes::from_points(encoded.into_iter().map(|p| Point { size: p.size.max(smallest), ..p }))
    }

    /// Reads a table of the papers' simulator: lines of a size in bytes and the cumulative share of messages
    /// that are not longer; a first line of one number, the mean, is passed over.
    ///
    /// # Errors
    /// What is wrong with the text, for people.
    pub fn parse(text: &str) -> Result<Sizes, String> {
        let mut points: Vec<Point> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [size, share] = words[..] else {
                if words.len() < 2 && points.is_empty() {
                    continue;
                }
                return Err(format!("line {number}: a size and a cumulative share are expected"));
            };
            let bad = |what: &str| format!("line {number}: {what}");
            let size = size.parse::<u32>().map_err(|_| bad("the size is not a whole number"))?;
            let share = share.parse::<f64>().map_err(|_| bad("the share is not a number"))?;
            let before = points.last().copied().unwrap_or(Point { share: 0.0, size: 0 });
            if size == 0 || size < before.size || share < before.share || share > 1.000_001 {
                return Err(bad("sizes and shares must grow, the shares up to 1"));
            }
            points.push(Point { share, size });
        }
        match points.last() {
            Some(last) if last.share > 0.999 => Ok(Sizes::from_points(points.into_iter())),
            _ => Err("the last share must be 1".to_owned()),
        }
    }

    /// The given sizes, all equally likely.
    pub fn uniform(sizes: &[u32]) -> Sizes {
        let n = sizes.len() as f64;
        let mut sorted = sizes.to_vec();
        sorted.sort_unstable();
        Sizes::from_points(
            sorted.iter().enumerate().map(|(i, &size)| Point { share: (i + 1) as f64 / n, size }),
        )
    }

    /// Points in order of size; equal sizes become one point.
    fn from_points(points: impl Iterator<Item = Point>) -> Sizes {
        let mut merged: Vec<Point> = Vec::new();
        for point in points {
            match merged.last_mut() {
                Some(last) if last.size == point.size => last.share = point.share,
                _ => merged.push(point),
            }
        }
        if let Some(last) = merged.last_mut() {
            last.share = 1.0;
        }
        Sizes { points: merged }
    }

    /// All points.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The index of the first point at or above `u`, a uniform number in 0 to 1.
    pub fn draw(&self, u: f64) -> usize {
        self.points.partition_point(|p| p.share < u).min(self.points.len() - 1)
    }

    /// The size at an index.
    pub fn size(&self, index: usize) -> u32 {
        self.points[index].size
    }

    /// The index of a size, of the next larger one if it is not in the set.
    pub fn index_of(&self, size: u32) -> usize {
        self.points.partition_point(|p| p.size < size).min(self.points.len() - 1)
    }

    /// The smallest size such that at least `share` (0 to 1) of the messages are not longer.
    pub fn quantile(&self, share: f64) -> u32 {
        let index = self.points.partition_point(|p| p.share < share - 1e-9);
        self.points[index.min(self.points.len() - 1)].size
    }

    /// Mean size in bytes.
    pub fn mean(&self) -> f64 {
        let mut below = 0.0;
        let mut mean = 0.0;
        for p in &self.points {
            mean += (p.share - below) * f64::from(p.size);
            below = p.share;
        }
        mean
    }
}

/// The quantile table of W2 to W5.
fn quantiles(name: Name, encoding: Encoding, column: usize) -> Vec<Point> {
    tables::QUANTILES
        .iter()
        .map(|&(percent, sizes)| {
            let raw = sizes[column];
            let size = match (encoding, name) {
                (Encoding::Simulation, _) => raw,
                (Encoding::Linux, Name::W5) => w5_packets(raw).clamp(FLOOR, CAP),
                (Encoding::Linux, _) => raw.clamp(FLOOR, CAP),
            };
            Point { share: percent / 100.0, size }
        })
        .collect()
}

/// W5 counts full packets: of 1,442 bytes in the simulation, of 1,470 (the first six points: 1,430) on Linux.
fn w5_packets(simulated: u32) -> u32 {
    let packets = (simulated + 721) / 1_442;
    packets * if packets <= 6 { 1_430 } else { 1_470 }
}

/// Fills the gaps between quantiles that are more than [`STEP`] apart.
fn fill(knots: &[Point], bend: f64) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for &knot in knots {
        if let Some(&from) = points.last() {
            let ratio = f64::from(knot.size) / f64::from(from.size);
            let steps = (ratio.ln() / STEP.ln()).ceil() as u32;
            for step in 1..steps {
                let t = f64::from(step) / f64::from(steps);
                points.push(Point {
                    share: from.share + (knot.share - from.share) * t.powf(1.0 / bend),
                    size: (f64::from(from.size) * ratio.powf(t)).round() as u32,
                });
            }
        }
        points.push(knot);
    }
    points
}

/// W1 from its model: listed probabilities up to 15 bytes, a generalised Pareto tail above.
fn w1(encoding: Encoding) -> Vec<Point> {
    let floor = if encoding == Encoding::Linux { FLOOR } else { 1 };
    let head =
        tables::W1_HEAD.iter().zip(1u32..).map(|(&share, size)| Point { share, size: size.max(floor) });
    let mut points: Vec<Point> = head.collect();
    let head_share = points[points.len() - 1].share;
    let mut size = tables::W1_HEAD.len() as u32 + 1;
    while size < tables::W1_LARGEST {
        // Sizes are rounded to integers: a message of this size stands for everything up to half a byte more.
        let x = f64::from(size) + 0.5 - tables::W1_OFFSET;
        let above = (1.0 + tables::W1_SHAPE * x / tables::W1_SIGMA).powf(-1.0 / tables::W1_SHAPE);
        points.push(Point { share: head_share + (1.0 - head_share) * (1.0 - above), size });
        size = (size + 1).max((f64::from(size) * 1.02).round() as u32);
    }
    points.push(Point { share: 1.0, size: tables::W1_LARGEST });
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use Encoding::{Linux, Simulation};
    use peyk_sansio::Prng;

    fn deciles(name: Name, encoding: Encoding) -> Vec<u32> {
        let sizes = Sizes::of(name, encoding, 1);
        (1..=10).map(|d| sizes.quantile(f64::from(d) / 10.0)).collect()
    }

    #[test]
    fn mean__is_the_published_one_within_one_percent() {
        for (name, encoding) in ALL.into_iter().flat_map(|n| [(n, Linux), (n, Simulation)]) {
            let mean = Sizes::of(name, encoding, 1).mean();
            let published = name.published_mean(encoding);
            let ratio = mean / published;
            println!("{name} {encoding:?}: mean {mean:.1} B, published {published:.1} B, ratio {ratio:.4}");
            assert!((0.99..1.01).contains(&ratio), "{name} {encoding:?}: {mean} is {ratio} of the published");
        }
    }

    #[test]
    fn quantile__gives_the_published_deciles() {
        let w5 = [5_720, 19_110, 27_930, 48_510, 72_030, 195_510, 980_490, 1_000_000, 1_000_000, 1_000_000];
        let w4 = [315, 376, 502, 561, 662, 960, 6_387, 49_408, 120_373];
        assert_eq!(deciles(Name::W2, Linux), [8, 34, 58, 171, 269, 320, 366, 427, 512, 1_000_000]);
        assert_eq!(deciles(Name::W3, Linux), [36, 77, 110, 158, 268, 313, 402, 573, 1_755, 1_000_000]);
        assert_eq!(deciles(Name::W4, Linux)[..9], w4);
        assert_eq!(deciles(Name::W5, Linux), w5);
        assert_eq!(deciles(Name::W2, Simulation), [3, 34, 58, 171, 269, 320, 366, 427, 512, 3_529_904]);
        assert_eq!(deciles(Name::W4, Simulation)[..9], w4);
        assert_eq!(deciles(Name::W5, Simulation)[9], 28_840_000);
    }

    #[test]
    fn quantile__of_w1_is_that_of_its_model() {
        // Integer steps of two percent: so much may it differ.
        for (encoding, published) in [
            (Linux, [8, 8, 8, 11, 27, 79, 151, 264, 503, 100_000]),
            (Simulation, [2, 3, 5, 11, 27, 79, 151, 264, 503, 100_000]),
        ] {
            for (ours, theirs) in deciles(Name::W1, encoding).into_iter().zip(published) {
                assert!(ours.abs_diff(theirs) <= 1 + theirs / 40, "W1: {ours} instead of {theirs}");
            }
        }
    }

    #[test]
    fn points__grow_strictly_and_end_at_one() {
        for (name, encoding) in ALL.into_iter().flat_map(|n| [(n, Linux), (n, Simulation)]) {
            let sizes = Sizes::of(name, encoding, 16);
            assert_eq!(sizes.points().first().map(|p| p.size >= 16), Some(true));
            assert_eq!(sizes.points().last().map(|p| p.share), Some(1.0));
            for pair in sizes.points().windows(2) {
                assert!(pair[0].size < pair[1].size, "{name}: {pair:?}");
                assert!(pair[0].share <= pair[1].share, "{name}: {pair:?}");
            }
        }
    }

    #[test]
    fn draw__has_the_mean_of_the_table() {
        let sizes = Sizes::of(Name::W3, Linux, 16);
        let mut random = Prng::new(7);
        let n = 400_000;
        let sum: f64 = (0..n).map(|_| f64::from(sizes.size(sizes.draw(random.f64_unit())))).sum();
        let ratio = sum / f64::from(n) / sizes.mean();
        assert!((0.97..1.03).contains(&ratio), "{ratio}");
    }

    #[test]
    fn uniform__merges_nothing_and_finds_by_size() {
        let sizes = Sizes::uniform(&[1_000, 16, 100]);
        assert_eq!(sizes.index_of(100), 1);
        assert_eq!(sizes.index_of(101), 2);
        assert!((sizes.mean() - 372.0).abs() < 0.1);
    }

    #[test]
    fn parse__reads_tables_and_says_what_is_wrong() {
        let sizes = Sizes::parse("185.0\n1 0.25\n10 0.5\n100 1.0\n").expect("a table");
        assert_eq!((sizes.quantile(0.3), sizes.quantile(0.6)), (10, 100));
        for (text, complaint) in [
            ("", "last share"),
            ("1 0.5\n", "last share"),
            ("10 0.5\n5 1.0\n", "line 2"),
            ("1 x\n", "line 1"),
            ("1 0.5\n7\n", "line 2"),
        ] {
            let error = Sizes::parse(text).expect_err(text);
            assert!(error.contains(complaint), "{text:?}: {error}");
        }
    }

    #[test]
    fn name__from_text() {
        assert_eq!("w3".parse::<Name>(), Ok(Name::W3));
        assert!("w6".parse::<Name>().is_err_and(|e| e.contains("w6")));
    }
}
