//! What the HTML reports share: one file without anything from elsewhere.

use std::fmt::Write;

use plotters::style::RGBColor;

use super::chart::Line;

const STYLE: &str = include_str!("style.css");

/// How a page ends.
pub const END: &str = "</main></body></html>\n";

/// How a page begins.
pub fn begin(title: &str, heading: &str, lead: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n\
         <h1>{}</h1>\n<p class=\"lead\">{}</p>\n",
        escape(title),
        escape(heading),
        escape(lead),
    )
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What the colours mean.
pub fn legend<'a>(page: &mut String, entries: impl Iterator<Item = (RGBColor, &'a str)>) {
    page.push_str("<p class=\"legend\">");
    for (RGBColor(r, g, b), title) in entries {
        let title = escape(title);
        let _ = write!(page, "<span><i style=\"background:#{r:02x}{g:02x}{b:02x}\"></i>{title}</span>");
    }
    page.push_str("</p>\n");
}

/// A chart with its title and caption.
pub fn figure(page: &mut String, title: &str, caption: &str, svg: &str) {
    let _ = writeln!(
        page,
        "<figure><h3>{}</h3>{svg}<figcaption>{}</figcaption></figure>",
        escape(title),
        escape(caption)
    );
}

/// A table: its head, and rows of which the first cell is a name.
pub fn table(page: &mut String, head: &[String], rows: &[Vec<String>]) {
    page.push_str("<div class=\"scroll\"><table><thead><tr>");
    head.iter().for_each(|cell| _ = write!(page, "<th>{}</th>", escape(cell)));
    page.push_str("</tr></thead><tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        row.iter().for_each(|cell| _ = write!(page, "<td>{}</td>", escape(cell)));
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}

/// A size in three digits or so.
pub fn short_size(bytes: u32) -> String {
    match bytes {
        0..=999 => format!("{bytes}"),
        1_000..=9_999 => format!("{:.1}k", f64::from(bytes) / 1e3),
        10_000..=999_999 => format!("{:.0}k", f64::from(bytes) / 1e3),
        _ => format!("{:.0}M", f64::from(bytes) / 1e6),
    }
}

/// The range of slowdowns, with room below 1 and above the largest.
pub fn above_one(lines: &[Line]) -> std::ops::Range<f64> {
    let values = || lines.iter().flat_map(|l| l.points.iter().map(|p| p.1));
    let low = values().fold(1.0, f64::min);
    let high = values().fold(2.0, f64::max);
    low * 0.9..high * 1.3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_size_has_three_digits_or_fewer() {
        for (bytes, text) in [(999, "999"), (6_387, "6.4k"), (120_373, "120k"), (1_000_000, "1M")] {
            assert_eq!(short_size(bytes), text);
        }
    }

    #[test]
    fn table_escapes_its_cells() {
        let mut page = String::new();
        table(&mut page, &["<a>".into()], &[vec!["b & c".into()]]);
        assert!(page.contains("<th>&lt;a&gt;</th>") && page.contains("<td>b &amp; c</td>"), "{page}");
    }
}
