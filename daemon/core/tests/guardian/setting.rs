//! What the pretend operator wrote: one workload in two regions, with the defaults of the example file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use lifeboat_core::policy::{
    ConnectivityPolicy, FailoverPolicy, Mode, NamePolicy, Objectives, ProbePolicy, WorkloadPolicy,
};
use lifeboat_core::{AgentName, DnsName, Policy, ProbeName, RegionName, SystemIdentifier, WorkloadName};
use lifeboat_runbooks::Runbooks;

/// The cluster that the pretend databases belong to.
pub(crate) const CLUSTER: SystemIdentifier = SystemIdentifier::new(7_301_234_567_890_123_456);

/// The agent, which runs in `west`.
pub(crate) fn agent() -> AgentName {
    "bastion-west".into()
}

/// The workload.
pub(crate) fn shop() -> WorkloadName {
    "shop".into()
}

/// Where it lives on a quiet day.
pub(crate) fn east() -> RegionName {
    "east".into()
}

/// Where it may move.
pub(crate) fn west() -> RegionName {
    "west".into()
}

/// Whole seconds.
pub(crate) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The shipped page.
pub(crate) fn runbook() -> Runbooks {
    static PAGE: LazyLock<Runbooks> =
        LazyLock::new(|| lifeboat_runbooks::Runbooks::shipped().expect("the shipped pages load"));
    PAGE.clone()
}

/// A probe with the defaults.
pub(crate) fn probe(region: &str, database: Option<&str>) -> ProbePolicy {
    ProbePolicy {
        region: region.into(),
        database: database.map(Into::into),
        vital: database.is_some(),
        interval: seconds(5),
        failures: 3,
        recoveries: 2,
        silence: seconds(60),
    }
}

/// The workload with the defaults of `config/lifeboat.example.toml`.
pub(crate) fn workload() -> WorkloadPolicy {
    let targets = [("east", "192.0.2.80"), ("west", "198.51.100.80")];
    let targets = targets.map(|(region, address)| (region.into(), BTreeSet::from([address.to_owned()])));
    let probes = [
        ("orders-east", probe("east", Some("orders"))),
        ("orders-west", probe("west", Some("orders"))),
        ("shop-east", probe("east", None)),
        ("shop-west", probe("west", None)),
    ];
    WorkloadPolicy {
        name: shop(),
        home: east(),
        standbys: vec![west()],
        objectives: Objectives { rto: seconds(900), rpo: seconds(300) },
        failover: FailoverPolicy {
            mode: Mode::Automatic,
            quorum: 1,
            cooldown: seconds(3_600),
            budget: 2,
            budget_window: seconds(86_400),
            approval_expires: seconds(3_600),
            freshness: seconds(30),
            approvals: 1,
            outside: 0,
            rpo_bytes: None,
            sample_age: None,
            fence_expiry: false,
            fence_cut_off: false,
            hold_down: Duration::from_secs(600),
            rejoin: false,
        },
        probes: probes.map(|(name, policy)| (ProbeName::new(name), policy)).into(),
        databases: BTreeMap::from([("orders".into(), None)]),
        names: BTreeMap::from([(
            DnsName::new("shop.example.com."),
            NamePolicy { ttl: seconds(10), targets: targets.into() },
        )]),
        fences: BTreeMap::new(),
        canary: true,
        hosts: std::collections::BTreeSet::new(),
        sentries: BTreeSet::new(),
        maintenance: Vec::new(),
    }
}

/// An agent that looks after these workloads.
pub(crate) fn policy(workloads: impl IntoIterator<Item = WorkloadPolicy>) -> Policy {
    Policy {
        agent: agent(),
        agents: BTreeMap::new(),
        connectivity: ConnectivityPolicy { witnesses: 3, quorum: 2 },
        workloads: workloads.into_iter().map(|w| (w.name.clone(), w)).collect(),
    }
}
