//! From the document to the policy: the values that decisions depend on.
//!
//! **Invariant:** only called for a document that breaks no rule, so nothing can fail here.

use std::collections::BTreeMap;

use lifeboat_core::names::{
    AgentName, DatabaseName, DnsName, ProbeName, RegionName, SystemIdentifier, WorkloadName,
};
use lifeboat_core::policy::{
    ConnectivityPolicy, FailoverPolicy, Mode, NamePolicy, Objectives, Policy, ProbePolicy, WorkloadPolicy,
};

use crate::document::probe::Watch;
use crate::document::workload::{self, Workload};
use crate::document::{Document, dns};
use crate::wiring::database_probe;

/// The policy of a document.
pub(crate) fn of(document: &Document) -> Policy {
    let agent = &document.agent;
    Policy {
        agent: AgentName::new(agent.name.as_str()),
        connectivity: ConnectivityPolicy { witnesses: agent.witnesses.len(), quorum: agent.quorum() },
        workloads: document
            .workloads
            .iter()
            .map(|w| (WorkloadName::new(w.name.as_str()), workload(w)))
            .collect(),
    }
}

fn workload(workload: &Workload) -> WorkloadPolicy {
    let cluster = |d: &workload::Database| d.system_identifier.map(|c| SystemIdentifier::new(c.0));
    WorkloadPolicy {
        name: WorkloadName::new(workload.name.as_str()),
        home: RegionName::new(workload.primary.as_str()),
        standbys: workload.standbys.iter().map(|r| RegionName::new(r.as_str())).collect(),
        objectives: Objectives { rto: workload.objectives.rto.0, rpo: workload.objectives.rpo.0 },
        failover: failover(&workload.failover),
        probes: probes(workload),
        databases: workload
            .databases
            .iter()
            .map(|d| (DatabaseName::new(d.name.as_str()), cluster(d)))
            .collect(),
        names: workload.names.iter().map(name).collect(),
        fences: workload.fence.iter().map(|(r, f)| (RegionName::new(r), f.timeout.0)).collect(),
        canary: workload.canary.is_some(),
        hosts: std::collections::BTreeSet::new(),
        maintenance: Vec::new(),
    }
}

fn failover(failover: &workload::Failover) -> FailoverPolicy {
    FailoverPolicy {
        mode: match failover.mode {
            workload::Mode::Automatic => Mode::Automatic,
            workload::Mode::Supervised => Mode::Supervised,
        },
        quorum: failover.quorum,
        approvals: 1,
        hold_down: std::time::Duration::from_secs(600),
        rejoin: true,
        cooldown: failover.cooldown.0,
        budget: failover.budget,
        budget_window: failover.budget_window.0,
        approval_expires: failover.approval_expires.0,
        freshness: failover.freshness.0,
    }
}

/// A probe of each database in each region of the workload, always vital, and the other probes.
fn probes(workload: &Workload) -> BTreeMap<ProbeName, ProbePolicy> {
    let of_databases = workload.databases.iter().flat_map(|d| workload.regions().map(move |r| (d, r)));
    let of_databases = of_databases.map(|(d, region)| {
        let database = DatabaseName::new(d.name.as_str());
        let policy = probe(region.as_str(), Some(database), true, &d.watch);
        (database_probe(d.name.as_str(), region.as_str()), policy)
    });
    let others = workload.probes.iter().map(|p| {
        let common = p.common();
        (ProbeName::new(common.name.as_str()), probe(common.region.as_str(), None, common.vital, p.watch()))
    });
    of_databases.chain(others).collect()
}

fn probe(region: &str, database: Option<DatabaseName>, vital: bool, watch: &Watch) -> ProbePolicy {
    ProbePolicy {
        region: RegionName::new(region),
        database,
        vital,
        interval: watch.interval.0,
        failures: watch.failures,
        recoveries: watch.recoveries,
        silence: watch.silence.0,
    }
}

fn name(name: &dns::DnsName) -> (DnsName, NamePolicy) {
    let common = name.common();
    let targets = common.target.iter().map(|(region, targets)| {
        (RegionName::new(region), targets.0.iter().map(ToString::to_string).collect())
    });
    (DnsName::new(common.name.as_str()), NamePolicy { ttl: common.ttl.0, targets: targets.collect() })
}
