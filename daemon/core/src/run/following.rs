//! What may follow: the one total function of a run.
//!
//! **Invariant:** forward until the point of no return or until it is given up; given up, only back; past the point
//! of no return, only forward. Where neither is safe without a person, the run is stranded.

use lifeboat_runbooks::{Deed, Kind};

use super::{Next, Progress, Run, Situation};
use crate::loss::Loss;
use crate::order::{Doubt, Question};
use crate::outcome::{Fault, FaultKind};
use crate::plan::{Action, PlannedStep};
use crate::policy::{Mode, WorkloadPolicy};
use crate::reason::Reason;
use crate::record::{Ending, Trigger};
use crate::status::Verdict;
use crate::time::Moment;

/// How often a lift must find nobody before a lost region is taken to be dead.
const ATTEMPTS_AT_A_DEAD_REGION: u32 = 3;

impl Run {
    /// The one function that says what may follow.
    pub fn next(&self, situation: Situation<'_>) -> Next {
        if let Some((question, expires)) = &self.question {
            return self.next_while_asking(situation, question, *expires);
        }
        match &self.back {
            Some((ending, reason)) => self.next_back(situation, *ending, reason),
            None => self.next_forward(situation),
        }
    }

    fn next_forward(&self, situation: Situation<'_>) -> Next {
        let busy = self.under_way().next().is_some();
        let mut steps = self.plan.steps.iter().zip(&self.progress);
        let failed = steps.find_map(|(step, progress)| match progress {
            Progress::Failed { attempts, fault } => Some((step, *attempts, fault)),
            _ => None,
        });
        if let Some((step, attempts, fault)) = failed {
            // Past the point of no return all that does not follow it is still done: clients may wait for the names.
            let others_go_on = self.past_return && fault.kind != FaultKind::Stale;
            if !others_go_on {
                // Whatever is under way beside it has its outcome first.
                return if busy { Next::Busy } else { self.next_after_failure(step, attempts, fault) };
            }
        }
        if let Some(reason) = self.overdue(situation.now) {
            // Nothing more begins, and what is under way has its outcome first.
            return if busy { Next::Busy } else { self.give_up(Ending::Failed, reason) };
        }
        let mut wait: Option<Moment> = None;
        // A step that is done or under way has nothing to begin, whatever it follows.
        let to_begin =
            |index: &usize| matches!(self.progress[*index], Progress::Waiting | Progress::Pausing { .. });
        for index in (0..self.progress.len()).filter(to_begin).filter(|index| self.ready(*index)) {
            match &self.progress[index] {
                Progress::Waiting => {
                    let attempt = self.attempts[index] + 1;
                    let start = Next::Start { index, attempt, undo: false };
                    return self.gate(situation, &self.plan.steps[index]).unwrap_or(start);
                }
                Progress::Pausing { until, .. } if situation.now < *until => {
                    wait = Some(wait.map_or(*until, |known| known.min(*until)));
                }
                Progress::Pausing { attempt, .. } => {
                    return Next::Start { index, attempt: attempt + 1, undo: false };
                }
                _ => {}
            }
        }
        match (wait, failed) {
            (Some(until), _) => Next::WaitUntil(until),
            (None, _) if busy => Next::Busy,
            (None, Some((step, attempts, fault))) => self.next_after_failure(step, attempts, fault),
            (None, None) => self.current().map_or(Next::Finish { unreported: None }, |(_, step, _)| {
                refused(step, "the plan never comes to this step")
            }),
        }
    }

    fn next_back(&self, situation: Situation<'_>, ending: Ending, reason: &Reason) -> Next {
        let mut forward = self.progress.iter();
        if forward.any(|progress| matches!(progress, Progress::Started { .. })) {
            return Next::Busy;
        }
        let mut moot = None;
        for index in self.to_take_back() {
            let step = &self.plan.steps[index];
            let lifts = matches!(step.undo, Some(Action::Lift { .. }));
            return match &self.progress[index] {
                Progress::Undoing { .. } => Next::Busy,
                // A fence that cannot be lifted because its region has died meanwhile keeps nobody from writing; a
                // failover would prove it anew. What stands before it is taken back nevertheless.
                Progress::UndoPausing { fault: Some(fault), .. } | Progress::NotUndone { fault, .. }
                    if lifts && self.moot(situation, index, fault) =>
                {
                    let (step, region) = (step.name.clone(), self.plan.from.clone());
                    moot.get_or_insert(Reason::UndoMoot { step, region, fault: fault.clone() });
                    continue;
                }
                Progress::UndoPausing { until, .. } if situation.now < *until => Next::WaitUntil(*until),
                Progress::NotUndone { attempts, fault } => {
                    let (name, attempts) = (step.name.clone(), *attempts);
                    let reason = Reason::StepFailed { step: name.clone(), attempts, fault: fault.clone() };
                    Next::Strand(name, reason)
                }
                _ => Next::Start { index, attempt: self.undo_attempts[index] + 1, undo: true },
            };
        }
        match moot {
            Some(moot) => Next::End(Ending::Failed, moot),
            None => Next::End(ending, reason.clone()),
        }
    }

