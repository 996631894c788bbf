//! What a load wrote down, and what can be concluded from it.
//!
//! **Invariant:** only a write whose acknowledgement was read counts as acknowledged; a failed one may or may not
//! have become a row, and is neither a loss nor a surplus.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use crate::region::Region;

/// How many acknowledged writes a ledger takes: a quarter of an hour at 1,000 a second, 32 MB.
pub const LIMIT: usize = 1_000_000;

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its number within its load.
    pub id: u64,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub sent_ms: u64,
    /// When its acknowledgement was read.
    pub acknowledged_ms: u64,
    /// Which region took it.
    pub region: Region,
}

/// All writes of a load, in the order in which they were acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Those acknowledged, at most [`LIMIT`].
    pub acknowledged: Vec<Write>,
    /// How many were sent and not acknowledged.
    pub failed: u64,
    /// How often a session could not be opened.
    pub not_connected: u64,
}

/// A ledger held against the rows of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Those of them that are no row.
    pub lost: u64,
    /// Writes, acknowledged or not, that are more than one row.
    pub duplicated: u64,
}

/// The time in which clients could not write because the primary moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteGap {
    /// When the old region's last acknowledgement was read, in milliseconds since the Unix epoch.
    pub last_ms: u64,
    /// When the new region's first was.
    pub first_ms: u64,
}

impl WriteGap {
    /// How long it was, in milliseconds. None when both regions took writes at the same time: two primaries.
    #[must_use]
    pub fn ms(self) -> Option<u64> {
        self.first_ms.checked_sub(self.last_ms)
    }
}

impl Ledger {
    /// Whether it takes no more writes.
    #[must_use]
    pub fn full(&self) -> bool {
        self.acknowledged.len() >= LIMIT
    }

    /// How many writes a region acknowledged.
    #[must_use]
    pub fn taken_by(&self, region: Region) -> usize {
        self.acknowledged.iter().filter(|write| write.region == region).count()
    }

    /// How many writes were acknowledged in a span of time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn taken_in(&self, span: &RangeInclusive<u64>) -> usize {
        self.acknowledged.iter().filter(|write| span.contains(&write.acknowledged_ms)).count()
    }

    /// Compares with the rows of a database: how many rows each write has there (`Lab::entries`).
    #[must_use]
    pub fn tally(&self, rows: &HashMap<u64, u64>) -> Tally {
        let lost = self.acknowledged.iter().filter(|write| !rows.contains_key(&write.id)).count();
        let duplicated = rows.values().filter(|count| **count > 1).count();
        Tally {
            acknowledged: self.acknowledged.len() as u64,
            lost: lost as u64,
            duplicated: duplicated as u64,
        }
    }

    /// The gap of one move: from the last write that `from` acknowledged to the first that `to` did, both within
    /// a span of time (milliseconds since the Unix epoch) that holds no other move. None when either took none.
    #[must_use]
    pub fn gap(&self, from: Region, to: Region, span: &RangeInclusive<u64>) -> Option<WriteGap> {
        let times = |region| {
            let of = self.acknowledged.iter().filter(move |write| write.region == region);
            of.map(|write| write.acknowledged_ms).filter(|at| span.contains(at))
        };
        Some(WriteGap { last_ms: times(from).max()?, first_ms: times(to).min()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(writes: &[(u64, u64, Region)]) -> Ledger {
        let write = |&(id, at, region)| Write { id, sent_ms: at - 2, acknowledged_ms: at, region };
        Ledger { acknowledged: writes.iter().map(write).collect(), ..Ledger::default() }
    }

    #[test]
    fn what_was_acknowledged_and_is_no_row_is_lost_and_what_is_two_is_duplicated() {
        let ledger = ledger(&[(0, 10, Region::East), (1, 11, Region::East), (2, 12, Region::East)]);
        // 7 was never acknowledged: a surplus is no fault, but two of it are.
        let rows = HashMap::from([(0, 1), (2, 3), (7, 2)]);
        assert_eq!(ledger.tally(&rows), Tally { acknowledged: 3, lost: 1, duplicated: 2 });
        let rows = HashMap::from([(0, 1), (1, 1), (2, 1), (7, 1)]);
        assert_eq!(ledger.tally(&rows), Tally { acknowledged: 3, lost: 0, duplicated: 0 });
    }

    #[test]
    fn a_gap_is_between_the_last_of_the_old_and_the_first_of_the_new() {
        let there_and_back = ledger(&[
            (0, 100, Region::East),
            (1, 200, Region::East),
            (2, 900, Region::West),
            (3, 950, Region::West),
            (4, 1200, Region::East),
        ]);
        let gap = |from, to, span| there_and_back.gap(from, to, &span);
        assert_eq!(gap(Region::East, Region::West, 0..=1000).unwrap().ms(), Some(700));
        assert_eq!(gap(Region::West, Region::East, 901..=2000).unwrap().ms(), Some(250));
        assert_eq!(gap(Region::East, Region::West, 0..=500), None);
        assert_eq!(there_and_back.taken_in(&(200..=900)), 2);
    }

    #[test]
    fn two_regions_that_take_writes_at_once_have_no_gap() {
        let split = ledger(&[(0, 100, Region::East), (1, 150, Region::West), (2, 160, Region::East)]);
        let gap = split.gap(Region::East, Region::West, &(0..=1000)).unwrap();
        assert_eq!((gap, gap.ms()), (WriteGap { last_ms: 160, first_ms: 150 }, None));
    }
}
