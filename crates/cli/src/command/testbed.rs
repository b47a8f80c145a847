//! `peyk testbed`: make, show, check and remove a network.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::{
    command::bench::write_json,
    flags::{Check, Create, Destroy, Show, Testbed as Flags, TestbedCommand},
    node::Node,
    testbed::{self, Port, Shape, Testbed, check::Findings},
};

/// Queue length of a testbed that is made for its check.
const QUEUE: u32 = 100;

/// Does what the flags say.
pub fn run(flags: &Flags) -> Result<()> {
    match &flags.command {
        TestbedCommand::Create(flags) => create(flags),
        TestbedCommand::Show(flags) => show(flags),
        TestbedCommand::Destroy(flags) => destroy(flags),
        TestbedCommand::Check(flags) => check(flags),
    }
}

fn create(flags: &Create) -> Result<()> {
    if flags.replace
        && let Some(old) = Testbed::find(&flags.name)?
    {
        remove(&old)?;
    }
    let shape = Shape { hosts: flags.hosts, rate: flags.rate, queue: flags.queue, loss: flags.loss };
    let testbed = Testbed::create(&flags.name, &shape)?;
    println!("{} hosts, {} each way, eight levels of {} packets.", testbed.hosts(), flags.rate, flags.queue);
    for host in 1..=testbed.hosts() {
        println!(
            "  ip netns exec {} ...   {}  {}",
            testbed.host(host),
            Testbed::address(host, false),
            Testbed::address(host, true)
        );
    }
    Ok(())
}

fn show(flags: &Show) -> Result<()> {
    let Some(testbed) = Testbed::find(&flags.name)? else {
        let others: Vec<String> = Testbed::all()?.iter().map(|t| t.name().to_owned()).collect();
        match others.is_empty() {
            true => bail!("there is no testbed"),
            false => bail!("there is no testbed {}, but: {}", flags.name, others.join(", ")),
        }
    };
    loop {
        let ports = testbed.ports()?;
        match flags.json {
            true => println!("{}", serde_json::to_string(&ports)?),
            false => print!("{}", table(&ports)),
        }
        let Some(seconds) = flags.watch else { return Ok(()) };
        ensure!(seconds > 0.0, "--watch wants a positive number of seconds");
        std::thread::sleep(Duration::from_secs_f64(seconds));
        println!();
    }
}

fn table(ports: &[Port]) -> String {
    let mut text =
        format!("{:<22}{:>12}{:>10}{:>9}   waiting by level, 0 to 7\n", "", "packets", "dropped", "waiting");
    for port in ports {
        let name = match port.switch {
            false => format!("host {} to switch", port.host),
            true => format!("switch to host {}", port.host),
        };
        let levels: Vec<String> = port.queues.iter().map(|q| format!("{:>4}", q.waiting)).collect();
        text.push_str(&format!(
            "{name:<22}{:>12}{:>10}{:>9}   {}\n",
            port.packets,
            port.dropped(),
            port.waiting(),
            levels.join("")
        ));
    }
    text
}

fn destroy(flags: &Destroy) -> Result<()> {
    if !flags.all {
        let Some(testbed) = Testbed::find(&flags.name)? else {
            bail!("there is no testbed {}", flags.name);
        };
        return remove(&testbed);
    }
    for testbed in Testbed::all()? {
        match remove(&testbed) {
            Ok(()) => println!("{} is removed", testbed.name()),
            Err(error) => println!("{} stays: {error:#}", testbed.name()),
        }
    }
    Ok(())
}

/// Removes a testbed in which nothing runs.
pub fn remove(testbed: &Testbed) -> Result<()> {
    for host in 1..=testbed.hosts() {
        // A namespace may be missing if a run was killed in the middle.
        let running = testbed::processes(&testbed.host(host)).unwrap_or_default();
        ensure!(running.is_empty(), "processes run in {}: {running:?}", testbed.host(host));
    }
    testbed.destroy()
}

fn check(flags: &Check) -> Result<()> {
    let (testbed, own) = match &flags.name {
        Some(name) => match Testbed::find(name)? {
            Some(testbed) => (testbed, false),
            None => bail!("there is no testbed {name}"),
        },
        None => {
            let shape = Shape { hosts: 4, rate: flags.rate, queue: QUEUE, loss: 0.0 };
            (Testbed::create(&format!("check{}", std::process::id()), &shape)?, true)
        }
    };
    let findings = testbed::check::check(&testbed, flags.rate);
    if own {
        testbed.destroy()?;
    }
    let findings = findings?;
    print!("{}", explain(&findings));
    if let Some(path) = &flags.json {
        write_json(path, &findings)?;
    }
    let faults = findings.faults();
    ensure!(faults.is_empty(), "this network does not keep its promise: {}", faults.join("; "));
    ensure!(!Node::is_interrupted(), "interrupted");
    println!("Strict priorities work on these links.");
    Ok(())
}

fn explain(findings: &Findings) -> String {
    let mut text = format!("A full packet takes {:.0} us.\n\n", findings.packet_us);
    text.push_str(&format!(
        "{:<44}{:>10}{:>10}{:>10}\n",
        "round trip of a small packet, us", "p50", "p90", "p99"
    ));
    for (what, trips) in [
        ("idle network", findings.idle),
        ("at the highest level, flood at the lowest", findings.above),
        ("at the level of the flood", findings.beside),
    ] {
        text.push_str(&format!(
            "{what:<44}{:>10.0}{:>10.0}{:>10.0}\n",
            trips.p50_us, trips.p90_us, trips.p99_us
        ));
    }
    text.push_str(&format!(
        "\nThe flood left at {:.1} % of the rate; {} packets found their queue full.\n",
        findings.share * 100.0,
        findings.dropped
    ));
    text
}
