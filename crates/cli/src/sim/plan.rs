//! Plans: published experiments as TOML, expanded into independent jobs.
//!
//! A plan has a `[base]` of settings, and experiments that `set` further ones and `sweep` over lists of values;
//! every combination of the values of a sweep is a job. The settings are those of [`Spec`], by name.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{job::Job, spec::Spec};

/// Most jobs of a plan.
const JOBS_MAX: usize = 10_000;

/// What a report needs to know of a plan.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The name of its file, without the ending.
    pub name: String,
    /// What it is, in one line.
    pub title: String,
    /// What one must know to read it.
    pub about: String,
    /// The figures of its report.
    pub figures: Vec<Figure>,
    /// A setting of which the highest sustained value is looked for.
    pub highest: Option<String>,
}

/// A figure of a report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Its title.
    pub title: String,
    /// Settings: one chart for each combination of their values.
    #[serde(default)]
    pub each: Vec<String>,
    /// Settings: one curve for each combination of their values.
    #[serde(default)]
    pub curves: Vec<String>,
    /// `messages` (cumulative share of the messages), or a setting with numbers.
    pub x: String,
    /// `p50`, `p99` (with `messages`), or a figure of a result, as `wasted_bandwidth` or `p99_at_50`.
    pub y: String,
}

/// What was published of an experiment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Published {
    /// P99 slowdown at percentages of the messages.
    pub p99: BTreeMap<String, f64>,
    /// Geometric mean of the median slowdowns over the points.
    pub p50_mean: Option<f64>,
    /// Share of the links wasted.
    pub wasted_bandwidth: Option<f64>,
    /// Throughput of an incast.
    pub gbps: Option<f64>,
}

impl Published {
    /// Every published value, with the name of our figure to set beside it.
    pub fn values(&self) -> Vec<(String, f64)> {
        let mut percents: Vec<(&String, &f64)> = self.p99.iter().collect();
        percents.sort_by(|a, b| number(a.0).total_cmp(&number(b.0)));
        let mut values: Vec<(String, f64)> =
            percents.into_iter().map(|(percent, value)| (format!("p99_at_{percent}"), *value)).collect();
        for (name, value) in
            [("p50_mean", self.p50_mean), ("wasted_bandwidth", self.wasted_bandwidth), ("gbps", self.gbps)]
        {
            values.extend(value.map(|value| (name.to_owned(), value)));
        }
        values
    }

    /// The published points of a curve.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = self.p99.iter().map(|(p, v)| (number(p), *v)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    title: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    highest: Option<String>,
    #[serde(default, rename = "figure")]
    figures: Vec<Figure>,
    #[serde(default)]
    base: Table,
    #[serde(rename = "experiment")]
    experiments: Vec<Experiment>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Experiment {
    #[serde(default)]
    set: Table,
    #[serde(default)]
    sweep: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    published: Published,
}

/// Reads a plan and expands it.
///
/// # Errors
/// What is wrong with the file, for people.
pub fn read(path: &Path, is_quick: bool) -> Result<Vec<Job>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let jobs = expand(&text, &name, is_quick).with_context(|| path.display().to_string())?;
    for job in &jobs {
        job.spec.experiment().with_context(|| format!("{}: {}", path.display(), job.label))?;
    }
    Ok(jobs)
}

fn expand(text: &str, name: &str, is_quick: bool) -> Result<Vec<Job>> {
    let plan: Plan = toml::from_str(text)?;
    let head = Head {
        name: name.to_owned(),
        title: plan.title,
        about: plan.about,
        figures: plan.figures,
        highest: plan.highest,
    };
    let mut jobs = Vec::new();
    for (number, experiment) in (1..).zip(&plan.experiments) {
        let combinations = combinations(&experiment.sweep).with_context(|| format!("experiment {number}"))?;
        ensure!(jobs.len() + combinations.len() <= JOBS_MAX, "more than {JOBS_MAX} jobs");
        for values in combinations {
            let mut table = plan.base.clone();
            table.extend(experiment.set.clone());
            table.extend(values.clone());
            let mut spec: Spec =
                table.try_into().with_context(|| format!("experiment {number}: the settings"))?;
            spec.settle(is_quick);
            jobs.push(Job {
                plan: head.clone(),
                index: jobs.len(),
                of: 0,
                label: label(&experiment.set, &values),
                spec,
                published: experiment.published.clone(),
            });
        }
    }
    ensure!(!jobs.is_empty(), "a plan needs at least one [[experiment]]");
    for figure in &head.figures {
        check_figure(figure, &jobs).with_context(|| format!("figure `{}`", figure.title))?;
    }
    let of = jobs.len();
    jobs.iter_mut().for_each(|job| job.of = of);
    Ok(jobs)
}

