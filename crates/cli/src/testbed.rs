//! A network on this machine that really queues: hosts that are network namespaces, joined by a switch that is one.
//!
//! ```text
//!   namespace peyk-NAME-1            namespace peyk-NAME-switch           namespace peyk-NAME-2
//!   ┌───────────────────┐      ┌──────────────────────────────────┐      ┌───────────────────┐
//!   │ eth0 10.77.0.1    │ veth │ port1 ── bridge ── port2         │ veth │ eth0 10.77.0.2    │
//!   │   HTB, 8 levels ──┼──────┼─►                 HTB, 8 levels ─┼──────┼─►                 │
//!   │                 ◄─┼──────┼─ HTB, 8 levels ◄─                │      │                   │
//!   └───────────────────┘      └──────────────────────────────────┘      └───────────────────┘
//! ```
//!
//! Each end of each cable sends at the rate of the link, from eight bounded queues; the top three bits of IPv4 TOS or
//! IPv6 traffic class choose the queue, 7 before 6 and so on. All of it is kernel state that goes with the namespaces:
//! nothing is written to disk, and what a killed run leaves behind is found by its names. Programs `ip` and `tc` do the
//! work; this module knows what to ask of them. What runs in the hosts is not its business.

mod build;
pub mod check;
mod plumbing;
pub mod probe;
pub mod tools;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

pub use self::{
    plumbing::Port,
    tools::{Rate, processes},
};

/// What the names of all namespaces begin with.
const PREFIX: &str = "peyk-";

/// Most hosts: their number is the last byte of an address.
pub const HOSTS_MAX: usize = 64;

/// Priority levels of the links.
pub const LEVELS: u8 = 8;

/// What a network is like.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Shape {
    /// Hosts.
    pub hosts: usize,
    /// Rate of each direction of each link.
    pub rate: Rate,
    /// Packets that each of the queues of a port holds.
    pub queue: u32,
    /// Share of packets that each port of the switch loses on purpose.
    pub loss: f64,
}

/// A network that exists. Dropping it leaves it in place.
#[derive(Clone, Debug)]
pub struct Testbed {
    name: String,
    hosts: usize,
}

impl Testbed {
    /// Makes the network. One of the same name must not exist.
    pub fn create(name: &str, shape: &Shape) -> Result<Testbed> {
        check_name(name)?;
        ensure!((2..=HOSTS_MAX).contains(&shape.hosts), "a testbed has 2 to {HOSTS_MAX} hosts");
        ensure!(shape.queue >= 1, "a queue holds at least one packet");
        tools::require()?;
        if Testbed::find(name)?.is_some() {
            bail!("there is a testbed {name} already: `peyk testbed destroy --name {name}` removes it");
        }
        let testbed = Testbed { name: name.to_owned(), hosts: shape.hosts };
        if let Err(error) = build::build(&testbed, shape) {
            let _ = testbed.destroy();
            return Err(error);
        }
        Ok(testbed)
    }

    /// The network of this name, whole or what is left of it.
    pub fn find(name: &str) -> Result<Option<Testbed>> {
        Ok(Testbed::all()?.into_iter().find(|testbed| testbed.name == name))
    }

    /// All networks of this machine.
    pub fn all() -> Result<Vec<Testbed>> {
        let mut found: Vec<Testbed> = Vec::new();
        for namespace in tools::namespaces()? {
            let Some((name, part)) = namespace.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('-'))
            else {
                continue;
            };
            let host = part.parse::<usize>().ok();
            if host.is_none() && part != "switch" {
                continue;
            }
            let at = found.iter().position(|t| t.name == name).unwrap_or_else(|| {
                found.push(Testbed { name: name.to_owned(), hosts: 0 });
                found.len() - 1
            });
            found[at].hosts = found[at].hosts.max(host.unwrap_or(0));
        }
        Ok(found)
    }

    /// Removes it. Links and queues go with the namespaces.
    pub fn destroy(&self) -> Result<()> {
        let existing = tools::namespaces()?;
        let ours = (1..=self.hosts).map(|host| self.host(host)).chain([self.switch()]);
        for namespace in ours.filter(|namespace| existing.contains(namespace)) {
            tools::ip(&["netns", "del", &namespace])?;
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number of hosts.
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// The namespace of a host, counted from 1.
    pub fn host(&self, host: usize) -> String {
        format!("{PREFIX}{}-{host}", self.name)
    }

    /// The namespace of the switch.
    pub fn switch(&self) -> String {
        format!("{PREFIX}{}-switch", self.name)
    }

    /// The address of a host, counted from 1.
    pub fn address(host: usize, ipv6: bool) -> IpAddr {
        match ipv6 {
            false => Ipv4Addr::new(10, 77, 0, host as u8).into(),
            true => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host as u16).into(),
        }
    }

    /// All ports as they are: first those of the hosts, then those of the switch.
    pub fn ports(&self) -> Result<Vec<Port>> {
        let hosts = (1..=self.hosts).map(|host| plumbing::port(&self.host(host), "eth0", host, false));
        let switch =
            (1..=self.hosts).map(|host| plumbing::port(&self.switch(), &build::port(host), host, true));
        hosts.chain(switch).collect()
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric());
    ensure!(
        is_plain && (1..=40).contains(&name.len()),
        "a testbed's name is 1 to 40 letters and digits, not {name:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_namespaces_are_told_apart() {
        for bad in ["", "a-b", "a b", "../x", &"x".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name("cluster12").is_ok());
        let testbed = Testbed { name: "x".into(), hosts: 3 };
        assert_eq!((testbed.host(3), testbed.switch()), ("peyk-x-3".into(), "peyk-x-switch".into()));
    }

    #[test]
    fn addresses_count_from_one() {
        assert_eq!(Testbed::address(5, false).to_string(), "10.77.0.5");
        assert_eq!(Testbed::address(5, true).to_string(), "fd77::5");
    }
}
