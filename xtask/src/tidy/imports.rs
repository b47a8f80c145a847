//! Who may import whom: the table of the house against cargo's own metadata.
//!
//! Only what ships counts (normal and build dependencies). Tests may use what they like from
//! outside, but nobody's tests reach upward: else the lower crate could not be tested alone.

use super::Problem;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::path::Path;

/// Crates from the bottom up, with those of ours each may import.
const TABLE: [(&str, &[&str]); 11] = [
    ("peyk-wire", &[]),
    ("peyk-sansio", &[]),
    ("peyk-sockbuf", &[]),
    ("peyk-homa", &["peyk-wire", "peyk-sansio", "peyk-sockbuf"]),
    ("peyk-sim", &["peyk-wire", "peyk-sansio", "peyk-sockbuf", "peyk-homa"]),
    ("peyk-kcm", &["peyk-sansio", "peyk-sockbuf"]),
    ("peyk-kevent", &["peyk-sansio", "peyk-sockbuf"]),
    ("peyk-stack", &["peyk-wire", "peyk-sansio", "peyk-sockbuf", "peyk-homa", "peyk-kcm", "peyk-kevent"]),
    (
        "peyk",
        &["peyk-wire", "peyk-sansio", "peyk-sockbuf", "peyk-homa", "peyk-kcm", "peyk-kevent", "peyk-stack"],
    ),
    ("peyk-cli", &["peyk", "peyk-wire", "peyk-sim"]),
    ("xtask", &[]),
];

/// Crates that take time, packets and randomness from outside: a runtime, a socket, a clock or the
/// entropy of the operating system has no place in them.
const PURE: [&str; 6] = ["peyk-wire", "peyk-sansio", "peyk-sockbuf", "peyk-homa", "peyk-sim", "peyk-kcm"];
const IMPURE: [&str; 18] = [
    "async-io",
    "async-std",
    "chrono",
    "coarsetime",
    "futures-timer",
    "getrandom",
    "io-uring",
    "jiff",
    "libc",
    "mio",
    "nix",
    "quanta",
    "rand",
    "rustix",
    "smol",
    "socket2",
    "time",
    "tokio",
];

/// Async runtimes stay out of the shard loop, too.
const RUNTIMES: [&str; 5] = ["async-std", "embassy-executor", "monoio", "smol", "tokio"];

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<Problem>> {
    let manifest = root.join("Cargo.toml");
    Ok(check_metadata(&MetadataCommand::new().manifest_path(manifest).no_deps().exec()?))
}

fn check_metadata(metadata: &Metadata) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        match TABLE.iter().position(|(name, _)| *name == package.name.as_str()) {
            Some(rank) => check_package(metadata, package, rank, &mut problems),
            None => problems.push(Problem::new(
                place(metadata, package),
                format!(
                    "the crate `{}` is not in the import table; give it a row in \
                     xtask/src/tidy/imports.rs and in ARCHITECTURE.md",
                    package.name
                ),
            )),
        }
    }
    problems
}

fn check_package(metadata: &Metadata, package: &Package, rank: usize, problems: &mut Vec<Problem>) {
    let (name, allowed) = TABLE[rank];
    let mut complain = |what: String| problems.push(Problem::new(place(metadata, package), what));
    for dependency in &package.dependencies {
        let import = dependency.name.as_str();
        let is_test = dependency.kind == DependencyKind::Development;
        if let Some(other) = TABLE.iter().position(|(ours, _)| *ours == import) {
            if !is_test && !allowed.contains(&import) {
                complain(format!(
                    "`{name}` imports `{import}`, which the table does not allow; allowed: {}",
                    list(allowed)
                ));
            }
            if is_test && other > rank {
                complain(format!("the tests of `{name}` reach upward to `{import}`"));
            }
        } else if dependency.path.is_some() && !is_test {
            complain(format!("`{name}` imports `{import}`, which the table does not know"));
        } else if !is_test && PURE.contains(&name) && IMPURE.contains(&import) {
            complain(format!(
                "`{name}` imports `{import}`, but takes time, packets and randomness from outside"
            ));
        } else if !is_test && name == "peyk-stack" && RUNTIMES.contains(&import) {
            complain(format!("`{name}` imports the async runtime `{import}`"));
        }
    }
}

fn place(metadata: &Metadata, package: &Package) -> String {
    let manifest = &package.manifest_path;
    manifest.strip_prefix(&metadata.workspace_root).unwrap_or(manifest).to_string()
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing of ours".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said when `package` gets a dependency on `import`.
    fn problems_with(package: &str, import: &str, kind: DependencyKind) -> Vec<String> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let command = MetadataCommand::new().manifest_path(manifest).no_deps().exec();
        let mut metadata = command.expect("the workspace has metadata");
        let ours = metadata.packages.iter().flat_map(|package| &package.dependencies);
        let mut dependency = ours.clone().next().expect("somebody imports something").clone();
        import.clone_into(&mut dependency.name);
        dependency.kind = kind;
        dependency.path = None;
        let package = metadata.packages.iter_mut().find(|p| p.name.as_str() == package);
        package.expect("it is a member").dependencies = vec![dependency];
        let mentions = |problem: &&Problem| problem.what.contains(import);
        check_metadata(&metadata).iter().filter(mentions).map(|p| p.what.clone()).collect()
    }

    #[test]
    fn the_table_is_kept() {
        use DependencyKind::{Build, Development, Normal};
        for (package, import, kind, is_fine) in [
            ("peyk-homa", "peyk-wire", Normal, true),
            ("peyk-kcm", "peyk-wire", Normal, false),
            ("peyk-kcm", "libc", Normal, false),
            ("peyk-homa", "peyk-stack", Normal, false),
            ("peyk-homa", "peyk-kevent", Build, false),
            ("peyk-kevent", "peyk-wire", Normal, false),
            ("peyk-kevent", "peyk-wire", Development, true),
            ("peyk-homa", "peyk-stack", Development, false),
            ("peyk-cli", "peyk-stack", Normal, false),
            ("peyk-homa", "tokio", Normal, false),
            ("peyk-homa", "tokio", Development, true),
            ("peyk-stack", "tokio", Normal, false),
            ("peyk-stack", "libc", Normal, true),
            ("peyk-sansio", "libc", Normal, false),
        ] {
            let problems = problems_with(package, import, kind);
            assert_eq!(problems.is_empty(), is_fine, "{package} -> {import} ({kind}): {problems:?}");
        }
    }
}
