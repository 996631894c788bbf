//! Problems, and how they are shown: rule, message, place, the line with a caret, a hint.
//!
//! **Invariant:** what is shown is bounded whatever was written: [`MOST`] problems, [`WIDTH`] columns a line, no
//! control characters, and never a value that may be a secret in the wrong place.

use std::fmt::{self, Write};
use std::ops::Range;

use crate::form::visible;
use crate::rule::{Rule, Severity};
use crate::source::Source;

/// How many problems are shown at most.
pub const MOST: usize = 50;
/// How many columns of a source line are shown at most.
pub const WIDTH: usize = 160;
/// How many problems are kept at most; the rest is counted.
const KEPT: usize = 1000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The rule that is broken.
    pub rule: Rule,
    /// What is wrong, with names and numbers.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Where, in bytes; nothing when it is about the whole file.
    pub span: Option<Range<usize>>,
}

impl Problem {
    pub(crate) fn whole(rule: Rule, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { rule, message: message.into(), help: help.into(), span: None }
    }
}

/// Problems while they are being found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    list: Vec<Problem>,
    more: usize,
}

impl Found {
    /// Whether no further problem is kept, so that work on hints is wasted.
    pub(crate) fn full(&self) -> bool {
        self.list.len() >= KEPT
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        // An error is never lost for a warning that was there first.
        if !self.full() || problem.rule.severity() == Severity::Error && self.drop_warning() {
            self.list.push(problem);
        } else {
            self.more += 1;
        }
    }

    fn drop_warning(&mut self) -> bool {
        let Some(at) = self.list.iter().rposition(|p| p.rule.severity() == Severity::Warning) else {
            return false;
        };
        self.list.swap_remove(at);
        self.more += 1;
        true
    }

    pub(crate) fn any_error(&self) -> bool {
        self.list.iter().any(|p| p.rule.severity() == Severity::Error)
    }

    pub(crate) fn into_problems(self, source: Source) -> Problems {
        let mut problems = Problems::new(source, self.list);
        problems.more = self.more;
        problems
    }
}

/// All problems of a document, in the order of the text; errors and warnings.
#[derive(Clone, Debug)]
pub struct Problems {
    source: Source,
    list: Vec<Problem>,
    more: usize,
}

impl std::error::Error for Problems {}

impl Problems {
    pub(crate) fn new(source: Source, mut list: Vec<Problem>) -> Self {
        list.sort_by(|a, b| {
            let key = |p: &Problem| (p.span.as_ref().map(|s| s.start), p.rule.severity(), p.rule);
            key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
        });
        list.dedup();
        Self { source, list, more: 0 }
    }

    /// The problems, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are of `severity`. Of a hostile document, only the first thousand are told apart.
    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|p| p.rule.severity() == severity).count()
    }

    /// Line and column of a problem, each from 1.
    pub fn position(&self, problem: &Problem) -> Option<(usize, usize)> {
        let at = self.source.position(problem.span.as_ref()?.start);
        Some((at.line, at.column))
    }

    /// Takes the problems of another look at the same document in.
    pub fn merge(self, other: Self) -> Self {
        let more = self.more + other.more;
        let mut all = Self::new(self.source, self.list.into_iter().chain(other.list).collect());
        all.more = more;
        all
    }

    /// One problem as text: several lines, the last one ended.
    pub fn render(&self, problem: &Problem) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_problem(&mut out, problem);
        out
    }

    fn write_problem(&self, f: &mut impl Write, problem: &Problem) -> fmt::Result {
        writeln!(f, "{}[{}]: {}", problem.rule.severity(), problem.rule, problem.message)?;
        let name = self.source.name.chars().flat_map(visible).collect::<String>();
        let margin = if let Some(span) = &problem.span {
            let at = self.source.position(span.start);
            let number = at.line.to_string();
            let margin = " ".repeat(number.len());
            let (line, carets) = self.excerpt(problem.rule, span);
            writeln!(f, "{margin}--> {name}:{}:{}", at.line, at.column)?;
            writeln!(f, "{margin} |")?;
            writeln!(f, "{number} | {line}")?;
            writeln!(f, "{margin} | {carets}")?;
            margin
        } else {
            writeln!(f, " --> {name}")?;
            " ".to_owned()
        };
        if problem.help.is_empty() { Ok(()) } else { writeln!(f, "{margin} = help: {}", problem.help) }
    }

    /// Whether a problem in the line that begins at `start` is about what may be a secret.
    fn line_hides(&self, start: usize) -> bool {
        let mut hiding = self.list.iter().filter(|p| p.rule.hides_value()).filter_map(|p| p.span.as_ref());
        hiding.any(|span| self.source.line(span.start).0 == start)
    }

    /// The line at fault and the carets under it, cut to [`WIDTH`] columns around the fault.
    fn excerpt(&self, rule: Rule, span: &Range<usize>) -> (String, String) {
        let (start, line) = self.source.line(span.start);
        let from = (span.start - start).min(line.len());
        let to = (span.end.saturating_sub(start)).clamp(from, line.len());
        let (before, fault, after) = (&line[..from], &line[from..to], &line[to..]);
        let (before, fault, after) = if !rule.hides_value() && self.line_hides(start) {
            // Another problem says that a value of this line may be a secret: only what is at fault here is shown.
            ("… ", fault, " …")
        } else if rule.hides_value() {
            let hidden = if rule == Rule::UnknownKey { fault } else { "…" };
            (hide(before, rule), hidden, if after.trim().is_empty() { "" } else { " …" })
        } else {
            (before, fault, after)
        };
        let fault_width = drawn(fault, WIDTH).chars().count().max(1);
        // Room for the fault first, then what stands before it, then what follows.
        let room = WIDTH - fault_width.min(WIDTH);
        let before = drawn_end(before, room.min(WIDTH * 2 / 3));
        let left = room - before.chars().count().min(room);
        let (fault, after) = (drawn(fault, WIDTH), drawn(after, left));
        let carets = " ".repeat(before.chars().count()) + &"^".repeat(fault_width);
        (format!("{before}{fault}{after}").trim_end().to_owned(), carets)
    }
}

