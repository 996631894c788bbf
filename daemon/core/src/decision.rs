//! What a decision consists of: records to write, commands to start, notices to give, and when to ask again.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Attempt;
use crate::loss::Loss;
use crate::names::{RunId, StepName, WorkloadName};
use crate::order::Answer;
use crate::plan::Action;
use crate::reason::Reason;
use crate::record::Record;
use crate::time::Moment;

/// What to do about one event. The records are made durable first, then the rest is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// To append to the journal, in this order, before anything else.
    pub records: Vec<Record>,
    /// To start after that.
    pub commands: Vec<Command>,
    /// To tell people, after that.
    pub notices: Vec<Notice>,
    /// The answer to the person who gave an order.
    pub answer: Option<Box<Answer>>,
    /// When to be asked again at the latest, with a tick.
    pub wake: Option<Moment>,
}

/// An effect to start; its outcome comes back as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The workload.
    pub workload: WorkloadName,
    /// The run.
    pub run: RunId,
    /// The step of it.
    pub step: StepName,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Whether the step is to be taken back.
    pub undo: bool,
    /// What to do, with every choice made.
    pub action: Action,
    /// How long it may take.
    pub limit: Duration,
}

impl Command {
    /// Which attempt it is, for its outcome.
    pub fn which(&self) -> Attempt {
        let Self { workload, run, step, attempt, undo, .. } = self;
        let (workload, run, step) = (workload.clone(), run.clone(), step.clone());
        Attempt { workload, run, step, attempt: *attempt, undo: *undo }
    }
}

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The workload it is about.
    pub workload: WorkloadName,
    /// How much it matters.
    pub severity: Severity,
    /// The run it is about, when there is one.
    pub run: Option<RunId>,
    /// Why.
    pub reason: Reason,
    /// The loss measured, when there is one.
    pub loss: Option<Loss>,
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something changed.
    Info,
    /// Something is wrong, and lifeboat is on it.
    Warning,
    /// A person must act.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}
