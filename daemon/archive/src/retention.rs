//! What is kept, why, and what may be removed.
//!
//! Pure: what is there and a policy go in, a plan comes out. Backups are ordered by when they ended, log by its system and
//! its place; a timeline's number says nothing about age, and starts anew when a cluster is made anew.
//!
//! | kept | because |
//! |---|---|
//! | the newest backup, the newest good one, the newest that was read back | nothing newer can replace them |
//! | every backup within the window | it is the shortest way to the moments after it |
//! | the newest good backup before the window, of each timeline that was written to since | the window begins with it |
//! | the newest of each of some hours, days, weeks, months | the policy says so |
//! | the log from the first of those on; around the last ones, what makes them consistent | without it they are nothing |
//!
//! **Invariant:** a plan removes nothing that a moment within the window, a kept backup, or one that is being made needs; it is
//! proven ([`proof`]) by another way than it was made.
//! **Invariant:** a clock that runs ahead makes nothing old: no moment is later than the newest thing in the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use lifeboat_core::{DatabaseName, Lsn, Moment, SystemIdentifier, Timeline, WorkloadName};
use lifeboat_engine::ports::ObjectName;
use serde::Serialize;
use thiserror::Error;

mod gather;
pub mod proof;

pub use gather::{Gathered, Removed, carry_out, gather};

/// For how long what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Every moment within this can be restored.
    pub window: Duration,
    /// The newest good backup of each of so many hours.
    pub hourly: u32,
    /// Days, in UTC.
    pub daily: u32,
    /// Weeks, from Monday on.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// What nothing needs is removed when it is so old.
    pub grace: Duration,
}

/// A backup that was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name; that of its folder.
    pub id: String,
    /// What it is of. Backups of one database replace each other, also when its cluster was made anew.
    pub of: (WorkloadName, DatabaseName),
    /// The cluster.
    pub system: SystemIdentifier,
    /// Where replay begins.
    pub start: Lsn,
    /// The timeline that is on.
    pub timeline: Timeline,
    /// What replay must reach.
    pub end: Lsn,
    /// The timeline that is on.
    pub end_timeline: Timeline,
    /// When it was begun.
    pub begun: Moment,
    /// When it ended.
    pub ended: Moment,
    /// Whether nothing is known to be wrong with it.
    pub good: bool,
    /// Whether it was read back, and all of it was right.
    pub verified: bool,
    /// Its manifest.
    pub manifest: ObjectName,
    /// Every object that a restore reads, its manifest and objects of earlier backups included.
    pub needs: BTreeSet<ObjectName>,
}

/// An object of a backup's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: ObjectName,
    /// Whose folder.
    pub backup: String,
    /// The cluster's folder that is in.
    pub system: SystemIdentifier,
    /// When it was written.
    pub written: Moment,
}

/// A segment of the log, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its name.
    pub name: ObjectName,
    /// Whose.
    pub system: SystemIdentifier,
    /// Which timeline's.
    pub timeline: Timeline,
    /// Where the segment begins that it is, or is a piece of.
    pub segment: Lsn,
    /// Its first byte.
    pub from: Lsn,
    /// The first byte after it.
    pub to: Lsn,
    /// Whether it is a whole segment.
    pub whole: bool,
    /// When it was written.
    pub written: Moment,
}

/// Where a timeline left another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Whose.
    pub system: SystemIdentifier,
    /// The newer one.
    pub timeline: Timeline,
    /// The older one.
    pub parent: Timeline,
    /// Where.
    pub at: Lsn,
    /// When its history was written down.
    pub written: Moment,
}

/// What is in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The backups that were finished.
    pub points: Vec<Point>,
    /// All objects of backups, also of those that were not finished.
    pub parts: Vec<Part>,
    /// The log.
    pub log: Vec<Log>,
    /// What the histories say.
    pub branches: Vec<Branch>,
}

