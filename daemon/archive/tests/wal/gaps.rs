//! What is missing or changed is named, and never taken for the end.

use std::time::Duration;

use lifeboat_archive::Trouble;
use lifeboat_archive::wal::{Base, ReachError, Target, survey};
use lifeboat_core::Moment;

use crate::world::{FIRST, MIB, SYSTEM, World, at_once, between, lsn, segment, stream, when_asked};

/// Five segments and a piece, one after the other.
async fn five() -> (World, bytes::Bytes) {
    let world = World::new().await;
    let all = stream(10, 6 * MIB);
    let mut writer = world.writer(FIRST, when_asked()).await;
    for at in (MIB..6 * MIB).step_by(1 << 20) {
        writer.append(lsn(at), between(&all, at, at + MIB)).await.unwrap();
        writer.flush().await.unwrap();
    }
    for at in [0, 1000, 2000] {
        writer.append(lsn(6 * MIB + at), between(&all, 6 * MIB + at, 6 * MIB + at + 1000)).await.unwrap();
        writer.flush().await.unwrap();
    }
    (world, all)
}

fn object(at: u64) -> String {
    format!("00000001/{}", segment(FIRST, at))
}

#[tokio::test]
async fn a_missing_segment_is_a_gap_with_a_name_for_all_who_need_it() {
    let (world, _) = five().await;
    world.damage(&object(3 * MIB), |_| None);
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    let gaps: Vec<_> = map.gaps().collect();
    assert!(matches!(gaps[..], [gap] if gap.segment.to_string() == segment(FIRST, 3 * MIB)), "{gaps:?}");
    assert_eq!((gaps[0].from, gaps[0].to), (lsn(3 * MIB), lsn(4 * MIB)));
    assert!(gaps[0].to_string().contains(&segment(FIRST, 3 * MIB)), "{}", gaps[0]);
    assert_eq!(map.covers(lsn(MIB), FIRST, lsn(3 * MIB)), Ok(()));
    assert_eq!(map.covers(lsn(MIB + 5), FIRST, lsn(5 * MIB)).unwrap_err().from, lsn(3 * MIB));
    assert_eq!(map.covers(lsn(4 * MIB), FIRST, lsn(6 * MIB + 3000)), Ok(()));

    let told = world.get(&segment(FIRST, 3 * MIB)).await.unwrap_err();
    assert!(matches!(told, Trouble::Gap(gap) if gap.from == lsn(3 * MIB)), "{told}");
    assert!(world.get(&segment(FIRST, 4 * MIB)).await.unwrap().is_some());
    assert_eq!(world.get(&segment(FIRST, 7 * MIB)).await.unwrap(), None, "the end is no gap");

    let base = Base { timeline: FIRST, start: lsn(MIB), end: lsn(MIB + 100) };
    for target in [Target::Latest, Target::Lsn(lsn(3 * MIB + 1)), Target::Time(Moment::from_millis(u64::MAX))]
    {
        match map.reach(&world.archive, base, &target, None).await {
            Err(ReachError::Short { stop, gap, .. }) => {
                assert_eq!((stop.lsn, gap.unwrap().from), (lsn(3 * MIB), lsn(3 * MIB)));
                assert!(stop.received.is_some());
            }
            other => panic!("{target:?}: {other:?}"),
        }
    }
    let reach = map.reach(&world.archive, base, &Target::Lsn(lsn(3 * MIB)), None).await.unwrap();
    assert!(reach.certain);
    let past = map.reach(&world.archive, base, &Target::Lsn(lsn(MIB + 99)), None).await.unwrap_err();
    assert!(matches!(past, ReachError::BeforeBackup { .. }), "{past}");
    let later = Base { start: lsn(2 * MIB), end: lsn(4 * MIB), ..base };
    let unusable = map.reach(&world.archive, later, &Target::Latest, None).await.unwrap_err();
    assert!(matches!(unusable, ReachError::Unusable(gap) if gap.from == lsn(3 * MIB)), "{unusable}");
}

#[tokio::test]
async fn a_moment_is_reached_when_bytes_were_received_after_it() {
    let (world, _) = five().await;
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    let newest = map.newest_timeline().unwrap().newest.unwrap();
    assert_eq!(newest.lsn, lsn(6 * MIB + 3000));
    let base = Base { timeline: FIRST, start: lsn(MIB), end: lsn(MIB + 100) };
    let reach = map.reach(&world.archive, base, &Target::Time(newest.received), None).await.unwrap();
    assert_eq!((reach.lsn, reach.received, reach.certain), (newest.lsn, Some(newest.received), false));
    let later = Target::Time(newest.received + Duration::from_millis(1));
    let short = map.reach(&world.archive, base, &later, None).await.unwrap_err();
    assert!(matches!(short, ReachError::Short { gap: None, .. }), "{short}");
    let mut writer = world.writer(FIRST, at_once()).await;
    let sent = newest.received + Duration::from_secs(5);
    writer.sent(sent);
    writer.append(lsn(6 * MIB + 3000), bytes::Bytes::from_static(b"more")).await.unwrap();
    writer.flush().await.unwrap();
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    let reach = map.reach(&world.archive, base, &Target::Time(sent), None).await.unwrap();
    assert!(reach.certain, "the server's own clock was there");
}

