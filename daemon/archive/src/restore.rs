//! A backup, back where it can be used.
//!
//! **Invariant:** nothing outside the target is written, whatever the archive says.
//! **Invariant:** `global/pg_control` comes last, when all else is durable: what is half restored does not start.
//! **Invariant:** every file's digest is that of the backup, or the restore has failed.
//! **Invariant:** a folder with something in it is written into only when it is a stopped cluster of the same system, and the
//! caller said so.

mod crew;
mod present;
mod target;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lifeboat_core::{Lsn, SystemIdentifier, Timeline};
use serde::Serialize;

use crate::archive::Archive;
use crate::backup::tablespace_link;
use crate::manifest::listing::Listing;
use crate::manifest::tree::{Entry, FileEntry, LinkEntry, TreePath};
use crate::manifest::{BackupId, Manifest};
use crate::pack::Tables;
use crate::trouble::Trouble;
use crew::Crew;
use target::{Root, Walked};

/// Where a server's control file is: without it, it does not start.
const CONTROL: &str = "global/pg_control";

/// What says, in a target, that a restore is not finished.
const MARKER: &str = "lifeboat-restore.json";

/// A file this long is a task of its own, and given out first.
const LARGE: u64 = 64 << 20;

/// A restore that is thought through: what it will write, and what it will need.
pub struct Plan {
    archive: Archive,
    manifest: Manifest,
    tables: Tables,
    /// Its files.
    pub files: u64,
    /// How long they are, together.
    pub bytes: u64,
    /// The tablespaces, and where they were.
    pub tablespaces: BTreeMap<u32, String>,
    /// How long the large files are, and where their lines are.
    large: Vec<(u64, u64)>,
}

/// The WAL that a restored backup must replay to be consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WalNeeded {
    /// On which timeline it begins.
    pub timeline: Timeline,
    /// From there.
    pub start: Lsn,
    /// On which it ends.
    pub end_timeline: Timeline,
    /// To there at least.
    pub end: Lsn,
}

/// How it is to be done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where each tablespace goes.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// The target may be a stopped cluster of the same system: what is right there is kept, what is not in the backup is
    /// removed.
    pub delta: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Files that are finished.
    pub files: u64,
    /// Bytes that are in their place.
    pub bytes: u64,
    /// Those of them that were there already.
    pub kept: u64,
}

/// What is told of the progress.
pub type Watcher = Arc<dyn Fn(Progress) + Send + Sync>;

/// Counts, for all who work.
#[derive(Default)]
pub(crate) struct Counts {
    files: AtomicU64,
    bytes: AtomicU64,
    kept: AtomicU64,
}

impl Counts {
    fn now(&self) -> Progress {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Progress { files: read(&self.files), bytes: read(&self.bytes), kept: read(&self.kept) }
    }
}

