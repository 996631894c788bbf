//! What came of a step: outputs, and faults that say what to do next.
//!
//! **Invariant:** "no answer" is [`FaultKind::Unclear`] or [`FaultKind::Unreachable`], never an output.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{DatabaseName, DnsName, Lsn, RegionName, SystemIdentifier, Timeline};
use crate::sighting::StandbyPosition;
use crate::time;

/// What came of one attempt at a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The step's effect is there.
    Succeeded(Output),
    /// It is not, or nobody knows.
    Failed(Fault),
}

/// What a step gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Output {
    /// How far each database of the target region has come.
    Positions {
        /// By database.
        positions: BTreeMap<DatabaseName, TargetPosition>,
    },
    /// The old primary takes no more writes, with the proof for each database.
    Fenced {
        /// By database.
        proofs: BTreeMap<DatabaseName, FenceProof>,
    },
    /// Each database of the target region is a primary.
    Promoted {
        /// By database.
        promotions: BTreeMap<DatabaseName, Promotion>,
    },
    /// The target region serves: databases commit, probes answer.
    Serving {
        /// How long the slowest took to commit its first write, in milliseconds.
        #[serde(with = "time::millis")]
        first_write: Duration,
    },
    /// Each name says where the workload lives now.
    Switched {
        /// By name.
        names: BTreeMap<DnsName, NameSwitched>,
    },
    /// Clients are seen at the new place.
    Verified {
        /// The census of each name.
        censuses: BTreeMap<DnsName, Census>,
        /// What the canary saw, when there is one.
        canary: Option<Visit>,
    },
    /// The report is on record.
    Reported,
    /// The target follows the primary, could take over, and every name says what it should.
    Ready {
        /// How long the target took to replay a commit that was made for the purpose, by database.
        #[serde(with = "time::millis")]
        behind: Duration,
    },
    /// The primary has written its buffers out.
    Drained,
    /// The primary accepts writes again.
    Lifted,
    /// The target has replayed all that the closed primary wrote: up to here, by database.
    CaughtUp {
        /// By database.
        positions: BTreeMap<DatabaseName, LogPosition>,
    },
    /// What only the returned primary has is kept.
    Salvaged {
        /// By database.
        salvages: BTreeMap<DatabaseName, Salvage>,
    },
    /// The old primary is a standby.
    Rejoined {
        /// By database.
        rejoins: BTreeMap<DatabaseName, Rejoined>,
    },
    /// The standby replays what the primary commits: up to here, by database.
    Replicating {
        /// By database.
        positions: BTreeMap<DatabaseName, LogPosition>,
    },
    /// A step of the operator's own succeeded.
    Did {
        /// What it said, redacted and cut; empty when it says nothing.
        said: String,
    },
}

/// Where a standby stands, just before it may be promoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetPosition {
    /// Which cluster it belongs to.
    pub system: SystemIdentifier,
    /// Its timeline.
    pub timeline: Timeline,
    /// How far it has come; all that was received is replayed when this is read.
    pub position: StandbyPosition,
}

/// Why the old primary can be taken to accept no more writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FenceProof {
    /// It was made read only, its sessions were ended, and a write over a session that was open before
    /// was refused.
    WriteRefused {
        /// The SQLSTATE of the refusal.
        sqlstate: String,
        /// How many sessions were ended.
        sessions_ended: u64,
    },
    /// The isolate command succeeded, and the session that was open before is gone or refuses to write.
    Isolated {
        /// The command, as it was run.
        command: Vec<String>,
        /// What became of the session that was open before.
        session: String,
    },
    /// It was closed on purpose while it worked: as [`Self::WriteRefused`], and this is where its log ended once the
    /// last session that could write was gone.
    Closed {
        /// The SQLSTATE of the refusal.
        sqlstate: String,
        /// How many sessions were ended.
        sessions_ended: u64,
        /// Everything that was ever acknowledged is before this.
        end: LogPosition,
    },
    /// The server is stopped, says the tool on its host.
    Stopped,
    /// Its write lease ran out: it cannot be renewed any more, and the sentry beside it has stopped the database by its own
    /// clock. The region itself was not heard.
    Expired {
        /// The length of the lease, in milliseconds.
        #[serde(with = "time::millis")]
        lease: Duration,
        /// How long after its last possible renewal this was said, margins included, in milliseconds.
        #[serde(with = "time::millis")]
        waited: Duration,
    },
    /// A standby whose word each of its commits needed, when it was last seen, has stopped receiving from it: it acknowledges
    /// nothing after `end`, while its settings are what they were. The region itself was not heard. It may go on to write
    /// what nobody is told is done, and three things are not seen from here: a person there changes
    /// `synchronous_standby_names`, a session asks for a lower `synchronous_commit` itself, or one that waits is cancelled,
    /// which is then told with a warning (PostgreSQL's manual, "Synchronous Replication").
    CutOff {
        /// The standby, as the primary named it.
        standby: String,
        /// Where the log that the standby received ends.
        end: LogPosition,
    },
}

