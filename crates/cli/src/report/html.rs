//! The demo's report: one HTML file without anything from elsewhere.

use std::fmt::Write;

use anyhow::Result;
use plotters::style::RGBColor;

use super::{
    bench_text::grouped,
    chart::{self, Axis, Line, Scale},
    page::{self, above_one, escape, figure, short_size},
    text::{heading, notes, remarks, slowdown, verdict},
};
use crate::{
    load::{LoadResult, Share},
    outcome::Outcome,
};

/// The page.
pub fn page(outcome: &Outcome) -> Result<String> {
    let title = format!("Peyk demo: workload {}", outcome.workload);
    let mut page = page::begin(&title, "Homa and TCP under the same load", &heading(outcome));
    legend(&mut page, outcome);
    slowdowns(&mut page, outcome)?;
    round_trips(&mut page, outcome)?;
    throughput(&mut page, outcome)?;
    decile_table(&mut page, outcome);
    summary_table(&mut page, outcome);
    page.push_str("<h2>How it was measured</h2>\n<ul>\n");
    for note in notes(outcome) {
        let _ = writeln!(page, "<li>{}</li>", escape(&note));
    }
    page.push_str("</ul>\n");
    page.push_str(page::END);
    Ok(page)
}

/// The colour of a transport.
fn color(name: &str) -> RGBColor {
    match name {
        "homa" => RGBColor(0x2f, 0x6f, 0xed),
        "tcp1" => RGBColor(0xe0, 0x70, 0x1a),
        _ => RGBColor(0x2a, 0x9d, 0x5c),
    }
}

fn legend(page: &mut String, outcome: &Outcome) {
    page::legend(page, outcome.transports.iter().map(|t| (color(t.name), t.title)));
}

/// A step curve: each group of sizes is as wide as its share of the messages.
pub fn steps(curve: &[Share], value: impl Fn(&Share) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut from = 0.0;
    for share in curve {
        if let Some(y) = value(share) {
            points.push((from, y));
            points.push((share.percent, y));
        }
        from = share.percent;
    }
    points
}

/// The size that stands at a share of the messages.
pub fn size_at(curve: &[Share], percent: f64) -> String {
    let found = curve.iter().find(|s| s.percent >= percent - 1e-6);
    found.map_or_else(String::new, |s| short_size(s.size))
}

