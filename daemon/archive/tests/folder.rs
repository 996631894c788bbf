//! An archive in a folder, against a real file system, and against processes that die.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use lifeboat_archive::folder::Folder;
use lifeboat_engine::ports::{Abilities, ObjectName, Store, StoreError};
use lifeboat_engine::pretend::conformance;

/// Set for a child of these tests: the folder it writes into.
const WRITE_INTO: &str = "LIFEBOAT_TEST_WRITE_INTO";

fn name(text: &str) -> ObjectName {
    text.parse().expect("a name")
}

fn new_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.join(".new")).expect("read");
    entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect()
}

/// Every file of an archive that has no hidden part.
fn seen(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).expect("read") {
        let entry = entry.expect("read");
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if entry.file_type().expect("read").is_dir() {
            found.extend(seen(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_store_must() {
    let home = tempfile::tempdir().unwrap();
    let store = Folder::open(home.path()).unwrap();
    conformance(&store).await;
    assert_eq!(store.examine().await, Ok(Abilities { exclusive: true }));
    assert_eq!(seen(home.path()), Vec::<String>::new());
    drop(store);
    assert_eq!(new_in(home.path()), Vec::<String>::new(), "nothing half written is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_it() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (Folder::open(home.path()).unwrap(), Folder::open(home.path()).unwrap());
    let mut writing = one.begin(&name("wal/a")).await.unwrap();
    writing.write(Bytes::from(vec![1; 3 << 20])).await.unwrap();
    // Opened while another one writes: what is being written stays.
    let third = Folder::open(home.path()).unwrap();
    third.put(&name("wal/b"), Bytes::from_static(b"b")).await.unwrap();
    other.put(&name("wal/c"), Bytes::from_static(b"c")).await.unwrap();
    writing.finish().await.unwrap();
    assert_eq!(other.size(&name("wal/a")).await, Ok(Some(3 << 20)));
    assert_eq!(one.put(&name("wal/c"), Bytes::new()).await, Err(StoreError::Exists(name("wal/c"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_link_is_followed() {
    let home = tempfile::tempdir().unwrap();
    let outside = home.path().join("outside");
    let inside = home.path().join("archive");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s3cret").unwrap();
    let store = Folder::open(&inside).unwrap();
    symlink(&outside, inside.join("leads-out")).unwrap();
    symlink(outside.join("secret"), inside.join("secret")).unwrap();
    store.put(&name("mine"), Bytes::from_static(b"mine")).await.unwrap();
    symlink("mine", inside.join("also-mine")).unwrap();

    for link in ["leads-out/secret", "secret", "also-mine"] {
        assert_eq!(store.get(&name(link), 0..10).await, Err(StoreError::Missing(name(link))));
        assert_eq!(store.size(&name(link)).await, Ok(None));
    }
    let listed = store.list("", None).await.unwrap();
    assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["mine"]);
    store.put(&name("leads-out/new"), Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(
        store.put(&name("secret"), Bytes::from_static(b"x")).await,
        Err(StoreError::Exists(name("secret")))
    );
    store.remove(&name("leads-out/secret")).await.unwrap();
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "s3cret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);

    // An archive that is itself named by a link is the operator's choice.
    symlink(&inside, home.path().join("named")).unwrap();
    let named = Folder::open(home.path().join("named")).unwrap();
    assert_eq!(named.get(&name("mine"), 0..10).await, Ok(Bytes::from_static(b"mine")));
}

#[tokio::test]
async fn what_is_no_object_is_not_listed() {
    let home = tempfile::tempdir().unwrap();
    let store = Folder::open(home.path()).unwrap();
    store.put(&name("a"), Bytes::new()).await.unwrap();
    for foreign in [".hidden", "two words", "lost+found", "ä"] {
        fs::write(home.path().join(foreign), "x").unwrap();
    }
    fs::create_dir(home.path().join("folder")).unwrap();
    fs::create_dir(home.path().join(".snapshots")).unwrap();
    fs::write(home.path().join(".snapshots/a"), "x").unwrap();
    let listed = store.list("", None).await.unwrap();
    assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(store.get(&name("folder"), 0..10).await, Err(StoreError::Missing(name("folder"))));
    assert_eq!(store.size(&name("folder")).await, Ok(None));
}

#[tokio::test]
async fn a_folder_that_is_none_is_refused() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("file"), "x").unwrap();
    assert!(matches!(Folder::open(home.path().join("file")), Err(StoreError::Unusable(_))));
    // A parent that is missing may be a disk that is not mounted.
    assert!(matches!(Folder::open(home.path().join("not/there")), Err(StoreError::Unusable(_))));
    assert!(Folder::open(home.path().join("there")).is_ok());
    let mode = fs::metadata(home.path().join("there")).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "not for everybody: {mode:o}");
}

/// Writes without an end into the folder it is told, by an upload that it never finishes, or by puts; told none, it writes
/// a little into its own, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_not_finished() {
    let home = tempfile::tempdir().unwrap();
    let told = std::env::var_os(WRITE_INTO);
    let folder = told.as_ref().map_or(home.path(), Path::new);
    let store = Folder::open(folder).unwrap();
    let mut upload = store.begin(&name("base/never")).await.unwrap();
    let part = Bytes::from(vec![7; 1 << 20]);
    let mut written = 0;
    while told.is_some() || written < 20 {
        upload.write(part.clone()).await.unwrap();
        written += 1;
        if told.is_some() && written == 20 {
            // The parent waits for a line, on a stream that the test harness leaves alone.
            use std::io::Write;
            std::io::stderr().write_all(b"twenty\n").unwrap();
        }
        if written > 200 {
            // Enough: it only waits to be killed, and must not fill the disk meanwhile.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    drop(upload);
    store.settle().await.unwrap();
    assert_eq!(seen(folder), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_leaves_nothing_that_is_seen() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_upload_that_is_not_finished", "--nocapture"])
        .env(WRITE_INTO, home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).any(|line| line == "twenty");
    assert!(told, "the child wrote");

    // Alive, it keeps what it has.
    drop(Folder::open(home.path()).unwrap());
    assert_eq!(new_in(home.path()).len(), 1, "what a living process writes stays");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(new_in(home.path()).len(), 1);
    assert_eq!(seen(home.path()), Vec::<String>::new());

    let store = Folder::open(home.path()).unwrap();
    assert_eq!(new_in(home.path()), Vec::<String>::new(), "what it left is removed");
    assert_eq!(store.list("", None).await, Ok(Vec::new()));
    store.put(&name("base/never"), Bytes::from_static(b"now")).await.unwrap();
}

/// Told a folder by its parent, which allows it files of two megabytes at most, it finds that it is full.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_fits() {
    let home = tempfile::tempdir().unwrap();
    let Some(told) = std::env::var_os(WRITE_INTO) else {
        // The parent: in a shell that ignores the signal of the limit.
        let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" --exact more_than_fits --nocapture";
        let done = Command::new("bash")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .env(WRITE_INTO, home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
        assert!(said.contains("1 passed"), "{said}");
        assert_eq!(seen(home.path()), ["fits"]);
        assert_eq!(new_in(home.path()), Vec::<String>::new());
        return;
    };
    let store = Folder::open(&told).unwrap();
    let much = Bytes::from(vec![1; 3 << 20]);
    let put = store.put(&name("much"), much.clone()).await;
    assert!(matches!(put, Err(StoreError::Full(_))), "{put:?}");
    let mut upload = store.begin(&name("long")).await.unwrap();
    let mut end = Ok(());
    for _ in 0..10 {
        end = end.and(upload.write(much.clone()).await);
    }
    let end = end.and(upload.finish().await);
    assert!(matches!(end, Err(StoreError::Full(_))), "{end:?}");
    store.put(&name("fits"), Bytes::from_static(b"x")).await.unwrap();
    store.settle().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_below_an_object_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let store = Folder::open(home.path()).unwrap();
    store.put(&name("a"), Bytes::from_static(b"a")).await.unwrap();
    assert!(matches!(store.put(&name("a/b"), Bytes::new()).await, Err(StoreError::Unusable(_))));
    assert_eq!(store.get(&name("a/b"), 0..1).await, Err(StoreError::Missing(name("a/b"))));
    assert_eq!(new_in(home.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_uploads_than_are_kept_open_are_settled() {
    let home = tempfile::tempdir().unwrap();
    let store = Folder::open(home.path()).unwrap();
    for count in 0..300 {
        let mut upload = store.begin(&name(&format!("base/{}/{count}", count % 7))).await.unwrap();
        upload.write(Bytes::from(vec![1; 100])).await.unwrap();
        upload.finish().await.unwrap();
    }
    store.settle().await.unwrap();
    store.settle().await.unwrap();
    assert_eq!(seen(home.path()).len(), 300);
}
