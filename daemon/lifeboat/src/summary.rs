//! Runs as a whole, put together from their records.

use std::collections::BTreeMap;

use lifeboat_core::loss::{Loss, LossManifest};
use lifeboat_core::outcome::{Rejoined, Salvage};
use lifeboat_core::record::{Ending, Trigger};
use lifeboat_core::{
    AgentName, DatabaseName, Epoch, Moment, Outcome, Output, Record, RegionName, RunId, Stamped, StepName,
    WorkloadName,
};
use serde::Serialize;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunSummary {
    pub(crate) run: RunId,
    pub(crate) workload: WorkloadName,
    pub(crate) runbook: String,
    pub(crate) from: RegionName,
    pub(crate) to: RegionName,
    pub(crate) epoch: Epoch,
    pub(crate) trigger: Trigger,
    pub(crate) opened: Moment,
    pub(crate) ended: Option<Moment>,
    /// `running`, `asking`, `stranded`, `undoing`, `done`, `failed`, `undone`, `abandoned` or `lapsed`.
    pub(crate) state: &'static str,
    /// Why it is in that state.
    pub(crate) because: String,
    pub(crate) loss: Option<Loss>,
    /// What exactly a promotion lost.
    pub(crate) lost: Option<LossManifest>,
    /// What was kept of a returned primary.
    pub(crate) salvages: BTreeMap<DatabaseName, Salvage>,
    /// How old primaries became standbys.
    pub(crate) rejoins: BTreeMap<DatabaseName, Rejoined>,
    pub(crate) steps: Vec<StepSummary>,
    /// The agents that took it over from one that was gone, in their order.
    pub(crate) takeovers: Vec<Takeover>,
}

/// An agent went on with a run that another one had opened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Takeover {
    pub(crate) at: Moment,
    /// None when the record does not say who was elected before.
    pub(crate) agent: Option<AgentName>,
    pub(crate) epoch: Epoch,
}

/// An agent decides from here on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Election {
    pub(crate) at: Moment,
    pub(crate) agent: AgentName,
    pub(crate) term: u64,
    pub(crate) version: String,
}

/// All elections, oldest first.
pub(crate) fn elections(records: &[Stamped]) -> Vec<Election> {
    let each = records.iter().filter_map(|stamped| match &stamped.record {
        Record::Elected { agent, version, term } => {
            Some(Election { at: stamped.at, agent: agent.clone(), term: *term, version: version.clone() })
        }
        _ => None,
    });
    each.collect()
}

/// One step of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StepSummary {
    pub(crate) step: StepName,
    /// When its first attempt started.
    pub(crate) started: Option<Moment>,
    /// When it succeeded.
    pub(crate) ended: Option<Moment>,
    /// From the first attempt to the success, in milliseconds.
    pub(crate) ms: Option<u64>,
    pub(crate) attempts: u32,
}

/// All runs, oldest first.
pub(crate) fn runs(records: &[Stamped]) -> Vec<RunSummary> {
    let mut runs: Vec<RunSummary> = Vec::new();
    let mut decider = None;
    for stamped in records {
        if let Record::Elected { agent, .. } = &stamped.record {
            decider = Some(agent.clone());
        }
        if let Some(opened) = opened(stamped) {
            runs.push(opened);
        } else if let Some(id) = stamped.record.run()
            && let Some(run) = runs.iter_mut().rev().find(|run| run.run == *id)
        {
            run.take(stamped, decider.as_ref());
        }
    }
    runs
}

/// The records that tell a run: its own, and what was seen of the workload's regions just before.
pub(crate) fn telling<'a>(records: &'a [Stamped], run: &RunSummary) -> Vec<&'a Stamped> {
    let own = |stamped: &Stamped| stamped.record.run() == Some(&run.run);
    let first = records.iter().position(own).unwrap_or(records.len());
    let last = records.iter().rposition(own).unwrap_or(0);
    let of_workload = |stamped: &&Stamped| stamped.record.workload() == Some(&run.workload);
    // What led to it: back to the last time that the primary region was recorded as healthy.
    let calm = |stamped: &Stamped| {
        let healthy = lifeboat_core::status::Verdict::Healthy;
        let about = matches!(&stamped.record, Record::VerdictChanged { workload, region, verdict, .. }
            if *workload == run.workload && *region == run.from && *verdict == healthy);
        about || matches!(&stamped.record, Record::RunEnded { workload, .. } if *workload == run.workload)
    };
    let from = records[..first].iter().rposition(calm).map_or(0, |index| index + 1);
    let within = records.iter().enumerate().filter(|(index, _)| (from..=last).contains(index));
    within.map(|(_, stamped)| stamped).filter(of_workload).collect()
}

