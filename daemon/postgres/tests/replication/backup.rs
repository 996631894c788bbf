//! Base backups: whole, of the server's own judgement, and what goes wrong.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lifeboat_postgres::replication::{BaseBackupOptions, Error, Item, Remedy};

use crate::cluster::{Cluster, as_servers_user, folder, give_away_all, has, run};
use crate::written::write;

const WEIRD: &str = "weird \"ñame\"";

/// Databases, tablespaces, and files of all sorts and sizes.
async fn filled() -> Cluster {
    let cluster = Cluster::start("").await;
    for name in ["fast space", "other"] {
        fs::create_dir(cluster.folder().join(name)).unwrap();
    }
    give_away_all(cluster.folder());
    let place = cluster.folder().display();
    cluster.run(&format!("CREATE TABLESPACE fast LOCATION '{place}/fast space'")).await;
    cluster.run(&format!("CREATE TABLESPACE other LOCATION '{place}/other'")).await;
    cluster.run("CREATE DATABASE \"weird \"\"ñame\"\"\"").await;
    cluster.run_in(WEIRD, "CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 20000) x").await;
    let tables = "CREATE TABLE nothing (x int); CREATE TABLE big AS SELECT i, repeat(md5(i::text), 30) s FROM
        generate_series(1, 20000) i; CREATE INDEX ON big (s) TABLESPACE other; CREATE UNLOGGED TABLE u AS SELECT 1;";
    cluster.run(tables).await;
    for size in [0, 1, 511, 512, 513, 100_000] {
        cluster.put(&format!("of {size} ñ"), &vec![7; size]);
    }
    // Nothing may be left to be written when the server stops.
    for database in ["postgres", "template1", WEIRD] {
        cluster.run_in(database, "VACUUM FREEZE").await;
        cluster.run_in(database, "VACUUM FREEZE").await;
    }
    cluster.run("CHECKPOINT").await;
    cluster
}

/// Files below a folder, by their path in it; links are followed.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found
}

/// What a base backup has and the server does not, or has differently, or leaves out: PostgreSQL's documentation of
/// `BASE_BACKUP`.
fn is_special(path: &Path) -> bool {
    let text = path.to_str().unwrap();
    let folders =
        ["pg_wal/", "pg_stat/", "pg_stat_tmp/", "pg_replslot/", "pg_dynshmem/", "pg_notify/", "pg_subtrans/"];
    let names = [
        "backup_label",
        "tablespace_map",
        "backup_manifest",
        "postmaster.pid",
        "postmaster.opts",
        "global/pg_control",
        "current_logfiles",
    ];
    folders.iter().any(|folder| text.starts_with(folder))
        || names.contains(&text)
        || text.ends_with("pg_internal.init")
}

#[tokio::test]
async fn a_base_backup_is_the_data_folder_byte_for_byte() {
    let mut cluster = filled().await;
    let mut backup = cluster.replication().await.base_backup(&BaseBackupOptions::default()).await.unwrap();
    let target = folder();
    let copy = target.path().join("data");
    let written = write(&mut backup, &copy, &target.path().join("spaces")).await.unwrap();
    assert_eq!(backup.tablespaces.len(), 2);
    let end = written.end.unwrap();
    assert!(end.lsn > backup.start && end.timeline == backup.timeline && !end.damaged, "{end:?}");
    assert_eq!((written.warnings, written.bad_pages), (vec![], vec![]));
    assert!(written.progress.is_sorted());
    assert!(written.largest >= 32_768, "pieces of {} bytes at most", written.largest);
    let unlogged = cluster.value("pg_relation_filepath('u')").await;
    cluster.stop();

    // Of an unlogged table only the init fork comes.
    let left_out = |path: &Path| {
        let rest = path.to_str().unwrap().strip_prefix(&unlogged);
        rest.is_some_and(|rest| ["", "_fsm", "_vm"].contains(&rest))
    };
    let expected = files(&cluster.data).into_iter().filter(|path| !left_out(path));
    let expected: BTreeSet<_> = expected.filter(|path| !is_special(path)).collect();
    let found: BTreeSet<_> = files(&copy).into_iter().filter(|path| !is_special(path)).collect();
    let different: Vec<_> = found.symmetric_difference(&expected).collect();
    assert!(different.is_empty(), "{different:?}");
    for path in &found {
        assert!(fs::read(copy.join(path)).unwrap() == fs::read(cluster.data.join(path)).unwrap(), "{path:?}");
    }
    assert!(found.contains(Path::new("of 513 ñ")) && found.iter().any(|path| path.starts_with("pg_tblspc")));
    if has("pg_verifybackup") {
        give_away_all(target.path());
        run(as_servers_user("pg_verifybackup").arg("-n").arg(&copy));
    }
}

