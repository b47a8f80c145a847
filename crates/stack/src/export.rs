//! Counters of a running stack for whoever watches it from outside: a Unix socket that gives everyone who
//! connects the present numbers as text, in the exposition format of Prometheus. Not a metrics server: no
//! HTTP, no history, no rates (`peyk stat` makes these).
//!
//! Each shard writes its numbers into a place of its own, in its own turn and at most ten times a second; a
//! thread of the export reads them when somebody asks. So nobody who reads disturbs a shard, however often.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use peyk_sansio::Instant;
use peyk_sockbuf::snapshot::{Publisher, View, snapshot};

use crate::app::Submission;
use crate::error::Error;
use crate::socket::ask;
use crate::stack::Stack;
use crate::stats::{Name, StackStats};

/// Time between two publications of a shard that has something new.
const EVERY: Duration = Duration::from_millis(100);
/// How often a place is looked at that is being written, before it is left out.
const LOOKS: usize = 1000;
/// How long one who connected may take to read.
const PATIENCE: Duration = Duration::from_secs(1);

/// The shard's side: where its numbers go, and when.
#[derive(Default)]
pub(crate) struct Exports {
    to: Vec<Publisher>,
    /// When that last happened, if ever.
    published: Option<Instant>,
    /// Something has happened since.
    is_stale: bool,
    numbers: Vec<u64>,
}

impl Exports {
    /// One more place.
    pub fn add(&mut self, publisher: Publisher) {
        self.to.push(publisher);
        (self.published, self.is_stale) = (None, true);
    }

    /// Something happened that numbers may tell of.
    #[inline]
    pub fn touch(&mut self) {
        self.is_stale = true;
    }

    /// When to publish, if there is somebody to publish for and something new.
    #[inline]
    pub fn due(&self) -> Option<Instant> {
        (self.is_stale && !self.to.is_empty())
            .then(|| self.published.map_or(Instant::ZERO, |published| published + EVERY))
    }

    /// Publishes, and forgets those who do not read any more.
    pub fn publish(&mut self, now: Instant, stats: &StackStats) {
        self.to.retain(|publisher| !publisher.is_abandoned());
        let numbers = &mut self.numbers;
        numbers.clear();
        numbers.push(now.as_nanos());
        stats.each(|_, number| numbers.push(number));
        self.to.iter_mut().for_each(|publisher| publisher.publish(numbers));
        (self.published, self.is_stale) = (Some(now), false);
    }
}

/// Counters that go out by a Unix socket; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "it ends when this is dropped"]
pub struct Exporting {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stack {
    /// Gives the counters of each shard to everyone who connects to a Unix socket at `path`, which only
    /// this user can; `peyk stat` is made for it. The text is that of Prometheus' exposition format.
    ///
    /// # Errors
    /// The socket cannot be made, or is in use; the stack has stopped, or this is a shard's own thread.
    pub fn export(&self, path: impl Into<PathBuf>) -> io::Result<Exporting> {
        let path = path.into();
        let listener = listen(&path)?;
        let mut source = Source { names: names(), info: info(self), views: Vec::new() };
        for shared in self.shards() {
            let (publisher, view) = snapshot(source.names.len() + 1);
            source.views.push(view);
            ask(shared, |done| Submission::Export { publisher, done })
                .map_err(|e| io::Error::from(Error::from(e)))
                .inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let thread = std::thread::Builder::new().name("peyk-export".into());
        let thread = thread.spawn(move || serve(&listener, &source, &until))?;
        Ok(Exporting { path, is_over, thread: Some(thread) })
    }
}

impl Exporting {
    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // It waits for somebody to connect.
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take()
            && woken
        {
            let _ = thread.join();
        }
    }
}

/// A socket at `path`; one that its owner left behind is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// What the thread of an export reads.
struct Source {
    names: Vec<Name>,
    info: String,
    views: Vec<View>,
}

fn serve(listener: &UnixListener, source: &Source, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((mut reader, _)) => {
                // One who does not read, or is gone, is left; the next one shall not wait for him.
                let _ = reader
                    .set_write_timeout(Some(PATIENCE))
                    .and_then(|()| reader.write_all(source.text().as_bytes()));
            }
            // No file descriptors are left, say: that may pass.
            Err(_) => std::thread::sleep(EVERY),
        }
    }
}

