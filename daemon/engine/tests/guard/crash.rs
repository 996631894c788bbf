//! Killed after each record, or unable to write one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::record::Ending;
use lifeboat_core::{Policy, Stamped};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::{EngineError, Journal, JournalError, open_state};

use crate::failover::endings;
use crate::pretend::Scene;
use crate::setting::{Agent, START, policy, story, world};

/// Opens the state as soon as the life before has let it go.
pub(crate) async fn opened(folder: &Path) -> (Journal, Vec<Stamped>) {
    for _ in 0..100 {
        match open_state(folder) {
            Ok(opened) => return opened,
            Err(JournalError::Held { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the killed agent still holds its journal");
}

fn start(
    policy: &Policy,
    scene: &Arc<Scene>,
    folder: &Path,
    clock: Clock,
    journal: (Journal, Vec<Stamped>),
) -> Agent {
    Agent::start(policy, world(policy, scene, folder), clock, journal)
}

/// Lives through a failover, killed once when this many records are there and `late` has passed. Gives all
/// records and the scene, or nothing when there never were so many.
async fn killed_after(count: usize, late: Duration) -> Option<(Vec<Stamped>, Arc<Scene>)> {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (scene, policy, clock) = (Scene::quiet(), policy(0), Clock::starting_at(START));
    let agent = start(&policy, &scene, folder.path(), clock, opened(folder.path()).await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.dies("east");
    let lived = tokio::time::timeout(Duration::from_secs(20), async {
        while agent.records().await.len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let reached = lived.await.is_ok();
    tokio::time::sleep(late).await;
    agent.killed().await;
    if !reached {
        return None;
    }
    let agent = start(&policy, &scene, folder.path(), clock, opened(folder.path()).await);
    agent.until(Duration::from_secs(120), |s| s.primary == "west".into() && s.run.is_none()).await;
    let records = agent.records().await;
    agent.stopped().await.expect("it stops when told");
    for kind in ["fence", "promote", "names"] {
        assert_eq!(scene.effects(kind), 1, "{kind}, killed after {count}: {}", story(&records));
    }
    Some((records, scene))
}

#[tokio::test(start_paused = true)]
async fn killed_after_any_record_it_goes_on_and_no_effect_happens_twice() {
    // A port's effect happens 5 ms after the call and its outcome is told 5 ms later: the second kind of kill
    // falls between the two.
    let mut between = 0;
    for late in [Duration::ZERO, Duration::from_millis(7)] {
        let mut count = 1;
        while let Some((records, scene)) = killed_after(count, late).await {
            let ended = endings(&records);
            assert_eq!(ended.last(), Some(&Ending::Done), "killed after {count}: {}", story(&records));
            between += u32::from(scene.calls("promote") == 2 && late > Duration::ZERO);
            count += 1;
        }
        assert!(count > 25, "a failover has more records than {count}");
    }
    assert!(between > 0, "no kill fell between the promotion and its outcome");
}

/// A state folder whose journal refuses records with this text.
async fn refusing(folder: &Path, text: &str) {
    drop(opened(folder).await);
    let connection = rusqlite::Connection::open(folder.join("journal.db")).expect("the journal is SQLite");
    let trigger = format!(
        "CREATE TRIGGER full BEFORE INSERT ON record WHEN NEW.body LIKE '%{text}%'
         BEGIN SELECT RAISE(FAIL, 'disk full, as pretended'); END"
    );
    connection.execute_batch(&trigger).expect("a trigger can be made");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_down_is_not_done() {
    for (text, never) in [
        ("\"kind\":\"run-opened\"", "measure"),
        ("\"kind\":\"step-started\",\"workload\":\"shop\",\"run\":\"shop-e1\",\"step\":\"fence\"", "fence"),
        (
            "\"kind\":\"step-started\",\"workload\":\"shop\",\"run\":\"shop-e1\",\"step\":\"promote\"",
            "promote",
        ),
        ("\"kind\":\"primary-moved\"", "write"),
        (
            "\"kind\":\"step-started\",\"workload\":\"shop\",\"run\":\"shop-e1\",\"step\":\"switch-dns\"",
            "names",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        refusing(folder.path(), text).await;
        let (scene, policy) = (Scene::quiet(), policy(0));
        let clock = Clock::starting_at(START);
        let agent = start(&policy, &scene, folder.path(), clock, opened(folder.path()).await);
        tokio::time::sleep(Duration::from_secs(5)).await;
        scene.dies("east");
        let ended = tokio::time::timeout(Duration::from_secs(60), agent.task).await;
        let error = ended.expect("the loop ends").expect("without a panic").unwrap_err();
        assert!(matches!(error, EngineError::Journal(JournalError::Append(_))), "{text}: {error}");
        assert_eq!(scene.calls(never), 0, "{text}: done, though it could not be written down");
        drop(agent.journal);
        let (_, records) = opened(folder.path()).await;
        assert_eq!(endings(&records), [], "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_cannot_write_its_start_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    refusing(folder.path(), "agent-started").await;
    let (scene, policy) = (Scene::quiet(), policy(0));
    let agent = start(&policy, &scene, folder.path(), Clock::starting_at(START), opened(folder.path()).await);
    assert!(matches!(agent.task.await.unwrap(), Err(EngineError::Journal(_))));
    assert_eq!(scene.state().looks.len(), 0, "nobody looks for an agent that is not there");
}
