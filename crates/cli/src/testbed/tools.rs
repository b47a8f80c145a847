//! The programs `ip` and `tc`: whether they are there, running them one by one or with a batch of lines, and rates as
//! they write them.

use std::{
    fmt,
    io::{ErrorKind, Write},
    process::{Command, Output, Stdio},
    str::FromStr,
};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;
use serde::{Serialize, Serializer};

/// A rate in bits a second.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rate(pub u64);

impl Rate {
    /// In Mbit/s.
    pub fn mbit(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Time that so many bytes take, in microseconds.
    pub fn microseconds(self, bytes: u64) -> f64 {
        bytes as f64 * 8e6 / self.0 as f64
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bits if bits.is_multiple_of(1_000_000) => write!(f, "{}mbit", bits / 1_000_000),
            bits if bits.is_multiple_of(1_000) => write!(f, "{}kbit", bits / 1_000),
            bits => write!(f, "{bits}bit"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let lower = text.trim().to_ascii_lowercase();
        let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let (number, unit) = lower.split_at(split);
        let factor = match unit.trim() {
            "bit" => 1.0,
            "kbit" => 1e3,
            "mbit" => 1e6,
            "gbit" => 1e9,
            _ => return Err(format!("`{text}` is not a rate: write 80mbit, 1gbit or 500kbit")),
        };
        let bits = number.parse::<f64>().map_err(|e| e.to_string())? * factor;
        if !(1e5..=1e11).contains(&bits) {
            return Err(format!("{text} is out of range: 100kbit to 100gbit"));
        }
        Ok(Rate(bits.round() as u64))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.mbit())
    }
}

/// Refuses to go on without what everything here needs.
pub fn require() -> Result<()> {
    ensure!(geteuid().is_root(), "a testbed needs root: network namespaces and queues are made with it");
    for program in ["ip", "tc"] {
        match Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                bail!("there is no program `{program}`: it comes with iproute2")
            }
            Err(e) => return Err(e).with_context(|| format!("running {program}")),
        }
    }
    Ok(())
}

/// Runs `ip` and gives what it printed.
pub fn ip(arguments: &[&str]) -> Result<String> {
    run("ip", arguments)
}

/// Runs `tc` and gives what it printed.
pub fn tc(arguments: &[&str]) -> Result<String> {
    run("tc", arguments)
}

/// Gives `ip` or `tc` many lines at once, inside a namespace.
pub fn batch(program: &str, namespace: &str, lines: &[String]) -> Result<()> {
    let what = || format!("running {program} in {namespace}");
    let mut child = Command::new(program)
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(what)?;
    let mut stdin = child.stdin.take().with_context(what)?;
    // If it has ended already, its own message says more.
    let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    drop(stdin);
    finish(&child.wait_with_output().with_context(what)?, &what())?;
    Ok(())
}

/// Names of the machine's network namespaces.
pub fn namespaces() -> Result<Vec<String>> {
    let listed = ip(&["netns", "list"])?;
    Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Ids of the processes in a namespace.
pub fn processes(namespace: &str) -> Result<Vec<u32>> {
    Ok(ip(&["netns", "pids", namespace])?.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let what = format!("{program} {}", arguments.join(" "));
    let output = match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            bail!("there is no program `{program}`: it comes with iproute2")
        }
        other => other.with_context(|| format!("running {what}"))?,
    };
    finish(&output, &what)
}

fn finish(output: &Output, what: &str) -> Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}", errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, bits, shown) in [
            ("80mbit", 80_000_000, "80mbit"),
            ("1.5Gbit", 1_500_000_000, "1500mbit"),
            ("500kbit", 500_000, "500kbit"),
            ("100001 bit", 100_001, "100001bit"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.0, rate.to_string()), (bits, shown.to_owned()), "{text}");
        }
        for bad in ["", "80", "80mb", "-1mbit", "1kbit", "mbit"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        assert_eq!("80mbit".parse::<Rate>().unwrap().microseconds(1_500), 150.0);
    }
}
