//! A plan: a runbook bound to names, with no choices left.
//!
//! **Invariant:** carrying out a plan looks nothing up; what it says at the opening of a run is what is done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_runbooks::Deed;
pub use lifeboat_runbooks::Kind;
use serde::{Deserialize, Serialize};

use crate::names::{
    DatabaseName, DnsName, Epoch, ProbeName, RegionName, RunId, StepName, SystemIdentifier, WorkloadName,
};
use crate::outcome::LogPosition;
use crate::time;

pub(crate) mod binding;

/// A runbook bound to one workload, two regions and an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The run that carries it out.
    pub run: RunId,
    /// The workload it moves.
    pub workload: WorkloadName,
    /// The runbook it was made from.
    pub runbook: String,
    /// What it is a procedure for.
    #[serde(default = "failover")]
    pub kind: Kind,
    /// The old primary region: the one that is left; of a rejoin, the one that returns.
    pub from: RegionName,
    /// The target region; of a rejoin, the one where the workload lives and stays.
    pub to: RegionName,
    /// The epoch every effect carries.
    pub epoch: Epoch,
    /// How long it may take until its point of no return.
    #[serde(default, with = "time::millis_option")]
    pub deadline: Option<Duration>,
    /// What is done.
    pub steps: Vec<PlannedStep>,
}

/// Plans of before there were kinds.
const fn failover() -> Kind {
    Kind::Failover
}

/// A step with every choice made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its name in the runbook.
    pub name: StepName,
    /// What it does, for a person.
    pub title: String,
    /// The kind of step.
    pub deed: Deed,
    /// What is done.
    pub action: Action,
    /// How long one attempt may take.
    #[serde(with = "time::millis")]
    pub limit: Duration,
    /// How many attempts are made.
    pub attempts: u32,
    /// How long to wait between two attempts.
    #[serde(with = "time::millis")]
    pub pause: Duration,
    /// From the moment this step starts, the only way is forward.
    pub point_of_no_return: bool,
    /// The steps it follows, by index. None: the one before it (plans of before there were others).
    #[serde(default)]
    pub after: Option<BTreeSet<usize>>,
    /// What takes its effect back, while nothing is promoted.
    #[serde(default)]
    pub undo: Option<Action>,
    /// What a person is asked before it starts.
    #[serde(default)]
    pub approve: Option<String>,
}

/// What a step does, to which things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Action {
    /// Say how far each database of the region has come.
    MeasureLoss {
        /// The target region.
        region: RegionName,
        /// Its databases.
        databases: BTreeSet<DatabaseName>,
    },
    /// Make each database of the region accept no more writes.
    Fence {
        /// The old primary region.
        region: RegionName,
        /// Its databases.
        databases: BTreeSet<DatabaseName>,
        /// Whether the region takes part: it is closed over sessions only, never isolated, and says where its log ends.
        #[serde(default)]
        planned: bool,
        /// Whether it is an old primary that has returned: one that is not closed stays a second place that takes writes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        returned: bool,
        /// Whether a write lease that has run out is proof enough, without a word from the region.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        expiry: bool,
        /// The region whose databases may stop receiving instead, because the old primary acknowledges nothing without
        /// their word. When the step starts, only if the loss was measured on that basis.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cut_off: Option<RegionName>,
    },
    /// Make each database of the region a primary.
    Promote {
        /// The target region.
        region: RegionName,
        /// Its databases, each with the cluster it must belong to.
        databases: BTreeMap<DatabaseName, SystemIdentifier>,
    },
    /// Wait until each database commits and each probe answers.
    AwaitServing {
        /// The target region.
        region: RegionName,
        /// Its databases.
        databases: BTreeSet<DatabaseName>,
        /// Its other probes.
        probes: BTreeSet<ProbeName>,
    },
    /// Make the names say where the workload lives now.
    SwitchDns {
        /// What each must say.
        changes: Vec<NameChange>,
    },
    /// Ask every server for the names, and let the canary visit.
    Verify {
        /// What each must say.
        changes: Vec<NameChange>,
        /// Whether there is a canary.
        canary: bool,
    },
    /// Write the report of the run.
    Report,
    /// See that the target replays what the primary commits, that it could take over, and that the names say what
    /// they should before the move.
    CheckStandby {
        /// Where the workload lives.
        primary: RegionName,
        /// The target region.
        standby: RegionName,
        /// Each database with the cluster it must belong to.
        databases: BTreeMap<DatabaseName, SystemIdentifier>,
        /// The names.
        changes: Vec<NameChange>,
    },
    /// Let each database of the region write its buffers out.
    Drain {
        /// Where.
        region: RegionName,
        /// Its databases.
        databases: BTreeSet<DatabaseName>,
    },
    /// Take the fence back from each database of the region.
    Lift {
        /// Where.
        region: RegionName,
        /// Its databases.
        databases: BTreeSet<DatabaseName>,
    },
    /// Wait until each database of the region has replayed all up to its goal.
    CatchUp {
        /// The target region.
        region: RegionName,
        /// Where the closed primaries' logs end; filled in from the proofs of the fence when the step starts.
        goals: BTreeMap<DatabaseName, LogPosition>,
    },
    /// Keep what only the returned region has.
    Salvage {
        /// The region that returns.
        region: RegionName,
        /// Where the workload lives.
        source: RegionName,
        /// Each database with the cluster it must belong to.
        databases: BTreeMap<DatabaseName, SystemIdentifier>,
    },
    /// Make each database of the region a standby.
    Rejoin {
        /// The region whose databases become standbys.
        region: RegionName,
        /// Where the workload lives.
        source: RegionName,
        /// Each database with the cluster it must belong to.
        databases: BTreeMap<DatabaseName, SystemIdentifier>,
    },
    /// See that each database of the standby region replays what the primary's commits.
    AwaitReplication {
        /// Where the workload lives.
        primary: RegionName,
        /// Who follows.
        standby: RegionName,
        /// Its databases.
        databases: BTreeSet<DatabaseName>,
    },
    /// Run a command on the agent's host.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// Its environment, besides PATH.
        env: BTreeMap<String, String>,
    },
    /// Send a request.
    Http {
        /// The method.
        method: String,
        /// Where to.
        url: String,
        /// What is sent.
        body: Option<String>,
        /// The statuses that are success.
        expect: BTreeSet<u16>,
    },
    /// Ask a database, or change something in it.
    Sql {
        /// Where.
        region: RegionName,
        /// Which.
        database: DatabaseName,
        /// The statement.
        statement: String,
        /// What the first column of the first row must be, as text.
        expect: Option<String>,
    },
    /// Wait.
    Wait {
        /// How long.
        #[serde(with = "time::millis")]
        length: Duration,
    },
    /// Tell people.
    Notify {
        /// What.
        text: String,
    },
    /// Nothing: the question before the step is the step.
    Approve,
}

/// A change of what one DNS name says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameChange {
    /// The name.
    pub name: DnsName,
    /// What it is expected to say before; addresses, or one host name.
    pub from: BTreeSet<String>,
    /// What it must say after.
    pub to: BTreeSet<String>,
    /// Time to live, as served.
    #[serde(with = "time::millis")]
    pub ttl: Duration,
}
