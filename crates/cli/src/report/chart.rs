//! The charts of the report, as SVG elements. Drawn by plotters; colours of text and grid are left to the page's
//! style sheet, which knows whether it is dark.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

/// Size of a chart in its own units; the page scales it.
const SIZE: (u32, u32) = (640, 360);

/// Colour of the grid, replaced by the style sheet.
pub const GRID: RGBColor = RGBColor(0xcc, 0xcc, 0xcc);
/// Colour of the axes, replaced by the style sheet.
pub const AXIS: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// One line of a chart.
pub struct Line {
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// Its colour.
    pub color: RGBColor,
    /// Whether it is drawn in dashes.
    pub dashed: bool,
}

/// How an axis counts.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By powers of ten.
    Log,
}

/// An axis.
pub struct Axis<'a> {
    /// What it shows.
    pub title: &'a str,
    /// How it counts.
    pub scale: Scale,
    /// From and to, `None`: what the points need.
    pub range: Option<Range<f64>>,
    /// Text of a value.
    pub label: &'a dyn Fn(f64) -> String,
}

/// Draws lines; gives one `<svg>` element.
pub fn draw(lines: &[Line], x: &Axis<'_>, y: &Axis<'_>) -> Result<String> {
    let xs = span(lines.iter().flat_map(|l| l.points.iter().map(|p| p.0)), x);
    let ys = span(lines.iter().flat_map(|l| l.points.iter().map(|p| p.1)), y);
    match (x.scale, y.scale) {
        (Scale::Linear, Scale::Linear) => paint(lines, x, y, xs, ys),
        (Scale::Linear, Scale::Log) => paint(lines, x, y, xs, ys.log_scale()),
        (Scale::Log, Scale::Linear) => paint(lines, x, y, xs.log_scale(), ys),
        (Scale::Log, Scale::Log) => paint(lines, x, y, xs.log_scale(), ys.log_scale()),
    }
}

/// The range of an axis: as asked, or from the smallest to the largest value and a little more.
fn span(values: impl Iterator<Item = f64>, axis: &Axis<'_>) -> Range<f64> {
    if let Some(range) = &axis.range {
        return range.clone();
    }
    let (low, high) = values
        .filter(|v| v.is_finite() && (axis.scale == Scale::Linear || *v > 0.0))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match axis.scale {
        _ if low > high => 1.0..10.0,
        Scale::Linear => 0.0..(high * 1.1).max(1e-9),
        Scale::Log => low / 1.1..(high * 1.3).max(low * 2.0),
    }
}

fn paint<X, Y>(lines: &[Line], x: &Axis<'_>, y: &Axis<'_>, xs: X, ys: Y) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .margin_right(28)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d(xs, ys)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .label_style(("sans-serif", 17))
            .axis_desc_style(("sans-serif", 18))
            .x_labels(11)
            .y_labels(10)
            .x_label_formatter(&|v| (x.label)(*v))
            .y_label_formatter(&|v| (y.label)(*v))
            .x_desc(x.title)
            .y_desc(y.title)
            .draw()
            .map_err(failed)?;
        for line in lines {
            let points = line.points.iter().copied();
            let style = line.color.stroke_width(2);
            if line.dashed {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, style)).map_err(failed)?;
            } else {
                chart.draw_series(LineSeries::new(points, style)).map_err(failed)?;
            }
        }
        root.present().map_err(failed)?;
    }
    Ok(scalable(&svg))
}

/// Makes the drawing as wide as its place in the page.
fn scalable(svg: &str) -> String {
    let (width, height) = SIZE;
    svg.replacen(&format!("width=\"{width}\" height=\"{height}\""), "width=\"100%\" role=\"img\"", 1)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a chart: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draw_gives_one_scalable_element() {
        let label = |v: f64| format!("{v}");
        let lines = [Line { points: vec![(0.0, 1.0), (100.0, 30.0)], color: BLUE, dashed: false }];
        let x = Axis { title: "share", scale: Scale::Linear, range: Some(0.0..100.0), label: &label };
        let y = Axis { title: "slowdown", scale: Scale::Log, range: None, label: &label };
        let svg = draw(&lines, &x, &y).unwrap();
        assert!(svg.starts_with("<svg width=\"100%\""), "{}", &svg[..100]);
        assert_eq!(svg.matches("</svg>").count(), 1);
        assert!(svg.contains("slowdown"));
        assert!(svg.contains("viewBox"));
    }

    #[test]
    fn draw_survives_having_nothing_to_draw() {
        let label = |v: f64| format!("{v}");
        for scale in [Scale::Linear, Scale::Log] {
            let axis = || Axis { title: "", scale, range: None, label: &label };
            assert!(draw(&[], &axis(), &axis()).is_ok());
        }
    }
}
