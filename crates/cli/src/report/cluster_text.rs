//! The outcome of a cluster run on the terminal.

use std::fmt::Write;

use super::{bench_text::grouped, text::slowdown};
use crate::cluster::outcome::{Outcome, Run};

/// The whole text.
pub fn text(outcome: &Outcome) -> String {
    let mut text = format!("\n{}\n\n", heading(outcome));
    for line in notes(outcome) {
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    short(&mut text, outcome);
    text.push('\n');
    sizes(&mut text, outcome);
    text.push('\n');
    cost(&mut text, outcome);
    let _ = writeln!(text, "\n{}", verdict(outcome));
    text
}

/// One sentence that says what was done.
pub fn heading(outcome: &Outcome) -> String {
    format!(
        "{} hosts at {} each, workload {} ({}) at {:.0} % load: {:.0} Mbit/s of payload from and to every host.",
        outcome.hosts,
        outcome.rate,
        outcome.workload,
        outcome.workload.origin(),
        outcome.load * 100.0,
        outcome.rate.mbit() * outcome.load,
    )
}

/// What one must know to read the figures.
pub fn notes(outcome: &Outcome) -> Vec<String> {
    let mut notes = vec![
        format!(
            "A full frame takes {:.0} us on a link. Every host is client and server of all others; responses are as long as \
             requests, arrivals are Poisson, latency counts from when a message was due.",
            outcome.frame_us
        ),
        format!(
            "Slowdown: round trip / best unloaded round trip of the same size over {}. {:.0} s measured for each; seed {}; \
             {} CPUs.",
            outcome.reference, outcome.seconds, outcome.seed, outcome.cpus
        ),
    ];
    if let Some(queue) = outcome.queue {
        notes.push(format!(
            "Testbed: network namespaces, HTB with eight strict levels of {queue} packets at both ends of each link."
        ));
    }
    if outcome.loss > 0.0 {
        notes.push(format!(
            "{} % of the packets are lost on purpose at each port of the switch.",
            outcome.loss * 100.0
        ));
    }
    if let Some(bytes) = outcome.unscheduled {
        notes.push(format!("Homa: {} B of a message are sent without a grant.", grouped(bytes.into())));
    }
    if let Some(bytes) = outcome.srpt_limit {
        notes.push(format!(
            "Homa: shortest first up to {} B left; among longer messages, the oldest first.",
            grouped(bytes.into())
        ));
    }
    for run in &outcome.runs {
        if let Some(beside) = &run.beside {
            notes.push(format!(
                "{}: {} carried {:.1} Mbit/s of payload to each host.",
                run.title(),
                beside.transport,
                beside.goodput_mbit_per_host
            ));
        }
    }
    notes
}

/// Whether every message came back once and whole.
pub fn verdict(outcome: &Outcome) -> String {
    let faulty: Vec<String> = outcome.runs.iter().filter(|r| !r.is_clean()).map(Run::title).collect();
    if faulty.is_empty() {
        "Every message came back whole, and none was executed twice.".into()
    } else {
        format!("NOT every message came back once and whole in time over: {}.", faulty.join("; "))
    }
}

/// Microseconds with three digits or so.
pub fn time(us: Option<f64>) -> String {
    match us {
        None => "-".into(),
        Some(us) if us < 1e3 => format!("{us:.0} us"),
        Some(us) if us < 1e4 => format!("{:.2} ms", us / 1e3),
        Some(us) if us < 1e6 => format!("{:.0} ms", us / 1e3),
        Some(us) => format!("{:.2} s", us / 1e6),
    }
}

/// Best round trip of the shortest message that was measured, in microseconds.
pub fn best(run: &Run) -> Option<f64> {
    run.unloaded.baseline.round_trip(100).map(|ns| ns / 1e3)
}

fn width(outcome: &Outcome) -> usize {
    outcome.runs.iter().map(|r| r.title().len()).max().unwrap_or(0).max(12) + 2
}

fn short(text: &mut String, outcome: &Outcome) {
    let width = width(outcome);
    let _ = writeln!(
        text,
        "{:<width$}{:>12}{:>14}{:>12}{:>14}{:>12}",
        "round trips", "unloaded", "half: p50", "p99", "tenth: p50", "p99"
    );
    for run in &outcome.runs {
        let (half, tenth) = (run.shortest_half, run.shortest_tenth);
        let _ = writeln!(
            text,
            "{:<width$}{:>12}{:>14}{:>12}{:>14}{:>12}",
            run.title(),
            time(best(run)),
            time(half.map(|t| t.p50_us)),
            time(half.map(|t| t.p99_us)),
            time(tenth.map(|t| t.p50_us)),
            time(tenth.map(|t| t.p99_us)),
        );
    }
}

fn sizes(text: &mut String, outcome: &Outcome) {
    let _ = write!(text, "{:<20}", "slowdown");
    for run in &outcome.runs {
        let _ = write!(text, "  {:>22}", run.title());
    }
    let _ = write!(text, "\n{:>9}{:>11}", "messages", "up to B");
    for _ in &outcome.runs {
        let _ = write!(text, "{:>14}{:>10}", "p50", "p99");
    }
    text.push('\n');
    let rows = outcome.runs.first().map_or(0, |r| r.points.len());
    for i in 0..rows {
        let point = &outcome.runs[0].points[i];
        let _ = write!(text, "{:>7} %{:>11}", point.percent, grouped(u64::from(point.size)));
        for run in &outcome.runs {
            let point = &run.points[i];
            let _ = write!(text, "{:>14}{:>10}", slowdown(point.p50_slowdown), slowdown(point.p99_slowdown));
        }
        text.push('\n');
    }
}

/// The columns of the table of costs.
pub const COST: [&str; 12] = [
    "goodput", "offered", "CPU %", "CPU s/GB", "sent", "lost", "unsent", "corrupt", "twice", "again",
    "dropped", "lag p99",
];

/// A row of it.
pub fn cost_row(run: &Run) -> Vec<String> {
    vec![
        format!("{:.1}", run.goodput_mbit_per_host),
        format!("{:.1}", run.offered_mbit_per_host),
        format!("{:.0}", run.cpu_percent),
        format!("{:.1}", run.cpu_seconds_per_gb),
        grouped(run.sent),
        grouped(run.lost),
        grouped(run.unsent),
        grouped(run.corrupt),
        grouped(run.executed_twice),
        grouped(run.retransmitted),
        grouped(run.drops.hosts + run.drops.switch),
        time(Some(run.lag_p99_us)),
    ]
}

fn cost(text: &mut String, outcome: &Outcome) {
    let width = width(outcome);
    let _ = write!(text, "{:<width$}", "Mbit/s per host");
    COST.iter().for_each(|name| _ = write!(text, "{name:>10}"));
    text.push('\n');
    for run in &outcome.runs {
        let _ = write!(text, "{:<width$}", run.title());
        cost_row(run).iter().for_each(|cell| _ = write!(text, "{cell:>10}"));
        text.push('\n');
        if run.lost_to_dead > 0 {
            let _ = writeln!(
                text,
                "{:<width$}{} more to the host that was killed",
                "",
                grouped(run.lost_to_dead)
            );
        }
    }
}
