//! Why: the one value that log, status, journal and `explain` all print.
//!
//! **Invariant:** every refusal is a variant with its numbers; none is a text made up elsewhere.

mod council;
mod words;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use lifeboat_runbooks::Kind;

use crate::loss::{Loss, LossManifest};
use crate::names::{
    AgentName, DatabaseName, Epoch, ProbeName, RegionName, RunId, StepName, SystemIdentifier, Timeline,
    WorkloadName,
};
use crate::order::Question;
use crate::outcome::Fault;
use crate::sighting::Failure;
use crate::status::Verdict;
use crate::time::{self, Moment};

/// Why something is so, is done, or is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each field is named by the sentence that its variant prints")]
pub enum Reason {
    // Health.
    AllAnswer {
        region: RegionName,
        probes: usize,
    },
    NotSeen {
        region: RegionName,
        probe: ProbeName,
    },
    ProbeFailing {
        region: RegionName,
        probe: ProbeName,
        failures: u32,
        needed: u32,
        last: Failure,
    },
    ProbeSilent {
        region: RegionName,
        probe: ProbeName,
        #[serde(with = "time::millis")]
        silent: Duration,
        #[serde(with = "time::millis")]
        needed: Duration,
        last: Failure,
    },
    ProbeDown {
        region: RegionName,
        probe: ProbeName,
        failures: u32,
        last: Failure,
    },
    NoProbes {
        region: RegionName,
    },
    ProbeRecovering {
        region: RegionName,
        probe: ProbeName,
        answers: u32,
        needed: u32,
    },
    ProbeInconclusive {
        region: RegionName,
        probe: ProbeName,
        last: Failure,
    },

    // Conditions of an automatic failover.
    PrimaryVerdict {
        region: RegionName,
        verdict: Verdict,
        because: Box<Reason>,
    },
    Quorum {
        region: RegionName,
        lost: usize,
        needed: usize,
    },
    Connectivity {
        vantage: AgentName,
        answered: usize,
        witnesses: usize,
        needed: usize,
        #[serde(with = "time::millis_option")]
        age: Option<Duration>,
    },
    ConnectivityUnconfirmed {
        vantage: AgentName,
        since: Moment,
    },
    QuorumOutside {
        region: RegionName,
        outside: usize,
        needed: usize,
    },
    Automatic,
    Supervised,
    NotPaused,
    PausedUntil {
        until: Moment,
        by: String,
        why: String,
    },
    NoRunOpen,
    RunOpen {
        run: RunId,
    },
    TargetAnswers {
        region: RegionName,
    },
    TargetDown {
        region: RegionName,
        because: Box<Reason>,
    },
    NoTarget,
    IdentityKnown {
        database: DatabaseName,
        system: SystemIdentifier,
    },
    IdentityUnknown {
        database: DatabaseName,
    },
    WrongCluster {
        database: DatabaseName,
        region: RegionName,
        found: SystemIdentifier,
        wanted: SystemIdentifier,
    },
    NewerEpoch {
        region: RegionName,
        found: Epoch,
        known: Epoch,
    },
    TwoPrimaries {
        database: DatabaseName,
        region: RegionName,
    },
    NoDatabases,
    NothingFruitless,
    CooledDown,
    Cooling {
        #[serde(with = "time::millis")]
        left: Duration,
    },
    BudgetLeft {
        used: usize,
        budget: usize,
    },
    BudgetSpent {
        used: usize,
        budget: usize,
        #[serde(with = "time::millis")]
        window: Duration,
    },
    HeldOff {
        #[serde(with = "time::millis")]
        left: Duration,
    },

    // Runs.
    PrimaryLost {
        region: RegionName,
        because: Box<Reason>,
    },
    OrderedBy {
        person: String,
    },
    Asking {
        question: Box<Question>,
        run: RunId,
    },
    StepFailed {
        step: StepName,
        attempts: u32,
        fault: Fault,
    },
    LossUnconfirmed {
        region: RegionName,
    },
    GivenUp {
        person: String,
        why: String,
        /// The region that is no primary by the person's word alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vouched: Option<RegionName>,
    },
    RegionNotInConfiguration {
        workload: WorkloadName,
        region: RegionName,
    },
    NotInConfiguration {
        run: RunId,
    },
    PrimaryIsBack {
        region: RegionName,
    },
    QuestionLapsed {
        question: Question,
    },
    Recovered {
        to: RegionName,
        loss: Option<Loss>,
        #[serde(with = "time::millis")]
        took: Duration,
    },
    UnprovenWaived {
        region: RegionName,
        person: String,
    },

