//! What has changed is stored, and nothing else.

use std::fs;
use std::os::unix::fs::FileExt;

use lifeboat_archive::manifest::catalog::State;
use lifeboat_archive::{Backup, FileHeading, Manifest, catalog};
use lifeboat_engine::pretend::StoreFault;

use crate::place::{Place, SYSTEM, noise, pages};
use crate::tree;

const BLOCK: usize = 8192;

#[tokio::test(flavor = "multi_thread")]
async fn scattered_changes_cost_little_more_than_their_pages() {
    let mut place = Place::new().await;
    place.file("base/5/16384", &pages(1, 6000));
    place.file("base/5/16385", &pages(2, 300));
    let first = place.backup(None).await;
    let again = place.backup(Some(&first.backup)).await;
    assert!(again.sums.stored * 100 < first.sums.stored, "{again:?} after {first:?}");

    let file = fs::OpenOptions::new().write(true).open(place.tree().join("base/5/16384")).unwrap();
    let mut changed = Vec::new();
    for number in 0..400_u64 {
        let page = pages(1000 + number, 1);
        file.write_all_at(&page, number * 15 * BLOCK as u64).unwrap();
        changed.extend_from_slice(&page);
    }
    drop(file);
    let compressed = zstd::bulk::compress(&changed, 1).unwrap().len() as u64;
    let third = place.backup(Some(&again.backup)).await;
    assert_eq!(third.sums.new, changed.len() as u64, "exactly the changed pages");
    assert!(third.sums.stored <= 2 * compressed, "{third:?}, compressed {compressed}");
    place.restores_equal(&third.backup, "restored").await;
    assert_eq!(place.verified().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_grew_shrank_moved_or_went_come_out_right_in_every_backup() {
    let mut place = Place::new().await;
    place.file("grows", &noise(1, 3 * (1 << 20) + 100));
    place.file("shrinks", &noise(2, 2 << 20));
    place.file("goes", &noise(3, 50_000));
    place.file("stays", &noise(4, 2_000_000));
    place.file("becomes a folder", b"file");
    let mut backups = vec![place.backup(None).await.backup];
    place.restores_equal(&backups[0], "restored 0").await;

    place.file("grows", &[noise(1, 3 * (1 << 20) + 100), noise(5, 3 << 20)].concat());
    place.file("shrinks", &noise(2, (1 << 20) + 1)[..]);
    fs::rename(place.tree().join("goes"), place.tree().join("went")).unwrap();
    fs::remove_file(place.tree().join("becomes a folder")).unwrap();
    place.file("becomes a folder/with a file", b"file");
    let second = place.backup(backups.last()).await;
    // What is new, the block that the file ended in, the one that it ends in now, and what has another path.
    let most = (3 << 20) + 2 * BLOCK as u64 + 50_000 + 16;
    assert!(second.sums.new <= most, "{second:?}");
    backups.push(second.backup);
    place.restores_equal(&backups[1], "restored 1").await;

    // A page goes back to what it was two backups ago; everything is cut to nothing; everything is there again.
    place.file("stays", &[0; 0]);
    backups.push(place.backup(backups.last()).await.backup);
    place.restores_equal(&backups[2], "restored 2").await;
    place.file("stays", &noise(4, 2_000_000));
    backups.push(place.backup(backups.last()).await.backup);
    place.restores_equal(&backups[3], "restored 3").await;
    let verified = place.verified().await;
    assert_eq!((verified.findings, verified.backups), (vec![], 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_dropped_is_none_and_harms_none() {
    let mut place = Place::new().await;
    place.file("large", &noise(1, 40 << 20));
    let first = place.backup(None).await;
    place.file("large", &noise(2, 40 << 20));
    let now = place.next();
    let mut dead = Backup::begin(&place.archive, tree::point(SYSTEM, now), None).await.unwrap();
    tree::give(&mut dead, &place.tree()).await.unwrap();
    let id = dead.id().clone();
    drop(dead);

    let listed = catalog(&place.archive, SYSTEM).await.unwrap();
    let states: Vec<_> = listed.iter().map(|listed| (&listed.backup, listed.label().is_some())).collect();
    assert_eq!(states, [(&first.backup, true), (&id, false)]);
    assert_eq!(listed[1].state, State::Unfinished);
    assert_eq!(place.verified().await.findings, []);
    assert!(
        place
            .restore(&id, "restored", false)
            .await
            .unwrap_err()
            .to_string()
            .contains("manifest is not there")
    );
    let second = place.backup(Some(&first.backup)).await;
    place.restores_equal(&second.backup, "restored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_run_has_stored_is_not_stored_again() {
    let mut place = Place::new().await;
    for number in 0..11_000 {
        place.file(&format!("base/{number}"), &noise(number, 4000));
    }
    let now = place.next();
    let mut dead = Backup::begin(&place.archive, tree::point(SYSTEM, now), None).await.unwrap();
    let id = dead.id().clone();
    tree::give(&mut dead, &place.tree()).await.unwrap();
    let told =
        |place: &Place| place.store.objects().keys().any(|name| name.as_str().contains("progress-00001"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    for number in 0.. {
        if told(&place) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no progress was written down");
        let path = format!("more/{number}").parse().unwrap();
        dead.file(FileHeading { tablespace: None, path, mode: 0o600, mtime: 0, size: 0 }).await.unwrap();
        dead.file_end().await.unwrap();
        tokio::task::yield_now().await;
    }
    drop(dead);
    // What was not settled is gone with the power, and one file is another one since.
    place.store.crash();
    place.file("base/1", &noise(70_000, 4000));

    let second = place.backup(None).await;
    assert!(second.sums.referenced >= 16 << 20, "{second:?}");
    assert_eq!(second.sums.new + second.sums.referenced, second.sums.source);
    place.restores_equal(&second.backup, "restored").await;
    let manifest = Manifest::read(&place.archive, SYSTEM, &second.backup).await.unwrap();
    assert!(manifest.origins.iter().any(|origin| origin.backup == id));
    assert_eq!(place.verified().await.findings, []);
    // The next one goes by the finished one, and restores from all three.
    place.file("base/2", &noise(70_001, 4000));
    let third = place.backup(Some(&second.backup)).await;
    assert_eq!(third.sums.new, 4000);
    place.restores_equal(&third.backup, "restored again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manifest_names_is_durable_before_it() {
    let mut place = Place::new().await;
    place.file("file", &noise(1, 20 << 20));
    let first = place.backup(None).await;
    place.store.crash();
    assert_eq!(place.verified().await.findings, []);
    place.restores_equal(&first.backup, "restored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_now_and_then_costs_time_and_nothing_else() {
    let mut place = Place::new().await;
    place.file("noise", &noise(1, 36 << 20));
    place.store.fault(|fault| *fault = StoreFault { fails: 5, unclear: 5, ..StoreFault::default() });
    let first = place.backup(None).await;
    place.file("more", &noise(2, 1 << 20));
    let second = place.backup(Some(&first.backup)).await;
    assert_eq!(second.sums.new, 1 << 20);
    place.restores_equal(&second.backup, "restored").await;
    assert_eq!(place.verified().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_ends_the_backup_with_that_reason() {
    let mut place = Place::new().await;
    place.file("noise", &noise(1, 40 << 20));
    place.store.fault(|fault| fault.space = Some(20 << 20));
    let now = place.next();
    let full = tree::store(&place.archive, &place.tree(), SYSTEM, now, None).await.unwrap_err();
    assert!(full.to_string().contains("full"), "{full}");
    place.store.fault(|fault| fault.space = None);
    let second = place.backup(None).await;
    place.restores_equal(&second.backup, "restored").await;
}
