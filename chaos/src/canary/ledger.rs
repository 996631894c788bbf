//! What a canary wrote down, and what can be concluded from it.
//!
//! **Invariant:** only an order whose 201 was read counts as acknowledged; a failed one may or may not have
//! become a row, and is neither a loss nor a surplus.

use std::collections::HashSet;

use serde::Serialize;

use crate::region::Region;

/// The connection an order was sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// One kept open from an earlier order, where there was one.
    Pooled,
    /// One of its own.
    Fresh,
}

/// An order that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its id: the row's key.
    pub id: String,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub sent_ms: u64,
    /// When its acknowledgement was read.
    pub acknowledged_ms: u64,
    /// Which region took it.
    pub region: Region,
    /// How it was sent.
    pub way: Way,
}

/// Why an order was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// The name did not resolve.
    Name,
    /// No connection, or it was reset.
    Connection,
    /// The shop answered something else than 201.
    Refused,
    /// No answer in time.
    Silent,
}

/// An order that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its id.
    pub id: String,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub sent_ms: u64,
    /// When that was known.
    pub ended_ms: u64,
    /// Why.
    pub failure: Failure,
    /// How it was sent.
    pub way: Way,
}

/// All orders of a canary, in the order in which they ended. About 100 bytes an order: an hour is 36 MB.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Those acknowledged.
    pub acknowledged: Vec<Acknowledged>,
    /// Those not.
    pub failed: Vec<Failed>,
    /// Beats at which no order was sent because too many were on the way.
    pub missed_beats: u64,
}

/// What was lost with a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How many acknowledged orders are not in the surviving database.
    pub lost: u64,
    /// Time between the last order the lost region acknowledged and the newest of them that survived, in
    /// milliseconds; 0 when none is missing.
    pub rpo_held_ms: u64,
}

impl Ledger {
    /// The first order a region acknowledged at or after a moment (milliseconds since the Unix epoch).
    #[must_use]
    pub fn first_from(&self, region: Region, since_ms: u64) -> Option<&Acknowledged> {
        self.acknowledged
            .iter()
            .filter(|order| order.region == region && order.acknowledged_ms >= since_ms)
            .min_by_key(|order| order.acknowledged_ms)
    }

    /// How many orders a region acknowledged.
    #[must_use]
    pub fn taken_by(&self, region: Region) -> usize {
        self.acknowledged.iter().filter(|order| order.region == region).count()
    }

    /// Compares what was acknowledged with the rows of the surviving database, `lost` being the region that
    /// was lost. Orders that the survivor acknowledged and does not have count as lost too.
    #[must_use]
    pub fn loss(&self, lost: Region, survived: &HashSet<String>) -> Loss {
        let missing = self.acknowledged.iter().filter(|order| !survived.contains(&order.id)).count();
        let of_lost = || self.acknowledged.iter().filter(|order| order.region == lost);
        let last = of_lost().map(|order| order.acknowledged_ms).max();
        let newest =
            of_lost().filter(|order| survived.contains(&order.id)).map(|order| order.acknowledged_ms).max();
        let first = of_lost().map(|order| order.acknowledged_ms).min();
        let held = match (last, newest.or(first)) {
            (Some(last), Some(newest)) if missing > 0 => last - newest,
            _ => 0,
        };
        Loss { lost: missing as u64, rpo_held_ms: held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(number: u64, region: Region) -> Acknowledged {
        let at = 1000 + number * 10;
        Acknowledged {
            id: format!("o-{number}"),
            sent_ms: at,
            acknowledged_ms: at + 4,
            region,
            way: Way::Fresh,
        }
    }

    fn rows(numbers: impl IntoIterator<Item = u64>) -> HashSet<String> {
        numbers.into_iter().map(|number| format!("o-{number}")).collect()
    }

    fn ledger() -> Ledger {
        let east = (0..10).map(|number| order(number, Region::East));
        let west = (50..55).map(|number| order(number, Region::West));
        Ledger { acknowledged: east.chain(west).collect(), ..Ledger::default() }
    }

    #[test]
    fn nothing_is_lost_when_every_acknowledged_order_is_a_row() {
        // Rows that were never acknowledged (11, 12) are no surplus.
        let survived = rows((0..13).chain(50..55));
        assert_eq!(ledger().loss(Region::East, &survived), Loss { lost: 0, rpo_held_ms: 0 });
    }

    #[test]
    fn the_tail_that_was_not_replicated_is_counted_and_measured() {
        let survived = rows((0..7).chain(50..55));
        assert_eq!(ledger().loss(Region::East, &survived), Loss { lost: 3, rpo_held_ms: 30 });
    }

    #[test]
    fn an_order_missing_in_the_middle_is_lost_though_the_newest_survived() {
        let survived = rows((0..4).chain(5..10).chain(50..55));
        assert_eq!(ledger().loss(Region::East, &survived), Loss { lost: 1, rpo_held_ms: 0 });
    }

    #[test]
    fn when_nothing_survived_the_whole_span_is_lost() {
        assert_eq!(ledger().loss(Region::East, &rows(50..55)), Loss { lost: 10, rpo_held_ms: 90 });
    }

    #[test]
    fn an_order_the_survivor_lost_is_lost() {
        let survived = rows((0..10).chain(51..55));
        assert_eq!(ledger().loss(Region::East, &survived).lost, 1);
    }

    #[test]
    fn the_first_order_of_the_new_region_is_found_by_acknowledgement() {
        assert_eq!(ledger().first_from(Region::West, 0).unwrap().id, "o-50");
        assert_eq!(ledger().first_from(Region::West, 1515).unwrap().id, "o-52");
        assert_eq!(ledger().first_from(Region::West, 9999), None);
        assert_eq!(ledger().taken_by(Region::East), 10);
    }
}