#[tokio::test]
async fn a_missing_piece_is_a_gap_and_the_next_writer_fills_it() {
    let (world, all) = five().await;
    let piece = format!("{}.000003E8-000007D0", object(6 * MIB));
    world.damage(&piece, |there| {
        assert!(there.is_some());
        None
    });
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    let gap = map.gaps().next().unwrap();
    assert_eq!((gap.from, gap.to), (lsn(6 * MIB + 1000), lsn(6 * MIB + 2000)));
    let told = world.get(&segment(FIRST, 6 * MIB)).await.unwrap_err();
    assert!(matches!(told, Trouble::Gap(_)), "{told}");

    let mut writer = world.writer(FIRST, at_once()).await;
    assert_eq!((writer.next(), writer.held().lsn), (lsn(6 * MIB + 1000), lsn(6 * MIB + 1000)));
    writer.append(lsn(6 * MIB + 1000), between(&all, 6 * MIB + 1000, 6 * MIB + 4000)).await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(survey(&world.archive, SYSTEM).await.unwrap().gaps().count(), 0);
    let back = world.get(&segment(FIRST, 6 * MIB)).await.unwrap().unwrap();
    assert_eq!(back[..4000], between(&all, 6 * MIB, 6 * MIB + 4000));
}

#[tokio::test]
async fn a_byte_that_was_changed_is_found_and_pieces_stand_in() {
    let (world, all) = five().await;
    let flip = |there: Option<bytes::Bytes>| {
        let mut bytes = there.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Some(bytes.into())
    };
    world.damage(&object(2 * MIB), flip);
    let told = world.get(&segment(FIRST, 2 * MIB)).await.unwrap_err();
    assert!(
        matches!(&told, Trouble::Damaged { name, .. } if name.as_str().ends_with(&object(2 * MIB))),
        "{told}"
    );
    let second = format!("{}.000003E8-000007D0", object(6 * MIB));
    world.damage(&second, flip);
    let told = world.get(&segment(FIRST, 6 * MIB)).await.unwrap_err();
    assert!(matches!(&told, Trouble::Damaged { name, .. } if name.as_str().ends_with(&second)), "{told}");

    // Its segment is received again, and then the damage is over.
    let mut writer = world.writer(FIRST, when_asked()).await;
    assert_eq!(writer.next(), lsn(6 * MIB));
    writer.append(lsn(6 * MIB), between(&all, 6 * MIB, 7 * MIB)).await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(world.get(&segment(FIRST, 6 * MIB)).await.unwrap().unwrap(), between(&all, 6 * MIB, 7 * MIB));
    // And of a segment whose object is damaged its pieces would do, were they whole.
    world.damage(&object(6 * MIB), flip);
    assert!(world.get(&segment(FIRST, 6 * MIB)).await.is_err(), "they are not");
}

