//! The view on a terminal: a table that is drawn anew with every sample, until somebody presses q.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Style, Stylize as _},
    text::Line,
    widgets::{Cell, Row as TableRow, Table},
};

use super::{
    rows::rows,
    sample::{self, Sample},
    title,
};

const TITLE_WIDTH: u16 = 34;
const COLUMN_WIDTH: u16 = 11;

/// What is on the screen.
struct Screen {
    before: Sample,
    now: Sample,
    /// The first shard shown, and the first row.
    first: (usize, usize),
    /// Why there was no new sample, if so.
    trouble: Option<String>,
}

/// Shows the stack at `path` until told to end.
pub fn run(path: &Path, interval: Duration) -> Result<()> {
    // Before the screen changes: who is not there is said in plain text.
    let now = sample::read(path)?;
    let mut screen = Screen { before: now.clone(), now, first: (0, 0), trouble: None };
    let mut terminal = ratatui::init();
    let result = watch(&mut terminal, &mut screen, path, interval);
    ratatui::restore();
    result
}

fn watch(terminal: &mut DefaultTerminal, screen: &mut Screen, path: &Path, interval: Duration) -> Result<()> {
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        while event::poll(next.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let is_interrupt =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(());
                }
                screen.scroll(key.code);
            }
            terminal.draw(|frame| screen.draw(frame))?;
        }
        next += interval;
        next = next.max(Instant::now());
        match sample::read(path) {
            Ok(now) => {
                screen.before = std::mem::replace(&mut screen.now, now);
                screen.trouble = None;
            }
            Err(error) => screen.trouble = Some(format!("{error:#}")),
        }
    }
}

impl Screen {
    fn scroll(&mut self, key: KeyCode) {
        let (shard, row) = &mut self.first;
        match key {
            KeyCode::Left => *shard = shard.saturating_sub(1),
            KeyCode::Right => *shard = (*shard + 1).min(self.now.shards.len().saturating_sub(1)),
            KeyCode::Up => *row = row.saturating_sub(1),
            KeyCode::Down => *row = (*row + 1).min(rows(&self.now).len().saturating_sub(1)),
            _ => {}
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let [top, middle, bottom] =
            Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Line::from(title(&self.now)).bold(), top);
        let fits = middle.width.saturating_sub(TITLE_WIDTH + COLUMN_WIDTH) / (COLUMN_WIDTH + 1);
        let count = self.now.shards.len();
        let shown = self.first.0..(self.first.0 + usize::from(fits)).min(count);
        let right = |text: String| Cell::from(Line::from(text).right_aligned());
        let header = shown.clone().map(|at| right(format!("shard {}", self.now.shards[at].number)));
        let header = [Cell::from(""), right("all".to_owned())].into_iter().chain(header);
        let body = rows(&self.now).into_iter().skip(self.first.1).map(|row| {
            let cells = shown.clone().map(|at| right(row.value(&self.before, &self.now, Some(at))));
            let all = right(row.value(&self.before, &self.now, None)).bold();
            TableRow::new([Cell::from(row.title), all].into_iter().chain(cells))
        });
        let widths = [TITLE_WIDTH, COLUMN_WIDTH].into_iter().chain(shown.clone().map(|_| COLUMN_WIDTH));
        let table = Table::new(body, widths.map(Constraint::Length))
            .header(TableRow::new(header).style(Style::new().underlined()));
        frame.render_widget(table, middle);
        let hidden =
            if shown.len() < count { format!("  {} of {count} shards", shown.len()) } else { String::new() };
        let foot = match &self.trouble {
            Some(trouble) => Line::from(trouble.clone()).red(),
            None => Line::from(format!("q ends  arrows move{hidden}")).dim(),
        };
        frame.render_widget(foot, bottom);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    fn sample(requests: u64, shards: usize) -> Sample {
        let mut text = String::from("# TYPE peyk_homa_requests_received_total counter\n");
        for shard in 0..shards {
            text += &format!("peyk_homa_requests_received_total{{shard=\"{shard}\"}} {requests}\n");
        }
        sample::parse(&text, Instant::now()).unwrap()
    }

    fn drawn(screen: &Screen, width: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, 8)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn draw_shows_shards_that_fit_and_scrolls_to_the_others() {
        let mut screen = Screen { before: sample(0, 8), now: sample(0, 8), first: (0, 0), trouble: None };
        let text = drawn(&screen, 80);
        assert!(text.contains("shard 0") && text.contains("shard 1") && !text.contains("shard 7"), "{text}");
        assert!(text.contains("of 8 shards") && text.contains("requests received /s"), "{text}");
        (0..20).for_each(|_| screen.scroll(KeyCode::Right));
        let text = drawn(&screen, 80);
        assert!(text.contains("shard 7") && !text.contains("shard 0"), "{text}");
        screen.trouble = Some("gone".to_owned());
        assert!(drawn(&screen, 80).contains("gone"));
        drawn(&screen, 1);
    }
}
