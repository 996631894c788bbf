//! What the guardian knows, said as values that a person or a program reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use lifeboat_runbooks::Kind;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::head::Guarded;
use crate::names::{AgentName, DatabaseName, Epoch, ProbeName, RegionName, RunId, StepName, WorkloadName};
use crate::order::Question;
use crate::reason::Reason;
use crate::sighting::DatabaseSample;
use crate::time::{self, Moment};

/// What a region looks like, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All its probes are answered.
    Healthy,
    /// Something is wrong, or not known.
    Doubtful,
    /// A vital probe is down.
    Lost,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Doubtful => "doubtful",
            Self::Lost => "lost",
        })
    }
}

/// What a probe looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeState {
    /// It is answered.
    Up,
    /// It fails, and does not count as down yet.
    Failing,
    /// It counts as down.
    Down,
    /// No fresh sighting.
    Unseen,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who says so.
    pub agent: AgentName,
    /// When.
    pub at: Moment,
    /// Who decides, as the record says; none when this agent is alone, and before the first of several is elected.
    #[serde(default)]
    pub decider: Option<DeciderStatus>,
    /// Whether what the agents share can be reached; none when this agent is alone.
    #[serde(default)]
    pub coordination: Option<CoordinationStatus>,
    /// All agents that share the record as vantages, this one too; none when it is alone.
    #[serde(default)]
    pub vantages: BTreeMap<AgentName, VantageStatus>,
    /// This agent's own connectivity.
    pub connectivity: ConnectivityStatus,
    /// Each workload.
    pub workloads: BTreeMap<WorkloadName, WorkloadStatus>,
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeciderStatus {
    /// Its name.
    pub agent: AgentName,
    /// Rises with each that is elected.
    pub term: u64,
    /// When it was elected, on its own clock.
    pub since: Moment,
    /// Whether it is this agent, and it holds the tenure now.
    pub here: bool,
}

/// Whether what the agents share can be reached from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinationStatus {
    /// Whether it can.
    pub reached: bool,
    /// Since when not, and what was said.
    pub reason: Option<Reason>,
}

/// One vantage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VantageStatus {
    /// The place it fails with.
    pub place: RegionName,
    /// Whether it is this agent.
    pub here: bool,
    /// Whether it says that it can prove its own connectivity; none when nothing is known of it.
    pub connected: Option<bool>,
    /// How long ago its newest testimony came in, in milliseconds; none when there is none.
    #[serde(with = "time::millis_option")]
    pub heard: Option<Duration>,
    /// How old that testimony is at most, measured by the beat it echoes, in milliseconds; only the one who decides knows.
    #[serde(with = "time::millis_option")]
    pub age: Option<Duration>,
    /// What it says of each region of each workload.
    pub sees: BTreeMap<WorkloadName, BTreeMap<RegionName, SeenStatus>>,
}

/// What a vantage says of a region, and what that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenStatus {
    /// Its verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Whether its own connectivity was proven, for a verdict of lost.
    pub proven: bool,
    /// Why it is no vote for the loss of the region; none when it is one.
    pub abstains: Option<Reason>,
}

/// A sentry beside the databases of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentryStatus {
    /// What it says of them; none when it does not hold its lease.
    pub says: Option<Guarded>,
    /// For how long that has been so, in milliseconds; none when it was never heard of.
    #[serde(with = "time::millis_option")]
    pub since: Option<Duration>,
}

/// Whether the agent can prove that its own network works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectivityStatus {
    /// Whether it can.
    pub proven: bool,
    /// The numbers.
    pub reason: Reason,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// What is going on, in one word.
    pub phase: PhaseName,
    /// Where it lives.
    pub primary: RegionName,
    /// Its epoch.
    pub epoch: Epoch,
    /// Each region.
    pub regions: BTreeMap<RegionName, RegionStatus>,
    /// Until when, by whom and why automatic action is paused.
    pub paused: Option<Reason>,
    /// The maintenance window that is open.
    #[serde(default)]
    pub maintenance: Option<Reason>,
    /// Regions that were fenced when they returned, and wait for a person to make them standbys.
    #[serde(default)]
    pub kept_out: BTreeSet<RegionName>,
    /// The sentry beside the databases of each region that has one.
    #[serde(default)]
    pub sentries: BTreeMap<RegionName, SentryStatus>,
    /// The run that is open.
    pub run: Option<RunStatus>,
    /// What an automatic failover would need, each with its numbers.
    pub conditions: Vec<Condition>,
    /// Recovery time objective, in milliseconds.
    #[serde(with = "time::millis")]
    pub rto: Duration,
    /// Recovery point objective, in milliseconds.
    #[serde(with = "time::millis")]
    pub rpo: Duration,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseName {
    /// Watching; all is well.
    Guarding,
    /// Watching; something is wrong with the primary, or cannot be seen.
    Doubting,
    /// A failover is under way, or waits for a person.
    FailingOver,
    /// A planned move is under way.
    SwitchingOver,
    /// A planned move home is under way.
    FailingBack,
    /// An old primary is made a standby.
    Rejoining,
    /// A person must act.
    Stranded,
    /// A person has paused automatic action.
    Paused,
}

impl PhaseName {
    /// The phase in which a run of that kind is under way.
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Failover => Self::FailingOver,
            Kind::Switchover => Self::SwitchingOver,
            Kind::Failback => Self::FailingBack,
            Kind::Rejoin => Self::Rejoining,
        }
    }
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Guarding => "guarding",
            Self::Doubting => "doubting",
            Self::FailingOver => "failing over",
            Self::SwitchingOver => "switching over",
            Self::FailingBack => "failing back",
            Self::Rejoining => "rejoining",
            Self::Stranded => "stranded",
            Self::Paused => "paused",
        })
    }
}

/// One region of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// Whether the workload lives there.
    pub primary: bool,
    /// How it looks from here.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Each probe.
    pub probes: BTreeMap<ProbeName, ProbeStatus>,
    /// Each database, as last seen.
    pub databases: BTreeMap<DatabaseName, DatabaseStatus>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Its state.
    pub state: ProbeState,
    /// How long ago it looked, in milliseconds.
    #[serde(with = "time::millis_option")]
    pub age: Option<Duration>,
    /// How long its last look took, in milliseconds.
    #[serde(with = "time::millis")]
    pub took: Duration,
    /// How its last look failed, when it is not up.
    pub failure: Option<String>,
}

/// One database in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// What it last said of itself.
    pub sample: DatabaseSample,
    /// How long ago, in milliseconds.
    #[serde(with = "time::millis")]
    pub age: Duration,
    /// How far it is behind the primary, in bytes; none for the primary or when unknown.
    pub lag_bytes: Option<u64>,
    /// How far it is behind the primary, in milliseconds of heartbeats.
    #[serde(with = "time::millis_option")]
    pub lag: Option<Duration>,
}

/// The run that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Its name.
    pub run: RunId,
    /// What it carries out.
    pub kind: Kind,
    /// Where from.
    pub from: RegionName,
    /// Where to.
    pub to: RegionName,
    /// When it began.
    pub opened: Moment,
    /// The step it is at.
    pub step: Option<StepName>,
    /// What it asks of a person.
    pub question: Option<Question>,
    /// The command that answers.
    pub answer: Option<String>,
    /// Why it is stranded.
    pub stranded: Option<Reason>,
    /// Who has accepted what it asks, while another person must, too.
    #[serde(default)]
    pub assents: Vec<String>,
    /// Why it is being taken back.
    #[serde(default)]
    pub back: Option<Reason>,
    /// Whether it is past its point of no return.
    #[serde(default)]
    pub past_return: bool,
}
