//! Binding a runbook to names: every choice is made here, once, when a run opens.
//!
//! **Invariant:** a step whose conditions do not hold is not in the plan; those that follow it follow what it followed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_runbooks::{Deed, Kind, Runbook, Side, SqlWith, Step, When, With};

use super::{Action, NameChange, Plan, PlannedStep};
use crate::names::{DatabaseName, Epoch, ProbeName, RegionName, RunId, StepName, SystemIdentifier};
use crate::policy::{NamePolicy, WorkloadPolicy};
use crate::reason::Reason;

/// How long a fence may take besides its command: the attempt over SQL before it, the proof after it.
const FENCE_VERIFICATION: Duration = Duration::from_secs(15);

/// How long a pause may take besides its length.
const WAIT_GRACE: Duration = Duration::from_secs(1);

/// What the steps of one plan are bound to.
pub(crate) struct Binding<'a> {
    /// What the workload's operator wants.
    pub(crate) policy: &'a WorkloadPolicy,
    /// The cluster of each database, as far as it is known.
    pub(crate) clusters: BTreeMap<DatabaseName, SystemIdentifier>,
    /// The region that is left; of a rejoin, the one that returns.
    pub(crate) from: RegionName,
    /// The target; of a rejoin, where the workload lives.
    pub(crate) to: RegionName,
    /// The epoch of the run.
    pub(crate) epoch: Epoch,
    /// Whether lifeboat opens it by itself.
    pub(crate) automatic: bool,
}

