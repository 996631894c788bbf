//! The history of a timeline, as the server keeps it in a file.
//!
//! **Invariant:** lines that are not understood make the whole history unusable; nothing is guessed.

use lifeboat_core::{Lsn, Timeline};

/// Where a history left each of its earlier timelines, oldest first.
pub(super) fn read(text: &[u8]) -> Option<Vec<(Timeline, Lsn)>> {
    let mut left = Vec::new();
    for line in std::str::from_utf8(text).ok()?.lines() {
        // "1	0/3000060	no recovery target specified"; what follows the position is for people.
        let mut words = line.split_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        left.push((Timeline::new(first.parse().ok()?), Lsn::parse(words.next()?)?));
    }
    left.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read() {
        let text = b"1\t0/3000060\tno recovery target specified\n\n# by hand\n2\t1/A0\tbefore 2026-11-21\n";
        let left =
            vec![(Timeline::new(1), Lsn::new(0x300_0060)), (Timeline::new(2), Lsn::new(0x1_0000_00A0))];
        assert_eq!(read(text), Some(left));
        assert_eq!(read(b""), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_no_history() {
        for text in [&b"one\t0/1"[..], b"1", b"1\t0-1", b"2\t0/1\n1\t0/2", b"1\t0/2\n2\t0/1", b"\xff"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
