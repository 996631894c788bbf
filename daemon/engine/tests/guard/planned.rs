//! Planned moves and regions that return, killed after each record, and with a disk that is full at each.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::record::Ending;
use lifeboat_core::status::WorkloadStatus;
use lifeboat_core::{Answer, Order, Policy, RegionName};
use lifeboat_engine::clock::Clock;

use crate::crash::opened;
use crate::failover::endings;
use crate::pretend::Scene;
use crate::setting::{Agent, START, policy, shop, story, world};

/// What an agent is killed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Procedure {
    Failover,
    Switchover,
    Failback,
    Rejoin,
}

const EFFECTS: [&str; 5] = ["fence", "promote", "names", "rejoin", "open"];

/// A policy whose regions have hosts.
fn hosted() -> Policy {
    let mut policy = policy(0);
    let workload = policy.workloads.get_mut(&shop()).expect("the workload is there");
    workload.hosts = ["east", "west"].map(RegionName::new).into();
    workload.failover.hold_down = Duration::from_secs(20);
    workload.failover.rejoin = true;
    policy
}

/// One agent after another on one scene.
struct Stage {
    folder: tempfile::TempDir,
    scene: Arc<Scene>,
    policy: Policy,
    clock: Clock,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        Self { folder, scene: Scene::quiet(), policy: hosted(), clock: Clock::starting_at(START) }
    }

    async fn agent(&self) -> Agent {
        let world = world(&self.policy, &self.scene, self.folder.path());
        Agent::start(&self.policy, world, self.clock, opened(self.folder.path()).await)
    }

    /// How often each effect happened.
    fn effects(&self) -> Vec<u32> {
        EFFECTS.iter().map(|kind| self.scene.effects(kind)).collect()
    }

    /// Lives up to the moment when the procedure may begin.
    async fn prepare(&self, procedure: Procedure) -> Agent {
        let agent = self.agent().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        match procedure {
            Procedure::Failover | Procedure::Switchover => {}
            Procedure::Failback => {
                self.begin(Procedure::Switchover, &agent).await;
                agent.until(Duration::from_secs(60), |s| over(Procedure::Switchover, s)).await;
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            Procedure::Rejoin => {
                self.begin(Procedure::Failover, &agent).await;
                agent.until(Duration::from_secs(60), |s| over(Procedure::Failover, s)).await;
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        }
        agent
    }

    /// Lets it begin.
    async fn begin(&self, procedure: Procedure, agent: &Agent) {
        let by = "ada".to_owned();
        let order = match procedure {
            Procedure::Failover => return self.scene.dies("east"),
            Procedure::Rejoin => {
                self.scene.returns("east");
                return;
            }
            Procedure::Switchover => Order::Switchover { workload: shop(), to: "west".into(), by },
            Procedure::Failback => Order::Failback { workload: shop(), by },
        };
        let answer = agent.inbox.order(order).await;
        // An agent that cannot write its answer down does not give one.
        assert!(matches!(answer, Ok(Answer::Accepted { .. }) | Err(_)), "{answer:?}");
    }
}

fn target(procedure: Procedure) -> RegionName {
    if procedure == Procedure::Failback { "east".into() } else { "west".into() }
}

fn over(procedure: Procedure, status: &WorkloadStatus) -> bool {
    status.primary == target(procedure) && status.run.is_none()
}

/// What an undisturbed life comes to: how often each effect happened in the procedure, and how many records it wrote.
async fn undisturbed(procedure: Procedure) -> (Vec<u32>, usize) {
    let stage = Stage::new();
    let agent = stage.prepare(procedure).await;
    let (before, known) = (stage.effects(), agent.records().await.len());
    stage.begin(procedure, &agent).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(over(procedure, &agent.status().await), "{}", story(&agent.records().await));
    let records = agent.records().await;
    assert_eq!(endings(&records).last(), Some(&Ending::Done), "{}", story(&records));
    agent.stopped().await.expect("it stops when told");
    (difference(&stage.effects(), &before), records.len() - known)
}

fn difference(after: &[u32], before: &[u32]) -> Vec<u32> {
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}

/// Kills the agent when the procedure has written `count` records and `late` has passed; then the next agent must
/// bring it to the same end with the same effects.
async fn killed_after(procedure: Procedure, count: usize, late: Duration, wanted: &[u32]) {
    let stage = Stage::new();
    let agent = stage.prepare(procedure).await;
    let (before, known) = (stage.effects(), agent.records().await.len());
    stage.begin(procedure, &agent).await;
    let lived = tokio::time::timeout(Duration::from_secs(30), async {
        while agent.records().await.len() < known + count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    lived.await.expect("an undisturbed life had so many records");
    tokio::time::sleep(late).await;
    agent.killed().await;
    let agent = stage.agent().await;
    // A failover gathers its evidence anew; everything else goes on at once.
    let limit = if procedure == Procedure::Failover { 120 } else { 10 };
    agent.until(Duration::from_secs(limit), |s| over(procedure, s)).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let records = agent.records().await;
    let which = format!("{procedure:?} killed {late:?} after {count}: {}", story(&records));
    assert_eq!(endings(&records).last(), Some(&Ending::Done), "{which}");
    assert_eq!(difference(&stage.effects(), &before), wanted, "{EFFECTS:?} {which}");
    agent.stopped().await.expect("it stops when told");
}

async fn killed_after_each(procedure: Procedure) {
    let (wanted, count) = undisturbed(procedure).await;
    assert!(count > 10, "{procedure:?} has more records than {count}");
    for late in [Duration::ZERO, Duration::from_millis(7)] {
        for count in 1..=count {
            killed_after(procedure, count, late, &wanted).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_switchover_killed_after_any_record_ends_the_same() {
    killed_after_each(Procedure::Switchover).await;
}

#[tokio::test(start_paused = true)]
async fn a_failback_killed_after_any_record_ends_the_same() {
    killed_after_each(Procedure::Failback).await;
}

#[tokio::test(start_paused = true)]
async fn a_rejoin_killed_after_any_record_ends_the_same() {
    killed_after_each(Procedure::Rejoin).await;
}

/// Lets the journal take records up to this place, and no other.
fn fill(folder: &Path, last: usize) {
    let connection = rusqlite::Connection::open(folder.join("journal.db")).expect("the journal is SQLite");
    let trigger = format!(
        "CREATE TRIGGER full BEFORE INSERT ON record WHEN NEW.sequence > {last}
         BEGIN SELECT RAISE(FAIL, 'disk full, as pretended'); END"
    );
    connection.execute_batch(&trigger).expect("a trigger can be made");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_at_any_record_stops_the_agent_and_nothing_happens_twice() {
    for procedure in [Procedure::Failover, Procedure::Switchover, Procedure::Failback, Procedure::Rejoin] {
        let (wanted, count) = undisturbed(procedure).await;
        for full_at in 0..count {
            let stage = Stage::new();
            let agent = stage.prepare(procedure).await;
            let (before, known) = (stage.effects(), agent.records().await.len());
            agent.killed().await;
            fill(stage.folder.path(), known + 1 + full_at);
            // The start of the next agent is the first of these records.
            let mut agent = stage.agent().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            stage.begin(procedure, &agent).await;
            let ended = tokio::time::timeout(Duration::from_secs(60), &mut agent.task).await;
            // A life that began later sees fewer changes of its regions: the last records may never be written.
            let spare = ended.is_err() && full_at + 4 >= count;
            let failed = ended.is_ok_and(|ended| ended.expect("without a panic").is_err());
            assert!(failed || spare, "{procedure:?}, full at {full_at}: an agent that cannot write goes on");
            if spare {
                agent.killed().await;
            } else {
                drop(agent);
            }
            let path = stage.folder.path().join("journal.db");
            let emptied = rusqlite::Connection::open(path).expect("the journal is SQLite");
            emptied.execute_batch("DROP TRIGGER full").expect("the disk has room again");
            drop(emptied);
            let agent = stage.agent().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            // An order that was never on record was never given: a person gives it again.
            if !over(procedure, &agent.status().await) && agent.status().await.run.is_none() {
                stage.begin(procedure, &agent).await;
            }
            agent.until(Duration::from_secs(120), |s| over(procedure, s)).await;
            tokio::time::sleep(Duration::from_secs(30)).await;
            let records = agent.records().await;
            let which = format!("{procedure:?}, full at {full_at}: {}", story(&records));
            assert_eq!(difference(&stage.effects(), &before), wanted, "{EFFECTS:?} {which}");
            agent.stopped().await.expect("it stops when told");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_does_not_catch_up_leaves_the_primary_open() {
    let stage = Stage::new();
    let agent = stage.prepare(Procedure::Switchover).await;
    stage.scene.state().hangs.insert("catch-up");
    stage.begin(Procedure::Switchover, &agent).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    // It never got past the check: nothing was touched.
    assert_eq!(stage.effects(), [0; 5], "{}", story(&agent.records().await));
    stage.scene.state().hangs.clear();
    // It passes the check, and then stops following: the second time it is asked.
    stage.scene.state().hangs_after.insert("catch-up", 1);
    stage.begin(Procedure::Switchover, &agent).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let records = agent.records().await;
    assert_eq!(endings(&records).last(), Some(&Ending::Undone), "{}", story(&records));
    assert_eq!(stage.effects(), [1, 0, 0, 0, 1], "{EFFECTS:?} {}", story(&records));
    assert!(!stage.scene.state().fenced);
    // That the primary could not commit while it was closed is no reason to fail it over.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let status = agent.status().await;
    assert_eq!((status.primary, status.run.is_none()), ("east".into(), true));
    assert_eq!(endings(&agent.records().await).len(), 2, "{}", story(&agent.records().await));
    agent.stopped().await.expect("it stops when told");
}

#[tokio::test(start_paused = true)]
async fn a_failback_is_refused_until_the_region_follows_and_has_proven_itself() {
    let stage = Stage::new();
    let agent = stage.prepare(Procedure::Rejoin).await;
    let failback = || Order::Failback { workload: shop(), by: "ada".to_owned() };
    let refusal = |answer| match answer {
        Ok(Answer::Refused { reason }) => reason.to_string(),
        other => panic!("{other:?}"),
    };
    let gone = refusal(agent.inbox.order(failback()).await);
    assert!(gone.starts_with("east does not follow the primary yet"), "{gone}");
    stage.begin(Procedure::Rejoin, &agent).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(agent.status().await.run.is_none(), "{}", story(&agent.records().await));
    let young = refusal(agent.inbox.order(failback()).await);
    assert!(young.starts_with("east is held down for another"), "{young}");
    tokio::time::sleep(Duration::from_secs(30)).await;
    stage.begin(Procedure::Failback, &agent).await;
    agent.until(Duration::from_secs(30), |s| over(Procedure::Failback, s)).await;
    let seen: BTreeSet<RegionName> = stage.scene.state().primaries.clone();
    assert_eq!(seen, ["east".into()].into());
    agent.stopped().await.expect("it stops when told");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_dies_while_it_is_closed_is_failed_over() {
    let stage = Stage::new();
    let agent = stage.prepare(Procedure::Switchover).await;
    stage.scene.state().hangs_after.insert("catch-up", 1);
    stage.begin(Procedure::Switchover, &agent).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.scene.dies("east");
    stage.scene.state().hangs_after.clear();
    agent.until(Duration::from_secs(60), |s| over(Procedure::Failover, s)).await;
    let records = agent.records().await;
    assert_eq!(endings(&records), [Ending::Failed, Ending::Done], "{}", story(&records));
    agent.stopped().await.expect("it stops when told");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_only_our_fence_keeps_from_committing_is_not_failed_over() {
    let stage = Stage::new();
    let agent = stage.prepare(Procedure::Switchover).await;
    // Closed for long enough to look lost; and the first attempt to open it again has no outcome.
    stage.scene.state().hangs_after.insert("catch-up", 1);
    stage.scene.state().hangs_once.insert("open");
    stage.begin(Procedure::Switchover, &agent).await;
    tokio::time::sleep(Duration::from_secs(180)).await;
    let records = agent.records().await;
    assert_eq!(endings(&records), [Ending::Undone], "{}", story(&records));
    assert_eq!(stage.effects(), [1, 0, 0, 0, 1], "{EFFECTS:?} {}", story(&records));
    agent.stopped().await.expect("it stops when told");
}