/// Why a backup is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It is the newest: the next one is compared with it.
    Newest,
    /// It is the newest that is good.
    NewestGood,
    /// It is the newest that was read back.
    NewestVerified,
    /// It ended within the window.
    Window,
    /// The window begins with it.
    WindowBegins,
    /// The newest that was read back before that one, which was not yet.
    WindowBeginsVerified,
    /// The newest of its hour.
    Hour,
    /// The newest of its day.
    Day,
    /// The newest of its week.
    Week,
    /// The newest of its month.
    Month,
}

impl Why {
    /// Whether the log after it is kept as well.
    const fn goes_on(self) -> bool {
        match self {
            Self::Newest
            | Self::NewestGood
            | Self::NewestVerified
            | Self::Window
            | Self::WindowBegins
            | Self::WindowBeginsVerified => true,
            Self::Hour | Self::Day | Self::Week | Self::Month => false,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Newest => "newest",
            Self::NewestGood => "newest good one",
            Self::NewestVerified => "newest that was read back",
            Self::Window => "within the window",
            Self::WindowBegins => "the window begins with it",
            Self::WindowBeginsVerified => "newest that was read back before the window",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
        })
    }
}

/// Why an object may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// The manifest of a backup that is not kept. Removed before anything else: what has none is no backup.
    Expired,
    /// No kept backup is made of it.
    Unneeded,
    /// It is of a backup that was never finished.
    Leftover,
    /// Log that no kept backup needs.
    Log,
    /// A piece of a segment that is there as a whole.
    Piece,
}

/// What is kept and what may be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The moment that it was made for: not later than the newest thing in the archive.
    pub now: Moment,
    /// What is kept, and why.
    pub kept: BTreeMap<String, BTreeSet<Why>>,
    /// The backups that are not.
    pub expired: Vec<String>,
    /// What may be removed, in this order.
    pub remove: Vec<(ObjectName, Gone)>,
}

/// A plan that would lose something: a fault of ours, and nothing is removed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("nothing was removed: the plan would lose {0}")]
pub struct Unsafe(pub String);

/// What is kept and what may be removed, proven.
///
/// # Errors
/// The proof failed.
pub fn plan(there: &Holdings, policy: &Policy, now: Moment) -> Result<Plan, Unsafe> {
    let now = now.min(newest(there));
    let mut kept: BTreeMap<String, BTreeSet<Why>> = BTreeMap::new();
    let mut groups: BTreeMap<_, Vec<&Point>> = BTreeMap::new();
    for point in &there.points {
        groups.entry(&point.of).or_default().push(point);
    }
    for points in groups.values_mut() {
        points.sort_by_key(|point| (point.ended, point.begun, &point.id));
        for (point, why) in choose(points, there, policy, now) {
            kept.entry(point.id.clone()).or_default().insert(why);
        }
    }
    let mut expired: Vec<_> = there.points.iter().filter(|point| !kept.contains_key(&point.id)).collect();
    expired.sort_by_key(|point| (point.ended, &point.id));
    let mut remove: Vec<_> = expired.iter().map(|point| (point.manifest.clone(), Gone::Expired)).collect();
    remove.extend(parts(there, &kept, policy, now));
    remove.extend(log(there, &kept, policy, now));
    let expired = expired.into_iter().map(|point| point.id.clone()).collect();
    let plan = Plan { now, kept, expired, remove };
    proof::prove(there, policy, &plan)?;
    Ok(plan)
}

/// When the newest thing in the archive was made.
fn newest(there: &Holdings) -> Moment {
    let points = there.points.iter().map(|point| point.ended);
    let objects = there.log.iter().map(|log| log.written).chain(there.parts.iter().map(|part| part.written));
    points.chain(objects).max().unwrap_or_default()
}

