//! What the pretend operator wrote: one workload in two regions, a witness, few probes, short times.
//!
//! **Invariant:** what is broken on purpose (`--break`) is broken here or in the world, never in the core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lifeboat_core::policy::{
    ConnectivityPolicy, FailoverPolicy, Mode, NamePolicy, Objectives, Policy, ProbePolicy, WorkloadPolicy,
};
use lifeboat_core::{
    AgentName, DatabaseName, DnsName, ProbeName, RegionName, SystemIdentifier, WorkloadName,
};
use lifeboat_runbooks::Runbooks;

use crate::scenario::{Setup, Site};

/// The cluster that the databases belong to.
pub(crate) const CLUSTER: SystemIdentifier = SystemIdentifier::new(7_301_234_567_890_123_456);

/// How many vantages must see a loss; what the oracles count, too, whatever the policy was broken to.
pub(crate) const QUORUM: usize = 2;

/// Time between two looks of a probe, how many must fail, and when a look gives up.
pub(crate) const INTERVAL: u64 = 2_000;
pub(crate) const FAILURES: u32 = 2;
pub(crate) const TIMEOUT: u64 = 1_000;

/// How old evidence may be.
pub(crate) const FRESHNESS: u64 = 10_000;

/// How long a tenure lasts without being renewed, and a testimony without being said again.
pub(crate) const TENURE: u64 = 6_000;
pub(crate) const TESTIMONY: u64 = 8_000;

/// The most by which any clock runs too fast or too slow, in millionths. The margins of a lease are made for it: the sentry
/// gives it up a fifth earlier and the guardian counts it a fifth longer, so a sentry that is this slow and a guardian that
/// is this fast still meet in order: 0.8 / (1 - d) < 1.2 / (1 + d).
pub(crate) const DRIFT: i32 = 100_000;

/// How long after its host wakes a database may acknowledge, before the dead-man switch beside it has seen the time.
/// The one window that a lease without a synchronous standby leaves open.
pub(crate) const WAKING: u64 = 50;

/// When the pretend time begins.
pub(crate) const EPOCH: u64 = 1_795_252_486_000;

/// What is broken on purpose, to see whether the oracles notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Break {
    /// The coordinator says that a write lease is over without waiting for it.
    FenceWait,
    /// The loss and the age of the sample do not count.
    LagAge,
    /// Databases, hosts and name servers do not compare epochs.
    Epoch,
    /// One vantage is enough.
    Quorum,
}

impl Break {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FenceWait => "fence-wait",
            Self::LagAge => "lag-age",
            Self::Epoch => "epoch",
            Self::Quorum => "quorum",
        }
    }
}

/// The names, made once: each event carries copies.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) workload: WorkloadName,
    pub(crate) database: DatabaseName,
    pub(crate) name: DnsName,
    pub(crate) regions: [RegionName; 2],
    pub(crate) agents: [AgentName; 3],
    pub(crate) probes: [ProbeName; 2],
}

pub(crate) static NAMES: LazyLock<Names> = LazyLock::new(|| Names {
    workload: "shop".into(),
    database: "orders".into(),
    name: DnsName::new("shop.example.com."),
    regions: ["east".into(), "west".into()],
    agents: ["agent-east".into(), "agent-west".into(), "agent-witness".into()],
    probes: ["orders-east".into(), "orders-west".into()],
});

/// The region with this name.
pub(crate) fn region(name: &RegionName) -> Option<usize> {
    NAMES.regions.iter().position(|region| region == name)
}

/// The shipped pages.
#[expect(clippy::expect_used, reason = "the tests of the runbooks rule it out")]
pub(crate) fn runbooks() -> Arc<Runbooks> {
    static PAGES: LazyLock<Arc<Runbooks>> =
        LazyLock::new(|| Arc::new(Runbooks::shipped().expect("the shipped pages load")));
    Arc::clone(&PAGES)
}

/// What is different from world to world.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) setup: Setup,
    pub(crate) broken: Option<Break>,
    /// How much older than this a sample of the primary may not be.
    pub(crate) sample_age: Option<Duration>,
    pub(crate) rejoin: bool,
    pub(crate) hosts: bool,
    pub(crate) cooldown: Duration,
}

impl Setting {
    pub(crate) const fn of(setup: Setup) -> Self {
        Self {
            setup,
            broken: None,
            sample_age: None,
            rejoin: true,
            hosts: true,
            cooldown: Duration::from_secs(5),
        }
    }

    pub(crate) fn breaks(&self, what: Break) -> bool {
        self.broken == Some(what)
    }

    /// How long a write lease lasts, in milliseconds.
    pub(crate) fn lease(&self) -> u64 {
        u64::try_from(self.setup.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// How much earlier its holder gives it up, and how much later it counts as over.
    pub(crate) fn margin(&self) -> u64 {
        self.lease() / 5
    }

    /// The policy of the agent in a place.
    pub(crate) fn policy(&self, agent: Site) -> Policy {
        let names = &*NAMES;
        let probe = |region: usize| ProbePolicy {
            region: names.regions[region].clone(),
            database: Some(names.database.clone()),
            vital: true,
            interval: Duration::from_millis(INTERVAL),
            failures: FAILURES,
            recoveries: 1,
            silence: self.setup.silence,
        };
        let targets = [(0, "192.0.2.80"), (1, "198.51.100.80")];
        let targets =
            targets.map(|(r, address)| (names.regions[r].clone(), BTreeSet::from([address.to_owned()])));
        let [home, standby] = names.regions.clone();
        let setup = &self.setup;
        let both: BTreeSet<RegionName> = names.regions.iter().cloned().collect();
        let far = Duration::from_secs(1 << 32);
        let lags = self.breaks(Break::LagAge);
        let workload = WorkloadPolicy {
            name: names.workload.clone(),
            home,
            standbys: vec![standby],
            objectives: Objectives { rto: Duration::from_secs(120), rpo: if lags { far } else { setup.rpo } },
            failover: FailoverPolicy {
                mode: if setup.automatic { Mode::Automatic } else { Mode::Supervised },
                quorum: if self.breaks(Break::Quorum) { 1 } else { QUORUM },
                outside: if self.breaks(Break::Quorum) { 0 } else { 1 },
                rpo_bytes: None,
                sample_age: if lags { None } else { self.sample_age },
                fence_expiry: setup.sentries,
                fence_cut_off: setup.sync,
                cooldown: self.cooldown,
                budget: 20,
                budget_window: Duration::from_secs(3_600),
                approval_expires: Duration::from_secs(40),
                freshness: Duration::from_millis(FRESHNESS),
                approvals: 1,
                hold_down: Duration::from_secs(5),
                rejoin: self.rejoin,
            },
            probes: (0..2).map(|r| (names.probes[r].clone(), probe(r))).collect(),
            databases: BTreeMap::from([(names.database.clone(), Some(CLUSTER))]),
            names: BTreeMap::from([(
                names.name.clone(),
                NamePolicy { ttl: Duration::from_secs(2), targets: targets.into() },
            )]),
            fences: BTreeMap::new(),
            canary: false,
            sentries: if setup.sentries { both.clone() } else { BTreeSet::new() },
            hosts: if self.hosts { both } else { BTreeSet::new() },
            maintenance: Vec::new(),
        };
        Policy {
            agent: names.agents[agent.index()].clone(),
            connectivity: ConnectivityPolicy { witnesses: 3, quorum: 2 },
            agents: Site::ALL.map(|site| (names.agents[site.index()].clone(), site.name().into())).into(),
            workloads: BTreeMap::from([(names.workload.clone(), workload)]),
        }
    }
}