    /// Whether a lift that failed need not be tried again, because the region is lost. Our own fence makes a region look
    /// lost, too: so it must have been out of reach several times, or for good.
    fn moot(&self, situation: Situation<'_>, index: usize, fault: &Fault) -> bool {
        let made = self.undo_attempts[index] - self.undo_spent[index];
        let gone = fault.kind == FaultKind::Unreachable && made >= ATTEMPTS_AT_A_DEAD_REGION;
        let given_up = matches!(self.progress[index], Progress::NotUndone { .. });
        situation.old_primary == Verdict::Lost && (gone || (given_up && fault.kind != FaultKind::Stale))
    }

    /// Nothing is promoted: back to what was before.
    fn give_up(&self, ending: Ending, reason: Reason) -> Next {
        if self.to_take_back().next().is_none() {
            return Next::End(ending, reason);
        }
        let ending = if ending == Ending::Failed { Ending::Undone } else { ending };
        Next::Unwind(ending, reason)
    }

    /// A run that may still be taken back and takes longer than its page allows.
    fn overdue(&self, now: Moment) -> Option<Reason> {
        let deadline = self.plan.deadline.filter(|_| !self.past_return)?;
        (now.since(self.since) > deadline).then_some(Reason::DeadlinePassed { deadline })
    }

    fn automatic(&self) -> bool {
        self.trigger == Trigger::Automatic
    }

    fn next_while_asking(&self, situation: Situation<'_>, question: &Question, expires: Moment) -> Next {
        let unplanned = self.plan.kind == Kind::Failover && self.automatic();
        let back = unplanned && !self.past_return && situation.old_primary == Verdict::Healthy;
        if !back && situation.now < expires {
            return Next::WaitUntil(expires);
        }
        if self.under_way().next().is_some() {
            // A run that is over takes no outcome in: nobody would know what became of this.
            return Next::Busy;
        }
        if back {
            let reason = Reason::PrimaryIsBack { region: self.plan.from.clone() };
            return self.give_up(Ending::Abandoned, reason);
        }
        let reason = Reason::QuestionLapsed { question: question.clone() };
        if !self.past_return {
            return self.give_up(Ending::Lapsed, reason);
        }
        match (question, self.place(Deed::Fence)) {
            (Question::BeforeStep { step, .. }, _) => Next::Strand(step.clone(), reason),
            // The target may be a primary by now: there is no way back, and no end either.
            (_, Some(fence)) => Next::Strand(self.plan.steps[fence].name.clone(), reason),
            (_, None) => self.give_up(Ending::Lapsed, reason),
        }
    }

    /// What must be settled before a step starts for the first time.
    fn gate(&self, situation: Situation<'_>, step: &PlannedStep) -> Option<Next> {
        self.safety_gate(situation, step).or_else(|| self.page_gate(step).map(Next::Ask))
    }

    /// What the page asks a person before the step.
    fn page_gate(&self, step: &PlannedStep) -> Option<Question> {
        let text = step.approve.clone()?;
        let mut asked = self.accepted.iter();
        let answered =
            asked.any(|q| matches!(q, Question::BeforeStep { step: name, .. } if *name == step.name));
        (!answered).then(|| Question::BeforeStep { step: step.name.clone(), text })
    }

    fn safety_gate(&self, situation: Situation<'_>, step: &PlannedStep) -> Option<Next> {
        let failover = self.plan.kind == Kind::Failover;
        match step.deed {
            Deed::Fence if self.past_return || !failover => None,
            Deed::Fence => {
                let unwanted = if self.automatic() { self.still_lost(situation) } else { None };
                unwanted.or_else(|| self.fence_gate(situation.policy).map(Next::Ask))
            }
            // The page's own check makes these impossible; a journal that was tampered with must not promote.
            Deed::Promote if !self.fenced() => Some(refused(step, "the plan promotes without a fence")),
            Deed::Promote if !failover && !self.caught_up() => {
                Some(refused(step, "the plan promotes a standby that may lack writes"))
            }
            Deed::Promote if failover && !self.past_return => self.loss_gate(situation.policy).map(Next::Ask),
            _ => None,
        }
    }

    /// Whether the target was seen to have replayed all that each closed primary wrote.
    fn caught_up(&self) -> bool {
        self.place(Deed::CatchUp).is_some_and(|index| matches!(self.progress[index], Progress::Done { .. }))
    }

