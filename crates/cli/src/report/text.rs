//! The demo's outcome on the terminal.

use std::fmt::Write;

use super::bench_text::grouped;
use crate::outcome::{Outcome, TransportOutcome};
use crate::transport::tcp::Waiting;

/// The whole text.
pub fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "\n{}\n", heading(outcome));
    for line in notes(outcome) {
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    summary(&mut text, outcome);
    text.push('\n');
    deciles(&mut text, outcome);
    let _ = writeln!(text, "\n{}", verdict(outcome));
    text
}

/// Whether every message came back once and whole.
pub fn verdict(outcome: &Outcome) -> String {
    let faulty: Vec<&str> = outcome.transports.iter().filter(|t| !t.is_clean()).map(|t| t.title).collect();
    if faulty.is_empty() {
        "Every message came back whole, and none was executed twice.".into()
    } else {
        format!("NOT every message came back once and whole over: {}.", faulty.join("; "))
    }
}

/// One sentence that says what was done.
pub fn heading(outcome: &Outcome) -> String {
    format!(
        "Workload {} ({}), mean {} B (published: {} B), at {:.2} Gbit/s = {} messages/s for every transport.",
        outcome.workload,
        outcome.workload.origin(),
        grouped(outcome.offered.mean_bytes.round() as u64),
        grouped(outcome.offered.published_mean_bytes.round() as u64),
        outcome.offered.goodput_gbps,
        grouped(outcome.offered.rpcs_per_second.round() as u64),
    )
}

/// What one must know to read the figures.
pub fn notes(outcome: &Outcome) -> Vec<String> {
    let settings = &outcome.settings;
    let title = |name| outcome.transports.iter().find(|t| t.name == name).map_or(name, |t| t.title);
    let mut notes = vec![
        format!(
            "The offered load is {:.0} % of the lowest capacity, that of {} (64 messages always outstanding).",
            outcome.offered.share * 100.0,
            title(outcome.offered.lowest),
        ),
        format!(
            "Slowdown: round trip / best unloaded round trip of the same size over {}. Latency counts from when a \
             message was due.",
            title(outcome.baseline.transport),
        ),
        format!(
            "Client and server are processes with one working thread each on {} CPUs, over the {} loopback; idle: {}{}; \
             {:.1} s each, of which {:.1} s warm-up; seed {}.",
            settings.cpus,
            if settings.ipv6 { "IPv6" } else { "IPv4" },
            settings.waiting,
            match settings.waiting {
                Waiting::Block => " (Homa looks for up to 100 us first, its default)",
                Waiting::Spin => "",
            },
            settings.duration_seconds,
            settings.warmup_seconds,
            settings.seed,
        ),
    ];
    if settings.homa_drop > 0.0 {
        notes.push(format!(
            "{} % of the packets below Homa are lost on purpose, in each direction; TCP runs without losses.",
            settings.homa_drop * 100.0,
        ));
    }
    if settings.hold > 0 {
        notes.push(format!("{} further requests stay open at the server during each run.", settings.hold));
    }
    let note = |prefix: &str| outcome.transports.iter().find(|t| t.name.starts_with(prefix)).map(|t| &t.note);
    if let Some(caps) = note("homa") {
        notes.push(format!("Homa: over UDP; {caps}."));
    }
    if let Some(control) = note("tcp") {
        let text = "messages go to the connections in turn";
        notes.push(format!("TCP: TCP_NODELAY, congestion control {control}; {text}."));
    }
    notes
}

fn summary(text: &mut String, outcome: &Outcome) {
    let _ = writeln!(
        text,
        "{:<20}{:>10}{:>10}{:>10}{:>10}{:>7}{:>9}{:>9}{:>10}{:>10}",
        "", "capacity", "goodput", "sent", "completed", "lost", "corrupt", "twice", "lag p99", "CPU"
    );
    let _ = writeln!(
        text,
        "{:<20}{:>10}{:>10}{:>10}{:>10}{:>7}{:>9}{:>9}{:>10}{:>10}",
        "", "Gbit/s", "Gbit/s", "", "", "", "", "", "us", "s"
    );
    for t in &outcome.transports {
        let load = &t.load;
        let _ = writeln!(
            text,
            "{:<20}{:>10.2}{:>10.2}{:>10}{:>10}{:>7}{:>9}{:>9}{:>10.0}{:>10.1}",
            t.title,
            t.capacity_gbps,
            load.goodput_gbps,
            grouped(load.sent),
            grouped(load.completed),
            grouped(load.lost),
            grouped(t.corrupt),
            grouped(t.executed_twice),
            load.lag_p99_us,
            load.cpu_seconds + t.server.cpu_seconds,
        );
        if let Some(line) = remarks(t) {
            let _ = writeln!(text, "{:<20}{line}", "");
        }
    }
}

/// What else happened on a transport, if anything did.
pub fn remarks(t: &TransportOutcome) -> Option<String> {
    let load = &t.load;
    let mut parts = Vec::new();
    if load.held > 0 {
        parts.push(format!(
            "held open: {} of {} answered after their release (at the server at once: {})",
            grouped(load.held_completed),
            grouped(load.held),
            grouped(t.server.held_max),
        ));
    }
    if load.capped {
        parts.push(format!(
            "the cap of outstanding messages was reached: sent up to {:.0} ms late, {} never sent",
            load.lag_max_us / 1e3,
            grouped(load.unsent),
        ));
    }
    for (count, what) in [
        (load.failed, "given up by the transport"),
        (load.unexpected, "unexpected responses"),
        (load.released_early, "held requests answered too early"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", grouped(count)));
        }
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn deciles(text: &mut String, outcome: &Outcome) {
    let _ = write!(text, "{:<22}", "slowdown");
    for t in &outcome.transports {
        let _ = write!(text, "{:>22}", t.title);
    }
    let _ = write!(text, "\n{:<8}{:>12}  ", "messages", "up to B");
    for _ in &outcome.transports {
        let _ = write!(text, "{:>12}{:>10}", "p50", "p99");
    }
    text.push('\n');
    let Some(first) = outcome.transports.first() else { return };
    for (i, point) in first.load.points.iter().enumerate() {
        let _ = write!(text, "{:>6} %{:>12}  ", point.percent, grouped(u64::from(point.size)));
        for t in &outcome.transports {
            let point = &t.load.points[i];
            let _ = write!(text, "{:>12}{:>10}", slowdown(point.p50_slowdown), slowdown(point.p99_slowdown));
        }
        text.push('\n');
    }
}

/// A slowdown with three digits or so; a dash if there is none.
pub fn slowdown(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(x) if x < 10.0 => format!("{x:.2}"),
        Some(x) if x < 100.0 => format!("{x:.1}"),
        Some(x) => format!("{x:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::example;

    #[test]
    fn text_shows_every_transport_and_decile() {
        let text = text(&example());
        for part in ["Homa", "TCP, 1 connection", "10 %", "100 %", "4.80", "60 % of the lowest capacity"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains("on purpose"));
    }

    #[test]
    fn text_says_what_was_done_on_purpose() {
        let mut outcome = example();
        outcome.settings.homa_drop = 0.01;
        outcome.settings.hold = 2_000;
        let text = text(&outcome);
        assert!(text.contains("1 % of the packets below Homa are lost on purpose"), "{text}");
        assert!(text.contains("2000 further requests stay open"), "{text}");
    }

    #[test]
    fn remarks_name_the_cap() {
        let mut t = example().transports.remove(0);
        assert_eq!(remarks(&t), None);
        t.load.capped = true;
        t.load.unsent = 12;
        assert!(remarks(&t).unwrap().contains("12 never sent"));
    }
}
