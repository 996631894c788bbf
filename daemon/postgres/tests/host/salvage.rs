//! Everything that only the isolated old primary has is in the files, and nothing of it on the new primary.

use std::fs;

use crate::servers::Pair;

#[test]
fn rows_of_the_isolated_primary_are_all_in_the_files() {
    let pair = Pair::start();
    pair.sql("east", "CREATE DATABASE other");
    pair.try_sql("east", "other", "CREATE TABLE notes (note text)").unwrap();
    pair.sql("east", "CREATE TABLE orders (id int PRIMARY KEY, what text); CREATE TABLE \"a/b\" (id int)");
    pair.sql("east", "INSERT INTO orders SELECT n, 'old' FROM generate_series(1, 100) n");
    pair.sql("east", "CREATE SCHEMA lifeboat; CREATE TABLE lifeboat.heartbeat (id int); INSERT INTO lifeboat.heartbeat VALUES (1)");
    // A transaction that begins, and writes to a table, before the log parts.
    let mut early = tokio_postgres::Config::new();
    early.host("127.0.0.1").port(pair.east).user("postgres").dbname("postgres");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let early = runtime.block_on(async {
        let (client, connection) = early.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("CREATE TABLE early (id int)").await.unwrap();
        // Another message, or both would be one transaction.
        client.batch_execute("BEGIN; INSERT INTO early VALUES (1)").await.unwrap();
        client
    });
    let source = pair.part("INSERT INTO orders SELECT n, E'new\nline' FROM generate_series(101, 150) n");
    runtime.block_on(early.batch_execute("COMMIT")).unwrap();
    pair.sql("east", "UPDATE orders SET what = 'changed' WHERE id <= 10");
    pair.sql("east", "DELETE FROM orders WHERE id BETWEEN 11 AND 13");
    pair.sql(
        "east",
        "BEGIN; INSERT INTO \"a/b\" VALUES (1); SAVEPOINT s; INSERT INTO \"a/b\" VALUES (2); COMMIT",
    );
    pair.sql("east", "BEGIN; INSERT INTO \"a/b\" VALUES (9); ROLLBACK");
    pair.sql("east", "UPDATE lifeboat.heartbeat SET id = 2");
    pair.try_sql("east", "other", "INSERT INTO notes VALUES ('kept')").unwrap();
    pair.fence();
    let salvage = pair.salvage(7, &source).unwrap();
    assert_eq!(salvage.rows, 50 + 10 + 2 + 1 + 1, "{salvage:?}");
    assert!(
        salvage.unread.iter().any(|said| said == "3 rows were deleted from postgres.public.orders"),
        "{salvage:?}"
    );
    assert_eq!(salvage.unread.len(), 1, "{salvage:?}");
    let folder = salvage.folder.clone().unwrap();
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).unwrap();
    let orders = read("postgres.public.orders.csv");
    assert_eq!(orders.matches("changed").count(), 10);
    assert_eq!(orders.matches("\"new\nline\"").count(), 50);
    assert!(!orders.contains("old"));
    assert_eq!(read("postgres.public.a%2Fb.csv"), "id\n1\n2\n");
    assert_eq!(read("other.public.notes.csv"), "note\nkept\n");
    assert_eq!(read("postgres.public.early.csv"), "id\n1\n");
    assert_eq!(read("postgres.lifeboat.heartbeat.csv"), "id\n2\n");
    assert!(fs::read_dir(format!("{folder}/wal")).unwrap().count() > 0);
    assert_eq!(pair.sql("west", "SELECT count(*) FROM orders WHERE what <> 'old'"), "0");
    assert_eq!(pair.sql("west", "SELECT count(*) FROM early"), "0");
    assert_eq!(pair.salvage(7, &source).unwrap(), salvage, "a repeat");
    pair.rejoin(7, &source).unwrap();
    assert_eq!(pair.sql("east", "SELECT count(*) FROM orders WHERE what <> 'old'"), "0");
    // Now that it follows, there is nothing that only it has.
    let nothing = pair.salvage(8, &source).unwrap();
    assert_eq!((nothing.diverged_at, nothing.rows, nothing.folder), (None, 0, None));
}

#[test]
fn a_stopped_server_is_started_aside_for_its_rows_and_stopped_again() {
    let pair = Pair::start();
    let source = pair.part("CREATE TABLE lost AS SELECT 1 AS id");
    pair.crash("east");
    let salvage = pair.salvage(7, &source).unwrap();
    assert!(salvage.diverged_at.is_some() && salvage.rows == 1, "{salvage:?}");
    // That a table was made is no row of one.
    assert!(salvage.unread.iter().all(|said| said.contains("catalogs")), "{salvage:?}");
    let folder = salvage.folder.clone().unwrap();
    assert_eq!(fs::read_to_string(format!("{folder}/postgres.public.lost.csv")).unwrap(), "id\n1\n");
    assert!(fs::read_dir(format!("{folder}/wal")).unwrap().count() > 0);
    assert!(!pair.data("east").join("postmaster.pid").exists(), "it does not go on running");
    assert_eq!(pair.salvage(7, &source).unwrap(), salvage, "a repeat");
    pair.rejoin(7, &source).unwrap();
    assert_eq!(pair.sql("east", "SELECT to_regclass('lost') IS NULL"), "t");
}

#[test]
fn of_a_server_that_cannot_be_started_the_log_is_kept_and_the_rest_is_said() {
    let pair = Pair::start();
    let source = pair.part("CREATE TABLE lost AS SELECT 1 AS id");
    pair.crash("east");
    let settings = pair.data("east").join("postgresql.auto.conf");
    let before = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{before}\nno_such_setting = 1\n")).unwrap();
    let salvage = pair.salvage(7, &source).unwrap();
    assert!(salvage.diverged_at.is_some() && salvage.rows == 0, "{salvage:?}");
    assert!(salvage.unread.iter().any(|said| said.contains("could not be started aside")), "{salvage:?}");
    assert!(fs::read_dir(format!("{}/wal", salvage.folder.unwrap())).unwrap().count() > 0);
}
