//! The judge: what must hold at every moment and at the end. It looks at the servers and at the records, and uses
//! nothing of the code that made the decisions.
//!
//! **Invariant:** a promise that is broken ends the test at once, with the trouble and the whole journal.

use lifeboat_core::order::Question;
use lifeboat_core::plan::Action;
use lifeboat_core::record::Ending;
use lifeboat_core::{Command, Record, RegionName, Stamped};
use lifeboat_runbooks::Kind;

use crate::server::Estate;

/// The kind, the old primary and the target of the newest run on record.
pub(crate) fn newest_run(records: &[Stamped]) -> Option<(Kind, RegionName, RegionName)> {
    records.iter().rev().find_map(|stamped| match &stamped.record {
        Record::RunOpened { plan, .. } => Some((plan.kind, plan.from.clone(), plan.to.clone())),
        _ => None,
    })
}

/// How the newest run ended; none while it is open.
pub(crate) fn ending(records: &[Stamped]) -> Option<Ending> {
    records.iter().rev().find_map(|stamped| match &stamped.record {
        Record::RunOpened { .. } => Some(None),
        Record::RunEnded { ending, .. } => Some(Some(*ending)),
        _ => None,
    })?
}

/// Whether a person accepted, on record, that the fence of the newest run is not proven.
pub(crate) fn waived(records: &[Stamped]) -> bool {
    let newest = records.iter().rev().take_while(|s| !matches!(s.record, Record::RunOpened { .. }));
    newest.into_iter().any(|s| {
        matches!(&s.record, Record::Approved { question: Question::FenceUnproven { .. }, remaining: 0, .. })
    })
}

/// Whether the newest run has recorded that it starts this step.
fn announced(records: &[Stamped], command: &Command) -> bool {
    records.iter().any(|s| {
        matches!(&s.record, Record::StepStarted { run, step, attempt, undo, .. }
            if *run == command.run && *step == command.step && *attempt == command.attempt && *undo == command.undo)
    })
}

/// What is wrong with starting this, now; nothing when all is well.
pub(crate) fn judge_start(records: &[Stamped], command: &Command) -> Option<String> {
    (!announced(records, command)).then(|| format!("{} is started and not on record", command.step))
}

/// What is wrong with this effect, just before it is there.
pub(crate) fn judge_effect(estate: &Estate, records: &[Stamped], action: &Action) -> Option<String> {
    let (kind, from, to) = newest_run(records)?;
    let (old, new) = (&estate.servers[&from], &estate.servers[&to]);
    let wrong = |what: &str| Some(what.to_owned());
    match action {
        Action::Promote { region, .. } if estate.servers[region].primary => None,
        Action::Promote { .. } if !old.fenced && !waived(records) => {
            wrong("promoted while the old primary is open")
        }
        Action::Promote { .. } if kind.planned() && new.log < old.log => {
            Some(format!("promoted at {} and the old primary acknowledged {}", new.log, old.log))
        }
        Action::Lift { .. } if new.primary => wrong("lifted beside a new primary"),
        Action::SwitchDns { .. } if !new.primary => wrong("the names moved to a standby"),
        Action::Rejoin { .. } if !new.primary => wrong("a standby made of the only primary"),
        Action::Rejoin { .. } if kind == Kind::Rejoin && old.primary && !old.fenced => {
            wrong("a standby made of what takes writes")
        }
        Action::Rejoin { .. } if kind == Kind::Rejoin && old.primary && !estate.salvaged => {
            wrong("what only the returned primary has is overwritten")
        }
        _ => None,
    }
}

/// What must hold after each moment.
pub(crate) fn judge_moment(estate: &Estate, records: &[Stamped], split: bool) -> Option<String> {
    let writable = estate.writable();
    let excused = split || waived(records);
    (writable.len() > 1 && !excused).then(|| format!("writes are taken in {writable:?}"))
}

/// What two ends have in common when they are the same: roles, fences, names, salvage, the operator's own effects.
/// Whether a server that does not answer is fenced is nobody's business when a person accepted that it may not be.
pub(crate) fn summary(estate: &Estate, waived: bool) -> String {
    let servers: Vec<String> = estate
        .servers
        .iter()
        .map(|(region, s)| {
            let fenced = if waived && !s.up { "?".to_owned() } else { s.fenced.to_string() };
            format!(
                "{region}: primary {} fenced {fenced} timeline {} follows {}",
                s.primary, s.timeline, s.follows
            )
        })
        .collect();
    format!("{servers:?} names {} salvaged {} own {:?}", estate.names, estate.salvaged, estate.flags)
}

/// The regions whose servers are primaries.
fn primaries(estate: &Estate) -> Vec<&RegionName> {
    estate.servers.iter().filter(|(_, s)| s.primary).map(|(region, _)| region).collect()
}

/// What is wrong with the end of a planned move whose old region died on the way: the workload must be served, and
/// when another run had to see to that, nothing of the planned one may be left. Nobody can open a dead server.
pub(crate) fn judge_survival(estate: &Estate, records: &[Stamped], dead: &RegionName) -> Option<String> {
    let writable = estate.writable();
    if writable != std::iter::once(&estate.names).collect() {
        return Some(format!("writes are taken in {writable:?}, and the names say {}", estate.names));
    }
    let replaced = newest_run(records).is_some_and(|(kind, ..)| kind == Kind::Failover);
    let left = estate.flags.iter().find(|flag| flag.contains(dead.as_str()))?;
    replaced.then(|| format!("{left:?} of the planned move stayed"))
}

/// What is wrong with a run that came to nothing: it must have left everything as it was.
pub(crate) fn judge_return(before: &Estate, after: &Estate, kind: Kind) -> Option<String> {
    if kind != Kind::Rejoin && primaries(before) != primaries(after) {
        return Some("it came to nothing, and somebody is promoted".to_owned());
    }
    if before.names != after.names {
        return Some(format!("it came to nothing, and the names say {}", after.names));
    }
    let clean = before.flags == after.flags;
    match kind {
        Kind::Switchover | Kind::Failback if before.writable() != after.writable() => {
            Some(format!("it came to nothing, and writes are taken in {:?}", after.writable()))
        }
        Kind::Failover | Kind::Switchover | Kind::Failback if !clean => {
            Some(format!("it came to nothing, and {:?} stayed", after.flags))
        }
        _ => None,
    }
}
