//! Regions that return after a failover, on real servers: fenced, salvaged, made standbys, moved home to.

#![expect(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use lifeboat_chaos::process::{self, Signal};
use lifeboat_chaos::{AgentOptions, Fault, From, Lab, LabOptions, Planned, Region, To};
use lifeboat_tests::binary;
use lifeboat_tests::scene::{
    agent_log, gave, lab, lab_of, runs, timeline, until, until_calm, until_record, until_run,
};
use serde_json::{Value, json};

/// Loses east under a small load and returns the orders that only it has.
async fn fail_over(lab: &Lab) -> HashSet<String> {
    let canary = lab.canary("before");
    until("east takes orders", async || canary.look(|l| l.taken_by(Region::East)) >= 100).await;
    // What is acknowledged after the cut, east alone has.
    lab.cut_replication(Region::West);
    let taken = canary.look(|l| l.taken_by(Region::East));
    until("east goes on", async || canary.look(|l| l.taken_by(Region::East)) >= taken + 10).await;
    lab.lose(Region::East).unwrap();
    lab.mend_replication(Region::West);
    until_run(lab, "done").await;
    let ledger = canary.stop().await;
    let kept = lab.orders(Region::West).await.unwrap();
    let lost = ledger.acknowledged.into_iter().map(|order| order.id).filter(|id| !kept.contains(id));
    lost.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_old_primary_has_is_salvaged_and_the_workload_goes_home() {
    let failover = "hold_down = \"8s\"\n".to_owned();
    let agent = Some(AgentOptions { failover, ..AgentOptions::default() });
    let lab = lab_of(LabOptions { agent, ballast_mb: 20, ..LabOptions::default() }).await;
    let lost = fail_over(&lab).await;
    assert!(lost.len() >= 10, "the cut kept them on east: {lost:?}");
    for order in [&["switchover", "shop", "--to", "east"][..], &["failback", "shop"]] {
        let early = lab.lifeboat(order).await;
        assert_eq!(early.code, Some(5), "nothing follows yet: {early:?}");
    }

    let back = lab.come_back(Region::East, 12, &lost).await.unwrap();
    assert!(back.ok(), "{back:#?}\n{}", agent_log(&lab));
    assert_eq!(back.rejoin.as_deref(), Some("rewind"));
    assert!(back.salvaged_rows >= 12 + lost.len() as u64, "{back:#?}");
    println!("streaming after {} ms, {} rows kept", back.rejoin_ms.unwrap(), back.salvaged_rows);
    assert_eq!(timeline(&lab, Region::West).await, 2);

    until_calm(&lab, Region::West).await;
    let early = lab.lifeboat(&["failback", "shop"]).await;
    assert_eq!(early.code, Some(5), "{early:?}");
    assert!(early.stderr.contains("held down"), "{early:?}");
    let home = lab.move_under_load(Planned::Failback, 200).await.unwrap();
    assert!(home.ok(), "{home:#?}\n{}", agent_log(&lab));
    assert!(lab.names().shop_is_in().await == Some(Region::East));
    until_calm(&lab, Region::East).await;
    let orders = lab.orders(Region::East).await.unwrap();
    assert!(lost.iter().all(|id| !orders.contains(id)), "what was lost is in the salvage alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_rewound_is_copied_anew() {
    let lab = lab(AgentOptions::default()).await;
    fail_over(&lab).await;
    // pg_rewind needs one of two things; without the other there is now neither.
    let conf = lab.server(Region::East).data().join("lab.conf");
    let text = std::fs::read_to_string(&conf).unwrap().replace("wal_log_hints = on", "wal_log_hints = off");
    std::fs::write(&conf, text).unwrap();
    let back = lab.come_back(Region::East, 5, &HashSet::new()).await.unwrap();
    assert!(back.ok(), "{back:#?}\n{}", agent_log(&lab));
    assert_eq!(back.rejoin.as_deref(), Some("rebuild"));
    until_calm(&lab, Region::West).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_lost_in_the_middle_leaves_nothing_half_done_running() {
    let lab = lab_of(LabOptions { ballast_mb: 40, ..LabOptions::default() }).await;
    fail_over(&lab).await;
    lab.power_cycle(Region::East).await.unwrap();
    let isolated = lab.write_isolated(Region::East, 5).await.unwrap();
    let before = lab.last_sequence().await;
    let path = lab.proxy(From::Region(Region::East), To::Postgres(Region::West));
    // Slow enough that it is under way when it is lost.
    path.set(Fault::Latency(Duration::from_millis(20)));
    lab.to_region(Region::East, Fault::None);
    until_record(&lab, before, "step-started", "rejoin").await;
    let folder = Region::East.folder(lab.folder()).join("host");
    let rewinding = async || {
        let mark = std::fs::read_to_string(folder.join("orders.rejoining")).unwrap_or_default();
        mark.to_lowercase().contains("rewind")
    };
    until("it is being rewound", rewinding).await;
    path.set(Fault::Refuse);
    // As long as the source is gone nobody gets a session that writes, whatever the server does.
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        assert!(lab.write_isolated(Region::East, 1).await.is_err(), "a half-rewound server took a write");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    path.set(Fault::None);
    let stranded = until_over(&lab).await;
    if stranded {
        let again = lab.lifeboat(&["rejoin", "shop", "--region", "east"]).await;
        assert_eq!(again.code, Some(0), "{again:?}\n{}", agent_log(&lab));
    }
    until_calm(&lab, Region::West).await;
    let run = until_run(&lab, "done").await;
    println!("it came back by {}", gave(&run, "rejoin").unwrap()["rejoins"]["orders"]);
    let orders = lab.orders(Region::West).await.unwrap();
    let salvage = lab.salvaged(Region::East);
    assert!(isolated.iter().all(|id| salvage.contains(id.as_str()) && !orders.contains(id)));
    until("east has what west has", async || lab.orders(Region::East).await.is_ok_and(|o| o == orders)).await;
}

/// Waits until the newest run is done or stranded; whether it is stranded.
async fn until_over(lab: &Lab) -> bool {
    let newest = async || runs(lab).await.last().map(|run| run["state"].clone()).unwrap_or_default();
    until("the run is done or stranded", async || {
        ["done", "stranded", "failed"].map(Value::from).contains(&newest().await)
    })
    .await;
    newest().await != "done"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_yesterday_is_refused_everywhere() {
    let lab = lab(AgentOptions::default()).await;
    until_calm(&lab, Region::East).await;
    // Its state as it was before the move, in a folder of its own.
    lab.kill_agent().unwrap();
    let (state, stale) = (lab.folder().join("agent/state"), lab.folder().join("agent/yesterday"));
    std::fs::create_dir(&stale).unwrap();
    for name in ["journal.db", "journal.db-wal"] {
        std::fs::copy(state.join(name), stale.join(name)).unwrap();
    }
    lab.start_agent().await.unwrap();
    until_calm(&lab, Region::East).await;
    let moved = lab.lifeboat(&["switchover", "shop", "--to", "west"]).await;
    assert_eq!(moved.code, Some(0), "{moved:?}\n{}", agent_log(&lab));
    until_calm(&lab, Region::West).await;

    // The journal: held by the one that runs.
    let config = std::fs::read_to_string(lab.config()).unwrap();
    let held = lab.lifeboat(&["run"]).await;
    assert_eq!(held.code, Some(1), "{held:?}");
    assert!(held.stderr.contains("held by another"), "{held:?}");

    // The host: it has obeyed a newer epoch.
    let server = lab.server(Region::East).connect("lifeboat").await.unwrap();
    let system = server.query_one("SELECT system_identifier FROM pg_control_system()", &[]).await.unwrap();
    let request = json!({
        "version": 1, "workload": "shop", "database": "orders", "region": "east", "run": "shop-e0",
        "agent": "bastion", "epoch": 0, "system": system.get::<_, i64>(0), "limit_ms": 5000, "act": { "act": "stop" },
    });
    let said = ask_host(&lab, Region::East, &request.to_string()).await;
    assert!(said.contains("stale"), "{said}");

    // The database and the names: yesterday's agent, alive, with an authority of its own, does not find its primary
    // and may not order anything; the one that runs is not disturbed.
    let dns = lab.network().authority();
    let other = format!("{}:{}", dns.ip(), dns.port() + 1);
    let config = config
        .replace(&state.display().to_string(), &stale.display().to_string())
        .replace(&format!("\"{dns}\""), &format!("\"{other}\""));
    let path = lab.folder().join("yesterday.toml");
    std::fs::write(&path, config).unwrap();
    let before = (timeline(&lab, Region::West).await, lab.orders(Region::West).await.unwrap());
    let log = path.with_extension("log");
    let pid = lab.start_agent_of(&path, &log).await.unwrap();
    for order in [
        &["switchover", "shop", "--to", "west"][..],
        &["rejoin", "shop", "--region", "west"],
        &["failover", "shop", "--to", "west"],
    ] {
        let said = lab.lifeboat_of(&path, order).await;
        assert!(said.code == Some(5) || said.code == Some(1), "{order:?}: {said:?}");
    }
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert_eq!(
        (timeline(&lab, Region::West).await, lab.orders(Region::West).await.unwrap()),
        before,
        "{log}"
    );
    assert!(lab.names().shop_is_in().await == Some(Region::West));
    process::signal(&[pid], Signal::KILL).unwrap();
    until_calm(&lab, Region::West).await;
    assert_eq!(runs(&lab).await.len(), 1, "{log}");
}

/// What `lifeboat host` in a region answers to a request, as anyone who reaches that host could ask.
async fn ask_host(lab: &Lab, region: Region, request: &str) -> String {
    let host = region.folder(lab.folder()).join("host.toml");
    let mut command = tokio::process::Command::new(binary("chaos").unwrap());
    command.args(["host", "exec", "--lab"]).arg(lab.folder()).arg(region.name()).arg("--");
    command.arg(binary("lifeboat").unwrap()).args(["host", "--config"]).arg(host);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, format!("{request}\n").as_bytes()).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
