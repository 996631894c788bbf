//! Files in and out, as a server's archive and restore commands do it.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_archive::Trouble;
use lifeboat_archive::wal::{Got, Spool, get, get_ahead, push_file, push_segment, survey, tidy};
use lifeboat_core::{Moment, SystemIdentifier};

use crate::world::{
    FIRST, MIB, PATIENCE, SYSTEM, World, at_once, between, lsn, read, segment, stream, until, when_asked,
};

/// A file that begins as a segment does.
fn file(world: &World, name: &str, at: u64, seed: u64) -> (PathBuf, Vec<u8>) {
    let mut bytes = stream(seed, MIB).to_vec();
    bytes[..40].fill(0);
    bytes[..4].copy_from_slice(&[0x10, 0xD1, 0x02, 0]);
    bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
    bytes[8..16].copy_from_slice(&at.to_le_bytes());
    bytes[24..32].copy_from_slice(&SYSTEM.get().to_le_bytes());
    bytes[32..36].copy_from_slice(&u32::try_from(MIB).unwrap().to_le_bytes());
    let path = world.path(name);
    std::fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

#[tokio::test]
async fn a_file_is_stored_once_and_another_one_of_that_name_is_refused() {
    let world = World::new().await;
    let name = segment(FIRST, 2 * MIB);
    let (path, bytes) = file(&world, &name, 2 * MIB, 40);
    for _ in 0..2 {
        push_file(&world.archive, SYSTEM, &path, PATIENCE).await.unwrap();
        push_segment(&world.archive, None, &path, PATIENCE).await.unwrap();
    }
    assert_eq!(world.get(&name).await.unwrap().unwrap(), bytes);
    file(&world, &name, 2 * MIB, 41);
    let told = push_file(&world.archive, SYSTEM, &path, PATIENCE).await.unwrap_err();
    assert!(matches!(&told, Trouble::Conflict { name: of, .. } if of.as_str().ends_with(&name)), "{told}");
    assert_eq!(world.get(&name).await.unwrap().unwrap(), bytes);

    for (suffix, content) in [("00000028.backup", &b"START WAL LOCATION"[..]), ("partial", &bytes[..])] {
        let name = format!("{name}.{suffix}");
        let path = world.path(&name);
        std::fs::write(&path, content).unwrap();
        push_file(&world.archive, SYSTEM, &path, PATIENCE).await.unwrap();
        assert_eq!(world.get(&name).await.unwrap().unwrap(), content);
    }
    let history = world.path("00000002.history");
    std::fs::write(&history, "1\t0/200100\tpromoted\n").unwrap();
    push_file(&world.archive, SYSTEM, &history, PATIENCE).await.unwrap();
    assert_eq!(world.get("00000002.history").await.unwrap().unwrap(), read(&history));
    assert_eq!(survey(&world.archive, SYSTEM).await.unwrap().gaps().count(), 0);
}

#[tokio::test]
async fn what_is_not_what_its_name_says_is_refused() {
    let world = World::new().await;
    let (right, bytes) = file(&world, &segment(FIRST, 2 * MIB), 2 * MIB, 42);
    let other = SystemIdentifier::new(1);
    let told = push_file(&world.archive, other, &right, PATIENCE).await.unwrap_err();
    assert!(told.to_string().contains("is of system"), "{told}");
    let (wrong, _) = file(&world, &segment(FIRST, 3 * MIB), 2 * MIB, 42);
    let told = push_file(&world.archive, SYSTEM, &wrong, PATIENCE).await.unwrap_err();
    assert!(told.to_string().contains("it begins at 0/200000"), "{told}");
    std::fs::write(&wrong, &bytes[..5000]).unwrap();
    let told = push_file(&world.archive, SYSTEM, &wrong, PATIENCE).await.unwrap_err();
    assert!(told.to_string().contains("5000 bytes"), "{told}");
    std::fs::write(&wrong, "short").unwrap();
    assert!(push_file(&world.archive, SYSTEM, &wrong, PATIENCE).await.is_err());
    let stranger = world.path("archive_status");
    std::fs::write(&stranger, "").unwrap();
    assert!(push_file(&world.archive, SYSTEM, &stranger, PATIENCE).await.is_err());
    assert!(push_file(&world.archive, SYSTEM, &world.path("gone"), PATIENCE).await.is_err());
    assert_eq!(world.names(), [""; 0]);
}

#[tokio::test]
async fn segments_are_fetched_ahead_and_taken_from_the_spool() {
    let world = World::new().await;
    let all = stream(43, 6 * MIB);
    let mut writer = world.writer(FIRST, when_asked()).await;
    writer.append(lsn(MIB), between(&all, MIB, 6 * MIB + 100)).await.unwrap();
    writer.flush().await.unwrap();
    let spool = Spool::open(&world.path("spool"), "here", SYSTEM, 3).unwrap();
    let target = world.path("RECOVERYXLOG");
    assert!(spool.hungry());
    assert_eq!(get_ahead(&world.archive, SYSTEM, &segment(FIRST, MIB), &spool).await.unwrap(), 3);
    assert!(!spool.hungry());
    let calls = world.store.calls();
    for at in [2 * MIB, 3 * MIB] {
        let name = segment(FIRST, at);
        let got = get(&world.archive, SYSTEM, &name, &target, Some(&spool), PATIENCE).await.unwrap();
        assert_eq!((got, read(&target)), (Got::Found, between(&all, at, at + MIB).to_vec()));
    }
    assert_eq!(world.store.calls(), calls, "nothing was asked of the store for it");
    assert!(spool.hungry());
    // The last one is not whole: it will grow, and is not kept.
    assert_eq!(get_ahead(&world.archive, SYSTEM, &segment(FIRST, 4 * MIB), &spool).await.unwrap(), 1);
    let got =
        get(&world.archive, SYSTEM, &segment(FIRST, 6 * MIB), &target, Some(&spool), PATIENCE).await.unwrap();
    assert_eq!((got, &read(&target)[..100]), (Got::Found, &between(&all, 6 * MIB, 6 * MIB + 100)[..]));
    // What is behind is removed: one that was fetched and never asked for.
    assert_eq!(get_ahead(&world.archive, SYSTEM, &segment(FIRST, 5 * MIB), &spool).await.unwrap(), 0);
    let own = std::fs::read_dir(world.path("spool")).unwrap().next().unwrap().unwrap();
    let kept = std::fs::read_dir(own.path());
    assert_eq!(kept.unwrap().count(), 1, "the lock only");
}

#[tokio::test]
async fn pieces_of_whole_segments_are_removed_after_a_grace_and_no_others() {
    let world = World::new().await;
    let all = stream(44, 2 * MIB);
    let mut writer = world.writer(FIRST, at_once()).await;
    for at in (MIB..2 * MIB + 400_000).step_by(100_000) {
        writer.append(lsn(at), between(&all, at, at + 100_000)).await.unwrap();
        writer.flush().await.unwrap();
    }
    until(|| world.names().contains(&format!("00000001/{}", segment(FIRST, MIB)))).await;
    let pieces =
        |under: &str| world.names().iter().filter(|name| name.contains(&format!("{under}."))).count();
    let (first, second) = (segment(FIRST, MIB), segment(FIRST, 2 * MIB));
    let (whole, open) = (pieces(&first), pieces(&second));
    assert!(whole >= 10 && open >= 4, "{whole} {open}");
    let grace = Duration::from_secs(60);
    let written = Moment::from_millis(0);
    assert_eq!(tidy(&world.archive, SYSTEM, grace, written).await.unwrap().removed, 0, "not before");
    let tidied = tidy(&world.archive, SYSTEM, grace, Moment::from_millis(u64::MAX)).await.unwrap();
    assert!(tidied.kept.is_empty(), "{tidied:?}");
    assert_eq!((tidied.removed, pieces(&first), pieces(&second)), (whole, 0, open));
    assert_eq!(world.get(&first).await.unwrap().unwrap(), between(&all, MIB, 2 * MIB));
    assert!(world.get(&second).await.unwrap().is_some());
    assert_eq!(world.writer(FIRST, at_once()).await.next(), writer.next());
}

#[tokio::test]
async fn a_segment_that_only_pieces_hold_is_made_whole() {
    let world = World::new().await;
    let all = stream(45, MIB);
    let mut writer = world.writer(FIRST, at_once()).await;
    for at in (MIB..2 * MIB).step_by(1 << 18) {
        writer.append(lsn(at), between(&all, at, at + (1 << 18))).await.unwrap();
        writer.flush().await.unwrap();
    }
    let object = format!("00000001/{}", segment(FIRST, MIB));
    until(|| world.names().contains(&object)).await;
    world.damage(&object, |_| None);
    assert_eq!(world.get(&segment(FIRST, MIB)).await.unwrap().unwrap(), all);
    let later = Moment::from_millis(u64::MAX);
    let tidied = tidy(&world.archive, SYSTEM, Duration::ZERO, later).await.unwrap();
    assert_eq!((tidied.made_whole, tidied.removed), (1, 0));
    let tidied = tidy(&world.archive, SYSTEM, Duration::ZERO, later).await.unwrap();
    assert_eq!((tidied.made_whole, tidied.removed), (0, 4));
    assert_eq!(world.names(), [object]);
    assert_eq!(world.get(&segment(FIRST, MIB)).await.unwrap().unwrap(), all);
}
