//! What a look says of servers in every condition.

use std::time::{Duration, Instant};

use lifeboat_core::sighting::{DatabaseState, FailureKind, StandbyPosition};
use lifeboat_core::{Epoch, Evidence, Failure, FaultKind, Look, Moment, SystemIdentifier};
use lifeboat_engine::ports::{Ask, Database, Probe, Role};
use lifeboat_postgres::Options;

use crate::pair::{Pair, Single, ask, call, member, until};

fn failure(look: Look) -> Failure {
    look.expect_err("the look should have failed")
}

fn standby(look: Look) -> StandbyPosition {
    match look {
        Ok(Evidence::Database(sample)) => match sample.state {
            DatabaseState::Standby(position) => position,
            state @ DatabaseState::Primary { .. } => panic!("not a standby: {state:?}"),
        },
        other => panic!("no sample: {other:?}"),
    }
}

#[tokio::test]
async fn roles_positions_and_the_heartbeat_are_seen_on_both_sides() {
    let pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    let Ok(Evidence::Database(primary)) = east.look(&ask(Role::Primary, 1_000)).await else { panic!() };
    let DatabaseState::Primary { written, heartbeat, synchronous } = primary.state else { panic!() };
    assert_eq!(heartbeat, Some(Moment::from_millis(1_000)));
    assert!(synchronous.is_empty() && written.get() > 0);
    let system = pair.east.value("SELECT system_identifier FROM pg_control_system()").await;
    assert_eq!(primary.system.to_string(), system);
    assert_eq!(primary.timeline.get(), 1);

    until("the heartbeat is replayed", async || {
        standby(west.look(&ask(Role::Standby, 2_000)).await).heartbeat == Some(Moment::from_millis(1_000))
    })
    .await;
    let Ok(Evidence::Database(sample)) = west.look(&ask(Role::Standby, 3_000)).await else { panic!() };
    assert_eq!((sample.system, sample.timeline), (primary.system, primary.timeline));
    let position = standby(Ok(Evidence::Database(sample)));
    assert_eq!(
        (position.epoch, position.streaming, position.name.as_str()),
        (Some(Epoch::new(7)), true, "west")
    );
    assert!(position.replayed >= written && position.received >= position.replayed);

    // What is received and not replayed shows as such.
    pair.west.client().await.execute("SELECT pg_wal_replay_pause()", &[]).await.unwrap();
    let paused = async || pair.west.value("SELECT pg_get_wal_replay_pause_state()").await == "paused";
    until("replay has stopped", paused).await;
    east.look(&ask(Role::Primary, 4_000)).await.unwrap();
    until("more was received than is replayed", async || {
        let position = standby(west.look(&ask(Role::Standby, 4_500)).await);
        position.received.ahead_of(position.replayed) > 0
            && position.heartbeat == Some(Moment::from_millis(1_000))
    })
    .await;
}

#[tokio::test]
async fn a_synchronous_standby_is_known_by_the_same_name_on_both_sides() {
    let pair = Pair::start().await;
    pair.east.set("synchronous_standby_names", "'west'").await;
    let east = pair.east.member();
    until("the standby is synchronous", async || {
        let Ok(Evidence::Database(sample)) = east.look(&ask(Role::Primary, 1)).await else { panic!() };
        matches!(sample.state, DatabaseState::Primary { synchronous, .. } if synchronous.contains("west"))
    })
    .await;
    // Not when another's word would do, and not when commits do not wait for it.
    let names = async || {
        let Ok(Evidence::Database(sample)) = east.look(&ask(Role::Primary, 1)).await else { panic!() };
        let DatabaseState::Primary { synchronous, .. } = sample.state else { panic!() };
        synchronous
    };
    pair.east.set("synchronous_standby_names", "'ANY 1 (west, north)'").await;
    until("another's word would do", async || names().await.is_empty()).await;
    pair.east.set("synchronous_standby_names", "'FIRST 1 (west)'").await;
    until("its word is needed again", async || names().await.contains("west")).await;
    pair.east.set("synchronous_commit", "local").await;
    until("commits do not wait", async || names().await.is_empty()).await;
    pair.east.set("synchronous_commit", "on").await;
    // A name in the connection string comes before cluster_name, as it does for the primary.
    let conninfo = format!("'host=127.0.0.1 port={} user=postgres application_name=vest'", pair.east.port);
    pair.west
        .client()
        .await
        .execute(&format!("ALTER SYSTEM SET primary_conninfo = {conninfo}"), &[])
        .await
        .unwrap();
    pair.west.client().await.execute("SELECT pg_reload_conf()", &[]).await.unwrap();
    pair.east.set("synchronous_standby_names", "''").await;
    let west = pair.west.member();
    until("the standby says its new name", async || {
        let position = standby(west.look(&ask(Role::Standby, 2)).await);
        position.streaming && position.name == "vest"
    })
    .await;
}

