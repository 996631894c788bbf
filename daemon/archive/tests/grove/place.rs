//! An archive in memory, a folder that is backed up into it, and places to restore to.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::restore::{Options, Progress};
use lifeboat_archive::verify::{Scope, Verified};
use lifeboat_archive::{Archive, BackupId, Plan, Summary, Trouble, verify};
use lifeboat_core::{Moment, SystemIdentifier};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::pretend::MemoryStore;

use crate::tree;

pub(crate) const SYSTEM: SystemIdentifier = SystemIdentifier::new(7_450_000_000_000_000_001);

/// So long before its end the moments of a test begin.
const START: u64 = 1_795_000_000_000;

pub(crate) struct Place {
    pub(crate) scratch: tempfile::TempDir,
    pub(crate) store: MemoryStore,
    pub(crate) archive: Archive,
    hour: u64,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let scratch = tempfile::tempdir_in(memory()).unwrap();
        let key = KeyFile::make(&scratch.path().join("key")).unwrap();
        let store = MemoryStore::new(Clock::start(), 5);
        let archive = Archive::init(Arc::new(store.clone()), &key).await.unwrap();
        fs::create_dir(scratch.path().join("tree")).unwrap();
        Self { scratch, store, archive, hour: 0 }
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    /// A file of the tree.
    pub(crate) fn file(&self, name: &str, content: &[u8]) {
        let path = self.tree().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// What makes the tree look like a cluster.
    pub(crate) fn control(&self) {
        self.file("global/pg_control", &[&SYSTEM.get().to_ne_bytes()[..], &[1; 8184]].concat());
    }

    /// The moment of the next backup.
    pub(crate) fn next(&mut self) -> Moment {
        self.hour += 1;
        Moment::from_millis(START + self.hour * 3_600_000)
    }

    pub(crate) async fn backup(&mut self, previous: Option<&BackupId>) -> Summary {
        let now = self.next();
        tree::store(&self.archive, &self.tree(), SYSTEM, now, previous).await.unwrap()
    }

    pub(crate) async fn restore(
        &self,
        backup: &BackupId,
        to: &str,
        delta: bool,
    ) -> Result<Progress, Trouble> {
        let plan = Plan::of(&self.archive, SYSTEM, backup).await?;
        let options = Options { delta, ..Options::default() };
        plan.run(&self.scratch.path().join(to), &options, Arc::new(|_| {})).await
    }

    pub(crate) async fn restores_equal(&self, backup: &BackupId, to: &str) {
        self.restore(backup, to, false).await.unwrap();
        equal(&self.tree(), &self.scratch.path().join(to));
    }

    pub(crate) async fn verified(&self) -> Verified {
        verify(&self.archive, SYSTEM, &Scope::default(), Arc::new(|_, _| {})).await.unwrap()
    }
}

/// Where tens of thousands of files cost no disk anything, where there is such a place and it has room.
fn memory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(shared).is_ok_and(|seen| seen.f_bavail * seen.f_frsize > 2 << 30);
    if room { shared.to_owned() } else { std::env::temp_dir() }
}

/// Bytes that do not compress, another sequence for each seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[7; 32]).update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes that compress about as pages do.
pub(crate) fn pages(seed: u64, count: usize) -> Vec<u8> {
    (0..count as u64).flat_map(|page| [noise(seed << 32 | page, 2048), vec![b' '; 6144]].concat()).collect()
}

/// Whether two folders are the same, byte by byte.
pub(crate) fn equal(one: &Path, other: &Path) {
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