fn opened(stamped: &Stamped) -> Option<RunSummary> {
    let Record::RunOpened { workload, run, trigger, plan, reason } = &stamped.record else { return None };
    let steps = plan.steps.iter().map(|step| StepSummary {
        step: step.name.clone(),
        started: None,
        ended: None,
        ms: None,
        attempts: 0,
    });
    Some(RunSummary {
        run: run.clone(),
        workload: workload.clone(),
        runbook: plan.runbook.clone(),
        from: plan.from.clone(),
        to: plan.to.clone(),
        epoch: plan.epoch,
        trigger: trigger.clone(),
        opened: stamped.at,
        ended: None,
        state: "running",
        because: reason.to_string(),
        loss: None,
        lost: None,
        salvages: BTreeMap::new(),
        rejoins: BTreeMap::new(),
        steps: steps.collect(),
        takeovers: Vec::new(),
    })
}

impl RunSummary {
    fn take(&mut self, stamped: &Stamped, decider: Option<&AgentName>) {
        match &stamped.record {
            Record::TookOver { epoch, .. } => {
                self.epoch = *epoch;
                self.takeovers.push(Takeover { at: stamped.at, agent: decider.cloned(), epoch: *epoch });
            }
            Record::StepStarted { step, attempt, undo: false, .. } => self.step(step, |s| {
                s.started.get_or_insert(stamped.at);
                s.attempts = *attempt;
            }),
            Record::StepEnded { undo: true, .. } => {}
            Record::StepEnded { step, outcome: Outcome::Succeeded(output), .. } => {
                match output {
                    Output::Salvaged { salvages } => self.salvages.clone_from(salvages),
                    Output::Rejoined { rejoins } => self.rejoins.clone_from(rejoins),
                    _ => {}
                }
                self.step_ended(step, stamped.at);
            }
            Record::LossCounted { manifest, .. } => self.lost = Some(manifest.clone()),
            Record::Unwinding { reason, .. } => self.turn("undoing", reason.to_string()),
            Record::StepSkipped { by, step, .. } => self.turn("running", format!("{by} skipped {step}")),
            Record::StepStarted { undo: true, .. } => {}
            Record::LossMeasured { loss, .. } => self.loss = Some(loss.clone()),
            Record::Asked { question, .. } => self.turn("asking", question.to_string()),
            Record::Approved { by, remaining: 1.., .. } => {
                self.turn("asking", format!("approved by {by}, another person must, too"));
            }
            Record::Approved { by, .. } => self.turn("running", format!("approved by {by}")),
            Record::Stranded { reason, .. } => self.turn("stranded", reason.to_string()),
            Record::Continued { by, .. } => self.turn("running", format!("continued by {by}")),
            Record::RunEnded { ending, reason, .. } => {
                self.ended = Some(stamped.at);
                let state = match ending {
                    Ending::Done => "done",
                    Ending::Failed => "failed",
                    Ending::Abandoned => "abandoned",
                    Ending::Lapsed => "lapsed",
                    Ending::Undone => "undone",
                };
                self.turn(state, reason.to_string());
            }
            _ => {}
        }
    }

    fn step(&mut self, name: &StepName, change: impl FnOnce(&mut StepSummary)) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.step == *name) {
            change(step);
        }
    }

    fn step_ended(&mut self, name: &StepName, at: Moment) {
        self.step(name, |step| {
            step.ended = Some(at);
            let took = step.started.map(|started| at.since(started));
            step.ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        });
    }

    fn turn(&mut self, state: &'static str, because: String) {
        self.state = state;
        self.because = because;
    }
}
