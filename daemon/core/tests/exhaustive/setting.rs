//! What the operator of the model wrote: one workload, two regions with a database each, three agents.
//!
//! Every length is short, so that few turns of the model reach past it; their order is that of the shipped defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use lifeboat_core::policy::{
    ConnectivityPolicy, FailoverPolicy, Mode, NamePolicy, Objectives, ProbePolicy, WorkloadPolicy,
};
use lifeboat_core::{AgentName, DnsName, Policy, RegionName, SystemIdentifier, WorkloadName};
use lifeboat_runbooks::Runbooks;

/// The cluster that both databases belong to.
pub(crate) const CLUSTER: SystemIdentifier = SystemIdentifier::new(7);

/// How long a tenure, and a testimony, lasts without being renewed.
pub(crate) const TTL: u64 = 10_000;

/// How old evidence may be.
pub(crate) const FRESHNESS: u64 = 20_000;

/// How long a probe must be without an answer before silence counts.
pub(crate) const SILENCE: u64 = 7_000;

/// How long a write lease lasts.
pub(crate) const LEASE: u64 = 12_000;

/// How long after a renewal was seen its lease is over for sure: a tenth for clocks that differ, a second to stop.
pub(crate) const EXPIRY: u64 = LEASE + LEASE / 10 + 1_000;

/// How much may be lost without asking.
pub(crate) const RPO: u64 = 60_000;

/// The person of the model.
pub(crate) const PERSON: &str = "ada";

/// The two regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Where the workload lives on a quiet day.
    East,
    /// Where it may move.
    West,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::East, Self::West];

    pub(crate) fn of(region: &RegionName) -> Self {
        if *region == Self::East.name() { Self::East } else { Self::West }
    }

    pub(crate) fn name(self) -> RegionName {
        static NAMES: LazyLock<[RegionName; 2]> = LazyLock::new(|| ["east".into(), "west".into()]);
        NAMES[self as usize].clone()
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::East => Self::West,
            Self::West => Self::East,
        }
    }
}

/// What differs between the operators of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Whether there is a sentry beside each database, and an expired lease is a fence.
    pub(crate) sentries: bool,
    /// Whether commands can be run on the database hosts, and returned primaries rejoin by themselves.
    pub(crate) hosts: bool,
}

pub(crate) fn shop() -> WorkloadName {
    static NAME: LazyLock<WorkloadName> = LazyLock::new(|| "shop".into());
    NAME.clone()
}

/// The agent of that place: 0 in east, 1 in west, 2 the witness elsewhere.
pub(crate) fn agent(place: usize) -> AgentName {
    ["in-east", "in-west", "witness"][place].into()
}

/// The shipped pages, without what only people read: a state is printed whole to be told from others. A name is
/// switched in three attempts at most, instead of twenty.
pub(crate) fn runbooks() -> Runbooks {
    static PAGES: LazyLock<Runbooks> = LazyLock::new(|| {
        let mut pages = Runbooks::shipped().expect("the shipped pages load");
        for mut page in pages.clone().pages().cloned() {
            page.prose.clear();
            for step in &mut page.steps {
                step.title.clear();
                step.attempts = step.attempts.min(3);
            }
            pages.replace(page);
        }
        pages
    });
    PAGES.clone()
}

fn probe(side: Side) -> ProbePolicy {
    ProbePolicy {
        region: side.name(),
        database: Some("orders".into()),
        vital: true,
        interval: Duration::from_secs(3),
        failures: 2,
        recoveries: 1,
        silence: Duration::from_millis(SILENCE),
    }
}

/// What the agent of that place goes by.
pub(crate) fn policy(place: usize, variant: Variant) -> Policy {
    let both: BTreeSet<RegionName> = Side::BOTH.map(Side::name).into();
    let targets = Side::BOTH.map(|side| (side.name(), BTreeSet::from([side.name().to_string()])));
    let workload = WorkloadPolicy {
        name: shop(),
        home: Side::East.name(),
        standbys: vec![Side::West.name()],
        objectives: Objectives { rto: Duration::from_secs(300), rpo: Duration::from_millis(RPO) },
        failover: FailoverPolicy {
            mode: Mode::Automatic,
            quorum: 2,
            outside: 1,
            rpo_bytes: None,
            sample_age: None,
            fence_expiry: variant.sentries,
            fence_cut_off: false,
            cooldown: Duration::from_secs(20),
            budget: 2,
            budget_window: Duration::from_secs(24),
            approval_expires: Duration::from_secs(20),
            freshness: Duration::from_millis(FRESHNESS),
            approvals: 1,
            hold_down: Duration::from_secs(6),
            rejoin: variant.hosts,
        },
        probes: Side::BOTH.map(|side| (side.name().as_str().into(), probe(side))).into(),
        databases: BTreeMap::from([("orders".into(), Some(CLUSTER))]),
        names: BTreeMap::from([(
            DnsName::new("shop."),
            NamePolicy { ttl: Duration::from_secs(10), targets: targets.into() },
        )]),
        fences: BTreeMap::new(),
        canary: false,
        sentries: if variant.sentries { both.clone() } else { BTreeSet::new() },
        hosts: if variant.hosts { both } else { BTreeSet::new() },
        maintenance: Vec::new(),
    };
    Policy {
        agent: agent(place),
        connectivity: ConnectivityPolicy { witnesses: 1, quorum: 1 },
        agents: [(agent(0), Side::East.name()), (agent(1), Side::West.name()), (agent(2), "south".into())]
            .into(),
        workloads: [(shop(), workload)].into(),
    }
}
