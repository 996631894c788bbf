//! Measuring, promoting, and the first write.

use std::time::{Duration, Instant};

use lifeboat_core::{Epoch, FaultKind, Moment, SystemIdentifier};
use lifeboat_engine::ports::{Database, Probe, Role};
use lifeboat_postgres::Options;

use crate::pair::{Pair, Server, ask, call, member, until};

async fn system_of(server: &Server) -> SystemIdentifier {
    SystemIdentifier::new(
        server.value("SELECT system_identifier FROM pg_control_system()").await.parse().unwrap(),
    )
}

#[tokio::test]
async fn what_was_received_is_replayed_when_it_is_measured() {
    let mut pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    east.look(&ask(Role::Primary, 1_000)).await.unwrap();
    pair.east.stop();
    let target = west.measure(&call(8)).await.unwrap();
    assert_eq!(target.system, system_of(&pair.west).await);
    assert_eq!(target.timeline.get(), 1);
    assert_eq!(target.position.received, target.position.replayed);
    assert_eq!(target.position.heartbeat, Some(Moment::from_millis(1_000)));
    assert_eq!(target.position.epoch, Some(Epoch::new(7)));
    assert_eq!(west.measure(&call(6)).await.unwrap_err().kind, FaultKind::Stale);
}

#[tokio::test]
async fn a_primary_that_still_sends_is_not_waited_for_for_ever() {
    let pair = Pair::start().await;
    let client = pair.east.connect("app").await.unwrap();
    let writing = tokio::spawn(async move {
        while client.execute("INSERT INTO orders SELECT FROM generate_series(1, 50)", &[]).await.is_ok() {}
    });
    for _ in 0..5 {
        assert!(pair.west.member().measure(&call(8)).await.unwrap().position.streaming);
    }
    writing.abort();
}

#[tokio::test]
async fn replay_that_is_paused_is_unclear_with_its_bytes() {
    let pair = Pair::start().await;
    pair.west.client().await.execute("SELECT pg_wal_replay_pause()", &[]).await.unwrap();
    let paused = async || pair.west.value("SELECT pg_get_wal_replay_pause_state()").await == "paused";
    until("replay has stopped", paused).await;
    pair.east.member().look(&ask(Role::Primary, 1)).await.unwrap();
    let behind = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()";
    until("it has received more", async || pair.west.value(behind).await == "true").await;
    let mut call = call(8);
    call.limit = Duration::from_millis(500);
    let fault = pair.west.member().measure(&call).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
    assert!(fault.detail.contains("bytes") && fault.detail.contains("RecoveryPause"), "{fault}");
}

