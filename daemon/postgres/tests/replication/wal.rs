//! The log as a stream.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lifeboat_core::{Lsn, Timeline};
use lifeboat_postgres::replication::{
    BaseBackupOptions, Endpoint, Error, Remedy, Replication, Wal, WalStream,
};

use crate::cluster::{Cluster, SEGMENT};

/// The log that came, by timeline and number of the segment, from where its first byte was.
#[derive(Default)]
pub(crate) struct Log {
    segments: BTreeMap<(Timeline, u64), Vec<u8>>,
}

impl Log {
    /// Takes in log that continues a segment or begins one.
    fn take(&mut self, timeline: Timeline, start: Lsn, mut bytes: &[u8]) {
        let mut at = start.get();
        while !bytes.is_empty() {
            let segment = self.segments.entry((timeline, at / SEGMENT)).or_default();
            assert_eq!(segment.len() as u64, at % SEGMENT, "log at {start} is not contiguous");
            let room = usize::try_from(SEGMENT - at % SEGMENT).unwrap();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            segment.extend_from_slice(now);
            at += now.len() as u64;
            bytes = later;
        }
    }

    /// Takes in what comes until the stream has come to `to`.
    async fn follow(&mut self, stream: &mut WalStream, to: Lsn) {
        while stream.position() < to {
            let timeline = stream.timeline();
            if let Wal::Bytes { start, bytes, server_end, .. } = stream.next().await.unwrap() {
                assert!(server_end >= stream.position());
                self.take(timeline, start, &bytes);
            }
        }
    }

    /// Compares each segment with the server's own file, as far as it came. How many are whole.
    fn compare(&self, data: &Path) -> usize {
        for ((timeline, segment), bytes) in &self.segments {
            let of_id = (1 << 32) / SEGMENT;
            let name = format!("{:08X}{:08X}{:08X}", timeline.get(), segment / of_id, segment % of_id);
            let file = fs::read(data.join("pg_wal").join(&name)).unwrap();
            assert!(file[..bytes.len()] == bytes[..], "{name}");
        }
        self.segments.values().filter(|bytes| bytes.len() as u64 == SEGMENT).count()
    }
}

fn segment_of(lsn: Lsn) -> Lsn {
    Lsn::new(lsn.get() - lsn.get() % SEGMENT)
}

#[tokio::test]
async fn segments_are_byte_identical_to_the_servers() {
    let cluster = Cluster::start("").await;
    let mut replication = cluster.replication().await;
    replication.create_slot("archive", false).await.unwrap();
    let slot = replication.slot("archive").await.unwrap().unwrap();
    let now = replication.identify().await.unwrap();
    let from = segment_of(slot.kept_from.unwrap());
    let mut stream = replication.wal(Some("archive"), now.timeline, from).await.unwrap();
    assert_eq!(stream.position(), from);
    cluster.run("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i").await;
    cluster.next_segment().await;
    let mut log = Log::default();
    log.follow(&mut stream, cluster.lsn("pg_current_wal_flush_lsn()").await).await;
    assert!(log.compare(&cluster.data) >= 8);

    // The server is told how far we are, and only that.
    stream.report(stream.position(), from, from, false).await.unwrap();
    let flushed = "SELECT flush_lsn FROM pg_stat_replication WHERE application_name = 'archive'";
    crate::cluster::until("the report arrives", async || {
        Lsn::parse(&cluster.value(flushed).await) == Some(from)
    })
    .await;
    let written = "SELECT write_lsn FROM pg_stat_replication WHERE application_name = 'archive'";
    assert_eq!(cluster.lsn(written).await, stream.position());
}

