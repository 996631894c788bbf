//! What is written down: the only way durable state changes, live and in replay.
//!
//! **Invariant:** a record says what was decided or what came back, never how to compute it again.
//! **Invariant:** fields are only added, with a default; a changed meaning is a new variant.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::condition::Gate;
use crate::loss::{Loss, LossManifest};
use crate::names::{
    AgentName, DatabaseName, Epoch, RegionName, RunId, StepName, SystemIdentifier, WorkloadName,
};
use crate::order::Question;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::reason::Reason;
use crate::status::{SeenStatus, Verdict};
use crate::time::Moment;

/// A record with its place in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// Its place, from 1, without gaps.
    pub sequence: u64,
    /// When it was decided.
    pub at: Moment,
    /// What was decided.
    pub record: Record,
}

/// Who wanted a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trigger", rename_all = "kebab-case")]
pub enum Trigger {
    /// The conditions of an automatic failover all held.
    Automatic,
    /// A person ordered it.
    Ordered {
        /// Who.
        by: String,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The workload lives in the target region, and was seen there.
    Done,
    /// A step failed before anything was promoted.
    Failed,
    /// It was no longer wanted before anything was promoted.
    Abandoned,
    /// Nobody answered its question in time.
    Lapsed,
    /// A step failed, or a person cancelled, and everything was taken back.
    Undone,
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are the operands that the variant's line names")]
pub enum Record {
    /// The agent started and has read its record.
    AgentStarted { agent: AgentName, version: String },
    /// The agent decides from here on, in this term; whoever decided before does not any more.
    Elected { agent: AgentName, version: String, term: u64 },
    /// The one who decides now takes over a run that another agent opened, under this epoch.
    TookOver { workload: WorkloadName, run: RunId, epoch: Epoch },
    /// A region is seen differently than before.
    VerdictChanged { workload: WorkloadName, region: RegionName, verdict: Verdict, reason: Reason },
    /// A primary was seen for the first time, and this is its cluster.
    IdentityLearned { workload: WorkloadName, database: DatabaseName, system: SystemIdentifier },
    /// The primary is lost, and yet nothing is done.
    Declined { workload: WorkloadName, gate: Gate, reason: Reason },
    /// A run begins. From here on the workload's epoch is the plan's.
    RunOpened { workload: WorkloadName, run: RunId, trigger: Trigger, plan: Box<Plan>, reason: Reason },
    /// An attempt at a step, or at taking it back, is about to start.
    StepStarted {
        workload: WorkloadName,
        run: RunId,
        step: StepName,
        attempt: u32,
        #[serde(default, skip_serializing_if = "is_false")]
        undo: bool,
    },
    /// It ended; another attempt follows at `retry_at`.
    StepEnded {
        workload: WorkloadName,
        run: RunId,
        step: StepName,
        attempt: u32,
        outcome: Outcome,
        retry_at: Option<Moment>,
        #[serde(default, skip_serializing_if = "is_false")]
        undo: bool,
    },
    /// The loss that the promotion would mean.
    LossMeasured { workload: WorkloadName, run: RunId, loss: Loss },
    /// The run waits for a person.
    Asked {
        workload: WorkloadName,
        run: RunId,
        question: Question,
        expires: Moment,
        /// What each vantage said of the old primary at that moment; empty when this agent was alone.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        seen: BTreeMap<AgentName, SeenStatus>,
    },
    /// A person accepted what was asked; `remaining` others still have to.
    Approved {
        workload: WorkloadName,
        run: RunId,
        by: String,
        question: Question,
        #[serde(default, skip_serializing_if = "is_zero")]
        remaining: u32,
    },
    /// The run is given up before its point of no return: what it did is taken back, last first.
    Unwinding { workload: WorkloadName, run: RunId, ending: Ending, reason: Reason },
    /// A person ordered the run to go on without a step.
    StepSkipped { workload: WorkloadName, run: RunId, step: StepName, by: String, why: String },
    /// What exactly the promotion lost.
    LossCounted { workload: WorkloadName, run: RunId, manifest: LossManifest },
    /// The workload lives in another region now.
    PrimaryMoved { workload: WorkloadName, region: RegionName, epoch: Epoch },
    /// Neither forward nor back is safe without a person.
    Stranded { workload: WorkloadName, run: RunId, step: StepName, reason: Reason },
    /// A person ordered a stranded run to go on.
    Continued { workload: WorkloadName, run: RunId, by: String },
    /// The step must be done again, and all that was not done after it: its proof is too old, or nobody knows.
    Reopened { workload: WorkloadName, run: RunId, step: StepName },
    /// The run is over.
    RunEnded { workload: WorkloadName, run: RunId, ending: Ending, reason: Reason },
    /// Automatic action stops for a while.
    Paused { workload: WorkloadName, by: String, reason: String, until: Moment },
    /// It goes on; `by` is empty when the time was up.
    Resumed { workload: WorkloadName, by: Option<String> },
}

impl Record {
    /// The same with what it says of the future put off by so much.
    pub(crate) fn later(&self, by: Duration) -> Cow<'_, Self> {
        let mut record = Cow::Borrowed(self);
        if !by.is_zero()
            && let Self::Asked { .. } | Self::Paused { .. } = self
            && let Self::Asked { expires: end, .. } | Self::Paused { until: end, .. } = record.to_mut()
        {
            *end = *end + by;
        }
        record
    }

    /// The workload it is about; none for those about the agent.
    pub const fn workload(&self) -> Option<&WorkloadName> {
        match self {
            Self::AgentStarted { .. } | Self::Elected { .. } => None,
            Self::VerdictChanged { workload, .. }
            | Self::IdentityLearned { workload, .. }
            | Self::Declined { workload, .. }
            | Self::RunOpened { workload, .. }
            | Self::StepStarted { workload, .. }
            | Self::StepEnded { workload, .. }
            | Self::LossMeasured { workload, .. }
            | Self::Asked { workload, .. }
            | Self::Approved { workload, .. }
            | Self::Unwinding { workload, .. }
            | Self::StepSkipped { workload, .. }
            | Self::LossCounted { workload, .. }
            | Self::PrimaryMoved { workload, .. }
            | Self::TookOver { workload, .. }
            | Self::Stranded { workload, .. }
            | Self::Continued { workload, .. }
            | Self::Reopened { workload, .. }
            | Self::RunEnded { workload, .. }
            | Self::Paused { workload, .. }
            | Self::Resumed { workload, .. } => Some(workload),
        }
    }

    /// The run it is about.
    pub const fn run(&self) -> Option<&RunId> {
        match self {
            Self::RunOpened { run, .. }
            | Self::TookOver { run, .. }
            | Self::StepStarted { run, .. }
            | Self::StepEnded { run, .. }
            | Self::LossMeasured { run, .. }
            | Self::Asked { run, .. }
            | Self::Approved { run, .. }
            | Self::Unwinding { run, .. }
            | Self::StepSkipped { run, .. }
            | Self::LossCounted { run, .. }
            | Self::Stranded { run, .. }
            | Self::Continued { run, .. }
            | Self::Reopened { run, .. }
            | Self::RunEnded { run, .. } => Some(run),
            Self::AgentStarted { .. }
            | Self::Elected { .. }
            | Self::VerdictChanged { .. }
            | Self::IdentityLearned { .. }
            | Self::Declined { .. }
            | Self::PrimaryMoved { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. } => None,
        }
    }
}
