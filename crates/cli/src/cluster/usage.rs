//! What a load takes: CPU time of the node, CPU time of the whole machine, segments sent again.

use serde::{Deserialize, Serialize};

use crate::process::cpu_seconds;

/// What a node has used during a load.
#[derive(Copy, Clone, Default, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of its process in seconds, time in the kernel on its behalf included.
    pub cpu_seconds: f64,
    /// Packets or segments that were sent again.
    pub retransmitted: u64,
}

impl Usage {
    /// CPU time so far, and the count of retransmissions that the transport gives.
    pub fn so_far(retransmitted: u64) -> Usage {
        Usage { cpu_seconds: cpu_seconds(), retransmitted }
    }

    /// What was used since then.
    pub fn since(self, before: Usage) -> Usage {
        Usage {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            retransmitted: self.retransmitted.saturating_sub(before.retransmitted),
        }
    }

    /// With another node's.
    pub fn add(&mut self, other: Usage) {
        self.cpu_seconds += other.cpu_seconds;
        self.retransmitted += other.retransmitted;
    }
}

/// Segments that the kernel's TCP has sent again in this network namespace.
pub fn tcp_retransmitted() -> u64 {
    std::fs::read_to_string("/proc/self/net/snmp").map_or(0, |text| retransmitted_in(&text).unwrap_or(0))
}

fn retransmitted_in(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == "RetransSegs")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

/// Busy and total time of all CPUs of this machine, in ticks.
#[derive(Copy, Clone, Debug)]
pub struct Machine {
    busy: u64,
    total: u64,
}

impl Machine {
    /// Up to this moment.
    pub fn so_far() -> Machine {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Machine::parse(&text).unwrap_or(Machine { busy: 0, total: 0 })
    }

    fn parse(text: &str) -> Option<Machine> {
        let line = text.lines().find(|line| line.starts_with("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is part of user time.
        let total: u64 = ticks.iter().take(8).sum();
        Some(Machine { busy: total - ticks.get(3)? - ticks.get(4)?, total })
    }

    /// The share of time that the CPUs were busy since then, in percent.
    pub fn percent_since(self, before: Machine) -> f64 {
        let total = self.total.saturating_sub(before.total).max(1);
        self.busy.saturating_sub(before.busy) as f64 * 100.0 / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmitted_in_finds_the_column() {
        let text = "Ip: a b\nIp: 1 2\nTcp: RtoMin InSegs RetransSegs InErrs\nTcp: 200 7 42 0\n";
        assert_eq!(retransmitted_in(text), Some(42));
        assert_eq!(retransmitted_in("Tcp: InSegs\nTcp: 7\n"), None);
    }

    #[test]
    fn percent_since_leaves_out_idle_and_waiting() {
        let before = Machine::parse("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        let after = Machine::parse("cpu  30 0 20 100 20 5 5 0 0 0\n").unwrap();
        assert_eq!(after.percent_since(before), 50.0);
    }
}
