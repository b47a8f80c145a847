//! Simulated experiments on the terminal, transports side by side.

use std::fmt::Write;

use super::{bench_text::grouped, text::slowdown};
use crate::sim::result::{Queue, RunResult};

/// The whole text.
pub fn runs(results: &[RunResult]) -> String {
    let Some(first) = results.first() else { return String::new() };
    let mut text = format!("\n{}\n{}\n\n", heading(first), DEFINITION);
    slowdowns(&mut text, results);
    text.push('\n');
    for (name, cells) in summary(results) {
        let _ = write!(text, "{name:<34}");
        cells.iter().for_each(|cell| _ = write!(text, "{cell:>22}"));
        text.push('\n');
    }
    for result in results {
        queues(&mut text, result);
    }
    text.push('\n');
    verdict(results).iter().for_each(|line| _ = writeln!(text, "{line}"));
    text
}

/// What slowdown means here.
pub const DEFINITION: &str = "Slowdown: one-way time of a message / least time an idle network needs for its size \
                              and pair of hosts.\nEach line is of about one percent of the messages: all of its sizes.";

/// One sentence that says what was done.
pub fn heading(result: &RunResult) -> String {
    let spec = &result.spec;
    let origin = match spec.workload() {
        Some(workload) => format!("workload {workload} ({})", workload.origin()),
        None => format!("sizes of {}", result.workload),
    };
    let sizes = match &spec.sizes {
        Some(file) if spec.workload().is_some() => format!(", sizes of {}", file.display()),
        None if spec.capped => ", messages of at most 1 MB,".into(),
        _ => String::new(),
    };
    format!(
        "Simulated {origin}{sizes} at {:.0} % load on {} hosts, seed {}; Homa with the {} settings.",
        result.load * 100.0,
        result.hosts,
        result.seed,
        spec.settings,
    )
}

fn slowdowns(text: &mut String, results: &[RunResult]) {
    let _ = write!(text, "{:<22}", "slowdown");
    results.iter().for_each(|r| _ = write!(text, "{:>22}", r.transport));
    let _ = write!(text, "\n{:<8}{:>12}  ", "messages", "up to B");
    results.iter().for_each(|_| _ = write!(text, "{:>12}{:>10}", "p50", "p99"));
    text.push('\n');
    for point in &results[0].points {
        let _ = write!(text, "{:>6} %{:>12}  ", point.percent, grouped(u64::from(point.size)));
        for result in results {
            let (p50, p99) = match result.point(point.percent) {
                Some(p) => (Some(p.p50_slowdown), Some(p.p99_slowdown)),
                None => (None, None),
            };
            let _ = write!(text, "{:>12}{:>10}", slowdown(p50), slowdown(p99));
        }
        text.push('\n');
    }
}

/// Further figures: a name and a cell for each result.
pub fn summary(results: &[RunResult]) -> Vec<(&'static str, Vec<String>)> {
    let row = |name: &'static str, cell: &dyn Fn(&RunResult) -> String| {
        (name, results.iter().map(cell).collect::<Vec<_>>())
    };
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let bytes = |bytes: f64| grouped(bytes.round() as u64);
    vec![
        row("messages measured", &|r| grouped(r.messages)),
        row("not delivered in time", &|r| grouped(r.incomplete)),
        row("backlog at half time, at the end", &|r| {
            format!("{}, {}", grouped(r.backlog[0]), grouped(r.backlog[1]))
        }),
        row("links to hosts in use", &|r| percent(r.utilisation)),
        row("wasted: idle, grants withheld", &|r| percent(r.wasted_bandwidth)),
        row("queue to a host, mean B", &|r| bytes(r.tor_queue_bytes.mean)),
        row("queue to a host, most B", &|r| grouped(r.tor_queue_bytes.max)),
        row("queue in the fabric, mean B", &|r| bytes(r.fabric_queue_bytes.mean)),
        row("queue in the fabric, most B", &|r| grouped(r.fabric_queue_bytes.max)),
        row("packets dropped", &|r| grouped(r.tor_queue_bytes.drops + r.fabric_queue_bytes.drops)),
        row("virtual time", &|r| format!("{:.1} ms", r.virtual_seconds * 1e3)),
        row("time it took", &|r| format!("{:.1} s", r.wall_seconds)),
        row("packet-hops per second", &|r| grouped(r.packet_hops_per_second as u64)),
        row("peak memory of the process", &|r| format!("{} MB", r.peak_memory_bytes / 1_000_000)),
    ]
}

fn queues(text: &mut String, result: &RunResult) {
    let queue = &result.tor_queue_bytes;
    if queue.by_priority.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nqueues to hosts by priority, {}, as packets found them", result.transport);
    let _ = writeln!(text, "{:>10}{:>16}{:>16}{:>16}", "priority", "packets", "mean B", "most B");
    for row in priorities(queue) {
        let _ = writeln!(text, "{:>10}{:>16}{:>16}{:>16}", row[0], row[1], row[2], row[3]);
    }
}

/// The queues of each priority: priority, packets, mean and most bytes.
pub fn priorities(queue: &Queue) -> Vec<Vec<String>> {
    let row = |l: &crate::sim::result::Level| {
        vec![l.priority.to_string(), grouped(l.packets), grouped(l.mean.round() as u64), grouped(l.max)]
    };
    queue.by_priority.iter().map(row).collect()
}

/// What one must know before trusting the figures.
pub fn verdict(results: &[RunResult]) -> Vec<String> {
    let mut lines = Vec::new();
    for r in results {
        let name = &r.transport;
        if r.interrupted {
            lines.push(format!("{name}: interrupted; the figures are of what had been measured until then."));
        }
        if r.violations > 0 {
            let v = r.violation_kinds;
            lines.push(format!(
                "{name}: CHECKS FAILED: {} messages delivered again, {} refused, {} lost, {} packets unaccounted for.",
                v.duplicates, v.refused, v.lost, v.unaccounted
            ));
        }
        if !r.sustained && !r.interrupted {
            lines.push(format!(
                "{name}: the backlog grew: the network cannot carry this load in the long run."
            ));
        }
        let fewest = r.points.iter().map(|p| p.messages).min().unwrap_or(u64::MAX);
        if fewest < 300 {
            lines.push(format!(
                "{name}: some points rest on {fewest} messages; more make P99 steadier (--messages)."
            ));
        }
    }
    if results.iter().all(|r| r.violations == 0) {
        lines.push(
            "Every message arrived once or was under way at the end; every packet is accounted for.".into(),
        );
    }
    lines
}
