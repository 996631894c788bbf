//! A promotion: the next timeline begins in the midst of a segment.

use lifeboat_archive::Trouble;
use lifeboat_archive::wal::{Base, ReachError, Target, WalOptions, WalWriter, put_history, survey};
use lifeboat_core::Timeline;

use crate::world::{
    FIRST, MIB, PATIENCE, SECOND, SYSTEM, World, at_once, between, lsn, segment, size, stream, until,
    when_asked,
};

const SWITCH: u64 = 3 * MIB + 5000;

async fn history(world: &World, timeline: Timeline, text: &str) {
    let text = bytes::Bytes::copy_from_slice(text.as_bytes());
    put_history(&world.archive, SYSTEM, timeline, text, PATIENCE).await.unwrap();
}

fn branched() -> String {
    format!("1\t{}\tno recovery target specified\n", lsn(SWITCH))
}

/// Timeline 1 up to a little after the switch, and timeline 2 from there to 5 MiB; what is common and what is not.
async fn promoted(world: &World) -> (bytes::Bytes, bytes::Bytes) {
    let (old, new) = (stream(30, 4 * MIB), stream(31, 4 * MIB));
    let mut writer = world.writer(FIRST, when_asked()).await;
    // The old primary wrote a little more before it was gone.
    writer.append(lsn(MIB), between(&old, MIB, SWITCH + 800)).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    history(world, SECOND, &branched()).await;
    let mut writer = world.writer(SECOND, WalOptions { oldest: None, ..when_asked() }).await;
    assert_eq!((writer.next(), writer.held().lsn), (lsn(SWITCH), lsn(SWITCH)));
    writer.append(lsn(SWITCH), between(&new, SWITCH, SWITCH + 300)).await.unwrap();
    assert_eq!(writer.flush().await.unwrap(), lsn(SWITCH + 300));
    writer.append(lsn(SWITCH + 300), between(&new, SWITCH + 300, 4 * MIB + 100)).await.unwrap();
    assert_eq!(writer.flush().await.unwrap(), lsn(4 * MIB + 100));
    // A piece made that durable; its segment is still on its way.
    until(|| world.names().contains(&format!("00000002/{}", segment(SECOND, 3 * MIB)))).await;
    (old, new)
}