/// Every combination of the values of a sweep, the first setting changing slowest.
fn combinations(sweep: &BTreeMap<String, Vec<Value>>) -> Result<Vec<Table>> {
    let mut all = vec![Table::new()];
    for (name, values) in sweep {
        ensure!(!values.is_empty(), "the sweep over `{name}` has no values");
        ensure!(all.len() * values.len() <= JOBS_MAX, "more than {JOBS_MAX} jobs");
        let with = |table: &Table, value: &Value| {
            let mut table = table.clone();
            table.insert(name.clone(), value.clone());
            table
        };
        all = all.iter().flat_map(|table| values.iter().map(move |value| with(table, value))).collect();
    }
    Ok(all)
}

/// What sets a job apart: `workload w1, load 0.8`.
fn label(set: &Table, swept: &Table) -> String {
    let word = |(name, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{} {value}", name.replace('_', " "))
    };
    set.iter()
        .filter(|(name, _)| !swept.contains_key(*name))
        .chain(swept)
        .map(word)
        .collect::<Vec<_>>()
        .join(", ")
}

fn check_figure(figure: &Figure, jobs: &[Job]) -> Result<()> {
    let names = figure.each.iter().chain(&figure.curves);
    let x = (figure.x != "messages").then_some(&figure.x);
    for name in names.chain(x) {
        if jobs.iter().all(|job| job.spec.setting(name).is_none()) {
            bail!("no experiment says anything of `{name}`");
        }
    }
    Ok(())
}

impl Spec {
    /// A setting by name, as text.
    pub fn setting(&self, name: &str) -> Option<String> {
        let value = serde_json::to_value(self).ok()?;
        match value.get(name)? {
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
        title = "A plan"
        highest = "load"
        [[figure]]
        title = "Slowdown"
        each = ["workload"]
        curves = ["load"]
        x = "messages"
        y = "p99"
        [base]
        hosts = 16
        messages = 2000
        [[experiment]]
        set = { workload = "w1" }
        sweep = { load = [0.5, 0.8], overcommit = [1, 2, 3] }
        published.p99 = { 99 = 8.42, 10 = 1.84 }
        [[experiment]]
        set = { workload = "w4", seed = 7 }
    "#;

    #[test]
    fn expand_makes_every_combination() {
        let jobs = expand(PLAN, "a", false).unwrap();
        assert_eq!(jobs.len(), 7);
        assert_eq!(jobs[0].label, "workload w1, load 0.5, overcommit 1");
        assert_eq!((jobs[1].spec.load(), jobs[1].spec.overcommit), (0.5, Some(2)));
        assert_eq!((jobs[6].spec.seed(), jobs[6].spec.hosts(), jobs[6].of), (7, 16, 7));
        let published = jobs[0].published.values();
        assert_eq!(published, [("p99_at_10".to_owned(), 1.84), ("p99_at_99".to_owned(), 8.42)]);
    }

    #[test]
    fn expand_takes_a_tenth_when_quick() {
        assert_eq!(expand(PLAN, "a", true).unwrap()[0].spec.messages, Some(200));
    }

    #[test]
    fn expand_says_what_is_wrong() {
        let with = |text: &str| format!("title = \"x\"\n{text}");
        for (text, reason) in [
            (with("[[experiment]]\nset = { lod = 0.8 }"), "lod"),
            (with("colour = 1\n[[experiment]]"), "colour"),
            (with("[[experiment]]\nsweep = { load = [] }"), "no values"),
            (with("experiment = []"), "at least one"),
            (with("[[figure]]\ntitle=\"f\"\nx=\"wndow\"\ny=\"gbps\"\n[[experiment]]"), "wndow"),
            ("[[experiment]]".to_owned(), "title"),
        ] {
            let error = format!("{:#}", expand(&text, "a", false).expect_err(reason));
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_job_survives_its_line() {
        for job in expand(PLAN, "a", false).unwrap() {
            let line = serde_json::to_string(&job).unwrap();
            assert_eq!(serde_json::from_str::<Job>(&line).unwrap(), job);
        }
    }
}