#[tokio::test]
async fn a_commit_waits_for_the_report_of_a_synchronous_archive() {
    let cluster = Cluster::start("").await;
    let mut replication = cluster.replication().await;
    let now = replication.identify().await.unwrap();
    let mut stream = replication.wal(None, now.timeline, now.flushed).await.unwrap();
    cluster.run("ALTER SYSTEM SET synchronous_standby_names = 'archive'").await;
    cluster.value("pg_reload_conf()").await;
    stream.report(now.flushed, now.flushed, now.flushed, true).await.unwrap();
    crate::cluster::until("the archive is synchronous", async || {
        // What commits meanwhile is reported, and so is a sign of life.
        let more = tokio::time::timeout(std::time::Duration::from_millis(20), stream.next()).await;
        if more.is_ok() {
            let at = stream.position();
            stream.report(at, at, at, false).await.unwrap();
        }
        cluster.value("SELECT string_agg(sync_state, ',') FROM pg_stat_replication").await == "sync"
    })
    .await;

    let mut commit = Box::pin(cluster.run("CREATE TABLE acknowledged (x int)"));
    let before = stream.position();
    // The log of the commit comes while the commit waits.
    loop {
        tokio::select! {
            biased;
            () = &mut commit => panic!("committed without the archive"),
            came = stream.next() => if let Wal::Bytes { .. } = came.unwrap() { break },
        }
    }
    assert!(stream.position() > before);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    crate::cluster::until("the commit waits", async || cluster.value(waits).await == "1").await;
    let at = stream.position();
    stream.report(at, before, before, false).await.unwrap();
    assert_eq!(cluster.value(waits).await, "1", "what is not flushed is not acknowledged");
    let mut done = false;
    while !done {
        let at = stream.position();
        stream.report(at, at, at, false).await.unwrap();
        tokio::select! {
            biased;
            () = &mut commit => done = true,
            came = stream.next() => drop(came.unwrap()),
        }
    }
}

