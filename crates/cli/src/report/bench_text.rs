//! The table of `peyk bench rpc`.

use std::fmt::Write;

use crate::command::bench::Row;

/// One line per kind of load and transport, with ratios to the floor and to TCP.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut last = None;
    for row in rows {
        let group = (row.waiting, row.size, row.outstanding);
        if last != Some(group) {
            last = Some(group);
            let _ = writeln!(
                text,
                "\n{} B, {} outstanding, {}\n  {:<11}{:>10}{:>10}{:>12}{:>10}{:>14}   p50, RPC/s, CPU relative to",
                grouped(u64::from(row.size)),
                row.outstanding,
                row.waiting,
                "",
                "p50 us",
                "p99 us",
                "RPC/s",
                "Gbit/s",
                "CPU s/M RPC",
            );
        }
        let _ = write!(
            text,
            "  {:<11}{:>10.1}{:>10.1}{:>12}{:>10.2}{:>14.2}",
            row.transport,
            row.p50_us,
            row.p99_us,
            grouped(row.rpcs_per_second as u64),
            row.goodput_gbps,
            row.cpu_seconds_per_million_rpcs,
        );
        for name in ["udp_floor", "tcp"] {
            let other =
                rows.iter().find(|r| r.transport == name && (r.waiting, r.size, r.outstanding) == group);
            if let Some(other) = other.filter(|_| row.transport.starts_with("homa")) {
                let _ = write!(
                    text,
                    "   {name} {:.2} {:.2} {:.2}",
                    row.p50_us / other.p50_us,
                    row.rpcs_per_second / other.rpcs_per_second,
                    row.cpu_seconds_per_million_rpcs / other.cpu_seconds_per_million_rpcs,
                );
            }
        }
        if row.failed + row.unexpected > 0 {
            let _ = write!(text, "   {} lost, {} unexpected", row.failed, row.unexpected);
        }
        text.push('\n');
    }
    text
}

/// A number with its thousands apart: 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn grouped_sets_commas() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