impl Binding<'_> {
    /// The plan.
    ///
    /// # Errors
    /// [`Reason::IdentityUnknown`] when it is not known which cluster a database must belong to,
    /// [`Reason::StepUnbound`] when a step names a database that the workload does not have.
    pub(crate) fn plan(&self, runbook: &Runbook) -> Result<Plan, Reason> {
        let steps = self.steps(runbook)?;
        Ok(Plan {
            run: RunId::of(&self.policy.name, self.epoch),
            workload: self.policy.name.clone(),
            runbook: runbook.name.clone(),
            kind: runbook.kind,
            from: self.from.clone(),
            to: self.to.clone(),
            epoch: self.epoch,
            deadline: runbook.deadline,
            steps,
        })
    }

    fn steps(&self, runbook: &Runbook) -> Result<Vec<PlannedStep>, Reason> {
        let predecessors = runbook.predecessors();
        // By index on the page: what stands for it in the plan, itself or what a dropped step followed.
        let mut stands_for: Vec<BTreeSet<usize>> = Vec::with_capacity(runbook.steps.len());
        let mut steps = Vec::new();
        for (step, follows) in runbook.steps.iter().zip(predecessors) {
            let after: BTreeSet<usize> =
                follows.iter().filter_map(|index| stands_for.get(*index)).flatten().copied().collect();
            if step.when.iter().all(|condition| self.holds(*condition)) {
                stands_for.push(BTreeSet::from([steps.len()]));
                steps.push(self.step(runbook.kind, step, after)?);
            } else {
                stands_for.push(after);
            }
        }
        Ok(steps)
    }

    fn step(&self, kind: Kind, step: &Step, after: BTreeSet<usize>) -> Result<PlannedStep, Reason> {
        let action = |deed, with: &With| self.action(kind, &step.name, deed, with);
        Ok(PlannedStep {
            name: StepName::new(&step.name),
            title: step.title.clone(),
            deed: step.deed,
            action: action(step.deed, &step.with)?,
            limit: self.limit(kind, step),
            attempts: step.attempts,
            pause: step.pause,
            point_of_no_return: step.point_of_no_return,
            after: Some(after),
            undo: step.undo.as_ref().map(|undo| action(undo.deed, &undo.with)).transpose()?,
            approve: self.question(step),
        })
    }

    fn holds(&self, condition: When) -> bool {
        match condition {
            When::Automatic => self.automatic,
            When::Ordered => !self.automatic,
            When::Canary => self.policy.canary,
            When::Host => self.policy.hosts.contains(&self.from),
        }
    }

    fn question(&self, step: &Step) -> Option<String> {
        match &step.with {
            With::Text(with) if step.deed == Deed::Approve => Some(self.filled(&with.text)),
            _ => step.approve.as_ref().map(|text| self.filled(text)),
        }
    }

    fn action(&self, kind: Kind, step: &str, deed: Deed, with: &With) -> Result<Action, Reason> {
        let (from, to) = (self.from.clone(), self.to.clone());
        let databases: BTreeSet<DatabaseName> = self.policy.databases.keys().cloned().collect();
        Ok(match deed {
            Deed::MeasureLoss => Action::MeasureLoss { region: to, databases },
            Deed::CheckStandby => Action::CheckStandby {
                primary: from,
                standby: to,
                databases: self.clusters()?,
                changes: self.changes(),
            },
            Deed::Drain => Action::Drain { region: from, databases },
            Deed::Fence => Action::Fence {
                expiry: kind == Kind::Failover
                    && self.policy.failover.fence_expiry
                    && self.policy.sentries.contains(&from),
                cut_off: Some(to).filter(|_| kind == Kind::Failover && self.policy.failover.fence_cut_off),
                region: from,
                databases,
                planned: kind != Kind::Failover,
                returned: kind == Kind::Rejoin,
            },
            Deed::Lift => Action::Lift { region: from, databases },
            Deed::CatchUp => Action::CatchUp { region: to, goals: BTreeMap::new() },
            Deed::Promote => Action::Promote { region: to, databases: self.clusters()? },
            Deed::AwaitServing => {
                Action::AwaitServing { probes: self.other_probes(&to), region: to, databases }
            }
            Deed::SwitchDns => Action::SwitchDns { changes: self.changes() },
            Deed::Verify => Action::Verify { changes: self.changes(), canary: self.policy.canary },
            Deed::Salvage => Action::Salvage { region: from, source: to, databases: self.clusters()? },
            Deed::Rejoin => Action::Rejoin { region: from, source: to, databases: self.clusters()? },
            Deed::AwaitReplication => Action::AwaitReplication { primary: to, standby: from, databases },
            Deed::Report => Action::Report,
            Deed::Run | Deed::Http | Deed::Sql | Deed::Wait | Deed::Notify | Deed::Approve => {
                self.own(step, with)?
            }
        })
    }

    /// A step of the operator's own, with every placeholder filled.
    fn own(&self, step: &str, with: &With) -> Result<Action, Reason> {
        let fill = |text: &String| self.filled(text);
        Ok(match with {
            With::Run(run) => Action::Run {
                argv: run.argv.iter().map(fill).collect(),
                env: run.env.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            },
            With::Http(http) => Action::Http {
                method: http.method.clone(),
                url: fill(&http.url),
                body: http.body.as_ref().map(fill),
                expect: http.expect.clone(),
            },
            With::Sql(sql) => Action::Sql {
                region: if sql.on == Side::From { self.from.clone() } else { self.to.clone() },
                database: self.database(step, sql)?,
                statement: fill(&sql.statement),
                expect: sql.expect.as_ref().map(fill),
            },
            With::Wait(wait) => Action::Wait { length: wait.length },
            With::Text(with) => Action::Notify { text: fill(&with.text) },
            With::Nothing => Action::Approve,
        })
    }

    fn database(&self, step: &str, sql: &SqlWith) -> Result<DatabaseName, Reason> {
        let mut known = self.policy.databases.keys();
        let found = match &sql.database {
            Some(name) => known.find(|known| known.as_str() == name),
            None => known.next().filter(|_| self.policy.databases.len() == 1),
        };
        found.cloned().ok_or_else(|| Reason::StepUnbound {
            step: StepName::new(step),
            databases: self.policy.databases.keys().cloned().collect(),
        })
    }

    /// A fence gets the time its command may take, and some for the verification over sessions around it.
    fn limit(&self, kind: Kind, step: &Step) -> Duration {
        if let With::Wait(wait) = &step.with {
            return step.timeout.max(wait.length + WAIT_GRACE);
        }
        let isolates = kind == Kind::Failover && step.deed == Deed::Fence;
        let command = self.policy.fences.get(&self.from).filter(|_| isolates);
        command.map_or(step.timeout, |command| step.timeout.max(*command + FENCE_VERIFICATION))
    }

    fn clusters(&self) -> Result<BTreeMap<DatabaseName, SystemIdentifier>, Reason> {
        let known = self.policy.databases.keys().map(|database| {
            let system = self.clusters.get(database).copied();
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
        let says =
            |name: &NamePolicy, region: &RegionName| name.targets.get(region).cloned().unwrap_or_default();
        let names = self.policy.names.iter().map(|(name, policy)| NameChange {
            name: name.clone(),
            from: says(policy, &self.from),
            to: says(policy, &self.to),
            ttl: policy.ttl,
        });
        names.collect()
    }

    fn filled(&self, text: &str) -> String {
        let run = RunId::of(&self.policy.name, self.epoch);
        text.replace("{workload}", self.policy.name.as_str())
            .replace("{run}", run.as_str())
            .replace("{epoch}", &self.epoch.to_string())
            .replace("{from}", self.from.as_str())
            .replace("{to}", self.to.as_str())
    }
}