#[tokio::test]
async fn a_bad_page_is_named_and_everything_still_comes() {
    let cluster = filled().await;
    let path = PathBuf::from(cluster.value("pg_relation_filepath('big')").await);
    let file = fs::OpenOptions::new().write(true).open(cluster.data.join(&path)).unwrap();
    file.write_all_at(&[0x55; 64], 5 * 8192 + 4000).unwrap();
    let mut backup = cluster.replication().await.base_backup(&BaseBackupOptions::default()).await.unwrap();
    let target = folder();
    let copy = target.path().join("data");
    let written = write(&mut backup, &copy, &target.path().join("spaces")).await.unwrap();
    assert_eq!(written.bad_pages, [(path.clone(), 5)]);
    assert!(written.end.unwrap().damaged);
    assert!(fs::read(copy.join(&path)).unwrap() == fs::read(cluster.data.join(&path)).unwrap());
    // A server that is told not to look finds nothing.
    let options = BaseBackupOptions {
        verify_checksums: false,
        manifest: false,
        tablespace_map: true,
        ..BaseBackupOptions::default()
    };
    let mut backup = cluster.replication().await.base_backup(&options).await.unwrap();
    let again = target.path().join("again");
    let written = write(&mut backup, &again, &target.path().join("again-spaces")).await.unwrap();
    assert!(written.bad_pages.is_empty() && !written.end.unwrap().damaged);
    assert!(!again.join("backup_manifest").exists());
    let map = fs::read_to_string(again.join("tablespace_map")).unwrap();
    assert!(map.contains("/fast space"), "{map}");
    assert!(!written.entries.iter().any(|entry| entry.path.parent() == Some(Path::new("pg_tblspc"))));
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_is_a_lost_connection() {
    let mut cluster = filled().await;
    let options = BaseBackupOptions { max_rate: Some(256), ..BaseBackupOptions::default() };
    let mut backup = cluster.replication().await.base_backup(&options).await.unwrap();
    while !matches!(backup.next().await.unwrap(), Some(Item::Data(_))) {}
    cluster.kill();
    let error = loop {
        match backup.next().await {
            Ok(item) => assert!(item.is_some() && !matches!(item, Some(Item::End(_))), "{item:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::Again);
}

#[tokio::test]
async fn an_incremental_backup_is_made_where_the_server_offers_it() {
    let cluster = filled().await;
    let mut replication = cluster.replication().await;
    let mut backup = cluster.replication().await.base_backup(&BaseBackupOptions::default()).await.unwrap();
    let target = folder();
    let whole = target.path().join("whole");
    let written = write(&mut backup, &whole, &target.path().join("spaces")).await.unwrap();
    let size = |entries: &[lifeboat_postgres::replication::Entry]| {
        entries.iter().map(|entry| entry.size).sum::<u64>()
    };
    let manifest = fs::read(whole.join("backup_manifest")).unwrap();
    let options = BaseBackupOptions { incremental: true, ..BaseBackupOptions::default() };

    let version = replication.identify().await.unwrap().server_version_num;
    if version < 170_000 {
        let error = replication.upload_manifest(&manifest).await.unwrap_err();
        assert!(matches!(error, Error::TooOld { .. }), "{error:?}");
        let error = replication.base_backup(&options).await.err().unwrap();
        assert!(matches!(error, Error::TooOld { .. }), "{error:?}");
        return;
    }
    // A no does not spoil the connection.
    assert!(matches!(replication.upload_manifest(b"{").await, Err(Error::Refused { .. })));
    cluster.run("ALTER SYSTEM SET summarize_wal = on").await;
    cluster.value("pg_reload_conf()").await;
    // The log of the first backup is not summarized: it was made before.
    let mut first = cluster.replication().await.base_backup(&BaseBackupOptions::default()).await.unwrap();
    let whole = target.path().join("summarized");
    write(&mut first, &whole, &target.path().join("summarized-spaces")).await.unwrap();
    let manifest = fs::read(whole.join("backup_manifest")).unwrap();
    cluster.run("UPDATE big SET s = 'x' WHERE i = 7").await;
    let mut replication = cluster.replication().await;
    replication.upload_manifest(&manifest).await.unwrap();
    let mut backup = replication.base_backup(&options).await.unwrap();
    let part = target.path().join("part");
    let increment = write(&mut backup, &part, &target.path().join("part-spaces")).await.unwrap();
    let partial = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("INCREMENTAL.");
    assert!(increment.entries.iter().any(|entry| partial(&entry.path)));
    assert!(size(&increment.entries) * 4 < size(&written.entries), "{}", size(&increment.entries));
}