#[tokio::test]
async fn a_stream_follows_its_server_to_the_next_timeline() {
    let primary = Cluster::start("").await;
    let standby = standby_of(&primary).await;
    let mut replication = standby.replication().await;
    let now = replication.identify().await.unwrap();
    let from = segment_of(now.flushed);
    let mut stream = replication.wal(None, now.timeline, from).await.unwrap();
    primary.run("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i").await;
    let mut log = Log::default();
    log.follow(&mut stream, primary.lsn("pg_current_wal_flush_lsn()").await).await;

    // It can be copied as well as its primary, and is, by preference.
    let mut backup = standby.replication().await.base_backup(&BaseBackupOptions::default()).await.unwrap();
    let copy = standby.folder().join("copy");
    let written = crate::written::write(&mut backup, &copy, &standby.folder().join("copied")).await.unwrap();
    assert!(!written.end.unwrap().damaged && written.end.unwrap().lsn >= backup.start);
    assert!(fs::read_to_string(copy.join("backup_label")).unwrap().contains("BACKUP FROM: standby"));

    standby.value("pg_promote()").await;
    let (next_timeline, switched_at) = loop {
        match stream.next().await.unwrap() {
            Wal::Bytes { start, bytes, .. } => log.take(now.timeline, start, &bytes),
            Wal::TimelineEnd { next_timeline, switched_at } => break (next_timeline, switched_at),
            Wal::Keepalive { .. } => {}
        }
    };
    assert_eq!((next_timeline, switched_at), (Timeline::new(2), stream.position()));
    assert!(stream.go_on_from(Lsn::new(switched_at.get() + 1)).is_err());
    stream.go_on_from(segment_of(switched_at)).unwrap();
    standby.run("CREATE TABLE after AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i").await;
    log.follow(&mut stream, standby.lsn("pg_current_wal_flush_lsn()").await).await;
    assert_eq!(stream.timeline(), Timeline::new(2));
    assert!(log.compare(&standby.data) >= 6);

    // Another connection gets the same by the history, from exactly the end of the old timeline, without a command for it.
    let mut again = standby.replication().await;
    let (name, history) = again.timeline_history(Timeline::new(2)).await.unwrap();
    assert_eq!(history, fs::read(standby.data.join("pg_wal").join(&name)).unwrap());
    let mut stream = again.wal(None, Timeline::new(1), switched_at).await.unwrap();
    let end = Wal::TimelineEnd { next_timeline, switched_at };
    assert_eq!(stream.next().await.unwrap(), end);
    let Wal::Bytes { start, .. } = stream.next().await.unwrap() else { panic!("no log") };
    assert_eq!((start, stream.timeline()), (switched_at, Timeline::new(2)));

    // What the old primary wrote after that is not of this history.
    let beyond = Lsn::new(switched_at.get() + 8);
    let error = standby.replication().await.wal(None, Timeline::new(1), beyond).await.err().unwrap();
    assert!(matches!(error, Error::Diverged { left: Some(at), .. } if at == switched_at), "{error:?}");
    let error = standby.replication().await.wal(None, Timeline::new(3), beyond).await.err().unwrap();
    assert!(matches!(error, Error::Diverged { left: None, .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::BaseBackup);
}

/// A standby, made of a base backup.
async fn standby_of(primary: &Cluster) -> Cluster {
    let folder = crate::cluster::folder();
    let data = folder.path().join("data");
    let mut backup = primary.replication().await.base_backup(&BaseBackupOptions::default()).await.unwrap();
    crate::written::write(&mut backup, &data, &folder.path().join("spaces")).await.unwrap();
    fs::write(data.join("standby.signal"), "").unwrap();
    crate::cluster::give_away_all(folder.path());
    let conninfo = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'", primary.port);
    let standby = Cluster::launch(folder, &conninfo).await;
    crate::cluster::until("the standby streams", async || {
        standby.value("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'").await == "1"
    })
    .await;
    standby
}

#[tokio::test]
async fn a_slot_that_is_missing_busy_logical_or_lost_is_named() {
    let cluster = Cluster::start("wal_keep_size = 0\nmax_slot_wal_keep_size = 2MB\nmax_wal_size = 4MB").await;
    let mut replication = cluster.replication().await;
    assert_eq!(replication.slot("archive").await.unwrap(), None);
    let now = replication.identify().await.unwrap();
    let error =
        cluster.replication().await.wal(Some("archive"), now.timeline, now.flushed).await.err().unwrap();
    assert!(matches!(error, Error::SlotMissing { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::MakeSlot);
    assert!(matches!(replication.drop_slot("archive").await, Err(Error::SlotMissing { .. })));
    assert!(matches!(replication.create_slot("Archive; x", false).await, Err(Error::Misuse(_))));

    replication.create_slot("archive", false).await.unwrap();
    let error = replication.create_slot("archive", false).await.unwrap_err();
    assert!(matches!(error, Error::Refused { ref said, .. } if said.sqlstate == "42710"), "{error:?}");
    replication.create_slot("passing", true).await.unwrap();
    assert!(replication.slot("passing").await.unwrap().is_some());
    cluster.value("pg_create_logical_replication_slot('decoder', 'pgoutput')").await;
    let decoder = replication.slot("decoder").await;
    assert!(matches!(decoder, Err(Error::SlotLogical { .. })), "{decoder:?}");
    cluster.value("pg_drop_replication_slot('decoder')").await;

    let stream = cluster.replication().await.wal(Some("archive"), now.timeline, now.flushed).await.unwrap();
    let error =
        cluster.replication().await.wal(Some("archive"), now.timeline, now.flushed).await.err().unwrap();
    assert!(matches!(error, Error::SlotBusy { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::Again);
    drop(stream);
    drop(replication);
    crate::cluster::until("the temporary slot is gone", async || {
        cluster.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'passing'").await == "0"
    })
    .await;

    // More log than a slot may keep: the server lets it go.
    crate::cluster::until("the slot is invalidated", async || {
        for _ in 0..4 {
            cluster.next_segment().await;
        }
        cluster.run("CHECKPOINT").await;
        cluster.value("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'archive'").await
            == "lost"
    })
    .await;
    let error =
        cluster.replication().await.wal(Some("archive"), now.timeline, now.flushed).await.err().unwrap();
    assert!(matches!(error, Error::SlotLost { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::BaseBackup);
    // Without a slot, the log that is gone is named.
    let mut replication = cluster.replication().await;
    let error = match cluster.replication().await.wal(None, now.timeline, now.flushed).await {
        Ok(mut stream) => stream.next().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::WalRemoved { from, .. } if from == now.flushed), "{error:?}");
    replication.drop_slot("archive").await.unwrap();
    assert_eq!(replication.slot("archive").await.unwrap(), None);
    let flushed = replication.identify().await.unwrap().flushed;
    let ahead = Lsn::new(flushed.get() + SEGMENT);
    let error = replication.wal(None, now.timeline, ahead).await.err().unwrap();
    assert!(matches!(error, Error::Ahead { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_shuts_down_waits_for_the_archive_and_says_so() {
    let mut cluster = Cluster::start("").await;
    let mut replication = cluster.replication().await;
    let now = replication.identify().await.unwrap();
    let mut stream = replication.wal(None, now.timeline, now.flushed).await.unwrap();
    stream.report(now.flushed, now.flushed, now.flushed, false).await.unwrap();
    cluster.run("CREATE TABLE last (x int)").await;
    cluster.begin_stop();
    let error = loop {
        match stream.next().await {
            Ok(_) => {
                let at = stream.position();
                stream.report(at, at, at, false).await.unwrap();
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::ShutDown { to } if to == stream.position()), "{error:?}");
    cluster.stop();
    let mut control = crate::cluster::as_servers_user("cat");
    let control = crate::cluster::run(control.arg(cluster.data.with_extension("log")));
    assert!(control.contains("database system is shut down"), "{control}");
}

#[tokio::test]
async fn a_server_that_is_killed_and_one_that_is_frozen_end_the_stream() {
    let mut cluster = Cluster::start("").await;
    let endpoint = Endpoint { silence: std::time::Duration::from_millis(400), ..cluster.endpoint() };
    let mut replication = Replication::connect(endpoint).await.unwrap();
    let now = replication.identify().await.unwrap();
    let mut stream = replication.wal(None, now.timeline, now.flushed).await.unwrap();
    // Idle, but alive: it is asked, and answers. Three times the silence that is allowed.
    let begun = std::time::Instant::now();
    let mut signs = 0;
    while begun.elapsed() < std::time::Duration::from_millis(1200) {
        if let Wal::Keepalive { .. } = stream.next().await.unwrap() {
            signs += 1;
        }
    }
    assert!(signs >= 2, "{signs}");
    cluster.freeze();
    let error = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    cluster.thaw();

    let mut stream = cluster.replication().await.wal(None, now.timeline, now.flushed).await.unwrap();
    cluster.kill();
    let error = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::Again);
}

#[tokio::test]
async fn nothing_is_reported_that_was_not_sent() {
    let cluster = Cluster::start("").await;
    let mut replication = cluster.replication().await;
    let now = replication.identify().await.unwrap();
    let mut stream = replication.wal(None, now.timeline, now.flushed).await.unwrap();
    let beyond = Lsn::new(now.flushed.get() + 1);
    assert!(matches!(stream.report(beyond, beyond, beyond, false).await, Err(Error::Misuse(_))));
    assert!(stream.go_on_from(now.flushed).is_err());
}

#[tokio::test]
async fn a_stream_that_is_dropped_takes_its_leave() {
    let cluster = Cluster::start("").await;
    let mut replication = cluster.replication().await;
    let now = replication.identify().await.unwrap();
    let stream = replication.wal(None, now.timeline, now.flushed).await.unwrap();
    crate::cluster::until("it streams", async || {
        cluster.value("SELECT string_agg(state, ',') FROM pg_stat_replication").await == "streaming"
    })
    .await;
    drop(stream);
    crate::cluster::until("it is gone", async || {
        cluster.value("SELECT count(*) FROM pg_stat_replication").await == "0"
    })
    .await;
    let log = fs::read_to_string(cluster.data.with_extension("log")).unwrap();
    assert!(!log.contains("unexpected EOF") && !log.contains("Connection reset"), "{log}");
}