/// A standby that was cut off in the middle of a record can never replay the rest, and is not waited for.
#[tokio::test]
async fn a_primary_killed_while_it_writes_can_be_measured() {
    for _ in 0..3 {
        let mut pair = Pair::start().await;
        let clients = [pair.east.connect("app").await.unwrap(), pair.east.connect("app").await.unwrap()];
        let writing = clients.map(|client| {
            tokio::spawn(async move {
                while client
                    .execute("INSERT INTO orders SELECT FROM generate_series(1, 5000)", &[])
                    .await
                    .is_ok()
                {}
            })
        });
        until("much is written", async || {
            pair.east.value("SELECT count(*) > 20000 FROM orders").await == "true"
        })
        .await;
        pair.east.kill();
        pair.west.member().measure(&call(8)).await.unwrap();
        for writing in writing {
            writing.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_standby_is_promoted_once_and_found_promoted_after() {
    let mut pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    let system = system_of(&pair.west).await;
    pair.east.kill();
    let measured = west.measure(&call(8)).await.unwrap();
    let begun = Instant::now();
    let first = west.ensure_promoted(&call(8), system).await.unwrap();
    let took = west.ensure_writable(&call(8)).await.unwrap();
    // Generous, for a busy machine; with one signal alone many promotions take 5 s (`promote_trials … once`).
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(took <= begun.elapsed());
    assert!(!first.already);
    assert_eq!(first.timeline.get(), 2);
    assert_eq!(first.switched_at, Some(measured.position.replayed));
    let again = west.ensure_promoted(&call(8), system).await.unwrap();
    assert!(again.already);
    assert_eq!((again.timeline, again.switched_at), (first.timeline, first.switched_at));
    assert_eq!(pair.west.value("SELECT epoch FROM lifeboat.heartbeat").await, "8");
    // Measured again by a run that goes on after a crash: read as it is.
    let target = west.measure(&call(8)).await.unwrap();
    assert_eq!((target.timeline, target.position.epoch), (first.timeline, Some(Epoch::new(8))));
    // To any other run it is a primary that somebody else made.
    assert_eq!(west.measure(&call(9)).await.unwrap_err().kind, FaultKind::Refused);
    // Nothing was left behind that a later standby would inherit.
    assert_eq!(
        pair.west.value("SELECT count(*) FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'").await,
        "0"
    );
    assert!(!pair.west.data().join("promote").exists());
}

#[tokio::test]
async fn a_target_that_clients_could_not_write_to_is_refused_before_anything_is_touched() {
    let pair = Pair::start().await;
    let west = pair.west.member();
    pair.east.member().look(&ask(Role::Primary, 1)).await.unwrap();
    west.measure(&call(8)).await.unwrap();
    pair.west.set("default_transaction_read_only", "on").await;
    until("it carries a fence", async || west.measure(&call(8)).await.is_err()).await;
    let fault = west.measure(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    assert!(fault.detail.contains("still carries a fence"), "{fault}");
}

/// The instant in which one promotion signal alone can take 5 s; `promote_trials` counts how often.
#[tokio::test]
async fn a_promotion_ordered_while_the_primary_dies_does_not_stall() {
    for _ in 0..4 {
        let pair = Pair::start().await;
        let west = pair.west.member();
        west.look(&ask(Role::Standby, 1)).await.unwrap();
        let system = system_of(&pair.west).await;
        let mut east = pair.east;
        let killing = tokio::task::spawn_blocking(move || {
            east.kill();
            east
        });
        let begun = Instant::now();
        west.ensure_promoted(&call(8), system).await.unwrap();
        west.ensure_writable(&call(8)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(killing.await.unwrap());
    }
}

#[tokio::test]
async fn the_wrong_cluster_is_never_promoted() {
    let pair = Pair::start().await;
    let fault = pair.west.member().ensure_promoted(&call(8), SystemIdentifier::new(4711)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    let pinned = member(Options { system: Some(SystemIdentifier::new(4711)), ..pair.west.options() });
    let system = system_of(&pair.west).await;
    let fault = pinned.ensure_promoted(&call(8), system).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert_eq!(fault.region.as_ref().map(|region| region.as_str()), Some("west"));
    assert_eq!(pair.west.value("SELECT pg_is_in_recovery()").await, "true");
}

#[tokio::test]
async fn a_stale_actor_promotes_and_writes_nothing() {
    let pair = Pair::start().await;
    pair.east.member().ensure_writable(&call(9)).await.unwrap();
    let behind = "SELECT coalesce((SELECT epoch FROM lifeboat.heartbeat), 0)";
    let exists = "SELECT to_regclass('lifeboat.heartbeat') IS NOT NULL";
    until("the epoch is replayed", async || {
        pair.west.value(exists).await == "true" && pair.west.value(behind).await == "9"
    })
    .await;
    let system = system_of(&pair.west).await;
    let fault = pair.west.member().ensure_promoted(&call(8), system).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Stale, "{fault}");
    assert_eq!(pair.west.value("SELECT pg_is_in_recovery()").await, "true");
    let fault = pair.east.member().ensure_writable(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Stale, "{fault}");
    assert_eq!(pair.east.value("SELECT epoch FROM lifeboat.heartbeat").await, "9");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_for_every_step() {
    let mut pair = Pair::start().await;
    let west = pair.west.member();
    let system = system_of(&pair.west).await;
    pair.west.kill();
    assert_eq!(west.measure(&call(8)).await.unwrap_err().kind, FaultKind::Unreachable);
    assert_eq!(west.ensure_promoted(&call(8), system).await.unwrap_err().kind, FaultKind::Unreachable);
    assert_eq!(west.ensure_writable(&call(8)).await.unwrap_err().kind, FaultKind::Unreachable);
}

#[tokio::test]
async fn a_standby_is_not_writable_and_a_hanging_commit_is_unclear() {
    let pair = Pair::start().await;
    let mut call = call(8);
    call.limit = Duration::from_millis(500);
    let fault = pair.west.member().ensure_writable(&call).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
    pair.east.set("synchronous_standby_names", "'nobody'").await;
    let fault = pair.east.member().ensure_writable(&call).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
}

#[tokio::test]
async fn a_member_without_heartbeat_proves_a_commit_without_a_table() {
    let pair = Pair::start().await;
    let east = member(Options { heartbeat: false, ..pair.east.options() });
    let before = pair.east.value("SELECT pg_current_wal_flush_lsn()").await;
    east.ensure_writable(&call(8)).await.unwrap();
    assert_ne!(pair.east.value("SELECT pg_current_wal_flush_lsn()").await, before);
    assert_eq!(pair.east.value("SELECT to_regclass('lifeboat.heartbeat')").await, "");
    pair.east.set("default_transaction_read_only", "on").await;
    assert_eq!(east.ensure_writable(&call(8)).await.unwrap_err().kind, FaultKind::Refused);
}
