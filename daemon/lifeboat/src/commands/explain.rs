//! `lifeboat explain`

use std::collections::BTreeMap;

use clap::Args;
use lifeboat_core::status::{CoordinationStatus, DeciderStatus, VantageStatus};
use lifeboat_core::{AgentName, Condition, RunId, Stamped, WorkloadName};
use serde::Serialize;

use crate::cli::{Format, Place};
use crate::client::{self, Client};
use crate::commands::talk;
use crate::failure::{Exit, Failure};
use crate::{summary, ui, view};

/// Say why: everything a run decided and did, with its reasons and numbers; or, with --why-not, each condition of an
/// automatic failover of a workload, whether it holds now, and its number.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A run (as `lifeboat history` lists them), or with --why-not a workload.
    subject: String,
    /// Explain why the workload does not fail over by itself now.
    #[arg(long)]
    why_not: bool,
    #[command(flatten)]
    format: Format,
}

/// A run with all its records.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    summary: &'a summary::RunSummary,
    records: Vec<&'a Stamped>,
}

/// Each condition of a workload.
#[derive(Serialize)]
struct WhyNot<'a> {
    workload: &'a WorkloadName,
    would_fail_over: bool,
    conditions: &'a [Condition],
    decider: &'a Option<DeciderStatus>,
    coordination: &'a Option<CoordinationStatus>,
    vantages: &'a BTreeMap<AgentName, VantageStatus>,
}

impl Explain {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        if self.why_not { self.why_not(place) } else { self.explain(place) }
    }

    fn explain(self, place: &Place) -> Result<Exit, Failure> {
        let wanted = RunId::new(&self.subject);
        let records = talk(client::records(place))?;
        let runs = summary::runs(&records);
        let Some(summary) = runs.iter().find(|run| run.run == wanted) else {
            let hint = "lifeboat history lists the runs; for a workload: lifeboat explain WORKLOAD --why-not";
            return Err(Failure::new(Exit::Failed, format!("no run {wanted} is on record")).hint(hint));
        };
        let told = summary::telling(&records, summary);
        if self.format.json {
            ui::json(&Explained { summary, records: told });
        } else {
            ui::answer(view::explain::run(summary, &told).trim_end());
        }
        Ok(Exit::Done)
    }

    fn why_not(self, place: &Place) -> Result<Exit, Failure> {
        let workload = WorkloadName::new(&self.subject);
        let client = Client::of(place)?;
        let status = talk(client.status())?;
        let Some(found) = status.workloads.get(&workload) else {
            let known: Vec<&str> = status.workloads.keys().map(WorkloadName::as_str).collect();
            let hint = format!("the agent knows: {}", known.join(", "));
            return Err(Failure::new(Exit::Failed, format!("no workload {workload} here")).hint(hint));
        };
        if self.format.json {
            let would_fail_over = found.conditions.iter().all(|condition| condition.holds);
            ui::json(&WhyNot {
                workload: &workload,
                would_fail_over,
                conditions: &found.conditions,
                decider: &status.decider,
                coordination: &status.coordination,
                vantages: &status.vantages,
            });
        } else {
            ui::answer(view::explain::why_not(&workload, &status).trim_end());
        }
        Ok(Exit::Done)
    }
}
