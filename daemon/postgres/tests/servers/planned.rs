//! Planned moves: nothing is lost, and what cannot be finished can be undone.

use std::time::Duration;

use lifeboat_core::outcome::{FenceProof, LogPosition};
use lifeboat_core::{Epoch, Fault, FaultKind, Lsn, Source, SystemIdentifier, Timeline};
use lifeboat_engine::ports::{Call, Database, Probe, Role};
use lifeboat_postgres::{Member, Options};

use crate::load::{Load, rows};
use crate::pair::{Pair, Server, Single, ask, call, member, until};

async fn system_of(server: &Server) -> SystemIdentifier {
    let system = server.value("SELECT system_identifier FROM pg_control_system()").await;
    SystemIdentifier::new(system.parse().unwrap())
}

fn closed(proof: FenceProof) -> LogPosition {
    match proof {
        FenceProof::Closed { sqlstate, end, .. } => {
            assert_eq!(sqlstate, "25006");
            end
        }
        other => panic!("{other:?}"),
    }
}

fn brief(epoch: u64) -> Call {
    Call { limit: Duration::from_millis(400), ..call(epoch) }
}

async fn insert(server: &Server) {
    server.connect("app").await.unwrap().execute("INSERT INTO orders DEFAULT VALUES", &[]).await.unwrap();
}

fn assert_refused<T: std::fmt::Debug>(result: Result<T, Fault>, why: &str) {
    let fault = result.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert!(fault.detail.contains(why), "{fault}");
    assert!(fault.region.is_some(), "{fault}");
}

/// The whole path under load; every call is repeated, as a run would that goes on after a crash.
async fn switch_over(settings: &str) {
    let pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    let system = system_of(&pair.east).await;
    let load = Load::start(&pair.east, 6, settings).await;
    for _ in 0..2 {
        west.fit(&call(8), system).await.unwrap();
        let mark = east.mark(&call(8)).await.unwrap();
        assert!(west.catch_up(&call(8), &mark).await.unwrap().reaches(&mark));
        east.drain(&call(8)).await.unwrap();
    }
    let end = closed(east.ensure_closed(&call(8)).await.unwrap());
    let told = load.end().await;
    let again = closed(east.ensure_closed(&call(8)).await.unwrap());
    assert!(again.reaches(&end));
    for goal in [&end, &again] {
        assert!(west.catch_up(&call(8), goal).await.unwrap().reaches(goal));
    }
    let promotion = west.ensure_promoted(&call(8), system).await.unwrap();
    west.ensure_writable(&call(8)).await.unwrap();
    let began = west.catch_up(&call(8), &again).await.unwrap();
    assert_eq!((began.timeline, Some(began.lsn)), (promotion.timeline, promotion.switched_at));
    west.fit(&call(8), system).await.unwrap();
    let there = rows(&pair.west).await;
    let lost: Vec<_> = told.difference(&there).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged rows are lost", lost.len(), told.len());
    insert(&pair.west).await;
}

#[tokio::test]
async fn a_switchover_under_load_loses_nothing() {
    switch_over("").await;
}

/// Acknowledged before it is on any disk: still on the standby.
#[tokio::test]
async fn a_switchover_loses_no_row_of_an_asynchronous_commit() {
    switch_over("-c synchronous_commit=off").await;
}

#[tokio::test]
async fn what_was_closed_is_open_again_and_clients_write() {
    let pair = Pair::start().await;
    let east = pair.east.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    let load = Load::start(&pair.east, 2, "").await;
    closed(east.ensure_closed(&call(8)).await.unwrap());
    pair.east.connect("app").await.expect_err("it is closed");
    let told = load.end().await;
    for _ in 0..2 {
        east.ensure_open(&call(8)).await.unwrap();
        insert(&pair.east).await;
    }
    assert!(told.is_subset(&rows(&pair.east).await));
    // By one who was not there, too.
    closed(pair.east.member().ensure_closed(&call(9)).await.unwrap());
    pair.east.member().ensure_open(&call(9)).await.unwrap();
    insert(&pair.east).await;
    east.look(&ask(Role::Primary, 2)).await.unwrap_err();
    let left = "SELECT string_agg(name, ' ') FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'";
    assert_eq!(pair.east.value(left).await, "lifeboat.fence_epoch");
    // Nothing of it is left for a planned move that comes after.
    closed(east.ensure_closed(&call(10)).await.unwrap());
    east.ensure_open(&call(10)).await.unwrap();
}

