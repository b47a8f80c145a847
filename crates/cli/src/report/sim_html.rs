//! Simulated experiments as one HTML file: the papers' figures.

use std::fmt::Write;

use anyhow::Result;
use peyk_sim::measure::Point;
use plotters::style::RGBColor;

use super::{
    chart::{self, Axis, Line, Scale},
    page::{self, above_one, escape, figure, short_size},
    sim_plan, sim_text,
    text::slowdown,
};
use crate::sim::{job::Done, plan::Figure, result::RunResult};

const COLORS: [RGBColor; 8] = [
    RGBColor(0x2f, 0x6f, 0xed),
    RGBColor(0xe0, 0x70, 0x1a),
    RGBColor(0x2a, 0x9d, 0x5c),
    RGBColor(0xc2, 0x3b, 0x6b),
    RGBColor(0x7a, 0x5c, 0xd6),
    RGBColor(0x9a, 0x84, 0x1c),
    RGBColor(0x1b, 0x97, 0xa8),
    RGBColor(0x80, 0x80, 0x80),
];

/// A colour of a curve.
fn color(n: usize) -> RGBColor {
    COLORS[n % COLORS.len()]
}

/// The page of `peyk sim`.
pub fn runs(results: &[RunResult]) -> Result<String> {
    let Some(first) = results.first() else { return Ok(String::new()) };
    let title = format!("Peyk: {} at {:.0} % load, simulated", first.workload, first.load * 100.0);
    let mut page = page::begin(&title, &title, &sim_text::heading(first));
    page::legend(&mut page, results.iter().enumerate().map(|(n, r)| (color(n), r.transport.as_str())));
    page.push_str("<h2>Slowdown by message size</h2>\n<div class=\"charts\">\n");
    let curves: Vec<Curve<'_>> = results.iter().map(|r| Curve { points: &r.curve, published: &[] }).collect();
    for (title, p99) in [("99th percentile", true), ("Median", false)] {
        figure(&mut page, title, CAPTION, &by_messages(&curves, p99)?);
    }
    page.push_str("</div>\n");
    slowdown_table(&mut page, results);
    page.push_str("<h2>Network</h2>\n");
    let head: Vec<String> =
        std::iter::once(String::new()).chain(results.iter().map(|r| r.transport.clone())).collect();
    let rows: Vec<Vec<String>> = sim_text::summary(results)
        .into_iter()
        .map(|(name, cells)| std::iter::once(name.to_owned()).chain(cells).collect())
        .collect();
    page::table(&mut page, &head, &rows);
    for result in results.iter().filter(|r| !r.tor_queue_bytes.by_priority.is_empty()) {
        let _ = writeln!(page, "<h3>Queues to hosts by priority, {}</h3>", escape(&result.transport));
        let head = ["priority", "packets", "mean B found", "most B"].map(str::to_owned);
        page::table(&mut page, &head, &sim_text::priorities(&result.tor_queue_bytes));
    }
    notes(&mut page, &sim_text::verdict(results));
    Ok(page)
}

const CAPTION: &str = "Each percent of the messages is one step; 1 is the least time an idle network needs.";

fn notes(page: &mut String, lines: &[String]) {
    page.push_str("<h2>Notes</h2>\n<ul>\n");
    for line in sim_text::DEFINITION.lines().chain(lines.iter().map(String::as_str)) {
        let _ = writeln!(page, "<li>{}</li>", escape(line));
    }
    page.push_str("</ul>\n");
    page.push_str(page::END);
}

fn slowdown_table(page: &mut String, results: &[RunResult]) {
    let mut head = vec!["messages".to_owned(), "up to B".to_owned()];
    for r in results {
        head.extend([format!("{} p50", r.transport), format!("{} p99", r.transport)]);
    }
    let row = |point: &Point| {
        let mut row = vec![format!("{} %", point.percent), point.size.to_string()];
        for r in results {
            let point = r.point(point.percent);
            row.push(slowdown(point.map(|p| p.p50_slowdown)));
            row.push(slowdown(point.map(|p| p.p99_slowdown)));
        }
        row
    };
    let rows: Vec<Vec<String>> = results[0].points.iter().map(row).collect();
    page::table(page, &head, &rows);
}

/// A curve over the messages, and what was published of it.
struct Curve<'a> {
    points: &'a [Point],
    published: &'a [(f64, f64)],
}

