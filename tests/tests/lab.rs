//! The whole on real servers: what must be survived, and what must not be mistaken for a loss.
//!
//! Each test builds a lab of its own (two regions, a PostgreSQL pair, shops, proxies, the agent) and judges
//! by what the agent recorded, what the databases hold and what the name server answers.

use std::time::Duration;

use lifeboat_chaos::{AgentOptions, Fault, From, ProbePolicy, Region, To};
use lifeboat_tests::scene::{
    SOON, agent_log, gate, lab, phase, records, runs, says, shop, steps, until, until_run, verdict,
};
use serde_json::Value;

const ALL_STEPS: [&str; 7] =
    ["measure-loss", "fence", "promote", "await-serving", "switch-dns", "verify", "report"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_region_is_survived_and_its_loss_counted() {
    let lab = lab(AgentOptions::default()).await;
    assert!(says(&lab, Region::East));
    let canary = lab.canary("dead");
    until("orders are taken", async || canary.look(|ledger| ledger.acknowledged.len() >= 50)).await;

    lab.lose(Region::East).unwrap();
    let run = until_run(&lab, "done").await;

    assert_eq!(steps(&run), ALL_STEPS);
    assert!(says(&lab, Region::West));
    until("orders are taken", async || canary.look(|ledger| ledger.taken_by(Region::West) >= 50)).await;
    let ledger = canary.stop().await;
    let kept = lab.orders(Region::West).await.unwrap();
    let mut west = ledger.acknowledged.iter().filter(|order| order.region == Region::West);
    assert!(west.all(|order| kept.contains(&order.id)), "an order acknowledged in west is not there");
    // What was lost is within what was measured before the promotion.
    let lost = ledger.acknowledged.iter().filter(|order| !kept.contains(&order.id));
    let oldest_lost = lost.map(|order| order.acknowledged_ms).min();
    let heartbeat = run["loss"]["newest_heartbeat"].as_u64().unwrap();
    assert!(
        oldest_lost.is_none_or(|at| at >= heartbeat),
        "{oldest_lost:?} was lost, heartbeat {heartbeat} was not"
    );
    let report = lab.folder().join("agent/state/reports/shop-e1.json");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["run"], "shop-e1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_falls_silent_is_fenced_and_survived() {
    let lab = lab(AgentOptions::default()).await;
    lab.freeze(Region::East).unwrap();
    let run = until_run(&lab, "done").await;
    assert_eq!(steps(&run), ALL_STEPS);
    let fenced = records(&run, "step-ended").into_iter().find(|record| record["step"] == "fence").unwrap();
    assert_eq!(fenced["outcome"]["succeeded"]["proofs"]["orders"]["kind"], "isolated", "{fenced:#}");
    lab.thaw(Region::East).unwrap();
    assert!(lab.orders(Region::East).await.is_err(), "the old primary is off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_is_not_dead() {
    let lab =
        lab(AgentOptions { policy: ProbePolicy::Defaults, rto: "15m".to_owned(), ..AgentOptions::default() })
            .await;
    let slow = |fault| {
        lab.proxy(From::Agent, To::Postgres(Region::East)).set(fault);
        lab.proxy(From::Agent, To::Shop(Region::East)).set(fault);
    };
    slow(Fault::Latency(Duration::from_secs(10)));
    // For the 40 s of the trouble and a while after it nothing may be opened.
    let trouble = lab.until_status("a run", Duration::from_secs(40), |s| !shop(s)["run"].is_null()).await;
    assert!(trouble.is_err(), "a slow primary was failed over: {trouble:#?}");
    slow(Fault::None);
    let healed = |status: &Value| phase(status) == "guarding" && verdict(status, Region::East) == "healthy";
    lab.until_status("the primary is healthy again", SOON, healed).await.unwrap();
    assert!(runs(&lab).await.is_empty());
    assert!(agent_log(&lab).contains("WARN notice"), "nobody was told:\n{}", agent_log(&lab));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_a_network_abstains() {
    for fault in [Fault::Refuse, Fault::Blackhole] {
        let lab = lab(AgentOptions::default()).await;
        lab.agent_network(fault);
        // A proxy that swallows still accepts, which a cut cable does not.
        lab.witnesses(Fault::Refuse);
        let blind = |s: &Value| verdict(s, Region::East) == "lost" && !gate(s, "connectivity").0;
        let status = lab.until_status("the primary looks lost", SOON, blind).await.unwrap();
        assert_eq!(gate(&status, "quorum").1["lost"], 0, "a blind vantage does not vote");
        let said = lab.lifeboat(&["explain", "shop", "--why-not"]).await;
        assert!(said.stdout.contains("0 of 3 witnesses answered bastion; 2 needed"), "{}", said.stdout);
        lab.agent_network(Fault::None);
        lab.until_status("all is well again", SOON, |s| phase(s) == "guarding").await.unwrap();
        assert!(runs(&lab).await.is_empty(), "{fault:?}");
        assert!(says(&lab, Region::East));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_answers_but_cannot_commit_is_lost() {
    let lab = lab(AgentOptions::default()).await;
    lab.break_commits(Region::East).await.unwrap();
    let run = until_run(&lab, "done").await;
    let lost =
        records(&run, "verdict-changed").into_iter().find(|record| record["verdict"] == "lost").unwrap();
    assert_eq!(lost["reason"]["last"]["kind"], "commit-silent", "{lost:#}");
    let fenced = records(&run, "step-ended").into_iter().find(|record| record["step"] == "fence").unwrap();
    assert_eq!(fenced["outcome"]["succeeded"]["proofs"]["orders"]["kind"], "write-refused", "{fenced:#}");
    assert!(says(&lab, Region::West));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_stopped_an_hour_ago_needs_a_person() {
    let lab = lab(AgentOptions::default()).await;
    lab.age_standby(Duration::from_secs(3600)).await.unwrap();
    lab.lose(Region::East).unwrap();
    let run = until_run(&lab, "asking").await;
    let id = run["run"].as_str().unwrap();
    let behind = run["loss"]["at_most"].as_u64().unwrap();
    assert!((3_600_000..3_700_000).contains(&behind), "{behind}");
    assert_eq!(steps(&run), ["measure-loss"], "nothing moved");

    let asked = lab.lifeboat(&["approve", id]).await;
    assert_eq!(asked.code, Some(5), "{asked:?}");
    assert!(
        asked.stderr.contains("at most 1 h 0 min") && asked.stderr.contains("RPO objective is 30.0 s"),
        "{asked:?}"
    );
    let wrong = lab.lifeboat(&["approve", id, "--accept-loss", "5s"]).await;
    assert_eq!(wrong.code, Some(5), "{wrong:?}");
    assert!(says(&lab, Region::East) && steps(&until_run(&lab, "asking").await) == ["measure-loss"]);

    let number = format!("{}s", behind.div_ceil(1000));
    let right = lab.lifeboat(&["approve", id, "--accept-loss", &number, "--by", "ada"]).await;
    assert_eq!(right.code, Some(0), "{right:?}");
    let run = until_run(&lab, "done").await;
    let approved = records(&run, "approved");
    assert!(approved[0]["by"].as_str().unwrap().starts_with("ada (uid "), "{approved:#?}");
    assert!(says(&lab, Region::West));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_crashes_in_its_promotion_gets_no_traffic() {
    let lab = lab(AgentOptions::default()).await;
    lab.crash_on_promotion(Region::West).await.unwrap();
    lab.lose(Region::East).unwrap();
    let run = until_run(&lab, "stranded").await;
    assert!(!steps(&run).contains(&"switch-dns"), "{:?}", steps(&run));
    assert!(says(&lab, Region::East), "names must not move to what does not serve");
    assert!(agent_log(&lab).contains("ERROR notice"), "nobody was told:\n{}", agent_log(&lab));

    lab.survive_promotion(Region::West).unwrap();
    lab.restart(Region::West).await.unwrap();
    let elsewhere = lab.lifeboat(&["failover", "shop", "--to", "east"]).await;
    assert_eq!(elsewhere.code, Some(5), "{elsewhere:?}");
    let again = lab.lifeboat(&["failover", "shop", "--to", "west", "--by", "ada"]).await;
    assert_eq!(again.code, Some(0), "{again:?}\n{}", agent_log(&lab));
    assert!(says(&lab, Region::West));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_regions_down_is_no_time_for_blind_action() {
    let lab = lab(AgentOptions::default()).await;
    lab.lose(Region::West).unwrap();
    lab.lose(Region::East).unwrap();
    let shut = |s: &Value| verdict(s, Region::East) == "lost" && verdict(s, Region::West) == "lost";
    lab.until_status("both are lost", SOON, shut).await.unwrap();
    let status = lab.until_status("the gate is shut", SOON, |s| !gate(s, "target-answers").0).await.unwrap();
    assert_eq!(gate(&status, "target-answers").1["kind"], "target-down");
    for run in runs(&lab).await {
        let touched = run["steps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|s| s["step"] != "measure-loss" && s["attempts"] != 0);
        assert!(!touched, "{run:#}");
    }
    assert!(says(&lab, Region::East));
    assert!(agent_log(&lab).contains("ERROR notice"), "nobody was told:\n{}", agent_log(&lab));
    let ordered = lab.lifeboat(&["failover", "shop", "--to", "west"]).await;
    assert_eq!(ordered.code, Some(5), "{ordered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_proof_of_the_fence_a_person_is_asked() {
    let lab = lab(AgentOptions { power: false, ..AgentOptions::default() }).await;
    lab.lose(Region::East).unwrap();
    let run = until_run(&lab, "asking").await;
    assert_eq!(steps(&run), ["measure-loss", "fence"], "nothing is promoted on no answer");
    let id = run["run"].as_str().unwrap();
    let asked = lab.lifeboat(&["approve", id]).await;
    assert!(asked.stderr.contains("--accept-unfenced \"east\""), "{asked:?}");
    let accepted = lab.lifeboat(&["approve", id, "--accept-unfenced", "east", "--by", "ada"]).await;
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    until_run(&lab, "done").await;
    assert!(says(&lab, Region::West));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_goes_on_from_its_record() {
    let lab = lab(AgentOptions::default()).await;
    lab.lose(Region::East).unwrap();
    lab.until_status("the run is open", SOON, |s| !shop(s)["run"].is_null()).await.unwrap();
    lab.kill_agent().unwrap();
    lab.start_agent().await.unwrap();
    let run = until_run(&lab, "done").await;
    assert_eq!(runs(&lab).await.len(), 1, "the same run, not another");
    // A fence may be proven twice, when the kill came between it and the promotion; all else is in order.
    let mut first: Vec<&str> = Vec::new();
    for step in steps(&run) {
        if !first.contains(&step) {
            first.push(step);
        }
    }
    assert_eq!(first, ALL_STEPS);
    let timeline = |status: &Value| {
        shop(status)["regions"]["west"]["databases"]["orders"]["sample"]["timeline"].as_u64()
    };
    let status = lab.until_status("west is seen", SOON, |s| timeline(s).is_some()).await.unwrap();
    assert_eq!(timeline(&status), Some(2), "promoted once, and only once");
    let moved = records(&run, "primary-moved").len();
    assert_eq!(moved, 1);
    assert!(says(&lab, Region::West));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_workload_is_watched_and_left_alone() {
    let lab = lab(AgentOptions::default()).await;
    let paused =
        lab.lifeboat(&["pause", "shop", "--reason", "network work", "--for", "1h", "--by", "ada"]).await;
    assert_eq!(paused.code, Some(0), "{paused:?}");
    lab.lose(Region::East).unwrap();
    let status = lab.until_status("it is lost", SOON, |s| verdict(s, Region::East) == "lost").await.unwrap();
    assert_eq!(phase(&status), "paused");
    assert!(!gate(&status, "not-paused").0 && runs(&lab).await.is_empty());
    let resumed = lab.lifeboat(&["resume", "shop"]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    until_run(&lab, "done").await;
}
