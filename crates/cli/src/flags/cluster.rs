//! The flags of `peyk cluster`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use peyk_sim::workload::Name;

use super::{BackendName, duration, percent};
use crate::{cluster::Transport, testbed::Rate};

/// Compare transports where links queue: many hosts, each client and server of all others.
///
/// By default the hosts are namespaces of this machine, in a testbed that is made for the run and removed again (needs
/// root). With `--ssh` they are other machines, with `--listen` whoever joins with `peyk cluster-node --join`. Each host
/// sends requests of a workload to the others at random moments, whether or not earlier ones are answered; responses are
/// as long as their requests, and every message is numbered and hashed. Unloaded round trips come first, then the load
/// over each transport in turn. Latency counts from the moment a message was due.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk cluster --hosts 5 --rate 80mbit --load 0.8 --workload w4\n  \
                        peyk cluster --quick --transport homa,tcp1\n  \
                        peyk cluster --transport homa --levels 1,2,4,8\n  \
                        peyk cluster --transport homa --beside tcp1 --beside-load 20%\n  \
                        peyk cluster --find-rate\n  \
                        peyk cluster --ssh root@10.0.0.1,root@10.0.0.2,root@10.0.0.3 --rate 1gbit\n  \
                        peyk cluster --listen 0.0.0.0:7700 --hosts 5 --rate 1gbit")]
pub struct Cluster {
    /// Hosts.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub hosts: usize,
    /// Rate of each direction of each link.
    #[arg(long, default_value = "80mbit", value_name = "RATE")]
    pub rate: Rate,
    /// Payload that each host sends, as a share of its link: half of it requests, half responses.
    #[arg(long, value_parser = share, default_value = "0.8", value_name = "SHARE")]
    pub load: f64,
    /// Message sizes, at most 1 MB: w1 is the shortest, w5 the longest.
    #[arg(long, default_value = "w4", value_name = "w1..w5")]
    pub workload: Name,
    /// Transports, in this order; without it all of them, or with `--quick` homa, tcp1 and quinn.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub transport: Vec<Transport>,
    /// Time for which messages are sent over each transport.
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Measurement")]
    pub duration: Option<Duration>,
    /// Seed of sizes, arrivals, contents and targets.
    #[arg(long, default_value_t = 1, help_heading = "Measurement")]
    pub seed: u64,
    /// Homa, TCP and QUIC in less than two minutes, with rougher figures.
    #[arg(long)]
    pub quick: bool,
    /// Find the highest rate at which the busiest of the transports leaves half of this machine's CPU time free.
    #[arg(long)]
    pub find_rate: bool,
    /// Where to write the report.
    #[arg(long, default_value = "peyk-cluster.html", value_name = "FILE", help_heading = "Output")]
    pub html: PathBuf,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Where the hosts are.
    #[command(flatten)]
    pub where_: Where,
    /// What is special.
    #[command(flatten)]
    pub experiments: Experiments,
}

/// Where the hosts are.
#[derive(Args, Debug)]
#[command(next_help_heading = "Hosts")]
pub struct Where {
    /// Packets that each queue of the testbed holds.
    #[arg(long, default_value_t = 256, value_name = "PACKETS")]
    pub queue: u32,
    /// Machines that ssh reaches without a password, instead of a testbed.
    #[arg(long, value_delimiter = ',', value_name = "HOST,HOST...", conflicts_with = "listen")]
    pub ssh: Vec<String>,
    /// The command `peyk` on those machines.
    #[arg(long, default_value = "peyk", value_name = "PROGRAM")]
    pub program: String,
    /// Wait here for `--hosts` nodes to join, instead of a testbed.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Kernel interface that Peyk uses.
    #[arg(long, value_enum, default_value_t = BackendName::Auto)]
    pub backend: BackendName,
}

/// What is special about a run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Experiments")]
pub struct Experiments {
    /// Run Homa with each of these numbers of priority levels.
    #[arg(long, value_delimiter = ',', value_name = "1,2,4,8", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub levels: Vec<u8>,
    /// Run Homa with each of these degrees of overcommitment.
    #[arg(long, value_delimiter = ',', value_name = "1..8", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub overcommit: Vec<u32>,
    /// Bytes of a message that Homa sends without a grant, instead of what follows from the round trip.
    #[arg(long, value_name = "BYTES")]
    pub unscheduled: Option<u32>,
    /// Bytes left up to which Homa serves the shortest message first; among longer ones, the oldest.
    #[arg(long, value_name = "BYTES")]
    pub srpt_limit: Option<u32>,
    /// Run each transport once more while this one shares the links.
    #[arg(long, value_enum, value_name = "TRANSPORT")]
    pub beside: Option<Transport>,
    /// The load of the one that shares the links.
    #[arg(long, value_parser = share, default_value = "0.2", value_name = "SHARE")]
    pub beside_load: f64,
    /// Instead of a workload: all hosts keep so many messages of 10 kB to the first host outstanding.
    #[arg(long, value_name = "N", conflicts_with = "beside")]
    pub incast: Option<u32>,
    /// Kill the last host in the middle of each run (Homa only).
    #[arg(long)]
    pub kill: bool,
    /// Stop the last host for 20 ms in every 40 ms.
    #[arg(long, conflicts_with = "kill")]
    pub slow_receiver: bool,
    /// Share of packets that each port of the testbed's switch loses on purpose.
    #[arg(long, value_parser = percent, default_value = "0%", value_name = "PERCENT")]
    pub loss: f64,
}

/// Be a host of a cluster run.
#[derive(Args, Debug)]
pub struct ClusterNode {
    /// Join the run that waits there; without it, take orders from standard input.
    #[arg(long, value_name = "HOST:PORT")]
    pub join: Option<String>,
}

/// Parses `0.8`, `80%` or `80` to 0.8.
fn share(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => percent(text),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn share_takes_fractions_and_percentages() {
        for text in ["0.8", "80%", "80"] {
            assert_eq!(share(text), Ok(0.8), "{text}");
        }
        assert!(share("800").is_err());
    }
}
