//! Two writers at once: harmless with the same bytes, and found out with others.

use lifeboat_archive::Trouble;
use lifeboat_archive::wal::{survey, tidy};
use lifeboat_core::Moment;
use std::time::Duration;

use crate::world::{FIRST, MIB, SYSTEM, World, at_once, between, lsn, segment, stream, until, when_asked};

#[tokio::test]
async fn two_writers_of_one_stream_do_not_disturb_each_other() {
    let world = World::new().await;
    let all = stream(20, 3 * MIB);
    let end = 3 * MIB + 700_000;
    let (mut one, mut two) = (world.writer(FIRST, at_once()).await, world.writer(FIRST, at_once()).await);
    let store = |writer: &mut lifeboat_archive::wal::WalWriter, step: u64| {
        let all = all.clone();
        let mut at = writer.next().get();
        async move |writer: &mut lifeboat_archive::wal::WalWriter| {
            while at < end {
                let to = (at + step).min(end);
                writer.append(lsn(at), between(&all, at, to)).await.unwrap();
                at = to;
                writer.flush().await.unwrap();
            }
        }
    };
    let (mut first, mut second) = (store(&mut one, 90_000), store(&mut two, 100_001));
    tokio::join!(first(&mut one), second(&mut two));
    assert_eq!((one.held().lsn, two.held().lsn), (lsn(end), lsn(end)));
    for at in [MIB, 2 * MIB] {
        assert_eq!(world.get(&segment(FIRST, at)).await.unwrap().unwrap(), between(&all, at, at + MIB));
    }
    for at in [MIB, 2 * MIB] {
        until(|| world.names().contains(&format!("00000001/{}", segment(FIRST, at)))).await;
    }
    let last = world.get(&segment(FIRST, 3 * MIB)).await.unwrap().unwrap();
    assert_eq!(last[..700_000], between(&all, 3 * MIB, end));
    let tidied = tidy(&world.archive, SYSTEM, Duration::ZERO, Moment::from_millis(u64::MAX)).await.unwrap();
    assert!(tidied.removed > 20 && tidied.kept.is_empty(), "{tidied:?}");
    assert_eq!(world.get(&segment(FIRST, MIB)).await.unwrap().unwrap(), between(&all, MIB, 2 * MIB));
    assert!(world.names().iter().all(|name| !name.contains('.') || name.contains(&segment(FIRST, 3 * MIB))));
}

#[tokio::test]
async fn another_segment_under_the_same_name_is_refused_and_named() {
    let world = World::new().await;
    let (ours, theirs) = (stream(21, MIB), stream(22, MIB));
    let (mut one, mut two) =
        (world.writer(FIRST, when_asked()).await, world.writer(FIRST, when_asked()).await);
    one.append(lsn(MIB), ours.clone()).await.unwrap();
    one.flush().await.unwrap();
    two.append(lsn(MIB), theirs).await.unwrap();
    let told = two.flush().await.unwrap_err();
    let object = segment(FIRST, MIB);
    assert!(matches!(&told, Trouble::Conflict { name, .. } if name.as_str().ends_with(&object)), "{told}");
    assert_eq!(two.held().lsn, lsn(MIB), "and nothing of it is called durable");
    assert_eq!(world.get(&object).await.unwrap().unwrap(), ours);
}

#[tokio::test]
async fn pieces_of_two_streams_are_never_mixed() {
    let world = World::new().await;
    let (ours, theirs) = (stream(23, MIB), stream(24, MIB));
    let (mut one, mut two) =
        (world.writer(FIRST, when_asked()).await, world.writer(FIRST, when_asked()).await);
    one.append(lsn(MIB), between(&ours, MIB, MIB + 1000)).await.unwrap();
    one.flush().await.unwrap();
    // Under the same name it is found at once.
    two.append(lsn(MIB), between(&theirs, MIB, MIB + 1000)).await.unwrap();
    assert!(matches!(two.flush().await.unwrap_err(), Trouble::Conflict { .. }));
    // Under another name, when it is read: the second writer begins with less, and goes on with more.
    let mut two = world.store.objects();
    two.retain(|name, _| name.as_str().contains("wal/"));
    let kept = two.into_iter().next().unwrap();
    world.store.damage(&kept.0, |_| None);
    let mut two = world.writer(FIRST, when_asked()).await;
    for (from, to) in [(0, 900), (900, 2000)] {
        two.append(lsn(MIB + from), between(&theirs, MIB + from, MIB + to)).await.unwrap();
        two.flush().await.unwrap();
    }
    world.store.damage(&kept.0, |_| Some(kept.1.clone()));
    let told = world.get(&segment(FIRST, MIB)).await.unwrap_err();
    assert!(
        matches!(&told, Trouble::Conflict { name, .. } if name.as_str().ends_with("00000384-000007D0")),
        "{told}"
    );
    let told = lifeboat_archive::wal::WalWriter::open(
        &world.archive,
        SYSTEM,
        FIRST,
        crate::world::size(),
        when_asked(),
    )
    .await
    .unwrap_err();
    assert!(matches!(told, Trouble::Conflict { .. }), "{told}");
    // Once one of them has the whole segment, what the other one has left is kept for a person to look at.
    two.append(lsn(MIB + 2000), between(&theirs, MIB + 2000, 2 * MIB)).await.unwrap();
    two.flush().await.unwrap();
    until(|| world.names().contains(&format!("00000001/{}", segment(FIRST, MIB)))).await;
    let tidied = tidy(&world.archive, SYSTEM, Duration::ZERO, Moment::from_millis(u64::MAX)).await.unwrap();
    // Theirs are two, or three when the last one was asked for before the segment was begun.
    assert!((2..=3).contains(&tidied.removed) && tidied.kept.len() == 1, "{tidied:?}");
    assert!(matches!(&tidied.kept[0], Trouble::Conflict { name, .. } if *name == kept.0));
    assert_eq!(survey(&world.archive, SYSTEM).await.unwrap().gaps().count(), 0);
}
