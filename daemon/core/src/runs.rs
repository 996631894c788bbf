//! Carrying runs on: opening them, taking outcomes in, doing what may follow.

use lifeboat_runbooks::Deed;

use crate::decision::{Command, Severity};
use crate::guardian::Deciding;
use crate::loss::Loss;
use crate::machine::Phase;
use crate::names::{RegionName, RunId, StepName};
use crate::outcome::{Fault, FaultKind, Outcome, Output};
use crate::plan::Action;
use crate::reason::Reason;
use crate::record::{Ending, Record, Trigger};
use crate::run::{Next, Progress, Run, Situation};

impl Deciding<'_> {
    /// Opens a run to `to` and starts its first step.
    pub(crate) fn open(&mut self, to: RegionName, trigger: Trigger, reason: Reason) -> Result<RunId, Reason> {
        let plan = self.workload.plan(self.runbook, to)?;
        let run = plan.run.clone();
        let workload = self.name();
        self.write(Record::RunOpened {
            workload,
            run: run.clone(),
            trigger,
            plan: Box::new(plan),
            reason: reason.clone(),
        });
        self.tell(Severity::Warning, reason);
        self.advance();
        Ok(run)
    }

    /// The run under way.
    fn run(&self) -> Option<&Run> {
        match &self.workload.ledger.phase {
            Phase::FailingOver(run) => Some(run),
            Phase::Guarding | Phase::Doubting | Phase::Stranded(..) => None,
        }
    }

    /// Does what the run allows next.
    pub(crate) fn advance(&mut self) {
        let Some(run) = self.run() else { return };
        let old_primary = self.gates().confirmed(&run.plan.from);
        let situation = Situation { now: self.now, policy: &self.workload.policy, old_primary };
        let (next, id) = (run.next(situation), run.id().clone());
        let workload = self.name();
        match next {
            Next::Busy => {}
            Next::WaitUntil(moment) => self.decision.wake_at(moment),
            Next::Start { index, attempt } => self.start_step(index, attempt),
            Next::Ask(question) => {
                let expires = self.now + self.workload.policy.failover.approval_expires;
                self.decision.wake_at(expires);
                self.write(Record::Asked { workload, run: id.clone(), question: question.clone(), expires });
                self.tell(Severity::Critical, Reason::Asking { question, run: id });
            }
            Next::Strand(step, reason) => {
                self.write(Record::Stranded { workload, run: id, step, reason: reason.clone() });
                self.tell(Severity::Critical, reason);
            }
            Next::Fail(reason) => self.end(Ending::Failed, Severity::Critical, reason),
            Next::Abandon(reason) => self.end(Ending::Abandoned, Severity::Info, reason),
            Next::Lapse(reason) => self.end(Ending::Lapsed, Severity::Critical, reason),
            Next::Finish { unreported } => self.finish(unreported),
        }
    }

    fn start_step(&mut self, index: usize, attempt: u32) {
        let Some(run) = self.run() else { return };
        let step = &run.plan.steps[index];
        let command = Command {
            workload: self.name(),
            run: run.id().clone(),
            step: step.name.clone(),
            attempt,
            action: step.action.clone(),
            limit: step.limit,
        };
        let (workload, run, step) = (command.workload.clone(), command.run.clone(), command.step.clone());
        self.write(Record::StepStarted { workload, run, step, attempt });
        self.decision.commands.push(command);
    }

    /// After a restart: whatever was under way may or may not have happened. Every action looks before it
    /// acts, so it is started again; and a fence is proven again before the promotion, because nobody knows
    /// what happened to the old primary meanwhile.
    pub(crate) fn recover(&mut self) {
        if self.renew_fence() {
            return self.advance();
        }
        let started = self.run().and_then(|run| match run.current() {
            Some((index, _, Progress::Started { attempt, .. })) => Some((index, *attempt)),
            _ => None,
        });
        match started {
            Some((index, attempt)) => self.start_step(index, attempt + 1),
            None => self.advance(),
        }
        self.remind();
    }

    /// Opens the fence again when the run stands between it and the promotion.
    pub(crate) fn renew_fence(&mut self) -> bool {
        let Some(run) = self.run().filter(|run| run.question.is_none()) else { return false };
        let Some(step) = run.fence_to_renew().cloned() else { return false };
        let (workload, run) = (self.name(), run.id().clone());
        self.write(Record::Reopened { workload, run, step });
        true
    }

    /// Tells again what waits for a person: the agent may have died before the notice went out.
    pub(crate) fn remind(&mut self) {
        let reason = match &self.workload.ledger.phase {
            Phase::FailingOver(run) => run
                .question
                .as_ref()
                .map(|(question, _)| Reason::Asking { question: question.clone(), run: run.id().clone() }),
            Phase::Stranded(_, reason) => Some(reason.clone()),
            Phase::Guarding | Phase::Doubting => None,
        };
        if let Some(reason) = reason {
            self.tell(Severity::Critical, reason);
        }
    }

    /// Takes the outcome of an attempt in, if it is the attempt that is under way.
    pub(crate) fn take_outcome(&mut self, run: &RunId, step: &StepName, attempt: u32, outcome: Outcome) {
        let Some(open) = self.run().filter(|open| open.id() == run) else { return };
        let Some((index, planned, Progress::Started { attempt: current, .. })) = open.current() else {
            return;
        };
        if planned.name != *step || *current != attempt {
            return;
        }
        let outcome = match outcome {
            Outcome::Succeeded(output) => self.checked(&planned.action, output),
            failed @ Outcome::Failed(_) => failed,
        };
        let retry_at = match &outcome {
            Outcome::Succeeded(_) => None,
            Outcome::Failed(fault) => open.retry_at(index, attempt, fault, self.now),
        };
        let (deed, from, to, epoch) =
            (planned.deed, open.plan.from.clone(), open.plan.to.clone(), open.plan.epoch);
        let (workload, run, step) = (self.name(), run.clone(), step.clone());
        let measured = self.measured(&from, &outcome);
        let moved = deed == Deed::Promote && matches!(outcome, Outcome::Succeeded(_));
        self.write(Record::StepEnded {
            workload: workload.clone(),
            run: run.clone(),
            step,
            attempt,
            outcome,
            retry_at,
        });
        if let Some(loss) = measured {
            self.write(Record::LossMeasured { workload: workload.clone(), run, loss });
        }
        if moved {
            for region in [&from, &to] {
                self.workload.survey.forget(&self.workload.policy, region);
            }
            self.write(Record::PrimaryMoved { workload, region: to, epoch });
        }
        self.advance();
    }

    /// An output that does not fit its action is a failure, whatever the adapter thinks.
    fn checked(&self, action: &Action, output: Output) -> Outcome {
        let missing = match (action, &output) {
            (Action::MeasureLoss { databases, region }, Output::Positions { positions }) => {
                let stranger = positions.iter().find_map(|(database, target)| {
                    let wanted = self.workload.cluster_of(database)?;
                    let reason = Reason::WrongCluster {
                        database: database.clone(),
                        region: region.clone(),
                        found: target.system,
                        wanted,
                    };
                    (target.system != wanted).then_some(reason)
                });
                if let Some(reason) = stranger {
                    return Outcome::Failed(Fault::new(FaultKind::Refused, reason.to_string()));
                }
                databases.iter().any(|d| !positions.contains_key(d))
            }
            (Action::Fence { databases, .. }, Output::Fenced { proofs }) => {
                databases.iter().any(|d| !proofs.contains_key(d))
            }
            (Action::Promote { databases, .. }, Output::Promoted { promotions }) => {
                databases.keys().any(|d| !promotions.contains_key(d))
            }
            (Action::SwitchDns { changes }, Output::Switched { names }) => {
                changes.iter().any(|c| names.get(&c.name).is_none_or(|n| n.values != c.to))
            }
            (Action::Verify { changes, canary }, Output::Verified { censuses, canary: visit }) => {
                let agreed =
                    |name| censuses.get(name).is_some_and(|c| c.disagree.is_empty() && !c.agree.is_empty());
                changes.iter().any(|c| !agreed(&c.name)) || (*canary && visit.is_none())
            }
            (Action::AwaitServing { .. }, Output::Serving { .. }) | (Action::Report, Output::Reported) => {
                false
            }
            _ => true,
        };
        if missing {
            return Outcome::Failed(Fault::new(
                FaultKind::Unclear,
                "the step's answer does not cover all it was to do",
            ));
        }
        Outcome::Succeeded(output)
    }

    fn measured(&self, from: &RegionName, outcome: &Outcome) -> Option<Loss> {
        let Outcome::Succeeded(Output::Positions { positions }) = outcome else { return None };
        let w = &self.workload;
        let samples = w.survey.primary_samples(&w.policy, self.agent, from);
        Some(Loss::measure(self.now, positions, &samples))
    }

    fn finish(&mut self, unreported: Option<Reason>) {
        if let Some(reason) = unreported {
            self.tell(Severity::Critical, reason);
        }
        let Some(run) = self.run() else { return };
        let reason = Reason::Recovered {
            to: run.plan.to.clone(),
            loss: run.loss.clone(),
            took: self.now.since(run.opened),
        };
        self.end(Ending::Done, Severity::Warning, reason);
    }

    pub(crate) fn end(&mut self, ending: Ending, severity: Severity, reason: Reason) {
        let Some(run) = self.workload.ledger.phase.run().map(|run| run.id().clone()) else { return };
        // Told first: the notice carries the run and its loss, which end with the record.
        self.tell(severity, reason.clone());
        let workload = self.name();
        self.write(Record::RunEnded { workload, run, ending, reason });
    }
}