#[tokio::test]
async fn a_server_in_the_other_role_is_told_so_and_never_written_to() {
    let pair = Pair::start().await;
    let found = failure(pair.west.member().look(&ask(Role::Primary, 1)).await);
    assert_eq!(found.kind, FailureKind::WrongRole, "{found}");
    let Ok(Evidence::Database(sample)) = pair.east.member().look(&ask(Role::Standby, 1)).await else {
        panic!()
    };
    assert!(matches!(sample.state, DatabaseState::Primary { heartbeat: None, .. }));
    let silent = member(Options { heartbeat: false, ..pair.east.options() });
    let Ok(Evidence::Database(sample)) = silent.look(&ask(Role::Primary, 1)).await else { panic!() };
    assert!(matches!(sample.state, DatabaseState::Primary { heartbeat: None, .. }));
    assert_eq!(pair.east.value("SELECT to_regclass('lifeboat.heartbeat')").await, "");
}

#[tokio::test]
async fn two_agents_make_the_table_in_the_same_instant() {
    let single = Single::start().await;
    let members: Vec<_> = (0..4).map(|_| single.server.member()).collect();
    let asks: Vec<_> = (0..4).map(|at| ask(Role::Primary, at)).collect();
    let looks = members.iter().zip(&asks).map(|(member, ask)| member.look(ask));
    for look in futures::future::join_all(looks).await {
        look.unwrap();
    }
    assert_eq!(single.server.value("SELECT count(*) FROM lifeboat.heartbeat").await, "1");
}

#[tokio::test]
async fn a_server_that_somebody_made_read_only_is_no_outage() {
    let single = Single::start().await;
    let member = single.server.member();
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    single.server.set("default_transaction_read_only", "on").await;
    let found = failure(member.look(&ask(Role::Primary, 2)).await);
    assert_eq!(found.kind, FailureKind::WrongRole, "{found}");
    assert!(found.detail.contains("25006"), "{found}");
    assert!(found.detail.contains("default_transaction_read_only is on, set by somebody else"), "{found}");
    single.server.set("default_transaction_read_only", "off").await;
    member.look(&ask(Role::Primary, 3)).await.unwrap();
}

/// Only a server that cannot do its work fails hard; locks, timeouts and people at work are not that.
#[tokio::test]
async fn a_refused_heartbeat_weighs_what_its_sqlstate_says() {
    let single = Single::start().await;
    let member = single.server.member();
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    let cases = [
        ("53100", FailureKind::CannotCommit),
        ("53200", FailureKind::CannotCommit),
        ("58030", FailureKind::CannotCommit),
        ("XX001", FailureKind::CannotCommit),
        ("53400", FailureKind::Malformed),
        ("55P03", FailureKind::Malformed),
        ("40001", FailureKind::Malformed),
        ("40P01", FailureKind::Malformed),
        ("55000", FailureKind::Malformed),
        ("58P01", FailureKind::Malformed),
        ("57014", FailureKind::CommitSilent),
        ("53300", FailureKind::NotReady),
        ("57P01", FailureKind::NotReady),
        ("57P03", FailureKind::NotReady),
        ("42501", FailureKind::WrongIdentity),
        ("3D000", FailureKind::WrongIdentity),
    ];
    for (at, (state, kind)) in (2..).zip(cases) {
        let refuse = format!(
            "CREATE OR REPLACE FUNCTION lifeboat.refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$;
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON lifeboat.heartbeat
               FOR EACH ROW EXECUTE FUNCTION lifeboat.refuse()"
        );
        single.server.client().await.batch_execute(&refuse).await.unwrap();
        let found = failure(member.look(&ask(Role::Primary, at)).await);
        assert_eq!(found.kind, kind, "{found}");
        assert!(found.detail.contains(state), "{found}");
    }
}

