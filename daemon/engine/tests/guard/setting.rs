//! One workload in two regions, looked at every second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::policy::{
    ConnectivityPolicy, FailoverPolicy, Mode, NamePolicy, Objectives, ProbePolicy, WorkloadPolicy,
};
use lifeboat_core::{DnsName, Guardian, Moment, Policy, ProbeName, RegionName, Stamped, WorkloadName};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::{Guard, Inbox, Journal, Parts, Post, World};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::pretend::{Member, Scene, Stage};

/// When every pretend life begins.
pub(crate) const START: Moment = Moment::from_millis(1_795_252_486_000);

/// The workload.
pub(crate) fn shop() -> WorkloadName {
    "shop".into()
}

/// What the pretend operator wrote, with this many more probes of the primary region.
pub(crate) fn policy(more: usize) -> Policy {
    let probe = |region: &str, database: bool| ProbePolicy {
        region: region.into(),
        database: database.then(|| "orders".into()),
        vital: database,
        interval: Duration::from_secs(1),
        failures: 3,
        recoveries: 2,
        silence: Duration::from_secs(20),
    };
    let targets = [("east", "192.0.2.80"), ("west", "198.51.100.80")];
    let targets = targets.map(|(region, address)| (region.into(), BTreeSet::from([address.to_owned()])));
    let mut probes: BTreeMap<ProbeName, ProbePolicy> = [
        (ProbeName::new("orders-east"), probe("east", true)),
        (ProbeName::new("orders-west"), probe("west", true)),
        (ProbeName::new("shop-west"), probe("west", false)),
    ]
    .into();
    probes.extend((0..more).map(|n| (ProbeName::new(format!("more-{n:04}")), probe("east", false))));
    let workload = WorkloadPolicy {
        name: shop(),
        home: "east".into(),
        standbys: vec!["west".into()],
        objectives: Objectives { rto: Duration::from_secs(900), rpo: Duration::from_secs(300) },
        failover: FailoverPolicy {
            mode: Mode::Automatic,
            quorum: 1,
            cooldown: Duration::from_secs(3_600),
            budget: 2,
            budget_window: Duration::from_secs(86_400),
            approval_expires: Duration::from_secs(600),
            freshness: Duration::from_secs(30),
            approvals: 1,
            outside: 0,
            rpo_bytes: None,
            sample_age: None,
            fence_expiry: false,
            fence_cut_off: false,
            hold_down: Duration::from_secs(600),
            rejoin: false,
        },
        probes,
        databases: BTreeMap::from([("orders".into(), None)]),
        names: BTreeMap::from([(
            DnsName::new("shop.example.com."),
            NamePolicy { ttl: Duration::from_secs(1), targets: targets.into() },
        )]),
        fences: BTreeMap::new(),
        canary: true,
        hosts: std::collections::BTreeSet::new(),
        sentries: BTreeSet::new(),
        maintenance: Vec::new(),
    };
    Policy {
        agent: "bastion-west".into(),
        agents: BTreeMap::new(),
        connectivity: ConnectivityPolicy { witnesses: 3, quorum: 2 },
        workloads: [(shop(), workload)].into(),
    }
}

/// The world with every port pretended.
pub(crate) fn world(policy: &Policy, scene: &Arc<Scene>, reports: &std::path::Path) -> World {
    let mut world = World {
        witness_interval: Duration::from_millis(700),
        witness_timeout: Duration::from_millis(500),
        reports: reports.to_owned(),
        notify: vec![scene.clone()],
        ..World::default()
    };
    for (name, probe) in &policy.workloads[&shop()].probes {
        let stage = Stage {
            scene: scene.clone(),
            region: probe.region.clone(),
            database: probe.database.is_some(),
            name: name.clone(),
        };
        world.posts.push(Post {
            workload: shop(),
            region: probe.region.clone(),
            name: name.clone(),
            interval: probe.interval,
            timeout: Duration::from_millis(900),
            probe: Arc::new(stage),
        });
    }
    for region in ["east", "west"].map(RegionName::new) {
        let member = Member { scene: scene.clone(), region: region.clone() };
        world.databases.insert((shop(), region, "orders".into()), Arc::new(member));
    }
    world.names.insert((shop(), DnsName::new("shop.example.com.")), scene.clone());
    world.canaries.insert(shop(), scene.clone());
    world.witnesses = (0..3).map(|_| scene.clone() as Arc<dyn lifeboat_engine::ports::Witness>).collect();
    world
}

/// A guard at work.
pub(crate) struct Agent {
    pub(crate) inbox: Inbox,
    pub(crate) stop: CancellationToken,
    pub(crate) journal: Journal,
    pub(crate) task: JoinHandle<Result<(), lifeboat_engine::EngineError>>,
}

impl Agent {
    /// Starts a guard on this journal.
    pub(crate) fn start(
        policy: &Policy,
        world: World,
        clock: Clock,
        journal: (Journal, Vec<Stamped>),
    ) -> Self {
        Self::sharing(policy, world, clock, journal, None)
    }

    /// Starts a guard that shares its record, when there is somebody to share it with.
    pub(crate) fn sharing(
        policy: &Policy,
        world: World,
        clock: Clock,
        (journal, records): (Journal, Vec<Stamped>),
        coordination: Option<Arc<dyn lifeboat_engine::ports::Coordination>>,
    ) -> Self {
        let page = lifeboat_runbooks::Runbooks::shipped().expect("the shipped pages load");
        let guardian = Guardian::restore(policy.clone(), page, "0.1.0", &records);
        let stop = CancellationToken::new();
        let parts =
            Parts { guardian, journal: journal.clone(), clock, world, coordination, stop: stop.clone() };
        let guard = Guard::new(parts);
        let inbox = guard.inbox();
        Self { inbox, stop, journal, task: tokio::spawn(guard.run()) }
    }

    /// What is known of the workload.
    pub(crate) async fn status(&self) -> lifeboat_core::status::WorkloadStatus {
        let mut status = self.inbox.status().await.expect("the guard is at work");
        status.workloads.remove(&shop()).expect("the workload is known")
    }

    /// Waits until the workload looks like this.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        holds: impl Fn(&lifeboat_core::status::WorkloadStatus) -> bool,
    ) {
        let waited = tokio::time::timeout(limit, async {
            while !holds(&self.status().await) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if waited.await.is_err() {
            panic!("not within {limit:?}: {}", story(&self.records().await));
        }
    }

    /// What is on record.
    pub(crate) async fn records(&self) -> Vec<Stamped> {
        self.journal.records(0).await.expect("the journal can be read")
    }

    /// Tells it to stop, and gives what it said.
    pub(crate) async fn stopped(self) -> Result<(), lifeboat_engine::EngineError> {
        self.stop.cancel();
        self.task.await.expect("the guard did not panic")
    }

    /// Kills it: nothing of it goes on, and the journal is let go.
    pub(crate) async fn killed(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// The journal as `history` prints it.
pub(crate) fn story(records: &[Stamped]) -> String {
    records.iter().map(|s| format!("\n{} {}", s.at, s.record)).collect()
}
