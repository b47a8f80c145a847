//! Whether a network does what it promises: a flood at the lowest level reaches the rate of the link and fills its queue,
//! and yet a probe at the highest level waits for little more than the one packet that is on its way.

use std::{
    io::{BufRead, BufReader},
    net::IpAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{Rate, Testbed, probe};

/// Probes of each kind.
const PROBES: usize = 400;

/// Probes at the level of the flood, each of which waits for a whole queue, or finds it full and is lost.
const SLOW_PROBES: usize = 24;

/// After what time a probe is taken for lost: longer than a machine is busy with other things.
const PATIENCE: Duration = Duration::from_millis(800);

/// How long the flood's rate is watched.
const WATCH: Duration = Duration::from_millis(700);

/// Bytes of a full packet of the flood, as the queues count them.
const FRAME: u64 = probe::FLOOD_BYTES as u64 + 42;

/// Round trips in microseconds.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct Trips {
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Probes without an answer: they found a queue full.
    pub lost: u64,
}

/// What a check has found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Time of a full packet on the link, in microseconds.
    pub packet_us: f64,
    /// Probes on the idle network.
    pub idle: Trips,
    /// Probes at the highest level, beside a flood at the lowest through the port to the same host.
    pub above: Trips,
    /// Probes at the level of the flood.
    pub beside: Trips,
    /// Rate at which the flood left that port, as a share of the link's.
    pub share: f64,
    /// Packets of the flood that found the queue full.
    pub dropped: u64,
}

impl Findings {
    /// What is wrong; empty if all is well.
    ///
    /// A probe finds a packet of the flood on its way and waits for its rest: at most one packet's time, half of one on
    /// average. The rest of what is allowed is for the machine, which has all of this to compute.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut expect = |is_well: bool, what: String| {
            if !is_well {
                faults.push(what);
            }
        };
        let added = |trips: f64| (trips - self.idle.p50_us) / self.packet_us;
        let (p50, p90) = (added(self.above.p50_us), added(self.above.p90_us));
        expect(
            p50 <= 1.25,
            format!("half of the urgent probes were delayed by {p50:.1} packets' time or more"),
        );
        expect(
            p90 <= 2.25,
            format!("a tenth of the urgent probes was delayed by {p90:.1} packets' time or more"),
        );
        let lost = self.idle.lost + self.above.lost;
        expect(lost == 0, format!("{lost} urgent probes were lost"));
        let low = added(self.beside.p50_us);
        expect(
            low >= 8.0,
            format!("the flood delayed probes of its own level by {low:.1} packets' time only"),
        );
        let percent = self.share * 100.0;
        expect(
            (0.93..=1.03).contains(&self.share),
            format!("the flood left at {percent:.1} % of the link's rate"),
        );
        expect(self.dropped > 0, "the flood never filled its queue".into());
        faults
    }
}

/// Checks a network that nobody uses; the ports to the hosts are looked at through that of host 2.
pub fn check(testbed: &Testbed, rate: Rate) -> Result<Findings> {
    ensure!(testbed.hosts() >= 4, "a check needs four hosts: who probes, who is probed, and two that flood");
    let (from, to) = (1, 2);
    let target = Testbed::address(to, false);
    let high = super::LEVELS - 1;
    let echo = Agent::start(testbed, to, &["echo", &high.to_string()])?;
    let idle = measure(testbed, from, target, high, PROBES, PATIENCE)?;
    // Two, or their own links would be all that limits them.
    let flood: Vec<Agent> = [3, 4]
        .iter()
        .map(|&host| Agent::start(testbed, host, &["flood", &target.to_string(), "0"]))
        .collect::<Result<_>>()?;
    // Until the queues are full.
    std::thread::sleep(Duration::from_millis(500));
    let above = measure(testbed, from, target, high, PROBES, PATIENCE)?;
    let (before, start) = (port_to(testbed, to)?, Instant::now());
    std::thread::sleep(WATCH);
    let (after, elapsed) = (port_to(testbed, to)?, start.elapsed());
    let beside = measure(testbed, from, target, 0, SLOW_PROBES, PATIENCE)?;
    let full = port_to(testbed, to)?;
    drop((flood, echo));
    Ok(Findings {
        packet_us: rate.microseconds(FRAME),
        idle,
        above,
        beside,
        share: (after.bytes - before.bytes) as f64 * 8.0 / elapsed.as_secs_f64() / rate.0 as f64,
        dropped: full.dropped(),
    })
}

/// The switch's port to a host.
fn port_to(testbed: &Testbed, host: usize) -> Result<super::Port> {
    testbed.ports()?.into_iter().find(|p| p.switch && p.host == host).context("a port is missing")
}

fn measure(
    testbed: &Testbed,
    from: usize,
    to: IpAddr,
    level: u8,
    count: usize,
    patience: Duration,
) -> Result<Trips> {
    let patience = patience.as_millis().to_string();
    let arguments = ["probe", &to.to_string(), &level.to_string(), &count.to_string(), &patience];
    let mut agent = Agent::spawn(testbed, from, &arguments)?;
    let line = agent.line()?;
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [p50, p90, p99, lost] = numbers[..] else { anyhow::bail!("a probe said {line:?}") };
    let us = |ns: u64| ns as f64 / 1e3;
    Ok(Trips { p50_us: us(p50), p90_us: us(p90), p99_us: us(p99), lost })
}

/// An agent in a host. Dropping it ends it.
struct Agent {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Agent {
    /// Starts one and waits until it is ready.
    fn start(testbed: &Testbed, host: usize, arguments: &[&str]) -> Result<Agent> {
        let mut agent = Agent::spawn(testbed, host, arguments)?;
        let line = agent.line()?;
        ensure!(line.trim() == "ready", "an agent said {line:?}");
        Ok(agent)
    }

    fn spawn(testbed: &Testbed, host: usize, arguments: &[&str]) -> Result<Agent> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &testbed.host(host)])
            .arg(program)
            .arg("testbed-agent")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting an agent")?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Agent { child, output: BufReader::new(output) })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("reading from an agent")?;
        ensure!(!line.is_empty(), "an agent ended early");
        Ok(line)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips(us: f64) -> Trips {
        Trips { p50_us: us, p90_us: us * 1.1, p99_us: us * 1.5, lost: 0 }
    }

    #[test]
    fn faults_tell_a_network_without_priorities() {
        let good = Findings {
            packet_us: 150.0,
            idle: trips(30.0),
            above: trips(105.0),
            beside: trips(15_000.0),
            share: 0.99,
            dropped: 10,
        };
        assert!(good.faults().is_empty());
        let bad = Findings { above: trips(15_000.0), ..good.clone() };
        assert_eq!(bad.faults().len(), 2);
        let lossy = Findings { above: Trips { lost: 3, ..good.above }, ..good.clone() };
        assert_eq!(lossy.faults(), ["3 urgent probes were lost"]);
        let unlimited = Findings { share: 3.0, beside: trips(40.0), dropped: 0, ..good };
        assert_eq!(unlimited.faults().len(), 3);
    }
}
