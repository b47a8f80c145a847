//! The results of a plan as tables: published values beside ours, the highest load sustained, all experiments.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{bench_text::grouped, text::slowdown};
use crate::sim::{job::Done, spec::Spec};

/// Columns of [`published`].
pub const PUBLISHED_HEAD: [&str; 5] = ["experiment", "figure", "published", "ours", "ratio"];

/// Columns of [`highest_rows`].
pub const HIGHEST_HEAD: [&str; 3] = ["experiments", "highest sustained", "lowest not sustained"];

/// Columns of [`rows`].
pub const HEAD: [&str; 13] = [
    "experiment",
    "messages",
    "p99 at 10 %",
    "50 %",
    "90 %",
    "99 %",
    "p99 mean",
    "p50 mean",
    "in use",
    "wasted",
    "queue B",
    "Gbit/s",
    "",
];

/// The whole text.
pub fn text(done: &[Done]) -> String {
    let Some(first) = done.first() else { return String::new() };
    let mut text = format!("\n{}\n", first.job.plan.title);
    for (title, head, rows) in [
        ("All experiments (p99, p50: slowdown)", &HEAD[..], rows(done)),
        ("Published values beside ours", &PUBLISHED_HEAD[..], published(done)),
        ("Highest value sustained", &HIGHEST_HEAD[..], highest_rows(done)),
    ] {
        if !rows.is_empty() {
            let _ = writeln!(text, "\n{title}");
            table(&mut text, head, &rows);
        }
    }
    text.push('\n');
    remarks(done).iter().for_each(|line| _ = writeln!(text, "{line}"));
    text
}