fn slowdowns(page: &mut String, outcome: &Outcome) -> Result<()> {
    page.push_str("<h2>Slowdown by message size</h2>\n<div class=\"charts\">\n");
    let curve = outcome.transports.first().map_or(&[][..], |t| &t.load.curve);
    let size = |percent: f64| if percent < 1.0 { String::new() } else { size_at(curve, percent) };
    let plain = |v: f64| if v < 10.0 { format!("{v:.1}") } else { format!("{v:.0}") };
    let p99: fn(&Share) -> Option<f64> = |share| share.p99_slowdown;
    let p50: fn(&Share) -> Option<f64> = |share| share.p50_slowdown;
    for (title, value) in [("99th percentile", p99), ("Median", p50)] {
        let lines: Vec<Line> = outcome
            .transports
            .iter()
            .map(|t| Line { points: steps(&t.load.curve, value), color: color(t.name), dashed: false })
            .collect();
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

/// Round trips: microseconds and share of messages that took no longer.
type Distribution = Vec<(f64, f64)>;

fn round_trips(page: &mut String, outcome: &Outcome) -> Result<()> {
    page.push_str("<h2>Round trips</h2>\n<div class=\"charts\">\n");
    let micros = |v: f64| if v < 1_000.0 { format!("{v:.0} us") } else { format!("{:.0} ms", v / 1e3) };
    let share = |v: f64| format!("{:.0} %", v * 100.0);
    let short: fn(&LoadResult) -> &Distribution = |load| &load.cdf_short;
    let all: fn(&LoadResult) -> &Distribution = |load| &load.cdf;
    for (title, value) in [("The shortest tenth of the messages", short), ("All messages", all)] {
        let lines: Vec<Line> = outcome
            .transports
            .iter()
            .map(|t| Line { points: value(&t.load).clone(), color: color(t.name), dashed: false })
            .collect();
        let x = Axis { title: "round trip", scale: Scale::Log, range: None, label: &micros };
        let y = Axis { title: "messages", scale: Scale::Linear, range: Some(0.0..1.0), label: &share };
        let caption = "Share of the messages whose response was there after so long.";
        figure(page, title, caption, &chart::draw(&lines, &x, &y)?);
    }
    page.push_str("</div>\n");
    Ok(())
}

fn throughput(page: &mut String, outcome: &Outcome) -> Result<()> {
    page.push_str("<h2>Throughput</h2>\n<div class=\"charts\">\n");
    let seconds = |v: f64| format!("{v:.1} s");
    let gbps = |v: f64| format!("{v:.1}");
    let mut lines: Vec<Line> = outcome
        .transports
        .iter()
        .map(|t| Line {
            points: t.load.timeline.iter().map(|b| (b.seconds, b.goodput_gbps)).collect(),
            color: color(t.name),
            dashed: false,
        })
        .collect();
    let end = outcome.settings.duration_seconds - outcome.settings.warmup_seconds;
    let offered = outcome.offered.goodput_gbps;
    lines.push(Line { points: vec![(0.0, offered), (end, offered)], color: chart::AXIS, dashed: true });
    let x = Axis {
        title: "time since the warm-up",
        scale: Scale::Linear,
        range: Some(0.0..end.max(0.1)),
        label: &seconds,
    };
    let y = Axis { title: "Gbit/s", scale: Scale::Linear, range: None, label: &gbps };
    let caption = "Payload delivered, one direction. Dashed: the mean load offered.";
    figure(page, "Delivered over time", caption, &chart::draw(&lines, &x, &y)?);
    page.push_str("</div>\n");
    Ok(())
}

fn decile_table(page: &mut String, outcome: &Outcome) {
    page.push_str("<h2>Slowdown by tenths of the messages</h2>\n<div class=\"scroll\"><table><thead><tr><th rowspan=\"2\">messages</th><th rowspan=\"2\">up to B</th>");
    for t in &outcome.transports {
        let _ = write!(page, "<th colspan=\"2\">{}</th>", t.title);
    }
    page.push_str("</tr><tr>");
    outcome.transports.iter().for_each(|_| page.push_str("<th>p50</th><th>p99</th>"));
    page.push_str("</tr></thead><tbody>\n");
    let rows = outcome.transports.first().map_or(0, |t| t.load.points.len());
    for i in 0..rows {
        let point = &outcome.transports[0].load.points[i];
        let _ = write!(page, "<tr><td>{} %</td><td>{}</td>", point.percent, grouped(u64::from(point.size)));
        for t in &outcome.transports {
            let p = &t.load.points[i];
            let _ =
                write!(page, "<td>{}</td><td>{}</td>", slowdown(p.p50_slowdown), slowdown(p.p99_slowdown));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}

fn summary_table(page: &mut String, outcome: &Outcome) {
    page.push_str(
        "<h2>What was sent and what arrived</h2>\n<div class=\"scroll\"><table><thead><tr><th></th>\
         <th>capacity Gbit/s</th><th>goodput Gbit/s</th><th>sent</th><th>completed</th><th>lost</th><th>corrupt</th>\
         <th>executed twice</th><th>most outstanding</th><th>lag p99 us</th><th>CPU s</th></tr></thead><tbody>\n",
    );
    for t in &outcome.transports {
        let load = &t.load;
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{:.0}</td><td>{:.1}</td></tr>",
            t.title,
            t.capacity_gbps,
            load.goodput_gbps,
            grouped(load.sent),
            grouped(load.completed),
            grouped(load.lost),
            grouped(t.corrupt),
            grouped(t.executed_twice),
            grouped(u64::from(load.outstanding_max)),
            load.lag_p99_us,
            load.cpu_seconds + t.server.cpu_seconds,
        );
    }
    let _ = writeln!(page, "</tbody></table></div>\n<p>{}</p>", escape(&verdict(outcome)));
    for t in &outcome.transports {
        if let Some(line) = remarks(t) {
            let _ = writeln!(page, "<p>{}: {}.</p>", t.title, escape(&line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::example;

    #[test]
    fn page_is_self_contained() {
        let page = page(&example()).unwrap();
        assert_eq!(page.matches("<svg").count(), 5);
        for foreign in ["<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for tag in ["table", "figure", "ul", "main", "svg"] {
            let open = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn steps_are_as_wide_as_their_share() {
        let curve = &example().transports[0].load.curve;
        let points = steps(curve, |s| s.p50_slowdown);
        assert_eq!(points.len(), 80);
        assert_eq!((points[0].0, points[1].0, points[2].0), (0.0, 2.5, 2.5));
    }
}
