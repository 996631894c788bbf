//! Fencing: what gets past it, and what it says when it cannot be proven.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lifeboat_core::outcome::FenceProof;
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{FaultKind, SystemIdentifier};
use lifeboat_engine::ports::{Database, Probe, Role};
use lifeboat_postgres::{FenceCommand, Member, Options};

use crate::pair::{Pair, Server, Single, ask, call, member, until};

fn with_command(server: &Server, line: &str) -> Member {
    let argv = ["sh", "-c", line, "isolate", "{region}", "{epoch}"].map(str::to_owned).to_vec();
    let fence = Some(FenceCommand { argv, timeout: Duration::from_secs(10) });
    member(Options { fence, ..server.options() })
}

fn refused(proof: FenceProof) -> u64 {
    match proof {
        FenceProof::WriteRefused { sqlstate, sessions_ended } => {
            assert_eq!(sqlstate, "25006");
            sessions_ended
        }
        proof @ FenceProof::Isolated { .. } => panic!("{proof:?}"),
    }
}

fn isolated(proof: FenceProof) -> String {
    match proof {
        FenceProof::Isolated { command, session } => {
            assert_eq!(command[4..], ["east", "8"]);
            session
        }
        proof @ FenceProof::WriteRefused { .. } => panic!("{proof:?}"),
    }
}

#[tokio::test]
async fn sessions_that_were_open_and_new_ones_cannot_write_and_the_standby_drains() {
    let pair = Pair::start().await;
    let east = pair.east.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    let pooled = pair.east.connect("app").await.unwrap();
    let stubborn = pair.east.connect("app").await.unwrap();
    stubborn.batch_execute("BEGIN READ WRITE; INSERT INTO orders DEFAULT VALUES").await.unwrap();

    let ended = refused(east.ensure_fenced(&call(8)).await.unwrap());
    assert!(ended >= 2, "{ended}");
    pooled.execute("INSERT INTO orders DEFAULT VALUES", &[]).await.unwrap_err();
    stubborn.batch_execute("COMMIT").await.unwrap_err();
    for options in ["", "-c default_transaction_read_only=off", "-c session_preload_libraries="] {
        pair.east.connect_with("app", options).await.expect_err("no client gets in");
    }
    pair.east.connect("postgres").await.expect_err("nor does a superuser who does not mean it");
    assert_eq!(pair.east.value("SELECT count(*) FROM orders").await, "0");

    // Repeated, it is proven again; by an agent that was not there as well.
    refused(east.ensure_fenced(&call(8)).await.unwrap());
    refused(pair.east.member().ensure_fenced(&call(8)).await.unwrap());
    let found = east.look(&ask(Role::Primary, 2)).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::CannotCommit, "{found}");

    // The standby has all of it, and none of the fence.
    let end = pair.east.value("SELECT pg_current_wal_lsn()").await;
    let drained = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
    until("the standby has drained", async || pair.west.value(&drained).await == "true").await;
    let west = pair.west.member();
    let target = west.measure(&call(8)).await.unwrap();
    west.ensure_promoted(&call(8), target.system).await.unwrap();
    west.ensure_writable(&call(8)).await.unwrap();
    pair.west.connect("app").await.unwrap().execute("INSERT INTO orders DEFAULT VALUES", &[]).await.unwrap();
}

#[tokio::test]
async fn the_fence_outlives_a_restart_and_a_person_can_lift_it() {
    let mut single = Single::start().await;
    refused(single.server.member().ensure_fenced(&call(8)).await.unwrap());
    single.server.stop();
    let restarted = single.server.restart();
    // Nobody gets in to see that it is ready, except past the fence.
    tokio::time::timeout(Duration::from_secs(2), restarted).await.expect_err("it should be fenced");
    until("it is back", async || {
        single.server.connect_with("postgres", "-c session_preload_libraries=").await.is_ok()
    })
    .await;
    single.server.connect("app").await.expect_err("still fenced");
    let person = single.server.client().await;
    for lift in ["session_preload_libraries", "default_transaction_read_only"] {
        person.execute(&format!("ALTER SYSTEM RESET {lift}"), &[]).await.unwrap();
    }
    person.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
    until("clients get in", async || single.server.connect("app").await.is_ok()).await;
    let app = single.server.connect("app").await.unwrap();
    app.execute("INSERT INTO orders DEFAULT VALUES", &[]).await.unwrap();
}