/// Of backups of one database, oldest first: which are kept, and why.
fn choose<'p>(points: &[&'p Point], there: &Holdings, policy: &Policy, now: Moment) -> Vec<(&'p Point, Why)> {
    let begins = now.before(policy.window);
    let mut kept = Vec::new();
    let mut newest = |why, wanted: &dyn Fn(&Point) -> bool| {
        let found = points.iter().rev().find(|point| wanted(point)).copied();
        kept.extend(found.map(|point| (point, why)));
        found
    };
    newest(Why::Newest, &|_| true);
    newest(Why::NewestGood, &|point| point.good);
    newest(Why::NewestVerified, &|point| point.good && point.verified);
    let before = |point: &Point| point.good && point.ended <= begins;
    let mut begin = |leads: &dyn Fn(&Point) -> bool| {
        if newest(Why::WindowBegins, &|point| before(point) && leads(point)).is_some_and(|p| !p.verified) {
            newest(Why::WindowBeginsVerified, &|point| before(point) && point.verified && leads(point));
        }
    };
    begin(&|_| true);
    // The newest may be of a branch that was left since: what came after the fork needs one from before it.
    let systems: BTreeSet<_> = points.iter().map(|point| point.system).collect();
    let first = points.iter().rev().find(|point| before(point)).map(|point| point.system);
    for (system, timeline) in lived(there, &systems, first, begins) {
        let line = line(there, system, timeline);
        begin(&|point| {
            let until = line.get(&point.end_timeline);
            point.system == system && until.is_some_and(|until| point.end <= *until)
        });
    }
    kept.extend(points.iter().filter(|point| point.ended > begins).map(|point| (*point, Why::Window)));
    let counts = [
        (Why::Hour, policy.hourly, hour as fn(Moment) -> u64),
        (Why::Day, policy.daily, day),
        (Why::Week, policy.weekly, week),
        (Why::Month, policy.monthly, month),
    ];
    for (why, count, of) in counts {
        let mut seen = BTreeSet::new();
        for point in points.iter().rev().filter(|point| point.good) {
            if seen.len() >= count as usize && !seen.contains(&of(point.ended)) {
                break;
            }
            if seen.insert(of(point.ended)) {
                kept.push((point, why));
            }
        }
    }
    kept
}

/// The timelines of these clusters on which something was written after that moment, and of the first of them the last one
/// before it.
fn lived(
    there: &Holdings,
    systems: &BTreeSet<SystemIdentifier>,
    first: Option<SystemIdentifier>,
    begins: Moment,
) -> BTreeSet<(SystemIdentifier, Timeline)> {
    let log = there.log.iter().map(|log| (log.written, log.system, log.timeline));
    // A timeline on which nothing was written yet is lived on as well.
    let branches = there.branches.iter().map(|branch| (branch.written, branch.system, branch.timeline));
    let (mut lived, mut current) = (BTreeSet::new(), None);
    for (written, system, timeline) in log.chain(branches).filter(|(_, system, _)| systems.contains(system)) {
        if written > begins {
            lived.insert((system, timeline));
        } else if Some(system) == first {
            current = current.max(Some((written, timeline)));
        }
    }
    lived.extend(first.zip(current).map(|(system, (_, timeline))| (system, timeline)));
    lived
}

/// The timelines that lead to one, with where each was left for the next.
fn line(there: &Holdings, system: SystemIdentifier, timeline: Timeline) -> BTreeMap<Timeline, Lsn> {
    let mut line = BTreeMap::from([(timeline, Lsn::new(u64::MAX))]);
    let (mut oldest, mut until) = (timeline, u64::MAX);
    let parent = |of| there.branches.iter().find(|branch| branch.system == system && branch.timeline == of);
    while let Some(branch) = parent(oldest).filter(|branch| !line.contains_key(&branch.parent)) {
        // A fork further back is further back for all that came before it.
        until = until.min(branch.at.get());
        line.insert(branch.parent, Lsn::new(until));
        oldest = branch.parent;
    }
    line
}

