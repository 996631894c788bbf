//! Which timeline branched off where, as PostgreSQL writes it into `TIMELINE.history`.

use lifeboat_core::{Lsn, Timeline};

/// The longest history that is read, in bytes.
pub(crate) const LONGEST_HISTORY: usize = 1 << 20;

/// Where a timeline's ancestor was left: the ancestor's bytes before that are this one's as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The ancestor.
    pub parent: Timeline,
    /// The first byte that is not the ancestor's.
    pub at: Lsn,
}

/// The ancestors, oldest first, the last one being the parent; none when the text is no history.
///
/// Each line has a timeline, the LSN where it was left, and a reason; `#` begins a comment (PostgreSQL's
/// `src/backend/access/transam/timeline.c`).
#[must_use]
pub fn parse_history(text: &[u8]) -> Option<Vec<Branch>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut branches: Vec<Branch> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let parent = Timeline::new(words.next()?.parse().ok()?);
        let at = Lsn::parse(words.next()?)?;
        if branches.last().is_some_and(|last| last.parent >= parent || last.at > at) {
            return None;
        }
        branches.push(Branch { parent, at });
    }
    Some(branches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_and_nonsense_is_not() {
        let text = b"# made by hand\n1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tafter\n";
        let branches = parse_history(text).unwrap();
        let of = |parent, at: &str| Branch { parent: Timeline::new(parent), at: Lsn::parse(at).unwrap() };
        assert_eq!(branches, [of(1, "0/3000148"), of(2, "0/5000000")]);
        assert_eq!(parse_history(b""), Some(Vec::new()));
        for wrong in [&b"1"[..], b"1 30", b"x 0/1", b"2 0/1\n1 0/2", b"1 0/5\n2 0/4", b"\xff\xfe"] {
            assert_eq!(parse_history(wrong), None, "{wrong:?}");
        }
    }
}
