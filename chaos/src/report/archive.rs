//! What the archive held: the database as it was when the region was lost, restored from a copy of the archive.
//!
//! **Invariant:** what is missing is counted in rows that clients were told are stored, by what the restored server answers.

use std::collections::HashSet;

use serde::Serialize;

use crate::canary::Ledger;
use crate::region::Region;

/// A restore to the moment of the loss. Times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Archive {
    /// Time between the last write that the lost region acknowledged and the newest of them that the archive had; 0 when it
    /// had them all.
    pub rpo_held_ms: u64,
    /// What was promised.
    pub rpo_objective_ms: u64,
    /// From the order to restore until the restored server took writes.
    pub restore_ms: u64,
    /// Bytes of the archive's objects.
    pub stored_bytes: u64,
    /// Bytes of the database's files when they were backed up.
    pub source_bytes: u64,
    /// Acknowledged writes of the lost region that the restored database does not have.
    pub rows_missing: u64,
    /// Acknowledged writes of the lost region.
    pub acknowledged_writes: u64,
    /// Whether the reference table came through unchanged.
    pub reference_intact: bool,
    /// What kept it from being restored.
    pub stuck: Option<String>,
}

/// What a restored server says.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The ids of its orders.
    pub orders: HashSet<String>,
    /// The digest of its reference tables.
    pub reference: String,
    /// From the order to restore until it took writes, in milliseconds.
    pub took_ms: u64,
}

impl Archive {
    /// Counts what is missing of what `lost` acknowledged.
    #[must_use]
    pub fn judge(
        restored: &Restored,
        ledger: &Ledger,
        lost: Region,
        rpo_objective_ms: u64,
        reference: &str,
    ) -> Archive {
        // What others acknowledged since is not asked for.
        let of_lost = ledger.acknowledged.iter().filter(|order| order.region == lost).cloned();
        let ledger = Ledger { acknowledged: of_lost.collect(), ..Ledger::default() };
        let loss = ledger.loss(lost, &restored.orders);
        Archive {
            rpo_held_ms: loss.rpo_held_ms,
            rpo_objective_ms,
            restore_ms: restored.took_ms,
            rows_missing: loss.lost,
            acknowledged_writes: ledger.acknowledged.len() as u64,
            reference_intact: restored.reference == reference,
            ..Archive::default()
        }
    }

    /// Whether it came back within the objective, and unharmed.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.stuck.is_none() && self.reference_intact && self.rpo_held_ms <= self.rpo_objective_ms
    }

    /// Of several runs: the one with the median time, and what was missing in all of them.
    #[must_use]
    pub fn of(runs: &[Archive]) -> Option<Archive> {
        let mut by_time: Vec<&Archive> = runs.iter().collect();
        by_time.sort_by_key(|run| run.restore_ms);
        let middle = *by_time.get((by_time.len().max(1) - 1) / 2)?;
        let worst = runs.iter().find(|run| !run.ok());
        let rows_missing = runs.iter().map(|run| run.rows_missing).sum();
        let rpo_held_ms = runs.iter().map(|run| run.rpo_held_ms).max().unwrap_or_default();
        Some(Archive { rows_missing, rpo_held_ms, ..worst.unwrap_or(middle).clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::ledger::{Acknowledged, Way};

    fn order(id: &str, region: Region, acknowledged_ms: u64) -> Acknowledged {
        Acknowledged { id: id.to_owned(), region, sent_ms: acknowledged_ms, acknowledged_ms, way: Way::Fresh }
    }

    #[test]
    fn what_the_lost_region_acknowledged_and_the_archive_has_not_is_missing() {
        let ledger = Ledger {
            acknowledged: vec![
                order("a", Region::East, 100),
                order("b", Region::East, 250),
                order("c", Region::East, 300),
                order("d", Region::West, 9_000),
            ],
            ..Ledger::default()
        };
        let restored = |ids: &[&str]| Restored {
            orders: ids.iter().map(|id| (*id).to_owned()).collect(),
            reference: "r".to_owned(),
            took_ms: 7,
        };
        let all = Archive::judge(&restored(&["a", "b", "c"]), &ledger, Region::East, 150, "r");
        assert_eq!((all.rows_missing, all.rpo_held_ms, all.acknowledged_writes), (0, 0, 3));
        assert!(all.ok());
        let some = Archive::judge(&restored(&["a"]), &ledger, Region::East, 150, "r");
        assert_eq!((some.rows_missing, some.rpo_held_ms), (2, 200));
        assert!(!some.ok());
        assert!(!Archive::judge(&restored(&["a", "b", "c"]), &ledger, Region::East, 150, "other").ok());
        let both = Archive::of(&[all, some]).unwrap();
        assert!(both.rows_missing == 2 && both.rpo_held_ms == 200 && !both.ok());
    }
}
