//! `unsafe` sits inside its fences, every crate says so itself, and every file introduces itself.

use super::Problem;
use super::clocks::attributes;
use super::source::Source;
use proc_macro2::{TokenStream, TokenTree};
use std::str::FromStr;
use syn::{Attribute, Meta};

/// Where `unsafe` may stand: folders (with a slash) and files.
const FENCES: [&str; 3] = ["crates/sockbuf/", "crates/kevent/", "crates/stack/src/sys.rs"];
/// Crates with a fence inside cannot forbid; they deny, and the fence allows.
const DENYING: [&str; 1] = ["crates/stack"];

pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources {
        check_introduction(source, &mut problems);
        if FENCES.iter().any(|fence| source.path.starts_with(fence)) {
            continue;
        }
        check_no_unsafe(source, &mut problems);
        check_root(source, &mut problems);
    }
    problems
}

fn check_introduction(source: &Source, problems: &mut Vec<Problem>) {
    if !source.text.starts_with("//!") {
        let what = "the file must open with `//!`: what it is, what it is not";
        problems.push(Problem::new(&source.path, what));
    }
}

/// Comments and strings are no tokens, so the word itself is enough; macros are included.
fn check_no_unsafe(source: &Source, problems: &mut Vec<Problem>) {
    let Ok(tokens) = TokenStream::from_str(&source.text) else { return };
    let mut lines = Vec::new();
    unsafe_in(tokens, &mut lines);
    for line in lines {
        let what = format!("`unsafe` outside its fences ({})", FENCES.join(", "));
        problems.push(Problem::new(format!("{}:{line}", source.path), what));
    }
}

fn unsafe_in(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => lines.push(word.span().start().line),
            TokenTree::Group(group) => unsafe_in(group.stream(), lines),
            _ => {}
        }
    }
}

/// The root of a crate forbids unsafe code, so that the compiler keeps the fence as well.
fn check_root(source: &Source, problems: &mut Vec<Problem>) {
    let folder = source.crate_folder();
    let is_root = ["lib", "main"].iter().any(|n| source.path == format!("{folder}/src/{n}.rs"));
    if !is_root {
        return;
    }
    let level = if DENYING.contains(&folder) { "deny" } else { "forbid" };
    if !says(&source.file.attrs, level) {
        let what = format!("the crate must say `#![{level}(unsafe_code)]`");
        problems.push(Problem::new(&source.path, what));
    }
    // Elsewhere a lower level would be refused by `forbid`; under `deny` only the fence may.
    for item in &source.file.items {
        let syn::Item::Mod(module) = item else { continue };
        let fence = format!("{folder}/src/{}.rs", module.ident);
        if says(attributes(item), "allow") && !FENCES.contains(&fence.as_str()) {
            let what = format!("module `{}` allows unsafe code but is no fence", module.ident);
            problems.push(Problem::new(&source.path, what));
        }
    }
}

fn says(attributes: &[Attribute], level: &str) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident(level) => {
            let mut lints = list.tokens.clone().into_iter();
            lints.any(|token| matches!(token, TokenTree::Ident(lint) if lint == "unsafe_code"))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let file = syn::parse_file(text).unwrap();
        let source = Source { path: path.to_owned(), text: text.to_owned(), file, is_test: false };
        check(&[source]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unsafe_is_found_outside_its_fences_only() {
        let code = "//! x\nfn f() { unsafe { g() } }";
        assert_eq!(problems("crates/homa/src/x.rs", code).len(), 1);
        assert_eq!(problems("crates/stack/src/shard.rs", code).len(), 1);
        assert_eq!(problems("crates/stack/src/sys.rs", code), [""; 0]);
        assert_eq!(problems("crates/sockbuf/src/pool.rs", code), [""; 0]);
        let hidden = "//! x\nmacro_rules! m { () => { unsafe { g() } } }";
        assert_eq!(problems("crates/homa/src/x.rs", hidden).len(), 1);
        let word = "//! x\n// unsafe\nfn f() { let s = \"unsafe\"; }";
        assert_eq!(problems("crates/homa/src/x.rs", word), [""; 0]);
    }

    #[test]
    fn roots_must_forbid() {
        let code = "//! x\n#![forbid(unsafe_code)]";
        assert_eq!(problems("crates/wire/src/lib.rs", code), [""; 0]);
        assert_eq!(problems("crates/wire/src/lib.rs", "//! x").len(), 1);
        assert_eq!(problems("crates/stack/src/lib.rs", code).len(), 1);
        let code = "//! x\n#![deny(unsafe_code)]\n#[allow(unsafe_code)] mod sys;";
        assert_eq!(problems("crates/stack/src/lib.rs", code), [""; 0]);
        let code = "//! x\n#![deny(unsafe_code)]\n#[allow(unsafe_code)] mod shard;";
        assert_eq!(problems("crates/stack/src/lib.rs", code).len(), 1);
    }
}
