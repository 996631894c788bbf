//! Everything that can happen to the guardian: one closed enum.

use crate::head::Guarded;
use crate::names::{AgentName, RegionName, RunId, StepName, WorkloadName};
use crate::order::Order;
use crate::outcome::Outcome;
use crate::record::Stamped;
use crate::sighting::Sighting;
use crate::testimony::{Beat, Testimony};

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent has started and its record is replayed: what was open goes on.
    Started,
    /// Time has passed. Told each second or so: an agent that was told nothing for longer stood still.
    Tick,
    /// A probe has looked.
    Sighted(Sighting),
    /// A vantage has asked its witnesses.
    Witnessed(Witnessing),
    /// A person gave an order.
    Ordered(Order),
    /// Another vantage has said what it sees.
    Testified(Testimony),
    /// A vantage has not said anything for too long.
    Silenced(AgentName),
    /// This agent decides from now on: it has read the whole record, and holds the tenure.
    Elected {
        /// The tenure.
        term: u64,
    },
    /// Another agent decides, or nobody: this one stands by. What it decided and could not put on record never was.
    Deposed,
    /// This agent, which decides, gave a sign of life that vantages echo.
    Beaten(Beat),
    /// Another agent has written a record at some time, and this one stands by.
    Recorded(Stamped),
    /// The same, and it was written just now: what its clock says of now is seen by it.
    Written(Stamped),
    /// Whether what the agents share can be reached; with what is wrong, when it cannot.
    Coordinated(Result<(), String>),
    /// What a sentry says of the database beside it; none when it has not renewed its lease in time.
    Guarded {
        /// The workload.
        workload: WorkloadName,
        /// The region.
        region: RegionName,
        /// What it says.
        says: Option<Guarded>,
    },
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