impl Plan {
    /// Thinks a restore through: reads the manifest and all that it lists.
    ///
    /// # Errors
    /// They cannot be read, or are not what they should be.
    pub async fn of(archive: &Archive, system: SystemIdentifier, backup: &BackupId) -> Result<Self, Trouble> {
        let manifest = Manifest::read(archive, system, backup).await?;
        let tables = Tables::new(archive, system);
        let (mut files, mut bytes) = (0, 0);
        let (mut tablespaces, mut large) = (BTreeMap::new(), Vec::new());
        let mut listing = Listing::new(&manifest, &tables);
        while let Some((place, entry)) = listing.next().await? {
            match entry {
                Entry::File(file) => {
                    files += 1;
                    bytes += file.size;
                    if file.size >= LARGE {
                        large.push((file.size, place));
                    }
                }
                Entry::Tablespace(tablespace) => {
                    tablespaces.insert(tablespace.oid, tablespace.location);
                }
                Entry::Folder(_) | Entry::Link(_) => {}
            }
        }
        large.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self { archive: archive.clone(), manifest, tables, files, bytes, tablespaces, large })
    }

    /// What is restored.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What must be replayed for it to be consistent.
    #[must_use]
    pub fn wal(&self) -> WalNeeded {
        let Manifest { point, end, end_timeline, .. } = &self.manifest;
        WalNeeded { timeline: point.timeline, start: point.start, end_timeline: *end_timeline, end: *end }
    }

    /// Does it. When this returns, all of it is durable.
    ///
    /// # Errors
    /// The target is refused, the archive is damaged, or the target cannot be written. Then there is no `global/pg_control`.
    pub async fn run(&self, target: &Path, options: &Options, watcher: Watcher) -> Result<Progress, Trouble> {
        let roots = Arc::new(self.roots(target, options)?);
        let counts = Arc::new(Counts::default());
        let mut done = Done::default();
        let mut crew = Crew::start(self, &roots, options.delta, &counts, &watcher)?;
        let given = self.give(&roots, options, &mut crew, &mut done).await;
        // What a worker met is the cause when giving out failed because they had stopped.
        crew.finish().await?;
        given?;
        let (archive, manifest, tables) = (self.archive.clone(), self.manifest.clone(), self.tables.clone());
        let (delta, counted) = (options.delta, counts.clone());
        let runtime = tokio::runtime::Handle::current();
        let closing = move || {
            let mut hand = crew::Hand::new(&archive, &manifest, &tables, &roots, delta, &counted)?;
            done.close(&roots, &manifest, |file| runtime.block_on(hand.file(&file)))
        };
        let closed = tokio::task::spawn_blocking(closing).await;
        closed.map_err(|error| Trouble::Broken(format!("the end of a restore: {error}")))??;
        watcher(counts.now());
        Ok(counts.now())
    }

    /// The folders that are written into, after everything that speaks against it was looked at.
    fn roots(&self, target: &Path, options: &Options) -> Result<Roots, Trouble> {
        let unnamed: Vec<String> = self
            .tablespaces
            .iter()
            .filter(|(oid, _)| !options.tablespaces.contains_key(oid))
            .map(|(oid, location)| format!("--tablespace {oid}={location}"))
            .collect();
        if !unnamed.is_empty() {
            return Err(Trouble::Refused(format!(
                "the backup has tablespaces; say where each goes, for example where it was: {}",
                unnamed.join(" ")
            )));
        }
        let data = Root::open(target)?;
        let system = self.manifest.point.system;
        let present = present::look(&data, system, options.delta)?;
        let mut tablespaces = BTreeMap::new();
        for oid in self.tablespaces.keys() {
            let Some(place) = options.tablespaces.get(oid) else { continue };
            if place.is_relative() || place.starts_with(target) || target.starts_with(place) {
                let shown = place.display();
                return Err(Trouble::Refused(format!(
                    "tablespace {oid} cannot go to {shown}: it takes an absolute path outside the data folder"
                )));
            }
            let root = Root::open(place)?;
            // What is in it is removed where it is not in the backup: so it must be a tablespace's.
            if !present::names(&root)?.iter().all(|name| present && name.starts_with(b"PG_")) {
                let shown = place.display();
                return Err(Trouble::Refused(format!("tablespace {oid}: {shown} is not empty")));
            }
            tablespaces.insert(*oid, root);
        }
        if !present && tablespaces.is_empty() {
            present::space(&data, self.bytes)?;
        }
        present::mark(&data, system, &self.manifest.backup)?;
        Ok(Roots { data, tablespaces, present })
    }

    /// Makes folders, and gives out files: the large ones first, then all others as they are listed.
    async fn give(
        &self,
        roots: &Arc<Roots>,
        options: &Options,
        crew: &mut Crew,
        done: &mut Done,
    ) -> Result<(), Trouble> {
        let mut walked = Walked::default();
        let mut listing = Listing::new(&self.manifest, &self.tables);
        // Folders are few and come first, so that the large files have theirs.
        while let Some((_, entry)) = listing.next().await? {
            if let Entry::Folder(folder) = entry {
                let root = roots.of(folder.tablespace)?;
                if roots.present {
                    done.make_room(root, &mut walked, &folder.path)?;
                    done.listed.push(present::key(folder.tablespace, &folder.path));
                }
                root.folder(&mut walked, &folder.path, folder.mode, roots.present)?;
                if folder.mode & 0o700 != 0o700 {
                    done.modes.push((folder.tablespace, folder.path, folder.mode));
                }
            }
        }
        crew.large(&self.large).await?;
        let mut listing = Listing::new(&self.manifest, &self.tables);
        while let Some((_, entry)) = listing.next().await? {
            match entry {
                Entry::File(file) => {
                    if roots.present {
                        done.listed.push(present::key(file.tablespace, &file.path));
                    }
                    if file.tablespace.is_none() && file.path.as_bytes() == CONTROL.as_bytes() {
                        if done.control.replace(file).is_some() {
                            return Err(Trouble::Refused(format!("{CONTROL} is listed twice")));
                        }
                    } else if file.size < LARGE {
                        crew.file(file).await?;
                    }
                }
                Entry::Link(link) => {
                    if !inside(&link) {
                        return Err(Trouble::Refused(format!(
                            "{} would lead out of the target, to {}",
                            link.path, link.to
                        )));
                    }
                    done.links.push((link.tablespace, link.path, link.to.into()));
                }
                Entry::Tablespace(tablespace) => {
                    let path = tablespace_link(tablespace.oid)?;
                    let place = options.tablespaces.get(&tablespace.oid).cloned().unwrap_or_default();
                    done.links.push((None, path, place));
                }
                Entry::Folder(_) => {}
            }
        }
        Ok(())
    }
}

