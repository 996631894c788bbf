//! What is there of a timeline, from names alone: stretches without a hole, and the holes between them.

use std::fmt;

use lifeboat_core::{Lsn, Timeline};
use thiserror::Error;

use super::names::{Entry, SegmentName, SegmentSize};

/// Bytes that are there without a hole, from the first to before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first byte.
    pub from: Lsn,
    /// The first one that is not there.
    pub to: Lsn,
}

/// WAL that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub struct Gap {
    /// Of which timeline.
    pub timeline: Timeline,
    /// The first byte that is missing.
    pub from: Lsn,
    /// The first byte that is wanted or there again.
    pub to: Lsn,
    /// The segment in which the first missing byte is.
    pub segment: SegmentName,
}

impl Gap {
    pub(crate) fn new(timeline: Timeline, from: Lsn, to: Lsn, size: SegmentSize) -> Self {
        Self { timeline, from, to, segment: SegmentName::of(timeline, from, size) }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, from, to, segment } = self;
        let bytes = to.ahead_of(*from);
        write!(
            f,
            "WAL of timeline {timeline} is missing from {from} to {to} ({bytes} bytes), in segment {segment}"
        )
    }
}

/// The bytes that an object holds.
pub(crate) fn extent(entry: &Entry, size: SegmentSize) -> Option<Stretch> {
    let (segment, from, to) = match entry {
        Entry::Segment(segment) => (segment, 0, size.bytes()),
        Entry::Piece { segment, from, to } => (segment, u64::from(*from), u64::from(*to)),
        Entry::History(_) => return None,
    };
    let start = segment.start(size)?.get();
    let end = start.checked_add(to).filter(|_| to <= size.bytes())?;
    Some(Stretch { from: Lsn::new(start + from), to: Lsn::new(end) })
}

/// Adds what comes next in the order of names.
pub(crate) fn join(stretches: &mut Vec<Stretch>, next: Stretch) {
    match stretches.last_mut() {
        Some(last) if next.from <= last.to => last.to = last.to.max(next.to),
        _ => stretches.push(next),
    }
}

/// Where a writer goes on. `oldest` is what the server can still give; without it, only what was in flight when a writer
/// ended is given again: a hole at most `window` bytes from the end.
pub(crate) fn resume(
    stretches: &[Stretch],
    oldest: Option<Lsn>,
    size: SegmentSize,
    window: u64,
) -> Option<Lsn> {
    let Some(last) = stretches.last() else { return oldest.map(|oldest| size.floor(oldest)) };
    let floor = match oldest {
        Some(oldest) => size.floor(oldest),
        None => Lsn::new(last.to.get().saturating_sub(window)),
    };
    let found = stretches.iter().map(|stretch| stretch.to).find(|to| *to >= floor);
    Some(found.unwrap_or(floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(of: &[(u64, u64)]) -> Vec<Stretch> {
        of.iter().map(|(from, to)| Stretch { from: Lsn::new(*from), to: Lsn::new(*to) }).collect()
    }

    #[test]
    fn a_writer_goes_on_at_the_first_hole_that_can_still_be_filled() {
        let size = SegmentSize::new(1 << 20).unwrap();
        let mib = |count: u64| count << 20;
        let there = stretches(&[(mib(1), mib(3)), (mib(4), mib(5) + 100), (mib(5) + 300, mib(5) + 500)]);
        let at =
            |oldest: Option<u64>, window| resume(&there, oldest.map(Lsn::new), size, window).map(Lsn::get);
        assert_eq!(at(Some(mib(2)), 0), Some(mib(3)));
        assert_eq!(at(Some(mib(3)), 0), Some(mib(3)));
        assert_eq!(at(Some(mib(3) + 1), 0), Some(mib(3)), "the server has the whole segment");
        assert_eq!(at(Some(mib(4)), 0), Some(mib(5) + 100));
        assert_eq!(at(Some(mib(5) + 400), 0), Some(mib(5) + 100));
        assert_eq!(at(Some(mib(9) + 7), 0), Some(mib(9)));
        assert_eq!(at(None, mib(2)), Some(mib(5) + 100));
        assert_eq!(at(None, mib(3)), Some(mib(3)));
        assert_eq!(at(None, 0), Some(mib(5) + 500));
        assert_eq!(resume(&[], None, size, 0), None);
        assert_eq!(resume(&[], Some(Lsn::new(mib(2) + 5)), size, 0), Some(Lsn::new(mib(2))));
    }

    #[test]
    fn stretches_grow_as_long_as_nothing_is_missing() {
        let mut all = Vec::new();
        for next in stretches(&[(0, 10), (5, 8), (8, 20), (20, 21), (22, 30), (22, 25), (30, 31)]) {
            join(&mut all, next);
        }
        assert_eq!(all, stretches(&[(0, 21), (22, 31)]));
    }
}
