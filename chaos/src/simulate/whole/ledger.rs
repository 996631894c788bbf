//! The judge's own book of what was begun: an order to the world needs its record, on the shared record, before it.
//!
//! **Invariant:** it is made from the shared record alone; what an agent believes is nothing to it.

use std::collections::BTreeMap;

use lifeboat_core::plan::Action;
use lifeboat_core::{Epoch, Plan, Record, RunId, StepName};

/// What is on record of the steps.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    plans: BTreeMap<RunId, Plan>,
    /// The steps that were started and have not ended, with whether they are taken back.
    open: BTreeMap<RunId, BTreeMap<(StepName, bool), u32>>,
    /// The newest epoch that is on record.
    pub(super) epoch: Epoch,
    /// The tenure of whoever decides, by the record.
    pub(super) term: u64,
}

impl Ledger {
    /// Takes the next record in.
    pub(super) fn take(&mut self, record: &Record) {
        match record {
            Record::Elected { term, .. } => self.term = *term,
            Record::RunOpened { run, plan, .. } => {
                self.epoch = self.epoch.max(plan.epoch);
                self.plans.insert(run.clone(), (**plan).clone());
            }
            Record::TookOver { epoch, .. } => self.epoch = self.epoch.max(*epoch),
            Record::StepStarted { run, step, attempt, undo, .. } => {
                self.open.entry(run.clone()).or_default().insert((step.clone(), *undo), *attempt);
            }
            Record::StepEnded { run, step, undo, .. } => {
                if let Some(open) = self.open.get_mut(run) {
                    open.remove(&(step.clone(), *undo));
                }
            }
            _ => {}
        }
    }

    /// Whether a call of this kind belongs to a step of the run that is on record as started, and has not ended.
    pub(super) fn allows(&self, run: &RunId, kind: &str) -> bool {
        let (Some(open), Some(plan)) = (self.open.get(run), self.plans.get(run)) else { return false };
        open.keys().any(|(step, undo)| {
            let planned = plan.steps.iter().find(|planned| planned.name == *step);
            planned.is_some_and(|planned| if *undo { kind == "lift" } else { serves(&planned.action, kind) })
        })
    }
}

/// Whether a call of this kind is part of an action.
fn serves(action: &Action, kind: &str) -> bool {
    match action {
        Action::MeasureLoss { .. } => kind == "measure",
        Action::Fence { planned: false, .. } => kind == "fence" || kind == "cut-off",
        Action::Fence { planned: true, .. } => kind == "close",
        Action::Promote { .. } => kind == "promote",
        Action::AwaitServing { .. } => kind == "write",
        Action::SwitchDns { .. } => kind == "names",
        Action::Verify { .. } => kind == "census" || kind == "visit",
        Action::CheckStandby { .. } => ["fit", "mark", "catch-up", "census"].contains(&kind),
        Action::Drain { .. } => kind == "drain",
        Action::Lift { .. } => kind == "lift",
        Action::CatchUp { .. } => kind == "catch-up",
        Action::Salvage { .. } => kind == "salvage" || kind == "offer",
        Action::Rejoin { .. } => kind == "rejoin" || kind == "offer",
        Action::AwaitReplication { .. } => kind == "mark" || kind == "catch-up",
        Action::Run { .. }
        | Action::Http { .. }
        | Action::Sql { .. }
        | Action::Wait { .. }
        | Action::Notify { .. }
        | Action::Approve
        | Action::Report => false,
    }
}
