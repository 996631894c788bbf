//! What the operator wants, as values: objectives, thresholds, gates.
//!
//! **Invariant:** a gate is a value here and a condition in `condition.rs`; no threshold is written in a
//! code path. Names of adapters, addresses and files are not policy: they stay in the wiring.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::names::{AgentName, DatabaseName, DnsName, ProbeName, RegionName, SystemIdentifier, WorkloadName};
use crate::time::Moment;

/// All that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The agent that decides, which is also a vantage.
    pub agent: AgentName,
    /// How this agent proves its own connectivity.
    pub connectivity: ConnectivityPolicy,
    /// All agents that share the record, this one too, with the place that each fails with: a region, or a place of its
    /// own. Empty when this agent is alone.
    pub agents: BTreeMap<AgentName, RegionName>,
    /// Each workload by its name.
    pub workloads: BTreeMap<WorkloadName, WorkloadPolicy>,
}

/// How a vantage proves that its own network works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectivityPolicy {
    /// How many witnesses are asked.
    pub witnesses: usize,
    /// How many must have answered, 1 to `witnesses`.
    pub quorum: usize,
}

/// What is wanted for one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPolicy {
    /// Its name.
    pub name: WorkloadName,
    /// Where it lives on a quiet day; where it lives now is on record.
    pub home: RegionName,
    /// Where it may move, in order of preference. With `home`, all its regions.
    pub standbys: Vec<RegionName>,
    /// How long it may be down, and how much data it may lose.
    pub objectives: Objectives,
    /// When to act without a person.
    pub failover: FailoverPolicy,
    /// How each probe is judged.
    pub probes: BTreeMap<ProbeName, ProbePolicy>,
    /// Its databases, with the cluster each must belong to where the operator named it.
    pub databases: BTreeMap<DatabaseName, Option<SystemIdentifier>>,
    /// Its DNS names.
    pub names: BTreeMap<DnsName, NamePolicy>,
    /// How long the command that isolates a region may take, where there is one.
    pub fences: BTreeMap<RegionName, Duration>,
    /// Whether a canary client is configured.
    pub canary: bool,
    /// The regions whose databases have a sentry beside them.
    pub sentries: BTreeSet<RegionName>,
    /// The regions on whose database hosts commands can be run: their databases can be salvaged and made standbys.
    pub hosts: BTreeSet<RegionName>,
    /// When no automatic action is taken, besides pauses.
    pub maintenance: Vec<Window>,
}

/// A time of each week, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// From the beginning of Monday to its beginning, less than a week.
    pub start: Duration,
    /// How long it is, at most a week.
    pub length: Duration,
}

/// A week.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// From the beginning of 1970 to its first Monday, four days later.
const FIRST_MONDAY: Duration = Duration::from_secs(4 * 24 * 3600);

impl Window {
    /// When the window that is open now ends; none when it is not open.
    pub fn open_until(&self, now: Moment) -> Option<Moment> {
        let week = u64::try_from(WEEK.as_millis()).unwrap_or(u64::MAX);
        let (start, monday) = (self.start.as_millis() as u64, FIRST_MONDAY.as_millis() as u64);
        // How far into the week that begins with the window's start.
        let into = (now.millis() + 2 * week - monday - start) % week;
        let into = Duration::from_millis(into);
        (into < self.length).then(|| now + (self.length - into))
    }
}

impl WorkloadPolicy {
    /// How long evidence about a region may take to be gathered anew.
    pub fn patience(&self, region: &RegionName) -> Duration {
        let vital = self.probes.values().filter(|p| p.vital && p.region == *region);
        let slowest = vital.map(|p| p.silence + p.interval * (p.failures + 1)).max();
        slowest.unwrap_or_default() + self.failover.freshness
    }

    /// When the maintenance window that is open now ends, the last of them when there are several.
    pub fn maintenance_until(&self, now: Moment) -> Option<Moment> {
        self.maintenance.iter().filter_map(|window| window.open_until(now)).max()
    }

    /// All regions of the workload, home first.
    pub fn regions(&self) -> impl Iterator<Item = &RegionName> {
        std::iter::once(&self.home).chain(&self.standbys)
    }
}

/// The two promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objectives {
    /// Recovery time objective.
    pub rto: Duration,
    /// Recovery point objective.
    pub rpo: Duration,
}

/// When to act without a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverPolicy {
    /// Whether to act without a person at all.
    pub mode: Mode,
    /// How many vantages must see the primary as lost.
    pub quorum: usize,
    /// How many of these must be outside the primary region.
    pub outside: usize,
    /// More bytes of log than this that would be lost block the automatic path; none: only seconds count.
    pub rpo_bytes: Option<u64>,
    /// A sample of the primary older than this says nothing about the loss; none: only the loss itself counts.
    pub sample_age: Option<Duration>,
    /// Whether an expired write lease is taken as a fence, without a word from the region.
    pub fence_expiry: bool,
    /// Whether it is taken as a fence that the only synchronous standby has stopped receiving.
    pub fence_cut_off: bool,
    /// No automatic failover within this of the end of the last run.
    pub cooldown: Duration,
    /// How many automatic failovers are allowed within `budget_window`.
    pub budget: usize,
    /// The window of the budget.
    pub budget_window: Duration,
    /// A question to a person lapses after this.
    pub approval_expires: Duration,
    /// A sighting or a connectivity proof older than this is no evidence.
    pub freshness: Duration,
    /// How many different persons must approve, 1 or 2.
    pub approvals: u32,
    /// How long a standby must have followed before a failback.
    pub hold_down: Duration,
    /// Whether an old primary that returns is made a standby without asking.
    pub rejoin: bool,
}

/// Whether lifeboat acts without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Acts when every condition holds.
    Automatic,
    /// Measures, then asks a person.
    Supervised,
}

/// How one probe is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePolicy {
    /// The region it looks at.
    pub region: RegionName,
    /// The database it looks at, when it is a database probe.
    pub database: Option<DatabaseName>,
    /// Whether the region is lost when this probe is down.
    pub vital: bool,
    /// Time between two looks, for forecasts.
    pub interval: Duration,
    /// Consecutive failures before it counts as down, 1 or more.
    pub failures: u32,
    /// Consecutive answers before it counts as up again, 1 or more.
    pub recoveries: u32,
    /// Failures that are only silence count after this long without an answer.
    pub silence: Duration,
}

/// What a DNS name says, by region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePolicy {
    /// The record's time to live, as served.
    pub ttl: Duration,
    /// What it says when the workload lives in that region.
    pub targets: BTreeMap<RegionName, BTreeSet<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_window_opens_each_week_in_utc() {
        // 2026-11-21 was a Saturday; 12:00 UTC.
        let noon = Moment::from_millis(1_795_262_400_000);
        let saturday = Window { start: HOUR * (5 * 24 + 11), length: HOUR * 2 };
        assert_eq!(saturday.open_until(noon), Some(noon + HOUR));
        assert_eq!(saturday.open_until(noon + HOUR), None);
        assert_eq!(saturday.open_until(noon.before(HOUR)), Some(noon + HOUR));
        assert_eq!(saturday.open_until(noon.before(HOUR + Duration::from_millis(1))), None);
        assert_eq!(saturday.open_until(noon + WEEK), Some(noon + WEEK + HOUR));
        // Over the end of the week.
        let sunday = Window { start: HOUR * (6 * 24 + 23), length: HOUR * 2 };
        let monday = noon + HOUR * 36;
        assert_eq!(sunday.open_until(monday), Some(monday + HOUR));
    }
}
