//! The procedures that are tried: every shipped page and some of an operator's own, each with how it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use lifeboat_core::policy::{
    ConnectivityPolicy, FailoverPolicy, Mode, NamePolicy, Objectives, ProbePolicy, WorkloadPolicy,
};
use lifeboat_core::record::Ending;
use lifeboat_core::{DnsName, Order, Policy, ProbeName, RegionName, WorkloadName};
use lifeboat_runbooks::{Kind, Runbooks, load};

use crate::trouble::Trouble;
use crate::world::World;
use crate::{oracle, page};

/// A procedure that is tried.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The world before it begins.
    start: World,
    /// What makes it begin.
    opening: Opening,
    /// How a person lets it go on when it is stranded.
    go_on: Order,
    /// How it ends when nothing goes wrong.
    pub(crate) quiet: LazyLock<Quiet, Box<dyn FnOnce() -> Quiet + Send>>,
}

/// The procedure without trouble.
pub(crate) struct Quiet {
    pub(crate) world: World,
}

#[derive(Clone)]
enum Opening {
    /// The home region is lost.
    Lost,
    /// It is lost, and a person orders what is not done by itself.
    LostAnd(Order),
    /// A person orders it.
    Ordered(Order),
    /// The old primary returns.
    Returns,
}

fn shop() -> WorkloadName {
    "shop".into()
}

fn east() -> RegionName {
    "east".into()
}

fn west() -> RegionName {
    "west".into()
}

fn probe(region: &str, database: Option<&str>) -> ProbePolicy {
    ProbePolicy {
        region: region.into(),
        database: database.map(Into::into),
        vital: database.is_some(),
        interval: Duration::from_secs(5),
        failures: 3,
        recoveries: 2,
        silence: Duration::from_secs(60),
    }
}

fn policy(hosts: &[&str], rejoin: bool) -> Policy {
    let targets = ["east", "west"].map(|region| (region.into(), BTreeSet::from([region.to_owned()])));
    let probes = [
        ("orders-east", probe("east", Some("orders"))),
        ("orders-west", probe("west", Some("orders"))),
        ("shop-east", probe("east", None)),
        ("shop-west", probe("west", None)),
    ];
    let workload = WorkloadPolicy {
        name: shop(),
        home: east(),
        standbys: vec![west()],
        objectives: Objectives { rto: Duration::from_secs(900), rpo: Duration::from_secs(300) },
        failover: FailoverPolicy {
            mode: Mode::Automatic,
            quorum: 1,
            cooldown: Duration::from_secs(60),
            budget: 9,
            budget_window: Duration::from_secs(86_400),
            approval_expires: Duration::from_secs(600),
            freshness: Duration::from_secs(30),
            approvals: 1,
            outside: 0,
            rpo_bytes: None,
            sample_age: None,
            fence_expiry: false,
            fence_cut_off: false,
            hold_down: Duration::from_secs(60),
            rejoin,
        },
        probes: probes.map(|(name, policy)| (ProbeName::new(name), policy)).into(),
        databases: BTreeMap::from([("orders".into(), None)]),
        names: BTreeMap::from([(
            DnsName::new("shop.example.com."),
            NamePolicy { ttl: Duration::from_secs(10), targets: targets.into() },
        )]),
        fences: BTreeMap::new(),
        canary: true,
        hosts: hosts.iter().map(|region| RegionName::new(*region)).collect(),
        sentries: BTreeSet::new(),
        maintenance: Vec::new(),
    };
    Policy {
        agent: "bastion-west".into(),
        agents: BTreeMap::new(),
        connectivity: ConnectivityPolicy { witnesses: 3, quorum: 2 },
        workloads: BTreeMap::from([(shop(), workload)]),
    }
}

fn shipped() -> Runbooks {
    Runbooks::shipped().expect("the shipped pages load")
}

