//! Everything that can happen to the guardian: one closed enum.

use crate::names::{AgentName, RunId, StepName, WorkloadName};
use crate::order::Order;
use crate::outcome::Outcome;
use crate::sighting::Sighting;

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent has started and its record is replayed: what was open goes on.
    Started,
    /// Time has passed.
    Tick,
    /// A probe has looked.
    Sighted(Sighting),
    /// A vantage has asked its witnesses.
    Witnessed(Witnessing),
    /// A person gave an order.
    Ordered(Order),
    /// An attempt at a step has ended.
    StepEnded {
        /// Which.
        ended: Attempt,
        /// What came of it.
        outcome: Outcome,
    },
}

/// One attempt at a step, or at taking it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The workload.
    pub workload: WorkloadName,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepName,
    /// Its number.
    pub attempt: u32,
    /// Whether the step was to be taken back.
    pub undo: bool,
}

/// How many witnesses answered a vantage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessing {
    /// Who asked.
    pub vantage: AgentName,
    /// When the asking began: what it proves, it proves of the time after this.
    pub at: crate::time::Moment,
    /// How many answered.
    pub answered: usize,
}
