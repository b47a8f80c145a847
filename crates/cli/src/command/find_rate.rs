//! `peyk cluster --find-rate`: the highest rate of the links that this machine can carry.
//!
//! CPU time grows about evenly with the rate, so two short runs at a low rate give an estimate, and further ones correct
//! it from where it is.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::cluster::{measure, transports};
use crate::{flags::Cluster, testbed::Rate};

/// How busy the machine may be, in percent.
const BUSY: f64 = 50.0;

/// Where the search begins, in bit/s.
const FIRST: u64 = 20_000_000;

/// Rates tried at most.
const TRIES: usize = 5;

/// Most that the rate grows from one try to the next.
const GROWTH: f64 = 4.0;

/// How near to the goal is near enough, in percent of the machine.
const NEAR: f64 = 4.0;

/// Finds the rate and says so.
pub fn run(flags: &Cluster) -> Result<()> {
    ensure!(
        flags.where_.ssh.is_empty() && flags.where_.listen.is_none(),
        "only the rate of a testbed can be chosen"
    );
    let short =
        Cluster { duration: Some(flags.duration.unwrap_or(Duration::from_secs(4))), ..shallow(flags) };
    let transports = transports(flags);
    let mut rate = Rate(FIRST);
    let mut best: Option<(Rate, f64)> = None;
    println!("{:>12}{:>10}   busiest transport", "rate", "CPU %");
    for _ in 0..TRIES {
        let outcome = measure(&short, rate, &transports)?;
        let busiest = outcome.runs.iter().max_by(|a, b| a.cpu_percent.total_cmp(&b.cpu_percent));
        let Some(busiest) = busiest else { break };
        println!("{:>12}{:>10.0}   {}", rate.to_string(), busiest.cpu_percent, busiest.title());
        if busiest.cpu_percent <= BUSY + NEAR && best.is_none_or(|(highest, _)| rate > highest) {
            best = Some((rate, busiest.cpu_percent));
        }
        if (busiest.cpu_percent - BUSY).abs() <= NEAR {
            break;
        }
        let factor = (BUSY / busiest.cpu_percent.max(1.0)).min(GROWTH);
        // To a number that is easy to remember.
        let next = Rate(((rate.0 as f64 * factor / 5e6).round() as u64).max(1) * 5_000_000);
        if next == rate {
            break;
        }
        rate = next;
    }
    match best {
        Some((rate, cpu)) => {
            println!(
                "\nThe highest rate: {rate} for each of {} hosts, with the CPU {cpu:.0} % busy.",
                flags.hosts
            );
            Ok(())
        }
        None => anyhow::bail!("this machine is busy even at the lowest rate tried"),
    }
}

/// The flags that matter for a search.
fn shallow(flags: &Cluster) -> Cluster {
    let mut arguments = vec!["peyk".to_owned(), "cluster".into(), "--quick".into()];
    let hosts = flags.hosts.to_string();
    let load = flags.load.to_string();
    let workload = flags.workload.to_string();
    for (name, value) in [("--hosts", hosts), ("--load", load), ("--workload", workload)] {
        arguments.extend([name.to_owned(), value]);
    }
    let cli = <crate::flags::Cli as clap::Parser>::parse_from(arguments);
    match cli.command {
        crate::flags::Command::Cluster(flags) => *flags,
        _ => unreachable!("these are flags of cluster"),
    }
}
