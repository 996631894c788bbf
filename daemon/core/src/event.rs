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
        /// The workload.
        workload: WorkloadName,
        /// The run.
        run: RunId,
        /// The step.
        step: StepName,
        /// Which attempt it was.
        attempt: u32,
        /// What came of it.
        outcome: Outcome,
    },
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