#[tokio::test]
async fn the_first_segment_of_a_timeline_has_what_its_parent_had_before() {
    let world = World::new().await;
    let (old, new) = promoted(&world).await;
    let mut expected = between(&old, 3 * MIB, SWITCH).to_vec();
    expected.extend_from_slice(&between(&new, SWITCH, 4 * MIB));
    assert!(world.get(&segment(SECOND, 3 * MIB)).await.unwrap().unwrap() == expected);
    // What the old primary wrote after it stays on its own timeline.
    let last = world.get(&segment(FIRST, 3 * MIB)).await.unwrap().unwrap();
    assert_eq!(last[..5800], between(&old, 3 * MIB, SWITCH + 800));
    assert_eq!(world.get("00000002.history").await.unwrap().unwrap(), branched().as_bytes());
    assert_eq!(world.get(&segment(SECOND, 2 * MIB)).await.unwrap(), None, "the server asks the parent then");
    assert_eq!(world.get("00000003.history").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_there_is_followed_across_the_switch() {
    let world = World::new().await;
    promoted(&world).await;
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    assert_eq!(map.gaps().count(), 0);
    assert_eq!(map.timelines[&SECOND].history.as_ref().unwrap()[0].at, lsn(SWITCH));
    assert_eq!(map.covers(lsn(MIB), SECOND, lsn(4 * MIB + 100)), Ok(()));
    assert_eq!(map.covers(lsn(MIB), FIRST, lsn(SWITCH + 800)), Ok(()));
    assert_eq!(map.covers(lsn(MIB), FIRST, lsn(SWITCH + 801)).unwrap_err().from, lsn(SWITCH + 800));

    let base = Base { timeline: FIRST, start: lsn(MIB), end: lsn(MIB + 100) };
    let reach = async |base, target, on| map.reach(&world.archive, base, &target, on).await;
    let latest = reach(base, Target::Latest, None).await.unwrap();
    assert_eq!((latest.timeline, latest.lsn), (SECOND, lsn(4 * MIB + 100)));
    let old = reach(base, Target::Latest, Some(FIRST)).await.unwrap();
    assert_eq!((old.timeline, old.lsn), (FIRST, lsn(SWITCH + 800)));
    // A backup that ended on the old timeline after the switch leads nowhere else.
    let late = Base { end: lsn(SWITCH + 500), ..base };
    let dead = reach(late, Target::Latest, Some(SECOND)).await.unwrap_err();
    assert!(matches!(dead, ReachError::DeadBranch { .. }), "{dead}");
    assert_eq!(reach(late, Target::Latest, None).await.unwrap().timeline, FIRST);
    let unknown = reach(base, Target::Latest, Some(Timeline::new(9))).await.unwrap_err();
    assert!(matches!(unknown, ReachError::DeadBranch { .. }), "{unknown}");

    // What the parent is missing of the segment in which it was left, the child has.
    world.damage(&format!("00000001/{}.00000000-000016A8", segment(FIRST, 3 * MIB)), |there| {
        assert!(there.is_some());
        None
    });
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    assert_eq!(map.covers(lsn(MIB), SECOND, lsn(4 * MIB + 100)), Ok(()));
    assert!(map.reach(&world.archive, base, &Target::Lsn(lsn(4 * MIB)), None).await.unwrap().certain);
}

#[tokio::test]
async fn a_survey_goes_on_from_the_last_one_with_few_calls() {
    let world = World::new().await;
    let old = stream(30, 4 * MIB);
    let mut writer = world.writer(FIRST, at_once()).await;
    for at in (MIB..MIB + 600_000).step_by(2000) {
        writer.append(lsn(at), between(&old, at, at + 2000)).await.unwrap();
        writer.flush().await.unwrap();
    }
    drop(writer);
    let empty = survey(&World::new().await.archive, SYSTEM).await.unwrap();
    let mut map = empty.refresh(&world.archive).await.unwrap();
    assert_eq!(map, survey(&world.archive, SYSTEM).await.unwrap());
    promoted(&world).await;
    for step in 0..3 {
        let calls = world.store.calls();
        map = map.refresh(&world.archive).await.unwrap();
        let (few, calls) = (world.store.calls() - calls, world.store.calls());
        let whole = survey(&world.archive, SYSTEM).await.unwrap();
        assert_eq!(map, whole, "step {step}");
        let many = world.store.calls() - calls;
        assert!(step == 0 || few + 3 < many, "step {step}: {few} of {many}");
        if step == 1 {
            let mut writer = world.writer(SECOND, when_asked()).await;
            writer.append(writer.next(), old.slice(..MIB as usize)).await.unwrap();
            writer.flush().await.unwrap();
        }
    }
    world.damage(&format!("00000002/{}", segment(SECOND, 4 * MIB)), |_| None);
    let map = map.refresh(&world.archive).await.unwrap();
    assert_eq!(map.newest_timeline(), survey(&world.archive, SYSTEM).await.unwrap().newest_timeline());
}

#[tokio::test]
async fn a_segment_that_is_missing_where_a_timeline_begins_is_a_gap() {
    let world = World::new().await;
    promoted(&world).await;
    for name in world.names().iter().filter(|name| name.contains(&segment(SECOND, 3 * MIB))) {
        world.damage(name, |_| None);
    }
    let told = world.get(&segment(SECOND, 3 * MIB)).await.unwrap_err();
    assert!(matches!(told, Trouble::Gap(_)), "or recovery would end on the old timeline: {told}");
    let map = survey(&world.archive, SYSTEM).await.unwrap();
    let gap = map.gaps().next().unwrap();
    assert_eq!((gap.timeline, gap.from, gap.to), (SECOND, lsn(SWITCH), lsn(4 * MIB)));
    let base = Base { timeline: FIRST, start: lsn(MIB), end: lsn(MIB + 100) };
    let short = map.reach(&world.archive, base, &Target::Latest, None).await.unwrap_err();
    assert!(matches!(short, ReachError::Short { gap: Some(_), .. }), "{short}");
}

#[tokio::test]
async fn without_the_parents_bytes_the_segment_is_received_from_its_beginning() {
    let world = World::new().await;
    history(&world, SECOND, &branched()).await;
    let writer = world.writer(SECOND, WalOptions { oldest: Some(lsn(SWITCH)), ..at_once() }).await;
    assert_eq!(writer.next(), lsn(3 * MIB));
    let told = WalWriter::open(
        &world.archive,
        SYSTEM,
        Timeline::new(7),
        size(),
        WalOptions { oldest: None, ..at_once() },
    )
    .await
    .unwrap_err();
    assert!(matches!(told, Trouble::Refused(_)), "{told}");
}

#[tokio::test]
async fn a_history_is_written_once_and_nonsense_is_none() {
    let world = World::new().await;
    history(&world, SECOND, &branched()).await;
    history(&world, SECOND, &branched()).await;
    let other = bytes::Bytes::from_static(b"1\t0/9\tother\n");
    let told = put_history(&world.archive, SYSTEM, SECOND, other, PATIENCE).await.unwrap_err();
    assert!(
        matches!(&told, Trouble::Conflict { name, .. } if name.as_str().ends_with("00000002.history")),
        "{told}"
    );
    for nonsense in ["", "2\t0/9\tits own parent\n", "hello"] {
        let text = bytes::Bytes::copy_from_slice(nonsense.as_bytes());
        let told = put_history(&world.archive, SYSTEM, SECOND, text, PATIENCE).await.unwrap_err();
        assert!(matches!(told, Trouble::Refused(_)), "{told}");
    }
}