#[tokio::test]
async fn a_full_server_is_not_ready_and_a_missing_database_is_about_us() {
    let single = Single::start().await;
    let lost = member(Options { dbname: "nowhere".to_owned(), ..single.server.options() });
    let found = failure(lost.look(&ask(Role::Primary, 1)).await);
    assert_eq!(found.kind, FailureKind::WrongIdentity, "{found}");
    let mut inside = Vec::new();
    until("it is full", async || match single.server.connect("postgres").await {
        Ok(client) => {
            inside.push(client);
            false
        }
        Err(_) => true,
    })
    .await;
    let found = failure(single.server.member().look(&ask(Role::Primary, 2)).await);
    assert_eq!(found.kind, FailureKind::NotReady, "{found}");
    let fault = single.server.member().measure(&call(8)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "a step is tried again: {fault}");
}

#[tokio::test]
async fn a_commit_that_nobody_acknowledges_is_commit_silent_and_leaks_no_session() {
    let single = Single::start().await;
    let member = single.server.member();
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    single.server.set("synchronous_standby_names", "'nobody'").await;
    for at in 2..6 {
        let mut ask = ask(Role::Primary, at);
        ask.limit = Duration::from_millis(1500);
        let begun = Instant::now();
        let found = failure(member.look(&ask).await);
        assert!(begun.elapsed() < ask.limit + Duration::from_secs(1));
        assert_eq!(found.kind, FailureKind::CommitSilent, "{found}");
        assert!(found.detail.contains("SyncRep"), "{found}");
    }
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat'";
    until("only the witness session is left", async || single.server.value(sessions).await == "1").await;
    single.server.set("synchronous_standby_names", "''").await;
    until("it commits again", async || member.look(&ask(Role::Primary, 9)).await.is_ok()).await;
    assert_eq!(single.server.value("SELECT at_ms FROM lifeboat.heartbeat").await, "9");
}

#[tokio::test]
async fn a_higher_epoch_in_the_table_outranks_the_agent() {
    let single = Single::start().await;
    let member = single.server.member();
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    let newer = "INSERT INTO lifeboat.heartbeat VALUES ('other', 8, 5)";
    single.server.client().await.execute(newer, &[]).await.unwrap();
    let found = failure(member.look(&ask(Role::Primary, 2)).await);
    assert_eq!(found.kind, FailureKind::WrongRole, "{found}");
    assert!(found.detail.contains("epoch 8"), "{found}");
    let rows =
        "SELECT string_agg(agent || epoch || '@' || at_ms, ' ' ORDER BY agent) FROM lifeboat.heartbeat";
    assert_eq!(single.server.value(rows).await, "bastion7@1 other8@5");
}

#[tokio::test]
async fn another_cluster_is_refused_before_it_is_written_to() {
    let single = Single::start().await;
    let member = member(Options { system: Some(SystemIdentifier::new(4711)), ..single.server.options() });
    let found = failure(member.look(&ask(Role::Primary, 1)).await);
    assert_eq!(found.kind, FailureKind::WrongIdentity, "{found}");
    assert_eq!(single.server.value("SELECT to_regclass('lifeboat.heartbeat')").await, "");
}

