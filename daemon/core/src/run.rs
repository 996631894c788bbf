//! A plan being carried out: what its records say has happened, and the one function that says what may follow.
//!
//! What its records do to it is in `run/replay.rs`, what may follow in `run/following.rs`.
//!
//! **Invariant:** a run changes only by records ([`Run::apply`]); [`Run::next`] looks and changes nothing.
//! **Invariant:** no promotion follows unless the fence step gave its proof, or a person accepted, on the
//! record, that there is none; and unless the loss is within the objective, or a person accepted its number.

mod following;
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_runbooks::{Deed, Kind};
use serde::{Deserialize, Serialize};

use crate::loss::{Loss, LossManifest};
use crate::names::{DatabaseName, RunId, StepName};
use crate::order::Question;
use crate::outcome::{Fault, FaultKind, LogPosition, TargetPosition};
use crate::plan::{Plan, PlannedStep};
use crate::policy::WorkloadPolicy;
use crate::reason::Reason;
use crate::record::{Ending, Trigger};
use crate::status::Verdict;
use crate::time::Moment;

/// How often taking a step back is tried at the least.
const UNDO_ATTEMPTS: u32 = 20;

/// How long to wait between two attempts at it, at the least.
const UNDO_PAUSE: Duration = Duration::from_millis(250);

/// How many of the last attempts are made slowly.
const UNDO_SLOWLY: u32 = 10;

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
    /// Who has approved the question that is open, when more than one person must.
    pub assents: Vec<String>,
    /// The number of the newest attempt at each step; a number is never used twice in a run.
    pub attempts: Vec<u32>,
    /// How many of them were made before the step was last opened.
    pub spent: Vec<u32>,
    /// When the old primary was first proven, or accepted, to take no more writes.
    pub fenced_at: Option<Moment>,
    /// Whether its proof is an expired lease: while the run is open the head keeps that lease from being renewed, and the
    /// sentry keeps the database stopped, so the proof does not age.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lasting: bool,
    /// Whether the step that cannot be taken back was ever started.
    pub past_return: bool,
    /// When an attempt at the promotion can be under way no more; none while none was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion_over: Option<Moment>,
    /// When the newest of its records was written.
    pub touched: Moment,
    /// Since when it has not waited for a person: its deadline counts from then.
    pub since: Moment,
    /// Why it is given up: what it did is being taken back, last first.
    pub back: Option<(Ending, Reason)>,
    /// The number of the newest attempt at taking each step back.
    pub undo_attempts: Vec<u32>,
    /// How many of them were made before it was last opened.
    pub undo_spent: Vec<u32>,
    /// Where the target's databases stood before the promotion.
    pub positions: BTreeMap<DatabaseName, TargetPosition>,
    /// Where the closed primary's logs end: everything it ever acknowledged is before.
    pub ends: BTreeMap<DatabaseName, LogPosition>,
    /// What exactly was lost.
    pub manifest: Option<LossManifest>,
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
    /// A person ordered the run to go on without it.
    Skipped,
    /// An attempt at taking it back is under way, or was when the agent died.
    Undoing {
        /// Which attempt.
        attempt: u32,
    },
    /// An attempt at taking it back failed; the next follows.
    UndoPausing {
        /// Which attempt failed.
        attempt: u32,
        /// When the next follows.
        until: Moment,
        /// How it went; none when a person lets it go on.
        fault: Option<Fault>,
    },
    /// It is taken back.
    Undone,
    /// It could not be taken back.
    NotUndone {
        /// After how many attempts.
        attempts: u32,
        /// How the last went.
        fault: Fault,
    },
}

impl Progress {
    /// Whether the steps that follow may start.
    pub const fn settled(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Waived | Self::Skipped)
    }
}

