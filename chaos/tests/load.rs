//! The load, the ballast and the isolated writes of a lab, on a real pair that is moved by hand: what is counted
//! here is what a failover is judged by.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "lab/name_server.rs"]
mod name_server;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_chaos::canary::now_ms;
use lifeboat_chaos::load::Tally;
use lifeboat_chaos::postgres::Setup;
use lifeboat_chaos::{From, Lab, LabOptions, Region, To};
use name_server::name_server;

fn options() -> LabOptions {
    LabOptions { chaos: Some(PathBuf::from(env!("CARGO_BIN_EXE_chaos"))), ..LabOptions::default() }
}

async fn until(what: &str, met: impl AsyncFn() -> bool) {
    let wait = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn sql<T: for<'a> tokio_postgres::types::FromSql<'a>>(lab: &Lab, region: Region, sql: &str) -> T {
    let server = lab.server(region).connect("lifeboat").await.unwrap();
    server.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_follows_the_primary_and_counts_what_was_lost_and_what_is_there_twice() {
    let lab = Lab::start(options()).await.unwrap();
    let says = name_server(&lab).await;
    let began = now_ms();
    let load = lab.load("steady");
    until("east takes writes", async || load.look(|ledger| ledger.taken_by(Region::East)) >= 2000).await;
    let rate = load.look(|ledger| ledger.taken_in(&(began..=now_ms()))) as u64 * 1000 / (now_ms() - began);
    println!("{rate} writes a second");

    // What east acknowledges after the cut, it alone has.
    lab.cut_replication(Region::West);
    let before = load.look(|ledger| ledger.taken_by(Region::East));
    until("east goes on", async || load.look(|ledger| ledger.taken_by(Region::East)) >= before + 200).await;
    lab.lose(Region::East).unwrap();
    lab.promote(Region::West).await.unwrap();
    *says.lock().unwrap() = Region::West;
    until("west takes writes", async || load.look(|ledger| ledger.taken_by(Region::West)) >= 500).await;
    let ledger = load.stop().await;

    let gap = ledger.gap(Region::East, Region::West, &(began..=now_ms())).unwrap();
    println!("write gap {:?} ms, {} not acknowledged", gap.ms(), ledger.failed);
    let first = ledger.acknowledged.iter().position(|write| write.region == Region::West).unwrap();
    assert_eq!(gap.first_ms, ledger.acknowledged[first].acknowledged_ms);
    assert!(gap.last_ms <= gap.first_ms);

    let rows = lab.entries(Region::West, "steady").await.unwrap();
    let tally = ledger.tally(&rows);
    assert_eq!((tally.acknowledged, tally.duplicated), (ledger.acknowledged.len() as u64, 0));
    assert!(tally.lost >= 150, "{tally:?}: the writes after the cut are not on west");
    assert!((tally.lost as usize) < ledger.taken_by(Region::East), "{tally:?}: those before it are");
    assert!(ledger.acknowledged.iter().all(|write| write.region == Region::East || rows[&write.id] == 1));

    // Rows that someone writes again are seen.
    let again = "WITH again AS (INSERT INTO entry SELECT * FROM entry WHERE load = 'steady' ORDER BY id LIMIT 3 \
                 RETURNING 1) SELECT count(*) FROM again";
    assert_eq!(sql::<i64>(&lab, Region::West, again).await, 3);
    let rows = lab.entries(Region::West, "steady").await.unwrap();
    assert_eq!(ledger.tally(&rows), Tally { duplicated: 3, ..tally });
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_synchronous_standby_a_load_loses_nothing_and_a_promoted_region_waits_for_nobody() {
    let setup = Setup { sync: true, stall: false };
    let lab = Lab::start(LabOptions { setup, ..options() }).await.unwrap();
    let says = name_server(&lab).await;
    let waits_for = "SELECT current_setting('synchronous_standby_names')";
    assert_eq!(sql::<String>(&lab, Region::East, waits_for).await, "west");
    let load = lab.load("sync");
    until("east takes writes", async || load.look(|ledger| ledger.taken_by(Region::East)) >= 500).await;

    // Commits that wait in vain are given up on both sides, and do not fill the server.
    lab.cut_replication(Region::West);
    let failed = load.look(|ledger| ledger.failed);
    until("commits hang", async || load.look(|ledger| ledger.failed) >= failed + 96).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'load'";
    let open: i64 = sql(&lab, Region::East, open).await;
    assert!(open <= 64, "{open} sessions of 32, and as many that are being cancelled");
    lab.mend_replication(Region::West);
    let before = load.look(|ledger| ledger.taken_by(Region::East));
    until("commits go on", async || load.look(|ledger| ledger.taken_by(Region::East)) >= before + 500).await;

    lab.lose(Region::East).unwrap();
    lab.promote(Region::West).await.unwrap();
    *says.lock().unwrap() = Region::West;
    until("west commits alone", async || load.look(|ledger| ledger.taken_by(Region::West)) >= 100).await;
    let ledger = load.stop().await;
    let tally = ledger.tally(&lab.entries(Region::West, "sync").await.unwrap());
    assert_eq!((tally.lost, tally.duplicated), (0, 0), "{tally:?}");
    assert_eq!(sql::<String>(&lab, Region::West, waits_for).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_primary_takes_writes_that_only_it_has() {
    let setup = Setup { sync: true, stall: false };
    let lab = Lab::start(LabOptions { setup, ballast_mb: 4, ..options() }).await.unwrap();
    let reference = lab.reference(Region::East).await.unwrap();
    let size: i64 = sql(&lab, Region::East, "SELECT pg_table_size('ballast')").await;
    assert!((4 << 20..5 << 20).contains(&size), "{size} bytes of ballast");
    assert_eq!(lab.reference(Region::West).await.unwrap(), reference);

    lab.lose(Region::East).unwrap();
    lab.promote(Region::West).await.unwrap();
    lab.bring_back(Region::East).await.unwrap();
    let ids = lab.write_isolated(Region::East, 5).await.unwrap();
    let more = lab.write_isolated(Region::East, 5).await.unwrap();
    let all: HashSet<String> = ids.into_iter().chain(more).collect();
    assert_eq!(all.len(), 10);
    assert!(all.is_subset(&lab.orders(Region::East).await.unwrap()));
    assert!(all.is_disjoint(&lab.orders(Region::West).await.unwrap()));

    // A server that is read only refuses, and the caller learns it.
    let server = lab.server(Region::East).connect("lifeboat").await.unwrap();
    server.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
    server.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("east refuses", async || lab.write_isolated(Region::East, 1).await.is_err()).await;
}

/// What `lifeboat host` does, by hand and with PostgreSQL's own tools: the lab has all that it needs.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_can_be_rewound_on_its_host_and_follow_the_new_one() {
    let setup = Setup { sync: true, stall: false };
    let lab = Lab::start(LabOptions { setup, ballast_mb: 4, ..options() }).await.unwrap();
    let reference = lab.reference(Region::East).await.unwrap();
    let says = name_server(&lab).await;
    let load = lab.load("back");
    until("east takes writes", async || load.look(|ledger| ledger.taken_by(Region::East)) >= 300).await;
    lab.lose(Region::East).unwrap();
    lab.promote(Region::West).await.unwrap();
    *says.lock().unwrap() = Region::West;
    until("west takes writes", async || load.look(|ledger| ledger.taken_by(Region::West)) >= 300).await;
    lab.bring_back(Region::East).await.unwrap();
    let isolated = lab.write_isolated(Region::East, 7).await.unwrap();

    let back = now_ms();
    let west = lab.server(Region::West).connect("lifeboat").await.unwrap();
    west.batch_execute("CHECKPOINT").await.unwrap();
    west.batch_execute("SELECT pg_create_physical_replication_slot('east', true)").await.unwrap();
    lab.stop_postgres(Region::East).await.unwrap();
    let path = lab.network().path(From::Region(Region::East), To::Postgres(Region::West));
    let rewind = format!(
        "set -e; cp data/lab.conf kept; {}/pg_rewind --target-pgdata=data --source-server=\
         'host={} port={} dbname=postgres user=lifeboat passfile=lifeboat.pgpass'; cp kept data/lab.conf; \
         touch data/standby.signal; printf \"primary_conninfo = 'host={} port={} user=replica passfile=../replica.pgpass'\\n\
         primary_slot_name = 'east'\\n\" >> data/postgresql.auto.conf",
        lab.server(Region::East).programs().display(),
        path.ip(),
        path.port(),
        path.ip(),
        path.port(),
    );
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chaos"));
    command.args(["host", "exec", "east", "--lab"]).arg(lab.folder()).args(["--", "sh", "-c", &rewind]);
    let said = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(said.status.success(), "{said:?}");
    lab.start_postgres(Region::East).await.unwrap();
    lab.synchronise(Region::West).await.unwrap();
    println!("streaming and synchronous {} ms after it was back", now_ms() - back);

    let ledger = load.stop().await;
    let written: i64 = sql(&lab, Region::West, "SELECT count(*) FROM entry").await;
    until("east has replayed all", async || {
        sql::<i64>(&lab, Region::East, "SELECT count(*) FROM entry").await == written
    })
    .await;
    assert!(sql::<bool>(&lab, Region::East, "SELECT pg_is_in_recovery()").await);
    let tally = ledger.tally(&lab.entries(Region::East, "back").await.unwrap());
    assert_eq!((tally.lost, tally.duplicated), (0, 0), "{tally:?}");
    assert_eq!(lab.reference(Region::East).await.unwrap(), reference);
    let orders = lab.orders(Region::East).await.unwrap();
    assert!(isolated.iter().all(|id| !orders.contains(id)));
    assert_eq!(sql::<String>(&lab, Region::East, "SELECT current_setting('cluster_name')").await, "east");
}
