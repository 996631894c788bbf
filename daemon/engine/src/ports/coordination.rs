//! The door to what several agents share: who decides, the record, what each vantage says, the leases of the writers.
//!
//! **Invariant:** a record is taken in only from the one who holds the tenure, and only as the next of the record: both
//! are compared in the transaction that writes it.
//! **Invariant:** an error never means "nobody else": what cannot be known is said by its name, and nothing is decided.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::testimony::{Beat, Testimony};
use lifeboat_core::{AgentName, Answer, Epoch, Fault, Order, RegionName, Stamped, WorkloadName};
use thiserror::Error;
use tokio::sync::mpsc;

use super::Call;

/// Why the shared state could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CoordinationError {
    /// No majority of it answered in time. Nothing is known; nothing was written.
    #[error("the coordinator cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time to a write: it may have been taken in. Read before anything else is written.
    #[error("the coordinator did not answer in time: {0}")]
    Unclear(String),
    /// It refused who we are: password, certificate, permission.
    #[error("the coordinator refused this agent: {0}")]
    Denied(String),
    /// It takes no writes: its space is used up.
    #[error("the coordinator is full and takes no writes: {0}")]
    Full(String),
    /// Somebody else holds the tenure, or has written to the record since.
    #[error("another agent has taken over: {0}")]
    Deposed(String),
    /// It has forgotten what this agent knows was written: it was restored from a backup, or is another one.
    #[error("{}", rewound(*known, *found))]
    Rewound {
        /// The place of the newest record that this agent knows.
        known: u64,
        /// The place of the newest one there.
        found: u64,
    },
    /// What was read cannot be understood, or is not what this agent has read before.
    #[error("the shared record is damaged: {0}")]
    Damaged(String),
}

/// What a person is told, and what to do: a lone agent that gets company finds nothing there, too.
fn rewound(known: u64, found: u64) -> String {
    let what = match found {
        0 => format!("the shared record is empty, and this agent's own has {known} entries"),
        _ => format!(
            "the shared record ends at {found}, and this agent has read up to {known}: it was restored from an old backup"
        ),
    };
    format!("{what}. Stop all agents, then, on the one with the longest record: lifeboat share")
}

/// The right to decide, while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenure {
    /// Rises with each guardian.
    pub term: u64,
}

/// What one watches for. The first changes tell what is there; [`Change::CaughtUp`] follows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The next record.
    Record(Stamped),
    /// All that was there has been told; what follows is news.
    CaughtUp,
    /// Who decides now; nobody, when the tenure ended.
    Guardian(Option<AgentName>),
    /// The guardian's sign of life.
    Beat(Beat),
    /// What a vantage says. Its seal was that vantage's.
    Testimony(Testimony),
    /// A vantage has not said anything for as long as a testimony lives.
    Silent(AgentName),
    /// A testimony whose seal is not the vantage's: it was dropped.
    Forged {
        /// Whose name it bore.
        vantage: AgentName,
        /// What was wrong.
        why: String,
    },
    /// What a sentry says of the database beside it; none when it has not renewed in time.
    Sentry {
        /// The workload.
        workload: WorkloadName,
        /// The region.
        region: RegionName,
        /// What it says.
        says: Option<Guarded>,
    },
    /// An order given to another agent, for the guardian to answer under this name.
    Order {
        /// Its name.
        id: String,
        /// What is wanted.
        order: Order,
    },
}

/// What several agents share.
#[async_trait]
pub trait Coordination: Send + Sync {
    /// How long a tenure lasts without being renewed.
    fn tenure_ttl(&self) -> Duration;

    /// Tells everything there is, from the record after `known` on, and then each change, until it cannot any more; says
    /// why. `known` is the newest record this agent has: one that is missing there, or another one in its place, is
    /// [`CoordinationError::Rewound`] or [`CoordinationError::Damaged`]. The watch is bounded by the channel.
    async fn watch(&self, known: Option<&Stamped>, changes: &mpsc::Sender<Change>) -> CoordinationError;

    /// Becomes the one who decides, if nobody is; none while somebody is.
    async fn campaign(&self) -> Result<Option<Tenure>, CoordinationError>;

    /// Keeps the tenure, and gives a sign of life that vantages echo.
    async fn renew(&self, tenure: Tenure, beat: Beat) -> Result<(), CoordinationError>;

    /// Gives the tenure back; a failure is of no consequence, because it ends by itself.
    async fn resign(&self, tenure: Tenure);

    /// The records after that place, as they are now (linearizable).
    async fn records(&self, after: u64) -> Result<Vec<Stamped>, CoordinationError>;

    /// Appends records, and sets the heads that they change, in one transaction: all of it or nothing. Only from the
    /// holder of the tenure, and only directly after the newest record there.
    async fn append(
        &self,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError>;

    /// Says what this vantage sees; sealed, and gone after a while unless it is said again.
    async fn testify(&self, testimony: &Testimony) -> Result<(), CoordinationError>;

    /// Gives an order to whoever decides, and waits for the answer.
    async fn order(&self, order: &Order, limit: Duration) -> Result<Answer, CoordinationError>;

    /// Answers an order that came as [`Change::Order`].
    async fn answer(&self, tenure: Tenure, id: &str, answer: &Answer) -> Result<(), CoordinationError>;

    /// Waits, within the call's limit, until the write lease of that region has run out for sure: it cannot be renewed any
    /// more under the newest head, and its sentry has stopped the database by its own clock, margins included.
    /// `Refused` when no sentry has ever held a lease there; `Unclear` when the limit passes before.
    async fn ensure_expired(
        &self,
        call: &Call,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Result<FenceProof, Fault>;
}

/// What came of renewing a write lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is held for its length, counted from before the renewal was sent.
    Held {
        /// Under this epoch.
        epoch: Epoch,
    },
    /// This region may not hold it.
    NotOurs(Head),
    /// There is no record of the workload yet.
    Unknown,
}

/// The leases of those who take writes, as their sentries need them.
#[async_trait]
pub trait WriteLeases: Send + Sync {
    /// Renews the write lease of a workload for a region, if the head says that it may hold it and does not change
    /// meanwhile (compared in the transaction). Says what the database beside the sentry does, in any case.
    async fn renew(
        &self,
        workload: &WorkloadName,
        region: &RegionName,
        length: Duration,
        says: Guarded,
    ) -> Result<Renewal, CoordinationError>;
}

/// Signs and checks what agents say to each other, each with its own key.
pub trait Seal: Send + Sync {
    /// This agent's seal on these bytes.
    fn sign(&self, bytes: &[u8]) -> Vec<u8>;

    /// Whether the seal on these bytes is that agent's.
    fn is_of(&self, agent: &AgentName, bytes: &[u8], seal: &[u8]) -> bool;
}
