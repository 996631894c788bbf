//! Planned moves and returns: what each held, and what several held together.
//!
//! **Invariant:** a move that lost or doubled a write is not ok, however fast it was.

use serde::Serialize;

use crate::timeline::Reached;

/// One planned move under load. Times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Move {
    /// From the last write that the old region acknowledged to the first that the new one did; none: it did not move,
    /// or both took writes at once.
    pub write_gap_ms: Option<u64>,
    /// Acknowledged writes that are no row on the new primary.
    pub lost_writes: u64,
    /// Writes that are more than one row there.
    pub duplicated_writes: u64,
    /// Writes that clients were told are done.
    pub acknowledged_writes: u64,
    /// How many were acknowledged in the half second before the order, for a whole one.
    pub writes_a_second: u64,
    /// lifeboat's name of the run.
    pub run: Option<String>,
    /// When it was ordered, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// lifeboat's milestones.
    pub milestones: Vec<Reached>,
    /// What lifeboat says stood in the way, when it did not finish.
    pub stuck: Option<String>,
}

impl Move {
    /// Whether it arrived, and nothing was lost or doubled.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.write_gap_ms.is_some()
            && self.lost_writes == 0
            && self.duplicated_writes == 0
            && self.stuck.is_none()
    }
}

/// The return of a lost region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Return {
    /// How its old primary was made a standby: `follow`, `rewind` or `rebuild`; none: it was not.
    pub rejoin: Option<String>,
    /// From the moment its network was back until it streamed from the new primary; none: it did not.
    pub rejoin_ms: Option<u64>,
    /// Rows that lifeboat says it kept.
    pub salvaged_rows: u64,
    /// Writes that were committed on the old primary alone while it was isolated.
    pub isolated_writes: u64,
    /// Those of them that are in the salvage.
    pub isolated_salvaged: u64,
    /// Those of them that are on the new primary: none may be.
    pub isolated_on_primary: u64,
    /// Acknowledged writes that the failover lost.
    pub lost_before: u64,
    /// Those of them that are in the salvage.
    pub lost_salvaged: u64,
    /// lifeboat's name of the run.
    #[serde(rename = "rejoin_run")]
    pub run: Option<String>,
    /// When its network was back, in milliseconds since the Unix epoch.
    pub back_ms: u64,
    /// lifeboat's milestones.
    #[serde(rename = "rejoin_milestones")]
    pub milestones: Vec<Reached>,
    /// What lifeboat says stands in the way, when it did not finish.
    #[serde(rename = "rejoin_stuck")]
    pub stuck: Option<String>,
}

impl Return {
    /// Whether it is a standby again, and all that only it had is in the salvage and nowhere else.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.rejoin.is_some()
            && self.rejoin_ms.is_some()
            && self.isolated_salvaged == self.isolated_writes
            && self.lost_salvaged == self.lost_before
            && self.isolated_on_primary == 0
            && self.stuck.is_none()
    }
}

/// What came after a failover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// The lost region's return.
    pub back: Return,
    /// The move home.
    pub failback: Move,
    /// The move away again.
    pub switchover: Move,
}

/// The return and the move home. With several runs: the one with the median gap.
#[derive(Clone, Debug, Serialize)]
pub struct Failback {
    /// Whether every run was ok.
    pub ok: bool,
    /// The move home.
    #[serde(flatten)]
    pub shown: Move,
    /// The return before it.
    #[serde(flatten)]
    pub back: Return,
    /// Over all runs; only with several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<Median>,
}

/// A planned move. With several runs: the one with the median gap.
#[derive(Clone, Debug, Serialize)]
pub struct Switchover {
    /// Whether every run was ok.
    pub ok: bool,
    /// The move.
    #[serde(flatten)]
    pub shown: Move,
    /// Over all runs; only with several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<Median>,
}

/// Over several runs. Times in milliseconds; a run that did not arrive counts as the longest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Median {
    /// The middle one of the gaps.
    pub write_gap_ms: u64,
    /// The longest of them.
    pub worst_write_gap_ms: u64,
    /// Lost writes of all runs together.
    pub lost_writes: u64,
    /// The middle one of the times until a returned region streamed; only where regions returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejoin_ms: Option<u64>,
    /// The longest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_rejoin_ms: Option<u64>,
    /// Each gap, in order; none for a run that did not arrive.
    pub write_gaps_ms: Vec<Option<u64>>,
}

fn longest_if_never(time: Option<u64>) -> u64 {
    time.unwrap_or(u64::MAX)
}

/// The place of the move with the median gap; none when there are none.
fn middle(moves: &[&Move]) -> Option<usize> {
    let mut places: Vec<usize> = (0..moves.len()).collect();
    places.sort_by_key(|place| longest_if_never(moves[*place].write_gap_ms));
    places.get(places.len().saturating_sub(1) / 2).copied()
}