impl FenceProof {
    /// Its rank: what was seen at the old primary itself comes before what follows from its log, and that before what
    /// follows from clocks. Lower is better.
    pub const fn rank(&self) -> u8 {
        match self {
            Self::WriteRefused { .. } | Self::Isolated { .. } | Self::Closed { .. } | Self::Stopped => 0,
            Self::CutOff { .. } => 1,
            Self::Expired { .. } => 2,
        }
    }

    /// Where the log ends, when that is known.
    pub const fn end(&self) -> Option<&LogPosition> {
        match self {
            Self::Closed { end, .. } | Self::CutOff { end, .. } => Some(end),
            Self::WriteRefused { .. } | Self::Isolated { .. } | Self::Stopped | Self::Expired { .. } => None,
        }
    }
}

/// What promoting a standby gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The timeline it writes now.
    pub timeline: Timeline,
    /// Where its own log begins.
    pub switched_at: Option<Lsn>,
    /// Whether it was a primary already, promoted by an earlier attempt of the same run.
    pub already: bool,
}

/// A place in the log of a cluster: two of them can be compared only on one timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// The cluster.
    pub system: SystemIdentifier,
    /// The timeline.
    pub timeline: Timeline,
    /// The byte.
    pub lsn: Lsn,
}

impl LogPosition {
    /// Whether a server that stands here has all that one which ended at `goal` had: the same cluster, at least as far,
    /// on the same timeline, or on a later one that began no earlier.
    pub fn reaches(&self, goal: &Self) -> bool {
        self.system == goal.system && self.timeline >= goal.timeline && self.lsn >= goal.lsn
    }
}

/// Where a timeline ended, because the next one was begun there by a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Its last byte that the next one shares.
    pub lsn: Lsn,
}

/// A primary as a server that is to follow it needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Where it is.
    pub region: RegionName,
    /// Host name or address, as the follower reaches it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Its cluster.
    pub system: SystemIdentifier,
    /// The timeline it writes.
    pub timeline: Timeline,
    /// The timelines it has behind it, oldest first.
    pub lineage: Vec<Fork>,
    /// The replication slot that it keeps for the follower.
    pub slot: String,
}

impl Source {
    /// Up to where a server on `timeline` shares its log with this primary; none when it is on no timeline of its
    /// history, which makes it another cluster or one that was promoted elsewhere.
    pub fn shared_until(&self, timeline: Timeline) -> Option<Lsn> {
        if timeline == self.timeline {
            return Some(Lsn::new(u64::MAX));
        }
        self.lineage.iter().find(|fork| fork.timeline == timeline).map(|fork| fork.lsn)
    }
}

/// What was kept of the writes that only the old primary has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salvage {
    /// Where its log parts from the new primary's; none when it does not.
    pub diverged_at: Option<Lsn>,
    /// Where its log ends.
    pub end: Lsn,
    /// Rows that were inserted or changed after that, and are in the file.
    pub rows: u64,
    /// What could not be exported, each in a sentence: deletions, tables that cannot be read.
    pub unread: Vec<String>,
    /// The folder on the database host; none when there was nothing to keep.
    pub folder: Option<String>,
}

/// How an old primary was made a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejoinWay {
    /// Its log was a part of the new primary's: it only had to be told whom to follow.
    Follow,
    /// Its log had parted: `pg_rewind` took it back to where it did.
    Rewind,
    /// It was copied anew from the new primary.
    Rebuild,
}

/// What making an old primary a standby gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoined {
    /// How.
    pub way: RejoinWay,
    /// Whether it followed already, because of an earlier attempt of the same run.
    pub already: bool,
    /// Why not by a cheaper way, when a cheaper one was tried and failed.
    pub because: Option<String>,
}

/// What switching a name did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSwitched {
    /// What it says now.
    pub values: BTreeSet<String>,
    /// Whether it said so already.
    pub already: bool,
}

/// What every server that may be asked for a name answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Servers that answer the new values.
    pub agree: BTreeSet<String>,
    /// Servers that answer something else, with what they said.
    pub disagree: BTreeMap<String, String>,
    /// Servers that do not answer at all: perhaps they died with the region. They are named, and not waited for.
    #[serde(default)]
    pub silent: BTreeMap<String, String>,
}

/// What the canary saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The address that the name led to.
    pub address: String,
    /// How long the answer took, in milliseconds.
    #[serde(with = "time::millis")]
    pub took: Duration,
}

/// Why an attempt failed, in the four kinds that tell what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What decisions are made on.
    pub kind: FaultKind,
    /// Where it happened, when it happened in one region.
    pub region: Option<RegionName>,
    /// What a person reads; never decided on.
    pub detail: String,
}

/// The kinds of fault, by what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Nothing was reached, nothing happened: look again.
    Unreachable,
    /// The world said no: doing it again changes nothing.
    Refused,
    /// It may have happened: look before anything.
    Unclear,
    /// Someone with a newer epoch is in charge: stop.
    Stale,
}

impl Fault {
    /// A fault of `kind`, with what a person reads.
    pub fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, region: None, detail: detail.into() }
    }

    /// The same fault, said of a region.
    #[must_use]
    pub fn in_region(mut self, region: &RegionName) -> Self {
        self.region = Some(region.clone());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(region) = &self.region {
            write!(f, " in {region}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Unclear => "unclear",
            Self::Stale => "stale",
        })
    }
}

impl std::error::Error for Fault {}
