//! How a network is made: which lines `ip` and `tc` get.
//!
//! HTB is what gives strict priority here. Each port has one class with the rate of the link, and below it a class for
//! each level that owns next to nothing (8 kbit/s) and borrows the rest: of those who may borrow, the one with the lowest
//! `prio` goes first. Bursts and quanta of one packet keep it from serving a level for longer than that.

use anyhow::Result;

use super::{LEVELS, Rate, Shape, Testbed, tools};

/// The longest frame, as the queues count it: without check sequence, preamble and gap.
const FRAME: u32 = 1514;

/// What a level owns without borrowing; so little that it does not disturb the order.
const OWN: &str = "8kbit";

/// The class that loses what it is given, for losses on purpose.
const LOST: &str = "1:99";

/// The name of the switch's port to a host.
pub fn port(host: usize) -> String {
    format!("port{host}")
}

/// Makes everything.
pub fn build(testbed: &Testbed, shape: &Shape) -> Result<()> {
    let switch = testbed.switch();
    tools::ip(&["netns", "add", &switch])?;
    tools::batch(
        "ip",
        &switch,
        &[
            "link set lo up".into(),
            "link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0".into(),
            "link set br0 addrgenmode none up".into(),
        ],
    )?;
    // The bridge is a switch: no firewall of the machine looks at its packets. Where there is none, there is no such file.
    let firewalls = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ -e $f ] && echo 0 > $f; done; true";
    tools::ip(&["netns", "exec", &switch, "sh", "-c", firewalls])?;
    for host in 1..=shape.hosts {
        add_host(testbed, shape, host)?;
    }
    for host in 1..=shape.hosts {
        know_neighbours(testbed, shape.hosts, host)?;
    }
    Ok(())
}

fn add_host(testbed: &Testbed, shape: &Shape, host: usize) -> Result<()> {
    let (namespace, switch, port) = (testbed.host(host), testbed.switch(), port(host));
    tools::ip(&["netns", "add", &namespace])?;
    tools::ip(&[
        "link",
        "add",
        "eth0",
        "address",
        &mac(host),
        "netns",
        &namespace,
        "type",
        "veth",
        "peer",
        "name",
        &port,
        "netns",
        &switch,
    ])?;
    tools::batch(
        "ip",
        &namespace,
        &[
            "link set lo up".into(),
            // A queue's place is a packet: TCP shall not hand over several in one piece.
            "link set eth0 addrgenmode none gso_max_segs 1".into(),
            format!("address add {}/24 dev eth0", Testbed::address(host, false)),
            format!("address add {}/64 dev eth0 nodad", Testbed::address(host, true)),
        ],
    )?;
    tools::batch("ip", &switch, &[format!("link set {port} addrgenmode none gso_max_segs 1 master br0")])?;
    // Queues first: what is sent before they exist would pass them by.
    tools::batch("tc", &namespace, &queues("eth0", shape, 0.0))?;
    tools::batch("tc", &switch, &queues(&port, shape, shape.loss))?;
    tools::batch("ip", &namespace, &["link set eth0 up".into()])?;
    tools::batch("ip", &switch, &[format!("link set {port} up")])
}

/// A host's MAC address.
fn mac(host: usize) -> String {
    format!("02:77:00:00:00:{host:02x}")
}

/// No host has to ask for the address of another in the middle of a measurement.
fn know_neighbours(testbed: &Testbed, hosts: usize, host: usize) -> Result<()> {
    let others = (1..=hosts).filter(|&other| other != host);
    let lines: Vec<String> = others
        .flat_map(|other| {
            [false, true].map(|ipv6| {
                let address = Testbed::address(other, ipv6);
                format!("neighbour replace {address} lladdr {} dev eth0 nud permanent", mac(other))
            })
        })
        .collect();
    tools::batch("ip", &testbed.host(host), &lines)
}

/// The queues of one port.
fn queues(device: &str, shape: &Shape, loss: f64) -> Vec<String> {
    let mut lines = vec![format!("qdisc add dev {device} root handle 1: htb default 17")];
    lines.extend(classes(device, shape.rate));
    for level in 0..LEVELS {
        let class = class(level);
        lines.push(format!("qdisc add dev {device} parent {class} pfifo limit {}", shape.queue));
        let bits = level << 5;
        lines.push(format!(
            "filter add dev {device} parent 1: protocol ip prio 11 u32 match ip tos {bits:#x} 0xe0 flowid {class}"
        ));
        lines.push(format!(
            "filter add dev {device} parent 1: protocol ipv6 prio 12 u32 match ip6 priority {bits:#x} 0xe0 flowid {class}"
        ));
    }
    if loss > 0.0 {
        lines.push(format!(
            "class add dev {device} parent 1:1 classid {LOST} htb rate {OWN} prio 7 quantum {FRAME}"
        ));
        lines.push(format!("qdisc add dev {device} parent {LOST} pfifo limit 0"));
        lines.push(format!(
            "filter add dev {device} parent 1: protocol all prio 1 bpf bytecode \"{}\" flowid {LOST}",
            random(loss)
        ));
    }
    lines
}

/// The class of a level: HTB serves low numbers of `prio` first, 17 is the lowest level and the default.
fn class(level: u8) -> String {
    format!("1:1{}", LEVELS - 1 - level)
}

/// The classes of one port.
fn classes(device: &str, rate: Rate) -> impl Iterator<Item = String> + '_ {
    let root = format!(
        "class add dev {device} parent 1: classid 1:1 htb rate {rate} ceil {rate} burst {FRAME} cburst {FRAME} quantum {FRAME}"
    );
    let levels = (0..LEVELS).map(move |level| {
        format!(
            "class add dev {device} parent 1:1 classid {} htb rate {OWN} ceil {rate} burst {FRAME} cburst {FRAME} \
             quantum {FRAME} prio {}",
            class(level),
            LEVELS - 1 - level
        )
    });
    std::iter::once(root).chain(levels)
}

/// A classic BPF program that matches so large a share of packets at random: load a random number; if it is not below
/// the threshold, no match; else a match.
fn random(share: f64) -> String {
    const RANDOM: u32 = 0xffff_f038;
    let threshold = (share.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
    format!("4,32 0 0 {RANDOM},53 0 1 {threshold},6 0 0 0,6 0 0 {}", u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_have_a_class_and_two_filters_for_each_level() {
        let shape = Shape { hosts: 2, rate: Rate(80_000_000), queue: 100, loss: 0.0 };
        let lines = queues("eth0", &shape, 0.0);
        let count = |part: &str| lines.iter().filter(|l| l.contains(part)).count();
        assert_eq!((count("class add"), count("pfifo limit 100"), count("u32")), (9, 8, 16));
        assert!(lines.iter().any(|l| l.contains("match ip tos 0xe0 0xe0 flowid 1:10")));
        assert!(lines.iter().any(|l| l.contains("match ip6 priority 0x0 0xe0 flowid 1:17")));
        assert!(!lines.iter().any(|l| l.contains("bpf")));
    }

    #[test]
    fn losses_get_a_class_of_their_own() {
        let shape = Shape { hosts: 2, rate: Rate(80_000_000), queue: 100, loss: 0.01 };
        let lines = queues("port1", &shape, shape.loss);
        assert!(lines.iter().any(|l| l.contains("53 0 1 42949672,")), "{lines:#?}");
    }
}
