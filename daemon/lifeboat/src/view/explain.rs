//! `lifeboat explain`, for a person.

use std::fmt::Write;

use lifeboat_core::status::Status;
use lifeboat_core::time::length;
use lifeboat_core::{Record, Stamped, WorkloadName};

use crate::summary::RunSummary;
use crate::ui::{Tone, paint};
use crate::view::council;

/// A run, record by record, each with the time since the run was opened.
pub(crate) fn run(summary: &RunSummary, records: &[&Stamped]) -> String {
    let mut page = String::new();
    let RunSummary { run, runbook, workload, from, to, epoch, state, because, .. } = summary;
    let _ = writeln!(page, "{run}: {runbook} of {workload} from {from} to {to}, epoch {epoch}: {state}");
    let _ = writeln!(page, "{because}\n");
    for stamped in records {
        let time = if stamped.at < summary.opened {
            format!("-{}", length(summary.opened.since(stamped.at)))
        } else {
            format!("+{}", length(stamped.at.since(summary.opened)))
        };
        let _ = writeln!(page, "{}  {time:>10}  {}", stamped.at, stamped.record);
        if let Record::Asked { seen, .. } = &stamped.record {
            council::write_evidence(&mut page, from, seen);
        }
    }
    page
}

/// Each condition of an automatic failover, with its number, and who sees what.
pub(crate) fn why_not(workload: &WorkloadName, all: &Status) -> String {
    let mut page = String::new();
    let Some(status) = all.workloads.get(workload) else { return page };
    let shut = status.conditions.iter().filter(|condition| !condition.holds).count();
    let _ = match shut {
        0 => writeln!(page, "{workload} would fail over now: every condition holds"),
        1 => writeln!(page, "{workload} does not fail over by itself: one condition does not hold"),
        _ => writeln!(page, "{workload} does not fail over by itself: {shut} conditions do not hold"),
    };
    for condition in &status.conditions {
        let mark = if condition.holds { paint(Tone::Good, "yes") } else { paint(Tone::Bad, "no ") };
        let _ = writeln!(page, "  {mark}  {:<18} {}", condition.gate.to_string(), condition.reason);
    }
    if !all.vantages.is_empty() {
        page.push('\n');
        council::write_head(&mut page, all);
        council::write_matrix(&mut page, all, workload);
    }
    page
}
