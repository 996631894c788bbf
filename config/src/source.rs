//! The text of a document, with its lines: floor one.
//!
//! **Invariant:** no more than [`LIMIT`] bytes are ever read, whatever the path leads to.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use crate::problem::{Problem, Problems};
use crate::rule::Rule;

/// The largest document, in bytes: a thousand workloads fit. The worst document of this size that we know of (tables
/// nested by dotted keys) takes 0.5 GB while it is refused, an ordinary one a few megabytes.
pub const LIMIT: u64 = 1 << 20;

/// A document's text and where its lines begin.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    starts: Vec<usize>,
}

/// A place in the text: line and column from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Source {
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, starts }
    }

    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let failed = |rule, message: String, help: &str| {
            Err(Problems::new(Self::new(name.clone(), ""), vec![Problem::whole(rule, message, help)]))
        };
        let unreadable = |error: std::io::Error| {
            let help = "name the file with --config; the user of the daemon must be able to read it";
            failed(Rule::FileUnreadable, format!("the configuration cannot be read: {error}"), help)
        };
        // Before it is opened: opening a pipe would wait for a writer.
        let kind = match path.metadata() {
            Ok(metadata) => metadata.file_type(),
            Err(error) => return unreadable(error),
        };
        if !kind.is_file() {
            let what = if kind.is_dir() { "a folder" } else { "a pipe, a socket or a device" };
            let help = "name the file itself, for example /etc/lifeboat/lifeboat.toml";
            return failed(
                Rule::FileNotRegular,
                format!("the configuration must be a file, this is {what}"),
                help,
            );
        }
        let mut bytes = Vec::new();
        if let Err(error) = File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes)) {
            return unreadable(error);
        }
        if bytes.len() as u64 > LIMIT {
            let message = format!("the configuration is larger than {LIMIT} bytes");
            return failed(Rule::FileTooLarge, message, "is it the right file?");
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, text)),
            Err(error) => {
                let (at, line) = bad_byte(error.as_bytes(), error.utf8_error().valid_up_to());
                let message =
                    format!("the configuration is not UTF-8: byte {at} (line {line}) begins no character");
                failed(Rule::FileNotUtf8, message, "save it as UTF-8, without a byte order mark")
            }
        }
    }

    /// The line of `offset`, from 0.
    fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Where `offset` is.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let line = self.line_of(offset);
        let start = self.starts[line];
        let before = self.text.get(start..offset).unwrap_or_default();
        Position { line: line + 1, column: before.chars().count() + 1 }
    }

    /// The line that holds `offset`, without its end, and where it begins.
    pub(crate) fn line(&self, offset: usize) -> (usize, &str) {
        let line = self.line_of(offset);
        let range = self.line_range(line);
        (range.start, self.text[range].trim_end_matches(['\n', '\r']))
    }

    fn line_range(&self, line: usize) -> Range<usize> {
        let end = self.starts.get(line + 1).copied().unwrap_or(self.text.len());
        self.starts[line]..end
    }
}

/// A byte's number from 1 and its line.
fn bad_byte(bytes: &[u8], at: usize) -> (usize, usize) {
    let lines = bytes[..at].iter().filter(|b| **b == b'\n').count();
    (at + 1, lines + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let source = Source::new("x", "a = 1\r\nbäb = 2\n");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(7), Position { line: 2, column: 1 });
        assert_eq!(source.position(11), Position { line: 2, column: 4 });
        assert_eq!(source.line(2), (0, "a = 1"));
        assert_eq!(source.line(8), (7, "bäb = 2"));
        assert_eq!(source.position(source.text.len()), Position { line: 3, column: 1 });
        assert_eq!(source.line(source.text.len()), (16, ""));
    }
}
