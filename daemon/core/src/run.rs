//! A plan being carried out: what its records say has happened, and the one function that says what may follow.
//!
//! **Invariant:** a run changes only by records ([`Run::apply`]); [`Run::next`] looks and changes nothing.
//! **Invariant:** no promotion follows unless the fence step gave its proof, or a person accepted, on the
//! record, that there is none; and unless the loss is within the objective, or a person accepted its number.

use std::time::Duration;

use lifeboat_runbooks::Deed;
use serde::{Deserialize, Serialize};

use crate::loss::Loss;
use crate::names::{RunId, StepName};
use crate::order::Question;
use crate::outcome::{Fault, FaultKind, Outcome};
use crate::plan::{Plan, PlannedStep};
use crate::policy::{Mode, WorkloadPolicy};
use crate::reason::Reason;
use crate::record::{Record, Trigger};
use crate::status::Verdict;
use crate::time::Moment;

/// A run, as far as its records tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What is carried out.
    pub plan: Plan,
    /// Who wanted it.
    pub trigger: Trigger,
    /// When it began.
    pub opened: Moment,
    /// Where each step of the plan stands.
    pub progress: Vec<Progress>,
    /// The loss measured.
    pub loss: Option<Loss>,
    /// What it waits for a person to answer, and until when.
    pub question: Option<(Question, Moment)>,
    /// What persons accepted.
    pub accepted: Vec<Question>,
    /// The number of the newest attempt at each step; a number is never used twice in a run.
    pub attempts: Vec<u32>,
    /// How many of them were made before the step was last opened.
    pub spent: Vec<u32>,
    /// When the old primary was first proven, or accepted, to take no more writes.
    pub fenced_at: Option<Moment>,
    /// Whether the step that cannot be taken back was ever started.
    pub past_return: bool,
    /// When the newest of its records was written.
    pub touched: Moment,
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Its turn has not come.
    Waiting,
    /// An attempt is under way, or was when the agent died.
    Started {
        /// Which attempt.
        attempt: u32,
        /// Since when.
        at: Moment,
    },
    /// An attempt failed; the next follows.
    Pausing {
        /// Which attempt failed.
        attempt: u32,
        /// When the next follows.
        until: Moment,
    },
    /// Its effect is there.
    Done {
        /// How long the attempt that succeeded took.
        took: Duration,
    },
    /// It failed for good.
    Failed {
        /// After how many attempts.
        attempts: u32,
        /// How the last went.
        fault: Fault,
    },
    /// A person accepted that its effect is not proven.
    Waived,
}

/// What may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start this attempt of the step with this index.
    Start {
        /// Index into the plan's steps.
        index: usize,
        /// Which attempt.
        attempt: u32,
    },
    /// An attempt is under way.
    Busy,
    /// Nothing before this moment.
    WaitUntil(Moment),
    /// Ask a person.
    Ask(Question),
    /// Give up; nothing was promoted.
    Fail(Reason),
    /// Give up, because it is not wanted any more.
    Abandon(Reason),
    /// The question was not answered in time.
    Lapse(Reason),
    /// A person must look.
    Strand(StepName, Reason),
    /// All is done, but perhaps the report.
    Finish {
        /// Why the report could not be written.
        unreported: Option<Reason>,
    },
}

/// What the run's next step depends on, besides its own records.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// It is now.
    pub now: Moment,
    /// What the workload's operator wants.
    pub policy: &'a WorkloadPolicy,
    /// How the old primary region looks; lost only when the quorum says so.
    pub old_primary: Verdict,
}

impl Run {
    /// A run of which nothing but its opening has happened.
    pub fn open(plan: Plan, trigger: Trigger, at: Moment) -> Self {
        let steps = plan.steps.len();
        Self {
            plan,
            trigger,
            opened: at,
            progress: vec![Progress::Waiting; steps],
            loss: None,
            question: None,
            accepted: Vec::new(),
            attempts: vec![0; steps],
            spent: vec![0; steps],
            fenced_at: None,
            past_return: false,
            touched: at,
        }
    }