/// Clients that come back as fast as they can and ask for a writable transaction by name.
#[tokio::test]
async fn clients_that_storm_the_server_write_nothing_after_the_proof() {
    let single = Single::start().await;
    let east = single.server.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    let (stop, attempts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let port = single.server.port;
    let storm: Vec<_> = (0..8)
        .map(|_| {
            let (stop, attempts) = (Arc::clone(&stop), Arc::clone(&attempts));
            tokio::spawn(async move {
                let write = "BEGIN READ WRITE; INSERT INTO orders DEFAULT VALUES; COMMIT";
                while !stop.load(Ordering::SeqCst) {
                    attempts.fetch_add(1, Ordering::SeqCst);
                    let mut config = tokio_postgres::Config::new();
                    config.host("127.0.0.1").port(port).user("app").dbname("postgres");
                    let Ok((client, connection)) = config.connect(tokio_postgres::NoTls).await else {
                        continue;
                    };
                    tokio::spawn(connection);
                    while client.batch_execute(write).await.is_ok() {}
                }
            })
        })
        .collect();
    until("they write", async || single.server.value("SELECT count(*) > 50 FROM orders").await == "true")
        .await;
    refused(east.ensure_fenced(&call(8)).await.unwrap());
    let proven = single.server.value("SELECT count(*) FROM orders").await;
    let so_far = attempts.load(Ordering::SeqCst);
    until("they have tried again", async || attempts.load(Ordering::SeqCst) > so_far + 100).await;
    assert_eq!(single.server.value("SELECT count(*) FROM orders").await, proven);
    stop.store(true, Ordering::SeqCst);
    for client in storm {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_role_with_the_documented_grants_can_fence() {
    let single = Single::start().await;
    let grants = "CREATE ROLE lb LOGIN; GRANT pg_monitor, pg_signal_backend TO lb;
        GRANT CREATE ON DATABASE postgres TO lb; GRANT EXECUTE ON FUNCTION pg_reload_conf, pg_promote TO lb;
        GRANT SET, ALTER SYSTEM ON PARAMETER default_transaction_read_only, session_preload_libraries TO lb";
    single.server.client().await.batch_execute(grants).await.unwrap();
    let member = member(Options { user: "lb".to_owned(), ..single.server.options() });
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    let _pooled = single.server.connect("app").await.unwrap();
    refused(member.ensure_fenced(&call(8)).await.unwrap());
    refused(member.ensure_fenced(&call(8)).await.unwrap());
}

#[tokio::test]
async fn a_newer_epoch_and_another_cluster_are_left_alone() {
    let single = Single::start().await;
    single.server.member().ensure_writable(&call(9)).await.unwrap();
    let mark = single.folder().join("mark");
    let command = format!("touch {}", mark.display());
    let fault = with_command(&single.server, &command).ensure_fenced(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Stale, "{fault}");
    let mut options = with_command(&single.server, &command).options().clone();
    options.system = Some(SystemIdentifier::new(4711));
    let fault = member(options).ensure_fenced(&call(9)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert!(!mark.exists(), "nor is the region isolated");
    single
        .server
        .connect("app")
        .await
        .unwrap()
        .execute("INSERT INTO orders DEFAULT VALUES", &[])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_standby_is_proven_to_refuse_writes_and_not_touched() {
    let pair = Pair::start().await;
    assert_eq!(refused(pair.west.member().ensure_fenced(&call(8)).await.unwrap()), 0);
    pair.west.connect("app").await.unwrap();
}

#[tokio::test]
async fn a_loophole_is_not_a_fence() {
    let single = Single::start().await;
    let hole = "ALTER ROLE app SET session_preload_libraries = ''";
    single.server.client().await.execute(hole, &[]).await.unwrap();
    let fault = single.server.member().ensure_fenced(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert!(fault.detail.contains("session_preload_libraries of role app, database any"), "{fault}");
    // A command that says done while the server goes on committing is not believed.
    let fault = with_command(&single.server, "true").ensure_fenced(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert!(fault.detail.contains("may still write"), "{fault}");
    // One that does it, is.
    let line = single.server.kill_line();
    let session = isolated(with_command(&single.server, &line).ensure_fenced(&call(8)).await.unwrap());
    assert!(session.contains("no session was open before"), "{session}");
}

#[tokio::test]
async fn a_dead_server_without_a_command_cannot_be_proven_fenced() {
    let mut single = Single::start().await;
    let east = single.server.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    single.server.kill();
    let begun = Instant::now();
    let fault = east.ensure_fenced(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_dead_server_is_isolated_by_the_command_in_no_time() {
    let mut single = Single::start().await;
    let east = with_command(&single.server, "test \"$1-$2\" = east-8");
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    single.server.kill();
    let begun = Instant::now();
    let session = isolated(east.ensure_fenced(&call(8)).await.unwrap());
    let took = begun.elapsed();
    // 5 to 15 ms on two idle cores; the bar is 100, the rest is for a busy machine.
    assert!(took < Duration::from_millis(400), "{took:?}");
    assert!(
        session.contains("the session opened before is closed") || session.contains("no session"),
        "{session}"
    );
    assert!(session.contains("a new session is closed"), "{session}");
}

#[tokio::test]
async fn a_command_that_fails_or_hangs_proves_nothing() {
    let mut single = Single::start().await;
    single.server.kill();
    let fault =
        with_command(&single.server, "echo no >&2; exit 4").ensure_fenced(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert!(fault.detail.contains("exit code 4: no"), "{fault}");
    let mut call = call(8);
    call.limit = Duration::from_secs(2);
    let fault = with_command(&single.server, "exec sleep 600").ensure_fenced(&call).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
}

#[tokio::test]
async fn a_frozen_server_costs_a_second_and_its_silence_is_said() {
    let single = Single::start().await;
    let east = with_command(&single.server, "true");
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    single.server.freeze();
    let begun = Instant::now();
    let session = isolated(east.ensure_fenced(&call(8)).await.unwrap());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(
        session.contains("the session opened before gets nowhere: no answer within 1000 ms"),
        "{session}"
    );
    // And one that is killed meanwhile.
    let line = single.server.kill_line();
    let session = isolated(with_command(&single.server, &line).ensure_fenced(&call(8)).await.unwrap());
    assert!(session.contains("a new session is closed"), "{session}");
}

#[tokio::test]
async fn a_hanging_commit_does_not_keep_the_fence_from_being_proven() {
    let single = Single::start().await;
    let east = single.server.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    single.server.set("synchronous_standby_names", "'nobody'").await;
    let mut impatient = ask(Role::Primary, 2);
    impatient.limit = Duration::from_millis(900);
    assert_eq!(east.look(&impatient).await.unwrap_err().kind, FailureKind::CommitSilent);
    assert!(refused(east.ensure_fenced(&call(8)).await.unwrap()) >= 1);
}
