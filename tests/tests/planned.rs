//! Planned moves on real servers: what they lose (nothing), when they are refused, and how they are taken back.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use lifeboat_chaos::{AgentOptions, Lab, LabOptions, Planned, Region};
use lifeboat_tests::scene::{
    SOON, agent_log, lab, lab_of, records, runs, shop, sql, timeline, until, until_calm, until_record,
    until_run,
};

/// Writes a second: those of the promise.
const RATE: u32 = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_under_load_loses_nothing_and_neither_does_the_way_back() {
    let lab = lab_of(LabOptions { ballast_mb: 20, ..LabOptions::default() }).await;
    until_calm(&lab, Region::East).await;
    let reference = lab.reference(Region::East).await.unwrap();
    for to in [Region::West, Region::East] {
        let moved = lab.move_under_load(Planned::Switchover(to), RATE).await.unwrap();
        assert!(moved.ok(), "{moved:#?}\n{}", agent_log(&lab));
        println!(
            "to {to}: gap {} ms, {} acknowledged, {} a second before",
            moved.write_gap_ms.unwrap(),
            moved.acknowledged_writes,
            moved.writes_a_second
        );
        assert!(lab.names().shop_is_in().await == Some(to));
        until_calm(&lab, to).await;
        assert_eq!(lab.reference(to).await.unwrap(), reference);
    }
    assert_eq!(timeline(&lab, Region::East).await, 3, "two promotions");
    let entries = "SELECT count(*)::int FROM entry";
    let all = sql(&lab, Region::East, entries).await;
    until("the old primary has all of it", async || sql(&lab, Region::West, entries).await == all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_does_not_follow_or_catch_up_is_not_moved_to() {
    let lab = lab(AgentOptions::default()).await;
    until_calm(&lab, Region::East).await;
    lab.cut_replication(Region::West);
    let cut = |status: &serde_json::Value| {
        shop(status)["regions"]["west"]["databases"]["orders"]["sample"]["state"]["streaming"] == false
    };
    lab.until_status("west is cut off", SOON, cut).await.unwrap();
    let refused = lab.lifeboat(&["switchover", "shop", "--to", "west"]).await;
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("does not follow"), "{refused:?}");
    assert!(runs(&lab).await.is_empty(), "nothing was begun");
    lab.mend_replication(Region::West);
    until_calm(&lab, Region::East).await;

    let load = lab.load("stays");
    until("east takes writes", async || load.look(|l| l.taken_by(Region::East)) >= 500).await;
    let run = undone(&lab).await;
    let fenced = records(&run, "step-ended")
        .iter()
        .any(|r| r["step"] == "fence" && !r["outcome"]["succeeded"].is_null());
    assert!(fenced, "the primary was closed, and opened again: {run:#?}");
    let taken = load.look(|l| l.taken_by(Region::East));
    until("clients write again", async || load.look(|l| l.taken_by(Region::East)) >= taken + 500).await;
    assert!(lab.names().shop_is_in().await == Some(Region::East));
    assert_eq!(timeline(&lab, Region::East).await, 1, "nothing was promoted");
    let ledger = load.stop().await;
    let tally = ledger.tally(&lab.entries(Region::East, "stays").await.unwrap());
    assert_eq!((tally.lost, tally.duplicated), (0, 0), "{tally:?}");
    assert_eq!(ledger.taken_by(Region::West), 0);

    // What stood in the way is gone: the same order moves it.
    until_calm(&lab, Region::East).await;
    let moved = lab.lifeboat(&["switchover", "shop", "--to", "west"]).await;
    assert_eq!(moved.code, Some(0), "{moved:?}\n{}", agent_log(&lab));
}

/// Orders a switchover whose standby stops replaying once it was found to follow. The agent is frozen for the moment
/// that takes; where it had come further than that, the workload is moved back and it is tried again.
async fn undone(lab: &Lab) -> serde_json::Value {
    for _ in 0..5 {
        let before = lab.last_sequence().await;
        let order = lab.lifeboat(&["switchover", "shop", "--to", "west"]);
        let pause = async {
            until_record(lab, before, "step-started", "drain").await;
            lab.freeze_agent(true).unwrap();
            let west = lab.server(Region::West).connect("lifeboat").await.unwrap();
            let paused = west.batch_execute("SELECT pg_wal_replay_pause()").await;
            lab.freeze_agent(false).unwrap();
            paused.is_ok()
        };
        let (said, paused) = tokio::join!(order, pause);
        if said.code == Some(1) && paused {
            assert!(said.stdout.contains("taken back") || said.stderr.contains("nothing"), "{said:?}");
            let west = lab.server(Region::West).connect("lifeboat").await.unwrap();
            west.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
            return until_run(lab, "undone").await;
        }
        assert_eq!(said.code, Some(0), "{said:?}\n{}", agent_log(lab));
        until_calm(lab, Region::West).await;
        assert_eq!(lab.lifeboat(&["switchover", "shop", "--to", "east"]).await.code, Some(0));
        until_calm(lab, Region::East).await;
    }
    panic!("the standby was never paused in time\n{}", agent_log(lab))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_two_persons_must_accept_one_is_not_enough() {
    let failover = "approvals = 2\n".to_owned();
    let lab = lab(AgentOptions { supervised: true, failover, ..AgentOptions::default() }).await;
    lab.lose(Region::East).unwrap();
    let run = until_run(&lab, "asking").await;
    let id = run["run"].as_str().unwrap();
    let behind = run["loss"]["at_most"].as_u64().unwrap();
    let number = format!("{}s", behind.div_ceil(1000).max(1));
    let approve = async |by: &str| lab.lifeboat(&["approve", id, "--accept-loss", &number, "--by", by]).await;
    let first = approve("ada").await;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stdout.contains("1 other person"), "{first:?}");
    let again = approve("ada").await;
    assert_eq!(again.code, Some(5), "{again:?}");
    assert!(again.stderr.contains("ada"), "{again:?}");
    assert!(
        lab.names().shop_is_in().await == Some(Region::East) && until_run(&lab, "asking").await["run"] == id,
        "it still waits"
    );
    let second = approve("bob").await;
    assert_eq!(second.code, Some(0), "{second:?}");
    let run = until_run(&lab, "done").await;
    assert_eq!(records(&run, "approved").len(), 2);
    assert!(lab.names().shop_is_in().await == Some(Region::West));
}