#[tokio::test]
async fn a_damaged_piece_stands_in_nobodys_way() {
    let world = World::new().await;
    let all = stream(12, MIB);
    let mut writer = world.writer(FIRST, when_asked()).await;
    for to in [1000, 2000] {
        writer.append(writer.next(), between(&all, writer.next().get(), MIB + to)).await.unwrap();
        writer.flush().await.unwrap();
    }
    drop(writer);
    // In its middle, so that its ends are as they were; then in its end.
    for from_end in [300, 12] {
        world.damage(&format!("{}.000003E8-000007D0", object(MIB)), |there| {
            let mut bytes = there.unwrap().to_vec();
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
            Some(bytes.into())
        });
        let map = survey(&world.archive, SYSTEM).await.unwrap();
        if from_end == 12 {
            assert_eq!(map.timelines[&FIRST].damaged.len(), 1);
            assert_eq!(map.newest_timeline().unwrap().newest.unwrap().lsn, lsn(MIB + 1000));
        }
        let mut writer = world.writer(FIRST, when_asked()).await;
        assert_eq!(writer.next(), lsn(MIB), "its segment is received again");
        writer.append(lsn(MIB), between(&all, MIB, MIB + 1000)).await.unwrap();
        assert_eq!(writer.flush().await.unwrap(), lsn(MIB + 1000), "a piece that is there and whole");
        writer.append(lsn(MIB + 1000), between(&all, MIB + 1000, MIB + 2000)).await.unwrap();
        writer.ask();
        let more = MIB + 2000 + from_end as u64;
        tokio::time::timeout(Duration::from_millis(200), writer.flush()).await.unwrap_err();
        writer.append(lsn(MIB + 2000), between(&all, MIB + 2000, more)).await.unwrap();
        assert_eq!(writer.flush().await.unwrap(), lsn(more));
        drop(writer);
        let back = world.get(&segment(FIRST, MIB)).await.unwrap().unwrap();
        assert_eq!(back[..2000], between(&all, MIB, MIB + 2000));
        let piece = format!("{}.000003E8-{:08X}", object(MIB), more - MIB);
        world.damage(&piece, |there| {
            assert!(there.is_some());
            None
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_hole_that_was_in_flight_when_a_writer_died_is_no_gap_and_is_filled() {
    let world = World::new().await;
    let all = stream(11, 4 * MIB);
    let options =
        || lifeboat_archive::wal::WalOptions { segments_in_flight: 3, oldest: None, ..when_asked() };
    let mut writer = world.writer(FIRST, when_asked()).await;
    writer.append(lsn(MIB), between(&all, MIB, 2 * MIB)).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    let mut writer = world.writer(FIRST, options()).await;
    // All three begin before any of them arrives.
    world.store.fault(|fault| fault.delay = Duration::from_millis(50));
    writer.append(lsn(2 * MIB), between(&all, 2 * MIB, 5 * MIB)).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    world.store.fault(|fault| fault.delay = Duration::ZERO);
    world.damage(&object(2 * MIB), |_| None);
    world.damage(&object(3 * MIB), |_| None);

    let map = survey(&world.archive, SYSTEM).await.unwrap();
    assert_eq!(map.gaps().count(), 0);
    let first = &map.timelines[&FIRST];
    assert_eq!((first.in_flight[0].from, first.in_flight[0].to), (lsn(2 * MIB), lsn(4 * MIB)));
    assert_eq!(first.newest.unwrap().lsn, lsn(2 * MIB), "nothing is counted beyond it");
    assert_eq!(world.get(&segment(FIRST, 2 * MIB)).await.unwrap(), None, "here it ends");
    assert_eq!(world.get(&segment(FIRST, MIB)).await.unwrap().unwrap(), between(&all, MIB, 2 * MIB));

    let mut writer = world.writer(FIRST, options()).await;
    assert_eq!(writer.next(), lsn(2 * MIB));
    writer.append(lsn(2 * MIB), between(&all, 2 * MIB, 5 * MIB)).await.unwrap();
    assert_eq!(writer.flush().await.unwrap(), lsn(5 * MIB));
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    assert_eq!(map.covers(lsn(MIB), FIRST, lsn(5 * MIB)), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_hole_before_all_that_is_there_is_filled_as_well() {
    let world = World::new().await;
    let all = stream(13, 2 * MIB);
    let mut writer = world.writer(FIRST, when_asked()).await;
    // Both begin before any of them arrives.
    world.store.fault(|fault| fault.delay = Duration::from_millis(50));
    writer.append(lsn(MIB), all.clone()).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    world.store.fault(|fault| fault.delay = Duration::ZERO);
    world.damage(&object(MIB), |_| None);
    for oldest in [Some(lsn(MIB)), None] {
        let options = lifeboat_archive::wal::WalOptions { oldest, ..when_asked() };
        assert_eq!(world.writer(FIRST, options).await.next(), lsn(MIB));
    }
}

#[tokio::test]
async fn what_the_server_cannot_give_any_more_stays_a_gap_and_a_writer_begins_after_it() {
    let (world, all) = five().await;
    let oldest = Some(lsn(8 * MIB + 77));
    let mut writer = world.writer(FIRST, lifeboat_archive::wal::WalOptions { oldest, ..when_asked() }).await;
    assert_eq!(writer.next(), lsn(8 * MIB));
    writer.append(lsn(8 * MIB), between(&all, MIB, MIB + 500)).await.unwrap();
    writer.flush().await.unwrap();
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    let gap = map.gaps().next().unwrap();
    assert_eq!((gap.from, gap.to), (lsn(6 * MIB + 3000), lsn(8 * MIB)));
    assert_eq!(gap.segment.to_string(), segment(FIRST, 6 * MIB));
    assert!(matches!(world.get(&segment(FIRST, 7 * MIB)).await, Err(Trouble::Gap(_))));
    let base = Base { timeline: FIRST, start: lsn(8 * MIB), end: lsn(8 * MIB + 400) };
    let reach = map.reach(&world.archive, base, &Target::Latest, None).await.unwrap();
    assert_eq!(reach.lsn, lsn(8 * MIB + 500), "a new backup anchors it again");
}
