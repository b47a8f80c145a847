//! `peyk decode`: the Homa packets of a capture, one line each.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, Read, Write},
    path::Path,
};

use anyhow::{Context, Result};
use peyk_wire::pcapng::{Finder, decode};

use crate::flags::Decode;

/// Prints the capture; what is odd about it goes to standard error.
pub fn run(flags: &Decode) -> Result<()> {
    let name = flags.file.display();
    let mut lines = decode(open(&flags.file)?, Finder::with_udp_ports(flags.udp_port.iter().copied()))
        .with_context(|| format!("reading {name}"))?;
    let mut out = BufWriter::new(io::stdout().lock());
    for line in &mut lines {
        let line = line.with_context(|| format!("reading {name}"))?;
        if is_closed(writeln!(out, "{line}"))? {
            return Ok(());
        }
    }
    if is_closed(out.flush())? {
        return Ok(());
    }
    let counts = lines.counts();
    if counts.homa == 0 {
        eprintln!("peyk: none of the {} packets in {name} is Homa", counts.packets);
    }
    for (count, what) in [
        (counts.fragments, "IP fragments, which are not reassembled"),
        (counts.unsupported_link, "packets of unknown links"),
    ] {
        if count > 0 {
            eprintln!("peyk: {name} has {count} {what}");
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

/// Whether the reader of our output has gone, as `head` does: no error, but a reason to end.
fn is_closed(result: io::Result<()>) -> Result<bool> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        other => other.map(|()| false).context("writing to standard output"),
    }
}