    /// Its name.
    pub const fn id(&self) -> &RunId {
        &self.plan.run
    }

    /// The first step that is not done.
    pub fn current(&self) -> Option<(usize, &PlannedStep, &Progress)> {
        let mut steps = self.plan.steps.iter().zip(&self.progress).enumerate();
        let open = steps.find(|(_, (_, p))| !matches!(p, Progress::Done { .. } | Progress::Waived));
        open.map(|(index, (step, progress))| (index, step, progress))
    }

    /// Takes a record of this run in.
    pub fn apply(&mut self, at: Moment, record: &Record) {
        self.touched = at;
        match record {
            Record::StepStarted { step, attempt, .. } => self.apply_start(step, at, *attempt),
            Record::StepEnded { step, attempt, outcome, retry_at, .. } => {
                self.apply_outcome(step, at, *attempt, outcome, *retry_at);
            }
            Record::LossMeasured { loss, .. } => self.loss = Some(loss.clone()),
            Record::Asked { question, expires, .. } => self.question = Some((question.clone(), *expires)),
            Record::Approved { question, .. } => {
                self.question = None;
                self.accepted.push(question.clone());
                if matches!(question, Question::FenceUnproven { .. })
                    && let Some((index, _, _)) = self.current()
                {
                    self.progress[index] = Progress::Waived;
                    self.fenced_at.get_or_insert(at);
                }
            }
            Record::Continued { .. } => {
                if let Some((index, _, _)) = self.current() {
                    self.open_from(index);
                }
            }
            Record::Reopened { step, .. } => {
                if let Some(index) = self.index(step) {
                    self.progress[index] = Progress::Waiting;
                    self.open_from(index);
                }
            }
            Record::RunOpened { .. }
            | Record::Stranded { .. }
            | Record::RunEnded { .. }
            | Record::PrimaryMoved { .. }
            | Record::AgentStarted { .. }
            | Record::VerdictChanged { .. }
            | Record::IdentityLearned { .. }
            | Record::Declined { .. }
            | Record::Paused { .. }
            | Record::Resumed { .. } => {}
        }
    }

    fn index(&self, name: &StepName) -> Option<usize> {
        self.plan.steps.iter().position(|step| step.name == *name)
    }

    /// Lets every step from this one on that is not done begin anew, with all its attempts.
    fn open_from(&mut self, first: usize) {
        for index in first..self.progress.len() {
            if !matches!(self.progress[index], Progress::Done { .. } | Progress::Waived) {
                self.progress[index] = Progress::Waiting;
                self.spent[index] = self.attempts[index];
            }
        }
    }

    fn apply_start(&mut self, step: &StepName, at: Moment, attempt: u32) {
        let Some(index) = self.index(step) else { return };
        self.attempts[index] = attempt;
        self.past_return |= self.plan.steps[index].point_of_no_return;
        self.progress[index] = Progress::Started { attempt, at };
    }

    fn apply_outcome(
        &mut self,
        step: &StepName,
        at: Moment,
        attempt: u32,
        outcome: &Outcome,
        retry_at: Option<Moment>,
    ) {
        let Some(index) = self.index(step) else { return };
        let started = match self.progress[index] {
            Progress::Started { at, .. } => at,
            _ => at,
        };
        self.progress[index] = match (outcome, retry_at) {
            (Outcome::Succeeded(_), _) => Progress::Done { took: at.since(started) },
            (Outcome::Failed(_), Some(until)) => Progress::Pausing { attempt, until },
            (Outcome::Failed(fault), None) => {
                Progress::Failed { attempts: attempt - self.spent[index], fault: fault.clone() }
            }
        };
        if self.plan.steps[index].deed == Deed::Fence {
            match outcome {
                Outcome::Succeeded(_) => _ = self.fenced_at.get_or_insert(at),
                Outcome::Failed(_) => self.fenced_at = None,
            }
        }
    }

