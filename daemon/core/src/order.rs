//! What a person can tell the guardian to do, what it can ask of a person, and how each answers.
//!
//! **Invariant:** an order names the person who gave it, and an approval repeats what is being accepted.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::loss::Loss;
use crate::names::{RegionName, RunId, StepName, WorkloadName};
use crate::outcome::Fault;
use crate::reason::Reason;
use crate::time::{self, Moment};

/// An order from a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Move a workload whose primary is lost; or go on with a stranded move to the same region.
    Failover {
        /// The workload.
        workload: WorkloadName,
        /// Where to.
        to: RegionName,
        /// Who says so.
        by: String,
    },
    /// Answer the question a run has asked.
    Approve {
        /// The run.
        run: RunId,
        /// What is accepted; `None` asks for the question.
        accept: Option<Acceptance>,
        /// Who says so.
        by: String,
    },
    /// Give up a run that waits for a person, or is stranded. What it did stays done.
    Abandon {
        /// The run.
        run: RunId,
        /// Why.
        reason: String,
        /// That the region which was to take over is no primary, by the person's own word. Needed only when its promotion was
        /// begun and it has not been seen as a standby since.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accept: Option<Acceptance>,
        /// Who says so.
        by: String,
    },
    /// Move a healthy workload on purpose, losing nothing.
    Switchover {
        /// The workload.
        workload: WorkloadName,
        /// Where to.
        to: RegionName,
        /// Who says so.
        by: String,
    },
    /// Move a workload home.
    Failback {
        /// The workload.
        workload: WorkloadName,
        /// Who says so.
        by: String,
    },
    /// Make the databases of a region standbys of the primary.
    Rejoin {
        /// The workload.
        workload: WorkloadName,
        /// Which region.
        region: RegionName,
        /// Who says so.
        by: String,
    },
    /// Stop a run before its point of no return, and take back what it did.
    Cancel {
        /// The run.
        run: RunId,
        /// Why.
        reason: String,
        /// Who says so.
        by: String,
    },
    /// Let a stranded run go on without a step.
    Skip {
        /// The run.
        run: RunId,
        /// The step.
        step: StepName,
        /// Why.
        reason: String,
        /// Who says so.
        by: String,
    },
    /// Take no automatic action for a while.
    Pause {
        /// The workload.
        workload: WorkloadName,
        /// Why.
        reason: String,
        /// Until when.
        until: Moment,
        /// Who says so.
        by: String,
    },
    /// Act again.
    Resume {
        /// The workload.
        workload: WorkloadName,
        /// Who says so.
        by: String,
    },
}

/// What a person accepts, repeated in their own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acceptance {
    /// This loss: the number as asked, for example `3612s`, or `unknown`.
    Loss(String),
    /// That the primary in this region may still be taking writes.
    Unfenced(String),
    /// That this step is to be done.
    Step(String),
}

/// The answer to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done, or under way.
    Accepted {
        /// The run that was opened or goes on.
        run: Option<RunId>,
        /// What happens now, for a person.
        text: String,
    },
    /// It is not, and nothing was touched.
    Refused {
        /// Why.
        reason: Reason,
    },
}

/// What a run asks of a person before it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "kebab-case")]
pub enum Question {
    /// More would be lost than the objective allows.
    LossAbove {
        /// The loss measured.
        loss: Loss,
        /// The RPO objective.
        #[serde(with = "time::millis")]
        allowed: std::time::Duration,
    },
    /// Nobody can say how much would be lost.
    LossUnknown {
        /// What is known.
        loss: Loss,
    },
    /// The loss is within the objective in time, and yet it may be too much.
    LossDoubtful {
        /// The loss measured.
        loss: Loss,
        /// What is too much.
        doubt: Doubt,
    },
    /// The loss is within the objective, but the workload is supervised.
    Supervised {
        /// The loss measured.
        loss: Loss,
    },
    /// The old primary may still be taking writes.
    FenceUnproven {
        /// Where it is.
        region: RegionName,
        /// What the attempt to fence it said.
        fault: Fault,
        /// The loss measured.
        loss: Option<Loss>,
    },
    /// The page asks before a step.
    BeforeStep {
        /// The step.
        step: StepName,
        /// What the page says.
        text: String,
    },
}

/// Why a loss that is short enough may be too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// More bytes of log are missing than this, or nobody knows how many.
    Bytes {
        /// How many are allowed.
        allowed: u64,
    },
    /// The primary was last sampled longer ago than this, or never.
    Sample {
        /// How long ago is allowed.
        #[serde(with = "time::millis")]
        allowed: std::time::Duration,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { allowed } => write!(f, "at most {allowed} bytes of log are allowed to be missing"),
            Self::Sample { allowed } => {
                write!(f, "a sample of the primary may be {} old at most", time::length(*allowed))
            }
        }
    }
}

impl Acceptance {
    /// The words.
    pub fn text(&self) -> &str {
        let (Self::Loss(text) | Self::Unfenced(text) | Self::Step(text)) = self;
        text
    }
}

impl Question {
    /// What must be repeated to accept.
    pub fn acceptance(&self) -> Acceptance {
        match self {
            Self::LossAbove { loss, .. }
            | Self::LossUnknown { loss }
            | Self::LossDoubtful { loss, .. }
            | Self::Supervised { loss } => Acceptance::Loss(loss.token()),
            Self::FenceUnproven { region, .. } => Acceptance::Unfenced(region.as_str().to_owned()),
            Self::BeforeStep { step, .. } => Acceptance::Step(step.as_str().to_owned()),
        }
    }

    /// The command that accepts.
    pub fn command(&self, run: &RunId) -> String {
        match self.acceptance() {
            Acceptance::Loss(token) => format!("lifeboat approve {run} --accept-loss \"{token}\""),
            Acceptance::Unfenced(region) => format!("lifeboat approve {run} --accept-unfenced \"{region}\""),
            Acceptance::Step(step) => format!("lifeboat approve {run} --accept-step \"{step}\""),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LossAbove { loss, allowed } => {
                write!(f, "the failover would lose {loss}; the RPO objective is {}", time::length(*allowed))
            }
            Self::LossUnknown { loss } => write!(f, "the failover would lose {loss}"),
            Self::LossDoubtful { loss, doubt } => write!(f, "the failover would lose {loss}; {doubt}"),
            Self::Supervised { loss } => {
                write!(f, "the workload is supervised; the failover would lose {loss}")
            }
            Self::FenceUnproven { region, fault, .. } => {
                write!(f, "it is not proven that the old primary in {region} takes no more writes ({fault})")
            }
            Self::BeforeStep { step, text } => write!(f, "the runbook asks before {step}: {text}"),
        }
    }
}
