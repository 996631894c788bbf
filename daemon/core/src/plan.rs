//! A plan: a runbook bound to names, with no choices left.
//!
//! **Invariant:** carrying out a plan looks nothing up; what it says at the opening of a run is what is done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_runbooks::{Deed, Runbook, Step};
use serde::{Deserialize, Serialize};

use crate::names::{
    DatabaseName, DnsName, Epoch, ProbeName, RegionName, RunId, StepName, SystemIdentifier, WorkloadName,
};
use crate::policy::WorkloadPolicy;
use crate::reason::Reason;
use crate::time;

/// How long a fence may take besides its command: the attempt over SQL before it, the proof after it.
const FENCE_VERIFICATION: Duration = Duration::from_secs(15);

/// A runbook bound to one workload, two regions and an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The run that carries it out.
    pub run: RunId,
    /// The workload it moves.
    pub workload: WorkloadName,
    /// The runbook it was made from.
    pub runbook: String,
    /// The old primary region.
    pub from: RegionName,
    /// The target region.
    pub to: RegionName,
    /// The epoch every effect carries.
    pub epoch: Epoch,
    /// What is done, in this order.
    pub steps: Vec<PlannedStep>,
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

/// Who moves where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The old primary region.
    pub from: RegionName,
    /// The target region.
    pub to: RegionName,
    /// The epoch of the move.
    pub epoch: Epoch,
}

impl Plan {
    /// Binds `runbook` to a move of a workload.
    ///
    /// # Errors
    /// [`Reason::IdentityUnknown`] when it is not known which cluster a database must belong to.
    pub fn bind(
        runbook: &Runbook,
        policy: &WorkloadPolicy,
        identities: &BTreeMap<DatabaseName, SystemIdentifier>,
        movement: &Move,
    ) -> Result<Self, Reason> {
        let binding = Binding { policy, identities, movement };
        let steps = runbook.steps.iter().map(|step| {
            Ok(PlannedStep {
                name: StepName::new(&step.name),
                title: step.title.clone(),
                deed: step.deed,
                action: binding.action(step.deed)?,
                limit: binding.limit(step),
                attempts: step.attempts,
                pause: step.pause,
                point_of_no_return: step.point_of_no_return,
            })
        });
        Ok(Self {
            run: RunId::of(&policy.name, movement.epoch),
            workload: policy.name.clone(),
            runbook: runbook.name.clone(),
            from: movement.from.clone(),
            to: movement.to.clone(),
            epoch: movement.epoch,
            steps: steps.collect::<Result<_, Reason>>()?,
        })
    }
}

/// What the steps of one plan are bound to.
struct Binding<'a> {
    policy: &'a WorkloadPolicy,
    identities: &'a BTreeMap<DatabaseName, SystemIdentifier>,
    movement: &'a Move,
}

impl Binding<'_> {
    fn action(&self, deed: Deed) -> Result<Action, Reason> {
        let (from, to) = (self.movement.from.clone(), self.movement.to.clone());
        let databases: BTreeSet<DatabaseName> = self.policy.databases.keys().cloned().collect();
        Ok(match deed {
            Deed::MeasureLoss => Action::MeasureLoss { region: to, databases },
            Deed::Fence => Action::Fence { region: from, databases },
            Deed::Promote => Action::Promote { region: to, databases: self.promotions()? },
            Deed::AwaitServing => {
                Action::AwaitServing { probes: self.other_probes(&to), region: to, databases }
            }
            Deed::SwitchDns => Action::SwitchDns { changes: self.changes() },
            Deed::Verify => Action::Verify { changes: self.changes(), canary: self.policy.canary },
            Deed::Report => Action::Report,
        })
    }

    /// A fence gets the time its command may take, and some for the verification over sessions around it.
    fn limit(&self, step: &Step) -> Duration {
        let command = self.policy.fences.get(&self.movement.from).filter(|_| step.deed == Deed::Fence);
        command.map_or(step.timeout, |command| step.timeout.max(*command + FENCE_VERIFICATION))
    }

    fn promotions(&self) -> Result<BTreeMap<DatabaseName, SystemIdentifier>, Reason> {
        let known = self.policy.databases.iter().map(|(database, pinned)| {
            let system = pinned.or_else(|| self.identities.get(database).copied());
            let system = system.ok_or_else(|| Reason::IdentityUnknown { database: database.clone() })?;
            Ok((database.clone(), system))
        });
        known.collect()
    }

    fn other_probes(&self, region: &RegionName) -> BTreeSet<ProbeName> {
        let probes = self.policy.probes.iter();
        probes
            .filter(|(_, p)| p.region == *region && p.database.is_none())
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn changes(&self) -> Vec<NameChange> {
        let says = |name: &crate::policy::NamePolicy, region: &RegionName| {
            name.targets.get(region).cloned().unwrap_or_default()
        };
        let names = self.policy.names.iter().map(|(name, policy)| NameChange {
            name: name.clone(),
            from: says(policy, &self.movement.from),
            to: says(policy, &self.movement.to),
            ttl: policy.ttl,
        });
        names.collect()
    }
}