    /// The step whose proof must be renewed before this run may promote after a break: the fence, unless a
    /// person accepted that there is no proof.
    pub fn fence_to_renew(&self) -> Option<&StepName> {
        let (_, current, _) = self.current()?;
        if !matches!(current.deed, Deed::Fence | Deed::Promote) {
            return None;
        }
        let mut steps = self.plan.steps.iter().zip(&self.progress);
        let fence = steps.find(|(step, _)| step.deed == Deed::Fence);
        fence.filter(|(_, p)| !matches!(p, Progress::Waived | Progress::Waiting)).map(|(step, _)| &step.name)
    }

    /// When a failed attempt is followed by another; never when the world said no, or someone newer is in charge.
    pub fn retry_at(&self, index: usize, attempt: u32, fault: &Fault, now: Moment) -> Option<Moment> {
        let step = &self.plan.steps[index];
        let again = matches!(fault.kind, FaultKind::Unreachable | FaultKind::Unclear);
        (again && attempt - self.spent[index] < step.attempts).then(|| now + step.pause)
    }

    /// The one function that says what may follow.
    pub fn next(&self, situation: Situation<'_>) -> Next {
        let automatic = self.trigger == Trigger::Automatic;
        if let Some((question, expires)) = &self.question {
            return self.next_while_asking(situation, automatic, question, *expires);
        }
        let Some((index, step, progress)) = self.current() else { return Next::Finish { unreported: None } };
        match progress {
            Progress::Waiting => {
                let start = Next::Start { index, attempt: self.attempts[index] + 1 };
                self.gate(situation, automatic, step).unwrap_or(start)
            }
            Progress::Started { .. } => Next::Busy,
            Progress::Pausing { until, .. } if situation.now < *until => Next::WaitUntil(*until),
            Progress::Pausing { attempt, .. } => Next::Start { index, attempt: attempt + 1 },
            Progress::Failed { attempts, fault } => self.next_after_failure(step, *attempts, fault),
            Progress::Done { .. } | Progress::Waived => Next::Finish { unreported: None },
        }
    }

    fn next_while_asking(
        &self,
        situation: Situation<'_>,
        automatic: bool,
        question: &Question,
        expires: Moment,
    ) -> Next {
        if automatic && situation.old_primary == Verdict::Healthy {
            return Next::Abandon(Reason::PrimaryIsBack { region: self.plan.from.clone() });
        }
        if situation.now >= expires {
            return Next::Lapse(Reason::QuestionLapsed { question: question.clone() });
        }
        Next::WaitUntil(expires)
    }

    /// What must be settled before a step starts for the first time.
    fn gate(&self, situation: Situation<'_>, automatic: bool, step: &PlannedStep) -> Option<Next> {
        match step.deed {
            Deed::Fence if self.past_return => None,
            Deed::Fence => {
                let unwanted = if automatic { self.still_lost(situation) } else { None };
                unwanted.or_else(|| self.fence_gate(situation.policy, automatic).map(Next::Ask))
            }
            // The page's own check makes this impossible; a journal that was tampered with must not promote.
            Deed::Promote if !self.fenced() => Some(Next::Strand(
                step.name.clone(),
                Reason::StepFailed {
                    step: step.name.clone(),
                    attempts: 0,
                    fault: Fault::new(FaultKind::Refused, "the plan promotes without a fence"),
                },
            )),
            Deed::Promote if !self.past_return => self.loss_gate(situation.policy).map(Next::Ask),
            Deed::MeasureLoss
            | Deed::Promote
            | Deed::AwaitServing
            | Deed::SwitchDns
            | Deed::Verify
            | Deed::Report => None,
        }
    }

    /// Whether the fence step gave its proof, or a person accepted that there is none.
    pub fn fenced(&self) -> bool {
        self.did(Deed::Fence)
    }

    /// Whether the names say the target region.
    pub fn switched(&self) -> bool {
        self.did(Deed::SwitchDns)
    }