/// The shipped pages with all of the operator's own in their places.
fn own() -> Runbooks {
    let mut pages = shipped();
    let failback = page::SWITCHOVER.replace("\"switchover\"", "\"failback\"");
    for text in [page::FAILOVER, page::SWITCHOVER, &failback, page::REJOIN] {
        pages.replace(load(text).unwrap_or_else(|flaws| panic!("{flaws:?}")));
    }
    pages
}

fn by() -> String {
    "ada".to_owned()
}

fn failover() -> Order {
    Order::Failover { workload: shop(), to: west(), by: by() }
}

fn switchover() -> Order {
    Order::Switchover { workload: shop(), to: west(), by: by() }
}

fn failback() -> Order {
    Order::Failback { workload: shop(), by: by() }
}

fn rejoin() -> Order {
    Order::Rejoin { workload: shop(), region: east(), by: by() }
}

/// A quiet day, a day after a failover, and one after the lost region has rejoined.
fn days() -> [World; 3] {
    let quiet = World::new(policy(&["east", "west"], true), shipped(), &east(), &west());
    let mut moved = quiet.clone();
    moved.estate.server(&east()).up = false;
    moved.settle(&failover());
    assert_eq!(oracle::ending(&moved.records), Some(Ending::Done), "{}", moved.story());
    let mut rejoined = moved.clone();
    rejoined.comes_back(&east());
    rejoined.pass(200);
    assert_eq!(oracle::newest_run(&rejoined.records).map(|run| run.0), Some(Kind::Rejoin));
    assert_eq!(oracle::ending(&rejoined.records), Some(Ending::Done), "{}", rejoined.story());
    [quiet, moved, rejoined]
}

/// Every procedure.
pub(crate) static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let [quiet, moved, rejoined] = days();
    let all: &[&str] = &["east", "west"];
    let none: &[&str] = &[];
    let (lost, ordered) = (Opening::Lost, Opening::LostAnd(failover()));
    let (moves, returns) = (Opening::Ordered(switchover()), Opening::Returns);
    let home = Opening::Ordered(failback());
    let mut cases = Vec::new();
    let mut add = |name, kind, day: &World, hosts, pages, opening: &Opening| {
        let start = day.clone().under(policy(hosts, kind == Kind::Rejoin), pages);
        let go_on = match kind {
            Kind::Failover => failover(),
            Kind::Switchover => switchover(),
            Kind::Failback => failback(),
            Kind::Rejoin => rejoin(),
        };
        cases.push(Case::new(name, kind, start, opening.clone(), go_on));
    };
    add("failover", Kind::Failover, &quiet, all, shipped(), &lost);
    add("ordered failover", Kind::Failover, &quiet, all, shipped(), &ordered);
    add("own failover", Kind::Failover, &quiet, all, own(), &lost);
    add("own ordered failover", Kind::Failover, &quiet, all, own(), &ordered);
    add("switchover", Kind::Switchover, &quiet, all, shipped(), &moves);
    add("switchover without a host", Kind::Switchover, &quiet, none, shipped(), &moves);
    add("own switchover", Kind::Switchover, &quiet, all, own(), &moves);
    add("own switchover without a host", Kind::Switchover, &quiet, none, own(), &moves);
    add("failback", Kind::Failback, &rejoined, all, shipped(), &home);
    add("own failback", Kind::Failback, &rejoined, all, own(), &home);
    add("rejoin", Kind::Rejoin, &moved, all, shipped(), &returns);
    add("rejoin without a host", Kind::Rejoin, &moved, none, shipped(), &returns);
    add("own rejoin", Kind::Rejoin, &moved, all, own(), &returns);
    cases
});

impl Case {
    fn new(name: &'static str, kind: Kind, start: World, opening: Opening, go_on: Order) -> Self {
        let (quiet_start, quiet_opening, quiet_go_on) = (start.clone(), opening.clone(), go_on.clone());
        let quiet = LazyLock::new(Box::new(move || {
            let world = carried_out(quiet_start, name, &quiet_opening, &quiet_go_on, Vec::new());
            assert_eq!(oracle::ending(&world.records), Some(Ending::Done), "{}", world.story());
            Quiet { world }
        }) as Box<dyn FnOnce() -> Quiet + Send>);
        Self { name, kind, start, opening, go_on, quiet }
    }

