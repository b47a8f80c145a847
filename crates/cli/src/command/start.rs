//! What serve and ping share: a stack as the flags ask for it, and addresses as people write them.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use peyk::{Config, Poll, Stack, homa::Addr};

use crate::{
    flags::{PollName, StackFlags},
    transport::homa::backend,
};

/// Homa port of the echo server where none is given.
pub const PORT: u16 = 4_000;

/// Longest polling before sleeping.
const ADAPTIVE: Duration = Duration::from_micros(100);

/// Starts a stack that carries its servers' packets over this UDP port.
pub fn start(flags: &StackFlags, udp_port: u16) -> Result<Stack> {
    let poll = match flags.poll {
        PollName::Sleep => Poll::Sleep,
        PollName::Spin => Poll::Spin,
        PollName::Adaptive => Poll::Adaptive { max: ADAPTIVE },
    };
    let mut config = Config::default()
        .with_udp_port(udp_port)
        .with_backend(backend(flags.backend))
        .with_poll(poll)
        .with_shards(flags.shards);
    config.capture.clone_from(&flags.capture);
    Stack::start(config).context("starting the stack")
}

/// The address meant by `host`, `host:port` or either with `/udp-port`; hosts may be names.
pub fn resolve(text: &str, udp_port: u16) -> Result<Addr> {
    let has_udp_port = text.contains('/');
    let (host, udp) = text.split_once('/').map_or((text, ""), |(host, udp)| (host, udp));
    let with_port = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{PORT}"),
        Ok(IpAddr::V4(ip)) => format!("{ip}:{PORT}"),
        Err(_) if host.ends_with(']') || !host.contains(':') => format!("{host}:{PORT}"),
        Err(_) => host.to_owned(),
    };
    if has_udp_port {
        return Ok(Addr::resolve(&format!("{with_port}/{udp}"))?);
    }
    Ok(Addr::resolve(&with_port)?.with_udp_port(udp_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolve_takes_hosts_in_every_form() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:4000/15000"),
            ("127.0.0.1:9", "127.0.0.1:9/15000"),
            ("127.0.0.1:9/77", "127.0.0.1:9/77"),
            ("127.0.0.1/77", "127.0.0.1:4000/77"),
            ("::1", "[::1]:4000/15000"),
            ("[::1]", "[::1]:4000/15000"),
            ("[::1]:9", "[::1]:9/15000"),
        ] {
            assert_eq!(resolve(text, 15_000).unwrap().to_string(), address, "{text}");
        }
        assert!(resolve("localhost", 15_000).unwrap().ip.is_loopback());
    }

    #[test]
    fn resolve_refuses_nonsense() {
        for text in ["", "127.0.0.1:x", "127.0.0.1:1/0", ":::"] {
            assert!(resolve(text, 15_000).is_err(), "{text}");
        }
    }
}