impl Median {
    /// Of several moves, and of the returns before them where there were any.
    fn of(moves: &[&Move], returns: &[&Return]) -> Option<Median> {
        let at = middle(moves).filter(|_| moves.len() > 1)?;
        let gaps = moves.iter().map(|each| each.write_gap_ms);
        let mut rejoins: Vec<u64> = returns.iter().map(|each| longest_if_never(each.rejoin_ms)).collect();
        rejoins.sort_unstable();
        Some(Median {
            write_gap_ms: longest_if_never(moves[at].write_gap_ms),
            worst_write_gap_ms: gaps.clone().map(longest_if_never).max().unwrap_or(0),
            lost_writes: moves.iter().map(|each| each.lost_writes).sum(),
            rejoin_ms: rejoins.get(rejoins.len().saturating_sub(1) / 2).copied(),
            worst_rejoin_ms: rejoins.last().copied(),
            write_gaps_ms: gaps.collect(),
        })
    }
}

impl Switchover {
    /// Of one or more moves; none when there were none.
    #[must_use]
    pub fn of(moves: &[&Move]) -> Option<Switchover> {
        let shown = moves[middle(moves)?].clone();
        Some(Switchover { ok: moves.iter().all(|each| each.ok()), shown, median: Median::of(moves, &[]) })
    }
}

impl Failback {
    /// Of one or more returns with the move home after each; none when there were none.
    #[must_use]
    pub fn of(runs: &[&Aftermath]) -> Option<Failback> {
        let moves: Vec<&Move> = runs.iter().map(|run| &run.failback).collect();
        let returns: Vec<&Return> = runs.iter().map(|run| &run.back).collect();
        let at = middle(&moves)?;
        Some(Failback {
            ok: runs.iter().all(|run| run.back.ok() && run.failback.ok()),
            shown: moves[at].clone(),
            back: returns[at].clone(),
            median: Median::of(&moves, &returns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(gap: Option<u64>, lost: u64) -> Move {
        Move { write_gap_ms: gap, lost_writes: lost, ..Move::default() }
    }

    fn back(ms: u64) -> Return {
        Return {
            rejoin: Some("rewind".to_owned()),
            rejoin_ms: Some(ms),
            salvaged_rows: 7,
            isolated_writes: 5,
            isolated_salvaged: 5,
            lost_before: 2,
            lost_salvaged: 2,
            run: Some("shop-e2".to_owned()),
            ..Return::default()
        }
    }

    #[test]
    fn a_lost_or_doubled_write_or_a_move_that_never_arrived_is_not_ok() {
        assert!(moved(Some(9_000), 0).ok());
        assert!(!moved(Some(10), 1).ok() && !moved(None, 0).ok());
        assert!(!Move { duplicated_writes: 1, ..moved(Some(10), 0) }.ok());
        assert!(!Move { stuck: Some("it asks".to_owned()), ..moved(Some(10), 0) }.ok());
    }

    #[test]
    fn a_return_is_ok_when_all_is_in_the_salvage_and_nothing_on_the_primary() {
        assert!(back(3_000).ok());
        assert!(!Return { isolated_salvaged: 4, ..back(3_000) }.ok());
        assert!(!Return { isolated_on_primary: 1, ..back(3_000) }.ok());
        assert!(!Return { lost_salvaged: 1, ..back(3_000) }.ok());
        assert!(!Return { rejoin: None, ..back(3_000) }.ok() && !Return { rejoin_ms: None, ..back(1) }.ok());
    }

    #[test]
    fn the_file_has_the_agreed_fields_and_several_runs_have_a_median() {
        let after = |gap, rejoin| Aftermath {
            back: back(rejoin),
            failback: moved(gap, 0),
            switchover: moved(gap, 0),
        };
        let one = after(Some(600), 3_000);
        let file = serde_json::to_value(Failback::of(&[&one]).unwrap()).unwrap();
        for (key, value) in
            [("write_gap_ms", 600), ("lost_writes", 0), ("salvaged_rows", 7), ("rejoin_ms", 3_000)]
        {
            assert_eq!(file[key], value, "{key}");
        }
        assert_eq!((&file["rejoin"], &file["ok"]), (&"rewind".into(), &true.into()));
        assert!(file.get("median").is_none());

        let runs = [after(Some(900), 5_000), after(None, 2_000), after(Some(700), 4_000)];
        let three = Failback::of(&runs.iter().collect::<Vec<_>>()).unwrap();
        let median = three.median.unwrap();
        assert!(!three.ok, "one never arrived");
        assert_eq!(
            (three.shown.write_gap_ms, median.write_gap_ms, median.rejoin_ms),
            (Some(900), 900, Some(4_000))
        );
        assert_eq!(median.write_gaps_ms, [Some(900), None, Some(700)]);
        let moves = [moved(Some(5), 1), moved(Some(4), 0)];
        let file = serde_json::to_value(Switchover::of(&moves.iter().collect::<Vec<_>>()).unwrap()).unwrap();
        assert_eq!(
            (&file["write_gap_ms"], &file["median"]["lost_writes"], &file["ok"]),
            (&4.into(), &1.into(), &false.into())
        );
        assert!(file["median"].get("rejoin_ms").is_none());
        assert!(Switchover::of(&[]).is_none() && Failback::of(&[]).is_none());
    }
}
