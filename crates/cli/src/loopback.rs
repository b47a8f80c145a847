//! A loopback interface of this process's own, on which TCP means CUBIC whatever the machine's default is.
//!
//! Under BBR each connection paces itself with a timer of the kernel, on loopback too: that alone is most of what
//! a long response costs then (docs/kevent-performance.md), and the same for whoever sends it.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{
    flags::Tcp,
    testbed::tools,
    transport::tcp::{CONGESTION, congestion},
};

/// Moves the calling thread, and the threads and processes that it starts, to a network namespace of their own, in
/// which there is a loopback interface and TCP is CUBIC; not if the flags say so, or without the privilege for it.
/// Says what TCP is then.
pub fn prepare(flags: &Tcp) -> String {
    let made = if flags.system_tcp { None } else { Some(make()) };
    let control = control().unwrap_or_else(|error| format!("unknown ({error:#})"));
    match made {
        None => format!("TCP: {control}, the system's default"),
        Some(Ok(())) => format!("TCP: {control}, in a network namespace of the run's own"),
        Some(Err(error)) => format!("TCP: {control}, the system's default, because of this: {error:#}"),
    }
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
    Ok(congestion(&TcpStream::connect(listener.local_addr()?)?))
}

#[cfg(test)]
#[allow(non_snake_case)] // tests are named function__case
mod tests {
    use super::*;

    /// What is said, and what TCP is, on a thread of its own: the namespace stays with it.
    fn prepared(system_tcp: bool) -> (String, String) {
        let both = std::thread::spawn(move || (prepare(&Tcp { system_tcp }), control()));
        let (said, control) = both.join().expect("the thread panicked");
        (said, control.expect("loopback carries no TCP"))
    }

    #[test]
    fn prepare__says_what_tcp_is() {
        let (said, control) = prepared(false);
        assert!(said.contains(&control), "{said}, but {control}");
        match said.contains("of the run's own") {
            true => assert_eq!(control, CONGESTION),
            false => eprintln!("not tested, for want of a network namespace: {said}"),
        }
    }

    #[test]
    fn prepare__leaves_tcp_if_asked() {
        let before = control().expect("loopback carries no TCP");
        assert_eq!(prepared(true), (format!("TCP: {before}, the system's default"), before));
    }
}
