//! `peyk cluster`: the hosts, the cases that the flags ask for, and what is shown of them.

use std::{
    net::{IpAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cluster::{
        Door, Place, Transport,
        outcome::{Outcome, Unloaded},
        run::{Case, Common, Hosts, Runner, Trouble},
    },
    command::{bench::write_json, testbed::remove},
    flags::Cluster,
    load::Baseline,
    node::{HomaOptions, Link},
    progress::Bar,
    report,
    testbed::{Rate, Shape, Testbed},
};

/// What the names of testbeds begin with that are made here; the id of the process follows.
const OWN: &str = "cluster";

/// How long nodes have for joining.
const JOIN_FOR: Duration = Duration::from_secs(300);

/// Bytes of a full frame.
const FRAME: u64 = 1_514;

/// A testbed that goes with this value.
struct Guard(Option<Testbed>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(testbed) = &self.0
            && let Err(error) = testbed.destroy()
        {
            eprintln!("peyk: {error:#}");
        }
    }
}

/// Runs the cluster.
pub fn run(flags: &Cluster) -> Result<()> {
    ensure!(flags.load > 0.0, "a load of 0 measures nothing");
    if flags.find_rate {
        return super::find_rate::run(flags);
    }
    let outcome = measure(flags, flags.rate, &transports(flags))?;
    print!("{}", report::cluster_text::text(&outcome));
    let html = report::cluster_html::page(&outcome)?;
    std::fs::write(&flags.html, html).with_context(|| format!("writing {}", flags.html.display()))?;
    println!("\nReport: {}", flags.html.display());
    if let Some(path) = &flags.json {
        write_json(path, &outcome)?;
        println!("Figures: {}", path.display());
    }
    Ok(())
}

/// The transports that the flags ask for.
pub fn transports(flags: &Cluster) -> Vec<Transport> {
    match (&flags.transport[..], flags.quick) {
        ([], true) => vec![Transport::Homa, Transport::Tcp1, Transport::Quinn],
        ([], false) => <Transport as clap::ValueEnum>::value_variants().to_vec(),
        (named, _) => named.to_vec(),
    }
}

/// Makes the hosts, runs everything, removes the hosts.
pub fn measure(flags: &Cluster, rate: Rate, transports: &[Transport]) -> Result<Outcome> {
    let cases = cases(flags, transports)?;
    ensure!(!cases.is_empty(), "name at least one transport");
    let common = common(flags, rate);
    // After the hosts in the order of declarations, so that their nodes end first.
    let guard;
    let mut hosts = hosts(flags, rate)?;
    guard = Guard(hosts.testbed.clone());
    let each = (common.duration + common.unloaded).as_millis() as u64;
    let bar = Bar::new(each * cases.len() as u64, "cluster");
    let reference = transports.iter().find(|&&t| t == Transport::Homa).unwrap_or(&transports[0]);
    let mut runner = Runner { hosts: &mut hosts, common: common.clone(), bar: &bar, done: 0 };
    let mut unloaded: Vec<(Transport, Unloaded)> = Vec::new();
    let mut order: Vec<Transport> = cases.iter().map(|case| case.transport).collect();
    order.sort_by_key(|t| t != reference);
    for transport in order {
        if !unloaded.iter().any(|(t, _)| *t == transport) {
            unloaded.push((transport, runner.unloaded(transport)?));
        }
    }
    let of = |transport| {
        let found = unloaded.iter().find(|(t, _)| *t == transport);
        found.map_or_else(|| Unloaded { baseline: Baseline::default() }, |(_, u)| u.clone())
    };
    let base = of(*reference).baseline;
    let mut runs = Vec::new();
    for case in &cases {
        let own = of(case.transport);
        runs.push(
            runner.case(case, &base, &own).with_context(|| format!("running {}", case.transport.name()))?,
        );
    }
    bar.finish();
    drop(guard);
    Ok(Outcome {
        hosts: hosts.ips.len(),
        rate,
        load: flags.load,
        workload: flags.workload,
        frame_us: rate.microseconds(FRAME),
        seconds: (common.duration - common.warmup).as_secs_f64(),
        queue: hosts.testbed.is_some().then_some(flags.where_.queue),
        loss: flags.experiments.loss,
        unscheduled: flags.experiments.unscheduled,
        srpt_limit: flags.experiments.srpt_limit,
        seed: flags.seed,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        reference: reference.name().to_owned(),
        runs,
    })
}

