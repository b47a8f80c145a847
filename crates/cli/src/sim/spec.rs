//! What one simulated experiment is to be, as flags and plans say it, and its translation to
//! [`peyk_sim::experiment::Experiment`].

mod build;

use std::{fmt, path::PathBuf};

use clap::Args;
use peyk_sim::{incast::IncastSpec, workload::Name};
use serde::{Deserialize, Serialize};

/// What the hosts do.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Every host sends messages to random others.
    #[default]
    Load,
    /// All hosts send to one at the same moment.
    Incast,
}

/// Where Homa's settings come from.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Settings {
    /// The simulations of the SIGCOMM'18 paper.
    #[default]
    Published,
    /// The defaults that ship.
    Shipped,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Settings::Published { "published" } else { "shipped" })
    }
}

/// What the priority of unscheduled data follows.
#[derive(Copy, Clone, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The bytes of the message that are left.
    Remaining,
    /// The length of the message.
    Length,
}

/// An experiment; what is not said has its default.
#[derive(Clone, PartialEq, Debug, Default, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// What the hosts do.
    #[arg(skip)]
    pub kind: Kind,
    /// The transport.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Message sizes: w1 is the shortest, w5 the longest [default: w4].
    #[arg(long, value_name = "w1..w5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Name>,
    /// Message sizes from a file instead: lines of a size and the share of messages not longer, as the papers'
    /// point lists have them. With --workload the settings are that workload's.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sizes: Option<PathBuf>,
    /// The sizes of the workload as HomaModule's benchmarks have them, and `demo` and `cluster`: at most 1 MB.
    #[arg(long, conflicts_with = "sizes")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub capped: bool,
    /// Share of each host's link in use, headers and grants included: 0.8 or 80% [default: 0.8].
    #[arg(long, value_parser = share, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Hosts: up to 16 in one rack, or whole racks of 16 [default: 144].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<u16>,
    /// Messages measured, over all hosts [default: about a minute's worth].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Messages before these, not measured [default: a tenth of them].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<u64>,
    /// Seed of everything [default: 1].
    #[arg(long, value_name = "SEED")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Where Homa's settings come from.
    #[arg(skip)]
    pub settings: Settings,
    /// Most messages granted to at a time, 1 to 8.
    #[arg(long, value_name = "N", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overcommit: Option<u32>,
    /// Priorities for unscheduled data, 1 to 7, with cutoffs balanced for the workload.
    #[arg(long, value_name = "N", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unscheduled_levels: Option<u8>,
    /// Bytes of a message sent without a grant.
    #[arg(long, value_name = "BYTES", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unscheduled_bytes: Option<u32>,
    /// What the priority of unscheduled data follows.
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unscheduled_by: Option<By>,
    /// Bytes granted ahead for each message; 0 divides --max-incoming among the active ones.
    #[arg(long, value_name = "BYTES", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Most bytes granted but not received, over all messages.
    #[arg(long, value_name = "BYTES", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_incoming: Option<u32>,
    /// Last bytes of a message whose grants are raised; 0 raises none.
    #[arg(long, value_name = "BYTES", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_boost: Option<u32>,
    /// Bytes left up to which the shortest message goes first; among longer ones, the oldest.
    #[arg(long, value_name = "BYTES", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srpt_limit: Option<u32>,
    /// Bytes of each grant to the oldest message.
    #[arg(long, value_name = "BYTES", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fifo_increment: Option<u32>,
    /// Share of the grants for the oldest message rather than the shortest: 0.05 or 5%.
    #[arg(long, value_parser = share, value_name = "SHARE", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fifo_share: Option<f64>,
    /// Priority of the grants to the oldest message, 0 to 7 [default: 0, below all others; HomaModule: 6].
    #[arg(long, value_name = "N", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fifo_priority: Option<u8>,
    /// Milliseconds of silence before what is missing is asked for, and between requests [default: 5 with
    /// --buffer; else never, for nothing is lost].
    #[arg(long, value_name = "MS", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resend_ms: Option<u32>,
    /// Bytes that the header of a DATA packet has on the wire (published: 30, shipped: 56).
    #[arg(long, value_name = "BYTES", help_heading = "Homa")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_header: Option<u32>,
    /// Speed of the hosts' links in Mbit/s [default: 10000].
    #[arg(long, value_name = "MBPS", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_mbps: Option<u32>,
    /// Speed of the links between switches in Mbit/s [default: 40000].
    #[arg(long, value_name = "MBPS", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric_mbps: Option<u32>,
    /// Bytes that may wait at each link of a switch; what comes beyond is dropped [default: no limit
    /// with homa; as the others need it].
    #[arg(long, value_name = "BYTES", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer: Option<u64>,
    /// Bytes waiting at a link above which packets are marked as having met congestion [default: as the
    /// transport needs it].
    #[arg(long, value_name = "BYTES", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<u64>,
    /// Shortest retransmission timeout of tcp and dctcp, in microseconds [default: 1000].
    #[arg(long, value_name = "US", help_heading = "Network")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rto_us: Option<u32>,
    /// Spray the packets of tcp and dctcp over all paths instead of one for each connection.
    #[arg(long, help_heading = "Network")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spray: bool,
    /// Longest wait for the last messages, as a multiple of the time it took to create all [default: 1].
    #[arg(long, value_name = "FACTOR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<f64>,
    /// Incast: messages of a round.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub senders: Option<u32>,
    /// Incast: bytes of each message.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes: Option<u32>,
    /// Incast: rounds.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
}

