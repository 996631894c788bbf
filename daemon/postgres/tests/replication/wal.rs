//! The log as a stream.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lifeboat_core::{Lsn, Timeline};
use lifeboat_postgres::replication::{Wal, WalStream};

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
