//! From a dead probe to the report, through the real loop.

use std::time::Duration;

use lifeboat_core::record::Ending;
use lifeboat_core::{Answer, Epoch, Order, Record, Stamped};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::{Inbox, Journal};

use crate::pretend::Scene;
use crate::setting::{Agent, START, policy, shop, story, world};

/// How runs ended.
pub(crate) fn endings(records: &[Stamped]) -> Vec<Ending> {
    let ends = records.iter().filter_map(|s| match &s.record {
        Record::RunEnded { ending, .. } => Some(*ending),
        _ => None,
    });
    ends.collect()
}

/// A life on a journal in memory: ten quiet seconds, then the primary region dies.
async fn survived() -> (std::sync::Arc<Scene>, Vec<Stamped>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (scene, policy) = (Scene::quiet(), policy(0));
    let journal = (Journal::in_memory().expect("SQLite works"), Vec::new());
    let world = world(&policy, &scene, folder.path());
    let agent = Agent::start(&policy, world, Clock::starting_at(START), journal);
    tokio::time::sleep(Duration::from_secs(10)).await;
    scene.dies("east");
    agent.until(Duration::from_secs(30), |s| s.primary == "west".into() && s.run.is_none()).await;
    let records = agent.records().await;
    agent.stopped().await.expect("it stops when told");
    (scene, records, folder)
}

#[tokio::test(start_paused = true)]
async fn a_dead_primary_is_survived_and_each_effect_happens_once() {
    let (scene, records, folder) = survived().await;
    assert_eq!(endings(&records), [Ending::Done], "{}", story(&records));
    for kind in ["fence", "promote", "names"] {
        assert_eq!((scene.effects(kind), scene.calls(kind)), (1, 1), "{kind}");
    }
    assert_eq!(scene.state().newest_epoch, Epoch::new(1));
    let report = std::fs::read_to_string(folder.path().join("shop-e1.json")).unwrap();
    assert!(report.contains("\"run\": \"shop-e1\"") && report.contains("step-ended"));
    assert!(!folder.path().join("shop-e1.json.partial").exists());
}

#[tokio::test(start_paused = true)]
async fn people_are_told_and_each_once() {
    let (scene, _, _folder) = survived().await;
    let told: Vec<String> = scene.state().notices.iter().map(|n| n.reason.to_string()).collect();
    assert!(told.iter().any(|t| t.starts_with("orders-east of east is down")), "{told:?}");
    assert!(told.iter().any(|t| t.starts_with("the workload is served from west")), "{told:?}");
    let lost = told.iter().filter(|t| t.starts_with("orders-east of east is down")).count();
    assert_eq!(lost, 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn one_life_lived_twice_writes_the_same_bytes() {
    let lines = |records: &[Stamped]| -> Vec<String> {
        records.iter().map(|s| serde_json::to_string(s).expect("a record is JSON")).collect()
    };
    let (_, first, _a) = survived().await;
    for _ in 0..4 {
        let (_, again, _b) = survived().await;
        assert_eq!(lines(&first), lines(&again));
    }
}

#[tokio::test(start_paused = true)]
async fn orders_are_answered_and_on_record_before_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, policy) = (Scene::quiet(), policy(0));
    let journal = (Journal::in_memory().unwrap(), Vec::new());
    let agent =
        Agent::start(&policy, world(&policy, &scene, folder.path()), Clock::starting_at(START), journal);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let until = START + Duration::from_secs(600);
    let order = Order::Pause { workload: shop(), reason: "upgrade".into(), until, by: "ada".into() };
    let answer = agent.inbox.order(order).await.unwrap();
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    let paused = agent.records().await.iter().any(|s| matches!(s.record, Record::Paused { .. }));
    assert!(paused, "answered before it was on record");
    assert!(agent.status().await.paused.is_some());
    let again = agent.inbox.plan(lifeboat_core::plan::Kind::Failover, shop(), None).await.unwrap();
    assert_eq!(again.unwrap().0.run.as_str(), "shop-e1");

    let inbox: Inbox = agent.inbox.clone();
    agent.stopped().await.unwrap();
    let order = Order::Resume { workload: shop(), by: "ada".into() };
    assert!(inbox.order(order).await.is_err(), "nobody is there to obey");
    assert!(inbox.status().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_probes_a_second_lose_no_look() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, policy) = (Scene::quiet(), policy(1_000));
    let journal = (Journal::in_memory().unwrap(), Vec::new());
    let agent =
        Agent::start(&policy, world(&policy, &scene, folder.path()), Clock::starting_at(START), journal);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let up = |s: &lifeboat_core::status::WorkloadStatus, state| {
        s.regions.values().flat_map(|r| r.probes.values()).filter(|p| p.state == state).count()
    };
    use lifeboat_core::status::ProbeState;
    assert_eq!(up(&agent.status().await, ProbeState::Up), 1_003);
    let looks = scene.state().looks.values().copied().min();
    assert!(looks >= Some(4), "each probe looked each second: {looks:?}");

    // Three failures in a row make a probe down: one lost look of a thousand probes would show.
    scene.dies("east");
    scene.dies("west");
    let begun = scene.state().looks.clone();
    agent.until(Duration::from_secs(5), |s| up(s, ProbeState::Down) == 1_003).await;
    let most = scene.state().looks.iter().map(|(name, n)| n - begun[name]).max();
    assert!(most <= Some(4), "some probe needed {most:?} looks to count three failures");
    agent.stopped().await.unwrap();
}
