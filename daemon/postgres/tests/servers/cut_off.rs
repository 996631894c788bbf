//! Cutting a primary off by the standby it waits for, while it lives and clients write.

use std::time::Duration;

use lifeboat_core::FaultKind;
use lifeboat_core::outcome::FenceProof;
use lifeboat_engine::ports::{Database, Probe, Role};

use crate::load::{Load, rows};
use crate::pair::{Pair, ask, call, until};

/// A pair whose primary waits for its standby.
async fn synchronous() -> Pair {
    let pair = Pair::start().await;
    pair.east.set("synchronous_standby_names", "'west'").await;
    let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    until("it is synchronous", async || pair.east.value(sync).await == "1").await;
    pair
}

#[tokio::test]
async fn nothing_is_acknowledged_after_the_proof_and_nothing_is_lost() {
    let mut pair = synchronous().await;
    let load = Load::start(&pair.east, 1, "").await;
    let west = pair.west.member();
    let proof = west.ensure_cut_off(&call(8)).await.unwrap();
    let FenceProof::CutOff { standby, end } = &proof else { panic!("{proof:?}") };
    assert_eq!((standby.as_str(), end.timeline.get()), ("west", 1));
    // The primary lives, and its writer waits for a word that does not come.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'";
    until("the writer waits", async || pair.east.value(waits).await == "1").await;
    let acknowledged = load.acknowledged();
    for _ in 0..3 {
        let client = pair.east.connect("app").await.unwrap();
        let write = client.execute("INSERT INTO orders DEFAULT VALUES", &[]);
        assert!(tokio::time::timeout(Duration::from_millis(500), write).await.is_err(), "acknowledged");
    }
    // A restart of the standby changes nothing, and the proof is the same.
    pair.west.stop();
    pair.west.restart().await;
    assert_eq!(pair.west.member().ensure_cut_off(&call(8)).await.unwrap(), proof);
    assert_eq!(pair.east.value(waits).await, "4", "they still wait");
    assert_eq!(load.acknowledged(), acknowledged);
    let system = end.system;
    let promotion = pair.west.member().ensure_promoted(&call(8), system).await.unwrap();
    assert!(promotion.switched_at.unwrap() <= end.lsn, "{promotion:?} after {end:?}");
    pair.west.member().ensure_writable(&call(8)).await.unwrap();
    let fault = pair.west.member().ensure_cut_off(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    pair.east.kill();
    let told = load.end().await;
    let kept = rows(&pair.west).await;
    assert_eq!(told.len() as u64, acknowledged);
    assert!(
        told.is_subset(&kept),
        "{} of {} acknowledged rows are lost",
        told.difference(&kept).count(),
        told.len()
    );
}

#[tokio::test]
async fn one_whose_promotion_never_comes_is_put_back_by_hand() {
    let pair = synchronous().await;
    pair.east.member().look(&ask(Role::Primary, 1)).await.unwrap();
    let beats = "SELECT count(*) FROM lifeboat.heartbeat";
    until("the heartbeat is there", async || {
        let client = pair.west.client().await;
        client.query_one(beats, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1)
    })
    .await;
    // Epoch 7 was here: an older actor may not, a primary cannot be.
    assert_eq!(pair.west.member().ensure_cut_off(&call(6)).await.unwrap_err().kind, FaultKind::Stale);
    assert_eq!(pair.east.member().ensure_cut_off(&call(8)).await.unwrap_err().kind, FaultKind::Refused);
    let receives = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    assert_eq!(pair.west.value(receives).await, "1", "nothing was touched");
    pair.west.member().ensure_cut_off(&call(8)).await.unwrap();
    assert_eq!(pair.west.value(receives).await, "0");
    let former = pair.west.value("current_setting('lifeboat.former_conninfo')").await;
    let port = format!("port={}", pair.east.port);
    assert!(former.contains(&port) && !former.contains("sesame"), "{former}");
    pair.west.set("primary_conninfo", &format!("'{former}'")).await;
    until("it follows again", async || pair.west.value(receives).await == "1").await;
    let client = pair.east.connect("app").await.unwrap();
    client.execute("INSERT INTO orders DEFAULT VALUES", &[]).await.unwrap();
}
