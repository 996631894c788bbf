//! What WAL is called: by PostgreSQL, and in the archive.
//!
//! ```text
//! wal/SYSTEM/TIMELINE/SEGMENT            a whole segment
//! wal/SYSTEM/TIMELINE/SEGMENT.FROM-TO    a part of one; offsets in the segment, eight hexadecimal digits each
//! wal/SYSTEM/TIMELINE/SEGMENT.…          what PostgreSQL itself hands over beside segments: `.partial`, `.OFFSET.backup`
//! wal/SYSTEM/TIMELINE.history            where the timeline branched off
//! ```
//!
//! SYSTEM is the system identifier (16 hexadecimal digits), TIMELINE eight of them, SEGMENT PostgreSQL's own name for it.
//!
//! **Invariant:** within a timeline the order of the names is the order of the bytes.

use std::fmt;
use std::ops::Range;

use lifeboat_core::{Lsn, SystemIdentifier, Timeline};
use lifeboat_engine::ports::ObjectName;

use crate::archive::name;
use crate::trouble::Trouble;

/// How long the segments of a cluster are: a power of two from 1 MiB to 1 GiB, chosen when the cluster was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// What a cluster has unless it was made otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// That many bytes; none when no cluster can have such segments.
    #[must_use]
    pub fn new(bytes: u64) -> Option<Self> {
        let bytes = u32::try_from(bytes).ok()?;
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(Self(bytes))
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    pub(crate) const fn length(self) -> usize {
        self.0 as usize
    }

    /// Where in its segment a byte is.
    pub(crate) fn offset(self, lsn: Lsn) -> usize {
        (lsn.get() & (self.bytes() - 1)) as usize
    }

    /// Where the segment begins that holds the byte.
    pub(crate) fn floor(self, lsn: Lsn) -> Lsn {
        Lsn::new(lsn.get() & !(self.bytes() - 1))
    }
}

/// A segment as PostgreSQL names it: `000000010000000A000000FE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: u32,
    log: u32,
    part: u32,
}

impl SegmentName {
    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub fn of(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        let (log, rest) = (lsn.get() >> 32, lsn.get() & 0xFFFF_FFFF);
        Self { timeline: timeline.get(), log: low(log), part: low(rest / size.bytes()) }
    }

    /// Reads 24 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let upper = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
        if text.len() != 24 || !text.bytes().all(upper) {
            return None;
        }
        let word = |at: Range<usize>| u32::from_str_radix(&text[at], 16).ok();
        Some(Self { timeline: word(0..8)?, log: word(8..16)?, part: word(16..24)? })
    }

    /// The timeline it is of.
    #[must_use]
    pub fn timeline(self) -> Timeline {
        Timeline::new(self.timeline)
    }

    /// Its first byte; none when segments of that size have no such name.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        let rest = u64::from(self.part) * size.bytes();
        (rest < 1 << 32).then(|| Lsn::new((u64::from(self.log) << 32) | rest))
    }

    /// The one after it.
    #[must_use]
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        let start = self.start(size)?.get().checked_add(size.bytes())?;
        Some(Self::of(self.timeline(), Lsn::new(start), size))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.log, self.part)
    }
}

fn low(number: u64) -> u32 {
    u32::try_from(number & 0xFFFF_FFFF).unwrap_or_default()
}

/// What an object of a system's WAL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Segment(SegmentName),
    Piece { segment: SegmentName, from: u32, to: u32 },
    History(Timeline),
}

/// Everything of a system.
pub(crate) fn system_folder(system: SystemIdentifier) -> String {
    format!("wal/{:016x}/", system.get())
}

/// The segments and pieces of a timeline.
pub(crate) fn folder(system: SystemIdentifier, timeline: Timeline) -> String {
    format!("wal/{:016x}/{:08X}/", system.get(), timeline.get())
}

pub(crate) fn segment_object(system: SystemIdentifier, segment: SegmentName) -> Result<ObjectName, Trouble> {
    name(&format!("{}{segment}", folder(system, segment.timeline())))
}

