//! What one look saw: sightings, the evidence they carry, and how a look fails.
//!
//! **Invariant:** a failure has a kind that decisions are made on, and a detail that only people read.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{
    AgentName, DatabaseName, Epoch, Lsn, ProbeName, RegionName, SystemIdentifier, Timeline, WorkloadName,
};
use crate::time::Moment;

/// What a vantage saw when it looked once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The workload looked at.
    pub workload: WorkloadName,
    /// The region looked at.
    pub region: RegionName,
    /// Which probe looked.
    pub probe: ProbeName,
    /// Who looked.
    pub vantage: AgentName,
    /// When the look ended.
    pub at: Moment,
    /// How long it took.
    pub took: std::time::Duration,
    /// What was seen.
    pub look: Look,
}

/// The result of one look.
pub type Look = Result<Evidence, Failure>;

/// What a successful look brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It answered as expected.
    Answered,
    /// A database answered, and said this of itself.
    Database(DatabaseSample),
}

/// What a database said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSample {
    /// Which database of the workload.
    pub database: DatabaseName,
    /// Which cluster it belongs to.
    pub system: SystemIdentifier,
    /// Its timeline.
    pub timeline: Timeline,
    /// What it is now.
    pub state: DatabaseState,
}

/// The role of a database, as observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "kebab-case")]
pub enum DatabaseState {
    /// Takes writes.
    Primary {
        /// Where its log ends (`pg_current_wal_lsn`).
        written: Lsn,
        /// When the heartbeat that it acknowledged in this look was stamped, on the agent's clock.
        /// None when the look was read only.
        heartbeat: Option<Moment>,
        /// Names of standbys without whose word it acknowledges no commit.
        synchronous: BTreeSet<String>,
    },
    /// Follows a primary.
    Standby(StandbyPosition),
}

/// How far a standby has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyPosition {
    /// End of the log it has received and flushed (`pg_last_wal_receive_lsn`, or replayed if that is further).
    pub received: Lsn,
    /// End of the log it has replayed.
    pub replayed: Lsn,
    /// When the newest heartbeat it has replayed was stamped, on the clock of the agent that wrote it.
    pub heartbeat: Option<Moment>,
    /// The epoch of that heartbeat.
    pub epoch: Option<Epoch>,
    /// Whether its receiver is connected to a primary.
    pub streaming: bool,
    /// The name under which it follows (`cluster_name`, the default `application_name` of its receiver).
    pub name: String,
}

/// How a look failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What decisions are made on.
    pub kind: FailureKind,
    /// What a person reads; never decided on.
    pub detail: String,
}

/// The ways a look fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// No answer in time. Slow is not dead: this counts as lost only after a longer silence.
    Silent,
    /// The connection was refused or reset.
    Refused,
    /// The host could not be reached or its name not be resolved.
    Unreachable,
    /// It answered, but a write could not be committed.
    CannotCommit,
    /// A write was not acknowledged in time, while reads were answered.
    CommitSilent,
    /// It answered that it is not ready: starting up, shutting down, out of sessions.
    NotReady,
    /// It answered in a role other than expected.
    WrongRole,
    /// It belongs to another cluster, or refused who we are.
    WrongIdentity,
    /// It answered something else than expected (status, body, record).
    WrongAnswer,
    /// Its certificate is not valid, or will not be for long.
    Certificate,
    /// What it sent could not be understood, or was too much.
    Malformed,
}

/// How much a failure proves about the place that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The place itself said no: it does not serve.
    Hard,
    /// Nothing was heard, or "not yet": it may be slow, or on its way back. Counts only after a long silence.
    Silence,
    /// It answered, but we may be the ones who are wrong (our password, our certificate, a person at work).
    /// Never a reason to act alone.
    Inconclusive,
}

impl FailureKind {
    /// How much this proves.
    pub const fn weight(self) -> Weight {
        match self {
            Self::Refused | Self::CannotCommit | Self::WrongAnswer => Weight::Hard,
            Self::Silent | Self::Unreachable | Self::CommitSilent | Self::NotReady => Weight::Silence,
            Self::WrongRole | Self::WrongIdentity | Self::Certificate | Self::Malformed => {
                Weight::Inconclusive
            }
        }
    }
}

impl Failure {
    /// A failure of `kind`, with what a person reads.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "no answer in time",
            Self::Refused => "connection refused",
            Self::Unreachable => "unreachable",
            Self::CannotCommit => "cannot commit",
            Self::CommitSilent => "commit not acknowledged in time",
            Self::NotReady => "not ready",
            Self::WrongRole => "wrong role",
            Self::WrongIdentity => "wrong identity",
            Self::WrongAnswer => "wrong answer",
            Self::Certificate => "bad certificate",
            Self::Malformed => "malformed answer",
        })
    }
}
