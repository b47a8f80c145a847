//! The rules of the house, one file each; this file runs them all.

mod clocks;
mod documents;
mod fences;
mod imports;
mod locks;
mod sizes;
mod source;

use source::Source;
use std::fmt;
use std::path::Path;

/// Something that breaks a rule: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    place: String,
    what: String,
}

impl Problem {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Problem {
        Problem { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Applies all rules to the repository at `root`.
///
/// # Errors
/// Something could not be read; a broken rule is a [`Problem`], not an error.
pub(crate) fn run(root: &Path, write_ratchet: bool) -> anyhow::Result<Vec<Problem>> {
    let mut problems = imports::check(root)?;
    let sources = Source::load(root, &mut problems)?;
    problems.extend(clocks::check(&sources));
    problems.extend(fences::check(&sources));
    problems.extend(locks::check(&sources));
    if write_ratchet {
        sizes::write_ratchet(root, &sources)?;
    } else {
        problems.extend(sizes::check(root, &sources)?);
    }
    problems.extend(documents::check(root)?);
    problems.sort();
    problems.dedup();
    Ok(problems)
}