pub(crate) fn piece_object(
    system: SystemIdentifier,
    segment: SegmentName,
    part: &Range<usize>,
) -> Result<ObjectName, Trouble> {
    name(&format!("{}{segment}.{:08X}-{:08X}", folder(system, segment.timeline()), part.start, part.end))
}

pub(crate) fn history_object(system: SystemIdentifier, timeline: Timeline) -> Result<ObjectName, Trouble> {
    name(&format!("wal/{:016x}/{:08X}.history", system.get(), timeline.get()))
}

/// What a segment that is not stored yet is called in messages.
pub(crate) fn segment_name(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Result<ObjectName, Trouble> {
    name(&SegmentName::of(timeline, lsn, size).to_string())
}

/// What an object is, by its name; none for what is not looked at here.
pub(crate) fn entry(object: &ObjectName) -> Option<Entry> {
    let mut parts = object.as_str().split('/').skip(2);
    let (first, second) = (parts.next()?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let Some(last) = second else {
        return history_of(first).map(Entry::History);
    };
    let (segment, rest) = last.split_at_checked(24)?;
    let segment = SegmentName::parse(segment)?;
    if format!("{:08X}", segment.timeline) != first {
        return None;
    }
    if rest.is_empty() {
        return Some(Entry::Segment(segment));
    }
    let (from, to) = rest.strip_prefix('.')?.split_once('-')?;
    let word = |text: &str| (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok()).flatten();
    let (from, to) = (word(from)?, word(to)?);
    (from < to).then_some(Entry::Piece { segment, from, to })
}

/// The timeline of a history file, by its name: `00000002.history`.
pub(crate) fn history_of(text: &str) -> Option<Timeline> {
    let digits = text.strip_suffix(".history")?;
    if digits.len() != 8 {
        return None;
    }
    u32::from_str_radix(digits, 16).ok().map(Timeline::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_named_as_postgresql_names_them() {
        let lsn = Lsn::parse("A/FE123456").unwrap();
        let named = SegmentName::of(Timeline::new(1), lsn, SegmentSize::DEFAULT);
        assert_eq!(named.to_string(), "000000010000000A000000FE");
        assert_eq!(SegmentName::parse("000000010000000A000000FE"), Some(named));
        assert_eq!(named.start(SegmentSize::DEFAULT), Lsn::parse("A/FE000000"));
        let next = named.next(SegmentSize::DEFAULT).unwrap();
        assert_eq!(next.to_string(), "000000010000000A000000FF");
        assert_eq!(next.next(SegmentSize::DEFAULT).unwrap().to_string(), "000000010000000B00000000");
        let large = SegmentSize::new(1 << 30).unwrap();
        assert_eq!(SegmentName::of(Timeline::new(1), lsn, large).to_string(), "000000010000000A00000003");
        assert_eq!(SegmentName::parse("000000010000000A00000004").unwrap().start(large), None);
        for wrong in ["", "000000010000000A000000fe", "000000010000000A000000F", "00000001.history"] {
            assert_eq!(SegmentName::parse(wrong), None, "{wrong}");
        }
        for wrong in [0, 1 << 19, (1 << 20) + 1, 1 << 31, 1 << 40] {
            assert_eq!(SegmentSize::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn objects_are_what_their_names_say() {
        let segment = SegmentName::parse("000000020000000A000000FE").unwrap();
        let of = |text: &str| entry(&format!("wal/00000000000000aa/{text}").parse().unwrap());
        assert_eq!(of("00000002/000000020000000A000000FE"), Some(Entry::Segment(segment)));
        let piece = piece_object(SystemIdentifier::new(0xaa), segment, &(16..4096)).unwrap();
        assert_eq!(entry(&piece), Some(Entry::Piece { segment, from: 16, to: 4096 }));
        assert_eq!(of("00000003.history"), Some(Entry::History(Timeline::new(3))));
        for other in [
            "00000001/000000020000000A000000FE",
            "00000002/000000020000000A000000FE.partial",
            "00000002/000000020000000A000000FE.00000028.backup",
            "00000002/000000020000000A000000FE.00000010-00000010",
            "00000002/000000020000000A000000FE.10-20",
            "00000002/more/000000020000000A000000FE",
            "3.history",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
