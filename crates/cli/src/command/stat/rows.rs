//! The rows that people see: which numbers, under which name, as a rate or as they are.

use super::sample::Sample;

/// A row: what is summed, and how it is shown.
pub struct Row {
    pub title: &'static str,
    /// Places of the numbers that are summed.
    places: Vec<usize>,
    show: Show,
}

#[derive(Clone, Copy, PartialEq)]
enum Show {
    /// Growth per second.
    Rate,
    /// Growth per second, in bytes.
    Bytes,
    /// The number itself.
    Now,
}

/// Titles, numbers (all that begin so, if the name ends with `*`), and how they are shown.
const ROWS: [(&str, &[&str], Show); 24] = [
    ("requests received /s", &["homa_requests_received_total"], Show::Rate),
    ("replies sent /s", &["homa_replies_sent_total"], Show::Rate),
    ("requests sent /s", &["homa_requests_sent_total"], Show::Rate),
    ("responses received /s", &["homa_responses_received_total"], Show::Rate),
    ("RPCs failed /s", &["homa_rpc_failures_total"], Show::Rate),
    ("message bytes in /s", &["homa_message_bytes_received_total"], Show::Bytes),
    ("message bytes out /s", &["homa_message_bytes_sent_total"], Show::Bytes),
    ("packets in /s", &["driver_packets_received_total"], Show::Rate),
    ("packets out /s", &["driver_packets_sent_total"], Show::Rate),
    ("trains out /s", &["driver_trains_sent_total"], Show::Rate),
    ("grants sent /s", &["homa_sent_grant_total"], Show::Rate),
    ("retransmitted /s", &["homa_data_retransmitted_total"], Show::Rate),
    ("dropped /s", &["homa_drop_*", "driver_dropped_*"], Show::Rate),
    ("handed to other shards /s", &["mesh_handed_over_total"], Show::Rate),
    ("lost between shards /s", &["mesh_dropped_total"], Show::Rate),
    ("turns /s", &["shard_turns_total"], Show::Rate),
    ("sleeps /s", &["driver_queue_sleeps_total"], Show::Rate),
    ("sockets", &["usage_sockets"], Show::Now),
    ("sockets whose application is late", &["app_behind"], Show::Now),
    ("RPCs under way", &["usage_rpcs"], Show::Now),
    ("peers", &["usage_peers"], Show::Now),
    ("bytes granted and not received", &["usage_granted_bytes"], Show::Now),
    ("bytes to be sent", &["usage_send_bytes"], Show::Now),
    ("receive pages free", &["usage_free_pages"], Show::Now),
];

/// The rows that a stack has numbers for.
pub fn rows(sample: &Sample) -> Vec<Row> {
    let places = |patterns: &[&str]| -> Vec<usize> {
        let fits = |name: &str, pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        let is_meant = |name: &&String| patterns.iter().any(|pattern| fits(name, pattern));
        sample.names.iter().filter(is_meant).filter_map(|name| sample.place(name)).collect()
    };
    let row = |&(title, patterns, show): &(&'static str, &[&str], Show)| Row {
        title,
        places: places(patterns),
        show,
    };
    ROWS.iter().map(row).filter(|row| !row.places.is_empty()).collect()
}

impl Row {
    /// As text: of one shard, by its place, or of all together.
    pub fn value(&self, before: &Sample, now: &Sample, shard: Option<usize>) -> String {
        let rate = || self.places.iter().map(|&at| now.rate(before, shard, at)).sum::<f64>();
        match self.show {
            Show::Rate => short(rate(), 1000.0, ["", "k", "M", "G"]),
            Show::Bytes => short(rate(), 1000.0, [" B", " kB", " MB", " GB"]),
            Show::Now => self.places.iter().map(|&at| now.number(shard, at)).sum::<u64>().to_string(),
        }
    }
}

fn short(value: f64, step: f64, units: [&str; 4]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= 10.0 * step && unit + 1 < units.len() {
        (value, unit) = (value / step, unit + 1);
    }
    if unit > 0 && value < 100.0 {
        format!("{value:.1}{}", units[unit])
    } else {
        format!("{value:.0}{}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_keeps_three_digits_at_least() {
        let rate = |value| short(value, 1000.0, ["", "k", "M", "G"]);
        assert_eq!(
            [0.0, 9_999.0, 12_345.0, 123_456.0, 12_345_678.0].map(rate),
            ["0", "9999", "12.3k", "123k", "12.3M"]
        );
    }
}