    fn did(&self, deed: Deed) -> bool {
        let mut steps = self.plan.steps.iter().zip(&self.progress);
        steps.any(|(s, p)| s.deed == deed && matches!(p, Progress::Done { .. } | Progress::Waived))
    }

    /// Nothing has moved yet: a fence would cut a live primary off. One answer since is enough to wait, and
    /// after a restart the evidence has to be gathered anew.
    fn still_lost(&self, situation: Situation<'_>) -> Option<Next> {
        let patience = self.touched + situation.policy.patience(&self.plan.from);
        match situation.old_primary {
            Verdict::Lost => None,
            Verdict::Healthy => Some(Next::Abandon(Reason::PrimaryIsBack { region: self.plan.from.clone() })),
            Verdict::Doubtful if situation.now < patience => Some(Next::WaitUntil(patience)),
            Verdict::Doubtful => {
                Some(Next::Abandon(Reason::LossUnconfirmed { region: self.plan.from.clone() }))
            }
        }
    }

    fn fence_gate(&self, policy: &WorkloadPolicy, automatic: bool) -> Option<Question> {
        let supervised = automatic && policy.failover.mode == Mode::Supervised;
        let settled = self.accepted.iter().any(|q| !matches!(q, Question::FenceUnproven { .. }));
        let ask = || Question::Supervised { loss: self.loss_so_far() };
        self.loss_gate(policy).or_else(|| (supervised && !settled).then(ask))
    }

    /// The loss, when the old primary took writes until it was fenced.
    fn loss_so_far(&self) -> Loss {
        let measured = self.loss.clone().unwrap_or(Loss::unknown());
        self.fenced_at.map_or_else(|| measured.clone(), |end| measured.until(end))
    }

    /// What must be asked about the loss: before the fence, and again before the promotion, when the fence
    /// took so long that the number is no longer the one that was accepted or allowed.
    fn loss_gate(&self, policy: &WorkloadPolicy) -> Option<Question> {
        let (loss, allowed) = (self.loss_so_far(), policy.objectives.rpo);
        let accepts = |question: &Question| match (question, loss.at_most) {
            (Question::LossUnknown { .. }, _) => true,
            (
                Question::LossAbove { loss: known, .. } | Question::Supervised { loss: known },
                Some(length),
            ) => known.at_most.is_some_and(|accepted| length <= accepted + allowed),
            (Question::LossAbove { .. } | Question::Supervised { .. }, None)
            | (Question::FenceUnproven { .. }, _) => false,
        };
        if self.accepted.iter().any(accepts) {
            return None;
        }
        match loss.at_most {
            None => Some(Question::LossUnknown { loss }),
            Some(length) if length > allowed => Some(Question::LossAbove { loss, allowed }),
            Some(_) => None,
        }
    }

    fn next_after_failure(&self, step: &PlannedStep, attempts: u32, fault: &Fault) -> Next {
        let reason = Reason::StepFailed { step: step.name.clone(), attempts, fault: fault.clone() };
        match (step.deed, fault.kind) {
            (Deed::MeasureLoss, FaultKind::Unreachable | FaultKind::Unclear | FaultKind::Refused) => {
                Next::Fail(reason)
            }
            // Someone newer is in charge: opening another run with a higher epoch would overtake them.
            (Deed::MeasureLoss | Deed::Fence, FaultKind::Stale) => Next::Strand(step.name.clone(), reason),
            (Deed::Fence, FaultKind::Unreachable | FaultKind::Unclear | FaultKind::Refused) => {
                Next::Ask(Question::FenceUnproven {
                    region: self.plan.from.clone(),
                    fault: fault.clone(),
                    loss: self.loss.clone(),
                })
            }
            // The workload is served; a report that cannot be written must not switch its protection off.
            (Deed::Report, _) => Next::Finish { unreported: Some(reason) },
            (Deed::Promote | Deed::AwaitServing | Deed::SwitchDns | Deed::Verify, _) => {
                Next::Strand(step.name.clone(), reason)
            }
        }
    }
}