/// A fence that was begun and not read yet would be, at the next reload.
#[tokio::test]
async fn a_fence_that_lies_in_wait_is_taken_back() {
    let single = Single::start().await;
    let lock = "ALTER SYSTEM SET session_preload_libraries = 'fenced_by_lifeboat'";
    single.server.client().await.execute(lock, &[]).await.unwrap();
    single.server.member().ensure_open(&call(8)).await.unwrap();
    single.server.client().await.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
    let left = "SELECT count(*) FROM pg_file_settings WHERE name = 'session_preload_libraries'";
    assert_eq!(single.server.value(left).await, "0");
    insert(&single.server).await;
}

#[tokio::test]
async fn a_standby_is_neither_closed_nor_opened_marked_nor_offered() {
    let pair = Pair::start().await;
    let west = pair.west.member();
    assert_refused(west.ensure_closed(&call(8)).await, "in recovery");
    assert_refused(west.ensure_open(&call(8)).await, "in recovery");
    assert_refused(west.mark(&call(8)).await, "in recovery");
    assert_refused(west.drain(&call(8)).await, "in recovery");
    assert_refused(west.offer(&call(8), &"east".into()).await, "in recovery");
    pair.west.connect("app").await.unwrap();
    // And the primary is no target.
    let system = system_of(&pair.east).await;
    assert_refused(pair.east.member().fit(&call(8), system).await, "a primary already");
    let goal = LogPosition { system, timeline: Timeline::new(1), lsn: Lsn::new(1) };
    assert_refused(pair.east.member().catch_up(&call(8), &goal).await, "a primary already");
}

#[tokio::test]
async fn a_standby_that_cannot_catch_up_says_how_many_bytes_are_missing_and_the_move_is_undone() {
    let pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    pair.west.client().await.execute("SELECT pg_wal_replay_pause()", &[]).await.unwrap();
    let paused = async || pair.west.value("SELECT pg_get_wal_replay_pause_state()").await == "paused";
    until("replay has stopped", paused).await;
    insert(&pair.east).await;
    let end = closed(east.ensure_closed(&call(8)).await.unwrap());
    let fault = west.catch_up(&brief(8), &end).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
    assert!(fault.detail.contains(" bytes are missing: it streams") && !fault.detail.starts_with("0 "));
    assert!(fault.detail.contains("RecoveryPause"), "{fault}");
    east.ensure_open(&call(8)).await.unwrap();
    insert(&pair.east).await;
    pair.west.client().await.execute("SELECT pg_wal_replay_resume()", &[]).await.unwrap();
    assert!(west.catch_up(&call(8), &end).await.unwrap().reaches(&end));
}

#[tokio::test]
async fn a_standby_that_was_cut_off_does_not_catch_up() {
    let pair = Pair::start().await;
    pair.west.set("primary_conninfo", "'host=127.0.0.1 port=1'").await;
    let streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    until("it is cut off", async || pair.west.value(streams).await == "0").await;
    let mark = pair.east.member().mark(&call(8)).await.unwrap();
    let fault = pair.west.member().catch_up(&brief(8), &mark).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
    assert!(fault.detail.contains("it does not stream"), "{fault}");
    let stranger = LogPosition { system: SystemIdentifier::new(4711), ..mark };
    assert_refused(pair.west.member().catch_up(&call(8), &stranger).await, "not 4711");
    assert_refused(pair.west.member().fit(&call(8), stranger.system).await, "not 4711");
}

#[tokio::test]
async fn one_that_was_promoted_before_the_goal_is_refused() {
    let pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    let mark = east.mark(&call(8)).await.unwrap();
    west.catch_up(&call(8), &mark).await.unwrap();
    west.ensure_promoted(&call(8), mark.system).await.unwrap();
    let later = east.mark(&call(8)).await.unwrap();
    assert_refused(west.catch_up(&call(8), &later).await, "bytes before the goal");
    assert!(west.catch_up(&call(8), &mark).await.unwrap().reaches(&mark));
    assert_refused(west.catch_up(&call(9), &mark).await, "not by this run");
}