/// Whether a link stays inside whatever it passes: it goes up first, no further than the top, and then only down. Something
/// like `a/..` would go up from wherever `a` leads.
fn inside(link: &LinkEntry) -> bool {
    let mut depth = link.path.as_bytes().iter().filter(|byte| **byte == b'/').count();
    let mut down = false;
    !link.to.is_empty()
        && link.to.split('/').all(|part| match part {
            ".." if !down && depth > 0 => {
                depth -= 1;
                true
            }
            "" | "." | ".." => false,
            _ => {
                down = true;
                true
            }
        })
}

/// The folders that are written into.
pub(crate) struct Roots {
    data: Root,
    tablespaces: BTreeMap<u32, Root>,
    /// Something is there already.
    present: bool,
}

impl Roots {
    fn of(&self, tablespace: Option<u32>) -> Result<&Root, Trouble> {
        match tablespace {
            None => Ok(&self.data),
            Some(oid) => self
                .tablespaces
                .get(&oid)
                .ok_or_else(|| Trouble::Refused(format!("the tablespace {oid} is not in the backup"))),
        }
    }

    fn all(&self) -> impl Iterator<Item = (Option<u32>, &Root)> {
        let others = self.tablespaces.iter().map(|(oid, root)| (Some(*oid), root));
        std::iter::once((None, &self.data)).chain(others)
    }
}

/// What is left to do when the files are there.
#[derive(Default)]
struct Done {
    control: Option<FileEntry>,
    links: Vec<(Option<u32>, TreePath, PathBuf)>,
    modes: Vec<(Option<u32>, TreePath, u32)>,
    /// What is in the backup, in short; only where something was there before.
    listed: Vec<u64>,
}

impl Done {
    /// A folder is to be where something else is.
    fn make_room(&self, root: &Root, walked: &mut Walked, path: &TreePath) -> Result<(), Trouble> {
        match root.look(walked, path)? {
            Some(seen) if rustix::fs::FileType::from_raw_mode(seen.st_mode).is_dir() => Ok(()),
            None => Ok(()),
            Some(_) => root.remove(walked, path),
        }
    }

    /// Removes what does not belong, makes links, makes all of it durable; then the control file, and that durable as well.
    fn close(
        mut self,
        roots: &Roots,
        manifest: &Manifest,
        mut file: impl FnMut(FileEntry) -> Result<File, Trouble>,
    ) -> Result<(), Trouble> {
        let mut walked = Walked::default();
        if roots.present {
            self.listed
                .extend(self.links.iter().map(|(tablespace, path, _)| present::key(*tablespace, path)));
            self.listed.sort_unstable();
            for (tablespace, root) in roots.all() {
                present::clear(root, tablespace, &self.listed)?;
            }
        }
        for (tablespace, path, to) in &self.links {
            let root = roots.of(*tablespace)?;
            if roots.present {
                root.remove(&mut walked, path)?;
            }
            root.link(&mut walked, path, to)?;
        }
        for (tablespace, path, mode) in self.modes.iter().rev() {
            roots.of(*tablespace)?.mode(&mut walked, path, *mode)?;
        }
        for (_, root) in roots.all() {
            root.settle()?;
        }
        present::unmark(&roots.data)?;
        if let Some(control) = self.control {
            let shown = roots.data.shown(&control.path);
            let control = file(control)?;
            control.sync_all().map_err(|source| Trouble::file(shown, source))?;
        }
        tracing::info!(backup = %manifest.backup, target = %roots.data.place().display(), "restored");
        roots.data.settle()
    }
}

/// Writes all of a piece at its place.
fn write_at(file: &File, piece: &[u8], at: u64) -> std::io::Result<()> {
    file.write_all_at(piece, at)
}

#[cfg(test)]
mod tests;
