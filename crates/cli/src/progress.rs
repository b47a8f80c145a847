//! Progress on standard error: a bar on a terminal, a plain line now and then elsewhere.

use std::{
    cell::Cell,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, at most one line in this time.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress towards a known number of steps.
pub struct Bar {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    done: Cell<u64>,
    last_line: Cell<Option<Instant>>,
}

impl Bar {
    /// Starts at zero.
    pub fn new(total: u64, what: &str) -> Bar {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:40}] {percent:>3} % {elapsed} {msg}")
                .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
            ProgressBar::new(total).with_style(style).with_prefix(what.to_owned())
        });
        Bar { bar, what: what.to_owned(), total, done: Cell::new(0), last_line: Cell::new(None) }
    }

    /// Says what is going on.
    pub fn say(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None => {
                let due = self.last_line.get().is_none_or(|at| at.elapsed() >= LINE_EVERY);
                if due {
                    self.last_line.set(Some(Instant::now()));
                    let percent = 100 * self.done.get() / self.total.max(1);
                    eprintln!("{}: {percent} %, {message}", self.what);
                }
            }
        }
    }

    /// Some steps are done.
    pub fn advance(&self, steps: u64) {
        self.set(self.done.get() + steps);
    }

    /// So many steps are done.
    pub fn set(&self, steps: u64) {
        self.done.set(steps.min(self.total));
        if let Some(bar) = &self.bar {
            bar.set_position(self.done.get());
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
