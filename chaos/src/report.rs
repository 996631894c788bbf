//! `report.json`: what was held against what was promised.
//!
//! **Invariant:** fields are only added; the meaning of one never changes.

pub mod archive;
pub mod fence;
pub mod moves;
pub mod sight;

use serde::Serialize;

use self::moves::{Aftermath, Failback, Move, Switchover};
use self::sight::Sight;
use crate::canary::Ledger;
use crate::region::Region;
use crate::timeline::{Phase, Reached, Timeline};

/// The whole file.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Raised when the meaning of a field changes.
    pub version: u32,
    /// The failover.
    pub failover: Failover,
    /// The lost region's return, and the move home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failback: Option<Failback>,
    /// A planned move away from home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,
    /// The restore to the moment of the loss, from the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<archive::Archive>,
}

/// What the failover held. With several runs: that of the run with the median time, lost writes of all.
#[derive(Clone, Debug, Serialize)]
pub struct Failover {
    /// The run it shows.
    #[serde(flatten)]
    pub shown: Run,
    /// Whether every run was recovered within both objectives (and lost nothing, with a synchronous standby).
    pub ok: bool,
    /// Whether commits waited for the standby.
    pub sync: bool,
    /// Each run, in order; only with several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// Over all runs; only with several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<Median>,
}

/// Over several runs. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Median {
    /// The middle one of the times without service.
    pub rto_held_ms: u64,
    /// The longest of them.
    pub worst_rto_held_ms: u64,
    /// The middle one of the times from promotion to first write.
    pub promotion_ms: Option<u64>,
    /// Lost writes of all runs together.
    pub lost_writes: u64,
}

/// One loss of a region, survived or not. Times in milliseconds; those with `_at_` count from the loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// From the loss to the first acknowledged client write on the new region; none: there was none.
    pub rto_held_ms: Option<u64>,
    /// What was promised.
    pub rto_objective_ms: u64,
    /// Time between the last write that the lost region acknowledged and the newest of them that survived;
    /// 0 when none was lost.
    pub rpo_held_ms: u64,
    /// What was promised.
    pub rpo_objective_ms: u64,
    /// Writes a client was told are done.
    pub acknowledged_writes: u64,
    /// Those of them that the surviving database does not have.
    pub lost_writes: u64,
    /// Writes that were not acknowledged, while nobody served.
    pub failed_writes: u64,
    /// detect, fence, promote, switch, verify.
    pub phases: Vec<Phase>,
    /// From the start of the promotion to the new primary's first commit.
    pub promotion_ms: Option<u64>,
    /// Whether the reference table came through unchanged.
    pub reference_intact: bool,
    /// lifeboat's name of the run.
    pub run: Option<String>,
    /// The agent that decided; none where there is but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// What proved the fence, in lifeboat's word for it.
    #[serde(rename = "fence_proof")]
    pub proof: Option<String>,
    /// Who saw what while the region was lost; none where there is but one agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sight: Option<Sight>,
    /// What lifeboat says stands in the way, when it did not finish.
    pub stuck: Option<String>,
    /// When the region was lost, in milliseconds since the Unix epoch.
    pub lost_ms: u64,
    /// lifeboat's milestones.
    pub milestones: Vec<Reached>,
    /// Writes over time.
    pub traffic: Traffic,
}

/// What the lab knows about a run when it is over.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// When the region was lost, in milliseconds since the Unix epoch.
    pub lost_ms: u64,
    /// Which.
    pub lost: Region,
    /// The canary's ledger.
    pub ledger: &'a Ledger,
    /// The ids in the surviving database.
    pub survived: &'a std::collections::HashSet<String>,
    /// lifeboat's record.
    pub timeline: &'a Timeline,
    /// Who saw what.
    pub sight: Option<Sight>,
    /// Whether the reference table came through.
    pub reference_intact: bool,
    /// The objectives, in milliseconds: RTO, RPO.
    pub objectives: (u64, u64),
}

impl Run {
    /// Judges the evidence.
    #[must_use]
    pub fn judge(evidence: &Evidence<'_>) -> Run {
        let &Evidence { lost_ms, lost, ledger, survived, timeline, .. } = evidence;
        let first = ledger.first_from(lost.other(), lost_ms);
        let loss = ledger.loss(lost, survived);
        Run {
            rto_held_ms: first.map(|order| order.acknowledged_ms - lost_ms),
            rto_objective_ms: evidence.objectives.0,
            rpo_held_ms: loss.rpo_held_ms,
            rpo_objective_ms: evidence.objectives.1,
            acknowledged_writes: ledger.acknowledged.len() as u64,
            lost_writes: loss.lost,
            failed_writes: ledger.failed.len() as u64,
            phases: timeline.phases(lost_ms),
            promotion_ms: timeline.promotion_ms(),
            reference_intact: evidence.reference_intact,
            run: timeline.run.clone(),
            decided_by: timeline.decided_by.clone(),
            proof: timeline.proof.clone(),
            sight: evidence.sight.clone(),
            stuck: timeline.stuck.clone(),
            lost_ms,
            milestones: timeline.reached.clone(),
            traffic: Traffic::of(ledger, lost_ms),
        }
    }

