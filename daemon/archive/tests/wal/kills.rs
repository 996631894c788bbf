//! A writer may die at any point: what it had called durable is there, and the next one goes on without a hole.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_archive::Archive;
use lifeboat_archive::folder::Folder;
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::wal::{WalOptions, WalWriter, get, survey};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::world::{FIRST, MIB, SYSTEM, World, at_once, between, lsn, read, segment, size, stream};

/// Appends from where the writer is, in parts drawn from the dice, until `end` or until a part is the last one drawn.
async fn go_on(
    world: &World,
    all: &bytes::Bytes,
    dice: &mut ChaCha8Rng,
    parts: u32,
    piece_every: Duration,
) -> (u64, WalWriter) {
    let end = MIB + all.len() as u64;
    let options = WalOptions { piece_every, segments_in_flight: 3, pieces_in_flight: 2, ..at_once() };
    let mut writer = world.writer(FIRST, options).await;
    let mut at = writer.next().get();
    for _ in 0..parts {
        let length = [1, 200, 8192, 131_072, 700_000][dice.next_u32() as usize % 5];
        let to = (at + u64::from(dice.next_u32()) % length + 1).min(end);
        if to <= at {
            break;
        }
        writer.append(lsn(at), between(all, at, to)).await.unwrap();
        at = to;
        match dice.next_u32() % 4 {
            0 => writer.ask(),
            1 => tokio::time::sleep(Duration::from_millis(u64::from(dice.next_u32()) % 40)).await,
            _ => tokio::task::yield_now().await,
        }
    }
    (at, writer)
}

/// What is given back from the first byte on, for as long as segments are there.
async fn given_back(world: &World, to: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in (MIB..to).step_by(1 << 20) {
        let Some(found) = world.get(&segment(FIRST, at)).await.unwrap() else { break };
        bytes.extend_from_slice(&found);
    }
    bytes
}

#[tokio::test(start_paused = true)]
async fn any_stream_in_any_parts_with_any_kills_is_given_back_as_far_as_it_was_called_durable() {
    for seed in 0..20 {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let world = World::seeded(seed).await;
        let all = stream(seed, 4 * MIB + u64::from(dice.next_u32()) % MIB);
        let end = MIB + all.len() as u64;
        world.store.fault(|fault| {
            fault.delay = Duration::from_millis(seed % 3 * 7);
            fault.fails = 5;
            fault.unclear = 5;
        });
        let mut durable = MIB;
        let mut refreshed = survey(&world.archive, SYSTEM).await;
        let piece_every = Duration::from_millis(seed % 4 * 10);
        for _ in 0..12 {
            let parts = dice.next_u32() % 20;
            let (_, writer) = go_on(&world, &all, &mut dice, parts, piece_every).await;
            let held = writer.held().lsn.get();
            // The kill: nothing that is on its way is waited for.
            drop(writer);
            assert!(held >= durable, "seed {seed}: what was durable stays so");
            durable = held;
            world.store.fault(|fault| (fault.fails, fault.unclear) = (0, 0));
            let back = given_back(&world, durable).await;
            let expected = between(&all, MIB, durable);
            let same = back.iter().zip(&expected).position(|(a, b)| a != b);
            assert!(
                back.get(..expected.len()) == Some(&expected[..]),
                "seed {seed}, up to {durable:X}, of {} there are {}, the same up to {same:?}: {:?}",
                expected.len(),
                back.len(),
                world.names(),
            );
            let map = survey(&world.archive, SYSTEM).await.unwrap();
            assert_eq!(map.gaps().next(), None, "seed {seed}: a hole that was in flight is none");
            assert_eq!(map.covers(lsn(MIB), FIRST, lsn(durable)), Ok(()), "seed {seed}");
            refreshed = match refreshed {
                Ok(before) => before.refresh(&world.archive).await,
                Err(_) => survey(&world.archive, SYSTEM).await,
            };
            assert_eq!(refreshed.as_ref().unwrap(), &map, "seed {seed}: what is new is all that is new");
            world.store.fault(|fault| (fault.fails, fault.unclear) = (5, 5));
        }
        loop {
            let (at, mut writer) = go_on(&world, &all, &mut dice, 50, piece_every).await;
            assert_eq!(writer.flush().await.unwrap(), lsn(at));
            if at == end {
                break;
            }
        }
        world.store.fault(|fault| *fault = Default::default());
        let back = given_back(&world, end).await;
        assert!(back[..all.len()] == all[..], "seed {seed}: all of it");
        assert!(back[all.len()..].iter().all(|byte| *byte == 0));
        let map = survey(&world.archive, SYSTEM).await.unwrap();
        assert_eq!(map.timelines[&FIRST].in_flight, [], "seed {seed}: every hole was filled");
    }
}

