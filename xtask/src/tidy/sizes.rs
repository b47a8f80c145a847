//! Files and functions stay short enough to read; what is too long already may only shrink.
//!
//! The excess that is tolerated stands in `xtask/ratchet.txt`, one line each:
//!
//! ```text
//! crates/x/src/y.rs 950
//! crates/x/src/y.rs function_name 84
//! ```

use super::Problem;
use super::source::{Source, is_for_tests};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Ceilings, in lines: a file of the implementation, a file of tests, a function.
const FILE: usize = 900;
const TEST_FILE: usize = 1500;
const FUNCTION: usize = 70;
const RATCHET: &str = "xtask/ratchet.txt";
const RATCHET_HEAD: &str = "\
# Files and functions longer than their ceiling, with the length they may have. They may only
# shrink: `cargo run -p xtask -- tidy --write-ratchet` writes this file anew.
";

/// Something with a length; the key is its line in the ratchet without the number.
struct Measured {
    key: String,
    line: usize,
    length: usize,
    ceiling: usize,
}

pub(super) fn check(root: &Path, sources: &[Source]) -> anyhow::Result<Vec<Problem>> {
    let text = fs::read_to_string(root.join(RATCHET)).unwrap_or_default();
    Ok(compare(&text, sources))
}

fn compare(ratchet: &str, sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut tolerated = read_ratchet(ratchet, &mut problems);
    for measured in sources.iter().flat_map(measure) {
        let Measured { key, line, length, ceiling } = measured;
        let path = key.split(' ').next().unwrap_or_default();
        let place = format!("{path}:{line}");
        let limit = tolerated.remove(&key);
        let what = match limit {
            None if length > ceiling => {
                format!("`{key}` has {length} lines, at most {ceiling}; split it")
            }
            Some(limit) if length > limit => {
                format!("`{key}` has {length} lines and grew: {RATCHET} tolerates {limit}")
            }
            Some(limit) if length < limit => {
                format!("`{key}` shrank to {length} lines: lower it from {limit} in {RATCHET}")
            }
            _ => continue,
        };
        problems.push(Problem::new(place, what));
    }
    for key in tolerated.keys() {
        problems.push(Problem::new(RATCHET, format!("`{key}` is no longer there: drop its line")));
    }
    problems
}

/// Writes the ratchet for the tree as it is.
pub(super) fn write_ratchet(root: &Path, sources: &[Source]) -> anyhow::Result<()> {
    let mut text = RATCHET_HEAD.to_owned();
    let mut excess: BTreeMap<String, usize> = BTreeMap::new();
    for measured in sources.iter().flat_map(measure) {
        if measured.length > measured.ceiling {
            excess.insert(measured.key, measured.length);
        }
    }
    for (key, length) in excess {
        writeln!(text, "{key} {length}")?;
    }
    fs::write(root.join(RATCHET), text)?;
    Ok(())
}

fn read_ratchet(text: &str, problems: &mut Vec<Problem>) -> BTreeMap<String, usize> {
    let mut tolerated = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        match line.rsplit_once(' ').map(|(key, length)| (key, length.parse())) {
            Some((key, Ok(length))) => {
                tolerated.insert(key.to_owned(), length);
            }
            _ => problems.push(Problem::new(
                format!("{RATCHET}:{}", i + 1),
                "expected `path length` or `path function length`",
            )),
        }
    }
    tolerated
}

fn measure(source: &Source) -> Vec<Measured> {
    let ceiling = if source.is_test { TEST_FILE } else { FILE };
    let length = source.text.lines().count();
    let key = source.path.clone();
    let mut finder = Functions { prefix: key.clone(), measured: Vec::new() };
    finder.measured.push(Measured { key, line: 1, length, ceiling });
    finder.visit_file(&source.file);
    finder.measured
}

/// Measures functions from `fn` to the closing brace; attributes and docs do not count, comments
/// inside do. Names carry the type or module around them.
struct Functions {
    prefix: String,
    measured: Vec<Measured>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.fn_token.span.start().line;
        let length = block.span().end().line + 1 - line;
        let separator = if self.prefix.contains(' ') { "::" } else { " " };
        let key = format!("{}{separator}{}", self.prefix, signature.ident);
        self.measured.push(Measured { key, line, length, ceiling: FUNCTION });
    }

    fn within(&mut self, name: &str, visit: impl FnOnce(&mut Functions)) {
        let separator = if self.prefix.contains(' ') { "::" } else { " " };
        let inner = format!("{}{separator}{name}", self.prefix);
        let outer = std::mem::replace(&mut self.prefix, inner);
        visit(self);
        self.prefix = outer;
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = if is_for_tests(&item.attrs) { "tests".into() } else { item.ident.to_string() };
        self.within(&name, |inner| visit::visit_item_mod(inner, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
            _ => None,
        };
        let name = name.unwrap_or_else(|| "impl".to_owned());
        self.within(&name, |inner| visit::visit_item_impl(inner, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "crates/x/src/y.rs";

    fn problems(ratchet: &str, lines: usize) -> Vec<String> {
        let body = "    g();\n".repeat(lines - 2);
        let text = format!("impl Y {{\n/// Docs.\n#[inline]\nfn f() {{\n{body}}}\n}}");
        let file = syn::parse_file(&text).unwrap();
        let source = Source { path: PATH.to_owned(), text, file, is_test: false };
        compare(ratchet, &[source]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn functions_have_a_ceiling() {
        assert_eq!(problems("", 70), [""; 0]);
        let told = problems("", 71);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("crates/x/src/y.rs:4: `crates/x/src/y.rs Y::f` has 71 lines"));
    }

    #[test]
    fn files_have_a_ceiling() {
        let ratchet = format!("{PATH} Y::f 897\n");
        assert_eq!(problems(&ratchet, 897).len(), 1, "901 lines");
        let ratchet = format!("{PATH} Y::f 896\n");
        assert_eq!(problems(&ratchet, 896), [""; 0], "900 lines");
    }

    #[test]
    fn the_ratchet_only_shrinks() {
        let ratchet = format!("# comment\n\n{PATH} Y::f 80\n");
        assert_eq!(problems(&ratchet, 80), [""; 0]);
        assert!(problems(&ratchet, 81)[0].contains("grew"));
        assert!(problems(&ratchet, 79)[0].contains("lower it"));
        assert!(problems("gone.rs 1000", 10)[0].contains("drop its line"));
        assert!(problems("nonsense", 10)[0].contains("expected"));
    }
}
