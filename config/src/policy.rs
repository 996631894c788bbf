//! From the document to the policy: the values that decisions depend on.
//!
//! **Invariant:** only called for a document that breaks no rule, so nothing can fail here.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_core::names::{
    AgentName, DatabaseName, DnsName, ProbeName, RegionName, SystemIdentifier, WorkloadName,
};
use lifeboat_core::policy::{
    ConnectivityPolicy, FailoverPolicy, Mode, NamePolicy, Objectives, Policy, ProbePolicy, Window,
    WorkloadPolicy,
};

use crate::document::probe::Watch;
use crate::document::upkeep::Maintenance;
use crate::document::workload::{self, Workload};
use crate::document::{Document, dns};
use crate::wiring::database_probe;

/// The policy of a document.
pub(crate) fn of(document: &Document) -> Policy {
    let agent = &document.agent;
    Policy {
        agent: AgentName::new(agent.name.as_str()),
        agents: BTreeMap::new(),
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
        hosts: hosts(workload),
        sentries: BTreeSet::new(),
        maintenance: workload.maintenance.iter().flat_map(windows).collect(),
    }
}

/// The regions where every database has a command that reaches its host; none without a database.
fn hosts(workload: &Workload) -> BTreeSet<RegionName> {
    let reached = |region: &str| workload.databases.iter().all(|d| d.host.contains_key(region));
    let regions = workload.regions().filter(|r| !workload.databases.is_empty() && reached(r.as_str()));
    regions.map(|r| RegionName::new(r.as_str())).collect()
}

/// One window for each day.
fn windows(written: &Maintenance) -> impl Iterator<Item = Window> {
    let (start, length) = (written.start.since_midnight(), written.length.0);
    written.days.iter().map(move |day| Window { start: day.since_monday() + start, length })
}

fn failover(failover: &workload::Failover) -> FailoverPolicy {
    FailoverPolicy {
        mode: match failover.mode {
            workload::Mode::Automatic => Mode::Automatic,
            workload::Mode::Supervised => Mode::Supervised,
        },
        quorum: failover.quorum,
        approvals: if failover.approvals > 1 { 2 } else { 1 },
        outside: 0,
        rpo_bytes: None,
        sample_age: None,
        fence_expiry: failover.fence_expiry,
        fence_cut_off: false,
        hold_down: failover.hold_down.0,
        rejoin: failover.rejoin == workload::Rejoin::Automatic,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    #[test]
    fn persons_windows_and_hosts_are_taken_over() {
        let text = include_str!("../tests/golden/good-with-upkeep.toml");
        let policy = Config::parse("upkeep.toml", text).unwrap().config.policy;
        let shop = &policy.workloads[&WorkloadName::new("shop")];
        assert_eq!((shop.failover.approvals, shop.failover.rejoin), (2, false));
        assert_eq!(shop.failover.hold_down, Duration::from_secs(1800));
        let start = Duration::from_secs(6 * 86_400 + 23 * 3600 + 1800);
        assert_eq!(shop.maintenance, [Window { start, length: Duration::from_secs(5400) }]);
        assert_eq!(shop.hosts, ["east", "west"].map(RegionName::new).into());
        // One host less is one region less.
        let partly = include_str!("../tests/golden/rejoin-without-host.toml");
        let policy = Config::parse("partly.toml", partly).unwrap().config.policy;
        assert_eq!(policy.workloads[&WorkloadName::new("shop")].hosts, [RegionName::new("east")].into());
    }
}
