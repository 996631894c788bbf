//! Several agents, for a person: who decides, whether the coordinator is reached, and who sees what.

use std::collections::BTreeMap;
use std::fmt::Write;

use lifeboat_core::head::Guarded;
use lifeboat_core::status::{SeenStatus, Status, VantageStatus, Verdict, WorkloadStatus};
use lifeboat_core::time::length;
use lifeboat_core::{AgentName, RegionName, WorkloadName};

use crate::ui::{Tone, paint, tone};

/// The widest column of a table; longer names are cut by nobody, they only move what follows.
const NAME: usize = 14;
const CELL: usize = 22;

/// Who decides, and whether the coordinator is reached; nothing for an agent that is alone.
pub(crate) fn write_head(page: &mut String, status: &Status) {
    let Some(coordination) = &status.coordination else { return };
    let part = match &status.decider {
        Some(decider) if decider.here => {
            format!(
                "{} since {}, term {}",
                paint(Tone::Good, "this agent decides"),
                decider.since,
                decider.term
            )
        }
        Some(decider) if decider.agent == status.agent => {
            let text = "this agent stands by, and was the last to decide";
            format!("{}, from {}, term {}", paint(Tone::Warn, text), decider.since, decider.term)
        }
        Some(decider) => format!(
            "this agent stands by; {} decides since {}, term {}",
            paint(Tone::Bold, decider.agent.as_str()),
            decider.since,
            decider.term
        ),
        None => paint(Tone::Warn, "no agent decides yet"),
    };
    let _ = writeln!(page, "{part}");
    let _ = match (&coordination.reason, coordination.reached) {
        (Some(reason), false) => writeln!(page, "{}", paint(Tone::Bad, &reason.to_string())),
        (None, false) => writeln!(page, "coordinator {}", paint(Tone::Bad, "not reached")),
        (_, true) => writeln!(page, "coordinator {}", paint(Tone::Good, "reached")),
    };
}

/// Each sentry of a workload.
pub(crate) fn write_sentries(page: &mut String, workload: &WorkloadStatus) {
    for (region, sentry) in &workload.sentries {
        let since = sentry.since.map_or_else(String::new, |since| format!(" (for {} so far)", length(since)));
        let text = match (sentry.says, sentry.since) {
            (Some(Guarded::Writing), _) => paint(Tone::Good, "holds the write lease"),
            (Some(Guarded::Following), _) => paint(Tone::Good, "watches a standby"),
            (Some(Guarded::Stopped), _) => paint(Tone::Warn, "keeps the database stopped"),
            (None, Some(_)) => paint(Tone::Bad, "has not renewed its lease"),
            (None, None) => paint(Tone::Bad, "was never heard of"),
        };
        let _ = writeln!(page, "  sentry in {region}: {text}{since}");
    }
}

/// Who sees what of a workload: a row for each vantage, a column for each region. Nothing for an agent that is alone.
pub(crate) fn write_matrix(page: &mut String, status: &Status, name: &WorkloadName) {
    let Some(workload) = status.workloads.get(name).filter(|_| !status.vantages.is_empty()) else { return };
    let heads: String =
        workload.regions.keys().map(|region| format!(" {:<CELL$}", region.as_str())).collect();
    let line = format!("  {:<NAME$} {:<NAME$} {:<10}{heads}", "seen by", "in", "heard");
    let _ = writeln!(page, "{}", line.trim_end());
    for (agent, vantage) in &status.vantages {
        let sees = vantage.sees.get(name);
        let cells: String = workload
            .regions
            .keys()
            .map(|region| format!(" {}", cell(sees.and_then(|sees| sees.get(region)))))
            .collect();
        let place = vantage.place.as_str();
        let line = format!("  {:<NAME$} {place:<NAME$} {:<10}{cells}", agent.as_str(), heard(vantage));
        let _ = writeln!(page, "{}", line.trim_end());
        write_doubts(page, agent, vantage, name, workload);
    }
}

/// What each vantage said of a region when a person was asked.
pub(crate) fn write_evidence(page: &mut String, region: &RegionName, seen: &BTreeMap<AgentName, SeenStatus>) {
    for (agent, seen) in seen {
        let _ = writeln!(page, "    {:<NAME$} {} {}", agent.as_str(), cell(Some(seen)), seen.reason);
        let no_vote = seen.abstains.as_ref().filter(|a| seen.verdict == Verdict::Lost && **a != seen.reason);
        if let Some(abstains) = no_vote {
            let _ = writeln!(page, "    {} {abstains}", paint(Tone::Warn, "no vote:"));
        }
    }
    if !seen.is_empty() {
        let votes = seen.values().filter(|seen| seen.abstains.is_none()).count();
        let _ = writeln!(
            page,
            "    {votes} of {} saw the loss of {region} and could prove it, when this was asked",
            seen.len()
        );
    }
}

/// What is behind a row: why a loss that is seen is no vote, and what is wrong where it is not seen.
fn write_doubts(
    page: &mut String,
    agent: &AgentName,
    vantage: &VantageStatus,
    name: &WorkloadName,
    workload: &WorkloadStatus,
) {
    if vantage.connected == Some(false) {
        let _ = writeln!(page, "    {agent} cannot prove its own connectivity: it abstains");
    }
    for (region, seen) in vantage.sees.get(name).into_iter().flatten() {
        if seen.verdict == Verdict::Healthy || !workload.regions.contains_key(region) {
            continue;
        }
        let _ = writeln!(page, "    {agent} on {region}: {}", seen.reason);
        if let Some(abstains) =
            seen.abstains.as_ref().filter(|a| seen.verdict == Verdict::Lost && **a != seen.reason)
        {
            let _ = writeln!(page, "    {} {abstains}", paint(Tone::Warn, "no vote:"));
        }
    }
}

fn heard(vantage: &VantageStatus) -> String {
    match (vantage.here, vantage.age.or(vantage.heard)) {
        (true, _) => "here".to_owned(),
        (false, Some(ago)) => length(ago),
        (false, None) => "never".to_owned(),
    }
}

/// What a vantage says of a region, in a word or two, padded before it is painted.
fn cell(seen: Option<&SeenStatus>) -> String {
    let (tone, text) = match seen {
        None => (Tone::Dim, "nothing known".to_owned()),
        Some(seen) if seen.verdict == Verdict::Lost => match (&seen.abstains, seen.proven) {
            (None, _) => (Tone::Bad, "lost, proven, a vote".to_owned()),
            (Some(_), true) => (Tone::Warn, "lost, proven, no vote".to_owned()),
            (Some(_), false) => (Tone::Warn, "lost, not proven".to_owned()),
        },
        Some(seen) => (tone(seen.verdict), seen.verdict.to_string()),
    };
    paint(tone, &format!("{text:<CELL$}"))
}

#[cfg(test)]
mod tests;
