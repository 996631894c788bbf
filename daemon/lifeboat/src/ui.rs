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