    /// Nothing has moved yet: a fence would cut a live primary off. One answer since is enough to wait, and
    /// after a restart the evidence has to be gathered anew.
    fn still_lost(&self, situation: Situation<'_>) -> Option<Next> {
        let patience = self.touched + situation.policy.patience(&self.plan.from);
        let region = || self.plan.from.clone();
        match situation.old_primary {
            Verdict::Lost => None,
            Verdict::Healthy => {
                Some(self.give_up(Ending::Abandoned, Reason::PrimaryIsBack { region: region() }))
            }
            Verdict::Doubtful if situation.now < patience => Some(Next::WaitUntil(patience)),
            Verdict::Doubtful => {
                Some(self.give_up(Ending::Abandoned, Reason::LossUnconfirmed { region: region() }))
            }
        }
    }

    fn fence_gate(&self, policy: &WorkloadPolicy) -> Option<Question> {
        let supervised = self.automatic() && policy.failover.mode == Mode::Supervised;
        let about_loss = |q: &Question| {
            matches!(
                q,
                Question::LossAbove { .. }
                    | Question::LossUnknown { .. }
                    | Question::LossDoubtful { .. }
                    | Question::Supervised { .. }
            )
        };
        let settled = self.accepted.iter().any(about_loss);
        let ask = || Question::Supervised { loss: self.loss_so_far() };
        self.loss_gate(policy).or_else(|| (supervised && !settled).then(ask))
    }

    /// What must be asked about the loss: before the fence, and again before the promotion, when the fence
    /// took so long that the number is no longer the one that was accepted or allowed.
    fn loss_gate(&self, policy: &WorkloadPolicy) -> Option<Question> {
        let (loss, allowed) = (self.loss_so_far(), policy.objectives.rpo);
        let accepts = |question: &Question| match (question, loss.at_most) {
            (Question::LossUnknown { .. }, _) => true,
            (
                Question::LossAbove { loss: known, .. }
                | Question::LossDoubtful { loss: known, .. }
                | Question::Supervised { loss: known },
                Some(length),
            ) => known.at_most.is_some_and(|accepted| length <= accepted + allowed),
            (
                Question::LossAbove { .. } | Question::LossDoubtful { .. } | Question::Supervised { .. },
                None,
            )
            | (Question::FenceUnproven { .. } | Question::BeforeStep { .. }, _) => false,
        };
        if self.accepted.iter().any(accepts) {
            return None;
        }
        match loss.at_most {
            None => Some(Question::LossUnknown { loss }),
            Some(length) if length > allowed => Some(Question::LossAbove { loss, allowed }),
            Some(_) => doubt(&loss, policy).map(|doubt| Question::LossDoubtful { loss, doubt }),
        }
    }

    fn next_after_failure(&self, step: &PlannedStep, attempts: u32, fault: &Fault) -> Next {
        let reason = Reason::StepFailed { step: step.name.clone(), attempts, fault: fault.clone() };
        match (step.deed, fault.kind) {
            // The workload is served; a report that cannot be written must not switch its protection off.
            (Deed::Report, _) => Next::Finish { unreported: Some(reason) },
            // Someone newer is in charge: opening another run with a higher epoch would overtake them.
            (_, FaultKind::Stale) => Next::Strand(step.name.clone(), reason),
            // Past the point of no return a planned move has the same choice: its old primary may have died since,
            // and would keep it from going on for ever.
            (Deed::Fence, _) if self.plan.kind == Kind::Failover || self.past_return => {
                Next::Ask(Question::FenceUnproven {
                    region: self.plan.from.clone(),
                    fault: fault.clone(),
                    loss: self.loss.clone(),
                })
            }
            _ if self.past_return => Next::Strand(step.name.clone(), reason),
            _ => self.give_up(Ending::Failed, reason),
        }
    }
}

/// A plan that must not be carried out any further.
fn refused(step: &PlannedStep, why: &str) -> Next {
    let fault = Fault::new(FaultKind::Refused, why);
    let reason = Reason::StepFailed { step: step.name.clone(), attempts: 0, fault };
    Next::Strand(step.name.clone(), reason)
}

/// What is too much of a loss that is short enough.
fn doubt(loss: &Loss, policy: &WorkloadPolicy) -> Option<Doubt> {
    let bytes = policy.failover.rpo_bytes.filter(|allowed| loss.bytes.is_none_or(|bytes| bytes > *allowed));
    let sample = policy.failover.sample_age;
    let sample = sample.filter(|allowed| loss.sample_age.is_none_or(|age| age > *allowed));
    bytes.map(|allowed| Doubt::Bytes { allowed }).or_else(|| sample.map(|allowed| Doubt::Sample { allowed }))
}