#[tokio::test]
async fn a_writer_that_dies_between_storing_and_saying_so_leaves_what_it_stored() {
    let world = World::new().await;
    let all = stream(7, MIB);
    let mut writer = world.writer(FIRST, at_once()).await;
    world.store.fault(|fault| fault.unclear = 100);
    writer.append(lsn(MIB), between(&all, MIB, MIB + 5000)).await.unwrap();
    let piece = format!("00000001/{}.00000000-00001388", segment(FIRST, MIB));
    while world.names() != [piece.clone()] {
        tokio::task::yield_now().await;
    }
    drop(writer);
    world.store.fault(|fault| fault.unclear = 0);
    let writer = world.writer(FIRST, at_once()).await;
    assert_eq!((writer.next(), writer.held().lsn), (lsn(MIB + 5000), lsn(MIB + 5000)));
}

const FOLDER: &str = "LIFEBOAT_TEST_WAL_FOLDER";
const SEED: u64 = 77;
const LENGTH: u64 = 40 * MIB;

async fn folder_archive(folder: &Path) -> Archive {
    let store = Arc::new(Folder::open(folder.join("archive")).unwrap());
    Archive::open(store, &KeyFile::open(&folder.join("key")).unwrap()).await.unwrap()
}

/// The child of the test below: stores the stream and says how far, until it is killed. Without a folder it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let archive = folder_archive(Path::new(&folder)).await;
    let all = stream(SEED, LENGTH);
    let options = WalOptions { segments_in_flight: 3, ..at_once() };
    let mut writer = WalWriter::open(&archive, SYSTEM, FIRST, size(), options).await.unwrap();
    let mut watch = writer.watch();
    let said = tokio::spawn(async move {
        loop {
            let at = watch.borrow_and_update().lsn.get();
            println!("durable {at}");
            if watch.changed().await.is_err() {
                return;
            }
        }
    });
    let mut at = writer.next().get();
    while at < MIB + LENGTH {
        let to = (at + 40_000).min(MIB + LENGTH);
        writer.append(lsn(at), between(&all, at, to)).await.unwrap();
        at = to;
        if at % 7 == 0 {
            writer.flush().await.unwrap();
        }
    }
    writer.flush().await.unwrap();
    drop(writer);
    said.await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_what_it_called_durable() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyFile::make(&folder.path().join("key")).unwrap();
    let store = Arc::new(Folder::open(folder.path().join("archive")).unwrap());
    Archive::init(store, &key).await.unwrap();
    let all = stream(SEED, LENGTH);
    let mut durable = MIB;
    for lines in [1, 5, 17, 40, 60] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some((_, at)) = line.split_once("durable ") else { continue };
            let at: u64 = at.trim().parse().unwrap();
            assert!(at >= durable, "it goes on where it was: {at:X}, and {durable:X}");
            durable = at;
            seen += 1;
            if seen == lines {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let archive = folder_archive(folder.path()).await;
        let mut back = Vec::new();
        for at in (MIB..durable).step_by(1 << 20) {
            let target = folder.path().join("RECOVERYXLOG");
            get(&archive, SYSTEM, &segment(FIRST, at), &target, None, Duration::ZERO).await.unwrap();
            back.extend_from_slice(&read(&target));
        }
        let expected = between(&all, MIB, durable);
        assert!(back.get(..expected.len()) == Some(&expected[..]), "up to {durable:X}");
        let map = survey(&archive, SYSTEM).await.unwrap();
        assert_eq!(map.gaps().next(), None);
    }
    assert!(durable > MIB, "something was stored at all");
}