impl Source {
    /// The present numbers. A shard whose numbers cannot be had at this moment is left out.
    fn text(&self) -> String {
        let shards: Vec<Option<Vec<u64>>> = self.views.iter().map(latest).collect();
        let mut text = format!("# TYPE peyk_info gauge\n{}\n", self.info);
        let mut rows = |name: &str, kind: &str, value: &dyn Fn(&[u64]) -> String| {
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (shard, numbers) in shards.iter().enumerate() {
                if let Some(numbers) = numbers {
                    let _ = writeln!(text, "{name}{{shard=\"{shard}\"}} {}", value(numbers));
                }
            }
        };
        rows("peyk_published_seconds", "gauge", &|numbers| format!("{:.9}", numbers[0] as f64 / 1e9));
        for (at, name) in self.names.iter().enumerate() {
            let kind = if name.is_gauge { "gauge" } else { "counter" };
            rows(&name.to_string(), kind, &|numbers| numbers[at + 1].to_string());
        }
        text
    }
}

fn latest(view: &View) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    (0..LOOKS).find_map(|_| {
        let version = view.read(&mut numbers);
        if version.is_none() {
            std::thread::yield_now();
        }
        version.filter(|&version| version > 0)
    })?;
    Some(numbers)
}

fn names() -> Vec<Name> {
    let mut names = Vec::new();
    StackStats::default().each(|name, _| names.push(name));
    names
}

/// Who this is, as a number that is always 1.
fn info(stack: &Stack) -> String {
    let escaped = |text: String| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
    let (version, pid, caps) = (env!("CARGO_PKG_VERSION"), std::process::id(), stack.caps().to_string());
    let shards = stack.shard_count();
    format!(
        "peyk_info{{version=\"{version}\",pid=\"{pid}\",shards=\"{shards}\",uses=\"{}\"}} 1",
        escaped(caps)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    use crate::config::Config;

    fn read(path: &Path) -> String {
        let mut text = String::new();
        UnixStream::connect(path).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn stack(shards: usize) -> Stack {
        Stack::start(Config::default().with_udp_port(0).with_shards(shards)).unwrap()
    }

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("peyk-{name}-{}.sock", std::process::id()))
    }

    #[test]
    fn export__gives_the_numbers_of_each_shard() {
        let (stack, path) = (stack(2), path("export"));
        let exporting = stack.export(&path).unwrap();
        let text = read(exporting.path());
        for shard in ["0", "1"] {
            for name in
                ["shard_turns_total", "homa_requests_received_total", "usage_free_pages", "app_sockets"]
            {
                assert!(text.contains(&format!("\npeyk_{name}{{shard=\"{shard}\"}} ")), "{name}: {text}");
            }
        }
        assert!(text.contains("# TYPE peyk_homa_sent_data_total counter\n"), "{text}");
        drop(exporting);
        assert!(!path.exists());
    }

    #[test]
    fn export__what_happened_last_is_told_though_the_shard_sleeps() {
        let (stack, path) = (stack(1), path("export-last"));
        let _exporting = stack.export(&path).unwrap();
        let socket = crate::Socket::open(&stack).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while !read(&path).contains("\npeyk_app_sockets{shard=\"0\"} 1\n") {
            assert!(std::time::Instant::now() < until, "{}", read(&path));
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(socket);
    }

    #[test]
    fn export__one_place_one_stack() {
        let (stack, path) = (stack(1), path("export-one"));
        let first = stack.export(&path).unwrap();
        assert_eq!(stack.export(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        // Left behind by one that was killed.
        drop(UnixListener::bind(&path).unwrap());
        let again = stack.export(&path).unwrap();
        drop(again);
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(stack.export(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_file(&path).unwrap();
        stack.stop();
        assert!(stack.export(&path).is_err());
        assert!(!path.exists());
    }
}
