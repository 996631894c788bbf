//! The table: what each kind of event does in each phase.
//!
//! **Invariant:** every pair of phase and event has a row; there is no wildcard over events, so a new
//! event does not compile until each phase has thought about it.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::run::Run;
use crate::status::PhaseName;

/// What is going on with a workload. What belongs to a phase lives in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Watching; all is well.
    Guarding,
    /// Watching; the primary region is not healthy.
    Doubting,
    /// A run is under way, or waits for a person; what for, its plan says.
    Running(Box<Run>),
    /// A run stopped where neither forward nor back is safe without a person.
    Stranded(Box<Run>, Reason),
}

/// The kinds of event that a workload's machine tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// The agent has started.
    Started,
    /// The health of its regions was judged anew, or time has passed.
    Assessed,
    /// An attempt at a step has ended.
    StepEnded,
    /// A person ordered a failover.
    FailoverOrdered,
    /// A person ordered a planned move, or a rejoin.
    PlannedOrdered,
    /// A person answered a question.
    Approved,
    /// A person gave a run up.
    GiveUpOrdered,
    /// A person ordered a run to be taken back.
    CancelOrdered,
    /// A person ordered a run to go on without a step.
    SkipOrdered,
    /// A person paused automatic action.
    PauseOrdered,
    /// A person resumed it.
    ResumeOrdered,
}

impl Happening {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 11] = [
        Self::Started,
        Self::Assessed,
        Self::StepEnded,
        Self::FailoverOrdered,
        Self::PlannedOrdered,
        Self::Approved,
        Self::GiveUpOrdered,
        Self::CancelOrdered,
        Self::SkipOrdered,
        Self::PauseOrdered,
        Self::ResumeOrdered,
    ];

    /// What happens, for a person.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Started => "an agent takes over",
            Self::Assessed => "something is seen",
            Self::StepEnded => "a step ends",
            Self::FailoverOrdered => "failover ordered",
            Self::PlannedOrdered => "move or rejoin ordered",
            Self::Approved => "approved",
            Self::GiveUpOrdered => "abandoned",
            Self::CancelOrdered => "cancelled",
            Self::SkipOrdered => "step skipped",
            Self::PauseOrdered => "paused",
            Self::ResumeOrdered => "resumed",
        }
    }
}

/// What the guardian does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reaction {
    /// Look whether every gate is open; open a run, or say which gate is shut.
    Consider,
    /// Do what the run allows next.
    Advance,
    /// Start again the step that was under way when the agent died.
    Recover,
    /// Take the outcome of a step in.
    TakeOutcome,
    /// The outcome belongs to a run that is over: drop it.
    Drop,
    /// Open the run that a person ordered, if it can be.
    OpenOrdered,
    /// Let a stranded run go on.
    Continue,
    /// Take a person's answer in.
    TakeAnswer,
    /// Refuse: a run is open.
    RefuseRunOpen,
    /// Refuse: nothing is asked.
    RefuseNothingAsked,
    /// End the run that waits for a person, or is stranded.
    GiveUp,
    /// Take back what the run did, if nothing is promoted.
    TakeBack,
    /// Leave the step out that the run is stranded at.
    LeaveOut,
    /// Refuse: the run is not stranded.
    RefuseNotStranded,
    /// Tell people again of what waits for them.
    Remind,
    /// Take the pause in.
    Pause,
    /// Take the end of the pause in.
    Resume,
    /// Nothing: a person is needed, and has been told.
    Hold,
}

