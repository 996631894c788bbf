//! The agent and the host together: a move, the return of the old primary, and the move home.

use std::time::Duration;

use lifeboat_core::outcome::{FenceProof, LogPosition};
use lifeboat_core::{AgentName, Epoch, Fault, FaultKind, RunId};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Call, Database};
use lifeboat_postgres::host::HostCommand;
use lifeboat_postgres::{Member, Options, Tls, slot_name};

use crate::servers::{PATIENCE, Pair, TOOL, as_servers_user};

fn call(epoch: u64) -> Call {
    let run = RunId::of(&"shop".into(), Epoch::new(epoch));
    Call { run, agent: AgentName::new("bastion"), epoch: Epoch::new(epoch), limit: PATIENCE }
}

/// What leads to the host of `east`.
fn way(pair: &Pair) -> HostCommand {
    let config = format!("{TOOL}={}", pair.folder.path().join("host.toml").display());
    let tool = as_servers_user(&pair.folder.path().join("tool"));
    let words = std::iter::once(tool.get_program()).chain(tool.get_args());
    let mut argv = vec!["env".to_owned(), config];
    argv.extend(words.map(|word| word.to_str().unwrap().to_owned()));
    argv.extend(["--exact", "tool", "--nocapture"].map(str::to_owned));
    HostCommand { argv, timeout: PATIENCE }
}

fn member(pair: &Pair, region: &'static str) -> Member {
    let options = Options {
        workload: "shop".into(),
        database: "orders".into(),
        region: region.into(),
        host: "127.0.0.1".to_owned(),
        port: pair.port(region),
        dbname: "postgres".to_owned(),
        user: "postgres".to_owned(),
        password_file: None,
        tls: Tls::Off,
        heartbeat: true,
        system: None,
        fence: None,
        replication: None,
        host_command: (region == "east").then(|| way(pair)),
        slots: vec![slot_name(&"east".into()), slot_name(&"west".into())],
    };
    Member::new(options, Clock::start())
}

/// Closes `from`, and moves to `to`.
async fn switch(from: &Member, to: &Member, epoch: u64) -> LogPosition {
    let mark = from.mark(&call(epoch)).await.unwrap();
    to.fit(&call(epoch), mark.system).await.unwrap();
    to.catch_up(&call(epoch), &mark).await.unwrap();
    let proof = from.ensure_closed(&call(epoch)).await.unwrap();
    let end = proof.end().unwrap().clone();
    to.catch_up(&call(epoch), &end).await.unwrap();
    to.ensure_promoted(&call(epoch), mark.system).await.unwrap();
    to.ensure_writable(&call(epoch)).await.unwrap();
    end
}

fn assert_stale<T: std::fmt::Debug>(result: Result<T, Fault>) {
    let fault = result.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Stale, "{fault}");
}

#[tokio::test]
async fn an_old_primary_is_salvaged_follows_and_takes_over_again() {
    let pair = Pair::start();
    let (east, west) = (member(&pair, "east"), member(&pair, "west"));
    pair.sql("east", "CREATE TABLE told AS SELECT 1 AS id");
    switch(&east, &west, 8).await;
    pair.sql("west", "INSERT INTO told VALUES (2)");
    let source = west.offer(&call(8), &"east".into()).await.unwrap();
    let kept = east.salvage(&call(8), &source).await.unwrap();
    assert_eq!(kept.rows, 0, "{kept:?}");
    let first = east.ensure_rejoined(&call(8), &source).await.unwrap();
    assert!(!first.already);
    assert!(east.ensure_rejoined(&call(8), &source).await.unwrap().already);
    // An older run comes late.
    assert_stale(east.salvage(&call(7), &source).await);
    assert_stale(east.ensure_rejoined(&call(7), &source).await);
    assert!(pair.streams("east"));
    // It follows, and the slot of the other is gone from it.
    let mark = west.mark(&call(8)).await.unwrap();
    assert!(east.catch_up(&call(8), &mark).await.unwrap().reaches(&mark));
    assert_eq!(pair.sql("east", "SELECT count(*) FROM pg_replication_slots"), "0");
    let end = switch(&west, &east, 9).await;
    assert_eq!(end.timeline.get(), 2);
    assert_eq!(pair.sql("east", "SELECT string_agg(id::text, ' ' ORDER BY id) FROM told"), "1 2");
    assert_stale(east.ensure_open(&call(8)).await);
}

#[tokio::test]
async fn a_primary_that_is_down_is_closed_by_the_word_of_its_host() {
    let pair = Pair::start();
    let east = member(&pair, "east");
    east.mark(&call(8)).await.unwrap();
    pair.ctl_stop("east", "fast");
    // One that has never met the server does not know which cluster the host should stop.
    let fault = east.ensure_closed(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
    assert!(fault.detail.contains("which cluster"), "{fault}");
    let pinned = Options { system: Some(pair.system()), ..east.options().clone() };
    let east = Member::new(pinned.clone(), Clock::start());
    for _ in 0..2 {
        assert_eq!(east.ensure_closed(&call(8)).await.unwrap(), FenceProof::Stopped);
    }
    assert_stale(east.ensure_closed(&call(7)).await);
    // No way there is no proof.
    let east = Member::new(Options { host_command: None, ..pinned.clone() }, Clock::start());
    assert_eq!(east.ensure_closed(&call(8)).await.unwrap_err().kind, FaultKind::Unreachable);
    let silent = HostCommand {
        argv: ["sh", "-c", "exit 0"].map(str::to_owned).to_vec(),
        timeout: Duration::from_secs(10),
    };
    let east = Member::new(Options { host_command: Some(silent), ..pinned }, Clock::start());
    assert_eq!(east.ensure_closed(&call(8)).await.unwrap_err().kind, FaultKind::Unclear);
}
