//! Carrying runs on: opening them, taking outcomes in, doing what may follow.

use std::time::Duration;

use lifeboat_runbooks::Kind;

use crate::decision::{Command, Severity};
use crate::event::Attempt;
use crate::guardian::Deciding;
use crate::loss::{Basis, DatabaseLoss, Loss, LossManifest, Stamps};
use crate::machine::Phase;
use crate::names::{RegionName, RunId};
use crate::outcome::{Fault, FaultKind, FenceProof, Outcome, Output};
use crate::overview::seen_by_all;
use crate::plan::Action;
use crate::reason::Reason;
use crate::record::{Ending, Record, Trigger};
use crate::run::{Next, Run, Situation};
use crate::status::Verdict;

impl Deciding<'_> {
    /// Opens a run of that kind and starts its first steps.
    pub(crate) fn open(
        &mut self,
        kind: Kind,
        region: RegionName,
        trigger: Trigger,
        reason: Reason,
    ) -> Result<RunId, Reason> {
        let plan = self.workload.plan(self.runbooks.page(kind), region, trigger == Trigger::Automatic)?;
        let run = plan.run.clone();
        let workload = self.name();
        let severity = if kind.planned() { Severity::Info } else { Severity::Warning };
        self.write(Record::RunOpened {
            workload,
            run: run.clone(),
            trigger,
            plan: Box::new(plan),
            reason: reason.clone(),
        });
        self.tell(severity, reason);
        self.advance();
        Ok(run)
    }

    /// The run under way.
    fn run(&self) -> Option<&Run> {
        match &self.workload.ledger.phase {
            Phase::Running(run) => Some(run),
            Phase::Guarding | Phase::Doubting | Phase::Stranded(..) => None,
        }
    }

    /// Does all that the run allows now.
    pub(crate) fn advance(&mut self) {
        while self.take_turn() {}
    }

    /// Does one thing that the run allows; says whether there may be more.
    fn take_turn(&mut self) -> bool {
        let Some(run) = self.run() else { return false };
        if let Some(reason) = self.in_the_way(run) {
            self.end(Ending::Failed, Severity::Critical, reason);
            return false;
        }
        let old_primary = self.gates().confirmed(&run.plan.from);
        let situation = Situation { now: self.now, policy: &self.workload.policy, old_primary };
        let (next, id, from) = (run.next(situation), run.id().clone(), run.plan.from.clone());
        let workload = self.name();
        match next {
            Next::Busy => return false,
            Next::WaitUntil(moment) => {
                self.decision.wake_at(moment);
                return false;
            }
            Next::Start { index, attempt, undo } => self.start_step(index, attempt, undo),
            Next::Ask(question) => {
                let expires = self.now + self.workload.policy.failover.approval_expires;
                self.decision.wake_at(expires);
                let seen = seen_by_all(&self.gates(), &from);
                let asked = question.clone();
                self.write(Record::Asked { workload, run: id.clone(), question: asked, expires, seen });
                self.tell(Severity::Critical, Reason::Asking { question: Box::new(question), run: id });
            }
            Next::Strand(step, reason) => {
                self.write(Record::Stranded { workload, run: id, step, reason: reason.clone() });
                self.tell(Severity::Critical, reason);
            }
            Next::Unwind(ending, reason) => {
                self.write(Record::Unwinding { workload, run: id, ending, reason: reason.clone() });
                self.tell(Severity::Warning, reason);
            }
            Next::End(ending, reason) => self.end(ending, severity(ending), reason),
            Next::Finish { unreported } => self.finish(unreported),
        }
        true
    }

    /// Why a rejoin must make way: the workload's primary is lost, and there is a region that could take over. Making a
    /// standby may take hours; what is under way at the returned region goes on there, and touches nothing else.
    fn in_the_way(&self, run: &Run) -> Option<Reason> {
        let primary = &self.workload.ledger.primary;
        let verdict = || self.gates().confirmed(primary);
        let lost =
            run.plan.kind == Kind::Rejoin && verdict() == Verdict::Lost && self.gates().target().is_ok();
        lost.then(|| Reason::PrimaryNotHealthy {
            workload: self.name(),
            region: primary.clone(),
            verdict: Verdict::Lost,
        })
    }

    fn start_step(&mut self, index: usize, attempt: u32, undo: bool) {
        let Some(run) = self.run() else { return };
        let Some((action, limit)) = run.command(index, undo) else { return };
        let step = run.plan.steps[index].name.clone();
        let command =
            Command { workload: self.name(), run: run.id().clone(), step, attempt, undo, action, limit };
        let (workload, run, step) = (command.workload.clone(), command.run.clone(), command.step.clone());
        self.write(Record::StepStarted { workload, run, step, attempt, undo });
        self.decision.commands.push(command);
    }

    /// After a restart: whatever was under way may or may not have happened. Every action looks before it
    /// acts, so it is started again; and a fence is proven again before the promotion, because nobody knows
    /// what happened to the old primary meanwhile.
    pub(crate) fn recover(&mut self) {
        self.move_on_record();
        if !self.renew_fence() {
            let started: Vec<(usize, u32, bool)> = self.run().into_iter().flat_map(Run::under_way).collect();
            for (index, attempt, undo) in started {
                self.start_step(index, attempt + 1, undo);
            }
        }
        self.advance();
        self.remind();
    }

    /// A record that ends with the promotion's outcome lacks that the workload has moved.
    fn move_on_record(&mut self) {
        let Some(plan) = self.run().filter(|run| run.promoted()).map(|run| &run.plan) else { return };
        let (region, epoch) = (plan.to.clone(), plan.epoch);
        if self.workload.ledger.primary != region {
            let workload = self.name();
            self.write(Record::PrimaryMoved { workload, region, epoch });
        }
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
            Phase::Running(run) => run.question.as_ref().map(|(question, _)| Reason::Asking {
                question: Box::new(question.clone()),
                run: run.id().clone(),
            }),
            Phase::Stranded(_, reason) => Some(reason.clone()),
            Phase::Guarding | Phase::Doubting => None,
        };
        if let Some(reason) = reason {
            self.tell(Severity::Critical, reason);
        }
    }

    /// Takes the outcome of an attempt in, if that attempt is under way.
    pub(crate) fn take_outcome(&mut self, ended: &Attempt, outcome: Outcome) {
        let Some(open) = self.run().filter(|open| *open.id() == ended.run) else { return };
        let Some(index) = open.index(&ended.step) else { return };
        if !open.under_way().any(|attempt| attempt == (index, ended.attempt, ended.undo)) {
            return;
        }
        let Some((action, _)) = open.command(index, ended.undo) else { return };
        let outcome = match outcome {
            Outcome::Succeeded(output) => self.checked(&action, output),
            failed @ Outcome::Failed(_) => failed,
        };
        let retry_at = match &outcome {
            Outcome::Succeeded(_) => None,
            Outcome::Failed(fault) => {
                let patience = self.workload.policy.patience(&open.plan.from);
                open.retry_at((index, ended.attempt, ended.undo), fault, patience, self.now)
            }
        };
        let (from, to, epoch) = (open.plan.from.clone(), open.plan.to.clone(), open.plan.epoch);
        let (workload, run) = (self.name(), ended.run.clone());
        let measured = self.measured(&from, &outcome);
        let manifest = self.counted(&outcome);
        let moved = matches!(outcome, Outcome::Succeeded(Output::Promoted { .. }));
        if matches!(outcome, Outcome::Succeeded(Output::Rejoined { .. } | Output::Lifted)) {
            // What was seen of it before is what it was as a primary; or that it was closed, by us.
            self.workload.survey.forget(&self.workload.policy, &from);
        }
        self.write(Record::StepEnded {
            workload: workload.clone(),
            run: run.clone(),
            step: ended.step.clone(),
            attempt: ended.attempt,
            outcome,
            retry_at,
            undo: ended.undo,
        });
        if let Some(loss) = measured {
            self.write(Record::LossMeasured { workload: workload.clone(), run: run.clone(), loss });
        }
        if moved {
            for region in [&from, &to] {
                self.workload.survey.forget(&self.workload.policy, region);
            }
            self.write(Record::PrimaryMoved { workload: workload.clone(), region: to, epoch });
        }
        if let Some(manifest) = manifest {
            self.write(Record::LossCounted { workload, run, manifest: manifest.clone() });
            self.tell(Severity::Warning, Reason::Lost { manifest });
        }
        self.advance();
    }

    /// What the promotion of a failover lost, as soon as it is over.
    fn counted(&self, outcome: &Outcome) -> Option<LossManifest> {
        let Outcome::Succeeded(Output::Promoted { promotions }) = outcome else { return None };
        let run = self.run().filter(|run| run.plan.kind == Kind::Failover)?;
        let (w, from) = (&self.workload, &run.plan.from);
        let samples = w.survey.primary_samples(&w.policy, self.agent, from);
        let measured = run.loss_so_far();
        let databases = promotions.iter().map(|(database, promotion)| {
            let acknowledged = w.survey.acknowledged(from, database);
            let target = run.positions.get(database);
            let sample = samples.get(database);
            let loss = DatabaseLoss::count(target, promotion, sample, &acknowledged, &measured);
            (database.clone(), loss)
        });
        Some(LossManifest { databases: databases.collect() })
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
            (Action::Fence { databases, expiry, cut_off, .. }, Output::Fenced { proofs }) => {
                let allowed = |proof: &FenceProof| match proof {
                    FenceProof::Expired { .. } => *expiry,
                    FenceProof::CutOff { .. } => cut_off.is_some(),
                    FenceProof::WriteRefused { .. }
                    | FenceProof::Isolated { .. }
                    | FenceProof::Closed { .. }
                    | FenceProof::Stopped => true,
                };
                databases.iter().any(|d| !proofs.get(d).is_some_and(allowed))
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
            (Action::CatchUp { goals, .. }, Output::CaughtUp { positions }) => {
                goals.iter().any(|(d, goal)| positions.get(d).is_none_or(|p| !p.reaches(goal)))
            }
            (Action::Salvage { databases, .. }, Output::Salvaged { salvages }) => {
                databases.keys().any(|d| !salvages.contains_key(d))
            }
            (Action::Rejoin { databases, .. }, Output::Rejoined { rejoins }) => {
                databases.keys().any(|d| !rejoins.contains_key(d))
            }
            (Action::AwaitReplication { databases, .. }, Output::Replicating { positions }) => {
                databases.iter().any(|d| !positions.contains_key(d))
            }
            (Action::AwaitServing { .. }, Output::Serving { .. })
            | (Action::Report, Output::Reported)
            | (Action::CheckStandby { .. }, Output::Ready { .. })
            | (Action::Drain { .. }, Output::Drained)
            | (Action::Lift { .. }, Output::Lifted)
            | (
                Action::Run { .. }
                | Action::Http { .. }
                | Action::Sql { .. }
                | Action::Wait { .. }
                | Action::Notify { .. }
                | Action::Approve,
                Output::Did { .. },
            ) => false,
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
        let mut samples = w.survey.primary_samples(&w.policy, self.agent, from);
        samples.iter_mut().for_each(|(name, sample)| sample.marks = w.survey.marks(from, name));
        let stamps = if self.agents.is_empty() { Stamps::Own } else { Stamps::Several };
        Some(Loss::measure(self.now, positions, &samples, stamps))
    }

    fn finish(&mut self, unreported: Option<Reason>) {
        if let Some(reason) = unreported {
            self.tell(Severity::Critical, reason);
        }
        let Some(run) = self.run() else { return };
        let (took, plan) = (self.now.since(run.opened), &run.plan);
        let (to, region) = (plan.to.clone(), plan.from.clone());
        let (severity, reason) = match plan.kind {
            Kind::Failover => (Severity::Warning, Reason::Recovered { to, loss: run.loss.clone(), took }),
            Kind::Switchover | Kind::Failback => {
                let left_out = !run.readmits();
                let reason = Reason::Moved { procedure: plan.kind, to, took };
                if left_out {
                    self.tell(Severity::Warning, Reason::KeptOut { region });
                }
                (Severity::Info, reason)
            }
            Kind::Rejoin if run.readmits() => (Severity::Info, Reason::Readmitted { region, took }),
            Kind::Rejoin => (Severity::Critical, Reason::KeptOut { region }),
        };
        self.end(Ending::Done, severity, reason);
    }

    pub(crate) fn end(&mut self, ending: Ending, severity: Severity, reason: Reason) {
        let Some(run) = self.workload.ledger.phase.run().map(|run| run.id().clone()) else { return };
        // Told first: the notice carries the run and its loss, which end with the record.
        self.tell(severity, reason.clone());
        let workload = self.name();
        self.write(Record::RunEnded { workload, run, ending, reason });
    }
}

/// How much the end of a run matters.
const fn severity(ending: Ending) -> Severity {
    match ending {
        Ending::Done | Ending::Abandoned => Severity::Info,
        Ending::Undone => Severity::Warning,
        Ending::Failed | Ending::Lapsed => Severity::Critical,
    }
}

impl Run {
    /// What is to be done for a step, or to take it back, and within what time.
    fn command(&self, index: usize, undo: bool) -> Option<(Action, Duration)> {
        let step = self.plan.steps.get(index)?;
        if undo {
            return Some((step.undo.clone()?, step.limit));
        }
        let action = match &step.action {
            Action::CatchUp { region, .. } => {
                Action::CatchUp { region: region.clone(), goals: self.ends.clone() }
            }
            Action::Fence { region, databases, planned, returned, expiry, cut_off } => {
                let synchronous = self.loss.as_ref().is_some_and(|loss| loss.basis == Basis::Synchronous);
                Action::Fence {
                    region: region.clone(),
                    databases: databases.clone(),
                    planned: *planned,
                    returned: *returned,
                    expiry: *expiry,
                    cut_off: cut_off.clone().filter(|_| synchronous),
                }
            }
            action => action.clone(),
        };
        Some((action, step.limit))
    }
}
