//! The Rust files of the repository, parsed, and which of their parts are tests.

use super::Problem;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use syn::{Attribute, Item, Meta};

/// Where Rust files are looked for.
const PLACES: [&str; 3] = ["crates", "xtask", "fuzz"];
/// Directories that hold no sources of ours.
const SKIPPED: [&str; 4] = ["target", "corpus", "artifacts", "seeds"];
/// Folders beside `src` whose files are tests for every rule.
const TEST_FOLDERS: [&str; 3] = ["/tests/", "/benches/", "/examples/"];

/// One Rust file.
pub(super) struct Source {
    /// Path from the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) file: syn::File,
    /// Whether all of it is test code.
    pub(super) is_test: bool,
}

impl Source {
    /// Reads and parses all files; a file that does not parse is a problem and left out.
    pub(super) fn load(root: &Path, problems: &mut Vec<Problem>) -> anyhow::Result<Vec<Source>> {
        let mut paths = Vec::new();
        for place in PLACES {
            walk(&root.join(place), &mut paths)?;
        }
        paths.sort();
        let mut sources = Vec::new();
        let mut test_modules = BTreeSet::new();
        for path in paths {
            let text = fs::read_to_string(&path)?;
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            match syn::parse_file(&text) {
                Ok(file) => {
                    collect_test_modules(&file.items, &module_folder(&name), &mut test_modules);
                    let is_test = TEST_FOLDERS.iter().any(|folder| name.contains(folder));
                    sources.push(Source { path: name, text, file, is_test });
                }
                Err(error) => {
                    let line = error.span().start().line;
                    problems.push(Problem::new(format!("{name}:{line}"), error.to_string()));
                }
            }
        }
        for source in &mut sources {
            source.is_test |= test_modules.iter().any(|module| belongs(&source.path, module));
        }
        Ok(sources)
    }

    /// The crate the file belongs to: its folder from the root, such as `crates/wire`.
    pub(super) fn crate_folder(&self) -> &str {
        let depth = if self.path.starts_with("crates/") { 2 } else { 1 };
        match self.path.match_indices('/').nth(depth - 1) {
            Some((end, _)) => &self.path[..end],
            None => &self.path,
        }
    }
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) && !name.starts_with('.') {
                walk(&path, paths)?;
            }
        } else if name.ends_with(".rs") {
            paths.push(path);
        }
    }
    Ok(())
}

/// The folder in which the modules declared in a file have their files.
fn module_folder(path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", file.trim_end_matches(".rs")),
    }
}

/// Collects the modules that exist for tests only, as paths without `.rs`.
fn collect_test_modules(items: &[Item], folder: &str, found: &mut BTreeSet<String>) {
    for item in items {
        let Item::Mod(module) = item else { continue };
        let inner = format!("{folder}/{}", module.ident);
        match &module.content {
            None if is_for_tests(&module.attrs) => {
                found.insert(inner);
            }
            Some((_, items)) => collect_test_modules(items, &inner, found),
            None => {}
        }
    }
}

fn belongs(path: &str, module: &str) -> bool {
    match path.strip_prefix(module) {
        Some(rest) => rest == ".rs" || rest.starts_with('/'),
        None => false,
    }
}

/// Whether an item with these attributes is compiled for tests only.
pub(super) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => needs_test(list.tokens.clone()),
        _ => false,
    })
}

/// Whether a `cfg` predicate holds in tests only: `test`, or an `all` with such a part.
fn needs_test(tokens: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    match &tokens[..] {
        [TokenTree::Ident(word)] => word == "test",
        [TokenTree::Ident(word), TokenTree::Group(group)] if word == "all" => {
            debug_assert_eq!(group.delimiter(), Delimiter::Parenthesis);
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            let is_comma = |t: &TokenTree| matches!(t, TokenTree::Punct(p) if p.as_char() == ',');
            inner.split(is_comma).any(|part| needs_test(part.iter().cloned().collect()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(code: &str) -> Vec<Attribute> {
        let module: syn::ItemMod = syn::parse_str(&format!("{code} mod x;")).unwrap();
        module.attrs
    }

    #[test]
    fn is_for_tests_understands_cfg() {
        assert!(is_for_tests(&attributes("#[cfg(test)]")));
        assert!(is_for_tests(&attributes("#[test]")));
        assert!(is_for_tests(&attributes("#[cfg(all(loom, test))]")));
        assert!(!is_for_tests(&attributes("#[cfg(any(test, feature = \"sim\"))]")));
        assert!(!is_for_tests(&attributes("#[cfg(not(test))]")));
        assert!(!is_for_tests(&attributes("#[inline]")));
    }

    #[test]
    fn belongs_takes_the_file_and_those_below() {
        assert!(belongs("crates/a/src/grant/tests.rs", "crates/a/src/grant/tests"));
        assert!(belongs("crates/a/src/grant/tests/pair.rs", "crates/a/src/grant/tests"));
        assert!(!belongs("crates/a/src/grant/tests_of.rs", "crates/a/src/grant/tests"));
    }

    #[test]
    fn module_folder_follows_the_compiler() {
        assert_eq!(module_folder("crates/a/src/lib.rs"), "crates/a/src");
        assert_eq!(module_folder("crates/a/src/grant.rs"), "crates/a/src/grant");
    }
}
