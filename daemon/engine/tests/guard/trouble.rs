//! Ports that hang or panic: the loop stays awake, and says what it saw.

use std::time::Duration;

use lifeboat_core::status::ProbeState;
use lifeboat_core::{FaultKind, Outcome, Record, Stamped};
use lifeboat_engine::Journal;
use lifeboat_engine::clock::Clock;

use crate::failover::endings;
use crate::pretend::Scene;
use crate::setting::{Agent, START, policy, story, world};

fn agent(scene: &std::sync::Arc<Scene>, folder: &tempfile::TempDir) -> Agent {
    let policy = policy(0);
    let journal = (Journal::in_memory().expect("SQLite works"), Vec::new());
    Agent::start(&policy, world(&policy, scene, folder.path()), Clock::starting_at(START), journal)
}

/// When the attempts at a step began and ended, with the kind of fault.
fn attempts(records: &[Stamped], wanted: &str) -> Vec<(Duration, FaultKind)> {
    let mut began = START;
    let mut ends = Vec::new();
    for stamped in records {
        match &stamped.record {
            Record::StepStarted { step, .. } if step.as_str() == wanted => began = stamped.at,
            Record::StepEnded { step, outcome: Outcome::Failed(fault), .. } if step.as_str() == wanted => {
                ends.push((stamped.at.since(began), fault.kind));
            }
            _ => {}
        }
    }
    ends
}

#[tokio::test(start_paused = true)]
async fn a_port_that_hangs_is_unclear_within_its_limit_and_blocks_nobody() {
    for (kind, step, limit) in [
        ("measure", "measure-loss", 10),
        ("promote", "promote", 60),
        ("names", "switch-dns", 30),
        ("visit", "verify", 120),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::quiet();
        scene.state().hangs.insert(kind);
        let agent = agent(&scene, &folder);
        tokio::time::sleep(Duration::from_secs(5)).await;
        scene.dies("east");
        let at_step = |s: &lifeboat_core::status::WorkloadStatus| {
            s.run.as_ref().and_then(|r| r.step.as_ref()).is_some_and(|s| s.as_str() == step)
        };
        agent.until(Duration::from_secs(30), at_step).await;

        // While it hangs, the probes look on and are heard.
        let looks = scene.state().looks.clone();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let asked = tokio::time::Instant::now();
        let status = agent.status().await;
        assert_eq!(asked.elapsed(), Duration::ZERO, "{step}: the loop was asleep");
        assert_eq!(status.regions[&"west".into()].probes[&"orders-west".into()].state, ProbeState::Up);
        let looked = scene.state().looks.iter().map(|(name, n)| n - looks[name]).min();
        assert!(looked >= Some(4), "{step}: {looked:?} looks in 5 s");

        tokio::time::sleep(Duration::from_secs(limit + 2)).await;
        let records = agent.records().await;
        let ends = attempts(&records, step);
        let (took, fault) = ends.first().unwrap_or_else(|| panic!("{step} never ended: {}", story(&records)));
        assert_eq!(*fault, FaultKind::Unclear, "{step}");
        assert!(*took <= Duration::from_millis(limit * 1_000 + 600), "{step} took {took:?}");
        assert!(scene.effects("names") == 0 || kind == "visit");
        agent.stopped().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_that_answers_again_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::quiet();
    scene.state().hangs.insert("names");
    let agent = agent(&scene, &folder);
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.dies("east");
    tokio::time::sleep(Duration::from_secs(60)).await;
    scene.state().hangs.clear();
    agent.until(Duration::from_secs(120), |s| s.primary == "west".into() && s.run.is_none()).await;
    assert_eq!(scene.effects("names"), 1);
    agent.stopped().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_counts_as_silent() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::quiet();
    let agent = agent(&scene, &folder);
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.state().hangs.insert("look");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = agent.status().await;
    let probe = &status.regions[&"east".into()].probes[&"orders-east".into()];
    assert_eq!(probe.state, ProbeState::Failing, "{probe:?}");
    assert!(probe.failure.as_ref().unwrap().starts_with("no answer in time"), "{probe:?}");
    scene.state().hangs.clear();
    agent.until(Duration::from_secs(10), |s| s.phase == lifeboat_core::status::PhaseName::Guarding).await;
    assert_eq!(endings(&agent.records().await), []);
    agent.stopped().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_way_of_telling_that_hangs_delays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::quiet();
    scene.state().hangs.insert("notify");
    let agent = agent(&scene, &folder);
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.dies("east");
    agent.until(Duration::from_secs(10), |s| s.primary == "west".into() && s.run.is_none()).await;
    agent.stopped().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_has_failed_to_look() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::quiet();
    let agent = agent(&scene, &folder);
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.state().panics.insert("look");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let status = agent.status().await;
    let probe = &status.regions[&"east".into()].probes[&"orders-east".into()];
    let failure = probe.failure.clone().unwrap_or_default();
    assert!(failure.contains("malformed answer") && failure.contains("as pretended"), "{probe:?}");
    assert_eq!(endings(&agent.records().await), [], "a broken probe moved the workload");
    scene.state().panics.clear();
    agent.until(Duration::from_secs(10), |s| s.phase == lifeboat_core::status::PhaseName::Guarding).await;
    agent.stopped().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_panics_is_unclear() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::quiet();
    let agent = agent(&scene, &folder);
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.state().panics.insert("names");
    scene.dies("east");
    let failed = async {
        loop {
            if let Some((_, kind)) = attempts(&agent.records().await, "switch-dns").first() {
                return *kind;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let kind = tokio::time::timeout(Duration::from_secs(60), failed).await;
    assert_eq!(kind, Ok(FaultKind::Unclear));
    scene.state().panics.clear();
    agent.until(Duration::from_secs(120), |s| s.primary == "west".into() && s.run.is_none()).await;
    assert_eq!(scene.effects("names"), 1);
    agent.stopped().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_died_with_the_region_is_named_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::quiet();
    let agent = agent(&scene, &folder);
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.dies("east");
    agent.until(Duration::from_secs(60), |s| s.primary == "west".into() && s.run.is_none()).await;
    let records = agent.records().await;
    assert!(story(&records).contains("(ns.east silent)"), "{}", story(&records));
    agent.stopped().await.unwrap();
}