/// Columns as wide as they need to be: the first to the left, the others to the right.
fn table(text: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// One row for each experiment.
pub fn rows(done: &[Done]) -> Vec<Vec<String>> {
    let row = |d: &Done| {
        let r = &d.result;
        let p99 = |percent| slowdown(r.point(percent).map(|p| p.p99_slowdown));
        let mut marks = Vec::new();
        for (is, mark) in [
            (!r.sustained, "backlog grew"),
            (r.violations > 0, "CHECKS FAILED"),
            (r.interrupted, "interrupted"),
        ] {
            marks.extend(is.then_some(mark));
        }
        vec![
            d.job.label.clone(),
            grouped(r.messages),
            p99(10.0),
            p99(50.0),
            p99(90.0),
            p99(99.0),
            slowdown(r.figure("p99_mean")),
            slowdown(r.figure("p50_mean")),
            format!("{:.1} %", r.utilisation * 100.0),
            format!("{:.1} %", r.wasted_bandwidth * 100.0),
            grouped(r.tor_queue_bytes.mean.round() as u64),
            r.incast.map_or_else(|| "-".into(), |i| format!("{:.2}", i.gbps)),
            marks.join(", "),
        ]
    };
    done.iter().map(row).collect()
}

/// One row for each published value.
pub fn published(done: &[Done]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for d in done {
        for (name, value) in d.job.published.values() {
            let ours = d.result.figure(&name);
            rows.push(vec![
                d.job.label.clone(),
                name.replace('_', " "),
                slowdown(Some(value)),
                slowdown(ours),
                ours.map_or_else(|| "-".into(), |ours| format!("{:.2}", ours / value)),
            ]);
        }
    }
    rows
}

/// For each group of experiments that differ in one setting only, its highest value that was sustained, and
/// the lowest that was not.
pub fn highest(done: &[Done]) -> Vec<Value> {
    let Some(setting) = done.first().and_then(|d| d.job.plan.highest.clone()) else { return Vec::new() };
    let mut groups: Vec<(Spec, String, Option<f64>, Option<f64>)> = Vec::new();
    for d in done {
        let Some(value) = d.job.spec.setting(&setting).and_then(|v| v.parse::<f64>().ok()) else { continue };
        // Runs at a lower load get fewer messages for the same time; that is no difference.
        let rest = Spec { load: None, messages: None, ..d.job.spec.clone() };
        let index = groups.iter().position(|(spec, ..)| *spec == rest).unwrap_or_else(|| {
            let labels = d.job.label.split(", ").filter(|part| !part.starts_with(&setting.replace('_', " ")));
            groups.push((rest, labels.collect::<Vec<_>>().join(", "), None, None));
            groups.len() - 1
        });
        let (_, _, most, least) = &mut groups[index];
        if d.result.sustained {
            *most = Some(most.map_or(value, |m| m.max(value)));
        } else {
            *least = Some(least.map_or(value, |l| l.min(value)));
        }
    }
    groups
        .into_iter()
        .map(|(_, label, most, least)| json!({ "experiments": label, "setting": setting, "sustained": most, "not_sustained": least }))
        .collect()
}

/// [`highest`] as rows.
pub fn highest_rows(done: &[Done]) -> Vec<Vec<String>> {
    let cell = |value: &Value| value.as_f64().map_or_else(|| "-".into(), |v| format!("{v}"));
    let row = |group: Value| {
        let label = group["experiments"].as_str().unwrap_or_default();
        let label = if label.is_empty() { "all" } else { label };
        vec![label.to_owned(), cell(&group["sustained"]), cell(&group["not_sustained"])]
    };
    highest(done).into_iter().map(row).collect()
}

/// What one must know before trusting the figures.
pub fn remarks(done: &[Done]) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(about) = done.first().map(|d| d.job.plan.about.trim()).filter(|about| !about.is_empty()) {
        lines.extend(about.lines().map(str::to_owned));
    }
    let ratios: Vec<f64> = done
        .iter()
        .flat_map(|d| {
            d.job.published.values().into_iter().map(|(name, v)| d.result.figure(&name).map(|o| o / v))
        })
        .flatten()
        .collect();
    if !ratios.is_empty() {
        let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
        lines.push(format!("Ours / published, geometric mean over {} values: {mean:.2}.", ratios.len()));
    }
    let violations: u64 = done.iter().map(|d| d.result.violations).sum();
    lines.push(match violations {
        0 => "No check failed in any experiment.".into(),
        n => format!("CHECKS FAILED: {n}; see the experiments."),
    });
    let hops: u64 = done.iter().map(|d| d.result.packet_hops).sum();
    let seconds: f64 = done.iter().map(|d| d.result.wall_seconds).sum();
    let rate = grouped((hops as f64 / seconds.max(1e-9)) as u64);
    let memory = done.iter().map(|d| d.result.peak_memory_bytes).max().unwrap_or(0) / 1_000_000;
    lines.push(format!("{rate} packet-hops per second and thread; peak memory of a process {memory} MB."));
    lines
}

/// A result with its label and its published values, for the file of figures.
pub fn entry(done: &Done) -> Value {
    let compared: Vec<Value> = done
        .job
        .published
        .values()
        .into_iter()
        .map(|(figure, published)| {
            let ours = done.result.figure(&figure);
            json!({ "figure": figure, "published": published, "ours": ours, "ratio": ours.map(|o| o / published) })
        })
        .collect();
    let mut entry = serde_json::to_value(&done.result).unwrap_or_default();
    if let Value::Object(fields) = &mut entry {
        fields.insert("index".into(), json!(done.job.index));
        fields.insert("label".into(), json!(done.job.label));
        fields.insert("published".into(), json!(compared));
    }
    entry
}

/// The values of some settings, for people: `w1, homa`. Defaults have their names.
pub fn values<'a>(spec: &Spec, settings: impl Iterator<Item = &'a str>) -> String {
    let value = |name: &str| match (name, spec.setting(name)) {
        ("workload", _) => spec.workload_name(),
        ("transport", _) => spec.transport_name().to_owned(),
        (_, Some(value)) if value.parse::<f64>().is_ok() => format!("{} {value}", name.replace('_', " ")),
        (_, Some(value)) => value,
        (_, None) => format!("{} as usual", name.replace('_', " ")),
    };
    settings.map(value).collect::<Vec<_>>().join(", ")
}
