//! An archive in a pretend store, and a stream to put into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::wal::{Got, SegmentName, SegmentSize, WalOptions, WalWriter, get};
use lifeboat_archive::{Archive, Trouble};
use lifeboat_core::{Lsn, SystemIdentifier, Timeline};
use lifeboat_engine::pretend::MemoryStore;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

pub(crate) const SYSTEM: SystemIdentifier = SystemIdentifier::new(0x1122_3344_5566_7788);
pub(crate) const FIRST: Timeline = Timeline::new(1);
pub(crate) const SECOND: Timeline = Timeline::new(2);
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Short ones: tests are slow without optimisation.
pub(crate) fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) archive: Archive,
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::seeded(0).await
    }

    pub(crate) async fn seeded(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        let store = MemoryStore::new(lifeboat_engine::clock::Clock::start(), seed);
        let archive =
            Archive::init(std::sync::Arc::new(store.clone()), &KeyFile::make(&key).unwrap()).await.unwrap();
        Self { store, archive, folder }
    }

    pub(crate) async fn writer(&self, timeline: Timeline, options: WalOptions) -> WalWriter {
        WalWriter::open(&self.archive, SYSTEM, timeline, size(), options).await.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `restore_command` would get.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let target = self.path("RECOVERYXLOG");
        match get(&self.archive, SYSTEM, name, &target, None, Duration::ZERO).await? {
            Got::Found => {
                let bytes = read(&target);
                std::fs::remove_file(&target).unwrap();
                Ok(Some(bytes))
            }
            Got::Missing => {
                assert!(!target.exists());
                Ok(None)
            }
        }
    }

    /// The names of the objects of WAL, without what all begin with.
    pub(crate) fn names(&self) -> Vec<String> {
        let under = format!("wal/{:016x}/", SYSTEM.get());
        let names = self.store.objects().into_keys();
        names.filter_map(|name| name.as_str().strip_prefix(&under).map(str::to_owned)).collect()
    }

    /// Changes an object, or takes it away.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(Option<Bytes>) -> Option<Bytes>) {
        let name = format!("wal/{:016x}/{name}", SYSTEM.get()).parse().unwrap();
        self.store.damage(&name, change);
    }
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// A piece as soon as possible.
pub(crate) fn at_once() -> WalOptions {
    WalOptions { piece_every: Duration::ZERO, oldest: Some(lsn(MIB)), ..options() }
}

/// A piece only when it is asked for.
pub(crate) fn when_asked() -> WalOptions {
    WalOptions { piece_every: Duration::from_hours(1), oldest: Some(lsn(MIB)), ..options() }
}

fn options() -> WalOptions {
    WalOptions { patience: PATIENCE, most_waiting: 4 * MIB, ..WalOptions::default() }
}

pub(crate) fn lsn(at: u64) -> Lsn {
    Lsn::new(at)
}

/// The name of the segment at that byte.
pub(crate) fn segment(timeline: Timeline, at: u64) -> String {
    SegmentName::of(timeline, lsn(at), size()).to_string()
}

/// Bytes that look a little like WAL: half of them compress. The first belongs at 1 MiB: there is no segment 0.
pub(crate) fn stream(seed: u64, length: u64) -> Bytes {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    for part in bytes.chunks_mut(128) {
        let half = part.len() / 2;
        dice.fill_bytes(&mut part[..half]);
    }
    bytes.into()
}

/// The part of the stream between two LSNs.
pub(crate) fn between(stream: &Bytes, from: u64, to: u64) -> Bytes {
    stream.slice(usize::try_from(from - MIB).unwrap()..usize::try_from(to - MIB).unwrap())
}

/// Waits until it is so.
pub(crate) async fn until(mut is: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap();
}
