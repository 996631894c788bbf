//! What came of a scenario, beside what should have.
//!
//! **Invariant:** an old primary that acknowledges a write after the new one has taken its first is a violation in every
//! scenario: none with a synchronous standby, none for longer than a tenth of a second without.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::agent::WORKLOAD;
use crate::canary::Ledger;
use crate::holdout::Told;
use crate::lab::{Lab, LabError};
use crate::region::{Region, Site};
use crate::scenario::{Scenario, Site as There};

/// How long an old primary may go on, beside an asynchronous standby, when it wakes from a freeze.
const WAKING: Duration = Duration::from_millis(100);

/// How long a standby that has rejoined may take to be seen streaming.
const STREAMING: Duration = Duration::from_secs(20);

/// What the clients wrote down.
pub(super) struct Written {
    pub(super) ledger: Ledger,
    pub(super) told: Told,
    pub(super) newcomer: Option<u64>,
}

/// What came of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Its name.
    pub scenario: String,
    /// Where the names led a client to and a write was taken, if it was not the region where it began.
    pub moved: Option<String>,
    /// How long after the first happening, in milliseconds.
    pub moved_after_ms: Option<u64>,
    /// Kinds of reasons and questions that people were told.
    pub told: BTreeSet<String>,
    /// Writes that were acknowledged by the old primary and are not on the new one.
    pub lost: u64,
    /// The time from the first to the last of them, in milliseconds.
    pub lost_ms: u64,
    /// Writes that the old primary acknowledged after the new one had taken its first.
    pub second_writer: u64,
    /// For how long, in milliseconds.
    pub second_writer_ms: u64,
    /// Whether a run is stranded.
    pub stranded: bool,
    /// Whether the region that was left follows again.
    pub rejoined: bool,
    /// What is not as it should be, a sentence each.
    pub violations: Vec<String>,
}

impl Judged {
    /// Whether all is as it should be.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Whether all that is expected has come.
pub(super) async fn arrived(scenario: &Scenario, lab: &Lab, served: bool, status: Option<&Value>) -> bool {
    let expect = &scenario.expect;
    let Some(shop) = status.map(|status| &status["workloads"][WORKLOAD]) else { return false };
    let told = told(lab);
    // A stranded move may or may not have reached the names.
    let moved = expect.moved.is_none() || (served || expect.stranded) && at(shop, expect.moved);
    moved
        && stranded(shop) == expect.stranded
        && (expect.stranded || expect.moved.is_none() || shop["run"].is_null())
        && expect.told.iter().all(|kind| told.contains(kind))
        && (!expect.rejoined || lab.streams_within(Region::East, Duration::ZERO).await.is_some())
}

fn at(shop: &Value, wanted: Option<There>) -> bool {
    wanted.is_none_or(|site| shop["primary"] == site.name())
}

fn stranded(shop: &Value) -> bool {
    shop["phase"] == "stranded"
}

/// The kinds of all notices in the agents' logs.
fn told(lab: &Lab) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for site in Site::ALL {
        let log = std::fs::read_to_string(lab.agent_log_of(site)).unwrap_or_default();
        for line in log.lines().filter(|line| line.contains(" notice: ")) {
            for key in ["kind=", "question="] {
                let word = line.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
                kinds.extend(word.map(|word| word.trim_matches('"').to_owned()));
            }
        }
    }
    kinds
}