/// What may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start this attempt of the step with this index, or of taking it back.
    Start {
        /// Index into the plan's steps.
        index: usize,
        /// Which attempt.
        attempt: u32,
        /// Whether it is to be taken back.
        undo: bool,
    },
    /// An attempt is under way.
    Busy,
    /// Nothing before this moment.
    WaitUntil(Moment),
    /// Ask a person.
    Ask(Question),
    /// Give up: nothing was promoted, and there is nothing to take back.
    End(Ending, Reason),
    /// Give up, and take back what was done.
    Unwind(Ending, Reason),
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
            assents: Vec::new(),
            attempts: vec![0; steps],
            spent: vec![0; steps],
            fenced_at: None,
            lasting: false,
            past_return: false,
            promotion_over: None,
            touched: at,
            since: at,
            back: None,
            undo_attempts: vec![0; steps],
            undo_spent: vec![0; steps],
            positions: BTreeMap::new(),
            ends: BTreeMap::new(),
            manifest: None,
        }
    }

    /// Its name.
    pub const fn id(&self) -> &RunId {
        &self.plan.run
    }

    /// The first step that is not settled.
    pub fn current(&self) -> Option<(usize, &PlannedStep, &Progress)> {
        let mut steps = self.plan.steps.iter().zip(&self.progress).enumerate();
        let open = steps.find(|(_, (_, p))| !p.settled());
        open.map(|(index, (step, progress))| (index, step, progress))
    }

    /// The attempts that are under way, or were when the agent died: index, attempt, whether it is taken back.
    pub fn under_way(&self) -> impl Iterator<Item = (usize, u32, bool)> {
        self.progress.iter().enumerate().filter_map(|(index, progress)| match progress {
            Progress::Started { attempt, .. } => Some((index, *attempt, false)),
            Progress::Undoing { attempt } => Some((index, *attempt, true)),
            _ => None,
        })
    }

    /// The place of a step in the plan.
    pub fn index(&self, name: &StepName) -> Option<usize> {
        self.plan.steps.iter().position(|step| step.name == *name)
    }

    /// The place of the first step of a kind.
    pub(crate) fn place(&self, deed: Deed) -> Option<usize> {
        self.plan.steps.iter().position(|step| step.deed == deed)
    }

    /// Whether all that a step follows is settled, near and far: a step that was opened again holds back everything
    /// after it, also what stands behind a step that is still done.
    fn ready(&self, index: usize) -> bool {
        let settled = |place: usize| self.progress.get(place).is_some_and(Progress::settled);
        // Mostly the step right before it is not.
        if !self.follows(index).all(settled) {
            return false;
        }
        let mut seen = BTreeSet::new();
        let mut to_see: Vec<usize> = self.follows(index).collect();
        while let Some(place) = to_see.pop() {
            if !settled(place) {
                return false;
            }
            if seen.insert(place) {
                to_see.extend(self.follows(place));
            }
        }
        true
    }

    /// The steps that a step follows directly.
    fn follows(&self, index: usize) -> impl Iterator<Item = usize> {
        let after = self.plan.steps[index].after.as_ref();
        let before = index.checked_sub(1).filter(|_| after.is_none());
        after.into_iter().flatten().copied().chain(before)
    }

    /// The step whose proof must be renewed before this run may promote after a break: the fence, unless a person accepted
    /// that there is no proof, or the proof does not age. (A lease that is counted anew at each answer of a person takes its
    /// whole length again; where that is longer than the RPO, the loss would outgrow each number that was accepted.)
    pub fn fence_to_renew(&self) -> Option<&StepName> {
        let fence = self.place(Deed::Fence)?;
        // Not by the first step that is open: one beside the fence, or before it on the page, may be it.
        let between = !self.progress[self.place(Deed::Promote).unwrap_or(fence)].settled();
        let renewable = !matches!(
            self.progress[fence],
            Progress::Waived | Progress::Waiting | Progress::Skipped | Progress::Undone
        );
        (self.back.is_none() && between && renewable && !self.lasting).then(|| &self.plan.steps[fence].name)
    }

    /// The step that measures the loss, when it was begun and nothing is promoted yet: another agent measures by its own clock.
    pub(crate) fn loss_to_measure_anew(&self) -> Option<&StepName> {
        let measure = self.place(Deed::MeasureLoss)?;
        let begun = self.progress[measure] != Progress::Waiting;
        let open = self.plan.kind == Kind::Failover && self.back.is_none() && !self.past_return;
        (open && begun).then(|| &self.plan.steps[measure].name)
    }

    /// When a failed attempt is followed by another; never when the world said no, or someone newer is in charge.
    ///
    /// `patience` is how long it may take to find out that the region which is left is lost: attempts at taking a step
    /// back go on for longer, or a region that dies in the middle of a move would strand it, and no failover could open.
    pub fn retry_at(
        &self,
        (index, attempt, undo): (usize, u32, bool),
        fault: &Fault,
        patience: Duration,
        now: Moment,
    ) -> Option<Moment> {
        let step = &self.plan.steps[index];
        let again = matches!(fault.kind, FaultKind::Unreachable | FaultKind::Unclear);
        let made = attempt - if undo { self.undo_spent[index] } else { self.spent[index] };
        // Taking back is never given up as early as doing: the workload is down meanwhile.
        let allowed = if undo { step.attempts.max(UNDO_ATTEMPTS) } else { step.attempts };
        let pause = match (undo, made + UNDO_SLOWLY >= allowed) {
            (false, _) => step.pause,
            // Quickly at first, for clients wait.
            (true, false) => step.pause.max(UNDO_PAUSE),
            (true, true) => step.pause.max(patience / (UNDO_SLOWLY - 1)),
        };
        (again && made < allowed).then(|| now + pause)
    }

    /// The fence was proven, or a person accepted that it is not.
    pub fn fenced(&self) -> bool {
        self.did(Deed::Fence)
    }

    /// Whether the fence was begun: from here on the old primary must not be helped to go on.
    pub(crate) fn fencing(&self) -> bool {
        self.place(Deed::Fence).is_some_and(|index| {
            self.attempts[index] > 0 && !matches!(self.progress[index], Progress::Undone)
        })
    }

    /// Whether the server that it leaves, or makes a standby, is its own business now. Of a rejoin not before the tool on
    /// its host works on it: until then its sentry is what keeps a primary that returns from taking writes.
    pub(crate) fn tends(&self) -> bool {
        let begun = |deed| self.place(deed).is_some_and(|index| self.attempts[index] > 0);
        match self.plan.kind {
            Kind::Failover => false,
            Kind::Rejoin => begun(Deed::Salvage) || begun(Deed::Rejoin),
            Kind::Switchover | Kind::Failback => self.fencing(),
        }
    }

    /// Whether the target is the primary.
    pub(crate) fn promoted(&self) -> bool {
        self.did(Deed::Promote)
    }

    /// Whether the names say the target region.
    pub fn switched(&self) -> bool {
        self.did(Deed::SwitchDns)
    }

    /// Whether it makes the region that is left, or that returns, a standby.
    pub fn readmits(&self) -> bool {
        self.place(Deed::Rejoin).is_some()
    }

    fn did(&self, deed: Deed) -> bool {
        let mut steps = self.plan.steps.iter().zip(&self.progress);
        steps.any(|(s, p)| s.deed == deed && p.settled())
    }

    /// The steps that may have had an effect which can be taken back, last first.
    pub(crate) fn to_take_back(&self) -> impl Iterator<Item = usize> {
        (0..self.progress.len()).rev().filter(|index| {
            self.plan.steps[*index].undo.is_some()
                && self.attempts[*index] > 0
                && self.progress[*index] != Progress::Undone
        })
    }

    /// The loss, when the old primary took writes until it was fenced.
    pub(crate) fn loss_so_far(&self) -> Loss {
        let measured = self.loss.clone().unwrap_or(Loss::unknown());
        self.fenced_at.map_or_else(|| measured.clone(), |end| measured.until(end))
    }
}
