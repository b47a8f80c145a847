//! What the user gets to see: text, HTML, charts.

pub mod bench_text;
pub mod chart;
pub mod html;
pub mod text;
