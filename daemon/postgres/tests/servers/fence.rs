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
        other => panic!("{other:?}"),
    }
}

fn isolated(proof: FenceProof) -> String {
    match proof {
        FenceProof::Isolated { command, session } => {
            assert_eq!(command[4..], ["east", "8"]);
            session
        }
        other => panic!("{other:?}"),
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
    assert_eq!(found.kind, FailureKind::WrongRole, "{found}");
    assert!(found.detail.contains("fenced by lifeboat"), "{found}");
    let found = pair.east.member().look(&ask(Role::Primary, 2)).await.unwrap_err();
    assert!(found.detail.contains("fenced by lifeboat"), "nor to one who was not there: {found}");

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
async fn a_standby_at_the_old_primarys_address_proves_nothing_and_is_not_touched() {
    let pair = Pair::start().await;
    let fault = pair.west.member().ensure_fenced(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
    assert!(fault.detail.contains("not the old primary"), "{fault}");
    pair.west.connect("app").await.unwrap();
    // The command is run, and an answer from there refutes it.
    let fault = with_command(&pair.west, "exit 0").ensure_fenced(&call(8)).await.unwrap_err();
    assert!(fault.detail.contains("the isolate command said done"), "{fault}");
}

/// Every slot is taken: the server says so to whoever comes, and goes on committing for those who are in.
#[tokio::test]
async fn a_full_server_is_not_isolated_because_it_turns_us_away() {
    let single = Single::start().await;
    let mut inside = Vec::new();
    until("it is full", async || match single.server.connect("postgres").await {
        Ok(client) => {
            inside.push(client);
            false
        }
        Err(error) => error.code().is_some_and(|state| state.code() == "53300"),
    })
    .await;
    let fault = with_command(&single.server, "exit 0").ensure_fenced(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
    assert!(fault.detail.contains("said done, but a new session got an answer"), "{fault}");
    assert!(fault.detail.contains("53300"), "{fault}");
    inside[0].execute("INSERT INTO orders DEFAULT VALUES", &[]).await.unwrap();
}

/// A read only default that is there, by our own half-done fence or otherwise, refuses the check and nobody else.
#[tokio::test]
async fn read_only_by_default_is_not_isolated() {
    let single = Single::start().await;
    let hole = "ALTER ROLE app SET session_preload_libraries = 'plpgsql'";
    single.server.client().await.execute(hole, &[]).await.unwrap();
    single.server.set("default_transaction_read_only", "on").await;
    let east = with_command(&single.server, "exit 0");
    for look in [false, true] {
        if look {
            east.look(&ask(Role::Primary, 1)).await.unwrap_err();
        }
        let fault = east.ensure_fenced(&call(8)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
        assert!(fault.detail.contains("said done, but"), "{fault}");
    }
    let app = single.server.connect("app").await.unwrap();
    app.batch_execute("BEGIN READ WRITE; INSERT INTO orders DEFAULT VALUES; COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_fence_that_cannot_be_finished_is_not_begun() {
    let single = Single::start().await;
    let grants =
        "CREATE ROLE lb LOGIN; GRANT pg_monitor TO lb; GRANT EXECUTE ON FUNCTION pg_reload_conf TO lb;
        GRANT CREATE ON DATABASE postgres TO lb;
        GRANT SET, ALTER SYSTEM ON PARAMETER default_transaction_read_only, session_preload_libraries TO lb";
    let person = single.server.client().await;
    person.batch_execute(grants).await.unwrap();
    let lb = member(Options { user: "lb".to_owned(), ..single.server.options() });
    let untouched = async |what: &str| {
        let fault = lb.ensure_fenced(&call(8)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
        assert!(fault.detail.contains(what), "{fault}");
        let app = single.server.connect("app").await.unwrap();
        app.execute("INSERT INTO orders DEFAULT VALUES", &[]).await.unwrap();
        app
    };
    let app = untouched("of role postgres").await;
    person.batch_execute("GRANT pg_signal_backend TO lb").await.unwrap();
    drop(app);
    untouched("of role postgres").await;
    person.batch_execute("REVOKE pg_monitor FROM lb; GRANT pg_read_all_settings TO lb").await.unwrap();
    drop(person);
    // It sees a session's kind no longer, and would have thought that there is none.
    untouched("pg_monitor").await;
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
    assert!(session.starts_with("did not exist, for none was open; "), "{session}");
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
    assert!(session.starts_with("is closed") || session.starts_with("did not exist"), "{session}");
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
    assert!(session.starts_with("gets nowhere: no answer within 1000 ms"), "{session}");
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