fn hour(at: Moment) -> u64 {
    at.millis() / 3_600_000
}

fn day(at: Moment) -> u64 {
    at.millis() / 86_400_000
}

/// Weeks begin on Monday; the epoch began on a Thursday.
fn week(at: Moment) -> u64 {
    (day(at) + 3) / 7
}

fn month(at: Moment) -> u64 {
    // `2026-11-21T…`
    let text = at.to_string();
    text.get(..7).map_or(0, |month| month.replace('-', "").parse().unwrap_or_default())
}

/// Objects of backups that nothing needs.
fn parts(
    there: &Holdings,
    kept: &BTreeMap<String, BTreeSet<Why>>,
    policy: &Policy,
    now: Moment,
) -> Vec<(ObjectName, Gone)> {
    let needed: BTreeSet<&ObjectName> = there
        .points
        .iter()
        .filter(|point| kept.contains_key(&point.id))
        .flat_map(|point| &point.needs)
        .collect();
    let finished: BTreeSet<&str> = there.points.iter().map(|point| point.id.as_str()).collect();
    let manifests: BTreeSet<&ObjectName> = there.points.iter().map(|point| &point.manifest).collect();
    let mut touched: BTreeMap<&str, Moment> = BTreeMap::new();
    for part in &there.parts {
        let newest = touched.entry(&part.backup).or_default();
        *newest = part.written.max(*newest);
    }
    let old = |written: Moment| written + policy.grace <= now;
    // Runs of one database do not overlap: one that was begun after the last sign of another has outlived it.
    let outlived = |part: &Part, touched: Moment| {
        there.points.iter().any(|point| point.system == part.system && point.begun > touched)
    };
    let mut gone = Vec::new();
    for part in
        there.parts.iter().filter(|part| !needed.contains(&part.name) && !manifests.contains(&part.name))
    {
        let touched = touched.get(part.backup.as_str()).copied().unwrap_or(part.written);
        if finished.contains(part.backup.as_str()) {
            gone.extend(old(part.written).then(|| (part.name.clone(), Gone::Unneeded)));
        } else if old(touched) && outlived(part, touched) {
            gone.push((part.name.clone(), Gone::Leftover));
        }
    }
    gone
}

/// Log that nothing needs.
fn log(
    there: &Holdings,
    kept: &BTreeMap<String, BTreeSet<Why>>,
    policy: &Policy,
    now: Moment,
) -> Vec<(ObjectName, Gone)> {
    let mut from: BTreeMap<SystemIdentifier, Lsn> = BTreeMap::new();
    let mut around: BTreeMap<SystemIdentifier, Vec<(Lsn, Lsn)>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for point in &there.points {
        known.insert(point.system);
        let Some(why) = kept.get(&point.id) else { continue };
        if why.iter().any(|why| why.goes_on()) {
            let first = from.entry(point.system).or_insert(point.start);
            *first = point.start.min(*first);
        } else {
            around.entry(point.system).or_default().push((point.start, point.end));
        }
    }
    let whole: BTreeSet<_> =
        there.log.iter().filter(|log| log.whole).map(|log| (log.system, log.timeline, log.segment)).collect();
    let mut gone = Vec::new();
    for log in there.log.iter().filter(|log| log.written + policy.grace <= now) {
        // Of a cluster that has no backup yet, one may be under way.
        if !known.contains(&log.system) {
            continue;
        }
        let goes_on = from.get(&log.system).is_some_and(|from| log.to > *from);
        let around = around.get(&log.system).into_iter().flatten();
        let consistent = around.into_iter().any(|(start, end)| log.to > *start && log.from <= *end);
        if !goes_on && !consistent {
            gone.push((log.name.clone(), Gone::Log));
        } else if !log.whole && whole.contains(&(log.system, log.timeline, log.segment)) {
            gone.push((log.name.clone(), Gone::Piece));
        }
    }
    gone
}

#[cfg(test)]
mod tests;
