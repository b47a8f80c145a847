//! Paths named in the documents exist.
//!
//! A path is what stands in backticks and starts with a folder or file of the repository's root,
//! or what a link points to. Globs and `...` are left alone.

use super::Problem;
use std::fs;
use std::path::Path;

/// Documents at the root, and the folder whose documents count as well.
const DOCUMENTS: [&str; 5] =
    ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
const FOLDER: &str = "docs";
/// What a path in backticks may start with.
const ROOTS: [&str; 8] = ["crates/", "docs/", "xtask/", "fuzz/", ".ci/", "scripts/", ".github/", "tests/"];

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<Problem>> {
    let mut documents: Vec<String> = DOCUMENTS.iter().map(ToString::to_string).collect();
    collect(root, FOLDER, &mut documents)?;
    let mut problems = Vec::new();
    for document in documents {
        let Ok(text) = fs::read_to_string(root.join(&document)) else { continue };
        let folder = Path::new(&document).parent().unwrap_or(Path::new(""));
        for (line, path, is_link) in paths(&text) {
            // A link is relative to its document, a path in backticks to the root.
            let base = if is_link { root.join(folder) } else { root.to_owned() };
            if !base.join(&path).exists() {
                let what = format!("`{path}` does not exist");
                problems.push(Problem::new(format!("{document}:{line}"), what));
            }
        }
    }
    Ok(problems)
}

fn collect(root: &Path, folder: &str, documents: &mut Vec<String>) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(root, &name, documents)?;
        } else if name.ends_with(".md") {
            documents.push(name);
        }
    }
    documents.sort();
    Ok(())
}

/// The paths in a document: line, path, and whether it is a link.
fn paths(text: &str) -> Vec<(usize, String, bool)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        if in_block {
            continue;
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            if is_path(quoted) {
                found.push((i + 1, quoted.to_owned(), false));
            }
        }
        for after in line.split("](").skip(1) {
            let target = after.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                found.push((i + 1, target.to_owned(), true));
            }
        }
    }
    found
}

fn is_path(quoted: &str) -> bool {
    let is_root = DOCUMENTS.contains(&quoted) || quoted == "Cargo.toml" || quoted == "clippy.toml";
    let is_below = ROOTS.iter().any(|root| quoted.starts_with(root));
    let is_plain = !quoted.contains(['*', '<', '{', ' ', '$']) && !quoted.contains("...");
    is_root || (is_below && is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_backticks_and_links() {
        let text = "See `crates/wire/src/lib.rs` and [the house](ARCHITECTURE.md#rooms).\n\
            ```text\n`crates/nowhere`\n```\n\
            Not `crates/*/src`, not `Endpoint`, not [this](https://example.org/x).\n\
            `README.md` counts.";
        let found = paths(text);
        let expected = [
            (1, "crates/wire/src/lib.rs".to_owned(), false),
            (1, "ARCHITECTURE.md".to_owned(), true),
            (6, "README.md".to_owned(), false),
        ];
        assert_eq!(found, expected);
    }
}
