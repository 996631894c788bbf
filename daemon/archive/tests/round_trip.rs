//! What went in comes out, byte by byte; and what has not changed is not stored again.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "grove/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::restore::{Options, Progress};
use lifeboat_archive::{Archive, BackupId, Plan, Summary, Trouble};
use lifeboat_core::{Moment, SystemIdentifier};
use lifeboat_engine::pretend::MemoryStore;

const SYSTEM: u64 = 7_450_000_000_000_000_001;

struct Place {
    scratch: tempfile::TempDir,
    archive: Archive,
    hour: u64,
}

impl Place {
    async fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let key = KeyFile::make(&scratch.path().join("key")).unwrap();
        let archive = Archive::init(Arc::new(MemoryStore::default()), &key).await.unwrap();
        fs::create_dir(scratch.path().join("tree")).unwrap();
        Self { scratch, archive, hour: 0 }
    }

    fn tree(&self) -> std::path::PathBuf {
        self.scratch.path().join("tree")
    }

    fn file(&self, name: &str, content: &[u8]) {
        let path = self.tree().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    async fn backup(&mut self, previous: Option<&BackupId>) -> Summary {
        self.hour += 1;
        let now = Moment::from_millis(1_795_000_000_000 + self.hour * 3_600_000);
        tree::store(&self.archive, &self.tree(), SYSTEM, now, previous).await.unwrap()
    }

    async fn restore(&self, backup: &BackupId, to: &str, delta: bool) -> Result<Progress, Trouble> {
        let plan = Plan::of(&self.archive, SystemIdentifier::new(SYSTEM), backup).await?;
        let options = Options { delta, ..Options::default() };
        plan.run(&self.scratch.path().join(to), &options, Arc::new(|_| {})).await
    }

    async fn restores_equal(&self, backup: &BackupId, to: &str) {
        self.restore(backup, to, false).await.unwrap();
        equal(&self.tree(), &self.scratch.path().join(to));
    }
}

/// Bytes that do not compress, another sequence for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[7; 32]).update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn equal(one: &Path, other: &Path) {
    let below = |root: &Path| -> Vec<_> {
        tree::everything(root).iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect()
    };
    assert_eq!(below(one), below(other));
    for path in below(one) {
        let (left, right) = (one.join(&path), other.join(&path));
        let [a, b] = [&left, &right].map(|path| path.symlink_metadata().unwrap());
        assert_eq!(a.mode(), b.mode(), "{}", path.display());
        if a.is_symlink() {
            assert_eq!(fs::read_link(&left).unwrap(), fs::read_link(&right).unwrap());
        } else if a.is_file() {
            assert_eq!(a.mtime(), b.mtime(), "{}", path.display());
            assert!(fs::read(&left).unwrap() == fs::read(&right).unwrap(), "{} differs", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_awkward_tree_comes_back_as_it_was() {
    let mut place = Place::new().await;
    for size in [0, 1, 8191, 8192, 8193, 131_071, 131_072, 131_073, 1 << 20, (1 << 20) - 1, (1 << 20) + 1] {
        place.file(&format!("sizes/{size}"), &noise(size as u64, size));
    }
    place.file("large/zeros", &vec![0; 3 << 20]);
    place.file("large/noise", &noise(1, (20 << 20) + 17));
    place.file("weird \"ñame\"/it's\n\\ü", b"named");
    place.file("deep/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p", b"deep");
    fs::create_dir(place.tree().join("empty")).unwrap();
    std::os::unix::fs::symlink("../sizes/1", place.tree().join("deep/link")).unwrap();
    fs::set_permissions(place.tree().join("sizes/1"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(place.tree().join("empty"), fs::Permissions::from_mode(0o500)).unwrap();
    let first = place.backup(None).await;
    place.restores_equal(&first.backup, "restored").await;

    let second = place.backup(Some(&first.backup)).await;
    assert!(second.sums.stored * 100 < first.sums.stored, "{second:?} after {first:?}");
    assert_eq!((second.sums.new, second.sums.referenced), (0, first.sums.source));
    place.restores_equal(&second.backup, "restored again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_small_files_are_few_objects() {
    let mut place = Place::new().await;
    for number in 0..20_000_u32 {
        place.file(&format!("base/{}/{number}", number % 40), &noise(u64::from(number), 40));
    }
    let first = place.backup(None).await;
    assert_eq!(first.sums.files, 20_000);
    assert!(first.sums.objects <= 4, "{first:?}");
    place.file("base/7/7", &noise(0, 41));
    let second = place.backup(Some(&first.backup)).await;
    assert_eq!(second.sums.new, 41);
    place.restores_equal(&second.backup, "restored").await;
}
