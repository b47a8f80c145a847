//! No locks, and no cache line that several threads write, where messages pass: in what shards,
//! protocols and rings are made of. The few places off that path are named with their reason.

use super::Problem;
use super::source::Source;
use proc_macro2::{TokenStream, TokenTree};
use std::str::FromStr;

/// Crates that messages pass through.
const CRATES: [&str; 5] =
    ["crates/wire/", "crates/sansio/", "crates/sockbuf/", "crates/homa/", "crates/stack/"];
/// What makes a thread wait for another.
const WAITING: [&str; 6] = ["Mutex", "RwLock", "Condvar", "Barrier", "OnceLock", "LazyLock"];
/// Read-modify-write operations: what is written so is written by several threads.
const CONTENDED: [&str; 9] = [
    "fetch_add",
    "fetch_sub",
    "fetch_or",
    "fetch_and",
    "fetch_xor",
    "fetch_update",
    "compare_exchange",
    "compare_exchange_weak",
    "swap",
];

/// Not shards: a multiplexor that many threads enter, with one lock, as decision 11 says.
const ASIDE: &str = "crates/stack/src/kcm/";

/// Files that may wait, and why that is not where messages pass.
const MAY_WAIT: [(&str, &str); 5] = [
    ("crates/sockbuf/src/sync.rs", "names the primitives, loom's or the real ones"),
    ("crates/sockbuf/src/waiters.rs", "locked only to go to sleep, and to wake one who sleeps"),
    ("crates/stack/src/app/shared.rs", "submissions from `drop` that found the ring full"),
    ("crates/stack/src/stack.rs", "opening sockets and stopping: application threads only"),
    ("crates/stack/src/driver/memory.rs", "a driver for tests"),
];

/// Files with words that several threads write, and how often they do.
const MAY_SHARE: [(&str, &str); 10] = [
    ("crates/sockbuf/src/region.rs", "page counts: once per message, by who drops it last"),
    ("crates/sockbuf/src/ring.rs", "tickets: applications' threads to a shard, and back"),
    ("crates/sockbuf/src/doorbell.rs", "clearing the flag of a sleeper, once per sleep"),
    ("crates/sockbuf/src/sleep.rs", "the same"),
    ("crates/sockbuf/src/oneshot.rs", "once for each of its two ends"),
    ("crates/sockbuf/src/ready.rs", "once when a queue becomes, or ceases to be, empty"),
    ("crates/stack/src/app/shared.rs", "the end of a socket, once"),
    ("crates/stack/src/stack.rs", "numbers of stacks and threads"),
    ("crates/stack/src/socket.rs", "keys of calls: threads that share one handle"),
    ("crates/stack/src/socket/call.rs", "the same"),
];

pub(super) fn check(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| is_on_the_path(source)) {
        let Ok(tokens) = TokenStream::from_str(&source.text) else { continue };
        let allows = |list: &[(&str, &str)]| list.iter().any(|(path, _)| source.path == *path);
        let waits = (!allows(&MAY_WAIT)).then_some((&WAITING[..], "makes a thread wait for another"));
        let shares =
            (!allows(&MAY_SHARE)).then_some((&CONTENDED[..], "is for words that several threads write"));
        for (words, what) in waits.into_iter().chain(shares) {
            let mut found = Vec::new();
            find(tokens.clone(), words, &mut found);
            for (word, line) in found {
                let what = format!("`{word}` {what}; where messages pass, every word has one writer");
                problems.push(Problem::new(format!("{}:{line}", source.path), what));
            }
        }
    }
    problems
}

fn is_on_the_path(source: &Source) -> bool {
    let is_source = source.path.contains("/src/") && !source.is_test && !source.path.contains("/tests");
    let is_aside = source.path.starts_with(ASIDE);
    is_source && !is_aside && CRATES.iter().any(|folder| source.path.starts_with(folder))
}

/// Words of the code; `swap` counts only with a memory order, for slices have one too.
fn find(tokens: TokenStream, words: &[&str], found: &mut Vec<(String, usize)>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) => {
                let name = word.to_string();
                let is_atomic = |token: Option<&TokenTree>| match token {
                    Some(TokenTree::Group(group)) => group.stream().to_string().contains("Ordering"),
                    _ => false,
                };
                if words.contains(&name.as_str()) && (name != "swap" || is_atomic(tokens.peek())) {
                    found.push((name, word.span().start().line));
                }
            }
            TokenTree::Group(group) => find(group.stream(), words, found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> usize {
        let file = syn::parse_file(text).unwrap();
        check(&[Source { path: path.to_owned(), text: text.to_owned(), file, is_test: false }]).len()
    }

    #[test]
    fn locks_are_found_where_messages_pass() {
        let lock = "//! x\nfn f() { let m = std::sync::Mutex::new(1); }";
        assert_eq!(problems("crates/stack/src/shard.rs", lock), 1);
        assert_eq!(problems("crates/stack/src/stack.rs", lock), 0);
        assert_eq!(problems("crates/cli/src/x.rs", lock), 0);
        assert_eq!(problems("crates/homa/src/x.rs", "//! x\n// Mutex\nfn f() {}"), 0);
    }

    #[test]
    fn contended_words_are_found_where_messages_pass() {
        let add = "//! x\nfn f(a: &AtomicU64) { a.fetch_add(1, Ordering::Relaxed); }";
        assert_eq!(problems("crates/stack/src/mesh.rs", add), 1);
        assert_eq!(problems("crates/sockbuf/src/ring.rs", add), 0);
        assert_eq!(problems("crates/homa/src/x.rs", "//! x\nfn f(v: &mut [u8]) { v.swap(0, 1); }"), 0);
        let swap = "//! x\nfn f(a: &AtomicU64) { a.swap(1, Ordering::Relaxed); }";
        assert_eq!(problems("crates/homa/src/x.rs", swap), 1);
    }
}
