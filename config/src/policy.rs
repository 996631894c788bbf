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
        agents: document
            .agents
            .iter()
            .map(|a| (AgentName::new(a.name.as_str()), RegionName::new(a.region.as_str())))
            .collect(),
        connectivity: ConnectivityPolicy { witnesses: agent.witnesses.len(), quorum: agent.quorum() },
        workloads: document
            .workloads
            .iter()
            .map(|w| (WorkloadName::new(w.name.as_str()), workload(w, document.agents.len())))
            .collect(),
    }
}

fn workload(workload: &Workload, agents: usize) -> WorkloadPolicy {
    let cluster = |d: &workload::Database| d.system_identifier.map(|c| SystemIdentifier::new(c.0));
    WorkloadPolicy {
        name: WorkloadName::new(workload.name.as_str()),
        home: RegionName::new(workload.primary.as_str()),
        standbys: workload.standbys.iter().map(|r| RegionName::new(r.as_str())).collect(),
        objectives: Objectives { rto: workload.objectives.rto.0, rpo: workload.objectives.rpo.0 },
        failover: failover(&workload.failover, agents),
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
        sentries: workload.sentry.keys().map(RegionName::new).collect(),
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

fn failover(failover: &workload::Failover, agents: usize) -> FailoverPolicy {
    FailoverPolicy {
        mode: match failover.mode {
            workload::Mode::Automatic => Mode::Automatic,
            workload::Mode::Supervised => Mode::Supervised,
        },
        quorum: failover.quorum_of(agents),
        approvals: if failover.approvals > 1 { 2 } else { 1 },
        outside: failover.outside_of(agents),
        rpo_bytes: failover.rpo_bytes.map(|size| size.0),
        sample_age: failover.sample_age.map(|age| age.0),
        fence_expiry: failover.fence_expiry,
        fence_cut_off: failover.fence_cut_off,
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
    fn agents_votes_and_sentries_are_taken_over() {
        let text = include_str!("../tests/golden/good-agents.toml");
        let config = Config::parse("agents.toml", text).unwrap().config;
        let places = [("watch-a", "east"), ("watch-b", "west"), ("watch-c", "office")];
        let places = places.map(|(agent, place)| (AgentName::new(agent), RegionName::new(place)));
        assert_eq!(config.policy.agents, places.into());
        let shop = &config.policy.workloads[&WorkloadName::new("shop")];
        let failover = &shop.failover;
        assert_eq!((failover.quorum, failover.outside, failover.fence_expiry), (2, 1, true));
        assert_eq!((failover.rpo_bytes, failover.sample_age, failover.fence_cut_off), (None, None, false));
        assert_eq!(shop.sentries, ["east", "west"].map(RegionName::new).into());
        let gates =
            "rpo_bytes = \"16MiB\"\nsample_age = \"2m\"\nfence_cut_off = true\noutside = 2\nfence_expiry";
        let policy = Config::parse("gates.toml", &text.replace("fence_expiry", gates)).unwrap().config.policy;
        let failover = &policy.workloads[&WorkloadName::new("shop")].failover;
        assert_eq!(
            (failover.rpo_bytes, failover.sample_age),
            (Some(16 << 20), Some(Duration::from_secs(120)))
        );
        assert_eq!((failover.outside, failover.fence_cut_off), (2, true));
        // The wiring: who is reached where, and by which key it is believed.
        let wiring = config.wiring;
        let crate::wiring::LeaseWiring::Etcd(etcd) = &wiring.lease else { panic!("{:?}", wiring.lease) };
        assert_eq!(
            (etcd.cluster.as_str(), etcd.endpoints.len(), etcd.ttl),
            ("lifeboat", 3, Duration::from_secs(5))
        );
        assert!(etcd.identity.is_some() && etcd.login.is_none());
        assert_eq!(wiring.agents[&AgentName::new("watch-c")].address.to_string(), "192.0.2.30:7400");
        assert_eq!(wiring.agent.listen.map(|l| l.port()), Some(7400));
        assert_eq!(wiring.agent.key_file.to_str(), Some("/var/lib/lifeboat/agent.key"));
        let sentries = &wiring.workloads[&WorkloadName::new("shop")].sentries;
        assert_eq!(
            sentries[&RegionName::new("west")].to_string(),
            "7Bcr34AiCxVSPtUUQvGbzp2zOTbgGyTrEfpF0oFKRlM="
        );
    }

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