impl Reaction {
    /// What comes of it, for a person.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Consider => "opens a run if every gate is open, else says which is shut",
            Self::Advance => "does what the run allows next",
            Self::Recover => "raises the epoch, proves the fence again, starts again what was under way",
            Self::TakeOutcome => "puts the outcome on record, and does what follows",
            Self::Drop => "drops the outcome: its run is over, or waits for a person",
            Self::OpenOrdered => "opens the run, or refuses with the reason",
            Self::Continue => "lets the run go on, if it goes where the order says",
            Self::TakeAnswer => "takes the answer, if it repeats what is asked",
            Self::RefuseRunOpen => "refuses: a run is open",
            Self::RefuseNothingAsked => "refuses: nothing is asked",
            Self::GiveUp => {
                "ends the run as it stands, if it waits for a person and its target is no primary"
            }
            Self::TakeBack => "takes back what the run did, if nothing is promoted",
            Self::LeaveOut => "goes on without the step, if safety does not rest on it",
            Self::RefuseNotStranded => "refuses: the run is not stranded",
            Self::Remind => "tells people again what waits for them",
            Self::Pause => "lets no run open by itself until then; one that is open goes on",
            Self::Resume => "lets runs open by themselves again",
            Self::Hold => "does nothing: a person is needed, and was told",
        }
    }
}

impl Phase {
    /// Its name.
    pub const fn name(&self) -> PhaseName {
        match self {
            Self::Guarding => PhaseName::Guarding,
            Self::Doubting => PhaseName::Doubting,
            Self::Running(run) => PhaseName::of(run.plan.kind),
            Self::Stranded(..) => PhaseName::Stranded,
        }
    }

    /// The run that is open in it.
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Guarding | Self::Doubting => None,
            Self::Running(run) | Self::Stranded(run, _) => Some(run),
        }
    }

    /// The table.
    pub const fn react(&self, happening: Happening) -> Reaction {
        match (self, happening) {
            (Self::Guarding | Self::Doubting, Happening::Started | Happening::Assessed) => Reaction::Consider,
            (Self::Guarding | Self::Doubting, Happening::StepEnded) => Reaction::Drop,
            (Self::Guarding | Self::Doubting, Happening::FailoverOrdered | Happening::PlannedOrdered) => {
                Reaction::OpenOrdered
            }
            (
                Self::Guarding | Self::Doubting,
                Happening::Approved
                | Happening::GiveUpOrdered
                | Happening::CancelOrdered
                | Happening::SkipOrdered,
            ) => Reaction::RefuseNothingAsked,

            (Self::Running(_), Happening::Started) => Reaction::Recover,
            (Self::Running(_), Happening::Assessed) => Reaction::Advance,
            (Self::Running(_), Happening::StepEnded) => Reaction::TakeOutcome,
            (Self::Running(_), Happening::FailoverOrdered | Happening::PlannedOrdered) => {
                Reaction::RefuseRunOpen
            }
            (Self::Running(_) | Self::Stranded(..), Happening::CancelOrdered) => Reaction::TakeBack,
            (Self::Running(_), Happening::SkipOrdered) => Reaction::RefuseNotStranded,
            (Self::Stranded(..), Happening::SkipOrdered) => Reaction::LeaveOut,
            (Self::Running(_), Happening::Approved) => Reaction::TakeAnswer,
            (Self::Running(_) | Self::Stranded(..), Happening::GiveUpOrdered) => Reaction::GiveUp,

            (Self::Stranded(..), Happening::Started) => Reaction::Remind,
            (Self::Stranded(..), Happening::Assessed) => Reaction::Hold,
            (Self::Stranded(..), Happening::StepEnded) => Reaction::Drop,
            (Self::Stranded(..), Happening::FailoverOrdered | Happening::PlannedOrdered) => {
                Reaction::Continue
            }
            (Self::Stranded(..), Happening::Approved) => Reaction::RefuseNothingAsked,

            (
                Self::Guarding | Self::Doubting | Self::Running(_) | Self::Stranded(..),
                Happening::PauseOrdered,
            ) => Reaction::Pause,
            (
                Self::Guarding | Self::Doubting | Self::Running(_) | Self::Stranded(..),
                Happening::ResumeOrdered,
            ) => Reaction::Resume,
        }
    }
}
