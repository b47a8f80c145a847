//! What the user gets to see: text, HTML, charts.

pub mod bench_text;
pub mod chart;
pub mod cluster_html;
pub mod cluster_text;
pub mod html;
mod page;
pub mod sim_html;
pub mod sim_plan;
pub mod sim_text;
pub mod text;
