//! A restore onto a disk that becomes full: it says so, and what is there does not start.

use std::process::Command;
use std::sync::Arc;

use lifeboat_archive::folder::Folder;
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::restore::Options;
use lifeboat_archive::{Archive, Plan, Trouble};
use lifeboat_core::Moment;

use crate::place::{Place, SYSTEM, noise};
use crate::tree;

/// Where the child finds the archive.
const TOLD: &str = "LIFEBOAT_TEST_RESTORE_FROM";

/// Told a folder by its parent, which allows it files of two megabytes at most, it finds that the disk is full.
#[tokio::test(flavor = "multi_thread")]
async fn no_room_for_it() {
    if let Some(told) = std::env::var_os(TOLD) {
        let home = std::path::PathBuf::from(told);
        let key = KeyFile::open(&home.join("key")).unwrap();
        let archive =
            Archive::open(Arc::new(Folder::open(home.join("archive")).unwrap()), &key).await.unwrap();
        let listed = lifeboat_archive::catalog(&archive, SYSTEM).await.unwrap();
        let plan = Plan::of(&archive, SYSTEM, &listed[0].backup).await.unwrap();
        let failed = plan.run(&home.join("target"), &Options::default(), Arc::new(|_| {})).await.unwrap_err();
        let Trouble::File { path, source } = failed else { panic!("{failed}") };
        assert!(path.ends_with("base/large"), "{}", path.display());
        assert_eq!(source.kind(), std::io::ErrorKind::FileTooLarge);
        return;
    }
    let place = Place::new().await;
    place.control();
    place.file("base/large", &noise(1, 5 << 20));
    let home = place.scratch.path();
    std::fs::create_dir(home.join("archive")).unwrap();
    let key = KeyFile::open(&home.join("key")).unwrap();
    let folder = Arc::new(Folder::open(home.join("archive")).unwrap());
    let archive = Archive::init(folder, &key).await.unwrap();
    let now = Moment::from_millis(1_795_000_000_000);
    tree::store(&archive, &place.tree(), SYSTEM, now, None).await.unwrap();
    // In a shell that ignores the signal of the limit.
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" --exact full::no_room_for_it --nocapture";
    let done = Command::new("bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(TOLD, home)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("1 passed"), "{out}{err}");
    assert!(home.join("target/base/large").exists() && !home.join("target/global/pg_control").exists());
}
