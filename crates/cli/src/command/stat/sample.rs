//! What a stack exports, read and taken apart, and rates between two samples. The text is Prometheus'
//! exposition format, as far as Peyk uses it.

use std::{
    collections::BTreeMap,
    io::Read as _,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// No stack says more: 255 shards with some 170 numbers each are 3 MB.
const TEXT_MAX: u64 = 16 << 20;
/// How long a stack may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What begins every name.
const PREFIX: &str = "peyk_";

/// Numbers of a stack at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What the stack says about itself.
    pub info: BTreeMap<String, String>,
    /// Names of the numbers, without the prefix that all have.
    pub names: Vec<String>,
    /// Which of them may fall.
    pub gauges: Vec<bool>,
    /// In order of their numbers.
    pub shards: Vec<Shard>,
    taken: Instant,
}

/// Numbers of one shard.
#[derive(Debug, Clone)]
pub struct Shard {
    pub number: u32,
    /// When it published them, by its own clock.
    published: f64,
    numbers: Vec<u64>,
}

/// What a stack answers at `path`.
pub fn read_text(path: &Path) -> Result<String> {
    let stream = UnixStream::connect(path)
        .with_context(|| format!("no stack exports its counters at {}", path.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    let reading = stream.take(TEXT_MAX).read_to_string(&mut text);
    reading.with_context(|| format!("reading counters from {}", path.display()))?;
    Ok(text)
}

/// A sample of the stack that answers at `path`.
pub fn read(path: &Path) -> Result<Sample> {
    let text = read_text(path)?;
    parse(&text, Instant::now()).with_context(|| format!("{} gave no counters of a stack", path.display()))
}

pub(super) fn parse(text: &str, taken: Instant) -> Result<Sample> {
    let (mut info, mut names, mut gauges) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut shards: BTreeMap<u32, (f64, Vec<u64>)> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { bail!("a type without a name: {line:?}") };
            let name = name.strip_prefix(PREFIX).with_context(|| format!("a foreign name: {line:?}"))?;
            if !["info", "published_seconds"].contains(&name) {
                names.push(name.to_owned());
                gauges.push(kind == "gauge");
            }
        } else if let Some(labels) = line.strip_prefix("peyk_info{") {
            info = parse_labels(labels).with_context(|| format!("malformed: {line:?}"))?;
        } else if let (Some(name), Some(value)) = (words.next(), words.next()) {
            let malformed = || format!("malformed: {line:?}");
            let (name, rest) = name.split_once("{shard=\"").with_context(malformed)?;
            let number = rest.strip_suffix("\"}").and_then(|n| n.parse().ok()).with_context(malformed)?;
            let name = name.strip_prefix(PREFIX).with_context(malformed)?;
            let shard = shards.entry(number).or_default();
            if name == "published_seconds" {
                shard.0 = value.parse().with_context(malformed)?;
            } else {
                ensure!(names.last().is_some_and(|last| last == name), "a number without a type: {line:?}");
                shard.1.push(value.parse().with_context(malformed)?);
            }
        }
    }
    ensure!(!names.is_empty(), "there is no number in it");
    ensure!(shards.values().all(|shard| shard.1.len() == names.len()), "a shard lacks some of the numbers");
    let shards =
        shards.into_iter().map(|(number, (published, numbers))| Shard { number, published, numbers });
    Ok(Sample { info, names, gauges, shards: shards.collect(), taken })
}

/// Labels up to the closing brace; `None` if that is missing.
fn parse_labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(',');
        if rest.starts_with('}') {
            return Some(labels);
        }
        let (name, after) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(chars.next()?.1),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = &after[end + 1..];
    }
}

impl Sample {
    /// Place of a number by its name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|own| own == name)
    }

    /// A number of one shard, by its place in `shards`, or of all together.
    pub fn number(&self, shard: Option<usize>, at: usize) -> u64 {
        match shard {
            Some(shard) => self.shards[shard].numbers[at],
            None => self.shards.iter().map(|shard| shard.numbers[at]).sum(),
        }
    }

    /// Time between two samples.
    pub fn since(&self, before: &Sample) -> Duration {
        self.taken.saturating_duration_since(before.taken)
    }

    /// By how much a counter grew per second since an earlier sample, at one shard or at all together.
    pub fn rate(&self, before: &Sample, shard: Option<usize>, at: usize) -> f64 {
        let Some(shard) = shard else {
            return (0..self.shards.len()).map(|shard| self.rate(before, Some(shard), at)).sum();
        };
        let now = &self.shards[shard];
        let Some(then) = before.shards.iter().find(|then| then.number == now.number) else { return 0.0 };
        let Some(&old) = then.numbers.get(at) else { return 0.0 };
        let taken = self.since(before).as_secs_f64();
        let published = now.published - then.published;
        // The shard's own times are the right ones, unless it slept and had nothing to publish.
        let seconds = if (taken / 2.0..taken * 2.0).contains(&published) { published } else { taken };
        if seconds > 0.0 { now.numbers[at].saturating_sub(old) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE peyk_info gauge\npeyk_info{version=\"1\",uses=\"a \\\"b\\\", c\"} 1\n\
        # TYPE peyk_published_seconds gauge\npeyk_published_seconds{shard=\"0\"} 2.5\n\
        peyk_published_seconds{shard=\"1\"} 3.5\n# TYPE peyk_x_total counter\npeyk_x_total{shard=\"0\"} 10\n\
        peyk_x_total{shard=\"1\"} 20\n# TYPE peyk_y gauge\npeyk_y{shard=\"0\"} 1\npeyk_y{shard=\"1\"} 2\n";

    #[test]
    fn parse_takes_what_a_stack_says() {
        let sample = parse(TEXT, Instant::now()).unwrap();
        assert_eq!(sample.names, ["x_total", "y"]);
        assert_eq!(sample.gauges, [false, true]);
        assert_eq!(sample.info["uses"], "a \"b\", c");
        assert_eq!((sample.number(Some(1), 0), sample.number(None, 0)), (20, 30));
        assert_eq!(sample.place("y"), Some(1));
    }

    #[test]
    fn parse_refuses_what_is_no_counters() {
        for text in
            ["", "hello there\n", "peyk_x_total{shard=\"0\"} 1\n", "# TYPE peyk_x counter\npeyk_x 1\n"]
        {
            assert!(parse(text, Instant::now()).is_err(), "{text:?}");
        }
        for cut in (0..TEXT.len()).filter(|cut| *cut < TEXT.len() - 1) {
            // Cut anywhere it is refused or taken for less; it does not panic.
            let _ = parse(&TEXT[..cut], Instant::now());
        }
    }

    #[test]
    fn rate_is_by_the_time_of_the_shard_that_did_not_sleep() {
        let start = Instant::now();
        let before = parse(TEXT, start).unwrap();
        let text = TEXT.replace("seconds{shard=\"0\"} 2.5", "seconds{shard=\"0\"} 4.5");
        let text = text.replace("x_total{shard=\"0\"} 10", "x_total{shard=\"0\"} 30");
        let text = text.replace("x_total{shard=\"1\"} 20", "x_total{shard=\"1\"} 22");
        let now = parse(&text, start + Duration::from_millis(1900)).unwrap();
        assert_eq!(now.rate(&before, Some(0), 0), 10.0, "20 in its two seconds");
        let slept = now.rate(&before, Some(1), 0);
        assert!((slept - 2.0 / 1.9).abs() < 1e-9, "{slept}");
        assert_eq!(now.rate(&before, None, 0), 10.0 + slept);
    }
}
