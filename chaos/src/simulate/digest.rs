//! The trace of a run, as a number: two runs of one seed must come to the same.
//!
//! **Invariant:** everything that an agent is told, decides and does is part of it.

use std::fmt::{self, Write};

/// A running digest (FNV-1a over 64-bit words and text), and the trace as text when it is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Digest {
    state: u64,
    lines: Option<Vec<String>>,
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Digest {
    /// Nothing was traced yet. `verbose` keeps the lines, too.
    pub(crate) const fn new(verbose: bool) -> Self {
        Self { state: OFFSET, lines: if verbose { Some(Vec::new()) } else { None } }
    }

    /// A number.
    pub(crate) const fn word(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(PRIME);
    }

    /// A line of the trace. It is written straight into the digest; text is made only for a reader.
    pub(crate) fn line(&mut self, at: u64, what: fmt::Arguments<'_>) {
        self.word(at);
        let _ = self.write_fmt(what);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3}  {what}", at as f64 / 1000.0));
        }
    }

    /// A line that only a reader needs.
    pub(crate) fn note(&mut self, at: u64, what: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3}    {what}", at as f64 / 1000.0));
        }
    }

    /// The number so far.
    pub(crate) const fn value(&self) -> u64 {
        self.state
    }

    /// The lines, when they were kept.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Eight bytes at a time: the text of a record is a hundred of them.
        let mut chunks = text.as_bytes().chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        for byte in chunks.remainder() {
            self.word(u64::from(*byte) | 0x100);
        }
        Ok(())
    }
}
