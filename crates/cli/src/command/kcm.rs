//! `peyk kcm`: a relay that balances whole messages over backend connections.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use peyk::kcm::bpf::{BpfFramer, Limits, Program, parse_ddd};
use peyk::kcm::framer::{Framer, Side, Spread, by_name};
use peyk::kcm::status::{MuxSnapshot, kcm, kcm_stats};
use peyk::kcm::{Config, Relay, RelayOptions};

use crate::flags::Kcm;

/// Relays until interrupted.
pub fn run(flags: &Kcm) -> Result<()> {
    let (interrupt, interrupted) = channel();
    ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    })
    .context("preparing for interruption")?;
    let framers = (framer(&flags.frame, Side::Requests)?, framer(&flags.frame, Side::Replies)?);
    let backends: Vec<_> = (0..flags.connections).flat_map(|_| flags.backend.iter().copied()).collect();
    let count = backends.len();
    let relay = Relay::start(RelayOptions {
        listen: flags.listen,
        backends,
        framers,
        is_silent: if flags.frame == "resp" { |request| request.trim_ascii().is_empty() } else { |_| false },
        config: Config { max_message: flags.max_message, ..Config::default() },
    })
    .context("starting the relay")?;
    println!("relaying {} messages from {} over {count} connections", flags.frame, relay.local_addr());
    println!("Ctrl-C stops it");
    let wait = if flags.interval.is_zero() { Duration::from_secs(3600) } else { flags.interval };
    let mut before = relay.snapshots();
    while let Err(RecvTimeoutError::Timeout) = interrupted.recv_timeout(wait) {
        if !flags.interval.is_zero() {
            let after = relay.snapshots();
            print_rates(&before, &after, wait, relay.failed());
            before = after;
        }
    }
    let last = relay.snapshots();
    print!("\n{}\n{}", kcm(&last), kcm_stats(&last));
    println!("requests lost with their backend: {}", relay.failed());
    Ok(())
}

fn print_rates(before: &[MuxSnapshot; 2], after: &[MuxSnapshot; 2], time: Duration, failed: u64) {
    let rate = |now: u64, then: u64| (now - then) as f64 / time.as_secs_f64();
    println!(
        "clients {:>5}  backends {:>3}  requests {:>10.0}/s  replies {:>10.0}/s  lost {failed}",
        after[0].psocks.len(),
        after[1].psocks.len(),
        rate(after[0].mux.rx_msgs, before[0].mux.rx_msgs),
        rate(after[1].mux.rx_msgs, before[1].mux.rx_msgs),
    );
}

/// The framer of a name, or the program in a file: an ELF object, or what `tcpdump -ddd` prints.
fn framer(spec: &str, side: Side) -> Result<Box<dyn Framer>> {
    let Some(file) = spec.strip_prefix("bpf:") else {
        return Ok(by_name(spec, side)?);
    };
    let bytes = std::fs::read(file).with_context(|| format!("reading {file}"))?;
    let classic = std::str::from_utf8(&bytes).ok().and_then(parse_ddd);
    let program = match classic {
        Some(code) => Program::from_classic(&code, Limits::default()),
        None => Program::from_elf(&bytes, Limits::default()),
    };
    let program = program.with_context(|| format!("loading {file}"))?;
    Ok(Box::new(BpfFramer::new(program, Spread::User)))
}