#[tokio::test]
async fn a_frozen_server_is_silent_within_the_limit_and_heard_again() {
    let single = Single::start().await;
    let member = single.server.member();
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    single.server.freeze();
    for at in 2..4 {
        let mut ask = ask(Role::Primary, at);
        ask.limit = Duration::from_millis(600);
        let begun = Instant::now();
        let found = failure(member.look(&ask).await);
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
        assert_eq!(found.kind, FailureKind::Silent, "{found}");
    }
    single.server.thaw();
    until("it answers", async || member.look(&ask(Role::Primary, 5)).await.is_ok()).await;
}

#[tokio::test]
async fn a_killed_server_is_noticed_at_once_and_once() {
    let mut single = Single::start().await;
    let member = single.server.member();
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(50), member.disturbed()).await;
    assert!(quiet.is_err(), "nothing has happened yet");
    let noticed = async {
        member.disturbed().await;
        Instant::now()
    };
    let killed = async {
        single.server.kill();
        Instant::now()
    };
    let (noticed, killed) = tokio::join!(noticed, killed);
    assert!(noticed.saturating_duration_since(killed) < Duration::from_millis(500));
    let begun = Instant::now();
    let found = failure(member.look(&ask(Role::Primary, 2)).await);
    assert_eq!(found.kind, FailureKind::Refused, "{found}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    let again = tokio::time::timeout(Duration::from_millis(50), member.disturbed()).await;
    assert!(again.is_err(), "one end, one disturbance");
    single.server.restart().await;
    member.look(&ask(Role::Primary, 3)).await.unwrap();
}

#[tokio::test]
async fn a_role_without_the_rights_is_wrong_identity_not_cannot_commit() {
    let single = Single::start().await;
    let member = member(Options { user: "app".to_owned(), ..single.server.options() });
    let found = failure(member.look(&ask(Role::Primary, 1)).await);
    assert_eq!(found.kind, FailureKind::WrongIdentity, "{found}");
    assert!(found.detail.contains("42501"), "{found}");
}

/// Each agent's heartbeat is stamped by its own clock. Two that differ by ten minutes must not date each other's.
#[tokio::test]
async fn an_agent_is_told_its_own_heartbeat_and_everybodys_newest_epoch() {
    const NOW: u64 = 1_700_000_000_000;
    const AHEAD: u64 = NOW + 600_000;
    let pair = Pair::start().await;
    let (east, west) = (pair.east.member(), pair.west.member());
    let of = |agent: &str, at, expect| Ask { agent: agent.into(), ..ask(expect, at) };
    east.look(&of("ahead", AHEAD, Role::Primary)).await.unwrap();
    east.look(&of("bastion", NOW, Role::Primary)).await.unwrap();
    let both = "SELECT count(*) FROM lifeboat.heartbeat";
    until("both are replayed", async || {
        let client = pair.west.client().await;
        client.query_one(both, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 2)
    })
    .await;
    for (agent, at) in [("ahead", Some(AHEAD)), ("bastion", Some(NOW)), ("newcomer", None)] {
        let position = standby(west.look(&of(agent, NOW, Role::Standby)).await);
        assert_eq!(position.heartbeat.map(Moment::millis), at, "{agent}");
        let mut call = call(7);
        call.agent = agent.into();
        let measured = west.measure(&call).await.unwrap();
        assert_eq!(measured.position.heartbeat.map(Moment::millis), at, "{agent}, measured");
    }
    // The epoch is everybody's: what one of them has raised, the others are held to.
    let raised = Ask { epoch: Epoch::new(9), ..of("ahead", AHEAD + 1, Role::Primary) };
    east.look(&raised).await.unwrap();
    until("it is replayed", async || west.measure(&call(8)).await.is_err_and(|f| f.kind == FaultKind::Stale))
        .await;
    let refused = east.look(&of("bastion", NOW + 1, Role::Primary)).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::WrongRole, "{refused:?}");
}