#[tokio::test]
async fn a_prepared_transaction_is_a_reason_not_to_close() {
    let mut single = Single::start().await;
    single.server.put("postgresql.auto.conf", "max_prepared_transactions = 4\n");
    single.server.stop();
    single.server.restart().await;
    let app = single.server.connect("app").await.unwrap();
    app.batch_execute("BEGIN; INSERT INTO orders DEFAULT VALUES; PREPARE TRANSACTION 'p1'").await.unwrap();
    let east = single.server.member();
    assert_refused(east.ensure_closed(&call(8)).await, "1 prepared transactions (the first is p1)");
    app.batch_execute("SELECT 1").await.expect("it is still open, and so is its session");
    // One that has returned is closed all the same: open, it is a second primary.
    closed(east.ensure_shut_out(&call(8)).await.unwrap());
    east.ensure_open(&call(8)).await.unwrap();
    let app = single.server.connect("app").await.unwrap();
    app.batch_execute("COMMIT PREPARED 'p1'").await.unwrap();
    closed(east.ensure_closed(&call(8)).await.unwrap());
}

#[tokio::test]
async fn a_setting_of_the_operators_own_is_not_overwritten() {
    let single = Single::start().await;
    single.server.set("default_transaction_read_only", "off").await;
    let east = single.server.member();
    assert_refused(east.ensure_closed(&call(8)).await, "default_transaction_read_only was set with ALTER");
    insert(&single.server).await;
    let foreign = Single::start().await;
    foreign.server.set("default_transaction_read_only", "off").await;
    closed(foreign.server.member().ensure_shut_out(&call(8)).await.unwrap());
    let person = single.server.client().await;
    person.execute("ALTER SYSTEM RESET default_transaction_read_only", &[]).await.unwrap();
    person.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
    until("it is taken back", async || east.ensure_closed(&call(8)).await.is_ok()).await;
    east.ensure_open(&call(8)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_somebody_else_made_read_only_is_not_said_to_be_open() {
    let single = Single::start().await;
    single.server.set("default_transaction_read_only", "on").await;
    assert_refused(single.server.member().ensure_open(&call(8)).await, "25006");
    assert_eq!(single.server.value("SELECT current_setting('default_transaction_read_only')").await, "on");
}

#[tokio::test]
async fn a_primary_is_offered_with_its_history_and_a_slot_once() {
    let pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    let first = east.offer(&call(8), &"eu-West.1".into()).await.unwrap();
    assert_eq!((first.slot.as_str(), first.lineage.len(), first.port), ("eu_west_1", 0, pair.east.port));
    let mark = east.mark(&call(8)).await.unwrap();
    west.catch_up(&call(8), &mark).await.unwrap();
    let promotion = west.ensure_promoted(&call(8), mark.system).await.unwrap();
    let replication = Some(("db-west.example".to_owned(), 6432));
    let west = member(Options { replication, ..pair.west.options() });
    for _ in 0..2 {
        let source = west.offer(&call(8), &"east".into()).await.unwrap();
        assert_eq!((source.host.as_str(), source.port), ("db-west.example", 6432));
        assert_eq!((source.system, source.timeline.get()), (mark.system, 2));
        assert_eq!(source.shared_until(Timeline::new(1)), promotion.switched_at);
        assert_eq!(source.slot, "east");
    }
    assert_eq!(pair.west.value("SELECT timeline_id FROM pg_control_checkpoint()").await, "2");
    let slots =
        "SELECT string_agg(slot_name || ' ' || (restart_lsn IS NOT NULL), ',') FROM pg_replication_slots";
    assert_eq!(pair.west.value(slots).await, "east true");
    // A promoted server that was restarted knows from its history where it began.
    let mut pair = pair;
    west.ensure_writable(&call(8)).await.unwrap();
    pair.west.stop();
    pair.west.restart().await;
    let began = pair.west.member().catch_up(&call(8), &mark).await.unwrap();
    assert_eq!(Some(began.lsn), promotion.switched_at);
}

#[tokio::test]
async fn a_query_gives_its_first_column_as_text_and_is_bounded() {
    let single = Single::start().await;
    let east = single.server.member();
    let said = async |sql: &str| east.query(&call(8), sql).await;
    assert_eq!(said("SELECT 1.50, 2 UNION ALL SELECT 3, 4").await.unwrap().as_deref(), Some("1.50"));
    assert_eq!(said("SELECT NULL").await.unwrap(), None);
    assert_eq!(said("INSERT INTO orders DEFAULT VALUES").await.unwrap(), None);
    assert_eq!(said("SELECT repeat('x', 5000)").await.unwrap().map(|text| text.len()), Some(1000));
    assert_refused(said("SELECT 1/0").await, "22012");
    let fault = east.query(&brief(8), "SELECT pg_sleep(600)").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(6%' AND state = 'active'
        AND pid <> pg_backend_pid()";
    until("it is stopped there, too", async || single.server.value(sleeping).await == "0").await;
    assert_eq!(single.server.value("SELECT count(*) FROM orders").await, "1");
}

/// The session we act over is ended by somebody: the next call finds out and finishes.
#[tokio::test]
async fn a_session_that_is_killed_in_the_middle_leaves_a_call_that_can_be_repeated() {
    let single = Single::start().await;
    let east = single.server.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    let load = Load::start(&single.server, 2, "").await;
    let assassin = single.server.client().await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lifeboat'";
    let order = call(8);
    let (closing, _) = futures::join!(east.ensure_closed(&order), assassin.execute(end, &[]));
    if let Err(fault) = closing {
        assert_ne!(fault.kind, FaultKind::Stale, "{fault}");
    }
    closed(east.ensure_closed(&call(8)).await.unwrap());
    let told = load.end().await;
    east.ensure_open(&call(8)).await.unwrap();
    assert!(told.is_subset(&rows(&single.server).await));
}

fn source(system: SystemIdentifier, epoch_of: &Pair) -> Source {
    Source {
        region: "west".into(),
        host: "127.0.0.1".to_owned(),
        port: epoch_of.west.port,
        system,
        timeline: Timeline::new(1),
        lineage: Vec::new(),
        slot: "east".to_owned(),
    }
}

#[tokio::test]
async fn a_host_is_asked_only_where_there_is_a_way_to_it() {
    let pair = Pair::start().await;
    let east = pair.east.member();
    let source = source(system_of(&pair.east).await, &pair);
    assert_refused(east.salvage(&call(8), &source).await, "no command for its host");
    assert_refused(east.ensure_rejoined(&call(8), &source).await, "no command for its host");
}

async fn assert_stale(member: &Member, epoch: u64, pair: &Pair) {
    let system = system_of(&pair.east).await;
    let goal = LogPosition { system, timeline: Timeline::new(1), lsn: Lsn::new(1) };
    let call = call(epoch);
    let faults = [
        ("mark", member.mark(&call).await.err()),
        ("fit", member.fit(&call, system).await.err()),
        ("catch_up", member.catch_up(&call, &goal).await.err()),
        ("drain", member.drain(&call).await.err()),
        ("ensure_closed", member.ensure_closed(&call).await.err()),
        ("ensure_open", member.ensure_open(&call).await.err()),
        ("ensure_promoted", member.ensure_promoted(&call, system).await.err()),
        ("offer", member.offer(&call, &"north".into()).await.err()),
        ("query", member.query(&call, "DROP TABLE orders").await.err()),
    ];
    for (what, fault) in faults {
        let fault = fault.unwrap_or_else(|| panic!("{what} was done for an older epoch"));
        assert_eq!(fault.kind, FaultKind::Stale, "{what}: {fault}");
    }
}

#[tokio::test]
async fn an_older_epoch_is_refused_by_every_call() {
    let pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    let mark = east.mark(&call(9)).await.unwrap();
    west.catch_up(&call(9), &mark).await.unwrap();
    assert_stale(&east, 8, &pair).await;
    assert_stale(&west, 8, &pair).await;
    insert(&pair.east).await;
    assert_eq!(pair.west.value("SELECT pg_is_in_recovery()").await, "true");
    assert_eq!(pair.east.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    assert_eq!(pair.east.value("SELECT epoch FROM lifeboat.heartbeat").await, Epoch::new(9).to_string());
}

/// A fence that was made in a failover, where no heartbeat of its epoch could be committed.
#[tokio::test]
async fn a_fence_of_a_newer_epoch_is_not_lifted_or_made_anew_by_an_older_one() {
    let single = Single::start().await;
    let east = single.server.member();
    east.look(&ask(Role::Primary, 1)).await.unwrap();
    east.ensure_fenced(&call(9)).await.unwrap();
    assert_eq!(single.server.value("SELECT max(epoch) FROM lifeboat.heartbeat").await, "7");
    for member in [&east, &single.server.member()] {
        for fault in [
            member.ensure_open(&call(8)).await.err(),
            member.ensure_closed(&call(8)).await.err(),
            member.ensure_fenced(&call(8)).await.err(),
        ] {
            assert_eq!(fault.unwrap().kind, FaultKind::Stale);
        }
    }
    single.server.connect("app").await.expect_err("it is fenced still");
    east.ensure_open(&call(9)).await.unwrap();
    insert(&single.server).await;
}

/// No superuser: the grants that `Options::user` names are enough for a whole planned move.
#[tokio::test]
async fn a_role_with_the_documented_grants_can_move() {
    let pair = Pair::start().await;
    let grants = "CREATE ROLE lb LOGIN REPLICATION; GRANT pg_monitor, pg_signal_backend, pg_checkpoint TO lb;
        GRANT CREATE ON DATABASE postgres TO lb;
        GRANT EXECUTE ON FUNCTION pg_reload_conf, pg_promote, pg_read_file(text) TO lb;
        GRANT SET, ALTER SYSTEM ON PARAMETER default_transaction_read_only, session_preload_libraries TO lb;
        GRANT ALTER SYSTEM ON PARAMETER \"lifeboat.fence_epoch\" TO lb";
    pair.east.client().await.batch_execute(grants).await.unwrap();
    let as_lb = |server: &Server| member(Options { user: "lb".to_owned(), ..server.options() });
    let (east, west) = (as_lb(&pair.east), as_lb(&pair.west));
    until("its grants are replayed", async || pair.west.connect("lb").await.is_ok()).await;
    let mark = east.mark(&call(8)).await.unwrap();
    west.catch_up(&call(8), &mark).await.unwrap();
    west.fit(&call(8), mark.system).await.unwrap();
    east.drain(&call(8)).await.unwrap();
    closed(east.ensure_closed(&call(8)).await.unwrap());
    assert_eq!(pair.east.value("SELECT current_setting('lifeboat.fence_epoch')").await, "8");
    east.ensure_open(&call(8)).await.unwrap();
    insert(&pair.east).await;
    let end = closed(east.ensure_closed(&call(9)).await.unwrap());
    assert_eq!(as_lb(&pair.east).ensure_open(&call(8)).await.unwrap_err().kind, FaultKind::Stale);
    west.catch_up(&call(9), &end).await.unwrap();
    west.ensure_promoted(&call(9), mark.system).await.unwrap();
    west.ensure_writable(&call(9)).await.unwrap();
    assert_eq!(west.offer(&call(9), &"east".into()).await.unwrap().lineage.len(), 1);
}

/// Such a slot holds nothing any more, and no standby could ever use it again.
#[tokio::test]
async fn a_slot_that_has_lost_its_log_is_made_anew() {
    let single = Single::start().await;
    let east = single.server.member();
    let slot = east.offer(&call(8), &"west".into()).await.unwrap().slot;
    single.server.set("wal_keep_size", "0").await;
    single.server.set("max_slot_wal_keep_size", "1").await;
    let status = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let person = single.server.client().await;
    until("the slot has lost its log", async || {
        let write = "SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()";
        person.execute(write, &[]).await.unwrap();
        person.execute("CHECKPOINT", &[]).await.unwrap();
        single.server.value(&status).await == "lost"
    })
    .await;
    assert_eq!(east.offer(&call(8), &"west".into()).await.unwrap().slot, slot);
    assert_eq!(single.server.value(&status).await, "reserved");
}
