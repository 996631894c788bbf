//! What can be restored, from what is there: a plan is held against it before anything is removed.
//!
//! **Invariant:** nothing here knows why something is kept.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::ports::ObjectName;

use super::{Branch, Holdings, Log, Plan, Point, Policy, Unsafe};

/// What can be restored on one timeline of one cluster: from the first place to the second, both included.
pub type Spans = BTreeMap<(SystemIdentifier, Timeline), Vec<(Lsn, Lsn)>>;

/// What is there of the log, in stretches without a hole.
struct Stretches(BTreeMap<(SystemIdentifier, Timeline), Vec<(Lsn, Lsn)>>);

impl Stretches {
    fn of<'l>(log: impl Iterator<Item = &'l Log>) -> Self {
        let mut all: BTreeMap<_, Vec<(Lsn, Lsn)>> = BTreeMap::new();
        for log in log {
            all.entry((log.system, log.timeline)).or_default().push((log.from, log.to));
        }
        for stretches in all.values_mut() {
            *stretches = joined(std::mem::take(stretches));
        }
        Self(all)
    }

    /// How far it goes from there without a hole.
    fn reach(&self, system: SystemIdentifier, timeline: Timeline, from: Lsn) -> Option<Lsn> {
        let stretches = self.0.get(&(system, timeline))?;
        let at = stretches.partition_point(|(_, to)| *to < from);
        stretches.get(at).filter(|(begins, _)| *begins <= from).map(|(_, to)| *to)
    }
}

fn joined(mut all: Vec<(Lsn, Lsn)>) -> Vec<(Lsn, Lsn)> {
    all.sort_unstable();
    let mut stretches: Vec<(Lsn, Lsn)> = Vec::new();
    for (from, to) in all {
        match stretches.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => stretches.push((from, to)),
        }
    }
    stretches
}

/// What can be restored from these backups with that log.
pub fn spans<'a>(
    points: impl Iterator<Item = &'a Point>,
    log: impl Iterator<Item = &'a Log>,
    branches: &[Branch],
) -> Spans {
    let stretches = Stretches::of(log);
    let mut spans = Spans::new();
    for point in points.filter(|point| point.good) {
        // Each timeline once: a branch leads to a newer one, and a history that leads back is followed no further.
        let (mut open, mut seen) = (vec![(point.timeline, point.start)], BTreeSet::new());
        while let Some((timeline, from)) = open.pop() {
            let Some(reach) = stretches.reach(point.system, timeline, from) else { continue };
            if !seen.insert(timeline) {
                continue;
            }
            let consistent = if timeline == point.end_timeline { point.end } else { from.max(point.end) };
            let before = timeline == point.timeline && timeline != point.end_timeline;
            if !before && consistent <= reach {
                spans.entry((point.system, timeline)).or_default().push((consistent, reach));
            }
            for branch in branches.iter().filter(|b| b.system == point.system && b.parent == timeline) {
                // One that left before the backup was consistent is another database's life.
                let within = from <= branch.at && branch.at <= reach;
                let leads = branch.timeline == point.end_timeline || branch.at >= point.end;
                if within && leads {
                    open.push((branch.timeline, branch.at));
                }
            }
        }
    }
    for all in spans.values_mut() {
        *all = joined(std::mem::take(all));
    }
    spans
}

/// Whether every place from `from` to `to` can be restored.
fn holds(spans: &Spans, key: (SystemIdentifier, Timeline), from: Lsn, to: Lsn) -> bool {
    spans.get(&key).into_iter().flatten().any(|(begins, ends)| *begins <= from && to <= *ends)
}

/// Of each database: the newest good backup from before that moment.
fn beginnings(there: &Holdings, begins: Moment) -> impl Iterator<Item = &Point> {
    let mut newest: BTreeMap<_, &Point> = BTreeMap::new();
    for point in there.points.iter().filter(|point| point.good && point.ended <= begins) {
        let known = newest.entry(&point.of).or_insert(point);
        if point.ended > known.ended {
            *known = point;
        }
    }
    newest.into_values()
}

/// Holds a plan against what could be restored before.
///
/// # Errors
/// Something within the window, or of a kept backup, could not be restored any more; or the last good backup would be gone.
pub fn prove(there: &Holdings, policy: &Policy, plan: &Plan) -> Result<(), Unsafe> {
    let gone: BTreeSet<&ObjectName> = plan.remove.iter().map(|(name, _)| name).collect();
    let begins: Moment = plan.now.before(policy.window);
    let intact = |point: &&Point| point.needs.iter().all(|name| !gone.contains(name));
    for point in there.points.iter().filter(|point| plan.kept.contains_key(&point.id)) {
        if let Some(name) = point.needs.iter().find(|name| gone.contains(name)) {
            return Err(Unsafe(format!("{name}, which the kept backup {} needs", point.id)));
        }
    }
    let before = spans(there.points.iter(), there.log.iter(), &there.branches);
    let left = there.log.iter().filter(|log| !gone.contains(&log.name));
    let after = spans(there.points.iter().filter(intact), left, &there.branches);
    // On the timeline of a backup, all before its end was written before it ended, whenever the segment was full.
    let older = |(system, timeline): (SystemIdentifier, Timeline)| {
        let here = beginnings(there, begins).filter(|p| p.system == system && p.end_timeline == timeline);
        here.map(|point| point.end).max().unwrap_or_default()
    };
    let older: BTreeMap<_, Lsn> = before.keys().map(|key| (*key, older(*key))).collect();
    for log in there.log.iter().filter(|log| log.written > begins) {
        let key = (log.system, log.timeline);
        for (from, to) in before.get(&key).into_iter().flatten() {
            let from = log.from.max(*from).max(older.get(&key).copied().unwrap_or_default());
            let to = log.to.min(*to);
            if from <= to && !holds(&after, key, from, to) {
                let timeline = key.1.get();
                return Err(Unsafe(format!(
                    "{from} to {to} on timeline {timeline}, which is within the window"
                )));
            }
        }
    }
    // Where the window begins, nothing may have happened for long: what counts is the newest of what came before it.
    for point in beginnings(there, begins) {
        let earlier = there.log.iter().filter(|log| log.system == point.system && log.written <= begins);
        let Some(log) = earlier.max_by_key(|log| (log.written, log.timeline, log.to)) else { continue };
        let key = (log.system, log.timeline);
        if log.written > point.ended
            && holds(&before, key, log.to, log.to)
            && !holds(&after, key, log.to, log.to)
        {
            return Err(Unsafe(format!("{}, with which the window begins", log.to)));
        }
    }
    for branch in there.branches.iter().filter(|branch| branch.written > begins) {
        let key = (branch.system, branch.parent);
        if holds(&before, key, branch.at, branch.at) && !holds(&after, key, branch.at, branch.at) {
            return Err(Unsafe(format!("{}, where timeline {} begins", branch.at, branch.timeline.get())));
        }
    }
    let same = |point: &Point| {
        let key = (point.system, point.end_timeline);
        !holds(&before, key, point.end, point.end) || holds(&after, key, point.end, point.end)
    };
    for point in there.points.iter().filter(|point| point.good) {
        let kept = plan.kept.contains_key(&point.id);
        if (kept || point.ended > begins) && !same(point) {
            return Err(Unsafe(format!("the backup {}", point.id)));
        }
        let of_it = || there.points.iter().filter(|other| other.of == point.of && other.good);
        if !of_it().any(|other| plan.kept.contains_key(&other.id)) {
            return Err(Unsafe(format!("every good backup of {}/{}", point.of.0, point.of.1)));
        }
    }
    Ok(())
}
