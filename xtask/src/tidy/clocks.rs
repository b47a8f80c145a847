//! Pure crates see no clock, socket, thread, file or entropy: their `std` paths are checked.
//!
//! Clippy's `disallowed-types` says the same to whoever runs it; this check needs no build and
//! also reads what macros hide.

use super::Problem;
use super::source::{Source, is_for_tests};
use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{ItemUse, Macro, UseTree};

const PURE: [&str; 4] = ["crates/wire", "crates/sansio", "crates/homa", "crates/kcm"];

/// Paths that a pure crate must not name, and what to use instead. A `use` of a module on the way
/// to one (`use std::time`) or of all in it counts as well.
const FORBIDDEN: [(&str, &str); 15] = [
    ("std::time::Instant", "the caller passes peyk_sansio::Instant"),
    ("std::time::SystemTime", "the caller passes the time"),
    ("std::thread", "a pure crate has no threads"),
    ("std::net::TcpListener", "the driver has the sockets"),
    ("std::net::TcpStream", "the driver has the sockets"),
    ("std::net::UdpSocket", "the driver has the sockets"),
    ("std::net::ToSocketAddrs", "it may ask a name server"),
    ("std::os", "a pure crate knows no operating system"),
    ("std::fs", "the caller opens files"),
    ("std::process", "a pure crate knows no processes"),
    ("std::env", "configuration comes as a value"),
    ("std::collections::HashMap", "its order is random; use hashbrown with a fixed hasher"),
    ("std::collections::HashSet", "its order is random; use hashbrown with a fixed hasher"),
    ("std::hash::RandomState", "it takes entropy from the operating system"),
    ("std::collections::hash_map", "its order is random; use hashbrown with a fixed hasher"),
];

pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources {
        if source.is_test || !PURE.contains(&source.crate_folder()) {
            continue;
        }
        let mut finder = Finder { path: &source.path, problems: &mut problems };
        finder.visit_file(&source.file);
    }
    problems
}

struct Finder<'a> {
    path: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Finder<'_> {
    fn found(&mut self, line: usize, path: &str) {
        for (forbidden, instead) in FORBIDDEN {
            if starts_with(path, forbidden) {
                let what = format!("a pure crate must not use `{path}`: {instead}");
                self.problems.push(Problem::new(format!("{}:{line}", self.path), what));
            }
        }
    }

    fn imported(&mut self, line: usize, tree: &UseTree, prefix: &str) {
        let join = |name: &syn::Ident| match prefix {
            "" => name.to_string(),
            _ => format!("{prefix}::{name}"),
        };
        match tree {
            UseTree::Path(path) => self.imported(line, &path.tree, &join(&path.ident)),
            UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.imported(line, item, prefix));
            }
            UseTree::Name(name) if name.ident == "self" => self.module(line, prefix),
            UseTree::Name(name) => self.module(line, &join(&name.ident)),
            UseTree::Rename(rename) => self.module(line, &join(&rename.ident)),
            UseTree::Glob(_) => self.module(line, prefix),
        }
    }

    /// A name brought into scope: itself forbidden, or a door to something forbidden.
    fn module(&mut self, line: usize, path: &str) {
        self.found(line, path);
        if FORBIDDEN.iter().any(|(forbidden, _)| is_door(path, forbidden)) {
            let what = format!("import the names, not all of `{path}`: some of it is forbidden");
            self.problems.push(Problem::new(format!("{}:{line}", self.path), what));
        }
    }
}

/// Whether `path` is `prefix` or something in it; `core` and `alloc` have nothing forbidden.
fn starts_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn is_door(path: &str, forbidden: &str) -> bool {
    path != forbidden && path != "std::collections" && starts_with(forbidden, path)
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.imported(item.span().start().line, &item.tree, "");
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.found(path.span().start().line, &segments.join("::"));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        let mut paths = Vec::new();
        paths_in(invocation.tokens.clone(), &mut paths);
        for (line, path) in paths {
            self.found(line, &path);
        }
    }
}

/// The `a::b::c` in the tokens of a macro, with their lines.
fn paths_in(tokens: TokenStream, paths: &mut Vec<(usize, String)>) {
    let mut current: Option<(usize, String)> = None;
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(word) => match &mut current {
                Some((_, path)) if colons == 2 => *path = format!("{path}::{word}"),
                _ => {
                    paths.extend(current.take());
                    current = Some((word.span().start().line, word.to_string()));
                }
            },
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => {
                paths.extend(current.take());
                paths_in(group.stream(), paths);
            }
            _ => paths.extend(current.take()),
        }
        colons = 0;
    }
    paths.extend(current);
}

pub(super) fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item;
    match item {
        Item::Const(x) => &x.attrs,
        Item::Enum(x) => &x.attrs,
        Item::Fn(x) => &x.attrs,
        Item::Impl(x) => &x.attrs,
        Item::Macro(x) => &x.attrs,
        Item::Mod(x) => &x.attrs,
        Item::Static(x) => &x.attrs,
        Item::Struct(x) => &x.attrs,
        Item::Trait(x) => &x.attrs,
        Item::Type(x) => &x.attrs,
        Item::Use(x) => &x.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(code: &str) -> Vec<String> {
        let file = syn::parse_file(code).unwrap();
        let path = "crates/homa/src/x.rs".to_owned();
        let source = Source { path, text: code.to_owned(), file, is_test: false };
        check(&[source]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn clocks_sockets_and_threads_are_found() {
        for code in [
            "use std::time::Instant;",
            "use std::{time::{Duration, SystemTime as Now}};",
            "use std::time::*;",
            "use std::net;",
            "use std::thread::sleep;",
            "fn f() { std::thread::yield_now(); }",
            "fn f() -> std::time::Instant { x }",
            "fn f() { println!(\"{:?}\", std::time::Instant::now()); }",
            "use std::collections::HashMap;",
            "use std::*;",
        ] {
            assert!(!problems(code).is_empty(), "{code}");
        }
    }

    #[test]
    fn harmless_names_pass() {
        for code in [
            "use std::time::Duration; use peyk_sansio::Instant;",
            "use std::net::{IpAddr, SocketAddr};",
            "use std::collections::{self, VecDeque};",
            "#[cfg(test)] mod tests { use std::time::Instant; }",
            "// std::thread::sleep\n/// std::fs::read\nfn f() { let s = \"std::thread\"; }",
            "fn thread() { self::thread(); }",
        ] {
            assert_eq!(problems(code), [""; 0], "{code}");
        }
    }
}