    /// Whether both objectives were held, and with `sync` nothing at all was lost.
    #[must_use]
    pub fn ok(&self, sync: bool) -> bool {
        self.rto_held_ms.is_some_and(|held| held <= self.rto_objective_ms)
            && self.rpo_held_ms <= self.rpo_objective_ms
            && self.reference_intact
            && !(sync && self.lost_writes > 0)
    }
}

/// Writes over time, in buckets of [`Traffic::BUCKET_MS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// When the first bucket begins, relative to the loss.
    pub from_ms: i64,
    /// Acknowledged by the lost region, by when they were acknowledged.
    pub east: Vec<u32>,
    /// Acknowledged by the other.
    pub west: Vec<u32>,
    /// Not acknowledged, by when they were sent.
    pub failed: Vec<u32>,
}

impl Traffic {
    /// The width of a bucket.
    pub const BUCKET_MS: i64 = 100;
    /// How long before the loss it begins at the earliest.
    const BEFORE_MS: i64 = 3_000;
    /// A run is a minute or two; a picture of an hour would help nobody.
    const BUCKETS: usize = 3_000;

    /// Sorts a ledger into buckets.
    #[must_use]
    pub fn of(ledger: &Ledger, lost_ms: u64) -> Traffic {
        let place = |at_ms: u64| {
            let since = i64::try_from(at_ms).unwrap_or(i64::MAX) - i64::try_from(lost_ms).unwrap_or(0);
            usize::try_from((since + Self::BEFORE_MS).div_euclid(Self::BUCKET_MS))
                .ok()
                .filter(|n| *n < Self::BUCKETS)
        };
        let mut traffic = Traffic { from_ms: -Self::BEFORE_MS, ..Traffic::default() };
        let mut count = |at_ms, row: fn(&mut Traffic) -> &mut Vec<u32>| {
            let Some(place) = place(at_ms) else { return };
            for row in [&mut traffic.east, &mut traffic.west, &mut traffic.failed] {
                row.resize(row.len().max(place + 1), 0);
            }
            row(&mut traffic)[place] += 1;
        };
        for order in &ledger.acknowledged {
            match order.region {
                Region::East => count(order.acknowledged_ms, |traffic| &mut traffic.east),
                Region::West => count(order.acknowledged_ms, |traffic| &mut traffic.west),
            }
        }
        for order in &ledger.failed {
            count(order.sent_ms, |traffic| &mut traffic.failed);
        }
        traffic
    }
}

impl Report {
    /// The report of one or more runs; none when there were none.
    #[must_use]
    pub fn of(runs: Vec<Run>, sync: bool) -> Option<Report> {
        let ok = runs.iter().all(|run| run.ok(sync));
        // A run that was not recovered counts as the longest.
        let time = |run: &Run| run.rto_held_ms.unwrap_or(u64::MAX);
        let mut by_time: Vec<&Run> = runs.iter().collect();
        by_time.sort_by_key(|run| time(run));
        let middle = *by_time.get((by_time.len().max(1) - 1) / 2)?;
        let mut promotions: Vec<u64> = runs.iter().filter_map(|run| run.promotion_ms).collect();
        promotions.sort_unstable();
        let median = (runs.len() > 1).then(|| Median {
            rto_held_ms: time(middle),
            worst_rto_held_ms: by_time.last().map_or(0, |run| time(run)),
            promotion_ms: promotions.get(promotions.len().saturating_sub(1) / 2).copied(),
            lost_writes: runs.iter().map(|run| run.lost_writes).sum(),
        });
        let shown = middle.clone();
        let runs = if runs.len() > 1 { runs } else { Vec::new() };
        let failover = Failover { shown, ok, sync, runs, median };
        Some(Report { version: 1, failover, failback: None, switchover: None, archive: None })
    }

    /// The same with what came after each failover.
    #[must_use]
    pub fn with(self, after: &[Aftermath]) -> Report {
        let switchovers: Vec<&Move> = after.iter().map(|run| &run.switchover).collect();
        let failback = Failback::of(&after.iter().collect::<Vec<_>>());
        Report { failback, switchover: Switchover::of(&switchovers), ..self }
    }

    /// The same with what the archive held in each run.
    #[must_use]
    pub fn restored(self, runs: &[archive::Archive]) -> Report {
        Report { archive: archive::Archive::of(runs), ..self }
    }

    /// Whether all of it held what was promised.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.failover.ok
            && self.failback.as_ref().is_none_or(|failback| failback.ok)
            && self.switchover.as_ref().is_none_or(|switchover| switchover.ok)
            && self.archive.as_ref().is_none_or(archive::Archive::ok)
    }
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
