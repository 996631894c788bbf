//! A procedure as a person would carry it out: bound to names, also by a guardian that has seen nothing.
//!
//! **Invariant:** such a plan is for reading. Where a cluster is not known it says 0, which no cluster of PostgreSQL is,
//! so a server would refuse to be promoted by it.

use std::collections::BTreeMap;

use lifeboat_runbooks::Kind;

use super::{Guardian, Workload};
use crate::forecast::Forecast;
use crate::names::{DatabaseName, RegionName, SystemIdentifier, WorkloadName};
use crate::plan::Plan;
use crate::plan::binding::Binding;
use crate::reason::Reason;

/// A procedure bound for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// What is done. Clusters that are not known are 0.
    pub plan: Plan,
    /// How long each step took here; nothing when no run is on record.
    pub forecast: Forecast,
    /// The cluster of each database, as far as the operator named it or the record knows it.
    pub clusters: BTreeMap<DatabaseName, SystemIdentifier>,
}

impl Guardian {
    /// The plan of a procedure for a person, whether or not it could be opened now. Touches nothing.
    ///
    /// `region` is the target, or of a rejoin the region that returns; by default the first standby region, and home
    /// of a failback and a rejoin. When the workload is at home on record, a failback and a rejoin are bound as if it
    /// had moved to the first other region: they are written down before the day.
    ///
    /// # Errors
    /// The reason why it cannot be bound: an unknown workload, region, or database of a step.
    pub fn by_hand(
        &self,
        kind: Kind,
        workload: &WorkloadName,
        region: Option<&RegionName>,
    ) -> Result<ByHand, Reason> {
        let found = self.workloads.get(workload).ok_or_else(|| Reason::UnknownWorkload {
            workload: workload.clone(),
            known: self.workloads.keys().cloned().collect(),
        })?;
        let (from, to) = found.between(kind, region)?;
        let known = found.policy.databases.keys();
        let clusters: BTreeMap<_, _> =
            known.filter_map(|name| Some((name.clone(), found.cluster_of(name)?))).collect();
        let nobody = found.policy.databases.keys().map(|name| (name.clone(), SystemIdentifier::default()));
        let mut bound: BTreeMap<_, _> = nobody.collect();
        bound.extend(clusters.clone());
        let epoch = found.ledger.epoch.next();
        let binding = Binding { policy: &found.policy, clusters: bound, from, to, epoch, automatic: false };
        let plan = binding.plan(self.runbooks.page(kind))?;
        let forecast = Forecast::of(&plan, &found.policy, &found.ledger.timings);
        Ok(ByHand { plan, forecast, clusters })
    }
}

impl Workload {
    /// From where to where a person moves it.
    fn between(&self, kind: Kind, region: Option<&RegionName>) -> Result<(RegionName, RegionName), Reason> {
        let primary = &self.ledger.primary;
        let wanted = match (kind, region) {
            (_, Some(region)) => region.clone(),
            (Kind::Failback | Kind::Rejoin, None) => self.policy.home.clone(),
            (Kind::Failover | Kind::Switchover, None) => self.other(primary)?,
        };
        if !self.policy.regions().any(|known| *known == wanted) {
            return Err(self.unknown(wanted));
        }
        let lives = if wanted != *primary {
            primary.clone()
        } else if matches!(kind, Kind::Failback | Kind::Rejoin) {
            self.other(&wanted)?
        } else {
            let workload = self.policy.name.clone();
            return Err(Reason::AlreadyThere { workload, region: wanted });
        };
        Ok(if kind == Kind::Rejoin { (wanted, lives) } else { (lives, wanted) })
    }

    fn other(&self, region: &RegionName) -> Result<RegionName, Reason> {
        let other = self.policy.regions().find(|other| *other != region);
        other.cloned().ok_or_else(|| self.unknown(region.clone()))
    }

    fn unknown(&self, region: RegionName) -> Reason {
        let known = self.policy.regions().cloned().collect();
        Reason::UnknownRegion { workload: self.policy.name.clone(), region, known }
    }
}
