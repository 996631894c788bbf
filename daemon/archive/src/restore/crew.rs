//! Those who write the files: one for each processor.
//!
//! **Invariant:** the first who fails stops all others.
//! **Invariant:** what is in memory is bounded: a few bundles of lines, and for each worker a few frames.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::{Counts, Plan, Roots, Walked, Watcher, present, target, write_at};
use crate::archive::Archive;
use crate::backup::blocks::{BLOCK, Fingerprints};
use crate::manifest::Manifest;
use crate::manifest::listing::{entry_of, list_of};
use crate::manifest::tree::{Digest, Entry, Extent, FileEntry};
use crate::pack::{Reader, Source, Tables};
use crate::stream::{FRAME, Stream};
use crate::trouble::Trouble;

/// Small files are given out together: so much, or so many.
const BUNDLE: u64 = 8 << 20;
const BUNDLE_FILES: usize = 200;

/// The most who work, however many processors there are: each holds a few frames.
const MOST_HANDS: usize = 16;

/// What a worker is given.
enum Task {
    Files(Vec<FileEntry>),
    /// A large one, by the place of its line.
    Large(u64),
}

pub(super) struct Crew {
    tasks: Option<mpsc::Sender<Task>>,
    hands: JoinSet<Result<(), Trouble>>,
    bundle: Vec<FileEntry>,
    weight: u64,
}

impl Crew {
    pub(super) fn start(
        plan: &Plan,
        roots: &Arc<Roots>,
        delta: bool,
        counts: &Arc<Counts>,
        watcher: &Watcher,
    ) -> Result<Self, Trouble> {
        let count = std::thread::available_parallelism().map_or(2, usize::from).min(MOST_HANDS);
        // One bundle that waits for each worker.
        let (tasks, inbox) = mpsc::channel(count);
        let inbox = Arc::new(Mutex::new(inbox));
        let runtime = tokio::runtime::Handle::current();
        let mut hands = JoinSet::new();
        for _ in 0..count {
            let mut hand = Hand::new(&plan.archive, &plan.manifest, &plan.tables, roots, delta, counts)?;
            let (inbox, watcher, runtime) = (inbox.clone(), watcher.clone(), runtime.clone());
            hands.spawn_blocking(move || runtime.block_on(hand.work(&inbox, &watcher)));
        }
        Ok(Self { tasks: Some(tasks), hands, bundle: Vec::new(), weight: 0 })
    }

    /// The large files, by the places of their lines.
    pub(super) async fn large(&mut self, places: &[(u64, u64)]) -> Result<(), Trouble> {
        for (_, place) in places {
            self.send(Task::Large(*place)).await?;
        }
        Ok(())
    }

    pub(super) async fn file(&mut self, file: FileEntry) -> Result<(), Trouble> {
        self.weight += file.size;
        self.bundle.push(file);
        if self.weight < BUNDLE && self.bundle.len() < BUNDLE_FILES {
            return Ok(());
        }
        self.weight = 0;
        let bundle = std::mem::take(&mut self.bundle);
        self.send(Task::Files(bundle)).await
    }

    async fn send(&mut self, task: Task) -> Result<(), Trouble> {
        let stopped = || Trouble::Broken("the restore has stopped".to_owned());
        let tasks = self.tasks.as_ref().ok_or_else(stopped)?;
        tasks.send(task).await.map_err(|_| stopped())
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// What the first one met who failed.
    pub(super) async fn finish(mut self) -> Result<(), Trouble> {
        let bundle = std::mem::take(&mut self.bundle);
        // Who cannot be given it has failed, and says why.
        let _ = self.send(Task::Files(bundle)).await;
        self.tasks = None;
        let mut first = Ok(());
        while let Some(ended) = self.hands.join_next().await {
            let ended = ended.map_err(|error| Trouble::Broken(format!("the restore of files: {error}")));
            if first.is_ok() {
                first = ended.flatten();
            }
        }
        first
    }
}

/// One who writes files.
pub(super) struct Hand {
    manifest: Arc<Manifest>,
    roots: Arc<Roots>,
    reader: Reader,
    prints: Reader,
    lines: Reader,
    walked: Walked,
    /// Set where what is there may be kept.
    fingerprints: Option<Fingerprints>,
    counts: Arc<Counts>,
}

impl Hand {
    pub(super) fn new(
        archive: &Archive,
        manifest: &Manifest,
        tables: &Tables,
        roots: &Arc<Roots>,
        delta: bool,
        counts: &Arc<Counts>,
    ) -> Result<Self, Trouble> {
        let fingerprints = Fingerprints::new(archive, Some(manifest))?;
        let same = delta && roots.present && fingerprints.key() == manifest.prints_key;
        let reader = || Reader::new(tables);
        Ok(Self {
            manifest: Arc::new(manifest.clone()),
            roots: roots.clone(),
            reader: reader(),
            prints: reader(),
            lines: reader(),
            walked: Walked::default(),
            fingerprints: same.then_some(fingerprints),
            counts: counts.clone(),
        })
    }

    async fn work(&mut self, inbox: &Mutex<mpsc::Receiver<Task>>, watcher: &Watcher) -> Result<(), Trouble> {
        loop {
            let next = inbox.lock().await.recv().await;
            let worked = match next {
                None => return Ok(()),
                Some(Task::Large(place)) => self.large(place).await,
                Some(Task::Files(files)) => self.files(&files).await,
            };
            if let Err(error) = worked {
                // Nobody gives out more, and nobody takes more.
                let mut inbox = inbox.lock().await;
                inbox.close();
                while inbox.try_recv().is_ok() {}
                return Err(error);
            }
            watcher(self.counts.now());
        }
    }