/// Parses `0.8`, `80%` or `80 %`.
pub fn share(text: &str) -> Result<f64, String> {
    let number = text.trim();
    let (number, scale) = match number.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 100.0),
        None => (number, 1.0),
    };
    match number.parse::<f64>().map(|n| n / scale) {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) => Err("a share lies between 0 and 1: write 0.8 or 80%".into()),
        Err(_) => Err(format!("`{text}` is not a share: write 0.8 or 80%")),
    }
}

/// Messages worth about a minute on one core of 2025, or ten seconds.
fn default_messages(workload: Name, is_quick: bool) -> u64 {
    let (minute, quick) = match workload {
        Name::W1 => (8_000_000, 1_200_000),
        Name::W2 => (5_000_000, 800_000),
        Name::W3 => (2_500_000, 400_000),
        Name::W4 => (100_000, 15_000),
        Name::W5 => (5_000, 1_000),
    };
    if is_quick { quick } else { minute }
}

impl Spec {
    /// The transport's name.
    pub fn transport_name(&self) -> &str {
        self.transport.as_deref().unwrap_or("homa")
    }

    /// The workload whose settings hold: none if there are only sizes from a file.
    pub fn workload(&self) -> Option<Name> {
        self.workload.or(if self.sizes.is_some() { None } else { Some(Name::W4) })
    }

    /// The workload for people and results.
    pub fn workload_name(&self) -> String {
        match (self.workload(), &self.sizes) {
            (Some(name), _) => name.to_string().to_lowercase(),
            (None, Some(file)) => file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            (None, None) => String::new(),
        }
    }

    /// Writes down how many messages are measured. Quick runs measure a tenth of what a plan says.
    pub fn settle(&mut self, is_quick: bool) {
        let like = self.workload().unwrap_or(Name::W4);
        self.messages = Some(match self.messages {
            None => default_messages(like, is_quick),
            Some(messages) if is_quick => (messages / 10).max(100),
            Some(messages) => messages,
        });
        if is_quick {
            self.rounds = self.rounds.map(|rounds| rounds.div_ceil(10));
        }
    }

    /// The share of the network in use.
    pub fn load(&self) -> f64 {
        self.load.unwrap_or(0.8)
    }

    /// Number of hosts.
    pub fn hosts(&self) -> u16 {
        self.hosts.unwrap_or(144)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(1)
    }

    /// Messages measured.
    pub fn messages(&self) -> u64 {
        self.messages.unwrap_or_else(|| default_messages(self.workload().unwrap_or(Name::W4), false))
    }

    /// The incast.
    pub fn incast(&self) -> IncastSpec {
        IncastSpec {
            messages: self.senders.unwrap_or(100),
            bytes: self.message_bytes.unwrap_or(10_000),
            rounds: self.rounds.unwrap_or(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_takes_the_usual_forms() {
        assert_eq!(share("0.8"), Ok(0.8));
        assert_eq!(share("80%"), Ok(0.8));
        for bad in ["80", "-1", "x", "", "101 %"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
