//! A loopback interface of this process's own, on which TCP means CUBIC whatever the machine's default is.
//!
//! Under BBR each connection paces itself with a timer of the kernel, on loopback too: that alone is most of what
//! a long response costs then (docs/kevent-performance.md), and the same for whoever sends it.

use std::{fs::File, net::TcpListener};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use socket2::SockRef;

use crate::testbed::tools;

/// The congestion control that is measured.
const CONGESTION: &str = "cubic";

/// Moves the calling thread, and the threads and processes that it starts, to a network namespace of their own, in
/// which there is a loopback interface and TCP is CUBIC. Says what TCP is then; without the privilege for
/// it, what it is anyhow.
pub fn enter() -> String {
    let outcome = make();
    let control = control().unwrap_or_else(|_| "unknown".into());
    match outcome {
        Ok(()) => format!("TCP: {control}, in a network namespace of the run's own"),
        Err(error) => format!("TCP: {control}, the system's default, because {error:#}"),
    }
}

/// What TCP is in the namespace at hand.
pub fn as_it_is() -> String {
    format!("TCP: {}, the system's default", control().unwrap_or_else(|_| "unknown".into()))
}

fn make() -> Result<()> {
    let before = File::open("/proc/thread-self/ns/net").context("opening the network namespace")?;
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace, for which one must be root")?;
    let made = configure();
    if made.is_err() {
        setns(&before, CloneFlags::CLONE_NEWNET).context("going back to the network namespace")?;
    }
    made
}

fn configure() -> Result<()> {
    tools::ip(&["link", "set", "lo", "up"])?;
    for to in ["127.0.0.1", "127.0.0.0/8"] {
        // The kernel's own route, with one attribute more.
        let route = format!("replace local {to} dev lo table local proto kernel scope host src 127.0.0.1");
        let route = format!("route {route} congctl {CONGESTION}");
        tools::ip(&route.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The congestion control of a connection over loopback.
fn control() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = std::net::TcpStream::connect(listener.local_addr()?)?;
    let name = SockRef::from(&client).tcp_congestion()?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
#[allow(non_snake_case)] // tests are named function__case
mod tests {
    use super::*;

    #[test]
    fn enter__says_what_tcp_is() {
        // A thread of its own: the namespace stays with it.
        let said = std::thread::spawn(|| (enter(), control())).join();
        let (said, control) = said.expect("the thread panicked");
        let control = control.expect("loopback carries no TCP");
        assert!(said.contains(&control), "{said}, but {control}");
        if said.contains("of the run's own") {
            assert_eq!(control, CONGESTION);
        }
    }
}