    /// Carries the procedure out with these troubles, and judges how it ends.
    pub(crate) fn tried(&self, troubles: Vec<Trouble>) -> World {
        let world = carried_out(self.start.clone(), self.name, &self.opening, &self.go_on, troubles);
        world.judge_counts(self.kind);
        match oracle::ending(&world.records[world.base()..]) {
            Some(Ending::Done) => {
                let waived = oracle::waived(&world.records);
                let summary = |of: &World| oracle::summary(&of.estate, waived);
                assert_eq!(summary(&world), summary(&self.quiet.world), "another end{}", world.story());
            }
            Some(_) => {
                let wrong = oracle::judge_return(&self.start.estate, &world.estate, self.kind);
                assert_eq!(wrong, None, "{}", world.story());
            }
            // Stranded for good: the world has seen that a person was told.
            None => {}
        }
        world.judge_replay();
        world
    }

    /// Carries a planned move out whose old region dies on the way. In the end the workload lives elsewhere.
    pub(crate) fn tried_dying(&self, troubles: Vec<Trouble>) -> World {
        let world = carried_out(self.start.clone(), self.name, &self.opening, &self.go_on, troubles);
        let (_, from, _) = oracle::newest_run(&self.quiet.world.records).expect("a run");
        let ending = oracle::ending(&world.records);
        // What is left to people is to make the dead one a standby, and what their page has after that.
        let moved = world.guardian.beliefs().values().all(|(primary, _)| *primary != from);
        assert!(
            ending == Some(Ending::Done) || (ending.is_none() && moved),
            "it came to nothing, and nobody cares{}",
            world.story()
        );
        if ending.is_some() {
            let wrong = oracle::judge_survival(&world.estate, &world.records, &from);
            assert_eq!(wrong, None, "{}", world.story());
        }
        world
    }

    /// The steps that are done when nothing goes wrong.
    pub(crate) fn steps(&self) -> Vec<String> {
        self.quiet.world.begun.keys().map(|(step, _)| step.clone()).collect()
    }

    /// The steps that can be taken back.
    pub(crate) fn ways_back(&self) -> Vec<String> {
        let page = self.start.pages.page(self.kind);
        let steps = page.steps.iter().filter(|step| step.undo.is_some());
        steps.map(|step| step.name.clone()).collect()
    }

    /// The steps up to the point of no return.
    pub(crate) fn before_the_promotion(&self) -> Vec<String> {
        let done = self.steps();
        let page = self.start.pages.page(self.kind);
        let steps = page.steps.iter().take_while(|step| !step.point_of_no_return);
        steps.map(|step| step.name.clone()).filter(|step| done.contains(step)).collect()
    }

    /// How many records it writes when nothing goes wrong.
    pub(crate) fn length(&self) -> usize {
        self.quiet.world.written()
    }
}

fn carried_out(
    mut world: World,
    name: &'static str,
    opening: &Opening,
    go_on: &Order,
    troubles: Vec<Trouble>,
) -> World {
    world.title = format!("{name}: {troubles:?}");
    world.troubles = troubles;
    match opening {
        Opening::Lost => world.estate.server(&east()).up = false,
        Opening::LostAnd(order) => {
            let until = world.now + Duration::from_secs(86_400);
            world.order(Order::Pause { workload: shop(), reason: "ours".into(), until, by: by() });
            world.estate.server(&east()).up = false;
            world.pass(30);
            world.order(order.clone());
        }
        Opening::Ordered(order) => drop(world.order(order.clone())),
        Opening::Returns => world.comes_back(&east()),
    }
    world.settle(go_on);
    world
}
