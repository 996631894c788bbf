//! The only place that prints.
//!
//! **Invariant:** answers go to standard output, everything else to standard error; colour only on a
//! terminal, and never when `NO_COLOR` is set (<https://no-color.org>).

use std::io::{IsTerminal, Write};

use lifeboat_core::status::Verdict;

use crate::failure::Failure;

/// Colours, by what they mean.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    Good,
    Warn,
    Bad,
    Dim,
    Bold,
}

/// Prints an answer; says whether anyone took it. A reader that went away (`| head`) is no fault.
pub(crate) fn answer(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Prints a value as JSON.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> bool {
    match serde_json::to_string_pretty(value) {
        Ok(text) => answer(&text),
        Err(error) => {
            note(&format!("this cannot be written as JSON: {error}"));
            false
        }
    }
}

/// Prints a remark.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints why a command failed.
pub(crate) fn failure(failure: &Failure) {
    note(&failure.to_string());
}

/// A number of bytes, for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} B"),
    }
}

/// So many of a thing, for people.
pub(crate) fn count(count: u64, thing: &str) -> String {
    let (first, rest) =
        thing.split_once(' ').map_or((thing, String::new()), |(first, rest)| (first, format!(" {rest}")));
    if count == 1 { format!("1 {thing}") } else { format!("{count} {first}s{rest}") }
}

/// One event of a run, for machines: one line of JSON.
pub(crate) fn event<T: serde::Serialize>(value: &T) {
    if let Ok(text) = serde_json::to_string(value) {
        answer(&text);
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Shown {
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t = Way::Auto, value_name = "HOW")]
    progress: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// A bar, on a terminal.
    Auto,
    /// One JSON object a line, on standard output.
    Json,
    /// Not at all.
    None,
}

impl Shown {
    /// Whether each event is printed.
    pub(crate) fn as_events(self) -> bool {
        self.progress == Way::Json
    }
}

/// The progress of something with many bytes.
pub(crate) struct Progress {
    shown: Shown,
    what: String,
    bar: bool,
    last: u64,
}

impl Progress {
    /// For that.
    pub(crate) fn new(shown: Shown, what: &str) -> Self {
        let bar = shown.progress == Way::Auto && std::io::stderr().is_terminal();
        Self { shown, what: what.to_owned(), bar, last: 0 }
    }

    /// How far it is now.
    pub(crate) fn show<T: serde::Serialize>(&mut self, done: u64, total: Option<u64>, event: &T) {
        // A line for each step of a large restore is more than anyone reads.
        if done < self.last + (8 << 20) && done != 0 && total.is_none_or(|total| done < total) {
            return;
        }
        self.last = done;
        if self.shown.as_events() {
            self::event(event);
        }
        if !self.bar {
            return;
        }
        const WIDTH: u64 = 30;
        let line = match total.filter(|total| *total > 0) {
            Some(total) => {
                let part = done.min(total) * WIDTH / total;
                let bar = "#".repeat(usize::try_from(part).unwrap_or_default());
                format!("[{bar:30}] {} of {}", bytes(done), bytes(total))
            }
            None => bytes(done),
        };
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "\r\x1b[K{}: {line}", self.what).and_then(|()| out.flush());
    }

    /// It is over.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.bar) {
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

/// Clears the screen, for `--watch`; nothing when the output is not a terminal.
pub(crate) fn clear() {
    if std::io::stdout().is_terminal() {
        let _ = write!(std::io::stdout().lock(), "\x1b[H\x1b[2J");
    }
}

/// The text in a colour, when the output shows colours.
pub(crate) fn paint(tone: Tone, text: &str) -> String {
    let plain =
        !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if plain {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "1;31",
        Tone::Dim => "2",
        Tone::Bold => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The colour of a verdict.
pub(crate) const fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Healthy => Tone::Good,
        Verdict::Doubtful => Tone::Warn,
        Verdict::Lost => Tone::Bad,
    }
}
