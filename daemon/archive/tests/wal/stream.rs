//! A stream goes in, and comes out again.

use lifeboat_archive::Trouble;
use lifeboat_archive::wal::survey;

use crate::world::{FIRST, MIB, SYSTEM, World, at_once, between, lsn, segment, stream, when_asked};

#[tokio::test]
async fn a_stream_is_stored_in_segments_and_a_last_piece_and_given_back() {
    let world = World::new().await;
    let all = stream(1, 4 * MIB);
    let end = 3 * MIB + 12345;
    let mut writer = world.writer(FIRST, when_asked()).await;
    assert_eq!(writer.next(), lsn(MIB));
    let mut at = MIB;
    while at < end {
        let to = (at + 70_001).min(end);
        writer.append(lsn(at), between(&all, at, to)).await.unwrap();
        at = to;
    }
    assert_eq!(writer.flush().await.unwrap(), lsn(end));
    assert_eq!(writer.held().lsn, lsn(end));
    let piece = format!("{}.00000000-{:08X}", segment(FIRST, 3 * MIB), 12345);
    let folder = |name: &str| format!("00000001/{name}");
    let names = [&segment(FIRST, MIB), &segment(FIRST, 2 * MIB), &piece].map(|name| folder(name));
    assert_eq!(world.names(), names);

    assert_eq!(world.get(&segment(FIRST, MIB)).await.unwrap().unwrap(), between(&all, MIB, 2 * MIB));
    assert_eq!(world.get(&segment(FIRST, 2 * MIB)).await.unwrap().unwrap(), between(&all, 2 * MIB, 3 * MIB));
    let mut last = between(&all, 3 * MIB, end).to_vec();
    last.resize(1 << 20, 0);
    assert!(world.get(&segment(FIRST, 3 * MIB)).await.unwrap().unwrap() == last, "zeros after the end");
    assert_eq!(world.get(&segment(FIRST, 4 * MIB)).await.unwrap(), None);
    assert_eq!(world.get(&segment(FIRST, 0)).await.unwrap(), None, "before the first");
    assert_eq!(world.get("00000002.history").await.unwrap(), None);

    let map = survey(&world.archive, SYSTEM).await.unwrap();
    assert_eq!(map.covers(lsn(MIB), FIRST, lsn(end)), Ok(()));
    let gap = map.covers(lsn(MIB), FIRST, lsn(end + 1)).unwrap_err();
    assert_eq!(
        (gap.from, gap.to, gap.segment.to_string()),
        (lsn(end), lsn(end + 1), segment(FIRST, 3 * MIB))
    );
    assert_eq!(map.newest_timeline().unwrap().newest.unwrap().lsn, lsn(end));
    assert_eq!(map.gaps().count(), 0);
}

#[tokio::test]
async fn a_writer_goes_on_where_the_one_before_it_ended() {
    let world = World::new().await;
    let all = stream(2, 3 * MIB);
    let (stop, end) = (MIB + 300_000, 3 * MIB);
    let mut writer = world.writer(FIRST, at_once()).await;
    for at in [MIB, MIB + 100_000, MIB + 200_000] {
        writer.append(lsn(at), between(&all, at, at + 100_000)).await.unwrap();
        assert_eq!(writer.flush().await.unwrap(), lsn(at + 100_000));
    }
    let held = writer.held();
    drop(writer);
    let mut writer = world.writer(FIRST, at_once()).await;
    assert_eq!(writer.next(), lsn(stop));
    assert_eq!((writer.held().lsn, writer.held().received), (lsn(stop), held.received));
    // As a receiver that begins at the beginning of a segment.
    writer.append(lsn(MIB), between(&all, MIB, MIB + 350_000)).await.unwrap();
    writer.append(lsn(MIB + 350_000), between(&all, MIB + 350_000, end)).await.unwrap();
    assert_eq!(writer.flush().await.unwrap(), lsn(end));
    for at in [MIB, 2 * MIB] {
        assert_eq!(world.get(&segment(FIRST, at)).await.unwrap().unwrap(), between(&all, at, at + MIB));
    }
}

#[tokio::test]
async fn bytes_that_do_not_follow_are_refused_by_name() {
    let world = World::new().await;
    let all = stream(3, 3 * MIB);
    let mut writer = world.writer(FIRST, when_asked()).await;
    writer.append(lsn(MIB), between(&all, MIB, 2 * MIB + 1000)).await.unwrap();
    let gap = writer.append(lsn(2 * MIB + 1001), between(&all, MIB, MIB + 1)).await.unwrap_err();
    assert!(matches!(&gap, Trouble::Gap(gap) if gap.segment.to_string() == segment(FIRST, 2 * MIB)));
    let other = stream(4, 2 * MIB);
    let conflict = writer.append(lsn(2 * MIB), between(&other, MIB, MIB + 1500)).await.unwrap_err();
    assert!(matches!(&conflict, Trouble::Conflict { name, .. } if name.as_str() == segment(FIRST, 2 * MIB)));
    let before = writer.append(lsn(MIB), between(&all, MIB, MIB + 1500)).await.unwrap_err();
    assert!(matches!(&before, Trouble::Refused(why) if why.contains(&segment(FIRST, MIB))), "{before}");
    writer.append(lsn(2 * MIB), between(&all, 2 * MIB, 2 * MIB + 2000)).await.unwrap();
    assert_eq!(writer.flush().await.unwrap(), lsn(2 * MIB + 2000));
}