fn common(flags: &Cluster, rate: Rate) -> Common {
    let duration = flags.duration.unwrap_or(Duration::from_secs(if flags.quick { 15 } else { 30 }));
    let duration = duration.max(Duration::from_secs(1));
    Common {
        workload: flags.workload,
        load: flags.load,
        seed: flags.seed,
        duration,
        warmup: (duration / 6).min(Duration::from_secs(3)),
        drain: Duration::from_secs(if flags.quick { 8 } else { 20 }),
        // Some rounds of all sizes: three megabytes, both ways.
        unloaded: Duration::from_secs_f64((12.0 * 8.0 * 2e6 / rate.0 as f64).clamp(1.0, 10.0)),
        homa: HomaOptions {
            backend: flags.where_.backend,
            drop: 0.0,
            sleep: true,
            shards: 1,
            // Rate and round trip are not known yet.
            link: Some(Link {
                mbps: 0,
                round_trip_us: 0.0,
                levels: None,
                overcommit: None,
                unscheduled: flags.experiments.unscheduled,
                srpt_limit: flags.experiments.srpt_limit,
            }),
        },
    }
}

/// One case for each transport, with Homa's variants, and each once more with what shares the links.
fn cases(flags: &Cluster, transports: &[Transport]) -> Result<Vec<Case>> {
    let experiments = &flags.experiments;
    let mut cases = Vec::new();
    for &transport in transports {
        let plain = Case { incast: experiments.incast, ..Case::plain(transport) };
        let is_varied = transport == Transport::Homa
            && !(experiments.levels.is_empty() && experiments.overcommit.is_empty());
        if !is_varied {
            cases.push(plain.clone());
        } else {
            for &levels in &experiments.levels {
                let variant = format!("{levels} level{}", if levels == 1 { "" } else { "s" });
                cases.push(Case { variant, levels: Some(levels), ..plain.clone() });
            }
            for &overcommit in &experiments.overcommit {
                let variant = format!("overcommitment {overcommit}");
                cases.push(Case { variant, overcommit: Some(overcommit), ..plain.clone() });
            }
        }
        if let Some(other) = experiments.beside {
            let variant = format!("beside {}", other.name());
            cases.push(Case { variant, beside: Some((other, experiments.beside_load)), ..plain.clone() });
        }
    }
    if experiments.kill || experiments.slow_receiver {
        let is_homa = transports.iter().all(|&t| t == Transport::Homa);
        ensure!(!experiments.kill || is_homa, "--kill is for Homa: connections end with their hosts");
        let troubled: Vec<Case> = cases.iter().map(|case| trouble(flags, case)).collect();
        cases.extend(troubled);
    }
    if flags.where_.listen.is_some() && cases.iter().any(|c| c.beside.is_some() || c.trouble.is_some()) {
        bail!("nodes that have joined cannot be killed, stopped, or run two transports at once");
    }
    Ok(cases)
}

/// The case with what happens to the last host.
fn trouble(flags: &Cluster, case: &Case) -> Case {
    let place = if flags.where_.ssh.is_empty() { flags.hosts } else { flags.where_.ssh.len() } - 1;
    let (name, trouble) = match flags.experiments.kill {
        true => {
            let after = flags.duration.unwrap_or(Duration::from_secs(if flags.quick { 15 } else { 30 })) / 2;
            ("last host killed", Trouble::Kill { place, after })
        }
        false => {
            let half = Duration::from_millis(20);
            ("last host slow", Trouble::Stutter { place, stopped: half, running: half })
        }
    };
    let variant = format!("{} {name}", case.variant).trim().to_owned();
    Case { variant, trouble: Some(trouble), ..case.clone() }
}