    async fn files(&mut self, files: &[FileEntry]) -> Result<(), Trouble> {
        for file in files {
            self.file(file).await?;
        }
        Ok(())
    }

    async fn large(&mut self, place: u64) -> Result<(), Trouble> {
        let source = list_of(&self.manifest);
        let line = self.lines.line(&source, place).await?;
        match entry_of(&self.manifest, &line)? {
            Entry::File(file) => self.file(&file).await.map(drop),
            _ => Err(Trouble::Broken("a large file is none".to_owned())),
        }
    }

    /// Writes one file; what is there already and right may stay.
    pub(super) async fn file(&mut self, entry: &FileEntry) -> Result<File, Trouble> {
        let roots = self.roots.clone();
        let root = roots.of(entry.tablespace)?;
        let shown = root.shown(&entry.path);
        let failed = |source| Trouble::file(shown.clone(), source);
        let mut file = None;
        if roots.present {
            file = match root.present(&mut self.walked, &entry.path)? {
                Some(there) if self.fingerprints.is_some() && self.keep(entry, &there).await? => Some(there),
                _ => {
                    root.remove(&mut self.walked, &entry.path)?;
                    None
                }
            };
        }
        let file = match file {
            Some(file) => file,
            None => {
                let file = root.create(&mut self.walked, &entry.path)?;
                self.write(entry, &file, &shown).await?;
                file
            }
        };
        target::dress(&file, entry.mode, entry.mtime).map_err(failed)?;
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        Ok(file)
    }

    fn source(&self, origin: u32, stream: Stream) -> Result<Source, Trouble> {
        let origin = self.manifest.origins.get(origin as usize);
        let origin = origin.ok_or_else(|| Trouble::Broken("a part of no origin".to_owned()))?;
        Ok(Source { backup: origin.backup.clone(), stream, length: origin.used(stream).length })
    }

    /// All of it, into a file that is new.
    async fn write(
        &mut self,
        entry: &FileEntry,
        file: &File,
        shown: &std::path::Path,
    ) -> Result<(), Trouble> {
        let mut digest = blake3::Hasher::new();
        let mut at = 0;
        for Extent(origin, offset, length) in &entry.data {
            let source = self.source(*origin, Stream::Data)?;
            let counts = self.counts.clone();
            let write = |piece: &[u8]| {
                digest.update(piece);
                write_at(file, piece, at).map_err(|source| Trouble::file(shown, source))?;
                at += piece.len() as u64;
                counts.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok(())
            };
            self.reader.read(&source, *offset, *length, write).await?;
        }
        if Digest::from(digest.finalize()) == entry.digest { Ok(()) } else { Err(self.untrue(entry)) }
    }

    fn untrue(&self, entry: &FileEntry) -> Trouble {
        let path = entry.path.to_string();
        Trouble::Untrue { path, backup: self.manifest.backup.to_string() }
    }

    /// Brings a file that is there to what it was: fetches the blocks whose fingerprints differ. False when that did not
    /// come to the right digest.
    async fn keep(&mut self, entry: &FileEntry, file: &File) -> Result<bool, Trouble> {
        let mut digest = blake3::Hasher::new();
        let failed = |source| Trouble::file(entry.path.as_path(), source);
        let mut wanted = Vec::new();
        for Extent(origin, offset, length) in &entry.prints {
            let source = self.source(*origin, Stream::Prints)?;
            let add = |piece: &[u8]| {
                wanted.extend_from_slice(piece);
                Ok(())
            };
            self.prints.read(&source, *offset, *length, add).await?;
        }
        let mut cursor = present::Place::default();
        let (mut buffer, mut have, mut at) = (vec![0; FRAME], Vec::new(), 0);
        let mut kept = 0;
        while at < entry.size {
            let most = usize::try_from(entry.size - at).unwrap_or(usize::MAX).min(FRAME);
            let read = present::read_at(file, &mut buffer[..most], at).map_err(failed)?;
            have.clear();
            if let Some(fingerprints) = &self.fingerprints {
                fingerprints.take(&buffer[..read], &mut have)?;
            }
            for (number, from) in (0..most).step_by(BLOCK).enumerate() {
                let to = (from + BLOCK).min(most);
                let place = (usize::try_from(at).unwrap_or(usize::MAX) / BLOCK + number) * 8;
                let same = to <= read && have.get(number * 8..number * 8 + 8) == wanted.get(place..place + 8);
                if same {
                    kept += (to - from) as u64;
                    cursor.skip(&entry.data, (to - from) as u64);
                    continue;
                }
                let mut into = from;
                for Extent(origin, offset, length) in cursor.take(&entry.data, (to - from) as u64) {
                    let source = self.source(origin, Stream::Data)?;
                    let copy = |piece: &[u8]| {
                        buffer[into..into + piece.len()].copy_from_slice(piece);
                        into += piece.len();
                        Ok(())
                    };
                    self.reader.read(&source, offset, length, copy).await?;
                }
                write_at(file, &buffer[from..to], at + from as u64).map_err(failed)?;
            }
            digest.update(&buffer[..most]);
            at += most as u64;
        }
        file.set_len(entry.size).map_err(failed)?;
        if Digest::from(digest.finalize()) != entry.digest {
            return Ok(false);
        }
        self.counts.bytes.fetch_add(entry.size, Ordering::Relaxed);
        self.counts.kept.fetch_add(kept, Ordering::Relaxed);
        Ok(true)
    }
}