/// The papers' figure: cumulative share of the messages, labelled with sizes, against slowdown.
fn by_messages(curves: &[Curve<'_>], p99: bool) -> Result<String> {
    let mut lines = Vec::new();
    for (n, curve) in curves.iter().enumerate() {
        let mut points = Vec::new();
        for p in curve.points {
            let y = if p99 { p.p99_slowdown } else { p.p50_slowdown };
            points.extend([(p.percent - 1.0, y), (p.percent, y)]);
        }
        lines.push(Line { points, color: color(n), dashed: false });
        if p99 && !curve.published.is_empty() {
            lines.push(Line { points: curve.published.to_vec(), color: color(n), dashed: true });
        }
    }
    let sizes = curves.iter().map(|c| c.points).find(|points| !points.is_empty()).unwrap_or(&[]);
    let size = |percent: f64| {
        let at = sizes.iter().find(|p| percent >= 1.0 && p.percent >= percent - 1e-6);
        at.map_or_else(String::new, |p| short_size(p.size))
    };
    let plain = |v: f64| if v < 10.0 { format!("{v:.1}") } else { format!("{v:.0}") };
    let x = Axis {
        title: "message size in bytes, at each tenth of the messages",
        scale: Scale::Linear,
        range: Some(0.0..100.0),
        label: &size,
    };
    let y = Axis { title: "slowdown", scale: Scale::Log, range: Some(above_one(&lines)), label: &plain };
    chart::draw(&lines, &x, &y)
}

/// The page of a plan.
pub fn plan(done: &[Done]) -> Result<String> {
    let Some(first) = done.first() else { return Ok(String::new()) };
    let head = &first.job.plan;
    let mut page = page::begin(&format!("Peyk: {}", head.title), &head.title, &head.about);
    for wanted in &head.figures {
        figures(&mut page, wanted, done)?;
    }
    let published = sim_plan::published(done);
    if !published.is_empty() {
        page.push_str("<h2>Published values beside ours</h2>\n");
        page::table(&mut page, &sim_plan::PUBLISHED_HEAD.map(str::to_owned), &published);
    }
    let highest = sim_plan::highest_rows(done);
    if !highest.is_empty() {
        page.push_str("<h2>Highest value sustained</h2>\n");
        page::table(&mut page, &sim_plan::HIGHEST_HEAD.map(str::to_owned), &highest);
    }
    page.push_str("<h2>All experiments</h2>\n");
    page::table(&mut page, &sim_plan::HEAD.map(str::to_owned), &sim_plan::rows(done));
    notes(&mut page, &sim_plan::remarks(done));
    Ok(page)
}

/// The charts of one figure: one for each combination of `each`.
fn figures(page: &mut String, wanted: &Figure, done: &[Done]) -> Result<()> {
    let _ = writeln!(page, "<h2>{}</h2>", escape(&wanted.title));
    let names = groups(done, &wanted.curves);
    if names.len() > 1 {
        page::legend(page, names.iter().enumerate().map(|(n, (name, _))| (color(n), name.as_str())));
    }
    page.push_str("<div class=\"charts\">\n");
    for (title, members) in groups(done, &wanted.each) {
        let curve = |name: &str| members.iter().copied().filter(|d| key(d, &wanted.curves) == name).collect();
        let curves: Vec<Vec<&Done>> = names.iter().map(|(name, _)| curve(name)).collect();
        let svg = if wanted.x == "messages" {
            let published: Vec<Vec<(f64, f64)>> =
                curves.iter().map(|c| c.first().map_or_else(Vec::new, |d| d.job.published.curve())).collect();
            let drawn: Vec<Curve<'_>> = curves
                .iter()
                .zip(&published)
                .map(|(c, published)| Curve { points: c.first().map_or(&[], |d| &d.result.curve), published })
                .collect();
            by_messages(&drawn, wanted.y == "p99")?
        } else {
            by_setting(&curves, wanted)?
        };
        let caption = if wanted.x == "messages" { "Dashed: published, where it is." } else { "" };
        figure(page, &title, caption, &svg);
    }
    page.push_str("</div>\n");
    Ok(())
}

fn by_setting(curves: &[Vec<&Done>], wanted: &Figure) -> Result<String> {
    let lines: Vec<Line> = curves
        .iter()
        .enumerate()
        .map(|(n, members)| {
            let point = |d: &&Done| {
                let x = d.job.spec.setting(&wanted.x)?.parse().ok()?;
                Some((x, d.result.figure(&wanted.y)?))
            };
            let mut points: Vec<(f64, f64)> = members.iter().filter_map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Line { points, color: color(n), dashed: false }
        })
        .collect();
    let number = |v: f64| if v.abs() < 10.0 { format!("{v:.2}") } else { format!("{v:.0}") };
    let (x, y) = (wanted.x.replace('_', " "), wanted.y.replace('_', " "));
    let xs = lines.iter().flat_map(|l| l.points.iter().map(|p| p.0));
    let (low, high) = xs.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let range = (low < high).then_some(low..high);
    chart::draw(
        &lines,
        &Axis { title: &x, scale: Scale::Linear, range, label: &number },
        &Axis { title: &y, scale: Scale::Linear, range: None, label: &number },
    )
}

/// The results by the values of some settings, in the order of the jobs.
fn groups<'a>(done: &'a [Done], settings: &[String]) -> Vec<(String, Vec<&'a Done>)> {
    let mut groups: Vec<(String, Vec<&Done>)> = Vec::new();
    for d in done {
        let key = key(d, settings);
        match groups.iter_mut().find(|(name, _)| *name == key) {
            Some((_, members)) => members.push(d),
            None => groups.push((key, vec![d])),
        }
    }
    groups
}

/// The values of some settings, for people.
fn key(done: &Done, settings: &[String]) -> String {
    sim_plan::values(&done.job.spec, settings.iter().map(String::as_str))
}