/// Judges what came of it.
pub(super) async fn judge(
    scenario: &Scenario,
    lab: &Lab,
    written: Written,
    first: u64,
    status: Option<Value>,
) -> Result<Judged, LabError> {
    let expect = &scenario.expect;
    let shop = status.map(|status| status["workloads"][WORKLOAD].clone()).unwrap_or_default();
    let served = written.ledger.first_from(Region::West, first).map(|order| order.acknowledged_ms);
    let missing = match written.newcomer {
        Some(_) => missing(lab, &written.told).await,
        None => Vec::new(),
    };
    let lost_ms =
        missing.first().zip(missing.last()).map_or(0, |((_, first), (_, last))| (last - first) / 1000);
    let lost = missing.len() as u64;
    // A write that was under way when the host froze, and that the new primary has, is acknowledged late and lost to nobody.
    let ids: BTreeSet<u64> = missing.iter().map(|(id, _)| *id).collect();
    let told = &written.told.acknowledged;
    let sent = std::iter::once(0).chain(told.iter().copied());
    let second: Vec<u64> = match written.newcomer {
        Some(since) => (0..)
            .zip(told.iter().copied().zip(sent))
            .filter(|(id, (at, sent))| *at > since && (*sent > since || ids.contains(id)))
            .map(|(_, (at, _))| at)
            .collect(),
        None => Vec::new(),
    };
    let second_ms = second.last().zip(written.newcomer).map_or(0, |(last, since)| (last - since) / 1000);
    let rejoined = expect.rejoined && lab.streams_within(Region::East, STREAMING).await.is_some();
    let mut judged = Judged {
        scenario: scenario.name.clone(),
        moved: served.map(|_| "west".to_owned()),
        moved_after_ms: served.map(|at| at.saturating_sub(first)),
        told: self::told(lab),
        lost,
        lost_ms,
        second_writer: second.len() as u64,
        second_writer_ms: second_ms,
        stranded: stranded(&shop),
        rejoined,
        violations: Vec::new(),
    };
    judged.violations = violations(scenario, &judged, written.newcomer.is_some(), &shop);
    Ok(judged)
}

/// The writes that the old primary acknowledged and the new one does not have, with when that was.
async fn missing(lab: &Lab, told: &Told) -> Vec<(u64, u64)> {
    // A new primary that does not answer is a violation of its own.
    let Ok(kept) = lab.entries(Region::West, "holdout").await else { return Vec::new() };
    let acknowledged = (0..).zip(told.acknowledged.iter().copied());
    acknowledged.filter(|(id, _)| !kept.contains_key(id)).collect()
}

fn violations(scenario: &Scenario, judged: &Judged, promoted: bool, shop: &Value) -> Vec<String> {
    let (expect, setup) = (&scenario.expect, &scenario.setup);
    let mut found = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            found.push(what);
        }
    };
    let moves = expect.moved.is_some();
    must(promoted == moves || expect.stranded, format!("west takes writes: {promoted}; it should: {moves}"));
    must(at(shop, expect.moved), format!("lifeboat says that the primary is {}", shop["primary"]));
    if !moves && !expect.stranded {
        must(shop["primary"] == "east", "the workload moved, and should not have".to_owned());
    }
    if let (Some(within), true) = (expect.within, moves) {
        let took = judged.moved_after_ms;
        let limit = within.as_millis() as u64;
        must(
            took.is_some_and(|took| took <= limit),
            format!("served in west after {took:?} ms; {limit} allowed"),
        );
    }
    for kind in &expect.told {
        must(judged.told.contains(kind), format!("nobody was told: {kind}"));
    }
    for kind in &expect.not_told {
        must(!judged.told.contains(kind), format!("people were told, and should not have been: {kind}"));
    }
    let allowed = expect.loss.as_millis() as u64;
    must(
        judged.lost == 0 || judged.lost_ms <= allowed,
        format!(
            "{} acknowledged writes of {} ms are lost; {allowed} ms allowed",
            judged.lost, judged.lost_ms
        ),
    );
    let waking = if setup.sync { 0 } else { WAKING.as_millis() as u64 };
    must(
        judged.second_writer == 0 || (!setup.sync && judged.second_writer_ms <= waking),
        format!(
            "the old primary acknowledged {} writes for {} ms beside the new one",
            judged.second_writer, judged.second_writer_ms
        ),
    );
    must(
        judged.stranded == expect.stranded,
        format!("stranded: {}, expected: {}", judged.stranded, expect.stranded),
    );
    must(!expect.rejoined || judged.rejoined, "the region that was left does not follow".to_owned());
    found
}
