//! Where a restore goes: into what is empty, or over a stopped cluster of the same system.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::place::{Place, SYSTEM, equal, noise};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_already_is_not_fetched_and_what_is_foreign_goes() {
    let mut place = Place::new().await;
    place.control();
    place.file("base/5/1", &noise(1, (5 << 20) + 3));
    place.file("base/5/2", &noise(2, 100_000));
    place.file("base/5/empty", b"");
    place.file("base/6/was a file", b"file");
    let first = place.backup(None).await;
    place.restores_equal(&first.backup, "target").await;

    let target = place.scratch.path().join("target");
    let changed = fs::OpenOptions::new().write(true).open(target.join("base/5/1")).unwrap();
    changed.write_all_at(&[9; 10], 3_000_000).unwrap();
    changed.set_len(5 << 20).unwrap();
    fs::write(target.join("base/5/2"), noise(2, 200_000)).unwrap();
    fs::remove_file(target.join("base/6/was a file")).unwrap();
    fs::create_dir_all(target.join("base/6/was a file/now a folder")).unwrap();
    fs::create_dir_all(target.join("base/7/foreign")).unwrap();
    fs::write(target.join("base/7/foreign/file"), b"foreign").unwrap();
    fs::write(place.scratch.path().join("outside"), b"outside").unwrap();
    fs::remove_file(target.join("base/5/empty")).unwrap();
    std::os::unix::fs::symlink("../../../outside", target.join("base/5/empty")).unwrap();
    fs::write(target.join("postmaster.pid"), "999999999\n").unwrap();

    let refused = place.restore(&first.backup, "target", false).await.unwrap_err();
    assert!(refused.to_string().contains("--delta"), "{refused}");
    let done = place.restore(&first.backup, "target", true).await.unwrap();
    equal(&place.tree(), &target);
    // Two blocks of the one file, and the files that were none; the control file is always written.
    let fetched = done.bytes - done.kept;
    assert_eq!(fetched, 8192 + 3 + 4 + 8192, "{done:?}");
    assert_eq!(fs::read(place.scratch.path().join("outside")).unwrap(), b"outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_is_there_is_left_alone() {
    let mut place = Place::new().await;
    place.control();
    place.file("base/1", b"one");
    let first = place.backup(None).await;
    let target = place.scratch.path().join("target");
    let untouched = |target: &Path| {
        assert_eq!(fs::read_dir(target).unwrap().count(), 1);
    };

    fs::create_dir(&target).unwrap();
    fs::write(target.join("photos"), b"mine").unwrap();
    let refused = place.restore(&first.backup, "target", true).await.unwrap_err();
    assert!(refused.to_string().contains("no database cluster"), "{refused}");
    untouched(&target);

    fs::remove_file(target.join("photos")).unwrap();
    fs::create_dir(target.join("global")).unwrap();
    fs::write(target.join("global/pg_control"), [7; 8192]).unwrap();
    let refused = place.restore(&first.backup, "target", true).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("the backup is of {SYSTEM}")), "{refused}");
    untouched(&target);

    fs::remove_dir_all(&target).unwrap();
    place.restores_equal(&first.backup, "target").await;
    let pid = std::process::id();
    fs::write(target.join("postmaster.pid"), format!("{pid}\n{}\n", target.display())).unwrap();
    let refused = place.restore(&first.backup, "target", true).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("process {pid}")), "{refused}");
    assert!(target.join("global/pg_control").exists(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_broken_off_goes_on() {
    let mut place = Place::new().await;
    place.control();
    place.file("base/1", &noise(1, 3 << 20));
    place.file("base/2", &noise(2, 20 << 20));
    let first = place.backup(None).await;
    let object = format!("backups/{:016x}/{}/data-00002", SYSTEM.get(), first.backup).parse().unwrap();
    let mut held = None;
    place.store.damage(&object, |object| {
        held = object;
        None
    });
    let target = place.scratch.path().join("target");
    assert!(place.restore(&first.backup, "target", false).await.is_err());
    assert!(!target.join("global/pg_control").exists() && target.join("lifeboat-restore.json").exists());
    place.store.damage(&object, |_| held);
    let done = place.restore(&first.backup, "target", true).await.unwrap();
    assert!(done.kept >= 3 << 20, "{done:?}");
    equal(&place.tree(), &target);
}