/// What stands before a value that may be a secret: the key and the sign, unless other values stand there too.
fn hide(before: &str, rule: Rule) -> &str {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '\t' | '_' | '-' | '.' | '[');
    let key = before.trim_end().strip_suffix('=').filter(|_| rule != Rule::UnknownKey).unwrap_or(before);
    if key.chars().all(plain) { before } else { "… " }
}

/// The beginning of `text` as it is drawn, at most `most` columns.
fn drawn(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most + 1).flat_map(draw).take(most + 1).collect();
    if out.chars().count() > most {
        out = out.chars().take(most.saturating_sub(1)).collect();
        if most > 0 {
            out.push('…');
        }
    }
    out
}

/// The end of `text` as it is drawn, at most `most` columns.
fn drawn_end(text: &str, most: usize) -> String {
    let tail: Vec<char> = text.chars().rev().take(most + 1).collect();
    let mut out: Vec<char> = tail.into_iter().rev().flat_map(draw).collect();
    if out.len() > most {
        out = out.split_off(out.len() - most.saturating_sub(1));
        if most > 0 {
            out.insert(0, '…');
        }
    }
    out.into_iter().collect()
}

/// A character of a source line; a tab is one space, so that carets stand where they should.
fn draw(c: char) -> impl Iterator<Item = char> {
    visible(if c == '\t' { ' ' } else { c })
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Errors first, when not all can be shown.
        let crowded = self.list.len() > MOST;
        let (errors, warnings): (Vec<_>, Vec<_>) =
            self.list.iter().partition(|p| p.rule.severity() == Severity::Error);
        let shown: Vec<_> =
            if crowded { errors.into_iter().chain(warnings).collect() } else { self.list.iter().collect() };
        for problem in shown.iter().take(MOST) {
            f.write_str(&self.render(problem))?;
            f.write_str("\n")?;
        }
        let hidden = self.list.len().saturating_sub(MOST) + self.more;
        if hidden > 0 {
            writeln!(f, "… and {hidden} more")?;
        }
        if self.list.is_empty() {
            return Ok(());
        }
        let count = |severity| {
            let n = self.count(severity);
            format!("{n} {severity}{}", if n == 1 { "" } else { "s" })
        };
        let at_least = if self.more > 0 { "at least " } else { "" };
        let name = self.source.name.chars().flat_map(visible).collect::<String>();
        writeln!(f, "{name}: {at_least}{}, {}", count(Severity::Error), count(Severity::Warning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, rule: Rule, span: Range<usize>) -> String {
        let problem = Problem { rule, message: "m".into(), help: "h".into(), span: Some(span) };
        let problems = Problems::new(Source::new("f.toml", text), vec![problem.clone()]);
        problems.render(&problem)
    }

    #[test]
    fn a_line_with_its_caret() {
        let text = shown("a = 1\n\tkey = 5 # x\n", Rule::OutOfRange, 13..14);
        assert_eq!(
            text,
            "error[out-of-range]: m\n --> f.toml:2:8\n  |\n2 |  key = 5 # x\n  |        ^\n  = help: h\n"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{} bad {}", "x".repeat(5000), "y".repeat(5000));
        let shown = shown(&text, Rule::OutOfRange, 5001..5004);
        let (line, carets) = (shown.lines().nth(3).unwrap(), shown.lines().nth(4).unwrap());
        assert!(line.chars().count() <= WIDTH + 4, "{line}");
        let at = carets.find('^').unwrap();
        assert_eq!(line.chars().skip(at).take(3).collect::<String>(), "bad");
        assert!(line.starts_with("1 | …x") && line.ends_with("y…"), "{line}");
    }

    #[test]
    fn nothing_reaches_the_terminal_as_control() {
        let text = shown("a = \"\u{1b}[2J\u{202e}x\"", Rule::OutOfRange, 4..13);
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert!(text.contains("\\u{1b}[2J\\u{202e}"), "{text}");
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let text = shown("password_file = \"hunter2\" # hunter2", Rule::RelativePath, 16..25);
        assert!(text.contains("1 | password_file = … …\n") && !text.contains("hunter2"), "{text}");
        let text = shown("password = \"hunter2\"", Rule::UnknownKey, 0..8);
        assert!(text.contains("1 | password …\n") && !text.contains("hunter2"), "{text}");
        let text = shown("a = { password = \"hunter2\", x = 1 }", Rule::UnknownKey, 28..29);
        assert!(text.contains("1 | … x …\n") && !text.contains("hunter2"), "{text}");
    }
}
