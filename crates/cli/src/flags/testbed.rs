//! The flags of `peyk testbed`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::percent;
use crate::testbed::{Rate, probe::Agent};

/// Make a network on this machine that really queues.
///
/// Hosts are network namespaces, joined by a switch that is one. Every link has a rate, eight strict priority levels
/// (chosen by the top three bits of IPv4 TOS or IPv6 traffic class) and queues that hold a bounded number of packets. It
/// needs root and iproute2, and leaves nothing but namespaces, which `destroy` removes.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk testbed create --hosts 5 --rate 80mbit\n  \
                        ip netns exec peyk-lab-1 peyk serve &   the hosts are peyk-lab-1 to 5, 10.77.0.1 to 5\n  \
                        ip netns exec peyk-lab-2 peyk ping 10.77.0.1\n  peyk testbed show\n  peyk testbed check\n  \
                        peyk testbed destroy")]
pub struct Testbed {
    /// What to do.
    #[command(subcommand)]
    pub command: TestbedCommand,
}

/// What to do with a testbed.
#[derive(Subcommand, Debug)]
pub enum TestbedCommand {
    /// Make it.
    Create(Create),
    /// Print what each queue holds and has dropped.
    Show(Show),
    /// Remove it, or what is left of it.
    Destroy(Destroy),
    /// Flood it at the lowest level and see that probes at the highest do not wait.
    Check(Check),
}

/// Make a testbed.
#[derive(Args, Debug)]
pub struct Create {
    /// Its name.
    #[arg(long, default_value = "lab")]
    pub name: String,
    /// Number of hosts.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub hosts: usize,
    /// Rate of each direction of each link.
    #[arg(long, default_value = "80mbit", value_name = "RATE")]
    pub rate: Rate,
    /// Packets that each queue holds: there are eight at each end of each link.
    #[arg(long, default_value_t = 256, value_name = "PACKETS")]
    pub queue: u32,
    /// Share of packets that the switch loses on purpose.
    #[arg(long, value_parser = percent, default_value = "0%", value_name = "PERCENT")]
    pub loss: f64,
    /// Remove an existing one of that name first, unless a process runs in it.
    #[arg(long)]
    pub replace: bool,
}

/// Show a testbed.
#[derive(Args, Debug)]
pub struct Show {
    /// Its name.
    #[arg(long, default_value = "lab")]
    pub name: String,
    /// Print it again and again, with this many seconds in between.
    #[arg(long, value_name = "SECONDS")]
    pub watch: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Remove testbeds.
#[derive(Args, Debug)]
pub struct Destroy {
    /// Its name.
    #[arg(long, default_value = "lab")]
    pub name: String,
    /// Remove all testbeds of this machine in which no process runs.
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
}

/// Check a testbed.
#[derive(Args, Debug)]
pub struct Check {
    /// Its name; without it one is made and removed again.
    #[arg(long)]
    pub name: Option<String>,
    /// Rate of its links.
    #[arg(long, default_value = "80mbit", value_name = "RATE")]
    pub rate: Rate,
    /// Also write the findings as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A process in a host that helps to check a testbed.
#[derive(Args, Debug)]
pub struct TestbedAgent {
    /// What it does.
    #[command(subcommand)]
    pub agent: Agent,
}
