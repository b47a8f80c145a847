//! The report of a cluster run: the figures of the papers, in one HTML file without anything from elsewhere.

use std::fmt::Write;

use anyhow::Result;
use plotters::style::RGBColor;

use super::{
    bench_text::grouped,
    chart::{self, Axis, Line, Scale},
    cluster_text::{COST, best, cost_row, heading, notes, time, verdict},
    html::{size_at, steps},
    page::{self, above_one, escape, figure},
    text::slowdown,
};
use crate::{
    cluster::outcome::{Outcome, Run},
    load::Share,
};

/// Colours, in the order of the runs.
const COLORS: [RGBColor; 8] = [
    RGBColor(0x2f, 0x6f, 0xed),
    RGBColor(0xe0, 0x70, 0x1a),
    RGBColor(0x2a, 0x9d, 0x5c),
    RGBColor(0xb0, 0x3a, 0x8c),
    RGBColor(0x8a, 0x6d, 0x3b),
    RGBColor(0x17, 0xa2, 0xb8),
    RGBColor(0xc0, 0x39, 0x2b),
    RGBColor(0x6c, 0x75, 0x7d),
];

/// The page.
pub fn page(outcome: &Outcome) -> Result<String> {
    let title = format!("Peyk cluster: workload {}", outcome.workload);
    let mut page = page::begin(&title, "Transports on links that queue", &heading(outcome));
    let titles: Vec<String> = outcome.runs.iter().map(Run::title).collect();
    page::legend(&mut page, titles.iter().enumerate().map(|(i, title)| (color(i), title.as_str())));
    slowdowns(&mut page, outcome)?;
    distributions(&mut page, outcome)?;
    tables(&mut page, outcome);
    page.push_str("<h2>How it was measured</h2>\n<ul>\n");
    notes(outcome).iter().for_each(|note| _ = writeln!(page, "<li>{}</li>", escape(note)));
    page.push_str("</ul>\n");
    page.push_str(page::END);
    Ok(page)
}

fn color(run: usize) -> RGBColor {
    COLORS[run % COLORS.len()]
}

fn lines(outcome: &Outcome, points: impl Fn(&Run) -> Vec<(f64, f64)>) -> Vec<Line> {
    let runs = outcome.runs.iter().enumerate();
    runs.map(|(i, run)| Line { points: points(run), color: color(i), dashed: i >= COLORS.len() }).collect()
}

fn slowdowns(page: &mut String, outcome: &Outcome) -> Result<()> {
    page.push_str("<h2>Slowdown by message size</h2>\n<div class=\"charts\">\n");
    let curve = outcome.runs.first().map_or(&[][..], |run| &run.curve);
    let size = |percent: f64| if percent < 1.0 { String::new() } else { size_at(curve, percent) };
    let plain = |v: f64| if v < 10.0 { format!("{v:.1}") } else { format!("{v:.0}") };
    let p99: fn(&Share) -> Option<f64> = |share| share.p99_slowdown;
    let p50: fn(&Share) -> Option<f64> = |share| share.p50_slowdown;
    for (title, value) in [("99th percentile", p99), ("Median", p50)] {
        let lines = lines(outcome, |run| steps(&run.curve, value));
        let x = Axis {
            title: "message size in bytes, at each tenth of the messages",
            scale: Scale::Linear,
            range: Some(0.0..100.0),
            label: &size,
        };
        let y = Axis { title: "slowdown", scale: Scale::Log, range: Some(above_one(&lines)), label: &plain };
        let caption =
            "Every step is a fortieth of the messages; 1 is the best unloaded round trip of that size.";
        figure(page, title, caption, &chart::draw(&lines, &x, &y)?);
    }
    page.push_str("</div>\n");
    Ok(())
}

fn distributions(page: &mut String, outcome: &Outcome) -> Result<()> {
    page.push_str("<h2>Round trips of short messages</h2>\n<div class=\"charts\">\n");
    let label = |us: f64| time(Some(us));
    let share = |v: f64| format!("{:.0} %", v * 100.0);
    let short: fn(&Run) -> Vec<(f64, f64)> = |run| run.cdf_short.clone();
    let half: fn(&Run) -> Vec<(f64, f64)> = |run| run.cdf_half.clone();
    for (title, value) in [("The shortest tenth of the messages", short), ("The shortest half", half)] {
        let lines = lines(outcome, value);
        let x = Axis { title: "round trip", scale: Scale::Log, range: None, label: &label };
        let y = Axis { title: "messages", scale: Scale::Linear, range: Some(0.0..1.0), label: &share };
        let caption = "Share of the messages whose response was there after so long.";
        figure(page, title, caption, &chart::draw(&lines, &x, &y)?);
    }
    page.push_str("</div>\n");
    Ok(())
}

fn tables(page: &mut String, outcome: &Outcome) {
    page.push_str("<h2>Round trips</h2>\n");
    let head = ["", "unloaded, 100 B", "shortest half, p50", "p99", "shortest tenth, p50", "p99"];
    let rows: Vec<Vec<String>> = outcome
        .runs
        .iter()
        .map(|run| {
            let (half, tenth) = (run.shortest_half, run.shortest_tenth);
            vec![
                run.title(),
                time(best(run)),
                time(half.map(|t| t.p50_us)),
                time(half.map(|t| t.p99_us)),
                time(tenth.map(|t| t.p50_us)),
                time(tenth.map(|t| t.p99_us)),
            ]
        })
        .collect();
    page::table(page, &head.map(str::to_owned), &rows);
    page.push_str("<h2>Slowdown, p50 / p99</h2>\n");
    let mut head = vec!["messages".to_owned(), "up to B".into()];
    head.extend(outcome.runs.iter().map(Run::title));
    let count = outcome.runs.first().map_or(0, |run| run.points.len());
    let rows: Vec<Vec<String>> = (0..count)
        .map(|i| {
            let point = &outcome.runs[0].points[i];
            let mut row = vec![format!("{} %", point.percent), grouped(u64::from(point.size))];
            row.extend(outcome.runs.iter().map(|run| {
                let point = &run.points[i];
                format!("{} / {}", slowdown(point.p50_slowdown), slowdown(point.p99_slowdown))
            }));
            row
        })
        .collect();
    page::table(page, &head, &rows);
    page.push_str("<h2>What was sent and what it cost</h2>\n");
    let mut head = vec!["Mbit/s per host".to_owned()];
    head.extend(COST.map(str::to_owned));
    let rows: Vec<Vec<String>> =
        outcome.runs.iter().map(|run| std::iter::once(run.title()).chain(cost_row(run)).collect()).collect();
    page::table(page, &head, &rows);
    let _ = writeln!(page, "<p>{}</p>", escape(&verdict(outcome)));
}
