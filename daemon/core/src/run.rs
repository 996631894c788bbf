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
    /// All is done.
    Finish,
}

/// What the run's next step depends on, besides its own records.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// It is now.
    pub now: Moment,
    /// What the workload's operator wants.
    pub policy: &'a WorkloadPolicy,
    /// How the old primary region looks.
    pub old_primary: Verdict,
}

impl Run {
    /// A run of which nothing but its opening has happened.
    pub fn open(plan: Plan, trigger: Trigger, at: Moment) -> Self {
        let progress = vec![Progress::Waiting; plan.steps.len()];
        Self { plan, trigger, opened: at, progress, loss: None, question: None, accepted: Vec::new() }
    }

    /// Its name.
    pub const fn id(&self) -> &RunId {
        &self.plan.run
    }

    /// Whether the step that cannot be taken back was started.
    pub fn past_return(&self) -> bool {
        let steps = self.plan.steps.iter().zip(&self.progress);
        steps.into_iter().any(|(step, progress)| step.point_of_no_return && *progress != Progress::Waiting)
    }

    /// The first step that is not done.
    pub fn current(&self) -> Option<(usize, &PlannedStep, &Progress)> {
        let mut steps = self.plan.steps.iter().zip(&self.progress).enumerate();
        let open = steps.find(|(_, (_, p))| !matches!(p, Progress::Done { .. } | Progress::Waived));
        open.map(|(index, (step, progress))| (index, step, progress))
    }

    /// Takes a record of this run in.
    pub fn apply(&mut self, at: Moment, record: &Record) {
        match record {
            Record::StepStarted { step, attempt, .. } => {
                self.set(step, Progress::Started { attempt: *attempt, at });
            }
            Record::StepEnded { step, attempt, outcome, retry_at, .. } => {
                let progress = self.after(step, at, *attempt, outcome, *retry_at);
                self.set(step, progress);
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
                }
            }
            Record::Continued { .. } => {
                if let Some((index, _, _)) = self.current() {
                    self.progress[index] = Progress::Waiting;
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

    fn set(&mut self, name: &StepName, progress: Progress) {
        if let Some(index) = self.plan.steps.iter().position(|step| step.name == *name) {
            self.progress[index] = progress;
        }
    }

    fn after(
        &self,
        step: &StepName,
        at: Moment,
        attempt: u32,
        outcome: &Outcome,
        retry_at: Option<Moment>,
    ) -> Progress {
        match (outcome, retry_at) {
            (Outcome::Succeeded(_), _) => {
                Progress::Done { took: self.started(step).map_or(Duration::ZERO, |s| at.since(s)) }
            }
            (Outcome::Failed(_), Some(until)) => Progress::Pausing { attempt, until },
            (Outcome::Failed(fault), None) => Progress::Failed { attempts: attempt, fault: fault.clone() },
        }
    }

    fn started(&self, name: &StepName) -> Option<Moment> {
        let index = self.plan.steps.iter().position(|step| step.name == *name)?;
        match self.progress[index] {
            Progress::Started { at, .. } => Some(at),
            _ => None,
        }
    }

    /// When a failed attempt is followed by another; never when the world said no, or someone newer is in charge.
    pub fn retry_at(step: &PlannedStep, attempt: u32, fault: &Fault, now: Moment) -> Option<Moment> {
        let again = matches!(fault.kind, FaultKind::Unreachable | FaultKind::Unclear);
        (again && attempt < step.attempts).then(|| now + step.pause)
    }

    /// The one function that says what may follow.
    pub fn next(&self, situation: Situation<'_>) -> Next {
        let automatic = self.trigger == Trigger::Automatic;
        if let Some((question, expires)) = &self.question {
            return self.next_while_asking(situation, automatic, question, *expires);
        }
        let Some((index, step, progress)) = self.current() else { return Next::Finish };
        match progress {
            Progress::Waiting => {
                self.gate(situation, automatic, step).unwrap_or(Next::Start { index, attempt: 1 })
            }
            Progress::Started { .. } => Next::Busy,
            Progress::Pausing { until, .. } if situation.now < *until => Next::WaitUntil(*until),
            Progress::Pausing { attempt, .. } => Next::Start { index, attempt: attempt + 1 },
            Progress::Failed { attempts, fault } => self.next_after_failure(step, *attempts, fault),
            Progress::Done { .. } | Progress::Waived => Next::Finish,
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
            Deed::Fence => {
                // One answer since is enough: nothing has moved yet, and a fence would cut a live primary off.
                if automatic && situation.old_primary != Verdict::Lost {
                    return Some(Next::Abandon(Reason::PrimaryIsBack { region: self.plan.from.clone() }));
                }
                self.loss_gate(situation.policy, automatic).map(Next::Ask)
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

    /// What must be asked about the loss before anything moves.
    fn loss_gate(&self, policy: &WorkloadPolicy, automatic: bool) -> Option<Question> {
        let settled = self.accepted.iter().any(|q| !matches!(q, Question::FenceUnproven { .. }));
        let loss = self.loss.clone().filter(|_| !settled)?;
        match loss.at_most {
            None => Some(Question::LossUnknown { loss }),
            Some(length) if length > policy.objectives.rpo => {
                Some(Question::LossAbove { loss, allowed: policy.objectives.rpo })
            }
            Some(_) if automatic && policy.failover.mode == Mode::Supervised => {
                Some(Question::Supervised { loss })
            }
            Some(_) => None,
        }
    }

    fn next_after_failure(&self, step: &PlannedStep, attempts: u32, fault: &Fault) -> Next {
        let reason = Reason::StepFailed { step: step.name.clone(), attempts, fault: fault.clone() };
        match (step.deed, fault.kind) {
            (Deed::MeasureLoss, _) | (Deed::Fence, FaultKind::Stale) => Next::Fail(reason),
            (Deed::Fence, FaultKind::Unreachable | FaultKind::Unclear | FaultKind::Refused) => {
                Next::Ask(Question::FenceUnproven {
                    region: self.plan.from.clone(),
                    fault: fault.clone(),
                    loss: self.loss.clone(),
                })
            }
            (Deed::Promote | Deed::AwaitServing | Deed::SwitchDns | Deed::Verify | Deed::Report, _) => {
                Next::Strand(step.name.clone(), reason)
            }
        }
    }
}