    StepUnbound {
        step: StepName,
        databases: Vec<DatabaseName>,
    },
    Moved {
        procedure: Kind,
        to: RegionName,
        #[serde(with = "time::millis")]
        took: Duration,
    },
    Readmitted {
        region: RegionName,
        #[serde(with = "time::millis")]
        took: Duration,
    },
    KeptOut {
        region: RegionName,
    },
    Returned {
        region: RegionName,
        because: Box<Reason>,
    },
    Cancelled {
        person: String,
        why: String,
    },
    DeadlinePassed {
        #[serde(with = "time::millis")]
        deadline: Duration,
    },
    Lost {
        manifest: LossManifest,
    },
    UndoMoot {
        step: StepName,
        region: RegionName,
        fault: Fault,
    },
    Told {
        text: String,
    },
    MaintenanceUntil {
        until: Moment,
    },

    // Refusals of orders.
    NotFollowing {
        region: RegionName,
        because: Box<Reason>,
    },
    NotStreaming {
        database: DatabaseName,
        region: RegionName,
    },
    Outdated {
        database: DatabaseName,
        region: RegionName,
        found: Timeline,
        wanted: Timeline,
    },
    HeldDown {
        region: RegionName,
        #[serde(with = "time::millis")]
        left: Duration,
    },
    PrimaryNotHealthy {
        workload: WorkloadName,
        region: RegionName,
        verdict: Verdict,
    },
    NoHost {
        region: RegionName,
    },
    PastReturn {
        run: RunId,
    },
    NotSkippable {
        run: RunId,
        step: StepName,
        because: String,
    },
    AlreadyApproved {
        run: RunId,
        person: String,
    },
    FollowsAlready {
        region: RegionName,
    },
    UnknownWorkload {
        workload: WorkloadName,
        known: Vec<WorkloadName>,
    },
    UnknownRegion {
        workload: WorkloadName,
        region: RegionName,
        known: Vec<RegionName>,
    },
    UnknownRun {
        run: RunId,
    },
    AlreadyThere {
        workload: WorkloadName,
        region: RegionName,
    },
    PrimaryHealthy {
        workload: WorkloadName,
        region: RegionName,
    },
    RunEnded {
        run: RunId,
    },
    NothingAsked {
        run: RunId,
    },
    NotAccepted {
        run: RunId,
        question: Question,
    },
    WrongAcceptance {
        run: RunId,
        given: String,
        question: Box<Question>,
    },
    StepUnderWay {
        run: RunId,
        step: Option<StepName>,
    },
    TargetIsPrimary {
        run: RunId,
        region: RegionName,
    },
    MayBePrimary {
        run: RunId,
        region: RegionName,
        since: Moment,
    },
    NotPausedNow {
        workload: WorkloadName,
    },
    StrandedElsewhere {
        run: RunId,
        to: RegionName,
    },
    PauseInThePast {
        until: Moment,
        now: Moment,
    },
    NobodyDecides {
        because: String,
    },
    OrderUnclear {
        because: String,
    },

    // Several agents.
    Decides {
        agent: AgentName,
    },
    NotDeciding {
        decider: Option<AgentName>,
    },
    VantageUnheard {
        vantage: AgentName,
    },
    VantageLate {
        vantage: AgentName,
        #[serde(with = "time::millis")]
        age: Duration,
        #[serde(with = "time::millis")]
        allowed: Duration,
    },
    VantageUnproven {
        vantage: AgentName,
    },
    CoordinationLost {
        since: Moment,
        what: String,
    },
    LostWhileCut {
        region: RegionName,
        because: Box<Reason>,
        cut: Box<Reason>,
    },
    StoppedBySentry {
        region: RegionName,
    },
}

impl Reason {
    /// Whether a second primary is in this region.
    pub(crate) fn is_about(&self, wanted: &RegionName) -> bool {
        matches!(self, Self::TwoPrimaries { region, .. } if region == wanted)
    }
}
