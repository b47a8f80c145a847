//! One figure of a case that has measures of its own: a baseline, ours, and the bar.

use serde::Serialize;

/// What a ratio, or a value, must be.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Not less than this.
    AtLeast(f64),
    /// Not more than this.
    AtMost(f64),
    /// Shown for contrast.
    None,
}

/// A measured quantity of both contestants.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The case, `k4` to `k11`.
    pub case: &'static str,
    /// What is measured, with its unit.
    pub what: String,
    /// What it is compared with.
    pub beside: &'static str,
    /// Medians.
    pub baseline: f64,
    pub kcm: f64,
    /// Quartiles of the ratio over the pairs.
    pub ratio: [f64; 3],
    /// What the median ratio must be.
    pub goal: Goal,
    /// Whether it is.
    pub reached: bool,
}

impl Figure {
    /// From pairs of baseline and ours.
    pub fn new(
        case: &'static str,
        what: impl Into<String>,
        beside: &'static str,
        pairs: &[(f64, f64)],
        goal: Goal,
    ) -> Figure {
        let median = |of: fn(&(f64, f64)) -> f64| quartiles(pairs.iter().map(of).collect())[1];
        let ratio = quartiles(pairs.iter().map(|(baseline, ours)| ours / baseline.max(1e-9)).collect());
        let reached = match goal {
            Goal::AtLeast(least) => ratio[1] >= least,
            Goal::AtMost(most) => ratio[1] <= most,
            Goal::None => true,
        };
        let (baseline, kcm) = (median(|pair| pair.0), median(|pair| pair.1));
        Figure { case, what: what.into(), beside, baseline, kcm, ratio, goal, reached }
    }

    /// A value with a limit that is known beforehand: the ratio is to the limit.
    pub fn limited(case: &'static str, what: impl Into<String>, limit: f64, values: &[f64]) -> Figure {
        let pairs: Vec<(f64, f64)> = values.iter().map(|value| (limit, *value)).collect();
        Figure::new(case, what, "the limit", &pairs, Goal::AtMost(1.0))
    }
}

/// First quartile, median, third quartile.
pub fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    [at(0.25), at(0.5), at(0.75)]
}

/// Prints all of them.
pub fn print_figures(figures: &[Figure]) {
    if figures.is_empty() {
        return;
    }
    println!("\n{:<5} {:>12} {:>12}  {:<19} measure", "case", "beside", "kcm", "ratio");
    for figure in figures {
        let [low, median, high] = figure.ratio;
        let verdict = match (figure.goal, figure.reached) {
            (Goal::None, _) => "for contrast".to_owned(),
            (Goal::AtLeast(bar), true) => format!(">= {bar:.2} reached"),
            (Goal::AtMost(bar), true) => format!("<= {bar:.2} reached"),
            (Goal::AtLeast(bar), false) => format!(">= {bar:.2} MISSED"),
            (Goal::AtMost(bar), false) => format!("<= {bar:.2} MISSED"),
        };
        let ratio = format!("{median:.2} [{low:.2}-{high:.2}]");
        println!(
            "{:<5} {:>12.1} {:>12.1}  {ratio:<19} {}; beside {}: {verdict}",
            figure.case, figure.baseline, figure.kcm, figure.what, figure.beside
        );
    }
}