fn hosts(flags: &Cluster, rate: Rate) -> Result<Hosts> {
    let place = &flags.where_;
    let (mut places, mut joined, mut ips, mut testbed) = (Vec::new(), Vec::new(), Vec::new(), None);
    if let Some(address) = place.listen {
        let door = Door::open(address)?;
        let deadline = Instant::now() + JOIN_FOR;
        while joined.len() < flags.hosts {
            eprintln!("cluster: {} of {} nodes have joined", joined.len(), flags.hosts);
            let (node, ip) = door.accept(deadline)?;
            joined.push(node);
            ips.push(ip);
        }
    } else if !place.ssh.is_empty() {
        for host in &place.ssh {
            let ip = address_of(host)?;
            ips.push(ip);
            places.push(Place::Ssh { host: host.clone(), program: place.program.clone() });
        }
    } else {
        clean_up()?;
        let shape = Shape { hosts: flags.hosts, rate, queue: place.queue, loss: flags.experiments.loss };
        let made = Testbed::create(&format!("{OWN}{}", std::process::id()), &shape)?;
        for host in 1..=flags.hosts {
            let ip = Testbed::address(host, false);
            ips.push(ip);
            places.push(Place::Namespace { name: made.host(host) });
        }
        testbed = Some(made);
    }
    ensure!(ips.len() >= 2, "a cluster has at least two hosts");
    ensure!(testbed.is_some() || flags.experiments.loss == 0.0, "only a testbed loses packets on purpose");
    Ok(Hosts { places, joined, ips, testbed, rate })
}

/// Removes the testbeds of runs that were killed.
fn clean_up() -> Result<()> {
    for old in Testbed::all()? {
        let pid = old.name().strip_prefix(OWN).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&old)?;
        }
    }
    Ok(())
}

/// The address of a machine that ssh reaches.
fn address_of(host: &str) -> Result<IpAddr> {
    let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
    let mut found = (name, 22).to_socket_addrs().with_context(|| format!("looking up {name}"))?;
    Ok(found.next().with_context(|| format!("{name} has no address"))?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases_of(arguments: &[&str]) -> Result<Vec<String>> {
        let all = ["peyk", "cluster"].iter().chain(arguments);
        let cli = <crate::flags::Cli as clap::Parser>::parse_from(all);
        let crate::flags::Command::Cluster(flags) = cli.command else { panic!("not cluster") };
        let cases = cases(&flags, &transports(&flags))?;
        Ok(cases.iter().map(|c| format!("{} {}", c.transport.name(), c.variant).trim().to_owned()).collect())
    }

    #[test]
    fn transports_that_are_named_are_taken() {
        assert_eq!(cases_of(&["--quick"]).unwrap(), ["homa", "tcp1", "quinn"]);
        let all = ["homa", "tcp1", "tcp4", "tonic", "quinn"];
        assert_eq!(cases_of(&[]).unwrap(), all);
        assert_eq!(cases_of(&["--quick", "--transport", &all.join(",")]).unwrap(), all);
    }

    #[test]
    fn cases_vary_homa_only() {
        let cases = cases_of(&["--transport", "homa,tcp1", "--levels", "1,8"]).unwrap();
        assert_eq!(cases, ["homa 1 level", "homa 8 levels", "tcp1"]);
    }

    #[test]
    fn what_is_special_comes_beside_what_is_not() {
        let cases = cases_of(&["--transport", "homa", "--beside", "tcp1"]).unwrap();
        assert_eq!(cases, ["homa", "homa beside tcp1"]);
        let cases = cases_of(&["--transport", "homa", "--kill"]).unwrap();
        assert_eq!(cases, ["homa", "homa last host killed"]);
        assert!(cases_of(&["--transport", "tcp1", "--kill"]).is_err());
        assert!(cases_of(&["--transport", "homa", "--slow-receiver", "--listen", "[::]:1"]).is_err());
    }
}
